"""Less work for another picture: what a recipe may ask to be left out, and which evaluation leaves what out. Nothing by default.

Neighbouring evaluations answer alike. So the deep part of the network, or a ControlNet, is asked every n-th time only, and what it
said is heard again in between; and tokens that are alike attend as one. What is kept belongs to a job, term by term of its
guidance: the network holds nothing of it, and no row's answer depends on those beside it.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from infuse.timetable import Timetable
from infuse.validation import Strict

if TYPE_CHECKING:
    from torch import Tensor

Use = Literal["", "make", "use"]
"""Of what is kept: nothing; it is made, as exact as ever, and kept; it is heard instead of being made."""


class Lossy(Strict):
    """What is left out to save time. THIS CHANGES THE PICTURE: `docs/performance.md` has how much each was measured to.

    Evaluations of the network are counted, which samplers of second order ask twice a step. Each count begins anew where a
    condition begins or ceases to be heard, or guidance does.
    """

    deep_cache: int | None = Field(default=None, ge=2, le=10)
    """Only every so many evaluations walk the whole UNet; the others its outermost level, with the deep features of the last whole
    walk (DeepCache, arXiv:2312.00858)."""
    controlnet_every: int | None = Field(default=None, ge=2, le=10)
    """ControlNets are asked every so many evaluations; in between their last answers are heard, with the present weights."""
    merge_tokens: float | None = Field(default=None, gt=0, le=0.75)
    """So much of the places of the finest level are merged with those that are most like them, for self-attention (token merging
    for Stable Diffusion, arXiv:2303.17604)."""

    @property
    def said(self) -> dict[str, Any]:
        """The options that were chosen."""
        return {n: v for n in type(self).model_fields if (v := getattr(self, n)) is not None}


@dataclass(frozen=True)
class Shortcut:
    """What one evaluation leaves out: the same for all rows of a network call."""

    deep: Use = ""
    branches: Use = ""
    merged: float = 0.0


@dataclass(eq=False)
class Memory:
    """What a term of a job's guidance (and a window of a clip) keeps from one evaluation to another."""

    deep: Tensor | None = None
    """(c h w): the features that enter the outermost level on the way up."""
    answers: dict[Hashable, tuple[Tensor, ...]] = field(default_factory=dict)
    """What each ControlNet said, unweighted: (c h w) for each site."""
    frames: dict[int, Memory] = field(default_factory=dict)
    """Of a clip: the same of each frame."""

    def of(self, frame: int) -> Memory:
        return self.frames.setdefault(frame, Memory())


def shortcuts(lossy: Lossy | None, table: Timetable) -> tuple[Shortcut, ...]:
    """What each evaluation of a run leaves out; () if nothing ever is. Wherever the structure of evaluations changes, all is asked."""
    if lossy is None or not lossy.said:
        return ()

    def use(every: int | None, i: int) -> Use:
        return "" if every is None else "use" if i % every else "make"

    counted = (i - s.first for s in table.stretches for i in range(s.first, s.last))
    merged = lossy.merge_tokens or 0.0
    return tuple(Shortcut(use(lossy.deep_cache, i), use(lossy.controlnet_every, i), merged) for i in counted)


SAYS = {
    "deep_cache": "{left} of {n} evaluations compute the outermost level only",
    "controlnet_every": "ControlNets are asked in {asked} of {n} evaluations",
    "merge_tokens": "{share:.0%} of the places of the finest level attend as those most like them",
}


def notices(lossy: Lossy | None, table: Timetable, idle: Mapping[str, str]) -> Iterator[str]:
    """That the picture is changed, and by what: for the caller, the report and the record. idle: options that change nothing, and why."""
    each, n = shortcuts(lossy, table), len(table)
    left = sum(s.deep == "use" for s in each)
    asked = sum(s.branches == "make" for s in each)
    for name, value in (lossy.said if lossy else {}).items():
        if name in idle:
            yield f"lossy.{name}: {value} leaves nothing out: {idle[name]}."
            continue
        how = SAYS[name].format(left=left, asked=asked, n=n, share=lossy.merge_tokens or 0)  # type: ignore[union-attr]
        yield f"lossy.{name}: {value} changes the picture: {how}."
