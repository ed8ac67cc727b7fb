"""A base model in one small file: what it adds to another base, which the file's card names.

Tensors are named by part and diffusers' key. A whole one (`unet.conv_in.weight`, wider for more channels; biases, norms)
stands for the base's. Of a matrix or convolution `<module>.lora_down.weight` (r in ...) and `<module>.lora_up.weight`
(out r ...) are stored: W = W_base + up down, times alpha / r if there is an `<module>.alpha`. What is loaded is a base like
any other. Looking at headers imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infuse.errors import RecipeError, WeightsError
from infuse.weights.formats import Header, digest, read_header
from infuse.weights.identify import identify
from infuse.weights.kinds import Identity, wrong_kind
from infuse.weights.looks.differences import ALPHA, DOWN, FIRST, PARTS, UP, difference
from infuse.weights.looks.table import Table
from infuse.weights.source import Source, read_json

if TYPE_CHECKING:
    from torch import Tensor

    from infuse.weights.parts import BaseParts

NAMED = "infuse_base"
"""Under this name a card, or the file's own metadata, says whose difference it is."""
SUFFIX, OUTER = ".safetensors", "text_model."

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Difference(Source):
    """A found difference; `fallback` is its base, whose parts are this model's but for what is added to them."""

    @property
    def base(self) -> Source:
        assert self.fallback is not None
        return self.fallback

    @property
    def is_folder(self) -> bool:  # it is laid out as its base is
        return self.base.is_folder

    @cached_property
    def release(self) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        return None

    @cached_property
    def added(self) -> Header:
        """The table of the file itself."""
        return read_header(self.path, self.field)

    @cached_property
    def weights(self) -> Mapping[str, list[Path]]:
        return {**self.base.weights, "difference": [self.path]}

    @cached_property
    def header(self) -> Header:
        """The base's, with the first convolution as this file has it.

        Raises RecipeError if the base has other layers, WeightsError if it is none.
        """
        whole = self.base.header
        if self.base.identity.kind != "base":
            raise wrong_kind(self.field, self.base.identity, "base", name=self.base.name)
        fits(self)
        prefix, first = self.base.identity.prefix, self.added.get(FIRST)
        keys = (f"{prefix}conv_in.weight", f"{prefix}input_blocks.0.0.weight")
        changed = {k: first for k in keys if first is not None and k in whole}
        return replace(whole, tensors={**whole.tensors, **changed}, size=whole.size + self.added.size)

    @cached_property
    def identity(self) -> Identity:
        told = difference(Table(self.added)) or Identity("difference")
        said = f'only what is added to "{self.base.name}" is stored: {told.modules} matrices as two factors, rank {told.rank} at most'
        whole = identify(self.header)
        return replace(whole, notes=(*whole.notes, said))

    @cached_property
    def digest(self) -> str:
        return sha256(f"{self.base.digest}\n{digest(self.path)}".encode()).hexdigest()


def base_named(path: Path, field: str = "model") -> str | None:
    """Name or path of the base that a difference is to, "" if it does not say; None for any other file.

    The file's metadata says it, `<stem>.card.json` beside it, or the card.json of its folder.
    """
    if path.suffix != SUFFIX or not path.is_file():
        return None
    try:
        header = read_header(path, field)
    except WeightsError:  # whoever reads it will say so
        return None
    if difference(Table(header)) is None:
        return None
    cards = (read_json(path.with_name(name), field) for name in (f"{path.stem}.card.json", "card.json"))
    return next((str(said) for found in (header.metadata, *cards) if (said := found.get(NAMED))), "")


def unnamed(path: Path, field: str) -> WeightsError:
    return WeightsError(field, f"{path.name} holds only what is added to a base model, and nothing says to which. Write it into "
                               f'{path.stem}.card.json beside it: {{"{NAMED}": "name or path of that model"}}.')  # fmt: skip


def unfound(path: Path, base: str, field: str, why: str) -> WeightsError:
    return WeightsError(
        field, f'{path.name} holds only what is added to the base model "{base}", which cannot be used: {why}'
    )


def fits(source: Difference) -> None:
    """Raises RecipeError for the first tensor that has no place in the base, WeightsError for half a pair of factors.

    From headers: the UNet's always, a text encoder's where the base is a folder (loading looks at all of them).
    """
    base = source.base
    shapes = {f"{PARTS[0]}{k}": s for k, s in _unet_shapes(base).items()}
    for part in PARTS[1:]:
        own = base.header.shapes(f"{part[:-1]}/")
        shapes |= {f"{part}{k.removeprefix(OUTER)}": s for k, s in own.items()}
    known = {p for p in PARTS if any(k.startswith(p) for k in shapes)}
    for key, wanted in changes({k: e.shape for k, e in source.added.items()}, source).items():
        part = key[: key.index(".") + 1]
        if part in known:
            _same(source, key, wanted, shapes.get(part + key.removeprefix(part).removeprefix(OUTER)))


def _unet_shapes(base: Source) -> dict[str, Shape]:
    """The base's UNet under diffusers' names, whichever layout it lies in."""
    from infuse.weights.outline import plan_unet

    if base.is_folder and base.component("unet"):
        return base.header.shapes("unet/")
    plan = plan_unet(base.header, base.identity, base.field)
    stored = base.header.shapes(plan.prefix)
    return {new: stored[old] for old, new in plan.names.items()}


def changes(shapes: Mapping[str, Shape], source: Source) -> dict[str, Shape]:
    """Key of each tensor that is changed -> its shape, from the file's own keys. Raises WeightsError for one factor of two."""
    out = {}
    for key, shape in shapes.items():
        module = key.removesuffix(UP).removesuffix(DOWN)
        if key.endswith((UP, DOWN)):
            up, down = shapes.get(f"{module}{UP}"), shapes.get(f"{module}{DOWN}")
            if up is None or down is None or up[1] != down[0]:
                raise WeightsError(
                    source.field, f'"{source.name}" is incomplete: {module} has one factor of two. Download it again.'
                )
            out[f"{module}.weight"] = (up[0], *down[1:])
        elif not key.endswith(ALPHA):
            out[key] = shape
    return out


def _same(source: Difference, key: str, wanted: Shape, there: Shape | None) -> None:
    """A first convolution may have more input channels; every other shape is the base's."""
    if there is not None:
        core = [tuple(n for i, n in enumerate(s) if i < 2 or n != 1) for s in (wanted, there)]
        if core[0] == core[1] or (key == FIRST and _but_second(wanted) == _but_second(there)):
            return
    ours = "has no such tensor" if there is None else f"has it of shape {there}"
    raise RecipeError(source.field, f'"{source.name}" changes {key} of another base, of shape {wanted}; "{source.base.name}" {ours}. Name '
                                    f"the base that it was made for in {source.path.stem}.card.json ({NAMED}).")  # fmt: skip


def _but_second(shape: Shape) -> Shape:
    return (shape[0], *shape[2:])


def merge(parts: BaseParts, source: Difference) -> BaseParts:
    """The loaded base with this file's difference in it, in place: W + up down in float32, then in the base's own dtype.

    Raises RecipeError for tensors that have no place in it.
    """
    from infuse.weights.formats import read_tensors
    from infuse.weights.outline import outline

    found = read_tensors(source.path)
    encoders = dict(zip(PARTS[1:], parts.text_encoders, strict=False))
    modules: dict[str, Any] = {PARTS[0]: parts.unet, **encoders}
    for key, wanted in changes({k: tuple(t.shape) for k, t in found.items()}, source).items():
        part = key[: key.index(".") + 1]
        slot = _slot(modules.get(part), key.removeprefix(part))
        _same(source, key, wanted, None if slot is None else tuple(slot.shape))
        assert slot is not None
        value = _merged(found, key, slot)
        slot.data = value.to(slot.device, slot.dtype).contiguous()
    if FIRST in found:
        channels = int(found[FIRST].shape[1])
        parts.unet.conv_in.in_channels = channels
        parts.unet.register_to_config(in_channels=channels)
    return replace(parts, source=source, spec=outline(source, prediction=parts.spec.prediction).spec)


def _slot(module: Any, key: str) -> Tensor | None:
    """The parameter of that name, with or without the outer module that transformers dropped from CLIPTextModel."""
    slots = {} if module is None else dict(module.named_parameters())
    return slots.get(key, slots.get(key.removeprefix(OUTER), slots.get(f"{OUTER}{key}")))


def _merged(found: Mapping[str, Tensor], key: str, slot: Tensor) -> Tensor:
    """What is to stand at `key`, in float32 on the CPU."""
    if key in found:
        whole = found[key].float()
        return whole if key == FIRST else whole.reshape(slot.shape)
    module = key.removesuffix(".weight")
    up, down = found[f"{module}{UP}"].float(), found[f"{module}{DOWN}"].float()
    alpha = found.get(f"{module}{ALPHA}")
    scale = 1.0 if alpha is None else float(alpha) / len(down)
    return slot.detach().to("cpu").float() + scale * (up.flatten(1) @ down.flatten(1)).reshape(slot.shape)
