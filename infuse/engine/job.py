"""One picture in the making: its solver, what its conditions say, how they are guided, its own randomness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import add

import torch
from jaxtyping import Float
from torch import Tensor

from infuse.batch import Row
from infuse.conditions.base import PROMPT
from infuse.curves import Curve, Step, value_at
from infuse.encoders.kit import Kit
from infuse.guidance import Guidance, chain
from infuse.ports import Channel, Latent, Ports, Sides, Vector
from infuse.solvers import Plan, Solver, solve


@dataclass(eq=False)
class Job:
    """A running request for one picture. `rows` asks the network, `answer` moves on by one evaluation."""

    plan: Plan
    sides: Mapping[str, Sides]
    """Who says what, in the order in which context tokens are read."""
    scale: Curve
    """Guidance scale of the prompt."""
    scales: Mapping[str, float]
    """Guidance scales of conditions that have their own, before the prompt's in the chain."""
    rescale: float
    generator: torch.Generator
    ground: Ports
    shape: tuple[int, ...]
    """(c h w); (c f h w) of a clip."""
    dtype: torch.dtype
    device: torch.device
    windows: tuple[tuple[int, int], ...] = ()
    """Of a clip: the frames (first, last + 1) of each call; they overlap in clips longer than the network's own."""
    latent: Tensor | None = None
    """The finished latent."""
    i: int = 0
    _solver: Solver = field(init=False)
    _query: tuple[Tensor, Tensor] = field(init=False)
    _guidance: Guidance = field(init=False)

    def start(self) -> Job:
        """Draw everything random in diffusers' order (start picture, noise, channels) and pose the first question."""
        everyone = reduce(add, (s.on for s in self.sides.values()), self.ground)
        start = next((e for e in everyone.latent if e.start is not None), None)
        keep = [e for e in everyone.latent if e.hole is not None]
        first = [e.start for e in (start,) if e is not None] + [e.keep for e in keep[:1]]
        known = {id(p): p.draw(self.generator) for p in dict.fromkeys(first) if p is not None}
        z = known[id(start.start)] if start is not None else None
        noise = torch.randn((1, *self.shape), generator=self.generator, dtype=torch.float32)[0].to(
            self.device, self.dtype
        )
        drawn = {id(p): p.draw(self.generator) for p in everyone.posteriors()}
        if keep and not drawn:  # diffusers draws for a masked picture that a 4-channel network is never shown
            torch.randn((1, *self.shape), generator=self.generator)
        self.sides = {k: Sides(s.on.drawn(drawn), s.off.drawn(drawn)) for k, s in self.sides.items()}
        self.ground = self.ground.drawn(drawn)
        scheduler, t = self.plan.scheduler, self.plan.timesteps[:1]
        x = noise * scheduler.init_noise_sigma if z is None else scheduler.add_noise(z[None], noise[None], t)[0]
        hold = Hold(scheduler, keep, known, noise, self) if keep else None
        self._solver = solve(self.plan, x.to(self.dtype), self.generator, hold)
        self._query = next(self._solver)
        return self

    @property
    def n(self) -> int:
        return len(self.plan.timesteps)

    @property
    def step(self) -> Step:
        return Step(self.i, self.n)

    def guidance(self) -> Guidance:
        """This step's sum of answers. A scale of 1 or less is no guidance, as in diffusers."""
        g = value_at(self.scale, self.step.begin)
        scales = {**self.scales, PROMPT: g} if g > 1 else {}
        return chain(tuple(self.sides), scales, self.rescale) if scales else chain(tuple(self.sides), {PROMPT: 1.0})

    def rows(self) -> list[Row]:
        """One row per term of the guidance: the conditions it names say `on`, other guided ones say `off`."""
        x, t = self._query
        self._guidance = self.guidance()
        said = [self.ports(term.speaks) for term in self._guidance.terms]
        if not self.windows:
            return [Row(x, t, ports) for ports in said]
        return [Row(x[:, a:b], t, ports.clip(a, b, self.shape[1])) for ports in said for a, b in self.windows]

    @property
    def width(self) -> int:
        """Rows that it brings to its next call."""
        return len(self.guidance().terms) * max(len(self.windows), 1)

    def ports(self, speaks: frozenset[str]) -> Ports:
        said = (s.on if who in speaks else s.off for who, s in self.sides.items())
        return reduce(add, said, self.ground).at(self.step)

    def answer(self, answers: Float[Tensor, "terms c h w"]) -> None:
        """Combine the rows' answers and let the solver go on; sets `latent` when it is done."""
        self.i += 1
        if len(self.windows) > 1:
            answers = torch.stack([blended(part, self.windows) for part in answers.split(len(self.windows))])
        try:
            self._query = self._solver.send(self._guidance.combine(answers))
        except StopIteration as done:
            self.latent = done.value


def windows(count: int, native: int) -> tuple[tuple[int, int], ...]:
    """Stretches of `native` frames that cover a clip of `count`, each overlapping the one before by a quarter or more.

    None for a network of pictures (`native` 0).
    """
    if not native:
        return ()
    if count <= native:
        return ((0, count),)
    stride = max(native - native // 4, 1)
    starts = [*range(0, count - native, stride), count - native]
    return tuple((a, a + native) for a in starts)


def blended(answers: Float[Tensor, "windows c n h w"], windows: Sequence[tuple[int, int]]) -> Float[Tensor, "c f h w"]:
    """One answer for the whole clip. Where windows overlap, each counts the more the farther a frame is from its ends.

    The temporal form of MultiDiffusion (Bar-Tal et al. 2023, eq. 5). A frame that only one window sees is that window's.
    """
    n, total = answers.shape[2], windows[-1][1]
    ramp = torch.arange(n, device=answers.device, dtype=answers.dtype)
    ramp = torch.minimum(ramp + 1, n - ramp)[:, None, None]
    out = answers.new_zeros(answers.shape[1], total, *answers.shape[3:])
    weight = answers.new_zeros(total, 1, 1)
    for answer, (a, b) in zip(answers, windows, strict=True):
        out[:, a:b] += ramp * answer
        weight[a:b] += ramp
    return out / weight


@dataclass(frozen=True, eq=False)
class Hold:
    """Blend inpainting: after each step the known part is put back, noised to the level of the next step.

    Source: diffusers' StableDiffusionInpaintPipeline for 4-channel networks; one noise for the whole run.
    """

    scheduler: object
    keep: Sequence[Latent]
    known: Mapping[int, Tensor]
    noise: Tensor
    job: Job

    def __call__(self, x: Tensor, t: Tensor | None) -> Tensor:
        step = Step(max(self.job.i - 1, 0), self.job.n)
        speaking = [(w, e) for e in self.keep if (w := e.voice.at(step))]
        if not speaking:
            return x
        hole = reduce(torch.maximum, (e.hole for _, e in speaking if e.hole is not None)).to(x)
        weight = max(w for w, _ in speaking)
        z = self.known[id(self.keep[0].keep)]
        level = z if t is None else self.scheduler.add_noise(z[None], self.noise[None], t[None])[0]  # type: ignore[attr-defined]
        return (1 - weight * (1 - hole)) * x + weight * (1 - hole) * level


def ground(kit: Kit, sides: Sequence[Ports]) -> Ports:
    """What the slots of the network hold while nobody speaks in them."""
    spec = kit.spec
    channels: tuple[Channel, ...] = ()
    if any(s.name == "masked_image" for s in spec.channel_slots):
        claimed = any(
            c.slot == "masked_image" and c.voice.at(Step(0, 1)) == 1 and c.voice.mask is None
            for p in sides
            for c in p.channels
        )
        if not claimed:  # text-to-image with an inpainting network: everything is a hole in a gray picture
            channels = (Channel("masked_image", kit.gray(), ground=True),)
    vectors: tuple[Vector, ...] = ()
    if "time_ids" in spec.embedding_slots:
        h, w = kit.size[::-1]
        vectors = (Vector("time_ids", kit.vector((h, w, 0, 0, h, w)), ground=True),)
    return Ports(channels=channels, embedding=vectors)
