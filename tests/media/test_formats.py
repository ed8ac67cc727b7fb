"""A picture is what its name says, opens in every reader, says its colours and its recipe; a film's colours come back."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browsing import in_browser
from PIL import Image, ImageCms

from infuse import Film
from infuse.errors import RecipeError
from infuse.media.film_writer import write_film
from infuse.media.metadata import Record, read_record
from infuse.media.picture_writer import MOST_EXIF, WRITERS, srgb, weight, writable_picture, write_picture
from infuse.media.reading import STRICT
from infuse.media.texts import texts

FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".tiff": "TIFF",
    ".tif": "TIFF",
    ".avif": "AVIF",
}
EXACT = (".png", ".webp", ".tiff", ".tif")
SAID = "a red cübe, 漢字\nNegative prompt: dark\nSteps: 3, Sampler: Euler, CFG scale: 7"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def picture(size: tuple[int, int] = (64, 48), seed: int = 0) -> Image.Image:
    """Soft colours of every hue."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def record(words: str = "a red cübe, 漢字", parameters: str = SAID) -> Record:
    return Record({"prompt": words, "steps": 3}, {}, {"m": "ab"}, parameters=parameters)


def off(a: Any, b: Any) -> float:
    return float(np.abs(np.asarray(a).astype(int) - np.asarray(b)).mean())


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_picture_is_what_its_name_says(suffix: str) -> None:
    """0.4 wrote PNG bytes into a .jpg."""
    path, image = Path(f"a{suffix}"), picture()
    assert write_picture(image, path, record()) == ()
    before = path.read_bytes()
    write_picture(image, path, record())
    assert path.read_bytes() == before and [p.name for p in Path().iterdir()] == [path.name]
    with Image.open(path) as found:
        assert found.format == FORMATS[suffix] and found.size == (64, 48)
        assert off(found.convert("RGB"), image) <= (0 if suffix in EXACT else 2)
        if suffix == ".png":
            assert found.info["srgb"] == 0
        else:
            said = ImageCms.ImageCmsProfile(io.BytesIO(found.info["icc_profile"]))
            assert "sRGB" in ImageCms.getProfileDescription(said)
    assert read_record(path)["recipe"] == record().recipe
    found = texts(path, STRICT)
    assert found["parameters" if suffix == ".png" else "UserComment"] == SAID, "where the webui looks for it"


def test_colour_is_kept_at_every_pixel_of_a_jpeg() -> None:
    write_picture(picture(), "a.jpg")
    with Image.open("a.jpg") as found:
        assert found.layer == [(1, 1, 1, 0), (2, 1, 1, 1), (3, 1, 1, 1)], "4:4:4"  # type: ignore[attr-defined]


@pytest.mark.parametrize("suffix", FORMATS)
def test_other_readers_open_it(suffix: str) -> None:
    import cv2

    av = pytest.importorskip("av")
    long = record("x" * 700_000 if suffix not in (".jpg", ".jpeg") else "x" * 50_000)
    write_picture(picture(), f"a{suffix}", long)
    assert read_record(Path(f"a{suffix}"))["recipe"] == long.recipe
    seen = cv2.imread(f"a{suffix}")
    assert seen is not None and off(seen[:, :, ::-1], picture()) <= 2
    with av.open(f"a{suffix}") as container:
        assert off(next(container.decode(video=0)).to_ndarray(format="rgb24"), picture()) <= 3


@pytest.mark.slow
def test_a_browser_opens_it() -> None:
    files = [Path(f"a{suffix}") for suffix in (".png", ".jpg", ".webp", ".avif")]
    for file in files:
        write_picture(picture(), file, record("x" * 50_000))
    assert in_browser(files, Path()) == [(64, 48)] * 4


@pytest.mark.parametrize(("suffix", "most"), [(".jpg", MOST_EXIF), (".png", 900 << 10)])
def test_a_record_that_no_reader_would_open_is_left_out_and_said(suffix: str, most: int) -> None:
    long = record("x" * most)
    assert weight(long, suffix) > most
    (note,) = write_picture(picture(), f"a{suffix}", long)
    assert "carries no recipe" in note and ".yaml" in note
    with Image.open(f"a{suffix}") as found:
        found.load()
    with pytest.raises(RecipeError, match="carries no recipe"):
        read_record(Path(f"a{suffix}"))


@pytest.mark.parametrize("name", ["a.bmp", "a.gif", "a.mp4", "a", "a.jpgg", "a.PNGX"])
def test_another_ending_is_a_letter(name: str) -> None:
    for ask in (writable_picture, lambda n: write_picture(picture(), n)):
        with pytest.raises(RecipeError, match=r"Choose \.png, \.jpg, .*\.webp, \.tiff"):
            ask(name)
    assert not Path(name).exists() and set(WRITERS) == set(FORMATS)


def test_endings_may_be_shouted() -> None:
    write_picture(picture(), "A.JPG", record())
    with Image.open("A.JPG") as found:
        assert found.format == "JPEG"


def test_the_profile_is_the_same_bytes_at_any_time() -> None:
    assert srgb()[24:36] == bytes((7, 207, 0, 10, 0, 1, 0, 0, 0, 0, 0, 0))


def test_a_link_stays_a_link_and_nothing_is_left_beside() -> None:
    Path("real.png").write_bytes(b"old")
    Path("a.png").symlink_to("real.png")
    write_picture(picture(), "a.png", record())
    assert Path("a.png").is_symlink() and read_record(Path("real.png"))
    assert sorted(p.name for p in Path().iterdir()) == ["a.png", "real.png"]


# Films --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["soft", "plain"])
def test_a_film_s_colours_come_back_in_every_reader(kind: str) -> None:
    """BT.601 without tags, read as BT.709, was off by 7.8 of 255."""
    import cv2

    av = pytest.importorskip("av")
    frames = [picture((128, 96), i) for i in range(4)]
    if kind == "plain":
        frames = [Image.new("RGB", (128, 96), c) for c in ("red", "green", "blue", "orange")]
    write_film(frames, "a.mp4", record())
    with av.open("a.mp4") as container:
        codec = container.streams.video[0].codec_context
        assert (codec.color_primaries, codec.color_trc, codec.colorspace, codec.color_range) == (1, 1, 1, 1), (
            "BT.709, said"
        )
        shown = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    video = cv2.VideoCapture("a.mp4")
    others = [video.read()[1][:, :, ::-1] for _ in frames]
    ours = Film.of("a.mp4").frames(4)
    for found in (shown, others, ours):
        assert max(off(a, b) for a, b in zip(found, frames, strict=True)) <= (
            1 if kind == "plain" else 3
        )  # half as many colours as pixels


def test_a_film_carries_the_webui_s_words_where_there_is_a_place() -> None:
    frames = [picture(seed=i) for i in range(2)]
    write_film(frames, "a.webp", record())
    assert texts(Path("a.webp"), STRICT)["UserComment"] == SAID
    write_film(frames, "frames", record())
    assert texts(Path("frames/0000.png"), STRICT)["parameters"] == SAID
    assert json.loads(texts(Path("frames/0001.png"), STRICT)["infuse"])["see"] == "0000.png"


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a.webp", "frames"])
def test_a_film_without_a_record_says_nothing(name: str) -> None:
    write_film([picture(seed=i) for i in range(2)], name)
    file = Path(name) if Path(name).is_file() else Path(name) / "0000.png"
    assert not {"infuse", "parameters", "comment", "ImageDescription", "UserComment"} & set(texts(file, STRICT))
