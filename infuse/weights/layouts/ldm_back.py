"""A diffusers name in, the name of the original checkpoint out: the way back of `ldm_keys`, whose tables it reads from the other side.

Each function takes the names of one component, and checks itself by the way there: whatever comes back under another name
than it left is refused, so that a slip here is a letter and never a wrong file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

from infuse.errors import WeightsError
from infuse.weights.layouts import ldm_keys


def turned(table: Mapping[str, str]) -> dict[str, str]:
    return {new: old for old, new in table.items()}


RESNET, ATTENTION, SHORTCUT = map(turned, (ldm_keys.RESNET, ldm_keys.VAE_ATTENTION, ldm_keys.SHORTCUT))
VECTORS = ("add_embedding", "class_embedding")


def unet(names: Iterable[str]) -> dict[str, str]:
    """Diffusers name -> LDM key of a UNet. Raises WeightsError for one that LDM's layout cannot say."""
    names = list(names)
    per = 1 + max((int(m[1]) for n in names if (m := re.match(r"down_blocks\.0\.resnets\.(\d+)\.", n))), default=0)
    middle = {new: f"middle_block.{n}" for n, new in ldm_keys.MIDDLE.items()}
    vector = next((v for v in VECTORS if f"{v}.linear_1.weight" in names), VECTORS[0])
    flat = turned(ldm_keys.flat(vector))
    attends = {m[1] for n in names if (m := re.match(r"(up_blocks\.\d+)\.attentions\.", n))}

    def back(name: str) -> str | None:
        module, _, leaf = name.rpartition(".")
        if module in flat:
            return f"{flat[module]}.{leaf}"
        for new, old in middle.items():
            if name.startswith(f"{new}."):
                return _inner(old, new, name.removeprefix(f"{new}."))
        m = re.fullmatch(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)", name)
        if not m:
            return None
        side, level, kind, at, rest = m[1], int(m[2]), m[3], int(m[4]), m[5]
        if kind == "downsamplers":
            return f"input_blocks.{(level + 1) * (per + 1)}.0.op.{rest.removeprefix('conv.')}"
        if kind == "upsamplers":
            slot = 2 if f"up_blocks.{level}" in attends else 1
            return f"output_blocks.{level * (per + 1) + per}.{slot}.{rest}"
        block = f"input_blocks.{1 + level * (per + 1) + at}" if side == "down" else f"output_blocks.{level * (per + 1) + at}"  # fmt: skip
        return _inner(f"{block}.{0 if kind == 'resnets' else 1}", kind, rest)

    return _there_and_back(names, back, lambda keys: ldm_keys.trunk(keys, vector), "UNet")


def _inner(block: str, kind: str, rest: str) -> str | None:
    if "resnets" not in kind:
        return f"{block}.{rest}"
    module, _, leaf = rest.rpartition(".")
    return f"{block}.{RESNET[module]}.{leaf}" if module in RESNET else None


def vae(names: Iterable[str]) -> dict[str, str]:
    """Diffusers name -> LDM key of an AutoencoderKL."""
    names = list(names)
    ups = 1 + max((int(m[1]) for n in names if (m := re.match(r"decoder\.up_blocks\.(\d+)\.", n))), default=0)

    def back(name: str) -> str | None:
        side, _, rest = name.partition(".")
        if side in ("quant_conv", "post_quant_conv"):
            return name
        if rest.startswith(("conv_in.", "conv_out.")):
            return name
        if m := re.fullmatch(r"conv_norm_out\.(\w+)", rest):
            return f"{side}.norm_out.{m[1]}"
        if m := re.fullmatch(r"mid_block\.resnets\.(\d)\.(.+)", rest):
            return f"{side}.mid.block_{int(m[1]) + 1}.{_shortcut(m[2])}"
        if m := re.fullmatch(r"mid_block\.attentions\.0\.(.+)\.(\w+)", rest):
            return f"{side}.mid.attn_1.{ATTENTION[m[1]]}.{m[2]}" if m[1] in ATTENTION else None
        m = re.fullmatch(r"(down|up)_blocks\.(\d+)\.(?:resnets\.(\d+)\.(.+)|(down|up)samplers\.0\.conv\.(\w+))", rest)
        if not m:
            return None
        level = int(m[2]) if m[1] == "down" else ups - 1 - int(m[2])
        if m[5]:
            return f"{side}.{m[1]}.{level}.{m[5]}sample.conv.{m[6]}"
        return f"{side}.{m[1]}.{level}.block.{m[3]}.{_shortcut(m[4])}"

    return _there_and_back(names, back, ldm_keys.vae, "VAE")


def _shortcut(rest: str) -> str:
    name, dot, leaf = rest.partition(".")
    return SHORTCUT.get(name, name) + dot + leaf


def open_clip(names: Iterable[str]) -> dict[str, str]:
    """Transformers name -> OpenCLIP key of a text tower; of q, k and v the key of the one tensor that they become."""
    plain, layer = turned(ldm_keys.OPEN_CLIP), turned(ldm_keys.OPEN_CLIP_LAYER)
    found: dict[str, str] = {}
    for name in names:
        if name in plain:
            found[name] = plain[name]
            continue
        m = re.fullmatch(r"text_model\.encoder\.layers\.(\d+)\.(.+)\.(weight|bias)", name)
        if m and re.fullmatch(r"self_attn\.[qkv]_proj", m[2]):
            found[name] = f"transformer.resblocks.{m[1]}.attn.in_proj_{m[3]}"
        elif m and m[2] in layer:
            found[name] = f"transformer.resblocks.{m[1]}.{layer[m[2]]}.{m[3]}"
        elif not name.endswith("position_ids"):
            raise _odd("text encoder", name)
    return found


def _there_and_back(
    names: list[str], back: Callable[[str], str | None], there: Callable[[list[str]], Mapping[str, str]], what: str
) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in names:
        key = back(name)
        if key is None:
            raise _odd(what, name)
        found[name] = key
    again = there(list(found.values()))
    wrong = next((n for n, k in found.items() if again.get(k) != n), None)
    if wrong is not None:
        raise _odd(what, wrong)
    return found


def _odd(what: str, name: str) -> WeightsError:
    return WeightsError("source", f"its {what} has a tensor that the original layout has no name for ({name}). Keep it as a folder.")  # fmt: skip
