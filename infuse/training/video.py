"""Teach a network to make clips, and to hear VideoComposer's conditions: the same ports, collate and predict as in a job.

Stage 1 is text alone; stage 2 adds an encoder for each spatial condition, learned with the network, and the style token.
What falls silent is drawn as VideoComposer draws it. Source: Wang et al. 2023 (VideoComposer), sec. 3.3;
damo-vilab/videocomposer @ 5c14d4f2, tools/videocomposer/unet_sd.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from infuse.encoders.kit import Base
from infuse.ports import Channel, Ports, Tokens
from infuse.training.objectives_diffusion import Denoise, freeze
from infuse.training.video_models import Parted, is_temporal, joined, settle

Learn = Literal["new", "temporal", "attention", "all"]
"""Of the UNet: the input channels of the conditions alone; the temporal layers, too; and the spatial self-attentions, by
which a frame's places tell each other what moved where; or everything."""
TEXT, STYLE, MOTION = "text", "style", "motion"
TELL = frozenset({MOTION, "depth", "sketch", "masked"})
"""Conditions of every frame: where one of them is heard, words need not say how anything moves."""
SELF = ".attn1."


class ClipExamples(Protocol):
    """Where clips come from. A pick always means the same clip; `frame` asks for one frame of it, as a picture."""

    @property
    def frames(self) -> int: ...
    def __len__(self) -> int: ...
    def latents(self, picks: np.ndarray) -> Float[Tensor, "b c f h w"]:
        """Clean scaled latents."""
        ...

    def caption(self, pick: int, frame: int | None, rng: np.random.Generator, told: bool = False) -> str:
        """Words for the clip, or for the one frame; `told`: a condition shows how everything moves, so they may leave it out."""
        ...

    def seen(
        self, condition: str, pick: int, frame: int | None, rng: np.random.Generator
    ) -> Float[Tensor, "c f height width"] | None:
        """What a condition's encoder is shown, in its unit; one frame if all are alike, None if nobody knows."""
        ...

    def looks(self, picks: np.ndarray, frames: np.ndarray | None) -> Float[Tensor, "b e"]:
        """The image encoder's pooled answer to each clip's middle frame, or to this one; asked only if style is learned."""
        ...


@dataclass(frozen=True)
class Silence:
    """Who falls silent: in `zero` of the clips everybody, in `keep` nobody, else each condition in `each` of them.

    `own`: how often these fall silent, whatever the others do. null: what silence is for words and style. "zeros": tokens
    of zeros, as VideoComposer was trained (but not asked: it guides with the empty sentence). "empty": the empty
    sentence, and no style token or that of a zero image, as a job asks.
    """

    zero: float = 0.1
    keep: float = 0.1
    each: float = 0.5
    own: Mapping[str, float] = field(default_factory=dict)
    null: Literal["zeros", "empty"] = "zeros"
    only: Sequence[tuple[float, tuple[str, ...]]] = ()
    """(share, names): in this share of the clips these conditions are heard and no others; words as ever."""

    def heard(self, names: Sequence[str], n: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Name -> (n) bool. How many fall silent is drawn first, then which: never one that is all zero or all kept."""
        zeros, keeps = (int((rng.random(n) < p).sum()) for p in (self.zero, self.keep))
        order = rng.permutation(n)
        zero, free = order[:zeros], order[zeros + keeps :]
        out = {}
        for name in names:
            said = np.ones(n, bool)
            if name in self.own:
                said[rng.random(n) < self.own[name]] = False
            else:
                said[rng.permutation(free)[: int((rng.random(n) < self.each).sum())]] = False
                said[zero] = False
            out[name] = said
        u = rng.random(n) if self.only else np.full(n, -1.0)
        for share, names_heard in self.only:
            here, u = (u >= 0) & (u < share), u - share
            for name in set(names) - {TEXT}:
                out[name][here] = name in names_heard
        return out


MOVING = Silence(keep=0.0, each=0.0, null="empty")
"""Of stage 1: the words fall silent in a tenth of the clips, and silence is what guidance will ask for."""


@dataclass(frozen=True)
class Batch:
    """Clips by number, and who is heard of each: name -> (b) bool. `rng` is what their words and conditions are drawn by."""

    picks: np.ndarray
    frames: np.ndarray | None
    """(b) the one frame of each clip that all of its row shows; None for clips as they are."""
    length: int
    """Frames of each row; 1 for pictures."""
    t: np.ndarray
    """(b) timesteps."""
    heard: Mapping[str, np.ndarray]
    rng: np.random.Generator

    def at(self, i: int) -> int | None:
        return None if self.frames is None else int(self.frames[i])


class DenoiseClips(Denoise):
    """Predict what the base predicts from noised clips, their words, and what the composer makes of their conditions.

    `still` of the batches are pictures: one frame of each of `frames` times as many clips, past the temporal layers.
    `held` of them are clips in which nothing moves: one frame of each, with its own words, held from beginning to end. So
    what no word and no condition sets moving stands still.
    `conditions`: those that the examples can teach; all that the composer has, if left out.
    """

    def __init__(
        self, base: Base, examples: ClipExamples, learn: Mapping[str, nn.Module], *, batch_size: int = 4,
        silence: Silence | None = None, still: float = 0.0, held: float = 0.0, learn_text: bool = False,
        early: float = 1.0, conditions: Sequence[str] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(base, examples.latents, len(examples), (), learn, batch_size=batch_size, early=early)
        self.examples, self.silence, self.learn_text = examples, silence or Silence(), learn_text
        self.still, self.held = still, held
        there = () if base.composer is None else (*base.composer.names, *([STYLE] * (base.composer.style is not None)))
        self.names = (TEXT, *(n for n in there if conditions is None or n in conditions))

    def settle(self, names: Sequence[str], count: int = 8, seed: int = 0) -> None:
        """Fit these encoders, which have learned nothing yet, to what the examples will show them."""
        assert self.base.composer is not None
        rng, (h, w) = np.random.default_rng(seed), self.latents(np.array([0])).shape[-2:]
        for name in names:
            found = (self.examples.seen(name, int(p), None, rng) for p in rng.integers(self.count, size=count))
            if shown := [v for v in found if v is not None]:
                encoder: Any = self.base.composer.stc[name]
                settle(encoder, torch.stack(shown).to(self.base.network.device), (h, w))

    def batch(self, rng: np.random.Generator) -> Batch:
        kind = rng.random()
        still, held = kind < self.still, self.still <= kind < self.still + self.held
        n = self.batch_size * (self.examples.frames if still else 1)
        picks, t = rng.integers(self.count, size=n), self.timesteps(n, rng)
        frames = rng.integers(self.examples.frames, size=n) if still or held else None
        heard = self.silence.heard(self.names, n, rng)
        return Batch(picks, frames, 1 if still else self.examples.frames, t, heard, rng)

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        z = self.latents(batch.picks).to(self.base.network.device)
        if batch.frames is not None:
            ones = [clip[:, k : k + 1] for clip, k in zip(z, batch.frames, strict=True)]
            z = torch.stack(ones).expand(-1, -1, batch.length, -1, -1)
        noise = torch.randn(z.shape, generator=generator).to(z)
        network: Any = self.base.network
        predict = network.predict if batch.length == self.examples.frames else network.stills
        with drawn_from(generator, z.device):
            said = self.ports(batch, (z.shape[-2], z.shape[-1]))
            return self.error(z, noise, torch.from_numpy(batch.t).to(z.device), said, predict)

    def ports(self, batch: Batch, size: tuple[int, int]) -> list[Ports]:
        """What each clip's row hears. `size` is (h, w) of the latents."""
        out = [Ports(context=(Tokens(t),)) for t in self.words(batch)]
        for name in self.names[1:]:
            if name == MOTION and batch.frames is not None:
                continue
            told = self.styles(batch) if name == STYLE else self.composed(name, batch, size)
            for i, more in told.items():
                out[i] += more
        return out

    def words(self, batch: Batch) -> list[Float[Tensor, "n d"]]:
        nobody = np.zeros(len(batch.picks), bool)
        told = np.any([nobody, *(batch.heard[name] for name in self.names if name in TELL)], axis=0)
        captions = [
            self.examples.caption(int(p), batch.at(i), batch.rng, told=bool(told[i])) for i, p in enumerate(batch.picks)
        ]
        heard = batch.heard[TEXT]
        with torch.set_grad_enabled(self.learn_text):
            said = self.base.texts.batch([c if on else "" for c, on in zip(captions, heard, strict=True)])
        said = said.to(self.base.network.device)
        zeros = self.silence.null == "zeros"
        return [t if on or not zeros else torch.zeros_like(t) for t, on in zip(said, heard, strict=True)]

    def composed(self, name: str, batch: Batch, size: tuple[int, int]) -> dict[int, Ports]:
        """What an encoder makes of the clips in which it is heard; silent is nothing, which is what times 0 comes to."""
        assert self.base.composer is not None
        encoder: Any = self.base.composer.stc[name]
        heard = np.flatnonzero(batch.heard[name]).tolist()
        shown = {i: self.examples.seen(name, int(batch.picks[i]), batch.at(i), batch.rng) for i in heard}
        known = {i: v for i, v in shown.items() if v is not None}
        if not known:
            return {}
        video = torch.stack([*known.values()]).to(self.base.network.device)
        said = encoder.look(video, size).expand(-1, -1, batch.length, -1, -1)  # of one for all frames: looked at once
        return {i: Ports(channels=(Channel("stc", s),)) for i, s in zip(known, encoder.after(said), strict=True)}

    def styles(self, batch: Batch) -> dict[int, Ports]:
        assert self.base.composer is not None and self.base.composer.style is not None
        heard = batch.heard[STYLE]
        looks = self.examples.looks(batch.picks, batch.frames).to(self.base.network.device, torch.float32)
        given = torch.from_numpy(heard)[:, None].to(looks)
        if self.silence.null == "zeros":
            said = self.base.composer.style(looks) * given
            return {i: Ports(context=(Tokens(s[None]),)) for i, s in enumerate(said)}
        said = self.base.composer.style(looks * given)
        there = heard | (batch.rng.random(len(heard)) < 0.5)
        return {i: Ports(context=(Tokens(s[None]),)) for i, s in enumerate(said) if there[i]}


def video_objective(
    base: Base, examples: ClipExamples, *, learn: Learn = "all", learn_text: bool = False, dropout: bool = True,
    **options: Any,
) -> DenoiseClips:  # fmt: skip
    """Stage 1 for a base of clips without composer, stage 2 for one with. `base` is frozen but for what learns.

    `dropout` False takes the networks' own dropout layers (0.1 and 0.05) out of training. `options` are DenoiseClips'.
    """
    unet, composer, texts = base.network.unet, base.composer, base.texts.models
    freeze(base)
    if composer is None and learn == "new":
        raise ValueError("learn: without conditions nothing is new. Choose temporal or all.")
    joined(unet)
    updated: dict[str, nn.Module] = {"unet": unet}
    if learn == "all":
        unet.requires_grad_(True)
    else:
        if composer is not None:
            unet.conv_in = Parted(unet.conv_in, base.spec.latent_channels)  # type: ignore[arg-type]
            unet.conv_in.learned.requires_grad_(True)
        for name, parameter in unet.named_parameters():
            if learn != "new" and (is_temporal(name) or (learn == "attention" and SELF in name)):
                parameter.requires_grad_(True)
    if composer is not None:
        updated["stc"] = composer.stc.requires_grad_(True)
        updated |= {} if composer.style is None else {"style": composer.style.requires_grad_(True)}
    if learn_text:
        updated |= {f"text_encoder{i or ''}": t.requires_grad_(True) for i, t in enumerate(texts)}
    if base.network.device.type == "cpu":
        for text in texts:
            text.set_attn_implementation("eager")  # the fused kernel's backward is slow there
    if not dropout:
        for layer in (m for module in updated.values() for m in module.modules() if isinstance(m, nn.Dropout)):
            layer.p = 0.0
    return DenoiseClips(base, examples, updated, learn_text=learn_text, **options)


@contextmanager
def drawn_from(generator: torch.Generator, device: torch.device) -> Iterator[None]:
    """Dropout layers know the global generator only: within the block it follows this one, so that runs resume exactly."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        yield
