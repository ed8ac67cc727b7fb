"""The tabletop's clips as lessons: exact depth, lines and motion of every frame, and words for who goes where.

Each condition is shown as the same condition of a recipe would be: at the same size, in the same unit. Where a user may
bring several kinds (rendered or found lines; motion of a codec's blocks, or drawn), each is shown alike.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from infuse.conditions.video.depth import WHITE
from infuse.conditions.video.spatial import SPATIAL
from infuse.encoders.annotators.masked_video import masked_video, random_mask
from infuse.encoders.annotators.sketch import sketch_without_models
from infuse.encoders.drawn_motion import drawn_motion
from infuse.encoders.kit import Base
from infuse.encoders.motion import sparse_motion
from infuse.tabletop.captions import describe
from infuse.tabletop.clips import CELL, Clips
from infuse.tabletop.move_captions import describe_move
from infuse.tabletop.move_paths import drawn_paths
from infuse.tabletop.moves import Move, times

PART = 8
"""Clips that are encoded at once."""
DRAWN = 0.7
"""Where paths can tell a motion: how often it is drawn, not that of a codec's blocks."""

UNSAID = 0.5
"""Where a condition tells how everything moves: how often words tell the scene alone."""


class TabletopClips:
    """`latents` and `looks` are what `latents_of_clips` and `looks_of_clips` leave on disk; without looks, no style."""

    def __init__(self, clips: Clips, latents: Path, scale: float, looks: Path | None = None) -> None:
        self.clips, self.scale = clips, scale
        self.means = np.load(latents, mmap_mode="r")
        self.views = None if looks is None else np.load(looks, mmap_mode="r")
        self.side = round(SPATIAL * clips.rgb.shape[2])
        self.move = lru_cache(maxsize=None)(self._move)

    @property
    def frames(self) -> int:
        return self.clips.frames

    def __len__(self) -> int:
        return min(len(self.clips), len(self.means))

    def _move(self, pick: int) -> Move:
        return self.clips.move(pick)

    def latents(self, picks: np.ndarray) -> Float[Tensor, "b 4 f h w"]:
        return torch.from_numpy(np.array(self.means[picks], np.float32)).transpose(1, 2) * self.scale

    def caption(self, pick: int, frame: int | None, rng: np.random.Generator, told: bool = False) -> str:
        move = self.move(pick)
        if frame is None and not (told and rng.random() < UNSAID):
            return describe_move(move, rng).text
        return describe(move.at(times(self.frames)[frame or 0]), rng).text

    def looks(self, picks: np.ndarray, frames: np.ndarray | None) -> Float[Tensor, "b e"]:
        assert self.views is not None, "no style without looks"
        which = np.full(len(picks), self.frames // 2) if frames is None else frames
        return torch.from_numpy(np.array(self.views[picks, which], np.float32))

    def seen(
        self, condition: str, pick: int, frame: int | None, rng: np.random.Generator
    ) -> Float[Tensor, "c f height width"]:
        every = slice(0, self.frames) if frame is None else slice(frame, frame + 1)
        first = slice(every.start, every.start + 1)
        if condition == "motion":
            return self._motion(pick, rng)
        if condition == "depth":
            return WHITE * self._grey(np.asarray(self.clips.inverse_depth[pick, every]))
        if condition in ("sketch", "single_sketch"):
            return self._lines(pick, every if condition == "sketch" else first, rng)
        rgb = self._rgb(pick, first if condition == "local_image" else every)
        if condition == "local_image":
            return rgb.transpose(0, 1)
        hole = torch.from_numpy(random_mask(rng, (self.side, self.side)))[None].expand(len(rgb), 1, -1, -1)
        return masked_video(rgb, hole).transpose(0, 1)

    def _rgb(self, pick: int, frames: slice) -> Float[Tensor, "f 3 height width"]:
        shown = np.stack([resized(f, self.side) for f in np.asarray(self.clips.rgb[pick, frames])])
        return torch.from_numpy(shown).permute(0, 3, 1, 2).float() / 255

    def _grey(self, layers: np.ndarray) -> Float[Tensor, "1 f height width"]:
        return torch.from_numpy(np.stack([resized(f, self.side) for f in layers])).float()[None] / 255

    def _lines(self, pick: int, frames: slice, rng: np.random.Generator) -> Float[Tensor, "1 f height width"]:
        if rng.random() < 0.5:
            return self._grey(np.asarray(self.clips.edges[pick, frames]))
        rgb = [resized(f, self.side) for f in np.asarray(self.clips.rgb[pick, frames])]
        return torch.from_numpy(np.stack([sketch_without_models(f) for f in rgb])).float()[None]

    def _motion(self, pick: int, rng: np.random.Generator) -> Float[Tensor, "2 f height width"]:
        drawn, side = drawn_paths(self.move(pick), self.frames), self.clips.rgb.shape[2]
        if drawn and rng.random() < DRAWN:
            field = drawn_motion(drawn, self.frames, side, side)
        else:
            cells = np.asarray(self.clips.motion[pick], np.float32).transpose(0, 3, 1, 2)
            field = cells.repeat(CELL, axis=2).repeat(CELL, axis=3)
        return torch.from_numpy(sparse_motion(field)).transpose(0, 1)


def resized(frame: np.ndarray, side: int) -> np.ndarray:
    """(h w) or (h w 3) uint8 to (side side ...), as films are taken."""
    from PIL import Image

    return np.array(Image.fromarray(frame).resize((side, side), Image.Resampling.LANCZOS))


@torch.no_grad()
def latents_of_clips(vae: Any, clips: Clips, path: Path) -> Path:
    """Write (n f 4 h w) float16, the posterior means of every frame, not yet scaled; nothing if they are there."""
    if path.is_file():
        return path
    n, f = clips.rgb.shape[:2]
    side = clips.rgb.shape[2] // 2 ** (len(vae.config.block_out_channels) - 1)
    draft = path.with_suffix(".draft.npy")
    out = np.lib.format.open_memmap(draft, "w+", np.float16, (n, f, vae.config.latent_channels, side, side))
    for start in range(0, n, PART):
        rgb = torch.from_numpy(np.array(clips.rgb[start : start + PART])).flatten(0, 1)
        pixels = (rgb.permute(0, 3, 1, 2).to(vae.dtype) / 127.5 - 1).contiguous(memory_format=torch.channels_last)
        means = vae.encode(pixels).latent_dist.mean
        out[start : start + PART] = means.unflatten(0, (-1, f)).half().numpy()
    out.flush()
    draft.rename(path)
    return path


@torch.no_grad()
def looks_of_clips(base: Base, clips: Clips, path: Path) -> Path:
    """Write (n f e) float16, the image encoder's pooled answer to every frame; nothing if they are there."""
    if path.is_file():
        return path
    from PIL import Image

    f, parts = clips.frames, []
    for start in range(0, len(clips), PART):
        pictures = [
            Image.fromarray(p) for p in np.array(clips.rgb[start : start + PART]).reshape(-1, *clips.rgb.shape[2:])
        ]
        pixels = base.feature_extractor(pictures, return_tensors="pt").pixel_values
        parts.append(base.image_encoder(pixels).image_embeds.unflatten(0, (-1, f)).half().numpy())
    np.save(path, np.concatenate(parts))
    return path
