"""One picture in the making: its solver, what its conditions say, its own randomness. What is said when, it reads off."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import reduce
from hashlib import sha256
from operator import add
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from infuse.batch import Row
from infuse.constants import moved, tensors
from infuse.encoders.kit import Kit
from infuse.engine.holes import Hold, holes
from infuse.engine.windows import blended
from infuse.errors import InfuseError
from infuse.grids import resized
from infuse.lossy import Memory, Shortcut
from infuse.network.unet import guidance_vector
from infuse.ports import Channel, Ports, Sides, Vector
from infuse.solvers import Plan, Solver, solve
from infuse.timetable import Evaluation, Timetable


@dataclass(eq=False)
class Job:
    """A running request for one picture. `rows` asks the network, `answer` moves on by one evaluation.

    Nothing random is drawn, and no memory taken for it, before the first `rows`.
    """

    plan: Plan
    timetable: Timetable
    sides: Mapping[str, Sides]
    """Who says what, in the order in which context tokens are read."""
    ground: Ports
    """What the network's slots hold where nobody speaks."""
    seed: int
    shape: tuple[int, ...]
    """(c h w); (c f h w) of a clip."""
    dtype: torch.dtype
    device: torch.device
    windows: tuple[tuple[int, int], ...] = ()
    """Of a clip: the frames (first, last + 1) of each look at it."""
    shortcuts: tuple[Shortcut, ...] = ()
    """What each evaluation leaves out (lossy options); (): none ever does."""
    latent: Tensor | None = None
    """The finished latent."""
    last: tuple[Tensor, Tensor, Tensor] | None = None
    """(input, timestep, guided answer) of the last evaluation: what a preview is made of."""
    i: int = 0
    held: int = 0
    """Bytes that were kept for that, at the most."""
    memory: dict[int, Memory] = field(default_factory=dict, repr=False)
    """What each row keeps for it; nothing once the job is done."""
    _solver: Solver | None = None
    _query: tuple[Tensor, Tensor] | None = None
    _hold: Hold | None = field(default=None, repr=False)
    _said: dict[Any, tuple[Ports, ...]] = field(default_factory=dict, repr=False)
    """What was said in the evaluation before, by what decides it: while that stays, it is the same object."""

    def start(self) -> None:
        """Draw everything random in diffusers' order (start picture, noise, channels) and pose the first question."""
        generator, plan = torch.Generator("cpu").manual_seed(self.seed), self.plan.fresh()
        everyone = reduce(add, (s.on for s in self.sides.values()), Ports())
        start = next((e.start for e in everyone.latent if e.start is not None), None)
        keep = next((e.keep for e in everyone.latent if e.keep is not None), None)
        told = reduce(add, (s.off for s in self.sides.values()), everyone)
        first, late = ([p for p in told.posteriors() if p.early == early] for early in (True, False))
        drawn = {id(p): p.draw(generator) for p in first}
        known = {p: p.draw(generator) for p in dict.fromkeys((start, keep)) if p is not None}
        noise = torch.randn((1, *self.shape), generator=generator, dtype=torch.float32)[0].to(self.device, self.dtype)
        drawn |= {id(p): p.draw(generator) for p in late}
        if (
            keep is not None and not late
        ):  # diffusers draws for a masked picture that a 4-channel network is never shown
            torch.randn((1, *self.shape), generator=generator)
        # what the picture itself is made of does not depend on those beside it, nor on their order
        for companion in told.companions():
            drawn[id(companion)] = companion.draw(torch.Generator("cpu").manual_seed(apart(self.seed, "beside")))
        sides = {k: replace(s, on=s.on.drawn(drawn), off=s.off.drawn(drawn)) for k, s in self.sides.items()}
        own = torch.Generator("cpu").manual_seed(apart(self.seed))
        below = self.ground.drawn({id(p): p.draw(own) for p in self.ground.posteriors()})
        scheduler, t = plan.scheduler, plan.timesteps[:1]
        x = noise * scheduler.init_noise_sigma
        if start is not None:
            x = scheduler.add_noise(known[start][None], noise[None], t)[0]
        hold = None if keep is None else Hold(scheduler, holes(sides), known[keep], noise, self.timetable)
        solver = solve(plan, x.to(self.dtype), generator, hold)
        query = next(solver)
        self.sides, self.ground, self._hold, self._solver, self._query = sides, below, hold, solver, query

    @property
    def n(self) -> int:
        return len(self.timetable)

    @property
    def now(self) -> Evaluation:
        return self.timetable[self.i]

    @property
    def width(self) -> int:
        """Rows that it brings to its next call, with those that run beside them."""
        spoken = [(self.sides[who], who) for who in self.now.weights if who in self.sides]
        beside = sum(
            len((s.on if who in term.speaks else s.off).shared) for term in self.now.guidance.terms for s, who in spoken
        )
        return (len(self.now.guidance.terms) + beside) * max(len(self.windows), 1)

    def rows(self) -> list[Row]:
        """One row per term of the guidance: the conditions it names say `on`, other guided ones say `off`."""
        if self._solver is None:
            self.start()
        if self._query is None:
            raise InfuseError("", "its solver was interrupted in the middle of a step. Run the recipe again.")
        x, t = self._query
        said, looks = [self.said(term.speaks) for term in self.now.guidance.terms], [x]
        if self.windows:
            looks = [x[:, a:b] for a, b in self.windows]
        rows = [Row(look, t, self.beside(p, t)) for each in said for look, p in zip(looks, each, strict=True)]
        if self.shortcut is None:
            return rows
        kept = [self.memory.setdefault(n, Memory()) for n in range(len(rows))]
        return [replace(r, shortcut=self.shortcut, memory=m) for r, m in zip(rows, kept, strict=True)]

    @property
    def shortcut(self) -> Shortcut | None:
        """What the present evaluation leaves out."""
        return self.shortcuts[self.i] if self.shortcuts and self.latent is None else None

    def said(self, speaks: frozenset[str]) -> tuple[Ports, ...]:
        """What is said when these guided conditions speak, in each window of a clip. Entries stay the same objects from evaluation
        to evaluation while nothing about them changes, so that what is made of them can be kept."""
        now = self.now
        key = (speaks, tuple(now.weights.items()), now.parts, now.scale, now.progress if self._turns else 0.0)
        if key not in self._said:
            said = self.ports(speaks)
            each = tuple(said.clip(a, b, self.shape[1]) for a, b in self.windows) if self.windows else (said,)
            self._said = {**dict(list(self._said.items())[-7:]), key: each}
        return self._said[key]

    @property
    def _turns(self) -> bool:
        """Do words change on the way, whoever speaks?"""
        return any(p.turns for s in self.sides.values() for p in (s.on, s.off))

    def ports(self, speaks: frozenset[str]) -> Ports:
        """What is said in the present evaluation when these guided conditions speak."""
        progress, weights = self.now.progress, self.now.weights
        below = self.ground
        slot: Any = next((v for v in below.embedding if v.slot == "guidance"), None)
        if slot is not None:
            told = guidance_vector(self.now.scale, len(slot.value)).to(slot.value)
            below += Ports(embedding=(Vector("guidance", told),))
        said = (
            (s.on if who in speaks else s.off).at(progress, 1.0 if who in self.now.parts else weights[who])
            for who, s in self.sides.items() if who in weights and not self.now.silent(who, speaks)
        )  # fmt: skip
        return reduce(add, said, below)

    def beside(self, ports: Ports, t: Tensor) -> Ports:
        """The same, with the pictures that run beside the row as noisy as its own: one noise for all of them, new in each
        evaluation, and the same whenever this job is run."""
        if not ports.shared:
            return ports
        levels = self.plan.scheduler.alphas_cumprod
        alpha = levels[int(t.round().clamp(0, len(levels) - 1))].item()
        generator = torch.Generator("cpu").manual_seed(apart(self.seed, f"beside {self.i}"))
        noise = moved(torch.randn(self.shape, generator=generator, dtype=torch.float32).to(self.dtype), self.device)
        noised = (replace(e, x=alpha**0.5 * e.x + (1 - alpha) ** 0.5 * noise) for e in ports.shared if e.x is not None)
        return replace(ports, shared=tuple(noised))

    @property
    def regions(self) -> dict[str, Tensor]:
        """Of parts that count in a region only: where, on the latent's grid."""
        found = ((t.part, self.sides[t.part].where) for t in self.now.guidance.terms if t.part in self.sides)
        size = (self.shape[-2], self.shape[-1])
        return {who: resized(where, size, "area") for who, where in found if where is not None}

    def answer(self, answers: Float[Tensor, "terms c h w"]) -> None:
        """Combine the rows' answers and let the solver go on; sets `latent` when it is done.

        Whatever ends this before its end leaves a job that cannot be asked again.
        """
        if len(self.windows) > 1:
            answers = torch.stack([blended(part, self.windows) for part in answers.split(len(self.windows))])
        said = self.now.guidance.combine(answers, self.regions)
        assert self._solver is not None and self._query is not None
        query, self._query = self._query, None
        if self._hold is not None:
            self._hold.i = self.i
        try:
            query_next, latent = self._solver.send(said), None
        except StopIteration as done:
            query_next, latent = None, done.value
        self.last, self.i, self.latent, self._query = (*query, said), self.i + 1, latent, query_next
        if self.shortcuts:
            self.held = max(self.held, sum(t.nbytes for t in tensors(list(self.memory.values()))))
        if latent is not None:
            self.memory.clear()


def apart(seed: int, what: str = "ground") -> int:
    """A seed for what must not share its draws with the picture's own noise."""
    return int.from_bytes(sha256(f"{what} {seed}".encode()).digest()[:7])


def ground(kit: Kit, sides: Mapping[str, Sides], timetable: Timetable) -> Ports:
    """What the slots of the network hold while nobody speaks in them, as far as anybody will see it."""
    spec = kit.spec
    channels: tuple[Channel, ...] = ()
    if any(s.name == "masked_image" for s in spec.channel_slots) and not covered(sides, timetable, "masked_image"):
        # text-to-image with an inpainting network: everything is a hole in a gray picture
        channels = (Channel("masked_image", kit.gray(), ground=True),)
    vectors: tuple[Vector, ...] = ()
    if "time_ids" in spec.embedding_slots:
        h, w = kit.size[::-1]
        vectors = (Vector("time_ids", kit.vector((h, w, 0, 0, h, w)), ground=True),)
    if width := spec.embedding_slots.get("image_embeds"):  # unCLIP's silent side: zeros, the sinusoids as well
        vectors += (Vector("image_embeds", kit.vector([0.0] * width), ground=True),)
    if "noise_level" in spec.embedding_slots:  # a level is no matter of more or less: whoever says one says it for all
        said = (v.value for s in sides.values() for v in s.on.embedding if v.slot == "noise_level")
        vectors += (Vector("noise_level", next(said, kit.vector([0.0])), ground=True),)
    if spec.embeds_guidance:  # told anew for every evaluation, as the scale may be a curve
        vectors += (Vector("guidance", kit.vector([0.0] * spec.embedding_slots["guidance"]), ground=True),)
    return Ports(channels=channels, embedding=vectors)


def covered(sides: Mapping[str, Sides], timetable: Timetable, slot: str) -> bool:
    """Does somebody fill this slot, wholly and everywhere, in all terms of all evaluations?"""

    def fills(ports: Ports) -> bool:
        return any(c.slot == slot and c.voice.weight == 1 and c.voice.mask is None for c in ports.channels)

    whole = {who for who, s in sides.items() if fills(s.on) and fills(s.off)}
    return all(any(e.weights.get(who) == 1 for who in whole) for e in timetable)
