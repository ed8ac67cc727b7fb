"""Films of strangers: whatever their bytes are, the answer is frames or a letter, soon and in little memory. Seeds are kept."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import filming
import pytest
from broken_films import FORMS, FRAMES, broken, whole
from watched import watched

from infuse.errors import InfuseError, RecipeError
from infuse.media.films import Film
from infuse.media.reading import OWN, STRICT, reading

pytest.importorskip("av", reason="pip install 'infuse[video]'")


def asked(source: Any, options: dict[str, Any], chance: random.Random) -> int:
    """1 if anything came, 0 if only letters did, of what is asked of a film."""
    film = Film.of(source, **options)
    came, count = 0, chance.choice((1, 3, 6, 20))
    asks = [
        lambda: film.take(count, size=(32, 32)),
        lambda: film.take(count, fps=chance.choice((0.5, 8, 1000))),
        lambda: film.holes(count, size=(32, 32)),
        lambda: film.looked_at(),
        lambda: film.embedded().digest,
    ]
    for ask in (lambda: film.plan(count), *chance.sample(asks, 3)):
        try:
            ask()
            came = 1
        except InfuseError as letter:
            assert 10 < len(letter.message) < 3000, letter
    return came


def tried(forms: tuple[str, ...], count: int, seed: int, at: Path) -> tuple[int, int]:
    """(how many of `count` broken films gave frames, how many a letter at everything)"""
    filming.folder(at / "folder", FRAMES)
    films = {f: whole(f, at) for f in FORMS}
    came = 0
    for n in range(count):
        chance = random.Random(f"{seed} {n}")  # so that one can be tried alone
        form = forms[n % len(forms)]
        path = at / form
        path.write_bytes(broken(films[form], films[chance.choice(FORMS)], chance))
        options: dict[str, Any] = {} if n % 3 else {
            "short": chance.choice(("hold", "loop", "bounce")), "start": chance.choice((0.0, 0.3, 1e300)),
            "fps": chance.choice((None, 1e-300, 7.0, 1000.0)), "reverse": chance.random() < 0.5,
        }  # fmt: skip
        source: Any = path.parent if form.startswith("folder") else path.read_bytes() if n % 5 == 0 else path
        with watched(f"{form}, input {n} of seed {seed}"), reading(OWN if n % 2 else replace(STRICT, roots=(at,))):
            came += asked(source, options, chance)
    return came, count - came


@pytest.mark.slow
def test_broken_films_are_frames_or_letters(tmp_path: Path) -> None:
    came, letters = tried(FORMS, 10 * len(FORMS), 1, tmp_path)
    assert came > 10 and letters > 10


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_ten_thousand_broken_films_are_frames_or_letters(form: str, tmp_path: Path) -> None:
    came, letters = tried((form,), 10_000 // len(FORMS), 2, tmp_path)
    assert came > 10 and letters > 10


# What was found: not one of these was a letter ----------------------------------------------------------------------


def spoilt(at: Path) -> bytes:
    """A zip whose index is whole, and one of whose frames cannot be unpacked."""
    raw = whole("packed.zip", at)
    there = raw.index(b"4.png") + len("4.png")
    return raw[:there] + b"\xff" * 40 + raw[there + 40 :]


def late(form: str, at: Path, old: bytes, new: bytes) -> bytes:
    """A film in which the last of some bytes are others."""
    before, _, behind = whole(form, at).rpartition(old)
    return before + new + behind


FOUND = {
    "a TIFF without a width": ("a.tiff", lambda at: late("a.tiff", at, b"\0\1\3\0\1\0\0\0\x30", b"\0\2\3\0\1\0\0\0\x30")),
    "a TIFF of no known pixels": ("a.tiff", lambda at: late("a.tiff", at, b"\6\1\3\0\1\0\0\0\2", b"\6\1\3\0\1\0\0\0\x77")),
    "a PNG without a header": ("a.png", lambda at: whole("a.png", at)[:8] + bytes(4) + whole("a.png", at)[12:]),
    "a GIF with a block cut short": ("a.gif", lambda at: late("a.gif", at, b"!\xf9\4", b"!\xf9\1")),
    "a zip without an index": ("a.zip", lambda at: whole("stored.zip", at)[:900]),
    "a zip with a spoilt frame": ("a.zip", spoilt),
    "a film of no known codec": ("a.avi", lambda at: whole("a.avi", at).replace(b"FMP4", b"????")),
}  # fmt: skip


@pytest.mark.parametrize("short", ["hold", "loop", "bounce"])
def test_a_film_that_is_almost_over_shows_its_last_frame(short: Any, tmp_path: Path) -> None:
    """Its end is less than a container's rounding away: 0.4 had no frame to hold."""
    (tmp_path / "a.gif").write_bytes(whole("a.gif", tmp_path))
    film = Film.of(tmp_path / "a.gif", start=0.595, fps=7, short=short)
    assert film.plan(3)[0] == (5, 5, 5)
    assert Film.of(tmp_path / "a.gif", fps=5e-324, short=short).plan(3)[0] == (0, 0, 0), "a second frame never comes"


@pytest.mark.parametrize("case", FOUND)
def test_what_was_found_is_a_letter(case: str, tmp_path: Path) -> None:
    name, made = FOUND[case]
    raw = made(tmp_path)
    assert name not in FORMS or raw != whole(name, tmp_path)
    (tmp_path / name).write_bytes(raw)
    asks = [lambda f: f.take(6), lambda f: f.embedded()] + ([lambda f: f.digest] if name == "a.zip" else [])
    for ask in asks:
        with watched(case), pytest.raises(RecipeError, match=r"\. (Make|Give|Pack|Ask|Encode|Copy)"):
            ask(Film.of(tmp_path / name))


def test_a_picture_whose_other_pages_are_damaged_is_its_first(tmp_path: Path) -> None:
    from infuse.media.pictures import Picture

    (tmp_path / "a.tiff").write_bytes(FOUND["a TIFF without a width"][1](tmp_path))
    found = Picture.of(tmp_path / "a.tiff")
    assert found.image.tobytes() == FRAMES[0].tobytes() and "the others are damaged" in found.notes[0]
