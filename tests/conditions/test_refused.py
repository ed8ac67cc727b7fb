"""What a clip's condition would say to nobody, or less than nothing, is refused (case S3); what is doubtful is warned of."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from infuse import DepthVideo, MaskedVideo, Motion, SingleImage, StyleImage
from infuse.errors import RecipeError
from infuse.media.films import Film
from infuse.network.spec import NetworkSpec

SPEC = NetworkSpec(
    "tiny", "sd2", 32, 4, (32,), (0,), (), 64, frames=16, compositions=("depth", "local_image", "masked", "motion"), style=True
)  # fmt: skip
VIEW: Any = SimpleNamespace(
    frames=4, size=(32, 32), vision=lambda folder: SimpleNamespace(projection=32, hidden=48, name="eye"), card=lambda model: {}
)  # fmt: skip
PICTURE: Any = np.zeros((48, 48, 3), np.uint8)
HOLE: Any = np.full((48, 48), 255, np.uint8)


def film() -> Film:
    return Film.of(np.zeros((4, 48, 48, 3), np.uint8))


@pytest.mark.parametrize(("condition", "field"), [
    (lambda: StyleImage(image=PICTURE, frames=-1), "frames"), (lambda: DepthVideo(film=film(), frames={0: 1, 1: -0.5}), "frames"),
    (lambda: SingleImage(image=PICTURE, weight=-1), "weight"), (lambda: Motion(film=film(), frames=-2), "frames"),
    (lambda: MaskedVideo(film=film(), mask=HOLE, frames=-1), "frames"), (lambda: MaskedVideo(film=film(), mask=HOLE, weight=2), "weight"),
])  # fmt: skip
def test_nobody_is_heard_less_than_not_at_all(condition: Any, field: str) -> None:
    with pytest.raises(RecipeError) as letter:
        condition().check(SPEC, VIEW)
    assert letter.value.field == field, letter.value


def test_what_is_drawn_has_no_source() -> None:
    with pytest.raises(RecipeError, match="Remove source"):
        Motion(camera={"pan": [0.1, 0.0]}, source="flow")  # pyright: ignore[reportArgumentType]
