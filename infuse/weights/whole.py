"""Is a file that stands beside a base whole? Told by its names alone, before anything of it is read.

What a layer consists of is known, and how many there are the file says by its highest number: half a download, every other
tensor of a file, or the last shard of three lacks what its other half counts on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

from infuse.errors import WeightsError
from infuse.weights.layouts import ldm_keys

FACTORS = {
    "up": "down", "lora_up.weight": "lora_down.weight", "lora_B.weight": "lora_A.weight", "lora.up.weight": "lora.down.weight",
}  # fmt: skip
"""How the two factors of a low-rank layer are spelled."""
RESNET = ("norm1", "conv1", "time_emb_proj", "norm2", "conv2")
AROUND = ("norm", "proj_in", "proj_out")
INSIDE = ("norm1", "norm2", "norm3", "attn1.to_out.0", "attn2.to_out.0", "ff.net.0.proj", "ff.net.2")
PLAIN = tuple(f"attn{n}.to_{name}" for n in (1, 2) for name in "qkv")
"""Projections that have no bias."""
UNION = ("spatial_ch_projs", "control_add_embedding.linear_1", "control_add_embedding.linear_2")
LOW_RANK = re.compile(r"^(?:ip_adapter\.)?(\d+)\.(to_(?:q|k|v|out)_lora\.(?:up|down)\.weight)$")


def must_be_whole(kind: str, prefix: str, keys: Iterable[str], model: str, field: str) -> None:
    """Raises WeightsError, with a name, if a file of this kind lacks something. Kinds that it knows nothing of are whole."""
    lacks = sorted(set(lacking(kind, prefix, keys)))
    if lacks:
        number = f"{len(lacks)} tensors" if len(lacks) > 1 else "a tensor"
        raise WeightsError(field, f"{model!r} is incomplete: it lacks {number} (first: {lacks[0]}). Download it again, or choose another "
                                  "file.")  # fmt: skip


def lacking(kind: str, prefix: str, keys: Iterable[str]) -> Iterator[str]:
    """Names, as diffusers has them, of what is not there."""
    own = [k.removeprefix(prefix) for k in keys if k.startswith(prefix)]
    if kind == "ip_adapter":
        yield from _adapter(own)
    if kind in ("t2i_style", "coadapter_fuser"):
        yield from (name for name in _reader(kind, set(own)) if name not in own)
    if kind not in ("controlnet", "controlnet_union", "controlnet_xs", "control_lora"):
        return
    if kind == "controlnet_xs" and any(k.startswith("ctrl_conv_in.") for k in own):
        return  # it lies inside of its base
    if kind == "controlnet_xs" and not any(k.startswith("down_blocks.") for k in own):
        return  # in the names of its first repository: another letter says so
    if kind == "control_lora":
        yield from _halves(own)
        own = [_joined(k) for k in own]
    if any(k.startswith("input_hint_block.") for k in own):
        own = [*ldm_keys.controlnet(own).values(), *own]
    there = set(own)
    # a Control-LoRA leaves out what its base has: of its own encoder, what one layer says all others of its kind say
    has = _said_by_siblings(there) if kind == "control_lora" else lambda name: True
    yield from (name for name in _expected(kind, there) if name not in there and has(name))


def _expected(kind: str, there: set[str]) -> Iterator[str]:
    def count(pattern: str) -> int:
        return 1 + max((int(m[1]) for k in there if (m := re.match(pattern, k))), default=-1)

    hints = count(r"controlnet_cond_embedding\.blocks\.(\d+)\.")
    hint = ("conv_in", "conv_out", *(f"blocks.{i}" for i in range(hints + hints % 2)))
    yield from _both("controlnet_cond_embedding", *hint)
    yield from _both("conv_in", "")
    blocks, layers = count(r"down_blocks\.(\d+)\."), max(count(r"down_blocks\.\d+\.resnets\.(\d+)\."), 1)
    stem = "mid_block.midblock" if kind == "controlnet_xs" else "mid_block"
    for b in range(blocks):
        yield from _layers(f"down_blocks.{b}", layers, layers, count, there)
        if b < blocks - 1:
            yield from _both(f"down_blocks.{b}.downsamplers", "conv" if kind == "controlnet_xs" else "0.conv")
    attends = any(k.startswith(f"{stem}.attentions.") for k in there)
    yield from _layers(stem, 1 + attends, 1, count, there)
    if kind == "controlnet_xs":
        yield from _both("", "control_to_base_for_conv_in", "mid_block.base_to_ctrl", "mid_block.ctrl_to_base")
        for b in range(blocks):
            sites = range(layers + (b < blocks - 1))
            yield from _both(
                f"down_blocks.{b}", *(f"{way}.{i}" for way in ("base_to_ctrl", "ctrl_to_base") for i in sites)
            )
            yield from _both(f"up_connections.{b}.ctrl_to_base", *map(str, range(layers + 1)))
        return
    yield from _both("time_embedding", "linear_1", "linear_2")
    if any(k.startswith("add_embedding.") for k in there):
        yield from _both("add_embedding", "linear_1", "linear_2")
    yield from _both("controlnet_down_blocks", *map(str, range(blocks * (layers + 1))))
    yield from _both("controlnet_mid_block", "")
    if kind == "controlnet_union":
        yield from ("task_embedding", *_both("", *UNION))


def _layers(stem: str, resnets: int, attentions: int, count: Callable[[str], int], there: set[str]) -> Iterator[str]:
    """A block's resnets, and its attentions if it has any."""
    for i in range(resnets):
        yield from _both(f"{stem}.resnets.{i}", *RESNET)
    if not any(k.startswith(f"{stem}.attentions.") and ".transformer_blocks." in k for k in there):
        return
    for i in range(attentions):
        at = f"{stem}.attentions.{i}"
        yield from _both(at, *AROUND)
        for j in range(max(count(rf"{re.escape(at)}\.transformer_blocks\.(\d+)\."), 1)):
            yield from _both(f"{at}.transformer_blocks.{j}", *INSIDE)
            yield from (f"{at}.transformer_blocks.{j}.{name}.weight" for name in PLAIN)


def _reader(kind: str, there: set[str]) -> Iterator[str]:
    """A style's network or a fuser: attentions over tokens, and what is before and after them."""
    layers = 1 + max((int(m[1]) for k in there if (m := re.match(r"transformer_layes\.(\d+)\.", k))), default=0)
    for i in range(layers):
        at = f"transformer_layes.{i}"
        yield from (f"{at}.attn.in_proj_weight", f"{at}.attn.in_proj_bias")
        yield from _both(at, "attn.out_proj", "ln_1", "ln_2", "mlp.c_fc", "mlp.c_proj")
    yield from _both("", "ln_pre", "ln_post")
    if kind == "t2i_style":
        yield from ("style_embedding", "proj")
        return
    levels = 1 + max((int(m[1]) for k in there if (m := re.match(r"spatial_\w+\.(\d+)\.", k))), default=0)
    yield from ("task_embedding", "positional_embedding", "seq_proj")
    for i in range(levels):
        yield from _both("", f"spatial_ch_projs.{i}", f"spatial_feat_mapping.{i}.1")


def _both(stem: str, *names: str) -> Iterator[str]:
    """Weight and bias of some layers."""
    yield from (".".join(filter(None, (stem, name, leaf))) for name in names for leaf in ("weight", "bias"))


def _said_by_siblings(there: set[str]) -> Callable[[str], bool]:
    known = {re.sub(r"\d+", "#", k) for k in there}
    own = ("controlnet_", "time_embedding.", "conv_in.")
    return lambda name: name.startswith(own[0]) or re.sub(r"\d+", "#", name) in known


def _joined(key: str) -> str:
    """The name of the weight that one of two factors makes."""
    ends = (*FACTORS, *FACTORS.values())
    end = next((e for e in ends if key.endswith(f".{e}")), None)
    return key if end is None else f"{key.removesuffix(end)}weight"


def _halves(keys: Iterable[str]) -> Iterator[str]:
    """What is missing of pairs of factors."""
    there = set(keys)
    for up, down in FACTORS.items():
        for one, other in ((up, down), (down, up)):
            yield from (f"{k.removesuffix(one)}{other}" for k in there
                        if k.endswith(f".{one}") and f"{k.removesuffix(one)}{other}" not in there)  # fmt: skip


def _adapter(keys: Iterable[str]) -> Iterator[str]:
    """An IP-Adapter has K and V for each attention, and a FaceID all factors wherever it has some."""
    there = set(keys)
    for k in there:
        for one, other in (("to_k_ip.weight", "to_v_ip.weight"), ("to_v_ip.weight", "to_k_ip.weight")):
            if k.endswith(one) and f"{k.removesuffix(one)}{other}" not in there:
                yield f"{k.removesuffix(one)}{other}"
    low = [m for k in there if (m := LOW_RANK.match(k))]
    if low:  # of all attentions, those of a picture with itself as well as those that read it
        numbers = {int(m[1]) for k in there if (m := re.match(r"(?:ip_adapter\.)?(\d+)\.", k))}
        head = "ip_adapter." if low[0].string.startswith("ip_adapter.") else ""
        for n in range(max(numbers) + 1):
            names = (f"to_{p}_lora.{f}.weight" for p in ("q", "k", "v", "out") for f in ("up", "down"))
            yield from (name for x in names if (name := f"{head}{n}.{x}") not in there)
