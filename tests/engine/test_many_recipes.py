"""Results of twenty kinds of recipe, in every format: each opens in every reader, and says its recipe again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browsing import in_browser
from PIL import Image, PngImagePlugin
from some import in_turn

from infuse import Recipe
from infuse.conditions import (
    BrushNet,
    ControlNet,
    DepthVideo,
    Img2Img,
    Inpaint,
    IPAdapter,
    MaskedVideo,
    Motion,
    PowerPaint,
    SingleImage,
    SingleSketch,
    Size,
    SketchVideo,
    StyleImage,
    Text,
    VideoToVideo,
)
from infuse.engine.result import Result
from infuse.media.film_writer import read_record_of

RNG = np.random.default_rng(0)


def noise(side: int = 32) -> np.ndarray:
    return RNG.integers(0, 256, (side, side, 3), dtype=np.uint8)


HOLE = np.zeros((32, 32), np.uint8)
HOLE[8:20, 4:9] = 255
PHOTO = noise()
CLIP = RNG.integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
KINDS: dict[str, dict[str, Any]] = {
    "words": {"prompt": "a red cube", "negative_prompt": "dark", "seed": 7},
    "no words": {},
    "many words": {"prompt": "many words " * 2_000},
    "words of everybody": {"prompt": "猫, a «cübe» \U0001f600\nNegative prompt: x\nSteps: 3, a: b", "negative_prompt": '"quoted", \\escaped\\'},
    "a curve": {"guidance": {0: 6.0, 0.5: 1.0}, "guidance_rescale": 0.7, "scheduler": "DPM++ 2M Karras", "steps": 12},
    "text": {"conditions": [Text(prompt="a sphere", weight={0: 1.2, 1: 0.2}, mask=HOLE)]},
    "img2img": {"conditions": [Img2Img(image=PHOTO, strength=0.4)]},
    "inpaint": {"conditions": [Inpaint(image=PHOTO, mask=HOLE)]},
    "brushnet": {"conditions": [BrushNet(model="b", image=PHOTO, mask=HOLE)]},
    "powerpaint": {"conditions": [PowerPaint(image=PHOTO, mask=HOLE, task="removal")]},
    "controlnets": {"conditions": [ControlNet(model=m, image=noise(), annotator=a) for m, a in (("edges", "canny"), ("owner/depth", "none"))]},
    "ip_adapter": {"conditions": [IPAdapter(image=(noise(), noise(300)), weight=0.6)]},
    "size": {"conditions": [Size(original=(512, 512))]},
    "style": {"frames": 3, "conditions": [StyleImage(image=PHOTO)]},
    "sketches": {"frames": 3, "conditions": [SketchVideo(film=CLIP), SingleSketch(image=PHOTO)]},
    "depth": {"frames": 3, "conditions": [DepthVideo(film=CLIP), SingleImage(image=PHOTO)]},
    "a film": {"frames": 3, "conditions": [VideoToVideo(film=CLIP, strength=0.5)]},
    "a masked film": {"frames": 3, "conditions": [MaskedVideo(film=CLIP, mask=HOLE)]},
    "motion": {"frames": 3, "conditions": [Motion(film=CLIP, source="flow")]},
    "large inputs": {"width": 40, "height": 24, "conditions": [Img2Img(image=noise(600)), ControlNet(model="m", image=noise(350), mask=HOLE)]},
    "many inputs": {"conditions": [ControlNet(model=f"m{i}", image=noise(250)) for i in range(9)]},
}  # fmt: skip
FORMATS = ["a.png", "a.jpg", "a.webp", "a.tiff", "a.avif", "clip.mp4", "clip.gif", "clip.webp", "clip"]


def result(kind: str, name: str) -> Result:
    """A picture of 40 x 24 px, or three in a row, that this kind of recipe has made."""
    recipe = Recipe(model="tabletop", **KINDS[kind])
    shown = [Image.fromarray(noise(40)).crop((0, 0, 40, 24)) for _ in range(3)]
    frames = (tuple(shown),) if name.startswith("clip") else ()
    resolved = {"width": 40, "height": 24, "scheduler": "DDIMScheduler", "guidance": 7.5}
    return Result((shown[0],), recipe, None, {"tabletop": "ab" * 32}, frames, resolved)


@pytest.mark.filterwarnings("ignore:.*(too large to travel|had no room)")
@pytest.mark.parametrize(("kind", "name"), in_turn(list(KINDS), FORMATS))
def test_it_opens_everywhere_and_says_its_recipe(kind: str, name: str, tmp_path: Path) -> None:
    import cv2

    av = pytest.importorskip("av")
    made = result(kind, name)
    recipe, frames = made.recipe, made.frames
    (path,) = made.save(tmp_path / name)
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    for file in files:
        if name != "clip.webp":  # FFmpeg knows no WebP that moves
            with av.open(str(file)) as container:
                seen = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
            assert seen[0].shape == (24, 40, 3) and len(seen) in (1, len(frames[0]) if frames else 1)
        if file.suffix == ".mp4":
            assert cv2.VideoCapture(str(file)).read()[1].shape == (24, 40, 3)
            continue
        with Image.open(file) as image:
            image.load()
            assert image.size == (40, 24)
        assert cv2.imread(str(file)).shape == (24, 40, 3)
    assert PngImagePlugin.MAX_TEXT_CHUNK == 1 << 20
    again = Recipe.load(path)
    assert (again.prompt, again.negative_prompt, again.guidance) == (
        recipe.prompt,
        recipe.negative_prompt,
        recipe.guidance,
    )
    assert [c.kind for c in again.conditions] == [c.kind for c in recipe.conditions]
    record = read_record_of(path)
    assert record["digest"] == recipe.digest
    if kind not in ("large inputs", "many inputs", "ip_adapter"):
        assert again == recipe and again.digest == recipe.digest
    (other,) = (
        Result(made.images, again, None, made.weights, frames, made.resolved).save(tmp_path / "again" / name)
        if again == recipe
        else (path,)
    )
    for a, b in zip(files, sorted(other.iterdir()) if other.is_dir() else [other], strict=True):
        assert a.read_bytes() == b.read_bytes()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*(too large to travel|had no room)")
def test_a_browser_opens_every_kind_in_every_format(tmp_path: Path) -> None:
    """But TIFF, which no browser but Safari shows."""
    pytest.importorskip("av")
    files = []
    for kind in KINDS:
        for name in FORMATS:
            (path,) = result(kind, name).save(tmp_path / kind.replace(" ", "_") / name)
            files += sorted(path.iterdir()) if path.is_dir() else [path]
    shown = [f for f in files if f.suffix != ".tiff"]
    assert len(shown) == len(KINDS) * (len(FORMATS) + 1)
    (tmp_path / "words.png").write_bytes(b"no picture")
    *found, nothing = in_browser([*shown, tmp_path / "words.png"], tmp_path)
    assert nothing == "broken", "the browser says so if it cannot show a file"
    assert {f.name: size for f, size in zip(shown, found, strict=True) if size != (40, 24)} == {}
