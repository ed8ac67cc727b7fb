"""Edits and maps by the judge: was changed what was asked for, and only that; does a picture follow the map it was shown?

Maps are asked with and without them, under the same words and seeds: the difference is what they do.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from infuse.conditions import AnyCondition, ControlNet, Depth, T2IAdapter
from infuse.conditions.edit import Edit
from infuse.media.pictures import Picture
from infuse.tabletop import edits
from infuse.tabletop.dataset import HELD_OUT
from infuse.tabletop.flow import empty_depth
from infuse.tabletop.judge import Seen
from infuse.tabletop.making.scorer import Example, Scorer
from infuse.tabletop.maps import kinds, painted
from infuse.tabletop.measure_clips import depth_correlation
from infuse.tabletop.measure_edits import edited, map_iou
from infuse.tabletop.render import inverse_depth, render

Made = Iterable[tuple[Example, np.ndarray, Seen]]

EDIT, DEPTH, DEPTHS, SEGMENTS = "tabletop-edit", "tabletop-depth", "depths", "segments"
"""Names of the embedded models in a recipe."""


def edit_of(e: Example) -> edits.Edit:
    """The change that is asked of an example: every second one leads back to its scene."""
    return edits.edit_at(HELD_OUT, e.index, reverse=bool(e.index % 2))


def drawn(view: edits.View) -> np.ndarray:
    """(h w 3) uint8"""
    rgb = render(view.scene, (128, 128)).rgb
    return edits.darkened(rgb) if view.dark else rgb


def grey(e: Example) -> np.ndarray:
    """(h w) uint8: the scene's inverse depth, near is white, in the world's scale."""
    return (inverse_depth(e.picture.depth) * 255).round().astype(np.uint8)


def edit(scorer: Scorer) -> dict[str, Any]:
    """Fractions of edits that did what was asked, and nothing else; `kept`: of what was to stay; each kind's (asked, only,
    how many)."""

    def recipe(e: Example) -> tuple[str, str, Sequence[AnyCondition]]:
        asked = edit_of(e)
        return EDIT, asked.text, [Edit(image=Picture.of(drawn(asked.before)))]

    def look(picture: np.ndarray) -> Seen:
        return scorer.judge.look(torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float() / 255)[0]

    rows, by_kind = [], {}
    for e, picture, _ in scorer.made("edit", recipe):
        asked = edit_of(e)
        found = edited(asked, picture, drawn(asked.before), drawn(asked.after), look)
        rows.append((found.asked, found.only, found.kept))
        by_kind.setdefault(asked.kind, []).append((found.asked, found.only))
    out: dict[str, Any] = dict(zip(("asked", "only", "kept"), np.mean(rows, 0).tolist(), strict=True))
    return out | {"kinds": {k: [*np.mean(v, 0).round(3).tolist(), len(v)] for k, v in sorted(by_kind.items())}}


def told(made: Made) -> dict[str, float]:
    """`depth`: rank correlation of what stands out of the room, in the picture and in its scene; `iou`: of each kind of solid."""
    depths, overlaps = [], []
    for e, _, seen in made:
        room = inverse_depth(empty_depth(e.scene.camera, (128, 128)))
        depths.append(depth_correlation([seen], (grey(e) / 255.0)[None], room[None]))
        overlaps.append(map_iou(seen, kinds(e.scene, e.picture.segments)))
    return {"depth": float(np.mean(depths)), "iou": float(np.mean(overlaps))}


def words(scorer: Scorer) -> dict[str, float]:
    """Words alone."""
    return told(scorer.made("words", lambda e: ("tabletop", e.prompt.text, ())))


def depth(scorer: Scorer) -> dict[str, float]:
    """The depth2img base, from noise."""
    return told(scorer.made("depth", lambda e: (DEPTH, e.prompt.text, [Depth(image=Picture.of(grey(e)))])))


def depths(scorer: Scorer) -> dict[str, float]:
    """The depth ControlNet."""
    return told(
        scorer.made(
            "depths", lambda e: ("tabletop", e.prompt.text, [ControlNet(model=DEPTHS, image=Picture.of(grey(e)))])
        )
    )


def segments(scorer: Scorer) -> dict[str, float]:
    """The T2I-Adapter for maps of kinds of solids."""

    def recipe(e: Example) -> tuple[str, str, Sequence[AnyCondition]]:
        shown = painted(kinds(e.scene, e.picture.segments))
        return "tabletop", e.prompt.text, [T2IAdapter(model=SEGMENTS, image=Picture.of(shown))]

    return told(scorer.made("segments", recipe))


PLAN: dict[str, Callable[[Scorer], dict[str, Any]]] = {
    "edit": edit, "maps_without": words, "depth_base": depth, "depth_net": depths, "segments": segments,
}  # fmt: skip


def score(scorer: Scorer, out: Path, names: Sequence[str] = tuple(PLAN)) -> dict[str, Any]:
    """These experiments, written to `out` after each so that a cut-off run keeps what it has."""
    known: dict[str, Any] = json.loads(out.read_text("utf-8")) if out.is_file() else {}
    how = {
        "pictures": len(scorer.examples),
        "steps": scorer.steps,
        "scheduler": scorer.scheduler,
        "guidance": scorer.guidance,
    }
    for name in names:
        if name not in known:
            known[name] = how | PLAN[name](scorer)
            out.write_text(json.dumps(known, indent=1), "utf-8")
            scorer.tell(f"{name}: {known[name]}")
    return known
