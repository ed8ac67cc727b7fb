"""What a recipe leaves open about its canvas, and what may not lie on it: size, frames, regions, grounds, claims.

From headers of files and sizes of pictures alone; every complaint is a letter under the recipe's field.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from infuse.conditions.base import Condition, Route, brought, counted
from infuse.errors import CapacityError, RecipeError, under
from infuse.media.fitting import fitted, odd
from infuse.media.pictures import Picture, px
from infuse.network.spec import WANTS, NetworkSpec
from infuse.recipe import LARGEST_SIDE, Recipe

MOST_FRAMES = 1024


def clip_length(recipe: Recipe, spec: NetworkSpec) -> int:
    """Frames of the clip, 1 for a picture. Longer clips than the network's own are made in overlapping windows."""
    if not spec.frames:
        if recipe.frames not in (None, 1):
            raise RecipeError(
                "frames", f"{spec.name} makes pictures, not videos. Remove frames, or choose a video base."
            )
        return 1
    asked = recipe.frames or spec.frames
    if asked > MOST_FRAMES:
        raise CapacityError("frames", f"{asked} are more than the limit of {MOST_FRAMES}. Make several clips, each starting from the "
                                      "last frame of the one before.")  # fmt: skip
    return asked


def canvas(recipe: Recipe, conditions: Mapping[str, Condition], spec: NetworkSpec) -> tuple[int, int]:
    """The picture's size: as asked, or that of the picture it starts from or fills, or what the network was trained at."""
    start = None
    for where, condition in conditions.items():
        with under(where):
            own = condition.native()
            start = own if own is not None and (start is None or condition.grows) else start
    out = []
    for i, (name, asked) in enumerate((("width", recipe.width), ("height", recipe.height))):
        side = asked or (start[i] if start is not None else spec.native_size)
        if side > LARGEST_SIDE:
            raise CapacityError(
                name,
                f"{side} px is more than the limit of {LARGEST_SIDE} px a side. Make it smaller, and upscale afterwards.",
            )
        out.append(side)
    return out[0], out[1]


MASKS = ("mask", "region")
"""Fields of pictures that are masks; films of masks are looked at by their conditions."""


def opened(recipe: Recipe) -> list[str]:
    """Open every picture, and the headers of every film, once; what was done to pictures on the way in.

    Raises RecipeError or CapacityError under the field.
    """
    notes = []
    for where, found in recipe.pictures():
        with under(where):
            if isinstance(found, Picture):
                is_mask = where.rpartition(".")[2] in MASKS
                _, said = (found.mask, found.mask_notes) if is_mask else (found.image, found.notes)
                notes += [f"{where}: {text}." for text in said]
            else:
                _ = found.reader
    return notes


def region(condition: Condition, size: tuple[int, int], cell: int) -> list[str]:
    """What is said of a region's mask that is stretched over the picture; raises RecipeError if it is empty. cell: pixels of a
    place of the latent."""
    if condition.mask is None or condition.HOLE:
        return []
    if not condition.mask.mask.getextrema()[1]:
        raise RecipeError(
            "mask", "it is black everywhere, so the condition would be heard nowhere. White is where it is heard."
        )
    counted(condition.mask.mask)
    return brought(condition.mask.size, size, "mask", "the picture") + _thin(condition.mask.mask, size, cell)


def _thin(mask: Any, size: tuple[int, int], cell: int) -> list[str]:
    """What is said of a region that covers no place of the latent by half: it is heard by as much as it covers."""
    from PIL import Image

    drawn, grid = mask.getextrema()[1], (max(size[0] // cell, 1), max(size[1] // cell, 1))
    there = fitted(mask, size).resize(grid, Image.Resampling.BOX).getextrema()[1]
    if 2 * there >= drawn:
        return []
    return [f"mask: it is so thin that it covers no place of the latent by more than {there / drawn:.0%}, and is heard by as much. Draw it "
            f"at least {cell} px wide in a picture of {px(size)}."]  # fmt: skip


def one_ground(active: Mapping[str, Condition], size: tuple[int, int]) -> None:
    """Holes of several conditions are filled in one picture or film: what is kept outside of them cannot be two."""
    first: tuple[str, Any] | None = None
    for where, condition in active.items():
        if not condition.HOLE:
            continue
        ours: Any = getattr(condition, condition.HOLE)
        first = first or (where, ours)
        if ours != first[1] and ours.sha256 != first[1].sha256:
            raise RecipeError(
                f"{where}.{condition.HOLE}",
                f"it is another one than that of {first[0]}, and outside of the holes only one can be kept. Give both the same.",
            )
        before = active[first[0]]
        if before.kind == condition.kind == "inpaint" and _canvas(before) != _canvas(condition):
            raise RecipeError(
                where,
                f"it continues the picture otherwise than {first[0]}, and one picture is made. Give both the same sides.",
            )
        if before.kind != condition.kind and before.grows != condition.grows:
            grown, other = (where, first[0]) if condition.grows else (first[0], where)
            raise RecipeError(grown, f"it makes the picture larger, and {other} fills a hole in it as it is. Make one first, and the other "
                                     "in what comes out.")  # fmt: skip
        if before.ground_fit != condition.ground_fit and odd(ours.size, size):
            raise RecipeError(where, f"it brings its {condition.HOLE} to the shape of the picture by fit: {condition.ground_fit}, and {first[0]} by "
                                     f"{before.ground_fit}: outside of the holes only one can be kept. Give both the same fit.")  # fmt: skip


def _canvas(condition: Condition) -> Any:
    """What an inpainting continues its picture on; None if it does not."""
    return getattr(condition, "canvas", None)


def exclusive(routes: Sequence[tuple[str, str, Route]]) -> None:
    """Two conditions cannot fill the same exclusive channels, unless they join to fill them together (PowerPaint)."""
    claims: dict[str, tuple[str, str]] = {}
    for where, kind, route in routes:
        if route.port == "channels" and not route.shared:
            who, other = claims.setdefault(route.shape, (where, kind))
            if who != where and not kind == other == "powerpaint":
                raise RecipeError(
                    where, f"it fills {route.shape}, and so does {who}. Keep one of the two, or join their masks."
                )


def untold(spec: NetworkSpec, routes: Sequence[tuple[str, str, Route]], active: Collection[str]) -> list[str]:
    """What is said of a base that was trained to be told more than the active conditions say.

    Raises RecipeError for one that can make nothing of that.
    """
    filled = {route.shape.split()[0] for where, _, route in routes if where in active}
    notes = []
    for slot in (*(s.name for s in spec.channel_slots), *spec.embedding_slots):
        want = WANTS.get(slot)
        if want is None or slot in filled:
            continue
        missing = f'"{spec.name}" is {want.base}, and nobody gives it {want.shown}'
        if not want.otherwise:
            raise RecipeError("conditions", f"{missing}. Add a condition: {{kind: {want.condition}, image: ...}}.")
        notes.append(f"conditions: {missing}, so {want.otherwise}. Add {{kind: {want.condition}, image: ...}}.")
    return notes
