"""Where an IP-Adapter is heard: one factor for each cross-attention, from a name, from blocks, or as numbers.

A network's attentions come in groups, one for each of its `attentions.i`: 16 in SD 1.x and 2.x, 11 in SDXL. Groups count in
the order of a call (encoder, middle, decoder), factors in that of the files (encoder, decoder, middle). Numbers only;
imports no torch. Sources: cubiq/ComfyUI_IPAdapter_plus@9d076a3 (CrossAttentionPatch.py) and, with the same table,
Mikubill/sd-webui-controlnet@56cec5b; invoke-ai/InvokeAI@8e71a8a (app/invocations/ip_adapter.py);
InstantStyle/InstantStyle@f692735; huggingface/diffusers@58eb52c (unet_loader_utils.py).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from infuse.errors import RecipeError
from infuse.network.spec import NetworkSpec

Layers = tuple[float, ...] | dict[str, Any] | str
SD = (
    *(f"down_blocks.{b}.attentions.{i}" for b in range(3) for i in range(2)), "mid_block.attentions.0",
    *(f"up_blocks.{b}.attentions.{i}" for b in range(1, 4) for i in range(3)),
)  # fmt: skip
"""Groups of SD 1.x and 2.x in the order of a call."""
XL = (
    *(f"down_blocks.{b}.attentions.{i}" for b in (1, 2) for i in range(2)), "mid_block.attentions.0",
    *(f"up_blocks.{b}.attentions.{i}" for b in range(2) for i in range(3)),
)  # fmt: skip
"""Groups of SDXL."""


@dataclass(frozen=True)
class Spread:
    """One factor for each cross-attention, in the files' order; None: 1 everywhere.

    `turned`: where guidance pushes away from the picture instead: its tokens are heard on the negative side, and nothing on
    the prompt's (the "precise" presets).
    """

    plain: tuple[float, ...] | None = None
    turned: tuple[float, ...] | None = None


# Presets that run over all groups ---------------------------------------------------------------------------------------

Rule = Callable[[int, int, str], float]
"""(number of the group, how many there are, encoder | middle | decoder) -> factor."""


def _eased(part: Callable[[float, float], float]) -> Rule:
    return lambda t, n, _: 0.05 + 0.95 * part(t, n)


def _weak(*sides: str) -> Rule:
    return lambda _t, _n, side: 0.2 if side in sides else 1.0


RULES: Mapping[str, Rule] = {
    "linear": lambda *_: 1.0,
    "ease in": _eased(lambda t, n: 1 - t / n),
    "ease out": _eased(lambda t, n: t / n),
    "ease in out": _eased(lambda t, n: 1 - abs(t - n / 2) / (n / 2)),
    "reverse in out": _eased(lambda t, n: abs(t - n / 2) / (n / 2)),
    "weak input": _weak("encoder"),
    "weak middle": _weak("middle"),
    "weak output": _weak("decoder"),
    "strong middle": _weak("encoder", "decoder"),
}
"""For every network. "ease in" is loudest in the encoder, "ease out" in the decoder."""

# Presets that name groups: STYLE hears the picture, COMPOSITION hears it as layout, BOOST is where a precise preset turns it ----

STYLE, COMPOSITION, BOOST = "style", "composition", "boost"
Table = dict[int, tuple[str, float]]
"""Number of a group -> (whose factor, times this)."""


def _at(who: str, *numbers: int, part: float = 1.0) -> Table:
    return dict.fromkeys(numbers, (who, part))


def _but(n: int, who: str, *numbers: int) -> Table:
    """All of `n` groups, these excepted."""
    return _at(who, *(t for t in range(n) if t not in numbers))


_SD_STYLE, _SD_LAYOUT = _but(16, STYLE, *range(4, 9)), _at(COMPOSITION, 4, part=0.25) | _at(COMPOSITION, 5)
_XL_STYLE, _XL_LAYOUT = _at(STYLE, 6), _at(COMPOSITION, 3)
_INVOKE_SD, _INVOKE_LAYOUT = _at(STYLE, 7, 8, 9), _at(COMPOSITION, 4, 5, 6)

TABLES: Mapping[str, tuple[Table, Table]] = {
    "style": (_SD_STYLE, _XL_STYLE),
    "composition": (_SD_LAYOUT, _XL_LAYOUT),
    "strong style": (_but(16, STYLE, 4, 5), _but(11, STYLE, 3)),
    "style and composition": (_SD_STYLE | _SD_LAYOUT, _XL_STYLE | _XL_LAYOUT),
    "strong style and composition": (_but(16, STYLE, 4, 5) | _at(COMPOSITION, 4, 5), _but(11, STYLE, 3) | _XL_LAYOUT),
    "style precise": (_SD_STYLE | _at(BOOST, 4, part=0.25) | _at(BOOST, 5), _XL_STYLE | _at(BOOST, 3)),
    "composition precise": (
        _but(16, BOOST, *range(4, 9)) | _SD_LAYOUT | _at(BOOST, 6, 7, 8, part=0.1),
        _at(BOOST, *range(11), part=0.1) | _XL_LAYOUT | _at(BOOST, 6),
    ),
    "layout": (_INVOKE_LAYOUT, _XL_LAYOUT),
    "style and layout": (_INVOKE_SD | _INVOKE_LAYOUT, _XL_STYLE | _XL_LAYOUT),
    "invokeai style": (_INVOKE_SD, _XL_STYLE),
    "invokeai composition": (_INVOKE_LAYOUT, _XL_LAYOUT),
    "invokeai style strong": (_but(16, STYLE, 4, 5, 6, 13, 14, 15), _but(11, STYLE, 3, 4)),
    "invokeai style precise": (_INVOKE_SD | _at(BOOST, 4, 5, 6), _XL_STYLE | _at(BOOST, 3)),
}
"""Preset -> its tables for SD 1.x and 2.x and for SDXL; a group that is missing is not heard. "style" is that of ComfyUI and
the webui; InvokeAI's and InstantStyle's means other groups of SD 1.x. BOOST is turned (see `Spread`)."""
PRESETS = (*RULES, *TABLES)
ALIKE = {
    "standard": "linear", "normal": "linear", "full": "linear", "prompt is more important": "ease out",
    "style transfer": "style", "strong style transfer": "strong style", "style transfer precise": "style precise",
    "style transfer and composition": "style and composition", "instantstyle": "invokeai style", "instantstyle style": "invokeai style",
    "instantstyle layout": "layout", "invokeai full": "linear", "style strong": "invokeai style strong",
}  # fmt: skip
"""The same presets by the names that other programs have for them."""


def preset(name: str) -> str:
    """Our name of a preset, whoever spelled it. Raises ValueError if there is none."""
    words = re.sub(r"\(.*?\)", " ", name.lower()).replace("+", " and ")
    key = " ".join(re.sub(r"[-_]", " ", words).split())
    key = ALIKE.get(key, key)
    if key not in PRESETS:
        near = get_close_matches(key, [*PRESETS, *ALIKE], 1)
        hint = f"Did you mean {near[0]}? " if near else ""
        raise ValueError(f"{name[:60]!r} is no preset. {hint}Presets: {', '.join(PRESETS)}. Or name blocks, as in "
                         "{up_blocks.1: 1}")  # fmt: skip
    return key


def read(value: Any) -> Any:
    """A `layers` field as it is kept: factors, {block or number of a group: factor}, or the name of a preset.

    Raises ValueError if it is none of these.
    """
    if value is None:
        return None
    if isinstance(value, str) and ":" in value:  # "3:1, 6:0.5", as ComfyUI's node has it
        parts = [p.split(":") for p in value.split(",") if p.strip()]
        if not all(len(p) == 2 and re.fullmatch(r"\s*\d{1,3}\s*", p[0]) for p in parts):
            raise ValueError(f"{value[:60]!r} is no list of groups and factors; write {{3: 1, 6: 0.5}}")
        value = {p[0].strip(): _parsed(p[1]) for p in parts}
    if isinstance(value, str):
        return preset(value)
    if isinstance(value, Mapping):
        if not value:
            raise ValueError("it names no block, so the picture would not be heard. Name one, as in {up_blocks.1: 1}")
        return {str(k): _named(v, f"{k}") for k, v in value.items()}
    if isinstance(value, list | tuple):
        return tuple(_number(v, "a factor") for v in value)
    raise ValueError(
        f"{str(value)[:60]!r} is neither the name of a preset, nor blocks with factors, nor a list of factors"
    )


def _parsed(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text


def _number(value: Any, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{what} is {str(value)[:40]!r}, and should be a number")
    return float(value)


def _named(value: Any, name: str, nested: bool = False) -> Any:
    """What stands beside a block's name: a number; in diffusers' words also {block_i: number or list}, or a list."""
    if isinstance(value, Mapping) and not nested:
        return {str(k): _named(v, f"{name}.{k}", nested=True) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_number(v, name) for v in value]
    return _number(value, name)


# What they are for one network ------------------------------------------------------------------------------------------


def groups(net: NetworkSpec) -> list[str]:
    """Groups of cross-attentions in the order of a call: "down_blocks.1.attentions.0" ... "mid_block.attentions.0" ..."""
    found = list(dict.fromkeys(_group(path) for path, _ in net.cross_layers))
    return sorted(found, key=lambda g: ("encoder", "middle", "decoder").index(side(g)))


def side(group: str) -> str:
    """encoder, middle or decoder."""
    return "encoder" if group.startswith("down") else "decoder" if group.startswith("up") else "middle"


def _group(path: str) -> str:
    return path.partition(".transformer_blocks.")[0]


def spread(layers: Layers | None, net: NetworkSpec, composition: float = 1.0, boost: float = 1.0) -> Spread:
    """The factors of a network's cross-attentions. `composition` and `boost` multiply the groups that a preset has for them.

    Raises RecipeError if this network has no such blocks.
    """
    if layers is None:
        return Spread()
    if isinstance(layers, tuple):
        if len(layers) != len(net.cross_layers):
            raise RecipeError("layers", f"{len(layers)} factors, but {net.name} has {len(net.cross_layers)} cross-attentions. Give one for "
                                        f"each, or name blocks, as in {{{groups(net)[-1]}: 1}}.")  # fmt: skip
        return Spread(layers)
    if isinstance(layers, dict):
        return Spread(_of_blocks(layers, net))
    if layers in RULES:
        own = groups(net)
        return _in_files_order({g: RULES[layers](t, len(own), side(g)) for t, g in enumerate(own)}, net)
    plain, turned = _of_table(layers, net, {STYLE: 1.0, COMPOSITION: composition, BOOST: boost})
    return Spread(
        _in_files_order(plain, net).plain, _in_files_order(turned, net).plain if any(turned.values()) else None
    )


def _of_table(name: str, net: NetworkSpec, factors: Mapping[str, float]) -> tuple[dict[str, float], dict[str, float]]:
    """(group -> factor, group -> factor where it is turned) of a preset that names groups."""
    is_xl = net.family == "sdxl"
    table, known = TABLES[name][is_xl], XL if is_xl else SD
    own = groups(net)
    heard = [known[t] for t, (who, part) in table.items() if factors[who] * part]
    if not set(own) <= set(known) or not set(heard) & set(own):
        raise RecipeError("layers", f"{name!r} means blocks of {'SDXL' if is_xl else 'SD 1.x and 2.x'}, and {net.name} has others: {_listed(own)}. Name "
                                    f"those that shall hear it, as in {{{own[-1]}: 1}}.")  # fmt: skip
    plain = {known[t]: part * factors[who] for t, (who, part) in table.items() if who != BOOST}
    turned = {known[t]: part * factors[who] for t, (who, part) in table.items() if who == BOOST}
    return plain, turned


def _of_blocks(layers: Mapping[str, Any], net: NetworkSpec) -> tuple[float, ...]:
    """Factors by the names of blocks (the longest name counts), by numbers of groups, or in diffusers' words."""
    own, named = groups(net), dict[str, float]()
    for key, value in layers.items():
        named |= _diffusers(key, value, own, net) if key in ("down", "up", "mid") else _one(key, value, own, net)
    paths = [path for path, _ in net.cross_layers]
    best = [max((k for k in named if _within(path, k)), key=len, default=None) for path in paths]
    return tuple(0.0 if k is None else named[k] for k in best)


def _one(key: str, value: Any, own: Sequence[str], net: NetworkSpec) -> dict[str, float]:
    if not isinstance(value, float):
        raise RecipeError("layers", f"{key} has {value!r}, and one block has one factor. Write {key}: 1.")
    if key.isdecimal():
        if int(key) >= len(own):
            raise RecipeError("layers", f"there is no group {key}: {net.name} has {len(own)}, counted from 0 as it is called, encoder, middle, "
                                        f"decoder: {_listed(own)}.")  # fmt: skip
        return {own[int(key)]: value}
    if not any(_within(path, key) for path, _ in net.cross_layers):
        raise RecipeError("layers", f"{net.name} has no cross-attention in {key!r}. Blocks: {_listed(own)}.")
    return {key: value}


def _diffusers(key: str, value: Any, own: Sequence[str], net: NetworkSpec) -> dict[str, float]:
    """{"down": {"block_2": [0, 1]}, "mid": 1, "up": ...}: what is not named is not heard, as there."""
    start = {"down": "down_blocks", "up": "up_blocks", "mid": "mid_block"}[key]
    if not isinstance(value, dict):
        mine = [g for g in own if g.startswith(start)]
        if key != "mid" and not isinstance(value, float):
            raise RecipeError(
                "layers", f"{key} has a list, and its blocks have one each. Write {key}: {{block_1: [0, 1]}}."
            )
        return _each(key, value, mine)
    found: dict[str, float] = {}
    for block, factors in value.items():
        number = re.fullmatch(r"block_(\d{1,3})", block)
        mine = [g for g in own if number and g.startswith(f"{start}.{number[1]}.")]
        if not mine or key == "mid":
            raise RecipeError("layers", f"{net.name} has no cross-attention in {key}.{block}. Blocks: {_listed(own)}.")
        found |= _each(f"{key}.{block}", factors, mine)
    return found


def _each(key: str, factors: Any, mine: Sequence[str]) -> dict[str, float]:
    listed = [factors] if isinstance(factors, float) else list(factors)
    listed = listed * len(mine) if len(listed) == 1 else listed
    if len(listed) != len(mine):
        raise RecipeError(
            "layers", f"{key} has {len(listed)} factors for {len(mine)} attentions. Give one for each, or one for all."
        )
    return dict(zip(mine, listed, strict=True))


def _within(path: str, key: str) -> bool:
    return path == key or path.startswith(f"{key}.")


def _in_files_order(factors: Mapping[str, float], net: NetworkSpec) -> Spread:
    return Spread(tuple(factors.get(_group(path), 0.0) for path, _ in net.cross_layers))


def _listed(own: Sequence[str]) -> str:
    """Groups by their blocks: "down_blocks.0.attentions.0-1"."""
    blocks: dict[str, list[str]] = {}
    for g in own:
        block, _, i = g.rpartition(".")
        blocks.setdefault(block, []).append(i)
    return ", ".join(f"{b}.{n[0]}" if len(n) == 1 else f"{b}.{n[0]}-{n[-1]}" for b, n in blocks.items())
