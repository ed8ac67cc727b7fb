"""Teach PowerPaint: task tokens, and the network that hears them, from examples that each stand for one task.

v1: the 9-channel network hears description and task token together. v2: a BrushNet beside the frozen base hears the
token alone, and the base the description. Either way only the 30 rows of the task tokens learn in the text encoder.
Source: Zhuang et al. 2023 (PowerPaint), sec. 3; open-mmlab/PowerPaint dev branch @aaed575.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from infuse.conditions.powerpaint.words import TOKEN, Task, Words, words
from infuse.encoders.kit import Base
from infuse.encoders.tasks import ROWS, TaskTexts
from infuse.network.brushnet import BrushNet
from infuse.ports import Channel, Ports, Residual, Sides, Tokens
from infuse.training.objectives_diffusion import Denoise, Drop, freeze

Learn = Literal["tokens", "all"]
SILENT = 0.1
"""Fraction of examples in which every prompt is emptied, task tokens too."""


@dataclass(frozen=True)
class Example:
    """One picture with one hole, and the task by which it was filled."""

    picture: np.ndarray
    """(h w 3) uint8, the truth."""
    hole: np.ndarray
    """(h w) 0/1."""
    task: Task | None
    """None: no task token, as a plain inpainting network is asked."""
    prompt: str = ""
    share: float = 1.0
    """How tightly the hole fits its object: 1 is all A, 0 all B."""
    bare: bool = False
    """Say prompt and task token alone, as the paper's trainer does; else also what its app adds to them."""


class Examples(Protocol):
    """Where examples come from. A pick stands for a picture; it always means the same one."""

    def __len__(self) -> int: ...
    def latents(self, picks: np.ndarray) -> Float[Tensor, "b c h w"]:
        """Clean scaled latents of the pictures."""
        ...

    def example(self, pick: int, rng: np.random.Generator) -> Example: ...


class Tasks:
    """Tells each example's hole, its picture around the hole, and its words. Without a `branch`, to the network itself (v1).

    Silent: the same hole and picture, and the empty sentence without a task token.
    """

    def __init__(self, base: Base, texts: TaskTexts, examples: Examples, branch: BrushNet | None = None) -> None:
        self.base, self.texts, self.examples, self.branch = base, texts, examples, branch

    def __call__(self, picks: np.ndarray, rng: np.random.Generator) -> list[Sides]:
        examples = [self.examples.example(int(i), rng) for i in picks]
        shown = self.shown(examples)
        asked = [self.words(e) for e in examples]
        blends = self.blends(asked, [e.share for e in examples])
        if self.branch is None:
            spoken, nothing = [Ports(context=(Tokens(c),)) for c in blends], Ports(context=(Tokens(self.silent),))
            return [Sides(s + on, s + nothing) for s, on in zip(map(as_channels, shown), spoken, strict=True)]
        with torch.no_grad():
            plain = self.base.texts.batch([*(str(w.base) for w in asked), ""])
        return [
            Sides(self.branched(parts, c, p), self.branched(parts, self.silent, plain[-1]))
            for parts, c, p in zip(shown, blends, plain[:-1], strict=True)
        ]

    @cached_property
    def silent(self) -> Float[Tensor, "77 d"]:
        """The empty sentence; no task token is in it, so it never changes."""
        with torch.no_grad():
            return self.texts.batch([("", None)])[0].to(self.base.network.device)

    def words(self, example: Example) -> Words:
        """What is said for the task; without one, the prompt alone."""
        generation, prompt = self.texts.generation, example.prompt
        if example.task is not None and not example.bare:
            return words(generation, example.task, prompt, "")
        a, b = TOKEN[example.task] if example.task else (None, None)
        text = "" if generation.branch else prompt
        return Words((text, a), (text, b), (text, a), (text, b), prompt)

    def shown(self, examples: Sequence[Example]) -> list[tuple[Tensor, Tensor]]:
        """Each example's (hole on the latent grid (1 h w), latent of the picture with the hole blanked (4 h w))."""
        device = self.base.network.device
        pictures = (
            torch.from_numpy(np.stack([e.picture for e in examples])).to(device).permute(0, 3, 1, 2).float() / 255
        )
        hole = torch.from_numpy(np.stack([e.hole for e in examples]))[:, None].to(device).float()
        masked = encoded(self.base.vae, pictures * (1 - hole) + self.texts.generation.blank * hole)
        return list(zip(F.interpolate(hole, size=masked.shape[-2:]), masked, strict=True))

    def blends(self, asked: Sequence[Words], shares: Sequence[float]) -> list[Float[Tensor, "77 d"]]:
        """share * E(A) + (1 - share) * E(B) of each. Only A learns; what is said more than once is encoded once."""
        device = self.base.network.device
        first = list(dict.fromkeys(w.a for w in asked))
        other = list(dict.fromkeys(w.b for w in asked if w.b != w.a))
        a = dict(zip(first, self.texts.batch(first).to(device), strict=True))
        with torch.no_grad():
            b = dict(zip(other, self.texts.batch(other).to(device), strict=True)) if other else {}
        return [a[w.a] if w.a == w.b else s * a[w.a] + (1 - s) * b[w.b] for w, s in zip(asked, shares, strict=True)]

    def branched(self, parts: tuple[Tensor, Tensor], tokens: Tensor, prompt: Tensor) -> Ports:
        """A BrushNet with words of its own, and the base's words."""
        assert self.branch is not None
        hole, masked = parts
        hint = (hole, masked) if self.texts.generation.hole_first else (masked, 1 - hole)
        said = Residual(self.branch, torch.cat(hint), context=(Tokens(tokens),))
        return Ports(residuals=(said,), context=(Tokens(prompt),))


def as_channels(parts: tuple[Tensor, Tensor]) -> Ports:
    """Mask and masked picture for a 9-channel network."""
    return Ports(channels=(Channel("mask", parts[0]), Channel("masked_image", parts[1])))


@torch.no_grad()
def encoded(vae: Any, pixels: Float[Tensor, "b 3 height width"]) -> Float[Tensor, "b 4 h w"]:
    """Scaled posterior means of pictures in 0-1."""
    pixels = (2 * pixels - 1).to(vae.dtype, memory_format=torch.channels_last)  # half the time on a CPU
    return vae.encode(pixels).latent_dist.mean.float() * vae.config.scaling_factor


class TaskTable(nn.Module):
    """A token table of which only the task tokens' rows learn: the others are no parameter, so nothing can move them."""

    def __init__(self, weight: Float[Tensor, "vocabulary d"]) -> None:
        super().__init__()
        self.known: Tensor
        self.register_buffer("known", weight[:-ROWS].detach().clone())
        self.learned = nn.Embedding.from_pretrained(weight[-ROWS:].detach().clone(), freeze=False)
        self.num_embeddings = len(weight)

    @property
    def weight(self) -> Float[Tensor, "vocabulary d"]:
        return torch.cat([self.known, self.learned.weight])

    def forward(self, ids: Tensor) -> Tensor:
        n = len(self.known)
        task = self.learned((ids - n).clamp(min=0))
        return torch.where((ids >= n)[..., None], task, F.embedding(ids.clamp(max=n - 1), self.known))


def learning(texts: TaskTexts) -> nn.Module:
    """Make the task tokens' rows of an encoder learn, and nothing else of it. Returns what to update."""
    texts.model.requires_grad_(False).eval()
    if texts.model.device.type == "cpu":
        texts.model.set_attn_implementation("eager")  # the fused kernel's backward is slow there
    table = TaskTable(texts.table)
    texts.model.set_input_embeddings(table)
    return table.learned


def powerpaint_objective(
    base: Base, texts: TaskTexts, examples: Examples, *, branch: BrushNet | None = None, learn: Learn = "all",
    batch_size: int = 32,
) -> Denoise:  # fmt: skip
    """Predict the noise in examples of all tasks. `base` is frozen but for what learns.

    `branch` None: PowerPaint 1, `base` has nine channels; else PowerPaint 2, beside a base of four.
    """
    freeze(base)
    if branch is not None:
        branch.requires_grad_(False).eval()
    updated: dict[str, nn.Module] = {"task_tokens": learning(texts)}
    if learn == "all":
        name, network = ("unet", base.network.unet) if branch is None else ("brushnet", branch)
        updated[name] = network.requires_grad_(True)
    conditions = [Drop(Tasks(base, texts, examples, branch), SILENT)]
    return Denoise(base, examples.latents, len(examples), conditions, updated, batch_size=batch_size)
