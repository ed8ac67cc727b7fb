"""A film goes in and comes out: what is written is read again, and frames are chosen by the rule."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import filming
import numpy as np
import pytest
import torch
from filming import Asking
from PIL import Image

from infuse.errors import RecipeError
from infuse.media import video_reader
from infuse.media.film_writer import read_record_of, write_film
from infuse.media.films import Film
from infuse.media.metadata import Record
from infuse.media.reading import relative_to

pytest.importorskip("av", reason="pip install 'infuse[video]'")

FRAMES = filming.drifting(40)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    at = tmp_path_factory.mktemp("films")
    filming.video(at / "clip.mp4", FRAMES)
    filming.video(at / "three.mp4", FRAMES[:3])
    filming.video(at / "uneven.mp4", FRAMES[:6], times=(0, 0.1, 0.4, 0.45, 1.0, 1.2))
    filming.folder(at / "frames", FRAMES[:12])
    FRAMES[0].save(at / "still.png")
    return at


@pytest.fixture(autouse=True)
def _here(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world)


# Writing and reading ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "loss"), [("film.mp4", 3.0), ("film.gif", 3.0), ("film.webp", 0.0), ("film", 0.0)])
def test_what_is_written_is_read(name: str, loss: float, tmp_path: Path) -> None:
    record = Record({"prompt": "a red cübe", "model": "x" * 200_000}, {"conditions.0.video": "ab"}, {"m": "cd"})
    path = tmp_path / name
    assert write_film(FRAMES[:16], path, record) == ()
    assert read_record_of(path) == {**json.loads(record.text()), "fps": 8}
    film = Film.of(path)
    assert (film.size, len(film.reader.times), film.reader.rate) == ((128, 96), 16, pytest.approx(8))
    clip = film.take(16)
    assert clip.places == tuple(range(16)) and clip.notes == ()
    assert max(filming.apart(a, b) for a, b in zip(clip.frames, FRAMES, strict=False)) <= loss
    packed = film.embedded()
    assert packed.source.startswith("data:") and packed.sha256 == film.sha256
    assert [f.tobytes() for f in packed.frames(16)] == [f.tobytes() for f in clip.frames]
    if path.is_file():
        before = path.read_bytes()
        write_film(FRAMES[:16], path, record)
        assert path.read_bytes() == before


def test_mp4_is_padded_to_even_sides(tmp_path: Path) -> None:
    notes = write_film(filming.drifting(3, size=(33, 25)), tmp_path / "odd.mp4")
    assert "33 x 25 px became 34 x 26" in notes[0]
    assert Film.of(tmp_path / "odd.mp4").size == (34, 26)


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_equal_frames_become_one_that_stays_longer_and_a_note_says_so(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"film{suffix}"
    (note,) = write_film([FRAMES[0], FRAMES[0], FRAMES[5], FRAMES[9]], path)
    assert "1 of 4 frames" in note
    assert Film.of(path).reader.end == pytest.approx(0.5) and Film.of(path, fps=8).plan(4)[0] == (0, 0, 1, 2)


@pytest.mark.parametrize(
    ("frames", "path", "field", "words"),
    [
        (FRAMES[:2], "film.avi", "", ("not written as .avi", ".mp4, .gif, .webp, or a folder")),
        ([], "film.mp4", "", ("no frames",)),
        ([FRAMES[0], FRAMES[0].resize((64, 64))], "film.mp4", "", ("one size", "2")),
        (FRAMES[:2], "frames", "", ("holds pictures already", "Name a new folder")),
    ],
)
def test_what_cannot_be_written(frames: list[Any], path: str, field: str, words: tuple[str, ...]) -> None:
    with pytest.raises(RecipeError) as caught:
        write_film(frames, path)
    assert caught.value.field == field and all(w in caught.value.message for w in words), str(caught.value)


def test_a_film_without_a_recipe(tmp_path: Path) -> None:
    write_film(FRAMES[:2], tmp_path / "bare.gif")
    for path in (tmp_path / "bare.gif", Path("clip.mp4")):
        with pytest.raises(RecipeError, match="carries no recipe"):
            read_record_of(path)


# Frames as they are -----------------------------------------------------------------------------------------------


def test_arrays_tensors_and_images_come_back_exactly() -> None:
    array = np.stack([np.asarray(f) for f in FRAMES[:5]])
    films = [
        Film.of(array),
        Film.of(FRAMES[:5]),
        Film.of(array.astype(np.float64) / 255),
        Film.of(torch.from_numpy(array).permute(0, 3, 1, 2)),
        Film.of(torch.from_numpy(array).permute(0, 3, 1, 2).float() / 255),
    ]
    assert len({f.source for f in films}) == 1
    assert np.array_equal(np.stack([np.asarray(f) for f in films[0].frames(5)]), array)
    assert films[0].embedded() == films[0]
    still = Film.of(array[0])
    assert still.reader.still and still == Film.of(FRAMES[0]) and len(still.frames(7)) == 7


def test_a_recipe_keeps_it_short() -> None:
    assert Asking(video="clip.mp4").model_dump(mode="json") == {"video": "clip.mp4"}
    asked = Asking(video={"source": "clip.mp4", "fps": 4, "short": "loop"})
    said = asked.model_dump(mode="json")
    assert said == {"video": {"source": "clip.mp4", "fps": 4.0, "short": "loop"}} and Asking(**said) == asked
    assert Asking(video=Film.of(FRAMES[:2])).video == Film.of(FRAMES[:2])
    plain, mapping = Film.model_json_schema()["anyOf"]
    assert (plain["type"], plain["format"]) == ("string", "film") and mapping["required"] == ["source"]


def test_paths_start_at_the_recipe() -> None:
    with relative_to(Path("elsewhere")):
        assert Film.of("a.mp4").source == str(Path("elsewhere/a.mp4")) == Asking(video="a.mp4").video.source  # type: ignore[union-attr]


def test_the_hash_is_of_the_content(tmp_path: Path) -> None:
    film = Film.of("clip.mp4")
    (tmp_path / "moved.mp4").write_bytes(Path("clip.mp4").read_bytes())
    assert Film.of(tmp_path / "moved.mp4").sha256 == film.sha256
    frames = Film.of("frames").sha256
    one = filming.folder(tmp_path / "one", FRAMES[:12])
    assert Film.of(one).sha256 == frames
    (one / "3.png").rename(one / "30.png")
    assert Film.of(one).sha256 != frames
    assert Film.of(film, reverse=True).sha256 == film.sha256 and Film.of(film, reverse=True).digest != film.digest


# Which frames -----------------------------------------------------------------------------------------------------

RULE: dict[str, tuple[dict[str, Any], tuple[int, ...], tuple[str, ...]]] = {
    "consecutive": ({}, (0, 1, 2, 3), ()),
    "from a second on": ({"start": 1}, (8, 9, 10, 11), ()),
    "between two frames": ({"start": 1.06}, (8, 9, 10, 11), ()),
    "every second one": ({"fps": 4}, (0, 2, 4, 6), ()),
    "every fifth in two": ({"fps": 3.2}, (0, 2, 5, 7), ()),
    "faster than it is": ({"fps": 24}, (0, 0, 0, 1), ("8 frames per second", "24", "2 of 4 frames are shown again")),
    "backwards": ({"reverse": True, "start": 1}, (11, 10, 9, 8), ()),
    "held": ({"start": 4.75, "short": "hold"}, (38, 39, 39, 39), ("2 of 4", "hold")),
    "looped": ({"start": 4.75, "short": "loop"}, (38, 39, 38, 39), ("2 of 4", "loop")),
    "bounced": ({"start": 4.625, "short": "bounce"}, (37, 38, 39, 38), ("3 of 4", "bounce")),
}


@pytest.mark.parametrize("case", RULE)
def test_which_frames_are_taken(case: str) -> None:
    options, expected, words = RULE[case]
    clip = Film.of("clip.mp4", **options).take(4)
    assert clip.places == expected and all(w in " ".join(clip.notes) for w in words) and bool(words) == bool(clip.notes)
    for place, frame in zip(clip.places, clip.frames, strict=True):
        assert filming.apart(frame, FRAMES[place]) < min(
            filming.apart(frame, FRAMES[i]) for i in {place - 1, (place + 1) % 40}
        )


def test_the_mechanisms_rate_yields_to_the_films() -> None:
    assert Film.of("clip.mp4").plan(3, fps=4)[0] == (0, 2, 4)
    assert Film.of("clip.mp4", fps=8).plan(3, fps=4)[0] == (0, 1, 2)
    assert Film.of("frames").plan(3, fps=4)[0] == (0, 1, 2), "loose frames have been chosen already"
    places, notes = Film.of("frames", fps=4).plan(3)
    assert places == (0, 2, 4) and "8 per second" in notes[0]


def test_a_variable_rate_is_sampled_by_time() -> None:
    clip = Film.of("uneven.mp4").take(6)
    assert clip.places == (0, 1, 3, 3, 3, 4) and "variable frame rate" in clip.notes[0] and "Set fps" in clip.notes[0]
    assert Film.of("uneven.mp4", fps=10).plan(6)[0] == (0, 1, 1, 1, 2, 3)


def test_far_into_a_film_the_same_frames_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By jumping to a key frame before them."""
    frames = [Image.new("RGB", (32, 32), (2 * k % 256,) * 3) for k in range(120)]
    seen: list[Any] = []
    plainly = video_reader.decoded
    monkeypatch.setattr(video_reader, "decoded", lambda *a: (seen.append(f) or f for f in plainly(*a)))
    for codec in ("mpeg4", "libx264"):
        film = Film.of(filming.video(tmp_path / f"{codec}.mp4", frames, codec), start=100 / 8)
        assert [np.asarray(f).mean() // 2 for f in film.frames(5)] == pytest.approx(list(range(100, 105)), abs=1)
        if codec == "mpeg4":  # x264 puts its key frames 250 apart
            assert len(seen) < 60


def test_folders_are_in_the_order_of_their_numbers() -> None:
    film = Film.of("frames")
    assert film.reader.parts[-3:] == ("9.png", "10.png", "11.png")
    assert [f.tobytes() for f in film.frames(12)] == [f.tobytes() for f in FRAMES[:12]]


def test_what_lies_beside_the_frames_is_said(tmp_path: Path) -> None:
    at = filming.folder(tmp_path / "with", FRAMES[:3])
    (at / "readme.txt").write_text("x")
    assert "readme.txt" in Film.of(at).plan(2)[1][0]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("0.png", "1.png", "4.png"), "1.png is followed by 4.png"),
        (("a_000.png", "a_010.png", "a_030.png", "a_040.png"), "a_010.png is followed by a_030.png"),
        (("8.png", "9.png", "10.png"), ""),
        (("000.png", "042.png", "083.png", "125.png"), ""),  # times
        (("a1.png", "b2.png", "c7.png"), ""),
        (("one.png", "two.png", "ten.png"), ""),
    ],
)
def test_missing_numbers_are_said(names: tuple[str, ...], said: str, tmp_path: Path) -> None:
    for name in names:
        FRAMES[0].save(tmp_path / name)
    assert [said in n and "numbers are missing" in n for n in Film.of(tmp_path).plan(2)[1]] == [True] * bool(said)


def test_a_still_has_no_times() -> None:
    assert Film.of("still.png").plan(3)[1] == () == Film.of("still.png", short="loop").plan(3)[1]
    assert Film.of("still.png", fps=3).plan(3)[1][0].endswith("one picture: fps of it changes nothing")
    (note,) = Film.of("still.png", start=7, fps=3, reverse=True).plan(3)[1]
    assert note.endswith("start and fps and reverse of it change nothing")


def test_a_film_beside_another_one_is_seen_at_its_times(tmp_path: Path) -> None:
    fast = Film.of(filming.video(tmp_path / "fast.mp4", FRAMES[:24], rate=24))
    slow = Film.of(filming.video(tmp_path / "slow.mp4", FRAMES[:8]))
    assert slow.beside(fast).plan(12)[0] == (0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3)
    assert fast.beside(slow).plan(4)[0] == (0, 3, 6, 9)
    asked = Film.of(fast, start=0.5, fps=4, reverse=True)
    assert slow.beside(asked).plan(2)[0] == (6, 4) and asked.plan(2)[0] == (18, 12)
    own = Film.of(slow, start=0.25, fps=2).beside(asked)
    assert (own.start, own.fps, own.reverse) == (0.25, 2, True)
    for other in (Film.of("frames"), Film.of("still.png")):
        assert other.beside(asked) == other and asked.beside(other) == asked
    assert Film.of("frames").beside(Film.of("frames", start=0.5)).plan(2)[0] == (4, 5)


def test_sizes_are_covered_and_cut_around_the_centre() -> None:
    (frame,) = Film.of("still.png").frames(1, (48, 96))
    assert frame.size == (48, 96) and filming.apart(frame, FRAMES[0].crop((40, 0, 88, 96))) == 0


def test_phones_are_turned_upright(tmp_path: Path) -> None:
    film = Film.of(filming.on_its_side(Path("three.mp4"), tmp_path / "phone.mp4"))
    assert film.size == (96, 128)
    assert filming.apart(film.frames(1)[0], FRAMES[0].transpose(Image.Transpose.ROTATE_270)) < 3


def test_pixels_become_square(tmp_path: Path) -> None:
    assert Film.of(filming.video(tmp_path / "wide.mp4", FRAMES[:2], aspect=2)).size == (256, 96)


def test_what_is_transparent_is_white_as_in_pictures(tmp_path: Path) -> None:
    frames = [Image.new("RGBA", (16, 16), (40, 40, 40, 0)) for _ in range(2)]
    frames[1].paste((255, 0, 0, 255), (0, 0, 8, 16))
    frames[0].save(tmp_path / "clear.gif", save_all=True, append_images=frames[1:], duration=100, disposal=2)
    first, second = Film.of(tmp_path / "clear.gif").frames(2)
    assert first.getextrema() == ((255, 255),) * 3 and second.getpixel((4, 4)) == (255, 0, 0)


def test_sixteen_bit_depths_keep_their_shades(tmp_path: Path) -> None:
    Image.fromarray(np.full((16, 16), 32768, np.uint16)).save(tmp_path / "depth.png")
    assert Film.of(tmp_path / "depth.png").frames(1)[0].getpixel((0, 0)) == (127,) * 3


MATRICES: dict[tuple[int, int, int, int], Any] = {
    (1, 0, 0, 1): lambda p: p, (-1, 0, 0, 1): lambda p: p[:, ::-1], (1, 0, 0, -1): lambda p: p[::-1],
    (-1, 0, 0, -1): lambda p: p[::-1, ::-1], (0, 1, 1, 0): lambda p: p.swapaxes(0, 1), (0, 1, -1, 0): lambda p: np.rot90(p, -1),
    (0, -1, 1, 0): lambda p: np.rot90(p), (0, -1, -1, 0): lambda p: p[::-1, ::-1].swapaxes(0, 1),
}  # fmt: skip
"""Display matrix -> what it does to pixels: all eight ways in which a picture can lie."""


@pytest.mark.parametrize("matrix", MATRICES)
def test_films_are_shown_in_all_eight_ways(matrix: tuple[int, int, int, int], tmp_path: Path) -> None:
    """I9: mirrored films, as front cameras write them, too."""
    frames = filming.drifting(2, size=(128, 96))
    plain = filming.video(tmp_path / "plain.mp4", frames)
    turned = Film.of(filming.shown_as(plain, tmp_path / "turned.mp4", matrix))
    seen, expected = np.asarray(turned.frames(1)[0]), MATRICES[matrix](np.asarray(Film.of(plain).frames(1)[0]))
    assert turned.size == seen.shape[1::-1] and np.array_equal(seen, expected)
