"""A result's inputs travel with it, or are found again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import filming
import numpy as np
import pytest
from photos import noise, photo, result, soft
from PIL import Image, PngImagePlugin

from infuse import Film, Recipe
from infuse.conditions import BrushNet, ControlNet, DepthVideo, Img2Img, Inpaint, IPAdapter, Text
from infuse.conditions.base import in_place, squares
from infuse.engine import carried
from infuse.engine.carried import glimpsed
from infuse.engine.result import Result
from infuse.errors import InfuseWarning, RecipeError
from infuse.media import inputs
from infuse.media.fitting import fitted, fitted_hole
from infuse.media.metadata import read_record
from infuse.media.pictures import Picture
from infuse.media.stripped import stripped


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_inputs_are_found_again_by_name_and_size_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise(330).save("photo.png")
    filming.folder(Path("depths"), [noise(330), noise(330, 1)])
    made = result(Img2Img(image="photo.png"), DepthVideo(film="depths"), resolved={})
    with pytest.warns(InfuseWarning, match="too large to travel"):
        (path,) = made.save("out/a.png")
    Path("kept/below").mkdir(parents=True)
    Path("photo.png").rename("kept/below/renamed.png")
    Path("depths").rename("kept/depths")
    for i in range(20):
        (Path("kept") / f"other{i}.png").write_bytes(b"x" * (1000 + i))
    (Path("kept") / "photo.png").write_bytes(b"another of that name")
    hashed = []
    monkeypatch.setattr("infuse.media.inputs._hash", lambda p, real=inputs._hash: hashed.append(p.name) or real(p))
    again = Recipe.load(path, inputs=["kept"])
    assert sorted(hashed) == ["depths", "renamed.png"], "and no other file was read"
    assert again.digest == made.recipe.digest and not again._reading.trusting
    with pytest.warns(InfuseWarning, match="renamed.png"):
        Result(made.images, again, None).save("b.png")
    with pytest.raises(RecipeError, match="not carried along"):
        Recipe.load({"conditions": [{"kind": "img2img", "image": "kept/photo.png"}]}, reading=again._reading)
    assert Recipe.load(path).conditions[0].image.source.startswith("sha256:")  # type: ignore[union-attr]


def test_the_smallest_travel_first() -> None:
    for side in (300, 280, 90):
        noise(side).save(f"{side}.png")
    made = result(*(ControlNet(model=f"m{s}", image=f"{s}.png") for s in (300, 280, 90)), resolved={})
    record = made.record(most=400_000)
    assert [c["image"][:5] for c in record.recipe["conditions"]] == ["sha25", "data:", "data:"] and len(
        record.notes
    ) == 1
    assert len(record.text()) <= 400_000


@pytest.mark.slow
def test_a_large_input_travels_as_it_was_used(tmp_path: Path) -> None:
    """10 MB went into a picture of 64 px."""
    noise(700).save("large.png")
    made = result(
        Img2Img(image="large.png", fit="crop"), ControlNet(model="m", image="large.png"),
        ControlNet(model="m", image="large.png", annotator="canny"), Text(prompt="x", mask="large.png"),
    )  # fmt: skip
    with pytest.warns(InfuseWarning, match=r"conditions\.2\.image: .* too large"):
        (path,) = made.save("a.png")
    assert path.stat().st_size < 20_000
    again = Recipe.load(path, inputs=["."])
    for (_, now), (where, then) in zip(again.pictures(), made.recipe.pictures(), strict=True):
        assert isinstance(now, Picture) and isinstance(then, Picture)
        if where == "conditions.3.mask":
            assert np.array_equal(now.mask, fitted(then.mask, (16, 16)))
        elif where != "conditions.2.image":
            assert np.array_equal(
                now.image, fitted(then.image, (16, 16), "crop" if where == "conditions.0.image" else "stretch")
            )


@pytest.mark.slow
@pytest.mark.parametrize("fit", ["crop", "pad", "tiles"])
def test_a_large_reference_travels_as_its_encoder_saw_it(fit: Any) -> None:
    from transformers import CLIPImageProcessor

    prepare = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (500, 700, 3), dtype=np.uint8)).save("look.png")
    asked = Recipe(conditions=[IPAdapter(image="look.png", fit=fit)])
    saw = glimpsed(asked, prepare)
    Path("eye").mkdir()
    Path("eye/config.json").write_text('{"image_size": 32}')
    beside = {"conditions.0": asked.conditions[0].model_copy(update={"image_encoder": "eye"})}
    assert glimpsed(asked, None, beside) == saw and not glimpsed(asked, None)
    if fit == "tiles":
        assert not saw
        return
    made = Result((soft(16),), asked, None, glimpses=saw)
    (path,) = made.save("a.png")
    again = Recipe.load(path)
    both = [
        prepare(squares(r.conditions[0].image[0], fit)[0].image, return_tensors="np").pixel_values
        for r in (asked, again)
    ]  # type: ignore[union-attr]
    assert again.conditions[0].image[0].size == (32, 32) and np.array_equal(*both)  # type: ignore[union-attr]


def test_what_has_no_metadata_travels_byte_by_byte_and_runs_to_the_same_record() -> None:
    soft().save("a.png")
    soft().save("m.webp", lossless=True)
    made = result(
        Img2Img(image="a.png"),
        Inpaint(image="a.png", mask=Image.new("L", (64, 64), 255)),
        IPAdapter(image=("a.png", "m.webp")),
    )
    (path,) = made.save("one.png")
    again = Recipe.load(path)
    assert again.digest == made.recipe.digest
    (other,) = Result(made.images, again, None, made.weights, resolved=made.resolved).save("two.png")
    assert other.read_bytes() == path.read_bytes()


def test_arrays_come_back_exactly() -> None:
    made = result(
        Img2Img(image=np.asarray(noise(32))), DepthVideo(film=np.stack([np.asarray(noise(32, i)) for i in range(3)]))
    )
    assert Recipe(**read_record(made.save("a.png")[0])["recipe"]) == made.recipe


def test_what_is_gone_by_now_is_no_reason_to_lose_the_picture() -> None:
    soft().save("a.png")
    noise(16).save("a.gif")
    made = result(Img2Img(image="a.png"), DepthVideo(film="a.gif"))
    for _, one in made.recipe.pictures():
        _ = one.sha256, one.size
    Path("a.png").unlink()
    Path("a.gif").unlink()
    made.save("out.png")
    travelled = [c.get("image") or c.get("film") for c in read_record(Path("out.png"))["recipe"]["conditions"]]
    assert travelled[0].startswith("data:") and travelled[1].startswith("sha256:")
    lost = result(DepthVideo(film="nowhere.gif"))
    with pytest.warns(InfuseWarning, match="late.png carries no recipe: one of its inputs is gone"):
        lost.save("late.png")
    assert Path("late.png").exists()


def test_several_pictures_strip_their_inputs_once(monkeypatch: pytest.MonkeyPatch) -> None:
    photo("in.jpg", noise(64, 77))
    calls = []
    monkeypatch.setattr(carried, "stripped", lambda raw: calls.append(1) or stripped(raw))
    Result((soft(16),) * 5, Recipe(conditions=[Img2Img(image="in.jpg")], count=5), None).save("a.png")
    assert len(calls) == 1


def test_the_digest_is_of_content(tmp_path: Path) -> None:
    soft().save("a.png")
    raw = Path("a.png").read_bytes()
    forms = ["a.png", tmp_path / "a.png", raw, Picture("a.png").embedded(), "./a.png"]
    assert len({Recipe(conditions=[Img2Img(image=f)]).digest for f in forms}) == 1


def test_forms_are_at_most_so_large() -> None:
    assert carried.LARGEST == 256 << 10


@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("kind", ["inpaint", "brushnet"])
def test_a_large_picture_and_its_hole_travel_as_they_lie_on_the_canvas(kind: str, fit: Any) -> None:
    """Or neither does: a hole in its own size would lie elsewhere in a picture that was cut."""
    wide = np.random.default_rng(0).integers(0, 256, (400, 700, 3), dtype=np.uint8)
    Image.fromarray(wide).save("photo.png")
    mask = np.zeros((200, 700), np.uint8)
    mask[50:100, 300:420] = 255
    Image.fromarray(mask).save("mask.png")
    plain = {
        "kind": kind,
        "image": "photo.png",
        "mask": "mask.png",
        "fit": fit,
        **({"model": "brush"} if kind == "brushnet" else {}),
    }
    asked = Recipe(conditions=[plain]).conditions[0]  # type: ignore[arg-type]
    (there,) = Recipe(**result(asked).record().recipe).conditions
    assert isinstance(there, Inpaint | BrushNet) and isinstance(asked, Inpaint | BrushNet)
    assert there.image.image.size == there.mask.mask.size == (16, 16)
    own = in_place(asked.mask, asked.image.size).mask
    assert np.array_equal(there.mask.mask, fitted_hole(own, (16, 16), fit)) and np.asarray(there.mask.mask).any()
    assert np.array_equal(there.image.image, fitted(asked.image.image, (16, 16), fit))
    tight = result(asked).record(most=2600).recipe["conditions"][0]
    assert [tight[f].partition(":")[0] for f in ("image", "mask")] in (["sha256", "sha256"], ["data", "data"])


def test_a_folder_of_frames_has_the_bytes_of_what_travels() -> None:
    filming.folder(Path("frames"), [soft(16), noise(16)])
    Path("frames/notes.txt").write_text("not a frame")
    whole = Film.of("frames")
    assert result(DepthVideo(film=whole)).record().inputs["conditions.0.film"]["bytes"] == sum(whole.embedded().weights)


def test_what_was_left_out_of_another_program_s_picture_is_in_the_record() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", "a cat\nSteps: 4, Sampler: Euler, CFG scale: 6, Seed: 4, Size: 64x64, Hires upscale: 2")
    soft().save("webui.png", pnginfo=info)
    with pytest.warns(InfuseWarning):
        asked = Recipe.load("webui.png")
    said = Result((soft(16),), asked, None, warnings=("one more",)).record().warnings
    assert [*said] == [*asked.notes, "one more"] and any("Hires" in note for note in said)


def test_a_folder_of_frames_is_found_again_under_another_name() -> None:
    filming.folder(Path("frames"), [soft(16), noise(16)])
    (path,) = Result((soft(16),), Recipe(conditions=(DepthVideo(film=Film.of("frames")),)), None).save(
        "out.png", record="hashes"
    )
    Path("moved").mkdir()
    Path("frames").rename("moved/renamed")
    for folder in ("moved", ".", "moved/renamed"):
        (found,) = Recipe.load(path, inputs=[folder]).pictures()
        assert isinstance(found[1], Film) and len(found[1].frames(2)) == 2
