"""Where the hole alone is worked on, everybody's places are those of the box around it."""

from __future__ import annotations

import numpy as np
import pytest

from infuse.conditions import ControlNet, Gligen, Inpaint, IPAdapter, Reference
from infuse.engine.frame import laid_out
from infuse.errors import RecipeError


def picture(width: int, height: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def hole() -> Inpaint:
    """In a picture of 100 x 80, from (40, 20) to (60, 60): with its padding the box is (30, 10, 70, 70)."""
    mask = np.zeros((80, 100), np.uint8)
    mask[20:60, 40:60] = 255
    return Inpaint(image=picture(100, 80), mask=mask, area="masked", padding=10)


def test_boxes_are_those_of_the_part() -> None:
    said = {"model": "boxes", "boxes": [{"box": (0.3, 0.125, 0.5, 0.5), "phrase": "a"}, {"box": (0.6, 0.5, 1, 1), "phrase": "b"},
                                        {"box": (0, 0, 0.2, 0.1), "phrase": "c"}]}  # fmt: skip
    part, notes = Gligen(**said).within((30, 10, 70, 70), (100, 80))
    assert [b.phrase for b in part.boxes] == ["a", "b"]
    np.testing.assert_allclose([b.box for b in part.boxes], [(0, 0, 0.5, 0.5), (0.75, 0.5, 1, 1)])
    assert [n.split(":")[0] for n in notes] == ["boxes.1", "boxes.2"]
    in_pixels = Gligen(model="boxes", boxes=[{"box": (30, 10, 50, 40), "phrase": "a"}], unit="pixel")
    np.testing.assert_allclose(in_pixels.within((30, 10, 70, 70), (100, 80))[0].boxes[0].box, (0, 0, 0.5, 0.5))
    with pytest.raises(RecipeError, match="none of them lies"):
        Gligen(model="boxes", boxes=[{"box": (0, 0, 0.2, 0.1), "phrase": "c"}]).within((30, 10, 70, 70), (100, 80))


def test_a_hint_of_the_whole_picture_in_another_size_is_cut_alike_and_what_is_looked_at_is_not() -> None:
    whole, small = picture(100, 80, 1), picture(50, 40, 2)
    conditions = {
        "conditions.0": hole(),
        "conditions.1": ControlNet(model="edges", image=whole),
        "conditions.2": ControlNet(model="edges", image=small),
        "conditions.3": IPAdapter(image=whole),
        "conditions.4": Reference(image=whole),
    }
    laid, after, notes = laid_out(conditions, conditions, (64, 96))
    assert after is not None and after.frame is not None and after.frame.box == (30, 10, 70, 70)
    assert laid["conditions.1"].image.size == laid["conditions.2"].image.size == (64, 96)
    assert all(laid[f"conditions.{i}"] is conditions[f"conditions.{i}"] for i in (3, 4))
    assert not [n for n in notes if "conditions.2" in n]
