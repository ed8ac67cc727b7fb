"""What each kind of file asks for before it is loaded: which base, which fields mean something, how much memory.

A ControlNet, a union, a Control-LoRA and a ControlNet-XS are one kind of condition; which one it is, its file says.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from infuse.conditions.base import same_family
from infuse.conditions.controlnet.modes import Mode
from infuse.errors import RecipeError, WeightsError
from infuse.network.spec import NetworkSpec, described

Shapes = Mapping[str, tuple[int, ...]]
NAMES = {
    "controlnet": "a ControlNet",
    "controlnet_union": "a ControlNet-Union",
    "controlnet_xs": "a ControlNet-XS",
    "control_lora": "a Control-LoRA",
}
DOWN = (".down", ".lora_down.weight", ".lora_A.weight", ".lora.down.weight")


@dataclass(frozen=True)
class File:
    """A file beside this base: how many sites it speaks at, and its bytes once loaded."""

    kind: str
    sites: int
    memory: int
    types: int = 0
    """Of a union."""


def fits(model: str, found: Any, net: NetworkSpec) -> File:
    """Raises RecipeError if a file (`View.identity`) stands beside another base than this one."""
    shapes: Shapes = found.shapes
    what = NAMES.get(found.kind, "a ControlNet")
    if found.kind == "control_lora":
        width = next((s[1] for k, s in shapes.items() if k.endswith(tuple(f"attn2.to_k{e}" for e in DOWN))), found.context_width)  # fmt: skip
        same_family(model, width, net, what)
        _same_encoder(model, what, shapes, net)
        _same_scale(model, what, shapes, net)
        return File(found.kind, net.sites, found.memory)
    same_family(model, found.context_width, net, what)
    _same_scale(model, what, shapes, net)
    if found.kind == "controlnet_xs":
        _same_widths(model, shapes, net)
        return File(found.kind, net.sites, found.memory)
    _same_encoder(model, what, shapes, net)
    types = _rows(shapes, "task_embedding") or 0
    if types and net.frames:
        raise RecipeError("model", f"{model!r} is a ControlNet-Union, which hears pictures, and {net.name!r} makes clips. Choose a ControlNet for "
                                   f"{described(net.context_width)}.")  # fmt: skip
    return File(found.kind, net.sites, found.memory, types)


def no_sites(model: str, file: File, mode: Mode, sites: Any) -> None:
    """Raises RecipeError for fields that mean nothing to a ControlNet-XS: it has one scale, and both sides hear it."""
    for field, asked in (("sites", sites is not None), ("mode", mode != "balanced")):
        if asked:
            raise RecipeError(field, f"{model!r} is {NAMES[file.kind]}, which walks beside its base and has one weight for all of it. Remove "
                                     f"{field}; to be heard on the prompt's side only, set applies_to: prompt.")  # fmt: skip


HINT = re.compile(
    r"(?:^|[./])(?:input_hint_block\.\d+|controlnet_cond_embedding\.(?:conv_in|conv_out|blocks\.\d+))\.weight$"
)


def _same_scale(model: str, what: str, shapes: Shapes, net: NetworkSpec) -> None:
    """A hint encoder halves its map with every second convolution between its first and its last, down to the latent's size."""
    convs = sum(1 for k in shapes if HINT.search(k))
    times = 2 ** ((convs - 2) // 2)
    if convs > 2 and times != net.vae_factor:
        raise RecipeError("model", f"{model!r} is {what} that makes its map {times} times smaller, and a latent of {net.name} is {net.vae_factor} "
                                   "times smaller than its picture. Choose one that was trained for this base.")  # fmt: skip


ZERO = re.compile(r"(?:^|[./])(?:zero_convs\.(\d+)\.0|controlnet_down_blocks\.(\d+))\.weight$")


def _same_encoder(model: str, what: str, shapes: Shapes, net: NetworkSpec) -> None:
    """Zero convolutions count the base's skips, and are as wide: what else is told of them would be added to another place."""
    convs = {int(m[1] or m[2]): s[0] for k, s in shapes.items() if (m := ZERO.search(k))}
    theirs, ours = (len(convs), convs.get(0)), (net.sites - 1, net.widths[0])
    if convs and theirs != ours:
        raise RecipeError("model", f"{model!r} is {what} of a base with {theirs[0]} skips, the first of width {theirs[1]}; {net.described}, has "
                                   f"{ours[0]} of width {ours[1]}. Choose one of the base's family, or another base.")  # fmt: skip


def _same_widths(model: str, shapes: Shapes, net: NetworkSpec) -> None:
    """A ControlNet-XS walks beside one base: with as wide blocks, of two layers each."""
    levels = range(len(net.widths))
    theirs = tuple(_rows(shapes, f"down_blocks.{b}.ctrl_to_base.0.weight") for b in levels)
    more = _rows(shapes, f"down_blocks.{len(net.widths)}.ctrl_to_base.0.weight")
    if theirs[0] is None:
        raise WeightsError("model", f"{model!r} is a ControlNet-XS in the names of its original repository, which infuse does not read. Choose it "
                                    "as diffusers has it (a folder or file of ControlNetXSAdapter).")  # fmt: skip
    if theirs != net.widths or more:
        shown = [str(w) for w in (*theirs, more) if w]
        raise RecipeError("model", f"{model!r} walks beside a base of widths {', '.join(shown)}; {net.described}, has "
                                   f"{', '.join(map(str, net.widths))}. Choose a ControlNet-XS that was trained for this base.")  # fmt: skip
    layers = net.config.get("layers_per_block", 2)
    if net.frames or any(n != 2 for n in (layers if isinstance(layers, list | tuple) else (layers,))):
        why = "makes clips" if net.frames else f"has {layers} layers in each of its blocks"
        raise RecipeError("model", f"{model!r} is a ControlNet-XS, which walks beside picture networks of two layers a block, and {net.name!r} {why}. "
                                   f"Choose a ControlNet for {described(net.context_width)}.")  # fmt: skip


def _rows(shapes: Shapes, key: str) -> int | None:
    return next((s[0] for k, s in shapes.items() if k == key or k.endswith(f".{key}") or k.endswith(f"/{key}")), None)
