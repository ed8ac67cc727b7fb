"""The kind of a ControlNet's maps is told by its card, the name of its released file, or the picture (cases U3, I13)."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from infuse.encoders.annotators.kinds import auto, kind_of, named_kind

RNG = np.random.default_rng(0)
PHOTO = Image.fromarray(RNG.integers(0, 256, (64, 64, 3), np.uint8))
EDGES = Image.fromarray(np.where(RNG.random((64, 64)) > 0.9, 255, 0).astype(np.uint8))
DEPTH = Image.fromarray(np.tile(np.linspace(0, 255, 64).astype(np.uint8), (64, 1)))


@pytest.mark.parametrize(("name", "kind"), [
    ("lllyasviel/control_v11p_sd15_canny", "canny"), ("control_v11p_sd15s2_lineart_anime.pth", "lineart"), ("control_v11f1p_sd15_depth_fp16.safetensors", "depth"),
    ("lllyasviel/sd-controlnet-openpose", "openpose"), ("controlnet-canny-sdxl-1.0", "canny"), ("./mycanny", "canny"), ("edges", "canny"),
    ("control_v11p_sd15_softedge", "softedge"), ("control_v11p_sd15_mlsd", "mlsd"), ("control_v11p_sd15_seg", "seg"), ("control_v11p_sd15_normalbae", "normal"),
    ("control_v11f1e_sd15_tile", "tile"), ("control_v11p_sd15_scribble", "scribble"), ("control_sd15_hed.pth", "softedge"),
    ("models/canny/diffusion_pytorch_model.safetensors", "canny"), ("OpenPoseXL2.safetensors", "openpose"), ("control_v1p_sd15_qrcode_monster", "qrcode"),
    ("xinsir/controlnet-union-sdxl-1.0", None), ("mynet", None), ("controlnet-depth-canny", None), ("sketchy", None), ("", None), ("/a/pose/mynet.safetensors", None),
])  # fmt: skip
def test_released_names_tell(name: str, kind: str | None) -> None:
    assert named_kind(name) == kind


def test_the_card_comes_first() -> None:
    assert kind_of("edges", {"annotator": "depth"}) == "depth" and kind_of("mynet", {"annotator": "canny"}) == "canny"
    assert kind_of("mycanny", {"annotator": "none"}) == "none"


def test_a_photo_for_edges_is_drawn() -> None:
    """`--control mycanny=photo.jpg` showed the photo raw, and said nothing."""
    assert auto("mycanny", {}, PHOTO) == ("canny", "")
    assert auto("mycanny", {}, EDGES) == ("none", "")


@pytest.mark.parametrize(("name", "words"), [("mynet", ("annotator: canny", "card.json")), ("control_v11f1p_sd15_depth", ("depth maps", "cannot draw")),
                                             ("control_v11p_sd15_openpose", ("openpose maps",)), ("control_v11p_sd15_seg", ("seg maps",)),
                                             ("control_v11p_sd15_normalbae", ("normal maps",)), ("control_v11p_sd15_lineart", ("lineart maps",))])  # fmt: skip
def test_a_photo_that_cannot_be_drawn_is_warned_of(name: str, words: tuple[str, ...]) -> None:
    drawn, told = auto(name, {}, PHOTO)
    assert drawn == "none" and all(w in told for w in words), told


def test_maps_and_what_hears_photos_are_not_warned_of() -> None:
    bones = np.zeros((64, 64, 3), np.uint8)
    bones[::8] = (255, 80, 0)
    surfaces = np.full((64, 64, 3), (128, 128, 255), np.uint8)
    rooms = np.repeat(np.repeat(RNG.integers(0, 256, (4, 4, 3), np.uint8), 16, 0), 16, 1)
    for name, image in (("control_v11f1p_sd15_depth", DEPTH), ("mynet", DEPTH), ("mynet", EDGES), ("control_v11p_sd15_lineart", EDGES),
                        ("control_v11p_sd15_openpose", Image.fromarray(bones)), ("control_v11p_sd15_normalbae", Image.fromarray(surfaces)),
                        ("control_v11p_sd15_seg", Image.fromarray(rooms)), ("control_v11f1e_sd15_tile", PHOTO), ("control_v11e_sd15_ip2p", PHOTO)):  # fmt: skip
        assert auto(name, {}, image) == ("none", ""), name
    assert auto("mynet", {"annotator": "none"}, PHOTO) == ("none", "")
