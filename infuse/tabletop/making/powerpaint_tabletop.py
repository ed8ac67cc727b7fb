"""The tabletop's examples of PowerPaint's tasks. What a removal should leave is known exactly: the scene without the solid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from infuse.conditions.powerpaint.words import QUALITY, Task
from infuse.tabletop.captions import describe
from infuse.tabletop.dataset import Dataset
from infuse.tabletop.making.data_sources import around
from infuse.tabletop.render import FIRST_THING, render
from infuse.tabletop.world import VERSION, Scene, Thing
from infuse.training import powerpaint_masks as masks
from infuse.training.powerpaint import Example, encoded

MIX: dict[str, float] = {
    "object": 0.24, "shape": 0.20, "context": 0.13, "outpaint": 0.12, "plain": 0.10, "picture": 0.07,
}  # fmt: skip
"""How often each kind of example is shown; the rest are removals."""
TAKEN, PUT = 12, 8
"""Of 100 variants of a picture, those in which a solid is taken away, and those in which one is put into an empty place."""
UNSAID = 0.3
"""Prompts left out; half of them say the app's negative words instead, which mean nothing here, but will be heard."""
HIDDEN = 0.5
"""A solid hidden by more than this can no longer be continued from what is left of it."""
LEAST = 40
"""Pixels of a solid that must be seen before it is asked for."""


class Lessons:
    """A pick is a scene and one of a hundred variants of it. Some change the picture; the others are as cached."""

    def __init__(self, data: Dataset, latents: Callable[[np.ndarray], Tensor], count: int, vae: Any) -> None:
        self.data, self.cached, self.vae = data, latents, vae
        self.scenes = min(count, len(data))
        self.drawn = lru_cache(128)(self._drawn)
        self.size = (data.rgb.shape[2], data.rgb.shape[1])

    def __len__(self) -> int:
        return 100 * self.scenes

    def changed(self, pick: int) -> bool:
        return pick // self.scenes < TAKEN + PUT

    def latents(self, picks: np.ndarray) -> Tensor:
        """From the cache; pictures that are not in it are drawn and encoded."""
        z = self.cached(picks % self.scenes)
        drawn = [k for k, pick in enumerate(picks) if self.changed(int(pick))]
        if drawn:
            pictures = np.stack([self.drawn(int(picks[k])).picture for k in drawn])
            z[drawn] = encoded(self.vae, torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255)
        return z

    def example(self, pick: int, rng: np.random.Generator) -> Example:
        if self.changed(pick):
            return self.drawn(pick)
        index = pick % self.scenes
        kind = list(MIX)[int(rng.choice(len(MIX), p=np.array([*MIX.values()]) / sum(MIX.values())))]
        told = getattr(self, f"_{kind}")(self.data.scene(index), np.asarray(self.data.segments[index]), rng)
        return Example(np.asarray(self.data.rgb[index]), *told)

    # ── each kind: (hole, task, prompt, share) ──────────────────────────────────────────────────────────────────────

    def _object(
        self, scene: Scene, segments: np.ndarray, rng: np.random.Generator, thing: Thing | None = None
    ) -> Asked:
        """A box around one solid: tight as in the paper, or as loose as people draw them."""
        thing, instance = seen(scene, segments, rng, thing)
        hole = (
            masks.boxed(self.size, rng, masks.box_of(instance))
            if rng.random() < 0.5
            else around(thing, scene.camera, self.size[1], rng)
        )
        return hole, "text", said(scene, thing, rng), 1.0

    def _shape(self, scene: Scene, segments: np.ndarray, rng: np.random.Generator, thing: Thing | None = None) -> Asked:
        """One solid's silhouette, grown by nothing up to a lot."""
        thing, instance = seen(scene, segments, rng, thing)
        hole, share = masks.fitted(instance, rng)
        return hole, "shape", said(scene, thing, rng), share

    def _context(self, scene: Scene, segments: np.ndarray, rng: np.random.Generator) -> Asked:
        """Strokes and boxes that leave enough of every solid for it to be continued."""
        hole = masks.strokes(self.size, rng)
        for _ in range(8):
            if hole.any() and not covered(scene, segments, hole):
                break
            hole = masks.strokes(self.size, rng)
        for i in covered(scene, segments, hole):
            hole = hole & ~masks.grown((segments == FIRST_THING + i).astype(np.uint8), 2) & 1
        return hole, "removal", describe(scene, rng).text if rng.random() < 0.2 else "", 1.0

    def _outpaint(self, scene: Scene, segments: np.ndarray, rng: np.random.Generator) -> Asked:
        """Bands along the sides; solids that lie in them are named, or nobody could know of them."""
        hole = masks.bands(self.size, rng)
        for _ in range(4):
            if not covered(scene, segments, hole):
                return hole, "outpaint", room_of(scene) if rng.random() < 0.15 else "", 1.0
            hole = masks.bands(self.size, rng)
        lost = tuple(scene.things[i] for i in covered(scene, segments, hole))
        return hole, "outpaint", describe(replace(scene, things=lost), rng).text if lost else "", 1.0

    def _plain(self, scene: Scene, segments: np.ndarray, rng: np.random.Generator) -> Asked:
        """As any inpainting network is asked: around a solid or anywhere, by a caption."""
        if rng.random() < 0.7:
            thing, _ = seen(scene, segments, rng)
            return around(thing, scene.camera, self.size[1], rng), None, said(scene, thing, rng, unsaid=0.0), 1.0
        return masks.strokes(self.size, rng), None, describe(scene, rng).text, 1.0

    def _picture(self, scene: Scene, segments: np.ndarray, rng: np.random.Generator) -> Asked:
        """Text to image."""
        return masks.everything(self.size), None, describe(scene, rng).text, 1.0

    # ── variants with a picture of their own ────────────────────────────────────────────────────────────────────────

    def _drawn(self, pick: int) -> Example:
        """A solid taken away, or put where none stood: the scene's render with and without it, met at the hole's edge."""
        index, rng = pick % self.scenes, np.random.default_rng((VERSION, pick))
        scene, segments = self.data.scene(index), np.asarray(self.data.segments[index])
        thing, instance = seen(scene, segments, rng)
        rest = replace(scene, things=tuple(t for t in scene.things if t is not thing))
        with_it, without = np.asarray(self.data.rgb[index]), render(rest, self.size).rgb
        if pick // self.scenes >= TAKEN:
            hole, task, prompt, share = (self._shape if rng.random() < 0.4 else self._object)(
                scene, segments, rng, thing
            )
            hole = hole | masks.grown(instance, 1)
            return Example(np.where(hole[..., None] > 0, with_it, without), hole, task, prompt, share)
        kind = rng.random()
        if kind < 0.4:
            hole = around(thing, scene.camera, self.size[1], rng)
        elif kind < 0.7:
            hole = masks.boxed(self.size, rng, masks.box_of(instance))
        else:
            hole = masks.grown(instance, int(rng.integers(1, 8)))
        hole = hole | masks.grown(instance, 1)
        shadow = rng.random() < 0.5  # outside of the hole it may remain, as in a user's picture
        picture = np.where(hole[..., None] > 0, without, with_it) if shadow else without
        return Example(picture, hole, "removal", room_of(scene) if rng.random() < 0.15 else "")


Asked = tuple[np.ndarray, Task | None, str, float]


def seen(
    scene: Scene, segments: np.ndarray, rng: np.random.Generator, thing: Thing | None = None
) -> tuple[Thing, np.ndarray]:
    """A solid that can be seen (or this one), and its silhouette (h w) 0/1."""
    if thing is not None:
        return thing, (segments == FIRST_THING + scene.things.index(thing)).astype(np.uint8)
    order = rng.permutation(len(scene.things))
    areas = {int(i): int((segments == FIRST_THING + i).sum()) for i in order}
    pick = next((i for i in areas if areas[i] >= LEAST), max(areas, key=lambda i: areas[i]))
    return scene.things[pick], (segments == FIRST_THING + pick).astype(np.uint8)


def said(scene: Scene, thing: Thing, rng: np.random.Generator, unsaid: float = UNSAID) -> str:
    """The solid alone, the whole scene, or nothing."""
    if rng.random() < unsaid:
        return "" if rng.random() < 0.5 else f"{QUALITY} "
    return describe(replace(scene, things=(thing,)) if rng.random() < 0.6 else scene, rng).text


def covered(scene: Scene, segments: np.ndarray, hole: np.ndarray) -> list[int]:
    """Which solids a hole hides for the most part."""
    solids = [(i, segments == FIRST_THING + i) for i in range(len(scene.things))]
    return [i for i, s in solids if s.any() and hole[s].mean() > HIDDEN]


def room_of(scene: Scene) -> str:
    """Floor and wall in words."""
    return f"{scene.room.floor} floor and {scene.room.wall} wall"
