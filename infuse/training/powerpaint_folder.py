"""PowerPaint's examples from a folder of your own: a random crop of a picture, and a task that its line can teach."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from infuse.errors import RecipeError
from infuse.training import powerpaint_masks as masks
from infuse.training.folder import Folder, Line
from infuse.training.powerpaint import Example, encoded

Lesson = Literal["text", "shape", "removal", "outpaint", "picture"]
"""What can be learned: the four tasks, and text to image."""
MIX: dict[Lesson, float] = {"text": 0.3, "shape": 0.3, "removal": 0.2, "outpaint": 0.1, "picture": 0.1}
"""The paper's: 60 % objects, half of them by shape; of the rest context 50, outpainting 25, text to image 25."""
UNSAID, CAPTIONED = 0.3, 0.2
"""Descriptions of objects left out; fillings from context that are told the caption."""
VARIANTS = 10_000
"""Crops of each picture."""


@dataclass(frozen=True)
class Crop:
    """What a pick stands for: a square of a picture, what is to be learned there, and from which object."""

    lesson: Lesson
    picture: np.ndarray
    text: str
    instance: np.ndarray | None = None
    """(h w) 0/1: the object's silhouette or, without a mask, its box."""


class Crops:
    """`lessons`: all that the data can teach, if none are named.

    Raises RecipeError if nothing teaches a lesson that is named, or a line teaches none of them.
    """

    def __init__(self, folder: Folder, vae: Any, lessons: Sequence[Lesson] = (), *, original: bool = False) -> None:
        self.folder, self.vae, self.original = folder, vae, original
        every: tuple[Lesson, ...] = get_args(Lesson)
        self.lessons: tuple[Lesson, ...] = tuple(lessons) or tuple(
            k for k in every if any(subjects(line, k) for line in folder.lines)
        )
        for lesson in self.lessons:
            self._must_be_taught(lesson)
        for i, line in enumerate(folder.lines):
            if not any(subjects(line, k) for k in self.lessons):
                raise RecipeError(folder.place(i), f"it has nothing to learn {' or '.join(self.lessons)} from. Give it objects (shape needs "
                                                   "masks), take it out, or name another task as well.")  # fmt: skip
        self.crop = lru_cache(256)(self._crop)

    def __len__(self) -> int:
        return VARIANTS * len(self.folder)

    def latents(self, picks: np.ndarray) -> Tensor:
        """Encoded on the spot: every pick is another crop."""
        pictures = np.stack([self.crop(int(p)).picture for p in picks])
        return encoded(self.vae, torch.from_numpy(pictures).to(self.vae.device).permute(0, 3, 1, 2).float() / 255)

    def example(self, pick: int, rng: np.random.Generator) -> Example:
        crop, size = self.crop(pick), (self.folder.size, self.folder.size)
        if crop.lesson == "picture":
            return Example(crop.picture, masks.everything(size), None, crop.text)
        share = 1.0
        if crop.instance is not None:
            text = "" if rng.random() < UNSAID else crop.text
            if crop.lesson == "shape":
                hole, share = masks.fitted(crop.instance, rng, original=self.original)
            else:
                hole = masks.boxed(size, rng, masks.box_of(crop.instance))
        else:
            text = crop.text if crop.lesson == "removal" and rng.random() < CAPTIONED else ""
            hole = masks.bands(size, rng) if crop.lesson == "outpaint" else masks.strokes(size, rng)
        return Example(crop.picture, hole, crop.lesson, text, share, bare=True)

    def _crop(self, pick: int) -> Crop:
        """A random square (over a part of the object, if it is about one), flipped half of the time."""
        index, rng = pick % len(self.folder), np.random.default_rng((VARIANTS, pick))
        line, side = self.folder.lines[index], self.folder.size
        possible: list[Lesson] = [k for k in self.lessons if subjects(line, k)]
        weights = np.array([MIX[k] for k in possible])
        lesson: Lesson = possible[int(rng.choice(len(possible), p=weights / weights.sum()))]
        subject = subjects(line, lesson)[int(rng.integers(len(subjects(line, lesson))))]
        picture = self.folder.picture(line.file_name)
        silhouette = None if subject is line else self.folder.silhouette(index, subject)
        within = np.ones(picture.shape[:2], bool) if silhouette is None else silhouette > 0
        rows, columns = np.nonzero(within)
        k = int(rng.integers(len(rows)))  # one of its pixels lies in the square, anywhere
        y, x = (
            int(np.clip(at - rng.integers(side), 0, most - side))
            for at, most in zip((rows[k], columns[k]), within.shape, strict=True)
        )
        flip = -1 if rng.random() < 0.5 else 1
        square, instance = (
            None if a is None else np.ascontiguousarray(a[y : y + side, x : x + side][:, ::flip])
            for a in (picture, silhouette)
        )
        assert square is not None
        return Crop(lesson, square, subject.text, instance)

    def _must_be_taught(self, lesson: Lesson) -> None:
        lines = self.folder.lines
        if any(subjects(line, lesson) for line in lines):
            return
        boxed = next((i for i, line in enumerate(lines) if line.objects), None)
        if boxed is not None:
            raise RecipeError(self.folder.place(boxed), "its objects have boxes, but shape is learned from masks, and no line has any. Draw "
                                                        "masks, or leave the task shape out.")  # fmt: skip
        raise RecipeError(self.folder.place(0), f"no line has objects, from which the task {lesson} is learned. Add them, or leave the task "
                                                "out.")  # fmt: skip


def subjects(line: Line, lesson: Lesson) -> Sequence[Any]:
    """What a line has for a lesson: objects, or the picture as a whole."""
    if lesson == "shape":
        return [o for o in line.objects if o.mask is not None]
    return line.objects if lesson == "text" else [line]
