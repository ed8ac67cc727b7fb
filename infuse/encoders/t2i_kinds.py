"""What a T2I-Adapter is, told by the shapes of its tensors alone, and where its features enter a base network.

Two public layouts are known: TencentARC's own (a flat list of blocks) and diffusers' (blocks by level). Imports no torch: a
check asks here. Sources: TencentARC/T2I-Adapter@16bba67, ldm/modules/encoders/adapter.py; diffusers' T2IAdapter.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from infuse.errors import RecipeError, WeightsError
from infuse.network.spec import NetworkSpec

SOFT = (0.25, 0.62, 0.825, 1.0)
"""Factors of the features, shallow to deep, where the prompt is more important (Mikubill/sd-webui-controlnet@56cec5b)."""
MADE_FOR = {64: "SD 1.x", 192: "SD 1.x", 256: "SDXL", 768: "SDXL"}
"""Channels of the first convolution -> base: 8 x 8 pixels of a grey or coloured hint, or 16 x 16 of SDXL's."""


@dataclass(frozen=True)
class Anatomy:
    """A T2I-Adapter in numbers. `widths` are the channels of its features, shallow to deep."""

    light: bool
    inputs: int
    """Channels of a hint whose pixels were folded away: those of the picture times a square."""
    widths: tuple[int, ...]
    layers: int
    """Residual blocks of each level."""
    kernel: int = 1
    """Side of the second convolution of a full adapter's blocks, and of those that change the width."""
    strided: frozenset[int] = frozenset()
    """Levels that a strided convolution halves, where all others take means of 2 x 2."""

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor that such an adapter has, by diffusers' names."""
        found: dict[str, tuple[int, ...]] = {}

        def conv(name: str, after: int, before: int, kernel: int) -> None:
            found[f"{name}.weight"], found[f"{name}.bias"] = (after, before, kernel, kernel), (after,)

        before = self.inputs
        if not self.light:
            conv("adapter.conv_in", self.widths[0], before, 3)
            before = self.widths[0]
        for i, width in enumerate(self.widths):
            at, inner = f"adapter.body.{i}", width // 4 if self.light else width
            if i in self.strided:
                conv(f"{at}.downsample.op", before, before, 3)
            if self.light or before != width:
                conv(f"{at}.in_conv", inner, before, 1 if self.light else self.kernel)
            for j in range(self.layers):
                conv(f"{at}.resnets.{j}.block1", inner, inner, 3)
                conv(f"{at}.resnets.{j}.block2", inner, inner, 3 if self.light else self.kernel)
            if self.light:
                conv(f"{at}.out_conv", width, inner, 1)
            before = width
        return found


def anatomy(shapes: Mapping[str, tuple[int, ...]], model: str, field: str = "model") -> Anatomy:
    """What these tensors (in any layout) make. Raises WeightsError unless they are one whole T2I-Adapter."""
    mine = {new: tuple(shapes[old]) for old, new in named(shapes).items()}
    levels = {int(m[1]) for k in mine if (m := re.match(r"adapter\.body\.(\d+)\.", k))}
    firsts = [mine.get(f"adapter.body.{i}.resnets.0.block2.weight") for i in range(len(levels))]
    entry = mine.get("adapter.conv_in.weight") or mine.get("adapter.body.0.in_conv.weight")
    if not entry or len(entry) != 4 or not firsts or not all(f and len(f) == 4 for f in firsts):
        raise WeightsError(field, f"{model!r} is no T2I-Adapter: its tensors have other names. Choose the adapter's own file or folder.")  # fmt: skip
    light = "adapter.conv_in.weight" not in mine
    ends = [mine.get(f"adapter.body.{i}.out_conv.weight") if light else f for i, f in enumerate(firsts)]
    found = Anatomy(
        light,
        entry[1],
        tuple(e[0] if e else 0 for e in ends),
        1 + max(int(m[1]) for k in mine if (m := re.match(r"adapter\.body\.\d+\.resnets\.(\d+)\.", k))),
        1 if light else firsts[0][2],  # type: ignore[index]
        frozenset(i for i in levels if f"adapter.body.{i}.downsample.op.weight" in mine),
    )
    wanted = found.shapes()
    if wrong := [k for k in (*wanted, *mine) if wanted.get(k) != mine.get(k)]:
        raise WeightsError(field, f"{model!r} is no whole T2I-Adapter: {len(set(wrong))} of its {len(wanted)} tensors are missing, too many "
                                  f"or of another shape (first: {wrong[0]}). Download it again, or choose another.")  # fmt: skip
    return found


def named(keys: Iterable[str]) -> dict[str, str]:
    """Every key -> diffusers' name of it, whatever stands before `body`; keys of neither layout keep theirs."""
    found = {k: m for k in keys if (m := re.match(r"(?:.*?\.)??(?=(?:conv_in|body\.\d+)\.)", k))}
    bare = {k: k[m.end() :] for k, m in found.items()}
    if any(".resnets." in b for b in bare.values()):
        return {k: f"adapter.{bare[k]}" if k in bare else k for k in keys}
    light = any(re.match(r"body\.\d+\.body\.", b) for b in bare.values())
    per = 1 if light else _per_level(bare.values())

    def renamed(name: str) -> str:
        m = re.match(r"body\.(\d+)\.(.*)", name)
        if m is None:
            return name
        level, rest = divmod(int(m[1]), per)
        what = m[2].replace("down_opt.", "downsample.")
        if light:
            return f"body.{level}.{re.sub(r'^body', 'resnets', what)}"
        return f"body.{level}.{f'resnets.{rest}.' if what.startswith('block') else ''}{what}"

    return {k: f"adapter.{renamed(bare[k])}" if k in bare else k for k in keys}


def _per_level(names: Iterable[str]) -> int:
    """How many of the original's flat blocks make one level. Files don't say it: all releases have two.

    A block that changes the width begins a level, so another number is taken where two cannot be.
    """
    names = list(names)
    blocks = 1 + max((int(m[1]) for n in names if (m := re.match(r"body\.(\d+)\.", n))), default=0)
    begins = {int(m[1]) for n in names if (m := re.match(r"body\.(\d+)\.(?:in_conv|down_opt)", n))}
    return next((n for n in (2, 3, 1, 4) if blocks % n == 0 and all(b % n == 0 for b in begins)), 1)


# Where features enter ----------------------------------------------------------------------------------------------


def places(net: NetworkSpec) -> tuple[tuple[int, int], ...]:
    """(width, halvings of the latent) of everything that a feature is added to, shallow to deep: as many for every adapter.

    After the last layer of a block with attention, before it is halved; after the halving of one without, as diffusers'
    UNet2DConditionModel has it and both families were trained (SD 1.x: 0 1 2 3). Where the first one enters after a halving, the
    middle hears one, too (SDXL: 1 1 2 2).
    """
    kinds, last = net.config.get("down_block_types") or (), len(net.widths) - 1
    down = tuple(
        (w, i if "CrossAttn" in k else min(i + 1, last)) for i, (w, k) in enumerate(zip(net.widths, kinds, strict=True))
    )
    return (*down, (net.widths[-1], last)) if down[0][1] else down


def fits(found: Anatomy, net: NetworkSpec, model: str, field: str = "model") -> tuple[int, tuple[int, ...]]:
    """(channels of its hints, halvings of the latent at each of its features).

    Raises RecipeError unless every feature has a place in this base. SD 1.x and 2.x have the same; no text is heard.
    """
    there = places(net)
    fold = net.vae_factor << there[0][1]
    want = [c * fold * fold for c in (1, 3)]
    who = f"was made for {MADE_FOR.get(found.inputs, 'a base of another shape')}, this recipe's base is {net.described}"
    if found.inputs not in want:
        raise RecipeError(field, f"{model!r} {who}: it folds a hint into {found.inputs} channels, where this base wants {want[0]} (grey) or "
                                 f"{want[1]}. Choose a T2I-Adapter of the base's family, or another base.")  # fmt: skip
    if found.widths != (widths := tuple(w for w, _ in there)):
        raise RecipeError(field, f"{model!r} {who}: its features are {found.widths} channels wide, and {net.name} has places for {widths}. "
                                 "Choose a T2I-Adapter of the base's family, or another base.")  # fmt: skip
    return found.inputs // (fold * fold), tuple(level for _, level in there)


def made_for(net: NetworkSpec, channels: int = 3, *, light: bool = False, layers: int = 2) -> Anatomy:
    """A new adapter for hints of 1 or 3 channels that fits this base. Light ones were released with 4 layers."""
    there = places(net)
    fold = net.vae_factor << there[0][1]
    return Anatomy(light, channels * fold * fold, tuple(w for w, _ in there), layers)


def soft(n: int) -> tuple[float, ...]:
    """The webui's factors for that many features: the first of its four, and 1 for what is deeper."""
    return (*SOFT, *(1.0,) * n)[:n]


# Style -------------------------------------------------------------------------------------------------------------


def style_of(shapes: Mapping[str, tuple[int, ...]], model: str, field: str = "model") -> tuple[int, int, int]:
    """(tokens, width of the states that it reads, width of the tokens) of a style adapter.

    Raises WeightsError unless its tensors are those of one.
    """
    mine = {k.rpartition(".")[2]: s for k, s in shapes.items()}
    embedding, proj = mine.get("style_embedding", ()), mine.get("proj", ())
    if len(embedding) != 3 or len(proj) != 2 or embedding[2] != proj[0] or embedding[2] % 8:
        raise WeightsError(field, f"{model!r} is no style adapter: it has no tokens that read the states of a picture. Choose another file.")  # fmt: skip
    return embedding[1], embedding[2], proj[1]


# Fuser -------------------------------------------------------------------------------------------------------------

TASKS = ("sketch", "keypose", "seg", "depth", "canny", "style", "color", "openpose")
"""What a CoAdapter's members can be, in the order of its fuser's task embeddings; the rows after them were never trained."""


@dataclass(frozen=True)
class Fusing:
    """A CoAdapter's fuser in numbers."""

    width: int
    """Of its tokens, which is that of the prompt's."""
    tasks: int
    channels: tuple[int, ...]
    """Of the features, shallow to deep."""
    layers: int


def fuser_of(shapes: Mapping[str, tuple[int, ...]], model: str, field: str = "model") -> Fusing:
    """What these tensors make. Raises WeightsError unless they are a fuser's."""
    start = next((k for k in shapes if k.endswith("task_embedding")), "task_embedding").removesuffix("task_embedding")
    mine = {k.removeprefix(start): s for k, s in shapes.items() if k.startswith(start)}
    task, ends = mine.get("task_embedding", ()), [k for k in mine if re.fullmatch(r"spatial_ch_projs\.\d+\.weight", k)]
    channels = [mine.get(f"spatial_ch_projs.{i}.weight", (0,))[0] for i in range(len(ends))]
    layers = {m[1] for k in mine if (m := re.match(r"transformer_layes\.(\d+)\.", k))}
    if len(task) != 2 or "seq_proj" not in mine or 0 in (channels or [0]) or task[1] % 8 or task[0] < len(TASKS):
        raise WeightsError(field, f"{model!r} is no fuser of a CoAdapter: no task embeddings with factors for features are in it. Choose "
                                  "coadapter-fuser-sd15v1 or its like; the adapters that it fuses are members.")  # fmt: skip
    return Fusing(task[1], task[0], tuple(channels), len(layers))
