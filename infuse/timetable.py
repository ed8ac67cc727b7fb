"""Who speaks when: for every evaluation of the network, which terms guidance has and how loudly each condition is heard.

Made once for a recipe; the job, the ground, what is held, the report and a picture's record read it, and nobody else asks
a condition about time. Between the edges of windows nothing but numbers changes: such a stretch can be laid out once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any, Protocol

from infuse.curves import Curve, Step, value_at
from infuse.guidance import Guidance, chain

PROMPT = "prompt"
"""Whose words guidance pulls apart: the recipe's own prompt, among its conditions."""


class Speaker(Protocol):
    """What a timetable asks of a condition."""

    weight: Curve
    start: float
    end: float

    @property
    def summed(self) -> float | None:
        """Of words that are a term of guidance of their own (AND): the term's weight. None: it is heard in everybody's."""
        ...

    @property
    def regional(self) -> bool:
        """Of such: do they count in a region only?"""
        ...


def loudness(speaker: Speaker, step: Step) -> float:
    """A condition's weight in one step; 0 when silent. Window rule of diffusers: a step must lie in it as a whole."""
    return value_at(speaker.weight, step.begin) if speaker.start <= step.begin and step.end <= speaker.end else 0.0


def heard(speaker: Speaker, evaluations: int) -> bool:
    """Does it say anything in a run of that many evaluations?"""
    return any(loudness(speaker, Step(i, evaluations)) for i in range(evaluations))


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of the network for one picture (samplers of second order have two a step)."""

    progress: float
    """0 at the first evaluation, towards 1 at the last: where curves are read."""
    guidance: Guidance
    """A row for each of its terms; in each, the guided conditions that it names say `on`, other guided ones `off`."""
    weights: Mapping[str, float]
    """Everyone who speaks, with a weight other than 0."""
    scale: float = 1.0
    """The recipe's guidance scale here. A network that hears it as a number has one term only, whatever it is."""
    parts: frozenset[str] = frozenset()
    """Who takes turns: of these, one speaks in each term, or the prompt says its negative."""

    def silent(self, who: str, speaks: frozenset[str]) -> bool:
        """Is it another's turn in the term in which these speak?"""
        return who in self.parts and who not in speaks and (who != PROMPT or bool(speaks & self.parts))

    @property
    def structure(self) -> tuple[Any, ...]:
        """What decides the shape of its rows: who speaks in which terms. Numbers may change without it."""
        return tuple(self.weights), tuple((t.speaks, t.part) for t in self.guidance.terms)


@dataclass(frozen=True)
class Stretch:
    """Evaluations `first` to `last` - 1, in which the same conditions speak in the same terms."""

    first: int
    last: int
    evaluations: tuple[Evaluation, ...]

    def plain(self) -> dict[str, Any]:
        """As plain data: weights that change are shown as [first, last] of the stretch."""
        begin, end = self.evaluations[0], self.evaluations[-1]

        def span(a: float, b: float) -> float | list[float]:
            return round(a, 6) if a == b else [round(a, 6), round(b, 6)]

        return {
            "evaluations": [self.first, self.last],
            "heard": {who: span(w, end.weights[who]) for who, w in begin.weights.items()},
            "terms": [
                {"weight": span(a.weight, b.weight), "speaks": sorted(a.speaks)}
                for a, b in zip(begin.guidance.terms, end.guidance.terms, strict=True)
            ],
        }


@dataclass(frozen=True)
class Timetable:
    """All evaluations of a run, in order."""

    evaluations: tuple[Evaluation, ...]

    def __len__(self) -> int:
        return len(self.evaluations)

    def __getitem__(self, i: int) -> Evaluation:
        return self.evaluations[i]

    def __iter__(self) -> Iterator[Evaluation]:
        return iter(self.evaluations)

    @cached_property
    def stretches(self) -> tuple[Stretch, ...]:
        """The run cut where somebody begins or ceases to speak, or guidance gains or loses a term."""
        out, at = [], 0
        for _, run in groupby(self.evaluations, lambda e: e.structure):
            same = tuple(run)
            out.append(Stretch(at, at + len(same), same))
            at += len(same)
        return tuple(out)

    @cached_property
    def rows(self) -> tuple[int, ...]:
        """Rows of one picture in each evaluation."""
        return tuple(len(e.guidance.terms) for e in self.evaluations)

    def plain(self) -> list[dict[str, Any]]:
        return [s.plain() for s in self.stretches]


def timetable(
    speakers: Mapping[str, Speaker],
    evaluations: int,
    guidance: Curve,
    own: Mapping[str, float],
    rescale: float = 0.0,
    embedded: bool = False,
) -> Timetable:
    """Ask everyone about every evaluation, once.

    guidance: the prompt's scale; 1 and below mean none, as in diffusers. own: scales of conditions that have one of their
    own, which stand before the prompt's in the chain while they speak. embedded: the network hears the scale as a number
    and answers with guidance, so that nothing is asked twice (guided distillation, arXiv:2210.03142).
    """

    def at(step: Step) -> Evaluation:
        weights = {who: w for who, s in speakers.items() if (w := loudness(s, step))}
        scale = value_at(guidance, step.begin)
        summed = scale > 1 and not embedded
        scales = {**{who: g for who, g in own.items() if who in weights}, PROMPT: scale} if summed else {PROMPT: 1.0}
        parts = {who: w * weights[who] for who in weights if (w := speakers[who].summed) is not None}
        regional = any(speakers[who].regional for who in parts)
        said = chain(tuple(weights), scales, rescale if summed else 0.0, parts, regional)
        return Evaluation(
            step.begin, said, weights, scale, frozenset(parts) if any(t.part for t in said.terms) else frozenset()
        )

    return Timetable(tuple(at(Step(i, evaluations)) for i in range(evaluations)))
