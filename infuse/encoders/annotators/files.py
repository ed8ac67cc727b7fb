"""What annotators are made of: the released files, what their shapes tell, and the letters about those that are not here.

Facts alone, for checks: the networks themselves stand in files of their own, which import torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

from infuse.errors import WeightsError

MIDAS, PIDINET, SIMPLIFIER = "midas_v3_dpt_large.pth", "table5_pidinet.pth", "sketch_simplification_gan.pth"
MIDAS_MARK = "fusion1.layer1.residual.1.weight"
"""A tensor that MiDaS has and nobody else."""
PATCH = 16
"""Pixels a side of a patch of DPT-Large."""


def step_of(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """What sides must be multiples of for MiDaS, by a file's shapes: twice its patch, as the coarsest map has one pixel for two."""
    return 2 * next((s[2] for k, s in shapes.items() if k.endswith("patch_embedding.weight")), PATCH)


def memory_of(view: Any, model: str, field: str, mark: str, absent: WeightsError) -> int:
    """Bytes of an annotator's file once loaded, told by its header (`view.shapes`). Raises `absent` if nothing has that name and no
    folder does, WeightsError if the file is of another kind (the tensor `mark` is not in it)."""
    try:
        shapes: Mapping[str, tuple[int, ...]] = view.shapes(model, field)
    except WeightsError as error:
        raise absent if "was not found" in error.message and "/" not in model else error from None
    if not any(key.endswith(mark) for key in shapes):
        raise WeightsError(
            field, f"{model!r} is not what this annotator is made of: it has no tensor {mark}. {absent.message}"
        )
    return 4 * sum(prod(shape) for shape in shapes.values())


def absent(what: str, files: str, instead: str, field: str = "") -> WeightsError:
    """The letter for a condition whose annotator is not on this machine; the caller raises it."""
    return WeightsError(
        field, f"{what} needs {files}, which is not here. Put it into a folder of INFUSE_MODELS, {instead}."
    )


def no_depth(field: str = "") -> WeightsError:
    """The letter for depth without a depth network: no rule of thumb can stand in for it. The caller raises it."""
    files = f"{MIDAS} (it comes with the VideoComposer release) or the Hub model Intel/dpt-large"
    return absent("depth from pictures", files, "or give depth maps yourself", field)


def no_sketch(field: str = "") -> WeightsError:
    """The letter for a sketch as VideoComposer was trained with; the caller raises it."""
    files = f"{PIDINET} and {SIMPLIFIER} (they come with the VideoComposer release)"
    return absent("a sketch from pictures", files, "give sketches yourself, or accept plain Canny lines", field)
