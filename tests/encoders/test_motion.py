"""Wherever motion comes from, it says the same: what was at p - flow[k](p) in frame k-1 is at p in frame k."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path as File
from typing import Any

import filming
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file

from infuse.encoders.drawn_motion import AnyDrawn, Arrow, Camera, Drawn, Path, arrows_picture, drawn_motion
from infuse.encoders.motion import (
    codec_motion,
    fitted_motion,
    motion_map,
    optical_flow,
    recoded_motion,
    sparse_motion,
    videocomposer_fps,
)
from infuse.errors import CapacityError, RecipeError
from infuse.media.films import Film
from infuse.validation import Strict

pytest.importorskip("av", reason="pip install 'infuse[video]'")

DRIFTS = [(3, 0), (-2, 1), (0, -3)]


def arrow(a: Sequence[float], b: Sequence[float], **fields: Any) -> Arrow:
    return Arrow(**{"from": a, "to": b}, **fields)


def middle(field: np.ndarray) -> tuple[float, float]:
    """The median of the vectors of a (2 h w) field, away from its edges, where it says something."""
    inner = field[:, 16:-16, 16:-16]
    x, y = np.median(inner[:, np.hypot(*inner) > 0], axis=1)
    return float(x), float(y)


# Codecs -----------------------------------------------------------------------------------------------------------


def golden() -> tuple[np.ndarray, np.ndarray]:
    found = load_file(File(__file__).parents[1] / "goldens" / "videocomposer_annotators.safetensors")
    return found["in.motion_rows"].numpy(), found["out.motion_map"].numpy()


def test_the_map_is_videocomposers() -> None:
    rows, expected = golden()
    assert np.array_equal(motion_map(rows, *expected.shape[:2]), expected)
    kinds = ["i4", "u1", "u1", *["i2"] * 4, "i4", "i4", "u2"]
    names = ("source", "w", "h", "src_x", "src_y", "dst_x", "dst_y", "motion_x", "motion_y", "motion_scale")
    structured = np.array([tuple(r) for r in rows.tolist()], dtype=list(zip(names, kinds, strict=True)))
    assert np.array_equal(motion_map(structured, *expected.shape[:2]), expected)
    assert not motion_map([], 4, 4).any()


@pytest.mark.parametrize("drift", DRIFTS)
@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_the_codec_tells_where_the_content_goes(codec: str, drift: tuple[int, int], tmp_path: File) -> None:
    film = Film.of(filming.video(tmp_path / "drift.mp4", filming.drifting(8, *drift), codec))
    flow, notes = codec_motion(film, 8)
    assert flow.shape == (8, 2, 96, 128) and flow.dtype == np.float32 and not flow[0].any()
    assert [n.endswith("encoded as MPEG-4 for them") for n in notes] == [True] * (codec == "libx264")
    assert np.array([middle(f) for f in flow[1:]]) == pytest.approx(np.tile(drift, (7, 1)), abs=0.51)


HOW: dict[str, tuple[str, str, dict[str, str], bool]] = {
    "H.264 looks several frames away": ("a.mp4", "libx264", {}, False),
    "even without B-frames": ("a.mp4", "libx264", {"bf": "0", "refs": "4"}, False),
    "MPEG-4": ("a.mp4", "mpeg4", {}, True),
    "MPEG-4 with B-frames": ("a.mp4", "mpeg4", {"bf": "2"}, False),
    "MPEG-4 with B-frames, without times": ("a.avi", "mpeg4", {"bf": "2"}, False),
}


@pytest.mark.parametrize("case", HOW)
def test_a_steady_drift_is_steady_in_any_codec(case: str, tmp_path: File) -> None:
    """VideoComposer's vectors are pixels per frame, so only those that span one frame are taken from a file."""
    name, codec, options, own = HOW[case]
    film = Film.of(filming.video(tmp_path / name, filming.drifting(16, 3), codec, **options))
    flow, notes = codec_motion(film, 16)
    assert (notes == ()) == own
    moving = [middle(f) for f in flow if f.any()]
    assert len(moving) >= 14 and np.array(moving) == pytest.approx(np.tile((3, 0), (len(moving), 1)), abs=0.51)
    if not own:
        assert np.array_equal(flow, codec_motion(film, 16, recode=True)[0])
        with pytest.raises(RecipeError, match="recode: true"):
            codec_motion(film, 16, recode=False)


def test_what_is_too_large_for_the_codec_is_a_letter(tmp_path: File) -> None:
    film = Film.of(filming.folder(tmp_path / "wide", [Image.new("RGB", (8200, 16))] * 2))
    with pytest.raises(CapacityError, match=r"8200 x 16 px.*8191 px a side"):
        codec_motion(film, 2)


@pytest.mark.parametrize("drift", DRIFTS)
def test_films_without_vectors_are_encoded_for_them(drift: tuple[int, int]) -> None:
    frames = filming.drifting(14, *drift)
    flow, notes = codec_motion(Film.of(frames), 14)
    assert "encoded as MPEG-4" in notes[0]
    assert np.array_equal(flow, recoded_motion(frames)) and np.array_equal(
        flow, codec_motion(Film.of(frames), 14, recode=True)[0]
    )
    whole = [k for k in range(14) if not flow[k].any()]
    assert whole == [0, 12], "frames that are coded whole have no motion"
    for k in {*range(14)} - {*whole}:
        assert middle(flow[k]) == pytest.approx(drift, abs=0.51)
        assert 0.5 < (np.hypot(*flow[k]) > 0).sum() / (96 * 128 / 256) <= 1, "one vector for a block of 16 x 16"


def test_vectors_in_the_file_are_only_used_between_these_frames(tmp_path: File) -> None:
    film = Film.of(filming.video(tmp_path / "drift.mp4", filming.drifting(16, 3), "mpeg4"))
    assert codec_motion(film, 4, recode=False)[1] == ()
    for other in (Film.of(film, reverse=True), Film.of(film, fps=4)):
        flow, notes = codec_motion(other, 4)
        assert notes and middle(flow[1])[0] == pytest.approx(-3 if other.reverse else 6, abs=0.51)
        with pytest.raises(RecipeError, match="recode: true"):
            codec_motion(other, 4, recode=False)
    assert middle(codec_motion(film, 4, size=(256, 192))[0][1])[0] == pytest.approx(6, abs=0.51), (
        "at the size asked for"
    )
    later, _ = codec_motion(Film.of(film, start=0.5), 4)
    assert not later[0].any() and middle(later[1])[0] == pytest.approx(3, abs=0.51)


def test_a_still_does_not_move() -> None:
    flow, notes = codec_motion(Film.of(filming.drifting(1)[0]), 5)
    assert flow.shape == (5, 2, 96, 128) and not flow.any() and notes == ()


def test_videocomposers_rate() -> None:
    assert [videocomposer_fps(s) for s in (10, 4.1, 4, 2, 0.5)] == [4, 4, 5, 9, 33]


# Dense flow -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("drift", DRIFTS)
def test_flow_leads_back_to_the_frame_before(drift: tuple[int, int]) -> None:
    frames = filming.drifting(4, *drift)
    flow = optical_flow(frames)
    assert flow.shape == (4, 2, 96, 128) and not flow[0].any()
    for k in (1, 2, 3):
        assert middle(flow[k]) == pytest.approx(drift, abs=0.05)
        before = taken_from(frames[k - 1], flow[k])
        assert filming.apart(before[16:-16, 16:-16], np.asarray(frames[k].convert("L"))[16:-16, 16:-16]) < 1
        assert filming.apart(frames[k - 1], frames[k]) > 10


def taken_from(image: Any, field: np.ndarray) -> np.ndarray:
    """The picture at p - field(p)."""
    grey = torch.from_numpy(np.asarray(image.convert("L"), np.float32))[None, None]
    h, w = field.shape[1:]
    y, x = np.mgrid[:h, :w] + 0.5
    at = np.stack([(x - field[0]) / w * 2 - 1, (y - field[1]) / h * 2 - 1], -1).astype(np.float32)
    return F.grid_sample(grey, torch.from_numpy(at)[None], padding_mode="border", align_corners=False)[0, 0].numpy()


def test_measured_and_drawn_motion_agree() -> None:
    """A picture that was really zoomed and panned: the same numbers, at the later frame's pixels."""
    big = Image.fromarray(filming.texture()[:240, :320])
    drawn = drawn_motion([], 2, 240, 320, Camera(zoom=1.12, pan=(0.01, -0.01)))[1]
    zoomed = Image.fromarray(taken_from(big, drawn).clip(0, 255).astype(np.uint8))
    wrong = np.abs(optical_flow([big, zoomed])[1] - drawn)[:, 24:-24, 24:-24]
    assert np.hypot(*drawn).max() > 15 and np.median(wrong) < 0.1 and np.percentile(wrong, 90) < 0.3


def test_flow_of_specks_is_refused() -> None:
    with pytest.raises(RecipeError, match="8 x 8 px"):
        optical_flow([Image.new("L", (8, 8))] * 2)


@pytest.mark.parametrize("shape", [(96, 128), (128, 96), (50, 37), (300, 300)])
def test_fitted_is_torchvisions_resize_and_crop(shape: tuple[int, int]) -> None:
    flow = np.random.default_rng(0).normal(size=(2, 2, *shape)).astype(np.float32)
    h, w = shape
    tall, wide = (64, int(64 * w / h)) if h <= w else (int(64 * h / w), 64)
    big = F.interpolate(torch.from_numpy(flow), (tall, wide), mode="bilinear", align_corners=False)
    top, left = round((tall - 64) / 2), round((wide - 64) / 2)
    expected = big[..., top : top + 64, left : left + 64].numpy()
    assert fitted_motion(flow, 64, 64) == pytest.approx(expected, abs=1e-4)
    assert fitted_motion(flow, 64, 64, scaled=True) == pytest.approx(expected * 64 / min(shape), abs=1e-4)


def test_sparse_is_one_vector_a_block() -> None:
    flow = np.ones((3, 2, 96, 128), np.float32)
    kept = sparse_motion(flow)
    assert kept[0, 0].sum() == 6 * 8 and kept[:, :, 8, 24].all()


# Drawn ------------------------------------------------------------------------------------------------------------

THINGS: dict[str, Drawn] = {
    "right": arrow((0.2, 0.5), (0.8, 0.5)),
    "up": arrow((0.5, 0.9), (0.5, 0.1), radius=0.2),
    "smoothly": arrow((0.1, 0.1), (0.7, 0.9), ease="smooth"),
    "a corner": Path(points=[(0.2, 0.2), (0.8, 0.2), (0.8, 0.9)], radius=0.1),
}


@pytest.mark.parametrize("name", THINGS)
def test_a_thing_follows_its_path(name: str) -> None:
    """Carried by the field, a point that starts at its centre ends where it was drawn to."""
    thing, frames, h, w = THINGS[name], 16, 96, 144
    flow = drawn_motion([thing], frames, h, w)
    assert flow.shape == (frames, 2, h, w) and not flow[0].any()
    at = np.array(thing.way[0]) * (w, h)
    for k in range(1, frames):
        here = np.array(thing.at(k / (frames - 1))) * (w, h)
        x, y = np.minimum(here.astype(int), (w - 1, h - 1))
        at = at + flow[k, :, y, x]
        assert at == pytest.approx(here, abs=0.01)
        far = np.hypot(*(np.mgrid[:h, :w][::-1] + 0.5 - here[:, None, None])) > (thing.radius or 0.15) * h
        assert not flow[k][:, far].any(), "elsewhere nothing moves"
    assert at == pytest.approx(np.array(thing.way[-1]) * (w, h), abs=0.01)


def test_even_and_eased_speed() -> None:
    def speeds(**fields: Any) -> np.ndarray:
        flow = drawn_motion([arrow((0.2, 0.5), (0.8, 0.5), **fields)], 11, 32, 100)
        return flow[1:, 0].max((1, 2))

    assert speeds() == pytest.approx(np.full(10, 6), abs=0.05)
    smooth = speeds(ease="smooth")
    assert smooth[0] < 2 < 8 < smooth[5] and smooth == pytest.approx(smooth[::-1], abs=0.1)


def test_a_region_moves_as_a_whole() -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[20:40, 8:24] = 255
    flow = drawn_motion([arrow((0.25, 0.5), (0.75, 0.5), region=Image.fromarray(mask))], 5, 64, 64)
    for k in range(1, 5):
        moving = flow[k, 0] > 4
        rows, columns = np.where(moving.any(1))[0], np.where(moving.any(0))[0]
        assert (rows[0], rows[-1]) == (20, 39) and (columns[0], columns[-1]) == (8 + 8 * k, 23 + 8 * k)
        assert flow[k, 0].max() == pytest.approx(8, abs=0.01)


@pytest.mark.parametrize(
    "camera", [Camera(pan=(0.25, 0)), Camera(pan=(0, -0.1)), Camera(zoom=1.5), Camera(pan=(0.1, 0.1), zoom=0.7)]
)
def test_the_camera_moves_everything(camera: Camera) -> None:
    """A point of the scene, followed through the field, ends where the whole move puts it."""
    h, w, frames = 64, 96, 9
    flow = drawn_motion([], frames, h, w, camera)
    centre, size = np.array([w / 2, h / 2]), np.array([w, h])
    start = np.array([50.5, 30.5])
    at = start
    for k in range(1, frames):
        done = k / (frames - 1)
        at = centre + camera.zoom**done * (start - centre) - done * np.array(camera.pan) * size
        before = (k - 1) / (frames - 1)
        was = centre + camera.zoom**before * (start - centre) - before * np.array(camera.pan) * size
        x, y = at - 0.5
        x0, y0 = int(x), int(y)
        fx, fy = x - x0, y - y0
        corners = flow[k, :, y0 : y0 + 2, x0 : x0 + 2]
        found = (corners * np.outer([1 - fy, fy], [1 - fx, fx])).sum((1, 2))
        assert found == pytest.approx(at - was, abs=1e-3)
    assert (at[0] < start[0]) == (camera.pan[0] > 0), "looking to the right, things drift to the left"


def test_things_and_camera_share_the_canvas() -> None:
    flow = drawn_motion([arrow((0.5, 0.5), (0.5, 0.9))], 5, 64, 64, Camera(pan=(0.5, 0)))
    assert flow[1, :, 38, 32] == pytest.approx((0, 6.4), abs=0.01) and flow[1, :, 4, 4] == pytest.approx((-8, 0))
    crossing = drawn_motion([arrow((0.3, 0.5), (0.7, 0.5)), arrow((0.7, 0.5), (0.3, 0.5))], 3, 64, 64)
    one = arrow((0.3, 0.5), (0.7, 0.5))
    assert drawn_motion([one, one], 3, 64, 64)[1].max() == pytest.approx(drawn_motion([one], 3, 64, 64)[1].max())
    assert crossing[1, :, 32, 32] == pytest.approx((0, 0), abs=1e-5), "where they meet, their motions are mixed"


class Asking(Strict):
    """Stands for a condition with drawn motion."""

    arrows: tuple[AnyDrawn, ...] = ()
    camera: Camera | None = None


def test_drawn_things_survive_a_recipe() -> None:
    asked = Asking(arrows=({"from": [0.1, 0.2], "to": [0.3, 0.4]}, {"points": [[0, 0], [1, 1]], "ease": "smooth"}))
    said = asked.model_dump(mode="json", exclude_defaults=True)
    assert said["arrows"] == [{"from": [0.1, 0.2], "to": [0.3, 0.4]}, {"points": [[0, 0], [1, 1]], "ease": "smooth"}]
    assert Asking(**said) == asked == Asking(**asked.model_dump())
    assert [type(a) for a in asked.arrows] == [Arrow, Path]


AB = {"from": [0.1, 0.1], "to": [0.5, 0.5]}
BAD: dict[str, tuple[dict[str, Any], str, tuple[str, ...]]] = {
    "outside": ({"arrows": [AB, {**AB, "to": [1.3, 0.4]}]}, "arrows.1.to", ("[1.3, 0.4] lies outside of the canvas", "from 0 (left, top)")),
    "in pixels": ({"arrows": [{**AB, "from": [120, 60]}]}, "arrows.0.from", ("[120, 60]", "not pixels")),
    "negative": ({"arrows": [{"points": [[0, 0], [0.5, -0.1]]}]}, "arrows.0.points.1", ("outside of the canvas",)),
    "nan": ({"arrows": [{**AB, "to": [float("nan"), 0]}]}, "arrows.0.to", ("outside",)),
    "words": ({"arrows": [{**AB, "to": "left"}]}, "arrows.0.to", ("'left' is no point", "Write [x, y]")),
    "digits": ({"arrows": [{**AB, "to": "01"}]}, "arrows.0.to", ("'01' is no point",)),
    "out of this world": ({"arrows": [{**AB, "to": [10**400, 0]}]}, "arrows.0.to", ("is no point",)),
    "no end": ({"arrows": [{"from": [0, 0]}]}, "arrows.0.to", ("required",)),
    "no way": ({"arrows": [{**AB, "to": AB["from"]}]}, "arrows.0", ("never move",)),
    "one point": ({"arrows": [{"points": [[0, 0]]}]}, "arrows.0.points", ("at least 2",)),
    "both": ({"arrows": [{**AB, "radius": 0.1, "region": "a.png"}]}, "arrows.0", ("radius and region", "Keep one")),
    "radius 0": ({"arrows": [{**AB, "radius": 0}]}, "arrows.0.radius", ("greater than 0",)),
    "a typo": ({"arrows": [{**AB, "raduis": 0.1}]}, "arrows.0.raduis", ("Did you mean radius?",)),
    "no such ease": ({"arrows": [{**AB, "ease": "fast"}]}, "arrows.0.ease", ("'linear' or 'smooth'",)),
    "no such kind": ({"arrows": [{"kind": "wiggle"}]}, "arrows.0", ("arrow or path",)),
    "a still camera": ({"camera": {}}, "camera", ("stands still",)),
    "a pan out of this world": ({"camera": {"pan": [1e300, 0]}}, "camera.pan.0", ("less than or equal to 10",)),
    "zoom 0": ({"camera": {"zoom": 0}}, "camera.zoom", ("greater than 0.01",)),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_it_is_a_letter(case: str) -> None:
    fields, field, words = BAD[case]
    with pytest.raises(RecipeError) as caught:
        Asking(**fields)
    assert caught.value.field == field and all(w in caught.value.message for w in words), str(caught.value)


def test_what_only_the_canvas_can_tell() -> None:
    with pytest.raises(RecipeError, match="2 frames") as caught:
        drawn_motion([arrow((0, 0), (1, 1))], 1, 8, 8)
    assert caught.value.field == "frames"
    black = arrow((0, 0), (1, 1), region=Image.new("L", (8, 8)))
    with pytest.raises(RecipeError, match="White is what moves") as caught:
        drawn_motion([arrow((0, 0), (1, 1)), black], 2, 8, 8)
    assert caught.value.field == "1.region"


def test_arrows_can_be_seen() -> None:
    field = np.zeros((2, 64, 64), np.float32)
    field[:, 8, 24] = (-10, 0)
    image = np.asarray(arrows_picture(field))
    assert image.shape == (64, 64, 3) and image[8, 26:34, 0].all() and not image[20:].any()
    on = arrows_picture(field, Image.new("RGB", (128, 128), "white"))
    assert on.size == (128, 128) and on.getpixel((60, 17)) == (255, 0, 0)
    drawn = np.asarray(arrows_picture([THINGS["right"]], size=(100, 50)))
    assert drawn[25, 25:75, 0].all() and not drawn[:10].any()
