"""Your own clips to learn from: a folder with a metadata.jsonl beside them, one line a clip.

    {"file_name": "kite.mp4", "text": "a kite over a beach", "depth": "kite_depth.mp4", "fps": 4}

A clip is a video, an animation or a folder of frames. `depth` (white is near), `sketch` (light lines on dark) and `mask`
(white is the hole) are films of the same length at any frame rate, or missing: then sketches are Canny's, holes are
drawn, and depth is not heard. Motion is read from the clip itself. All is checked before the first step; each complaint
names its line.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from infuse.conditions.video.depth import WHITE
from infuse.conditions.video.spatial import spatial_size
from infuse.encoders.annotators.masked_video import masked_video, random_mask
from infuse.encoders.annotators.sketch import sketch_without_models
from infuse.encoders.kit import Base
from infuse.encoders.motion import codec_motion, fitted_motion
from infuse.errors import InfuseError, RecipeError
from infuse.media.films import Film
from infuse.media.video_reader import pyav
from infuse.training.folder import METADATA, read_lines
from infuse.training.powerpaint import encoded
from infuse.training.video_models import CHANNELS
from infuse.validation import Strict

BESIDE = ("depth", "sketch", "mask")
VARIANTS = 10_000
"""Stretches of each clip."""


class ClipLine(Strict):
    """One clip."""

    file_name: str = Field(min_length=1)
    text: str = ""
    fps: float | None = Field(default=None, gt=0, le=1000)
    """Frames per second to learn at; consecutive frames if left out."""
    depth: str | None = None
    sketch: str | None = None
    mask: str | None = None


class ClipFolder:
    """Stretches of `frames` frames, `size` pixels square: a ClipExamples, once `base` brings a VAE.

    `fps` is for lines that say none. Raises RecipeError for what is missing or does not fit.
    """

    def __init__(self, root: Path, frames: int, size: int, fps: float | None = None, base: Base | None = None) -> None:
        self.root, self.length, self.size, self.fps, self.base = root, frames, size, fps, base
        self.numbers: list[int] = []
        self.lines: list[ClipLine] = []
        for number, line in read_lines(root, self._fitting, '{"file_name": "a.mp4", "text": "..."}', "clip"):
            self.numbers.append(number)
            self.lines.append(line)
        self.stretch = lru_cache(64)(self._stretch)

    @property
    def frames(self) -> int:
        return self.length

    def __len__(self) -> int:
        return VARIANTS * len(self.lines)

    def teaches(self) -> tuple[str, ...]:
        """The conditions that can be learned from it: all, but depth only where a line has a film of it."""
        return tuple(c for c in CHANNELS if c != "depth" or any(line.depth for line in self.lines))

    def must_teach(self, conditions: Sequence[str]) -> None:
        """Raises RecipeError if nothing teaches one of them."""
        for name in conditions:
            if name in CHANNELS and name not in self.teaches():
                raise RecipeError(f"{METADATA}:{self.numbers[0]}", f"no line has a film of {name}, from which it is learned. Add them, or leave "
                                                                   f"{name} out.")  # fmt: skip
        if "motion" in conditions:
            pyav("learning motion from films")

    # ── one stretch ─────────────────────────────────────────────────────────────────────────────────────────────────

    def latents(self, picks: np.ndarray) -> Float[Tensor, "b c f h w"]:
        """Encoded on the spot: every pick is another stretch."""
        assert self.base is not None
        shown = torch.cat([self._pixels(int(p), None, self.size) for p in picks]).to(self.base.vae.device)
        means = torch.cat([encoded(self.base.vae, part) for part in shown.split(8)])
        return means.unflatten(0, (len(picks), self.length)).transpose(1, 2)

    def caption(self, pick: int, frame: int | None, rng: np.random.Generator, told: bool = False) -> str:
        return self.lines[pick % len(self.lines)].text

    def looks(self, picks: np.ndarray, frames: np.ndarray | None) -> Float[Tensor, "b e"]:
        assert self.base is not None
        which = [self.length // 2] * len(picks) if frames is None else frames
        images = [self.stretch(int(p))[int(k)] for p, k in zip(picks, which, strict=True)]
        encoder = self.base.image_encoder
        pixels = self.base.feature_extractor(images, return_tensors="pt").pixel_values
        with torch.no_grad():
            return encoder(pixels.to(encoder.device, encoder.dtype)).image_embeds

    def seen(
        self, condition: str, pick: int, frame: int | None, rng: np.random.Generator
    ) -> Float[Tensor, "c f height width"] | None:
        line, side = self.lines[pick % len(self.lines)], spatial_size((self.size, self.size))[0]
        if condition == "motion":
            found, _ = codec_motion(self._film(line.file_name, pick), self.length)
            return torch.from_numpy(fitted_motion(found, self.size, self.size)).transpose(0, 1)
        if condition == "depth":
            return None if line.depth is None else WHITE * self._grey(line.depth, pick, frame, side)
        if condition in ("sketch", "single_sketch"):
            lines = self._grey(line.sketch, pick, frame, side) if line.sketch else self._canny(pick, frame, side)
            return lines if condition == "sketch" else lines[:, :1]
        rgb = self._pixels(pick, frame, side)
        if condition == "local_image":
            return rgb[:1].transpose(0, 1)
        if line.mask is not None:
            hole = (self._grey(line.mask, pick, frame, side) >= 0.5).float().transpose(0, 1)
        else:
            hole = torch.from_numpy(random_mask(rng, (side, side)))[None].expand(len(rgb), 1, -1, -1)
        return masked_video(rgb, hole).transpose(0, 1)

    def _pixels(self, pick: int, frame: int | None, side: int) -> Float[Tensor, "f 3 height width"]:
        shown = np.stack([fitted(f, side) for f in _one(self.stretch(pick), frame)])
        return torch.from_numpy(shown).permute(0, 3, 1, 2).float() / 255

    def _canny(self, pick: int, frame: int | None, side: int) -> Float[Tensor, "1 f height width"]:
        lines = [sketch_without_models(fitted(f, side)) for f in _one(self.stretch(pick), frame)]
        return torch.from_numpy(np.stack(lines)).float()[None]

    def _grey(self, name: str, pick: int, frame: int | None, side: int) -> Float[Tensor, "1 f height width"]:
        shown = _one(self._film(name, pick).frames(self.length), frame)
        return torch.from_numpy(np.stack([fitted(f.convert("L"), side) for f in shown])).float()[None] / 255

    def _stretch(self, pick: int) -> list[Any]:
        return self._film(self.lines[pick % len(self.lines)].file_name, pick).frames(self.length)

    def _film(self, name: str, pick: int) -> Film:
        """A film from where the pick begins: the same place in the clip and in the films beside it."""
        line = self.lines[pick % len(self.lines)]
        clip = self._given(line, line.file_name).reader
        latest = max(clip.end - self.length / (line.fps or self.fps or clip.rate), 0.0)
        start = float(np.random.default_rng((VARIANTS, pick)).random()) * latest
        film = self._given(line, name, None if name == line.file_name else clip.rate)
        # both are as long as each other but for a frame, which is shown again where a stretch ends with the film
        return Film.of(film, start=start, short="hold")

    # ── reading ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _given(self, line: ClipLine, name: str, rate: float | None = None) -> Film:
        """A film of a line; one that lies beside a clip is seen at the clip's `rate`."""
        return Film(source=str(self.root / name), fps=line.fps or self.fps or (rate and min(rate, 1000.0)))

    def _fitting(self, said: dict[str, Any]) -> ClipLine:
        """A line whose films are there, long enough and as long as each other. Reads headers only."""
        line = ClipLine(**said)
        clip = self._planned(line, "file_name", line.file_name)
        if min(clip.size) < self.size:
            width, height = clip.size
            raise RecipeError("file_name", f"{line.file_name} is {width} x {height} px; training at {self.size} px needs that much on the "
                                           "shorter side. Leave it out, or train at a smaller size.")  # fmt: skip
        for field in BESIDE:
            if (name := getattr(line, field)) is None:
                continue
            film = self._planned(line, field, name, clip.reader.rate)
            if not film.reader.still and abs(film.reader.end - clip.reader.end) > 1.5 / clip.reader.rate:
                raise RecipeError(field, f"{name} lasts {film.reader.end:.3g} s, its clip {line.file_name} {clip.reader.end:.3g} s. Make both the "
                                         "same length; their frame rates may differ.")  # fmt: skip
        return line

    def _planned(self, line: ClipLine, field: str, name: str, rate: float | None = None) -> Film:
        film = self._given(line, name, rate)
        if not (self.root / name).exists():
            raise RecipeError(field, f"there is no {name} in {self.root}. Check the name, or take the line out.")
        try:
            Film.of(film, short="refuse" if rate is None else "hold").plan(self.length)
        except InfuseError as error:
            raise error.under(field) from None
        if field == "file_name" and film.reader.still:
            raise RecipeError(field, f"{name} is one picture, not a clip. Take it out, or give a film.")
        return film


def _one(frames: Sequence[Any], frame: int | None) -> Sequence[Any]:
    return frames if frame is None else frames[frame : frame + 1]


def fitted(image: Any, side: int) -> np.ndarray:
    """A PIL image as films are taken: scaled to cover a square, cut around the centre."""
    from PIL import Image, ImageOps

    return np.array(ImageOps.fit(image, (side, side), Image.Resampling.LANCZOS))
