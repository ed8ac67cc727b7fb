"""The parameters of one module while they are read: their shapes, their scale, and letters that name it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor

from infuse.errors import WeightsError


@dataclass(frozen=True)
class Module:
    """`given`: in the dtype that is multiplied in. `shape`: of the layer's weight, or of as much of it as was trained. `keep`: the dtype
    of matrices that stay."""

    name: str
    given: Mapping[str, Tensor]
    shape: tuple[int, ...]
    keep: torch.dtype
    whole: tuple[int, ...] = ()
    """The layer's own shape."""

    def __post_init__(self) -> None:
        if not self.whole:
            object.__setattr__(self, "whole", self.shape)

    def __contains__(self, name: str) -> bool:
        return name in self.given

    def __getitem__(self, name: str) -> Tensor:
        return self.given[name]

    def of(self, shape: tuple[int, ...]) -> Module:
        """The same, of a layer of this shape."""
        return replace(self, shape=shape)

    @property
    def numel(self) -> int:
        return prod(self.shape)

    @property
    def norm(self) -> bool:
        """Is the layer a norm?"""
        return len(self.shape) == 1

    @property
    def kernel(self) -> tuple[int, ...]:
        return self.shape[2:]

    def zeros(self, *shape: int) -> Tensor:
        return next(iter(self.given.values())).new_zeros(shape)

    def kept(self, t: Tensor) -> Tensor:
        return t.to(self.keep).contiguous()

    def letter(self, fact: str) -> WeightsError:
        return WeightsError("", f'module "{self.name}": {fact}')

    def need(self, *names: str) -> list[Tensor]:
        """These parameters; a letter if one is missing."""
        if missing := [n for n in names if n not in self]:
            raise self.letter(
                f"has {', '.join(sorted(self.given))}, but no {', '.join(missing)}. The file is incomplete."
            )
        return [self[n] for n in names]

    def unlike(self, said: str) -> WeightsError:
        """A letter about shapes that don't fit the layer."""
        has = ", ".join(f"{k} {'x'.join(map(str, v.shape))}" for k, v in sorted(self.given.items()) if v.ndim)
        return self.letter(
            f"{said}: it has {has}, and this base's layer is {' x '.join(map(str, self.whole))}."
            " It was trained for another base, or the file is broken."
        )

    def shaped(self, t: Tensor, *shape: int) -> Tensor:
        """In this shape, if it is that: but for ones at its end, or flattened behind its first axis. Files and bases disagree about
        convolutions of 1 x 1."""
        same = t.ndim > 1 and len(t) == shape[0] and (t.ndim == 2 or t.shape[1] == shape[1])
        if not same or t.numel() != prod(shape):
            raise self.unlike("doesn't fit")
        return t.reshape(shape)

    def vector(self, t: Tensor, n: int) -> Tensor:
        """n numbers, whatever ones are around them."""
        if t.numel() != n:
            raise self.unlike("doesn't fit")
        return t.flatten()

    def scale(self, rank: int = 0) -> float:
        """alpha / rank, or 1 if either isn't there; the webui's `scale` instead, if there is one. `scalar` is LyCORIS' own factor."""
        otherwise = self._number("alpha", rank) / rank if rank else 1.0
        return self._number("scale", otherwise) * self._number("scalar")

    def _number(self, name: str, otherwise: float = 1.0) -> float:
        if name not in self:
            return otherwise
        if self[name].numel() != 1:
            raise self.letter(f"{name} is a number, and here it has {self[name].numel()}.")
        return float(self[name])

    @property
    def alpha(self) -> float:
        """As stored, 0 if it isn't."""
        return self._number("alpha", 0.0)

    def rank(self, *found: int) -> int:
        """The rank, if all say the same and it is one."""
        if len(set(found)) > 1:
            raise self.unlike(f"its ranks ({' and '.join(map(str, found))}) don't agree")
        if found[0] == 0:
            raise self.letter("has rank 0: there is nothing in it. The file is broken.")
        return found[0]

    def check_finite(self) -> None:
        """Infinities and what is no number are a letter."""
        bad = [k for k, t in self.given.items() if t.is_floating_point() and not t.isfinite().all()]
        if bad:
            raise self.letter(f"{', '.join(bad)} has numbers that are infinite or none (NaN). The file is broken.")

    def channels(self, kind: str) -> int:
        """Input channels of what was trained, as far as the parameters tell; 0 if they don't."""
        if kind == "lora":
            return self._columns("lora_down.weight", flat="lora_mid.weight" in self)
        if kind == "loha":
            return self._columns("hada_w1_b", flat="hada_t1" in self)
        if kind == "lokr":
            small = max(self._columns(n, flat=True) for n in ("lokr_w1", "lokr_w1_b"))
            return small * max(self._columns(n, flat="lokr_t2" in self) for n in ("lokr_w2", "lokr_w2_b"))
        if kind == "glora":
            return self._columns("a2.weight", flat=True)
        if kind == "ia3" and "weight" in self and "on_input" in self and self["on_input"].any():
            return self["weight"].numel()
        return max(self._columns("diff"), self._columns("set_weight"))

    def _columns(self, name: str, flat: bool = False) -> int:
        """Input channels of one matrix; 0 if it isn't there. `flat`: it has no kernel, though the layer has."""
        t = self.given.get(name)
        if t is None or t.ndim < 2 or not len(t):
            return 0
        return t.shape[1] if flat or t.ndim > 2 else t.shape[1] // prod(self.kernel)
