"""What stays the same from one network call to the next: how rows are laid out, keys and values of words, embedded hints.

A run asks the same question many times with other numbers. Whatever is made of tensors that did not change is found here by
which tensors they were, as long as jobs are under way that need it; a call with nothing to be remembered makes it anew.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import fields, is_dataclass
from functools import lru_cache
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

T = TypeVar("T")
MOST = 48
"""Things that are kept at a time: those used longest ago leave."""


class Constants:
    """Kept things by key. A key names objects by their `id`; they are held with the thing, so that an id stays theirs."""

    def __init__(self, most: int = MOST) -> None:
        self.most = most
        self._kept: OrderedDict[Hashable, tuple[Any, Any]] = OrderedDict()

    def of(self, key: Hashable, held: Any, make: Callable[[], T]) -> T:
        """The thing of this key, made if it is not here. held: the objects whose ids are in the key."""
        kept = self._kept
        found = kept.get(key)
        if found is None:
            found = kept[key] = (make(), held)
            while len(kept) > self.most:
                kept.popitem(last=False)
        else:
            kept.move_to_end(key)
        return found[0]

    def clear(self) -> None:
        """Nobody needs them any more: a job has ended. Whoever is in the middle of a call goes on with the old ones."""
        self._kept = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def nbytes(self) -> int:
        """Memory of the tensors that are kept, those that jobs hold anyway aside."""
        kept = list(self._kept.values())  # somebody else may be in the middle of a call
        held = {t.untyped_storage().data_ptr() for _, one in kept for t in tensors(one)}
        made = (t.untyped_storage() for thing, _ in kept for t in tensors(thing))
        return sum({m.data_ptr(): m.nbytes() for m in made if m.data_ptr() not in held}.values())


def tensors(value: Any) -> Iterator[Tensor]:
    """Every tensor in a thing, those of networks aside; whoever keeps more of it meanwhile, in another thread, does no harm."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, nn.Module):
        return
    elif isinstance(value, Mapping | WeakKeyDictionary):
        # a list of a dictionary's values is made in one go; those of a weak one are asked for one by one, so its own is read
        held: Any = value.data if isinstance(value, WeakKeyDictionary) else value  # type: ignore[attr-defined]
        for one in list(held.values()):
            yield from tensors(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from tensors(one)
    elif is_dataclass(value) and not isinstance(value, type):
        for f in fields(value):
            yield from tensors(getattr(value, f.name))


def moved(t: Tensor, device: torch.device) -> Tensor:
    """Numbers on the device, without waiting for it."""
    if device.type == "cuda" and t.device.type == "cpu":
        return t.pin_memory().to(device, non_blocking=True)
    return t.to(device)


def numbers(values: Sequence[Any], like: Tensor) -> Tensor:
    """A tensor of these numbers, of the kind and in the place of another."""
    return moved(torch.tensor(values, dtype=like.dtype), like.device)


HELD: ContextVar[list[Tensor] | None] = ContextVar("held", default=None)
"""Where a recording gathers the constants that it reads: they must stay as long as it does."""


def indices(rows: Sequence[int], device: torch.device) -> Tensor:
    """Rows as a tensor, which nobody writes into: the same rows are the same tensor."""
    found = _indices(tuple(rows), device, torch.is_inference_mode_enabled())
    if (held := HELD.get()) is not None:
        held.append(found)
    return found


@lru_cache(maxsize=4096)
def _indices(rows: tuple[int, ...], device: torch.device, inference: bool) -> Tensor:
    return moved(torch.tensor(rows, dtype=torch.int64), device)
