"""Layers of a base listen: what LoRAs add to their answers, for the rows that carry them. No weight is ever touched.

A LoRA changes W to W + s D, and (W + s D) x = W x + s D x: what a row's networks say is added to its answer, layer by layer,
so that users with different LoRAs share a call. What is said in a call is a context variable around it, since diffusers hands
its arguments to attentions only. Low-rank products of rows with different networks are stacked: two products whatever their
number. A LoRA with a region is heard at its places; keys and values of words lie on no place, so there attention answers twice
(`of_words`). Source of the row-wise form: Hu et al. 2021, eq. 3.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from infuse.constants import indices, numbers
from infuse.grids import level, resized
from infuse.network.blocks import slot, temporal
from infuse.network.lora.change import spread
from infuse.network.stacks import Speaker, Stack
from infuse.spoken import SpokenEdit

NOW: ContextVar[Edits | None] = ContextVar("edits", default=None)
"""What is said to the layers in the present call of this thread."""
OF_WORDS = ("attn2.to_k", "attn2.to_v")
"""Projections of tokens: what they make lies on no place of the picture."""


@dataclass(frozen=True, eq=False)
class Unmerged:
    """A layer as it was before LoRAs were written into its weight: of that are those made which read it. Copies share it."""

    layer: nn.Module

    def __deepcopy__(self, memo: Any) -> Unmerged:
        return self


class _Listens:
    """A layer that adds what it is told to its answer."""

    edited_as: tuple[str, str] = ("", "")
    """(part of the base, its module path)."""
    unmerged: Unmerged | None = None

    def forward(self, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        out = super().forward(input, *args, **kwargs)  # type: ignore[misc]
        now = NOW.get()
        return out if now is None else now.added(self, input, out)


class Linear(_Listens, nn.Linear):
    pass


class Conv2d(_Listens, nn.Conv2d):
    pass


class GroupNorm(_Listens, nn.GroupNorm):
    pass


class LayerNorm(_Listens, nn.LayerNorm):
    pass


LISTENING: Mapping[type, type] = {
    nn.Linear: Linear, nn.Conv2d: Conv2d, nn.GroupNorm: GroupNorm, nn.LayerNorm: LayerNorm,
}  # fmt: skip


def listen(network: nn.Module, part: str) -> None:
    """Let every layer of a part of the base (unet, text_encoder, text_encoder_2) listen. Its weights and names stay."""
    for path, layer in network.named_modules():
        if temporal(path):  # its rows are places of the picture
            continue
        kind = LISTENING.get(type(layer))
        if kind is not None:
            layer.__class__ = kind
        if isinstance(layer, _Listens):
            layer.edited_as = (part, path)


@contextmanager
def telling(edits: Edits | None) -> Iterator[None]:
    """What layers hear in this thread until the end of the block."""
    token = NOW.set(edits)
    try:
        yield
    finally:
        NOW.reset(token)


@dataclass(eq=False)
class Edits:
    """What the LoRAs of one call say. `rows`: of the batch, frames of clips as rows; 0: whatever comes is one row's."""

    said: Sequence[SpokenEdit]
    rows: int = 0
    frames: int = 1
    grid: tuple[int, int] = (1, 1)
    stacks: dict[Any, Any] = field(default_factory=dict)
    """Factors of rows with different networks, stacked: kept by the base network from call to call."""

    def speakers(self, layer: tuple[str, str]) -> list[Speaker]:
        """Who changes this layer, and is heard there: looked up once while everybody is as loud as before."""
        found = self._here.get(layer)
        if found is None:
            found = self._here[layer] = [s for e in self.said if (s := self._speaker(e, *layer)) is not None]
        return found

    @cached_property
    def _here(self) -> dict[tuple[str, str], list[Speaker]]:
        loud = tuple(
            (id(e.entry.network), e.entry.blocks, e.rows, e.weights, e.frames, *map(id, e.masks)) for e in self.said
        )
        if self.stacks.get("loud") != loud:  # who speaks holds the masks, so that their ids stay theirs
            self.stacks |= {"loud": loud, "speakers": {}, "numbers": {}, "said": self.said}
        return self.stacks["speakers"]

    def numbers(self, values: Sequence[float], like: Tensor) -> Tensor:
        """Weights as a tensor, copied once for all layers and steps."""
        kept = self.stacks.setdefault("numbers", {})
        key = (tuple(values), like.dtype, like.device)
        if key not in kept:
            kept[key] = numbers(values, like)
        return kept[key]

    def indices(self, rows: Sequence[int], device: torch.device) -> Tensor:
        """Rows as a tensor, in the same way."""
        kept = self.stacks.setdefault("numbers", {})
        key = (tuple(rows), torch.int64, device)
        if key not in kept:
            kept[key] = indices(rows, device)
        return kept[key]

    def _speaker(self, e: SpokenEdit, part: str, path: str) -> Speaker | None:
        change = e.entry.network.change(part, path)  # type: ignore[operator]
        if change is None:
            return None
        place = (slot(path) if part == "unet" else 0) if e.entry.blocks else None
        factor = e.entry.blocks[place] if e.entry.blocks and place is not None else 1.0
        if not factor:
            return None
        if self.frames == 1 and factor == 1:
            return Speaker(change, e.rows, e.weights, e.masks)
        rows, weights, masks = [], [], []
        for row, w, mask, each in zip(e.rows, e.weights, e.masks, e.frames or (None,) * len(e.rows), strict=True):
            for f in range(self.frames):
                rows.append(row * self.frames + f)
                weights.append(w * factor * (each[f] if each else 1.0))
                masks.append(mask)
        return Speaker(change, tuple(rows), tuple(weights), tuple(masks))

    def touches(self, layer: Any) -> bool:
        """Does anybody change this layer?"""
        return bool(self.speakers(getattr(layer, "edited_as", ("", ""))))

    def added(self, layer: Any, x: Tensor, out: Tensor) -> Tensor:
        """A layer's answer with what is said there."""
        here = self.speakers(layer.edited_as)
        if not here:
            return out
        if len(x) * self.frames == self.rows != len(x):  # said once for a clip, as its time is
            here = [s.of_clips(self.frames) for s in here]
        if layer.edited_as[1].endswith(OF_WORDS):
            here = [s for s in here if not s.masked]  # attention asks for the others itself
        plain = out
        low = [s for s in here if s.change.factors is not None and not s.masked and self.rows]
        if len(low) > 1 and len({r for s in low for r in s.rows}) > 1:
            out = self._stacked(layer, low, x, out)
            here = [s for s in here if s not in low]
        for s in here:
            out = self._one(layer, s, x, out, plain)
        return out

    def _one(self, layer: Any, s: Speaker, x: Tensor, out: Tensor, plain: Tensor) -> Tensor:
        """One network at one layer, whose own answer is `plain`."""
        if not self.rows:
            return out + loud(layer, s.change, x, s.weights * len(x), plain, self).to(out.dtype)
        n = max(len(x) // self.rows, 1)
        rows = [r * n + j for r in s.rows for j in range(n)]
        weights = [w for w in s.weights for _ in range(n)]
        whole = rows == list(range(len(x)))
        index = None if whole else self.indices(rows, x.device)
        picked, mine = (t if index is None else t[index] for t in (x, plain))
        more = loud(layer, s.change, picked, weights, mine, self)
        if s.masked:
            more = more * self._where([m for m in s.masks for _ in range(n)], more)
        return out + more if index is None else out.index_add(0, index, more.to(out.dtype))

    def _stacked(self, layer: Any, low: Sequence[Speaker], x: Tensor, out: Tensor) -> Tensor:
        """Rows with different networks: the factors of each row's networks beside one another, two products for all of them."""
        n = max(len(x) // self.rows, 1)
        key = (
            layer.edited_as,
            n,
            tuple((id(s.change), s.rows) for s in low),
        )  # by rows: blocks and regions leave some of them out
        if key not in self.stacks:
            self.stacks[key] = Stack.of(low, n, len(x), x.device)
        stack = self.stacks[key]
        weights = [s.weights for s in low]
        if stack.index is None:
            return stack.answer(layer, x, weights, out)
        return out.index_add(0, stack.index, stack.answer(layer, x[stack.index], weights).to(out.dtype))

    def _where(self, masks: Sequence[Tensor | None], like: Tensor) -> Tensor:
        """Where each row is heard, as it multiplies an answer of one of the network's layers."""
        return torch.stack([like.new_ones(()).expand(_places(like)) if m is None else self._on(m, like) for m in masks])

    def _on(self, mask: Tensor, like: Tensor) -> Tensor:
        if like.ndim == 4:
            return resized(mask, (int(like.shape[-2]), int(like.shape[-1]))).to(like)[None]
        if like.ndim == 3:
            return resized(mask, level(self.grid, int(like.shape[1]))).flatten().to(like)[:, None]
        return mask.mean().to(like).view(1)  # of a vector that is heard everywhere: as much as its region covers

    def of_words(self, attn: Any, path: str, source: Tensor) -> Iterator[Regional]:
        """What LoRAs with regions make of the keys and values of words in one attention: inside of its region a row hears these
        instead of its plain ones."""
        for e in self.said:
            if all(m is None for m in e.masks):
                continue
            found = [self._speaker(e, "unet", f"{path}.{name}") for name in ("to_k", "to_v")]
            any_of = next((s for s in found if s is not None), None)
            if any_of is None:
                continue
            rows = self.indices(any_of.rows, source.device)
            more = [
                None if s is None else loud(layer, s.change, source[rows], s.weights, None, self)
                for s, layer in zip(found, (attn.to_k, attn.to_v), strict=True)
            ]
            yield Regional(any_of.rows, more[0], more[1], any_of.masks)


@dataclass(frozen=True, eq=False)
class Regional:
    """What one LoRA adds to the keys and values of words, for rows that hear it in a region."""

    rows: tuple[int, ...]
    k: Tensor | None
    v: Tensor | None
    masks: tuple[Tensor | None, ...]


def _places(like: Tensor) -> tuple[int, ...]:
    return (1, *like.shape[-2:]) if like.ndim == 4 else (like.shape[1], 1) if like.ndim == 3 else (1,)


def loud(
    layer: Any,
    change: Any,
    x: Tensor,
    weights: Sequence[float],
    plain: Tensor | None = None,
    now: Edits | None = None,
) -> Tensor:
    """What a change adds to a layer's answer (`plain`, if it is known) to x, with a strength for each row."""
    shape, told = (-1, *(1,) * (x.ndim - 1)), numbers if now is None else now.numbers
    if change.factors is not None:
        down, up = change.factors
        z = (
            F.conv2d(x, down, None, layer.stride, layer.padding, layer.dilation)
            if x.ndim == 4 and down.ndim == 4
            else F.linear(x, down)
        )
        z = z * told(weights, z).view(shape)
        more = F.conv2d(z, up[..., None, None]) if z.ndim == 4 else F.linear(z, up)
        if change.bias is not None:
            more = more + spread(change.bias, layer, more) * told(weights, more).view(shape)
        return more
    if (before := getattr(layer, "unmerged", None)) is not None:
        layer, plain = before.layer, None
    if change.linear:
        more = change.answer(layer, x, 1.0, plain)
        return more * told(weights, more).view(shape)
    parts = {w: [i for i, v in enumerate(weights) if v == w] for w in dict.fromkeys(weights)}
    if len(parts) == 1:
        return change.answer(layer, x, weights[0], plain)
    said = []
    for w, rows in parts.items():
        here = indices(rows, x.device)
        said.append(change.answer(layer, x[here], w, None if plain is None else plain[here]))
    order = indices([i for part in parts.values() for i in part], x.device).argsort()
    return torch.cat(said)[order]
