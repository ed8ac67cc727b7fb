"""Whatever is wrong with a film or a drawing in a recipe is said before any network is loaded."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import filming
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import tiny
from infuse import Recipe
from infuse.cli.app import app
from infuse.cli.making import places
from infuse.cli.recipe import Asked, Written
from infuse.conditions import Motion
from infuse.encoders.motion import codec_motion
from infuse.engine.engine import Engine
from infuse.engine.model_store import ModelStore
from infuse.errors import CapacityError, InfuseError, RecipeError, WeightsError
from infuse.media.films import Film
from infuse.notices import gathers

pytest.importorskip("av", reason="pip install 'infuse[video]'")

FRAMES = filming.drifting(40)
Case = tuple[dict[str, Any], str, type[InfuseError], str, tuple[str, ...]]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    at = tmp_path_factory.mktemp("films")
    first = filming.usual(at, FRAMES)
    (at / "short.mp4").write_bytes(first[: len(first) // 3])
    (at / "words.pth").write_bytes(b"hello world\n" * 50)
    FRAMES[0].save(at / "still.png")
    Image.new("RGB", (128, 96), "white").save(at / "white.png")
    Image.new("L", (128, 96)).save(at / "black.png")
    Image.new("L", (64, 64), 255).save(at / "small.png")
    filming.folder(at / "dark", [Image.new("L", (128, 96), v) for v in [0] * 16 + [255]])
    filming.folder(at / "light", [Image.new("L", (128, 96), 200)] * 16)
    filming.folder(at / "wide", [Image.new("L", (8200, 16))] * 16)
    filming.video(at / "plain.mp4", FRAMES, "mpeg4")
    filming.video(at / "fast.mp4", FRAMES, rate=24)
    filming.video(at / "uneven.mp4", FRAMES, times=[k / 8 + 0.05 * (k % 2) for k in range(40)])
    os.mkfifo(at / "pipe")
    return at


@pytest.fixture(autouse=True)
def _here(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="module")
def store() -> ModelStore:
    found = ModelStore(device="cpu")
    found.add("composer", tiny.videocomposer(frames=16).base)
    found.add("video", tiny.video(frames=16).base)
    found.add("still", tiny.base("sd1").base)
    return found


ARROW = {"from": [0, 0], "to": [1, 1]}
BAD: dict[str, Case] = {
    "3 frames for 16": ({"kind": "depth_video", "film": "three.mp4"}, "composer", RecipeError, "film",
                        ("has 3 frames, 16 were asked for", "short: hold, loop or bounce")),
    "sound only": ({"kind": "sketch_video", "film": "sound.m4a"}, "composer", RecipeError, "film", ("holds sound only",)),
    "cut short": ({"kind": "motion", "film": "unfinished.mp4"}, "composer", RecipeError, "film", ("lost its index (moov)",)),
    "a third of it is there": ({"kind": "video_to_video", "film": "short.mp4"}, "video", RecipeError, "film", ("without a frame",)),
    "words": ({"kind": "masked_video", "film": "words.mp4", "mask": "white.png"}, "composer", RecipeError, "film", ("not a film",)),
    "nowhere": ({"kind": "masked_video", "film": "clip.mp4", "mask": "gone.png"}, "composer", RecipeError, "mask", ("gone.png", "Check the path")),
    "starts after its end": ({"kind": "depth_video", "film": {"source": "clip.mp4", "start": 9}}, "composer", RecipeError, "film.start",
                             ("after the end",)),
    "too many pixels": ({"kind": "depth_video", "film": "still.png", "frames": 1.0}, "composer", CapacityError, "film", ("megapixels", "fewer")),
    "no hole": ({"kind": "masked_video", "film": "clip.mp4", "mask": "black.png"}, "video", RecipeError, "mask", ("no white pixel",)),
    "a film without a hole": ({"kind": "masked_video", "film": "clip.mp4", "mask": "dark"}, "composer", RecipeError, "mask",
                              ("no white pixel in any frame",)),
    "too wide for a codec": ({"kind": "motion", "film": "wide"}, "composer", CapacityError, "film", ("8200 x 16 px", "8191 px a side", "optical flow")),
    "a picture in nobody's home": ({"kind": "single_image", "image": "~nosuchuser/a.png"}, "composer", RecipeError, "image", ("Check the path",)),
    "a picture in a pipe": ({"kind": "single_image", "image": "pipe"}, "composer", RecipeError, "image", ("pipe, a socket or a device",)),
    "no hole given": ({"kind": "masked_video", "film": "clip.mp4"}, "video", RecipeError, "mask", ("required",)),
    "a curve where nobody is told": ({"kind": "masked_video", "film": "clip.mp4", "mask": "white.png", "frames": {0: 1, 1: 0}}, "video",
                                     RecipeError, "frames", ("held to it", "Remove frames")),
    "an arrow outside": ({"kind": "motion", "drawn": [{"from": [0, 0], "to": [300, 1]}]}, "composer", RecipeError, "drawn.0.to",
                         ("outside of the canvas", "not pixels")),
    "an arrow that stays": ({"kind": "motion", "drawn": [ARROW, {"from": [0, 0], "to": [0, 0]}]}, "composer", RecipeError, "drawn.1", ("never move",)),
    "nothing moves": ({"kind": "motion"}, "composer", RecipeError, "", ("nothing says what moves", "arrows or paths")),
    "both move": ({"kind": "motion", "film": "clip.mp4", "drawn": [ARROW]}, "composer", RecipeError, "", ("Keep one of them",)),
    "nothing in the region": ({"kind": "motion", "drawn": [{**ARROW, "region": "black.png"}]}, "composer", RecipeError, "drawn.0.region",
                              ("no white pixel",)),
    "a region that is no picture": ({"kind": "motion", "drawn": [{**ARROW, "region": "words.mp4"}]}, "composer", RecipeError, "drawn.0.region",
                                    ("not a picture",)),
    "a dense codec": ({"kind": "motion", "film": "clip.mp4", "sparse": False}, "composer", RecipeError, "sparse", ("source: flow",)),
    "scale 0": ({"kind": "motion", "film": "clip.mp4", "scale": 0}, "composer", RecipeError, "", ("nothing moves",)),
    "motion on a picture base": ({"kind": "motion", "drawn": [ARROW]}, "still", RecipeError, "", ("makes pictures", "VideoComposer base")),
    "style on a picture base": ({"kind": "style_image", "image": "still.png"}, "still", RecipeError, "", ("makes pictures",)),
    "a film on a picture base": ({"kind": "video_to_video", "film": "clip.mp4"}, "still", RecipeError, "", ("Use img2img",)),
    "a hole on a picture base": ({"kind": "masked_video", "film": "clip.mp4", "mask": "white.png"}, "still", RecipeError, "", ("Use inpaint",)),
    "depth without VideoComposer": ({"kind": "depth_video", "film": "clip.mp4"}, "video", RecipeError, "",
                                    ("trained without depth_video", "hears none", "choose a base")),
    "style without VideoComposer": ({"kind": "style_image", "image": "still.png"}, "video", RecipeError, "", ("without style_image",)),
    "a picture to start a clip from": ({"kind": "img2img", "image": "still.png"}, "composer", RecipeError, "", ("makes clips", "video_to_video")),
    "a hole in a picture of a clip": ({"kind": "inpaint", "image": "still.png", "mask": "white.png"}, "video", RecipeError, "", ("masked_video",)),
    "no MiDaS": ({"kind": "depth_video", "film": "clip.mp4", "annotator": "midas"}, "composer", WeightsError, "annotator_model",
                 ("midas_v3_dpt_large.pth", "INFUSE_MODELS")),
    "a MiDaS of words": ({"kind": "depth_video", "film": "clip.mp4", "annotator": "midas", "annotator_model": "./words.pth"}, "composer",
                         WeightsError, "annotator_model", ("words.pth",)),
    "no PiDiNet": ({"kind": "single_sketch", "image": "still.png", "annotator": "pidinet"}, "composer", WeightsError, "annotator_model",
                   ("table5_pidinet.pth", "Canny")),
    "a model that nobody uses": ({"kind": "sketch_video", "film": "clip.mp4", "cleaner_model": "x"}, "composer", RecipeError, "cleaner_model",
                                 ("annotator: pidinet",)),
    "white of what is measured": ({"kind": "depth_video", "film": "clip.mp4", "annotator": "midas", "white": 1}, "composer", RecipeError, "white",
                                  ("Remove white",)),
    "white 11": ({"kind": "depth_video", "film": "clip.mp4", "white": 11}, "composer", RecipeError, "white", ("less than or equal to 10",)),
    "inverting what is drawn light": ({"kind": "sketch_video", "film": "clip.mp4", "annotator": "canny", "invert": True}, "composer", RecipeError,
                                      "invert", ("Remove invert",)),
    "negative style": ({"kind": "style_image", "image": "still.png", "weight": -1}, "composer", RecipeError, "weight", ("less than not at all",)),
    "a curve that leaves the clip": ({"kind": "depth_video", "film": "clip.mp4", "frames": {2: 1}}, "composer", RecipeError, "frames", ("curve",)),
    "frames of a text": ({"kind": "text", "prompt": "x", "frames": 1}, "composer", RecipeError, "frames", ("no such field",)),
    "one frame that moves": ({"kind": "motion", "drawn": [ARROW]}, "composer", RecipeError, "", ("needs 2 frames",)),
}  # fmt: skip
FIELDS = {"too many pixels": {"frames": 1024, "width": 1024, "height": 1024}, "one frame that moves": {"frames": 1}}


@pytest.mark.parametrize("case", BAD)
def test_it_is_a_letter(case: str, store: ModelStore) -> None:
    condition, model, kind, field, words = BAD[case]
    with pytest.raises(InfuseError) as caught:
        Engine(store=store).check(Recipe(model=model, conditions=[condition], **FIELDS.get(case, {"steps": 2})))
    error = caught.value
    assert (type(error), error.field) == (kind, f"conditions.0.{field}".rstrip(".")), str(error)
    assert all(w in error.message for w in words) and len(error.message) < 500, str(error)


def test_what_is_adjusted_is_said(store: ModelStore) -> None:
    conditions = [
        {"kind": "depth_video", "film": {"source": "three.mp4", "short": "bounce"}},
        {"kind": "single_sketch", "image": "white.png"},
        {"kind": "motion", "film": "still.png"},
        {"kind": "single_image", "image": "still.png"},
        {"kind": "sketch_video", "film": "light"},
        {"kind": "depth_video", "film": {"source": "still.png", "fps": 3}},
        {"kind": "depth_video", "film": "uneven.mp4"},
        {"kind": "masked_video", "film": "clip.mp4", "mask": "small.png"},
    ]
    said = Engine(store=store).check(Recipe(model="composer", width=32, height=32, conditions=conditions)).warnings
    for start, words in {
        "conditions.0.film": "3 of 16 frames; filled up with short: bounce",
        "conditions.0.film: 128 x 96": "cut around the centre",
        "conditions.1.image": "mostly light",
        "conditions.2.film": "stand still",
        "conditions.1.image: 128 x 96": "cut around the centre",
        "conditions.3.image: 128 x 96": "cut around the centre",
        "conditions.4.film": "mostly light",
        "conditions.5.film": "is one picture: fps of it changes nothing",
        "conditions.6.film": "Set fps to choose another rate.",
        "conditions.0.film: 128 x 96 px will be cut around the centre to the shape of 32 x 32 px": "the clip's shape",
        "conditions.7.film: 128 x 96 px will be cut around the centre to the shape of 32 x 32 px": "the clip's shape",
        "conditions.7.mask": "64 x 64 px will be stretched to 128 x 96 px, its film",
    }.items():
        assert any(s.startswith(start) and words in s for s in said), said
    assert not any(".." in s for s in said)


def test_how_motion_will_be_read_is_said(store: ModelStore) -> None:
    kinds = {"clip.mp4": True, "plain.mp4": False, "light": True, "still.png": False}
    for name, recoded in kinds.items():
        asked = Recipe(model="composer", width=32, height=32, conditions=[{"kind": "motion", "film": name}])
        assert ("encoded as MPEG-4" in Engine(store=store).check(asked).routes[1][2].note) == recoded, name


def test_a_film_that_tells_less_than_it_promised_is_encoded_again_and_that_is_said(world: Path) -> None:
    """The headers of an AVI do not say that its frames are coded out of order."""
    filming.video(world / "order.avi", FRAMES, "mpeg4", bf="2")
    asked, kit = Motion(film="order.avi"), SimpleNamespace(frames=8, size=(128, 96), canvas=(128, 96))
    with gathers() as notes:
        said = asked.field(kit)  # type: ignore[arg-type]
    assert notes == ["film: order.avi brings no motion vectors for these frames; they were encoded as MPEG-4 for them"]
    assert np.array_equal(said, codec_motion(Film.of("order.avi"), 8, recode=True)[0])
    with gathers() as notes:
        Motion(film="plain.mp4").field(kit)  # type: ignore[arg-type]
    assert not notes


def test_a_mask_is_seen_at_its_film_s_times(store: ModelStore) -> None:
    def said(film: Any, mask: Any) -> list[str]:
        asked = {"kind": "masked_video", "film": film, "mask": mask}
        found = Engine(store=store).check(Recipe(model="composer", width=32, height=24, conditions=[asked])).warnings
        return [w for w in found if "mask:" in w]

    assert not said("clip.mp4", "plain.mp4") and not said("clip.mp4", "white.png")
    assert "10 of 16 frames are shown again" in said("fast.mp4", "clip.mp4")[0]
    (own,) = said("clip.mp4", {"source": "plain.mp4", "start": 1})
    assert "it shows 1 to 2.88 s, its film 0 to 1.88 s" in own and "without them it follows the film" in own
    assert not said({"source": "clip.mp4", "start": 1}, "plain.mp4")
    (loose,) = said({"source": "clip.mp4", "start": 1}, "light")
    assert "paired one by one" in loose
    assert not said("clip.mp4", "light")


OUT = {
    "a.png": ("clip", "not written as .png"),
    "a.avi": ("clip", "not written as .avi"),
    "a.mp4": ("picture", "not written as .mp4"),
}


@pytest.mark.parametrize("name", OUT)
def test_where_it_cannot_be_written(name: str, tmp_path: Path) -> None:
    kind, words = OUT[name]
    with pytest.raises(RecipeError, match=words) as caught:
        places(Asked("x", written=Written(tmp_path / name)), Recipe(), kind == "clip")
    assert caught.value.field == "--out"


@pytest.mark.slow
def test_the_command_line_makes_clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from infuse.engine import engine
    from infuse.engine import model_store as store

    class Stocked(ModelStore):
        def __init__(self, **options: Any) -> None:
            super().__init__(device="cpu")
            self.add("composer", tiny.videocomposer(frames=4).base)

    monkeypatch.setattr(engine, "ModelStore", Stocked)
    monkeypatch.setattr(store, "ModelStore", Stocked)
    noise = np.random.default_rng(0).integers(0, 256, (9, 48, 48, 3), dtype=np.uint8)
    filming.folder(tmp_path / "depths", [Image.fromarray(f) for f in noise])
    recipe = "{model: composer, prompt: a ball, steps: 2, width: 32, height: 32, conditions: [{kind: depth_video, film: depths}]}"
    (tmp_path / "recipe.yaml").write_text(recipe)
    monkeypatch.chdir(tmp_path)

    def ran(*words: str) -> Any:
        done = CliRunner().invoke(app, list(words))
        assert done.exit_code == 0, done.output
        return done

    shown = ran("run", "recipe.yaml", "--frames", "9", "--check").stdout
    assert "9 frames in 3 windows of 4, 1 clip" in shown and "stc (8 9 h w)" in shown and "the depth encoder" in shown
    assert "4 frames, 1 clip" in ran("check", "recipe.yaml").stdout
    assert ran("run", "recipe.yaml", "-o", "first.mp4", "--frames", "9", "--fps", "4").stdout.split() == ["first.mp4"]
    ran("run", "first.mp4", "-o", "again.mp4")
    assert Path("again.mp4").read_bytes() == Path("first.mp4").read_bytes() and Film.of("again.mp4").reader.rate == 4
    ran("run", "first.mp4", "-o", "again.gif", "--fps", "4")
    assert Recipe.load("again.gif") == Recipe.load("first.mp4")
    (inside,) = ran("run", "first.mp4").stdout.split()
    assert Path(inside).suffix == ".mp4" and Path(inside).parent == Path("out")
    assert ran("run", "recipe.yaml", "-o", "frames/clip.gif", "--set", "count=2").stdout.split() == [
        "frames/clip-0.gif",
        "frames/clip-1.gif",
    ]
