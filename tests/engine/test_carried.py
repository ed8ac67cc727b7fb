"""What a result tells: how it was made, so that it can be made again; and nothing of the machine, the camera or the user."""

from __future__ import annotations

import io
import json
from pathlib import Path

import filming
import numpy as np
import pytest
from photos import CAMERA, noise, photo, result, soft
from PIL import Image, PngImagePlugin

from infuse import Film, Recipe
from infuse.conditions import ControlNet, DepthVideo, Img2Img, IPAdapter
from infuse.engine.carried import anonymous, public
from infuse.engine.result import Result
from infuse.errors import InfuseWarning, RecipeError
from infuse.media.film_writer import read_record_of, write_film
from infuse.media.metadata import Record, read_record
from infuse.media.picture_writer import MOST_EXIF, MOST_TEXT, weight
from infuse.media.pictures import Picture
from infuse.media.stripped import stripped


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


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
