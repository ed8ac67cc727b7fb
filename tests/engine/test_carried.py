"""What a result tells: how it was made, so that it can be made again; and nothing of the machine, the camera or the user."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import filming
import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from infuse import Film, Recipe
from infuse.conditions import BrushNet, ControlNet, DepthVideo, Img2Img, Inpaint, IPAdapter, Text
from infuse.conditions.base import in_place, squares
from infuse.engine import carried
from infuse.engine.carried import anonymous, glimpsed, public
from infuse.engine.result import Result
from infuse.errors import InfuseWarning, RecipeError
from infuse.media import inputs
from infuse.media.film_writer import read_record_of, write_film
from infuse.media.fitting import fitted, fitted_hole
from infuse.media.metadata import Record, read_record
from infuse.media.picture_writer import MOST_EXIF, MOST_TEXT, weight
from infuse.media.pictures import Picture
from infuse.media.stripped import stripped

CAMERA = ("Secret Camera", "SecretCam 9000", "Secret Person")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def noise(side: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8))


def soft(side: int = 64) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize((side, side))


def photo(path: str, image: Image.Image | None = None, turned: int = 1, **options: Any) -> str:
    """As a phone writes it: camera, place, name of its owner."""
    exif = Image.Exif()
    exif[0x010F], exif[0x0110], exif[0x013B] = CAMERA
    exif[0x0112] = turned
    exif.get_ifd(0x8825)[1], exif.get_ifd(0x8825)[2] = "N", (52.0, 31.0, 12.3)
    (image or soft()).save(path, exif=exif, **options)
    return path


def result(*said: Any, **fields: Any) -> Result:
    made = {
        "resolved": {"width": 16, "height": 16, "device": "cuda:0", "dtype": "float16"},
        "weights": {"tabletop": "ab" * 32},
    }
    return Result((soft(16),), Recipe(model="tabletop", conditions=said), None, **(made | fields))


def everything(path: Path) -> bytes:
    """A file's bytes, with every chunk of text unpacked, and every data URI in it decoded."""
    raw = path.read_bytes()
    try:
        text = json.dumps(read_record(path))
    except RecipeError:
        return raw
    inside = [Picture(u).content for u in json.dumps(json.loads(text)).split('"') if u.startswith("data:")]
    return b"\n".join([raw, text.encode(), *inside])


# Privacy ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff"])
@pytest.mark.parametrize("turned", [1, 6])
@pytest.mark.parametrize("out", ["out.png", "out.jpg", "out.webp", "out.gif"])
def test_a_result_tells_nothing_of_camera_place_or_machine(suffix: str, turned: int, out: str, tmp_path: Path) -> None:
    photo(f"in.{suffix}", turned=turned)
    assert b"Secret" in Path(f"in.{suffix}").read_bytes()
    absolute = str(tmp_path / f"in.{suffix}")
    made = result(
        Img2Img(image=absolute), ControlNet(model=str(tmp_path / "my models" / "edges.safetensors"), image=f"in.{suffix}"),
        warnings=(f"{absolute}: it was turned", f"the file {tmp_path}/x.png is odd", "/etc/passwd was not read"),
        frames=((soft(16), noise(16)),) if out.endswith("gif") else (),
    )  # fmt: skip
    (path,) = made.save(out)
    told = everything(path)
    for secret in (
        *CAMERA,
        str(tmp_path),
        str(Path.home()),
        str(Path.cwd()),
        "Exif\0\0II*\0\x0b",
        "/etc/",
        "my models",
    ):
        assert secret.encode() not in told or (secret == str(Path.home()) == "/"), secret
    record = read_record_of(path)
    assert record["recipe"]["conditions"][1]["model"] == "edges.safetensors"
    assert record["resolved"]["device"] == "cuda"
    assert record["warnings"] == ["conditions.0.image: it was turned", "the file x.png is odd", "passwd was not read"]
    again = Recipe.load(path)
    for now, then in zip(again.pictures(), made.recipe.pictures(), strict=True):
        assert np.array_equal(now[1].image, then[1].image), "the same pixels, upright"  # type: ignore[union-attr]


def test_models_by_the_names_that_others_find(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFUSE_MODELS", f"{tmp_path / 'models'}:{tmp_path / 'more'}")
    assert (
        public("tabletop") == "tabletop"
        and public("owner/name") == "owner/name"
        and public("owner/name@main") == "owner/name@main"
    )
    assert public("./edges") == "./edges" and public("models/a.safetensors") == "models/a.safetensors"
    assert public(str(tmp_path / "more" / "sd" / "a.safetensors")) == "sd/a.safetensors"
    assert public(str(tmp_path / "other" / "a.safetensors")) == "a.safetensors"
    assert public("~/secret/a.safetensors") == "a.safetensors" and public("../secret/a") == "a"
    cache = tmp_path / "hub" / "models--owner--some--name" / "snapshots" / "0a1b2c"
    assert (
        public(str(cache)) == "owner/some--name"
        and public(str(cache / "sub" / "a.bin")) == "owner/some--name/sub/a.bin"
    )
    (tmp_path / "more" / "mine").mkdir(parents=True)
    assert public("more/mine") == public("./more/mine") == "mine", "found by its name from anywhere"
    made = result(IPAdapter(model=str(tmp_path / "more" / "ip"), image=soft(), image_encoder=str(tmp_path / "x" / "eye")),
                  weights={str(tmp_path / "more" / "ip"): "cd"}, resolved={"model": str(tmp_path / "sd15")})  # fmt: skip
    record = made.record()
    assert (record.recipe["conditions"][0]["model"], record.recipe["conditions"][0]["image_encoder"]) == ("ip", "eye")
    assert record.weights == {"ip": "cd"} and record.resolved["model"] == "sd15"


def test_sentences_without_places() -> None:
    assert anonymous("/a b/c.png is odd", {"/a b/c.png": ["conditions.0.image"]}) == "conditions.0.image is odd"
    assert anonymous("data.png and a.png", {"a.png": ["conditions.0.image"]}) == "data.png and conditions.0.image"
    both = {"a.png": ["conditions.0.image", "conditions.1.image"]}
    assert anonymous("conditions.1.image: a.png is odd", both) == "conditions.1.image: conditions.1.image is odd"
    assert anonymous("a.png is odd", both) == "it is odd"
    assert anonymous("see /var/lib/x.bin, and a/b of c", {}) == "see x.bin, and a/b of c"
    assert anonymous("half of 1/2 and https://example.org/a/b", {}) == "half of 1/2 and https://example.org/a/b"


# What it tells ------------------------------------------------------------------------------------------------------


def test_a_record_says_how_it_was_made() -> None:
    """0.3 said {"guidance": 1, "prompt": "x"}."""
    import infuse

    made = Result((soft(16), soft(16)), Recipe(prompt="x", guidance=1, seed=5, count=2), None,
                  resolved={"steps": 30, "scheduler": "PNDMScheduler", "dtype": "float32", "device": "cpu", "timetable": []}, warnings=("odd",))  # fmt: skip
    first, second = made.save("x.png")
    record = read_record(second)
    assert record["version"] == 2 and record["recipe"] == {"prompt": "x", "guidance": 1.0, "seed": 6}
    assert record["resolved"] == {
        "steps": 30,
        "scheduler": "PNDMScheduler",
        "dtype": "float32",
        "device": "cpu",
        "timetable": [],
        "seed": 6,
    }
    assert record["versions"]["infuse"] == infuse.__version__ and {"torch", "diffusers", "transformers"} <= set(
        record["versions"]
    )
    assert "+" not in record["versions"]["torch"]
    assert record["warnings"] == ["odd"] and record["digest"] == Recipe.load(second).digest != Recipe.load(first).digest


@pytest.mark.parametrize("out", ["a.png", "a.jpg", "a.webp", "a.tiff", "clip.gif", "clip.webp", "clip"])
def test_how_much_is_said_is_chosen(out: str) -> None:
    photo("in.jpg")
    frames = ((soft(16), noise(16)),) if out.startswith("clip") else ()
    made = result(Img2Img(image="in.jpg"), frames=frames)
    (path,) = made.save(f"hashes/{out}", record="hashes")
    record = read_record_of(path)
    assert record["recipe"]["conditions"][0]["image"] == "sha256:" + record["inputs"]["conditions.0.image"]["sha256"]
    assert record["inputs"]["conditions.0.image"] == {
        "sha256": Picture("in.jpg").sha256,
        "bytes": Path("in.jpg").stat().st_size,
        "name": "in.jpg",
    }
    assert Recipe.load(path, inputs=["."]).digest == made.recipe.digest
    (path,) = made.save(f"none/{out}", record="none")
    with pytest.raises(RecipeError, match="carries no recipe"):
        read_record_of(path)
    file = path / "0000.png" if path.is_dir() else path
    assert b"infuse" not in file.read_bytes() and b"Steps" not in file.read_bytes()
    with pytest.raises(RecipeError, match="Choose full, hashes or none"):
        made.save(out, record="some")  # type: ignore[arg-type]


# What travels -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("turned", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_what_is_stripped_shows_the_same(turned: int, suffix: str) -> None:
    photo(f"in.{suffix}", turned=turned)
    (source,) = [
        v
        for v in json.loads(result(Img2Img(image=f"in.{suffix}")).record().text())["recipe"]["conditions"][0].values()
        if "data:" in str(v)
    ]
    assert b"Secret" not in Picture(source).content
    assert np.array_equal(Picture(source).image, Picture(f"in.{suffix}").image)
    bare = stripped(Path(f"in.{suffix}").read_bytes())
    assert (bare is None) == (turned > 1), "a turn is written out, what is upright keeps its own bytes"
    assert bare is None or (stripped(bare) == bare and len(bare) < Path(f"in.{suffix}").stat().st_size)


def test_progressive_and_odd_jpegs_are_stripped_too() -> None:
    for name, options in (
        ("a", {"progressive": True}),
        ("b", {"quality": 100, "subsampling": 0}),
        ("c", {"restart_marker_blocks": 4}),
        ("d", {"comment": b"Secret"}),
    ):
        photo(f"{name}.jpg", noise(40), **options)
        raw = Path(f"{name}.jpg").read_bytes() + b"\xff\xd8\xff\xe1Secret film of the moment\xff\xd9"
        bare = stripped(raw)
        assert bare is not None and b"Secret" not in bare and stripped(bare) == bare
        assert np.array_equal(Image.open(io.BytesIO(bare)), Image.open(io.BytesIO(raw)))
    grey = io.BytesIO()
    noise(40).convert("CMYK").save(grey, "JPEG")
    bare = stripped(grey.getvalue())
    assert bare is not None and np.array_equal(Image.open(io.BytesIO(bare)), Image.open(io.BytesIO(grey.getvalue())))


def test_gifs_and_damaged_files() -> None:
    noise(16).save(
        "a.gif", save_all=True, append_images=[noise(16, 1), noise(16, 2)], comment=b"Secret", loop=0, duration=50
    )
    raw = Path("a.gif").read_bytes()
    bare = stripped(raw)
    assert bare is not None and b"Secret" not in bare and stripped(bare) == bare
    a, b = Film.of(io_uri(raw)), Film.of(io_uri(bare))
    assert a.reader.times == b.reader.times and [f.tobytes() for f in a.frames(3)] == [f.tobytes() for f in b.frames(3)]
    photo("a.png"), photo("a.jpg"), photo("a.webp")
    for name in ("a.gif", "a.png", "a.jpg"):
        raw = Path(name).read_bytes()
        for cut in (3, 10, 30, len(raw) // 2, len(raw) - 3):
            stripped(raw[:cut])
    assert stripped(b"BM") is None and stripped(b"") is None


def io_uri(raw: bytes) -> str:
    from infuse.media.film_arrays import data_uri

    return data_uri(raw, "image/gif")


@pytest.mark.parametrize("name", ["in.mp4", "in.gif", "in.webp", "in"])
def test_a_film_s_own_recipe_does_not_travel(name: str) -> None:
    pytest.importorskip("av")
    write_film([soft(16), noise(16)], name, Record({"prompt": "Secret"}, {}, {}, parameters="Secret\nSteps: 1"))
    made = result(DepthVideo(film=name), frames=((soft(16), noise(16)),))
    (path,) = made.save("out.mp4")
    assert b"Secret" not in everything(path)
    source = read_record_of(path)["recipe"]["conditions"][0]["film"]
    assert source.startswith("data:")
    assert [f.tobytes() for f in Film.of(source).frames(2)] == [f.tobytes() for f in Film.of(name).frames(2)]
    bare = Picture(source).content
    assert stripped(bare) == bare


def test_frames_in_a_folder_travel_stripped() -> None:
    filming.folder(Path("depths"), [soft(32), noise(32)])
    photo("depths/2.png", noise(32, 3))
    source = result(DepthVideo(film="depths")).record().recipe["conditions"][0]["film"]
    assert b"Secret" not in Picture(source).content
    assert [f.tobytes() for f in Film.of(source).frames(3)] == [f.tobytes() for f in Film.of("depths").frames(3)]


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_every_result_opens_however_large_what_went_in(suffix: str) -> None:
    """After a photo of 0.75 MB nobody could open what 0.3 saved."""
    import cv2

    noise(700).save("large.png")
    noise(100).save("small.png")
    assert Path("large.png").stat().st_size > 1 << 20
    several = [ControlNet(model=f"m{i}", image="small.png") for i in range(40)]
    made = result(Img2Img(image="large.png"), *several, resolved={})
    before = PngImagePlugin.MAX_TEXT_CHUNK
    with pytest.warns(
        InfuseWarning, match=r"conditions\.0\.image: large\.png \(1\.4 MiB\) is too large to travel"
    ) as said:
        (path,) = made.save(f"a{suffix}")
    with Image.open(path) as image:
        image.load()
    assert cv2.imread(str(path)) is not None and PngImagePlugin.MAX_TEXT_CHUNK == before == 1 << 20
    travelling = [c["image"].startswith("data:") for c in read_record(path)["recipe"]["conditions"]]
    assert not travelling[0] and (len(said) == travelling.count(False))
    record = made.record(most=MOST_EXIF if suffix == ".jpg" else MOST_TEXT)
    assert weight(record, suffix) <= (MOST_EXIF if suffix == ".jpg" else MOST_TEXT)
    assert sum(travelling) == (1 if suffix == ".jpg" else 22), "as many as there is room for"
    assert Recipe.load(path, inputs=["."]).digest == made.recipe.digest


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
