"""The hole alone is worked on, or what lies beyond the picture: everything else is as it was."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from openings import FAMILIES, IMAGE, SIDE, asked, base, box, engine, hole, run, spoken, warned
from some import some

import mix
from infuse import BrushNet, ControlNet, Inpaint, IPAdapter, PowerPaint, Text

LARGE = mix.picture(4, 96)[:80]
"""96 x 80 px."""


SMALL = box(50, 62, 30, 44, (96, 80))
"""A hole in LARGE."""


# ── the hole alone ──────────────────────────────────────────────────────────────────────────────────────────────────


def alone(**fields: Any) -> Inpaint:
    return hole(SMALL, LARGE, **({"area": "masked", "padding": 8} | fields))


@pytest.mark.parametrize("family", some(FAMILIES, quick=["four"]))
@pytest.mark.parametrize("blur", some([0, 2], quick=[2]))
def test_the_hole_alone_is_put_back_into_the_picture(family: str, blur: float) -> None:
    made = run(alone(mask_blur=blur), family=family, width=32, height=32)
    assert made.shape == LARGE.shape
    open_ = SMALL > 0
    if blur:
        open_ = np.zeros_like(open_)
        open_[25:49, 45:67] = True
    assert (made[~open_] == LARGE[~open_]).all() and (made[SMALL > 0] != LARGE[SMALL > 0]).mean() > 0.5


@pytest.mark.slow
def test_the_hole_alone_is_the_cut_out_recipe() -> None:
    """At the box's own size nothing is scaled: the same as cutting it out by hand."""
    report = engine().check(asked(alone(padding=9), width=32, height=32))
    assert report.size == (32, 32) and report.after is not None and report.after.frame is not None
    a, b, c, d = report.after.frame.box
    assert (c - a, d - b) == (32, 32) and (a, b) == (40, 21)
    by_hand = run(hole(SMALL[b:d, a:c], LARGE[b:d, a:c]))
    made = run(alone(padding=9), width=32, height=32)
    assert (made[b:d, a:c] == by_hand).all()


@pytest.mark.slow
def test_others_pictures_are_cut_alike() -> None:
    """A hint, a region and a second hole of the picture's size, as if all had been cut by hand; a look is left whole."""
    a, b, c, d = 40, 21, 72, 53
    region, hint = box(0, 60, 0, 80, (96, 80)), mix.picture(9, 96)[:80]
    face = mix.picture(10, 96)[:80]
    other = box(66, 70, 24, 30, (96, 80))

    def everyone(cut: Any) -> tuple[Any, ...]:
        return (ControlNet(model="canny", image=cut(hint)), Text(prompt="a dog", mask=cut(region)),
                IPAdapter(model="face", image=face, mask=cut(region), fit="pad"),
                BrushNet(model="brush", image=cut(LARGE), mask=cut(other)))  # fmt: skip

    size = {"width": 32, "height": 32}
    whole = run(alone(padding=4, mask_blur=0), *everyone(lambda p: p), **size)
    # the box lies around both holes: (46, 20, 74, 48), which is 28 x 28 px
    report = engine().check(asked(alone(padding=4), *everyone(lambda p: p), **size))
    a, b, c, d = report.after.frame.box  # type: ignore[union-attr]
    assert (a, b, c, d) == (46, 20, 74, 48)
    size = {"width": 28, "height": 28}
    whole = run(alone(padding=4), *everyone(lambda p: p), **size)
    part = run(hole(SMALL[b:d, a:c], LARGE[b:d, a:c]), *everyone(lambda p: p[b:d, a:c]), **size)
    assert (whole[b:d, a:c] == part).all()


def test_who_is_of_another_size_is_said() -> None:
    text = warned(alone(), ControlNet(model="canny", image=mix.picture(1, 40)))
    assert "conditions.0.area" not in text
    assert "coarser than the picture" in warned(alone(padding=16), width=16, height=16)
    assert "no room for a box in the shape of 256 x 16 px" in warned(alone(), width=256, height=16)
    assert "conditions.1.image: 40 x 40 px has not the shape of the picture that is repainted (96 x 80 px)" in text


def test_the_hole_alone_is_worked_on_at_the_network_s_size() -> None:
    report = engine().check(asked(alone()))
    assert report.size == (base("four").base.spec.native_size,) * 2


@pytest.mark.parametrize(("width", "height"), some([(64, 16), (16, 64), (8, 8), (37, 51)], quick=[(8, 8)]))
def test_the_hole_alone_at_any_size(width: int, height: int) -> None:
    made = run(alone(), width=width, height=height, steps=1)
    assert made.shape == LARGE.shape and (made[SMALL == 0] == LARGE[SMALL == 0]).all()
    assert (made[SMALL > 0] != LARGE[SMALL > 0]).any()


@pytest.mark.parametrize("kind", some(["soft", "fill", "invert", "colours", "brushnet", "powerpaint"], quick=["soft"]))
def test_the_hole_alone_with_everything_else(kind: str) -> None:
    own = {"image": LARGE, "mask": SMALL, "area": "masked", "padding": 8}
    made = run(
        {
            "soft": lambda: alone(soft=True, mask_blur=2), "fill": lambda: alone(content="fill", strength=0.6),
            "invert": lambda: alone().model_copy(update={"mask": hole(255 - SMALL).mask, "invert": True}),
            "colours": lambda: alone(match_colors=True),
            "brushnet": lambda: BrushNet(model="brush", **own), "powerpaint": lambda: PowerPaint(model="ppt", **own),
        }[kind](), width=32, height=24,
    )  # fmt: skip
    kept = SMALL == 0
    if kind == "soft":
        kept[25:49, 45:67] = False
    assert (made[kept] == LARGE[kept]).all() and (made[34:40, 54:58] != LARGE[34:40, 54:58]).mean() > 0.5


@pytest.mark.slow
def test_the_hole_alone_unpasted_is_a_box() -> None:
    made = run(alone(paste=False), width=32, height=32)
    a, b, c, d = engine().check(asked(alone(), width=32, height=32)).after.frame.box  # type: ignore[union-attr]
    outside = np.ones(SMALL.shape, bool)
    outside[b:d, a:c] = False
    assert (made[outside] == LARGE[outside]).all() and (made[~outside] != LARGE[~outside]).mean() > 0.9


@pytest.mark.slow
def test_a_batch_of_holes_alone() -> None:
    pictures = engine().run(asked(alone(), width=32, height=32, count=2)).images
    alone_ = [run(alone(), width=32, height=32, seed=s) for s in (5, 6)]
    assert all((np.asarray(p) == q).all() for p, q in zip(pictures, alone_, strict=True))


@pytest.mark.slow
def test_a_silent_hole_alone_is_no_hole() -> None:
    size = {"width": SIDE, "height": SIDE}
    assert (run(alone(weight=0.0), **size) == run(**size)).all()


# ── on with the picture ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
@pytest.mark.parametrize("family", some(FAMILIES, quick=["four"]))
def test_any_base_goes_on_with_a_picture(family: str) -> None:
    grown = hole(image=IMAGE, left=12, bottom=7, overlap=2)
    made = run(grown, family=family)
    assert made.shape == (39, 44, 3)
    assert (made[:30, 14:] == IMAGE[:30, 2:]).all()
    assert (made[32:] != 127).mean() > 0.9 and (made[:, :12] != 127).mean() > 0.9


@pytest.mark.slow
def test_a_picture_is_continued_and_filled_at_once() -> None:
    both = hole(box(20, 26), image=IMAGE, right=8, overlap=2)
    made = run(both)
    assert made.shape == (32, 40, 3)
    kept = np.ones((32, 32), bool)
    kept[8:24, 20:26] = kept[:, 30:] = False
    assert (made[:, :32][kept] == IMAGE[kept]).all() and (made[10:22, 22:24] != IMAGE[10:22, 22:24]).mean() > 0.5


def test_ratios_are_those_of_powerpaint() -> None:
    ours, theirs = (
        hole(image=IMAGE, horizontal=1.5),
        PowerPaint(model="ppt", task="outpaint", image=IMAGE, horizontal=1.5),
    )
    a, b = (spoken(one)[-1].on.latent[0].opening for one in (ours, theirs))
    assert torch.equal(a, b)


def test_only_what_is_new_is_worked_on() -> None:
    made = run(hole(image=LARGE, left=10, overlap=4, area="masked", padding=6), width=32, height=32)
    assert made.shape == (80, 106, 3) and (made[:, 14:] == LARGE[:, 4:]).all()
