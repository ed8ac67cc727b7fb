"""What is wrong with a PowerPaint is said here: fields that its task has no use for, weights that cannot speak its words."""

from __future__ import annotations

from typing import Any

from infuse.conditions.base import View, same_family, some_hole
from infuse.curves import span
from infuse.encoders.generations import GENERATIONS, PLAIN, Generation
from infuse.errors import RecipeError
from infuse.network.spec import NetworkSpec


def task_fits(asked: Any) -> None:
    """Raises RecipeError for fields that this task has no use for, and for a hole that is none."""
    grown = {n: getattr(asked, n) for n in ("horizontal", "vertical", "left", "right", "top", "bottom")}
    if asked.task == "outpaint":
        if asked.mask is not None:
            raise RecipeError("mask", "outpainting makes its own hole around the picture. Remove the mask, or fill a hole inside "
                                      "of the picture with a second PowerPaint.")  # fmt: skip
        assert asked.canvas is not None
        asked.canvas.hole(asked.image.size, asked.overlap)
    else:
        for name, value in grown.items():
            if value != type(asked).model_fields[name].default:
                raise RecipeError(
                    name, f"task {asked.task} does not change the canvas. Remove it, or say task: outpaint."
                )
        if asked.overlap != type(asked).model_fields["overlap"].default:
            raise RecipeError(
                "overlap",
                f"only outpainting paints over a picture's rim, not {asked.task}. Remove it, or say task: outpaint.",
            )
        if asked.mask is None:
            raise RecipeError(
                "mask", f"task {asked.task} needs one: a picture of the image's size, white where to paint."
            )
        some_hole(asked.mask.mask)
    low, high = span(asked.fit)
    if low < 0 or high > 1:
        raise RecipeError(
            "fit", f"it must lie in 0 (loose) to 1 (tight); this one reaches {low if low < 0 else high:g}."
        )
    if asked.task != "shape" and (low, high) != (1, 1):
        raise RecipeError(
            "fit", f"only task shape has a fitting degree, not {asked.task}. Remove it, or say task: shape."
        )


def speaker(asked: Any, net: NetworkSpec, view: View) -> tuple[Generation, int, int]:
    """(generation, bytes, sites) of what will speak, from headers. Raises RecipeError if nothing can.

    asked: a PowerPaint. Any base can continue a picture, by the prompt alone.
    """
    if asked.model is None:
        if net.tasks not in GENERATIONS and asked.task == "outpaint":
            return PLAIN, 0, 0  # to continue a picture needs no words of PowerPaint's
        if net.tasks not in GENERATIONS:
            raise RecipeError("model", f"{net.described} has no task tokens of PowerPaint 1. Name a PowerPaint 2 (its BrushNet's "
                                       "folder) here, or make a PowerPaint 1 the recipe's model; `inpaint` needs neither.")  # fmt: skip
        return GENERATIONS[net.tasks], 0, 0
    found = view.identity(asked.model, "model", "brushnet")
    same_family(asked.model, found.context_width, net, "one")
    if found.tasks not in GENERATIONS:
        raise RecipeError("model", f"{asked.model!r} is a BrushNet without task tokens. Use it in a condition of kind brushnet, or "
                                   "name the folder in which PowerPaint's task encoder lies beside it.")  # fmt: skip
    return GENERATIONS[found.tasks], found.memory, found.sites
