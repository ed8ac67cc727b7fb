"""What entries of ports are made of: distributions that a job draws from, values that change on the way, a voice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from infuse.curves import Curve, value_at

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Posterior:
    """What a VAE says about a picture: a normal distribution. The job draws from it with its own generator."""

    mean: Float[Tensor, "c h w"]
    std: Float[Tensor, "c h w"]
    early: bool = field(default=False, kw_only=True)
    """Drawn before the picture's own noise, as diffusers' upscaler and unCLIP do; else after it."""

    def draw(self, generator: torch.Generator | None) -> Float[Tensor, "c h w"]:
        """One sample; without a generator, the mode."""
        import torch

        if generator is None:
            return self.mean
        noise = torch.randn((1, *self.mean.shape), generator=generator, dtype=torch.float32)[0]
        return self.mean + self.std * noise.to(self.mean)


@dataclass(frozen=True, eq=False)
class Windowed:
    """A value of a clip, made for each window of its frames by itself: `pieces[first, last + 1]`."""

    pieces: Mapping[tuple[int, int], Float[Tensor, "c f h w"]]


@dataclass(frozen=True, eq=False)
class Turning:
    """A value that changes on the way (the webui's `[a:b:0.5]`): `values[i]` before progress `ends[i]`, the last one to the end."""

    ends: tuple[float, ...]
    values: tuple[Tensor, ...]

    def at(self, progress: float) -> Tensor:
        return next((v for end, v in zip(self.ends, self.values, strict=True) if progress < end), self.values[-1])


@dataclass(frozen=True, eq=False)
class Voice:
    """How loudly (`weight`) and where (`mask`, 0-1) an entry speaks.

    `frames` weighs a clip's frames on top of that: a curve from its first (0) to its last (1).
    """

    weight: float = 1.0
    mask: Float[Tensor, "height width"] | None = None
    frames: Curve | tuple[float, ...] | None = None
    """A curve; numbers once `Ports.clip` has asked it."""

    def clip(self, first: int, last: int, count: int) -> Voice:
        """This voice in the frames `first`..`last` - 1 of `count`: the curve becomes one number for each."""
        if self.frames is None or isinstance(self.frames, tuple):
            return self
        said = [value_at(self.frames, i / max(count - 1, 1)) for i in range(first, last)]
        return replace(self, frames=tuple(said))

    def over(self, own: Voice) -> Voice:
        """This voice for an entry that has one of its own: weights multiply, what this one leaves open stays the entry's."""
        frames = own.frames if self.frames is None else self.frames
        return Voice(self.weight * own.weight, own.mask if self.mask is None else self.mask, frames)


LOUD = Voice()
