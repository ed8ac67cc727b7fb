"""Six places where information can enter a latent-diffusion network. A condition fills some; conditions add.

`Ports` is a monoid: `+` concatenates entries, the empty record is zero. Every entry has a `Voice`: how loudly, when and
where it speaks. `Ports.at(step)` turns voices into plain numbers for one step and leaves out whoever is silent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from infuse.curves import Curve, Step, value_at
from infuse.errors import RecipeError


@dataclass(frozen=True, eq=False)
class Posterior:
    """What a VAE says about a picture: a normal distribution. The job draws from it with its own generator."""

    mean: Float[Tensor, "c h w"]
    std: Float[Tensor, "c h w"]

    def draw(self, generator: torch.Generator | None) -> Float[Tensor, "c h w"]:
        """One sample; without a generator, the mode."""
        if generator is None:
            return self.mean
        noise = torch.randn((1, *self.mean.shape), generator=generator, dtype=torch.float32)[0]
        return self.mean + self.std * noise.to(self.mean)


@dataclass(frozen=True, eq=False)
class Voice:
    """How loudly (`weight`), when (`start`..`end`, fractions of the steps) and where (`mask`, 0-1) an entry speaks."""

    weight: Curve = 1.0
    start: float = 0.0
    end: float = 1.0
    mask: Float[Tensor, "height width"] | None = None

    def at(self, step: Step) -> float:
        """The weight during this step; 0 when silent. Window rule of diffusers: a step must lie in it as a whole."""
        return value_at(self.weight, step.begin) if self.start <= step.begin and step.end <= self.end else 0.0


LOUD = Voice()


@dataclass(frozen=True, eq=False)
class Latent:
    """Where the job begins (`start`, `strength`) and what it must keep (`keep` outside of `hole`)."""

    start: Posterior | None = None
    strength: float = 1.0
    keep: Posterior | None = None
    hole: Float[Tensor, "1 h w"] | None = None
    """1 = repaint, 0 = keep."""
    paste: tuple[Float[Tensor, "3 height width"], Float[Tensor, "1 height width"]] | None = None
    """(picture 0-1, its hole): pixels to put back outside of the hole when the job is done."""
    voice: Voice = LOUD


@dataclass(frozen=True, eq=False)
class Channel:
    """Channels beside the latent. `ground` entries are what a slot holds when nobody speaks."""

    slot: str
    value: Float[Tensor, "c h w"] | Posterior
    voice: Voice = LOUD
    ground: bool = False


@dataclass(frozen=True, eq=False)
class Tokens:
    """Tokens for cross-attention, attended together with those of all other conditions."""

    values: Float[Tensor, "n d"]
    voice: Voice = LOUD


@dataclass(frozen=True, eq=False)
class Decoupled:
    """Tokens with an attention of their own: the adapter's K and V, the network's Q (IP-Adapter, eq. 5)."""

    adapter: nn.Module
    tokens: Float[Tensor, "m d"]
    layers: tuple[float, ...] | None = None
    """One factor per cross-attention in IP-Adapter order, or None for 1 everywhere."""
    voice: Voice = LOUD


@dataclass(frozen=True, eq=False)
class Residual:
    """A branch network's hint; what the branch answers is added at the sites of the base network."""

    branch: nn.Module
    hint: Float[Tensor, "c height width"]
    sites: tuple[float, ...] | None = None
    """One factor per site, shallow to middle, or None for 1 everywhere."""
    voice: Voice = LOUD


@dataclass(frozen=True, eq=False)
class Vector:
    """A vector for the time embedding. `ground` entries are what the slot holds when nobody speaks."""

    slot: str
    value: Float[Tensor, " e"]
    voice: Voice = LOUD
    ground: bool = False


Entry = Latent | Channel | Tokens | Decoupled | Residual | Vector


@dataclass(frozen=True, eq=False)
class Ports:
    """Everything one row tells the network besides x and the timestep. Add two of them and both are heard."""

    latent: tuple[Latent, ...] = ()
    channels: tuple[Channel, ...] = ()
    context: tuple[Tokens, ...] = ()
    decoupled: tuple[Decoupled, ...] = ()
    residuals: tuple[Residual, ...] = ()
    embedding: tuple[Vector, ...] = ()

    def __add__(self, other: Ports) -> Ports:
        return Ports(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def __bool__(self) -> bool:
        return any(getattr(self, f.name) for f in fields(self))

    def map(self, change: Callable[[Any], Any]) -> Ports:
        """Every entry changed by a function; None drops the entry."""
        changed = ([change(e) for e in getattr(self, f.name)] for f in fields(self))
        return Ports(*(tuple(e for e in port if e is not None) for port in changed))

    def spoken(self, voice: Voice) -> Ports:
        """The same entries in one voice: how a condition's weight, window and region reach all of its ports."""
        return self if voice is LOUD else self.map(lambda e: replace(e, voice=voice))

    def at(self, step: Step) -> Ports:
        """This step's entries with plain weights. Weight 0 or outside the window: not there at all."""

        def now(entry: Entry) -> Entry | None:
            weight = entry.voice.at(step)
            return replace(entry, voice=Voice(weight, mask=entry.voice.mask)) if weight else None

        return self.map(now)

    def drawn(self, samples: Mapping[int, Tensor]) -> Ports:
        """Channel values that were distributions, replaced by this job's samples (keyed by the posterior's id)."""

        def change(entry: Entry) -> Entry:
            value = getattr(entry, "value", None)
            return replace(entry, value=samples[id(value)]) if isinstance(value, Posterior) else entry  # type: ignore[arg-type]

        return self.map(change)


@dataclass(frozen=True, eq=False)
class Sides:
    """What a condition says when it speaks (`on`) and when it is silent (`off`).

    `off` serves as guidance's unconditional side and as training's condition dropout.
    """

    on: Ports
    off: Ports = Ports()

    @classmethod
    def both(cls, ports: Ports) -> Sides:
        """A condition that speaks on both sides of guidance (ControlNet, channels, sizes)."""
        return cls(ports, ports)

    def spoken(self, voice: Voice) -> Sides:
        return Sides(self.on.spoken(voice), self.off.spoken(voice))


def one_claim(sides: Mapping[str, Sides], exclusive: frozenset[str]) -> None:
    """Two conditions may not fill one exclusive slot, nor start a job in two places.

    Raises RecipeError naming the second claimant.
    """
    claims: dict[str, str] = {}
    for who, side in sides.items():
        wanted = {f"the slot {c.slot!r}" for c in side.on.channels if c.slot in exclusive and not c.ground}
        wanted |= {"the start of the picture" for e in side.on.latent if e.start is not None}
        for what in sorted(wanted):
            if what in claims:
                raise RecipeError(who, f"it sets {what}, and so does {claims[what]}. Keep one of the two.")
            claims[what] = who
