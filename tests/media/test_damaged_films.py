"""Damaged, strange and much too large films are said in letters; what is left of a film that was cut short can be used."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import filming
import numpy as np
import pytest
from filming import Asking
from PIL import Image

from infuse.errors import CapacityError, InfuseError, RecipeError
from infuse.media.film_writer import writable
from infuse.media.films import Film
from infuse.media.reading import OWN, reading

pytest.importorskip("av", reason="pip install 'infuse[video]'")

FRAMES = filming.drifting(40)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    at = tmp_path_factory.mktemp("films")
    filming.video(at / "one.mp4", FRAMES[:1])
    first = filming.usual(at, FRAMES)
    (at / "short.mp4").write_bytes(first[: len(first) * 3 // 4])
    hurt = bytearray(first)
    middle = len(first) * 3 // 4
    hurt[middle : middle + 400] = np.random.default_rng(0).integers(0, 256, 400, dtype=np.uint8).tobytes()
    (at / "hurt.mp4").write_bytes(hurt)
    (at / "empty.mp4").write_bytes(b"")
    for i in range(len(first) // 4, len(first), len(first) // 20):  # a decoder that is not told to mind guesses these
        first = first[:i] + bytes([first[i] ^ 0xFF]) + first[i + 1 :]
    (at / "flipped.mp4").write_bytes(first)
    (at / "list.mp4").write_text("ffconcat version 1.0\nfile clip.mp4\n")
    filming.folder(at / "frames", FRAMES[:12])
    filming.folder(at / "mixed", [*FRAMES[:2], FRAMES[2].resize((64, 48))])
    filming.folder(at / "spoilt", FRAMES[:3])
    (at / "spoilt" / "1.png").write_bytes(filming.png(FRAMES[1])[:3000])
    filming.folder(at / "nonsense", FRAMES[:3])
    (at / "nonsense" / "2.png").write_bytes(b"hello")
    (at / "notes").mkdir()
    (at / "notes" / "readme.txt").write_text("no frames here")
    FRAMES[0].save(at / "still.png")
    Image.new("L", (20_000, 8)).save(at / "wide.png")
    Image.new("L", (4, 4)).save(at / "dot.png")
    os.mkfifo(at / "pipe")
    (at / "broken.zip").write_bytes(b"PK\3\4 and no more")
    return at


@pytest.fixture(autouse=True)
def _here(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world)


BAD: dict[str, tuple[dict[str, Any] | str, type[InfuseError], str, tuple[str, ...]]] = {
    "missing": ("nowhere.mp4", RecipeError, "", ("nowhere.mp4", "No such file", "Check the path")),
    "somebody's whom nobody knows": ("~nosuchuser/x.mp4", RecipeError, "", ("~nosuchuser/x.mp4", "No such file")),
    "a pipe": ("pipe", RecipeError, "", ("pipe, a socket or a device", "Save it as a file")),
    "a device": ("/dev/null", RecipeError, "", ("or a device",)),
    "a name too long": ("x" * 300 + ".mp4", RecipeError, "", ("File name too long",)),
    "empty": ("empty.mp4", RecipeError, "", ("empty (0 bytes)",)),
    "words": ("words.mp4", RecipeError, "", ("not a film that can be read", "Give an MP4")),
    "a list that names another file": ("list.mp4", RecipeError, "", ("not a film that can be read",)),
    "sound only": ("sound.m4a", RecipeError, "", ("holds sound only", "video stream")),
    "cut short, index last": ("unfinished.mp4", RecipeError, "", ("lost its index (moov)", "Copy or record it again")),
    "cut short, index first": ("short.mp4", RecipeError, "", ("40 were asked for", "cut short", "of its 40 frames are there", "ask for")),
    "damaged in the middle": ("hurt.mp4", RecipeError, "", ("damaged at frame", "of 40", "frames could be read", "Ask for fewer frames")),
    "a few bytes are wrong": ("flipped.mp4", RecipeError, "", ("damaged at frame", "of 40", "frames could be read")),
    "too few": ("three.mp4", RecipeError, "", ("has 3 frames, 40 were asked", "ask for 3 frames", "short: hold, loop or bounce")),
    "too few at this rate": ({"source": "clip.mp4", "fps": 4, "start": 1}, RecipeError, "",
                             ("16 frames at 4 per second from 1 s on (40 in all)", "start earlier, or")),
    "too few at this rate, enough without": ({"source": "clip.mp4", "fps": 4}, RecipeError, "", ("20 frames at 4 per second", "sample at fps 8, or")),
    "one frame of video": ("one.mp4", RecipeError, "", ("has 1 frame,", "ask for 1 frame,")),
    "too late": ({"source": "clip.mp4", "start": 5}, RecipeError, "start", ("5 s is after the end", "Start earlier")),
    "mixed sizes": ("mixed", RecipeError, "", ("0.png is 128 x 96 px, 2.png is 64 x 48 px", "one size")),
    "a folder without pictures": ("notes", RecipeError, "", ("holds no pictures (1 other files)",)),
    "a spoilt frame": ({"source": "spoilt", "short": "hold"}, RecipeError, "", ("1.png", "frame 1 of 3", "Make this frame again")),
    "a frame of nonsense": ("nonsense", RecipeError, "", ("2.png", "frame 2 of 3")),
    "a broken zip": ("broken.zip", RecipeError, "", ("zip file that cannot be read",)),
    "broken data": ("data:video/mp4;base64,@@@", RecipeError, "", ("not valid base64",)),
    "data that is no film": ("data:video/mp4;base64,aGVsbG8=", RecipeError, "", ("an embedded film", "not a film that can be read")),
    "too wide": ("wide.png", CapacityError, "", ("20000 x 8 px", "16384", "Scale it down")),
    "too small": ("dot.png", RecipeError, "", ("4 x 4 px", "at least 8")),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_it_is_a_letter(case: str) -> None:
    source, kind, field, words = BAD[case]
    with pytest.raises(InfuseError) as caught:
        Film.of(source).take(40)
    error = caught.value
    assert (type(error), error.field) == (kind, field), str(error)
    assert all(w in error.message for w in words) and len(error.message) < 500, str(error)


@pytest.mark.parametrize(
    "case", [c for c in BAD if c not in ("damaged in the middle", "a few bytes are wrong", "a spoilt frame")]
)
def test_headers_are_enough_to_say_so(case: str) -> None:
    with pytest.raises(InfuseError):
        Film.of(BAD[case][0]).plan(40)


FIELDS: dict[str, tuple[Any, str, tuple[str, ...]]] = {
    "a typo": ({"source": "x", "fsp": 3}, "video.fsp", ("Did you mean fps?", "source, start, fps, short, reverse")),
    "no source": ({"fps": 3}, "video.source", ("required",)),
    "no such way to fill": ({"source": "x", "short": "cut"}, "video.short", ("'hold'", "'cut'")),
    "fps 0": ({"source": "x", "fps": 0}, "video.fps", ("greater than 0",)),
    "a negative start": ({"source": "x", "start": -1}, "video.start", ("greater than or equal to 0",)),
    "no name": ("  ", "video", ("empty path",)),
    "no path": ("a\0b.mp4", "video", ("cannot hold the character NUL",)),
    "a number": (5, "video", ("5 is not a film", "a list of PIL images")),
    "an empty list": ([], "video", ("not a film",)),
    "images of several sizes": ([FRAMES[0], FRAMES[0].resize((9, 9))], "video", ("several sizes", "9 x 9")),
    "too bright": (np.full((2, 8, 8, 3), 2.0), "video", ("floats from 0 to 1",)),
    "no channels": (np.zeros((2, 8, 8, 5), np.uint8), "video", ("(f, h, w, 3)",)),
    "no frames": (np.zeros((0, 8, 8, 3), np.uint8), "video", ("holds no frame",)),
}


@pytest.mark.parametrize("case", FIELDS)
def test_the_field_is_named(case: str) -> None:
    value, field, words = FIELDS[case]
    with pytest.raises(RecipeError) as caught:
        Asking(video=value)
    assert caught.value.field == field and all(w in caught.value.message for w in words), str(caught.value)


def test_what_is_left_of_a_film_can_be_used() -> None:
    film = Film.of("short.mp4")
    there = len(film.reader.times)
    assert 3 < there < 40
    clip = film.take(there)
    assert f"{there} of its 40 frames are there" in clip.notes[0]
    assert max(filming.apart(a, b) for a, b in zip(clip.frames, FRAMES, strict=False)) < 3


def test_limits() -> None:
    with pytest.raises(CapacityError, match="fewer or smaller frames"):
        Film.of("still.png").plan(1000, size=(2048, 2048))
    for name in ("clip.mp4", "frames"):
        with reading(replace(OWN, most_frames=10)), pytest.raises(CapacityError, match=r"the limit is 10\. Cut out"):
            Film.of(name).plan(2)


def test_without_the_package_the_letter_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    for ask in (lambda: Film.of("clip.mp4").plan(2), lambda: writable(tmp_path / "film.mp4")):
        with pytest.raises(RecipeError, match=r"needs the package av\. Run: pip install 'infuse\[video\]'"):
            ask()
    assert len(Film.of("frames").frames(3)) == 3, "everything else works without"
