"""Eight places where information can enter a latent-diffusion network. A condition fills some; conditions add.

`Ports` is a monoid: `+` concatenates entries, the empty record is zero. Every entry has a `Voice`: how loudly and where it
speaks. When it does is no affair of an entry: `Ports.at` is told by the timetable what this evaluation's weight is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from infuse.curves import Curve, value_at
from infuse.errors import RecipeError
from infuse.values import LOUD as LOUD
from infuse.values import Posterior, Turning, Voice, Windowed

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor, nn


Scaling = Literal["v", "k+v", "k+v c", "k+mean v c"]


@dataclass(frozen=True, eq=False)
class Latent:
    """Where the job begins (`start`, `strength`), and a hole: what lies in no hole of a recipe is kept."""

    start: Posterior | None = None
    strength: float = 1.0
    keep: Posterior | None = None
    """Put back outside of the holes after each step; None if the network is told of the hole instead."""
    hole: Float[Tensor, "1 h w"] | None = None
    """1 = repaint, 0 = keep."""
    picture: Float[Tensor, "3 height width"] | None = None
    """Pixels (0-1) to put back outside of the holes in the end."""
    opening: Float[Tensor, "1 height width"] | None = None
    """The hole in pixels, 0 or 1."""
    voice: Voice = LOUD


@dataclass(frozen=True, eq=False)
class Channel:
    """Channels beside the latent. `ground` entries are what a slot holds when nobody speaks."""

    slot: str
    value: Float[Tensor, "c h w"] | Posterior | Windowed
    voice: Voice = LOUD
    ground: bool = False


@dataclass(frozen=True, eq=False)
class Tokens:
    """Tokens for cross-attention, attended together with those of all other conditions."""

    values: Float[Tensor, "n d"] | Turning
    voice: Voice = LOUD
    other: Float[Tensor, "n d"] | Turning | None = None
    """Another reading of the same words: heard is `share * values + (1 - share) * other` (PowerPaint's fitting degree)."""
    share: Curve = 1.0
    apart: float | None = None
    """Attended in a softmax of its own, in place of the others' words where it is: its weight among all that are (attention couple)."""
    rest: float = 0.0
    """Of what is attended apart: how much of the others' words is heard there nevertheless (0-1)."""

    @property
    def now(self) -> Float[Tensor, "n d"]:
        """The reading of this evaluation, once `Ports.at` has asked."""
        assert not isinstance(self.values, Turning)
        return self.values

    def at(self, progress: float) -> Tokens:
        """The reading at this progress."""
        values, other = (v.at(progress) if isinstance(v, Turning) else v for v in (self.values, self.other))
        if other is None or values is None:
            return self if values is self.values else replace(self, values=values)
        share = value_at(self.share, progress)
        return replace(self, values=share * values + (1 - share) * other, other=None)


@dataclass(frozen=True, eq=False)
class Decoupled:
    """Tokens with an attention of their own: the adapter's K and V, the network's Q (IP-Adapter, eq. 5)."""

    adapter: nn.Module
    """Asked beside the cross-attention, or (`place` "fuser", GLIGEN) before it. Its `edit` changes projections (FaceID's LoRA)."""
    tokens: Float[Tensor, "m d"] | Float[Tensor, "f m d"]
    """Of a clip they may be different for every frame."""
    layers: tuple[float, ...] | None = None
    """One factor per cross-attention in IP-Adapter order, or None for 1 everywhere."""
    voice: Voice = LOUD
    scaling: Scaling = "v"
    """What a weight multiplies (cubiq/ComfyUI_IPAdapter_plus@9d076a3): the answer, keys and values, keys and the values' mean."""
    lowrank: float = 1.0
    """Factor of the adapter's `edit`. It does not depend on the voice: whoever is silent is not there at all."""


@dataclass(frozen=True, eq=False)
class Residual:
    """A branch network's hint; what the branch answers is added at the sites of the base network.

    The branch says by `place` where that is: at the skips and the middle ("skips", ControlNet), inside of the blocks ("inside",
    BrushNet), step for step with the base ("lockstep", ControlNet-XS), or at what attention projects ("projections", LLLite).
    """

    branch: nn.Module
    hint: Float[Tensor, "c height width"] | tuple[Float[Tensor, "c h w"] | Posterior, ...]
    """A picture, or parts as large as the latent, stacked along channels; the job draws distributions."""
    sites: tuple[float, ...] | None = None
    """One factor per site, in the order of the branch's answer, or None for 1 everywhere."""
    voice: Voice = LOUD
    context: tuple[Tokens, ...] = ()
    """Tokens for the branch alone (PowerPaint 2's task tokens); empty: it hears what the base hears."""
    vector: Float[Tensor, " t"] | None = None
    """Numbers for the branch's own embedding (ControlNet-Union: which kind of map this is)."""

    def at(self, progress: float) -> Residual:
        return replace(self, context=tuple(t.at(progress) for t in self.context)) if self.context else self

    def drawn(self, samples: Mapping[int, Tensor]) -> Residual:
        import torch

        if isinstance(self.hint, torch.Tensor):
            return self
        return replace(self, hint=torch.cat([samples[id(p)] if isinstance(p, Posterior) else p for p in self.hint]))


@dataclass(frozen=True, eq=False)
class Features:
    """What an adapter says of a hint once for the whole run (T2I-Adapter): added where each level of the encoder ends."""

    levels: tuple[Float[Tensor, "c h w"] | Float[Tensor, "c f h w"], ...]
    """Shallow to deep."""
    sites: tuple[float, ...] | None = None
    """One factor per level, or None for 1 everywhere."""
    voice: Voice = LOUD


@dataclass(frozen=True, eq=False)
class Shared:
    """A picture that runs beside its row through the same network: self-attention finds keys and values there, too.

    Source: Mikubill/sd-webui-controlnet@56cec5b (reference-only, adain).
    """

    latent: Posterior
    share: float = 1.0
    """How much of the answer has heard it (0-1): 1 - fidelity where guidance wants nobody."""
    blocks: frozenset[str] = frozenset()
    """Module paths of the self-attentions in which it is heard."""
    norms: frozenset[int] = frozenset()
    """Sites (of the walk, 0 is the first layer) where mean and spread of its features are taken over."""
    beside: tuple[Channel, ...] = ()  # what the network's slots hold in its own row
    x: Float[Tensor, "c h w"] | None = None
    """Its latent, once the job has drawn it; in a row, at the noise level of that evaluation."""
    voice: Voice = LOUD

    def drawn(self, samples: Mapping[int, Tensor]) -> Shared:
        told = (replace(c, value=samples[id(c.value)]) if id(c.value) in samples else c for c in self.beside)
        return replace(self, x=samples[id(self.latent)], beside=tuple(told))


@dataclass(frozen=True, eq=False)
class Vector:
    """A vector for the time embedding. `ground` entries are what the slot holds when nobody speaks."""

    slot: str
    value: Float[Tensor, " e"] | Posterior | Turning
    voice: Voice = LOUD
    ground: bool = False

    def at(self, progress: float) -> Vector:
        return replace(self, value=self.value.at(progress)) if isinstance(self.value, Turning) else self


@dataclass(frozen=True, eq=False)
class Edit:
    """What is added to the answers of the network's own layers (LoRA and its kin), for the rows that carry it."""

    network: nn.Module
    """A `network.lora.LoraNetwork`."""
    blocks: tuple[float, ...] | None = None
    """A factor for each of the 26 blocks (`network.blocks`), or None for 1 everywhere."""
    voice: Voice = LOUD


Entry = Latent | Channel | Tokens | Decoupled | Residual | Features | Vector | Shared | Edit


@dataclass(frozen=True, eq=False)
class Ports:
    """Everything one row tells the network besides x and the timestep. Add two of them and both are heard."""

    latent: tuple[Latent, ...] = ()
    channels: tuple[Channel, ...] = ()
    context: tuple[Tokens, ...] = ()
    decoupled: tuple[Decoupled, ...] = ()
    residuals: tuple[Residual | Features, ...] = ()
    embedding: tuple[Vector, ...] = ()
    shared: tuple[Shared, ...] = ()
    edits: tuple[Edit, ...] = ()

    def __add__(self, other: Ports) -> Ports:
        return Ports(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def __bool__(self) -> bool:
        return any(getattr(self, f.name) for f in fields(self))

    def map(self, change: Callable[[Any], Any]) -> Ports:
        """Every entry changed by a function; None drops the entry."""
        changed = ([change(e) for e in getattr(self, f.name)] for f in fields(self))
        return Ports(*(tuple(e for e in port if e is not None) for port in changed))

    def spoken(self, voice: Voice) -> Ports:
        """The same entries in one voice: how a condition's weight and region reach all of its ports."""
        return self if voice is LOUD else self.map(lambda e: replace(e, voice=voice.over(e.voice)))

    def at(self, progress: float, weight: float = 1.0) -> Ports:
        """What is said in one evaluation, at this progress (0-1) of a run and with this weight. 0: nothing at all."""

        def now(entry: Entry) -> Entry:
            return entry.at(progress) if isinstance(entry, Tokens | Residual | Vector) else entry

        return self.map(now).spoken(LOUD if weight == 1 else Voice(weight)) if weight else Ports()

    @cached_property
    def turns(self) -> bool:
        """Is it not the same at all times, whatever the weight?"""
        tokens = (*self.context, *(t for r in self.residuals if isinstance(r, Residual) for t in r.context))
        values = [*(v for t in tokens for v in (t.values, t.other)), *(v.value for v in self.embedding)]
        return any(isinstance(v, Turning) for v in values) or any(isinstance(t.share, dict) for t in tokens)

    def clip(self, first: int, last: int, count: int) -> Ports:
        """What is said of the frames `first`..`last` - 1 of a clip of `count`."""
        from torch import Tensor

        def change(entry: Entry) -> Entry:
            if not isinstance(entry, Latent):
                entry = replace(entry, voice=entry.voice.clip(first, last, count))
            match entry:
                case Channel(value=Windowed() as value):
                    return replace(entry, value=value.pieces[first, last])
                case Channel(value=Tensor() as value) if value.ndim == 4:
                    return replace(entry, value=value[:, first:last])
                case Residual(hint=Tensor() as hint) if hint.ndim == 4:
                    return replace(entry, hint=hint[:, first:last])
                case Decoupled(tokens=said) if said.ndim == 3:
                    return replace(entry, tokens=said[first:last])
                case Features(levels=levels) if levels[0].ndim == 4:
                    return replace(entry, levels=tuple(f[:, first:last] for f in levels))
            return entry

        return self.map(change)

    def posteriors(self) -> list[Posterior]:
        """What is to be drawn for channels, the embedding and hints, in order, each once."""
        shown: list[Any] = [e.value for e in (*self.channels, *self.embedding)]
        shown += [p for r in self.residuals if isinstance(r, Residual) and isinstance(r.hint, tuple) for p in r.hint]
        return list({id(p): p for p in shown if isinstance(p, Posterior)}.values())

    def companions(self) -> list[Posterior]:
        """What is to be drawn for the pictures that run beside a row, each once."""
        shown = [v for e in self.shared for v in (e.latent, *(c.value for c in e.beside))]
        return list({id(p): p for p in shown if isinstance(p, Posterior)}.values())

    def drawn(self, samples: Mapping[int, Tensor]) -> Ports:
        """What was a distribution, replaced by this job's samples (keyed by the posterior's id)."""

        def change(entry: Entry) -> Entry:
            if isinstance(entry, Residual | Shared):
                return entry.drawn(samples)
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
    where: Float[Tensor, "height width"] | None = None
    """Of words that are a term of guidance of their own: the region in which that counts."""

    @classmethod
    def both(cls, ports: Ports) -> Sides:
        """A condition that speaks on both sides of guidance (ControlNet, channels, sizes)."""
        return cls(ports, ports)

    def spoken(self, voice: Voice) -> Sides:
        return replace(self, on=self.on.spoken(voice), off=self.off.spoken(voice))

    @property
    def nbytes(self) -> int:
        """Memory of its tensors, those of networks aside. What both sides share counts once."""
        memory = [t.untyped_storage() for t in _tensors((self.on, self.off))]
        return sum({m.data_ptr(): m.nbytes() for m in memory}.values())


def _tensors(value: Any) -> Iterator[Tensor]:
    """Every tensor of an entry, however deep."""
    from torch import Tensor

    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | Mapping):
        for one in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors(one)
    elif is_dataclass(value):
        for f in fields(value):
            yield from _tensors(getattr(value, f.name))


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
