"""All holes of a recipe are one field, whatever brings them; what lies in none of them is kept, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from some import some

import mix
import tiny
from infuse import BrushNet, Inpaint, MaskedVideo, PowerPaint, Recipe
from infuse.engine.engine import Engine
from infuse.engine.holes import kept

SIDE = 32
IMAGE = mix.picture(3)


def box(left: int, right: int) -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[8:24, left:right] = 255
    return mask


A, B = box(2, 12), box(18, 30)
IN_A, IN_B = A > 0, B > 0
OUTSIDE = ~(IN_A | IN_B)


@cache
def base(family: str) -> tiny.Tiny:
    return tiny.base("sd1", {"picture": 4, "nine": 9}[family], torch.float64)


@cache
def brushes() -> dict[str, Any]:
    made = {"brush": tiny.brushnet(), "ppt": tiny.brushnet(generation="v2", seed=33)}
    return {name: tiny.cast(net, torch.float64) for name, net in made.items()}


def engine(family: str = "picture", **options: Any) -> Engine:
    return tiny.engine(base(family), brushes(), own=False, **options)


@contextmanager
def watched(made: Engine) -> Iterator[list[torch.Tensor]]:
    """What the network is shown beside the latent in each evaluation, first row."""
    seen: list[torch.Tensor] = []
    network = made.store.base("tiny").network
    predict = network.predict
    network.predict = lambda batch: (seen.append(batch.channels[0].clone()), predict(batch))[1]  # type: ignore[method-assign,assignment]
    try:
        yield seen
    finally:
        del network.predict


def run(*conditions: Any, family: str = "picture", **fields: Any) -> np.ndarray:
    """(side side 3) pixels of the result."""
    said = {"prompt": "a cube", "steps": 2, "scheduler": "DDIM", "seed": 5} | fields
    return np.asarray(engine(family).run(Recipe(model="tiny", conditions=conditions, **said)).image)


def hole(mask: np.ndarray, **fields: Any) -> Inpaint:
    return Inpaint(image=IMAGE, mask=mask, **fields)


def brush(mask: np.ndarray, **fields: Any) -> BrushNet:
    return BrushNet(model="brush", image=IMAGE, mask=mask, **fields)


def paint(mask: np.ndarray, **fields: Any) -> PowerPaint:
    return PowerPaint(model="ppt", image=IMAGE, mask=mask, **fields)


def original(picture: np.ndarray, where: np.ndarray) -> float:
    """Share of the pixels there that are the original's, to the bit."""
    return float((picture == IMAGE).all(-1)[where].mean())


TWO = {
    "first unpasted": lambda: (hole(A, paste=False), hole(B)),
    "second unpasted": lambda: (hole(B), hole(A, paste=False)),
    "inpaint + brushnet": lambda: (hole(B), brush(A)),
    "brushnet unpasted": lambda: (brush(A, paste=False), hole(B)),
    "two brushnets": lambda: (brush(A), brush(B)),
    "powerpaint": lambda: (paint(A), hole(B)),
    "both kinds": lambda: (paint(A, paste=False), brush(B)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", some(TWO, quick=["second unpasted", "inpaint + brushnet", "both kinds"]))
def test_every_hole_is_open_and_the_rest_is_kept(name: str) -> None:
    made = run(*TWO[name]())
    assert original(made, OUTSIDE) == 1
    assert original(made, IN_A) < 0.2 and original(made, IN_B) < 0.2, "noise repainted: hardly a pixel is what it was"


@pytest.mark.slow
def test_what_holds_does_not_hold_another_s_hole() -> None:
    """A BrushNet's hole on a network of four channels: before, the latent there was put back after each step."""
    made = engine().run(Recipe(model="tiny", steps=2, conditions=(hole(B, paste=False), brush(A, paste=False)))).latents
    alone = engine().run(Recipe(model="tiny", steps=2, conditions=(hole(B, paste=False),))).latents
    known = engine().run(Recipe(model="tiny", steps=2, conditions=(hole(box(0, 1), paste=False),))).latents
    inside = torch.from_numpy(IN_A[::2, ::2].copy())
    assert torch.equal(alone[0][:, inside], known[0][:, inside]), "without the BrushNet it is kept there"
    assert float((made[0][:, inside] - known[0][:, inside]).abs().min()) > 1e-4


@pytest.mark.slow
def test_each_hole_has_its_own_weight() -> None:
    def inside(weight: float) -> torch.Tensor:
        conditions = (hole(A, weight=weight, paste=False), hole(B, paste=False))
        latents = engine().run(Recipe(model="tiny", steps=4, scheduler="DDIM", conditions=conditions)).latents[0]
        return latents[:, torch.from_numpy(IN_A[::2, ::2].copy())]

    closed, ajar, open_ = inside(0.0), inside(0.2), inside(1.0)
    far, near = float((open_ - closed).abs().mean()), float((ajar - closed).abs().mean())
    assert 0 < near < 0.5 * far, f"a hole of weight 0.2 is nearly shut: {near:.3f} of {far:.3f}"


def test_the_field_in_numbers() -> None:
    a, b = torch.tensor([1.0, 0, 0]), torch.tensor([0, 1.0, 0])
    assert kept([(1.0, a, True), (1.0, b, True)]).tolist() == [0, 0, 1]  # type: ignore[union-attr]
    assert kept([(0.2, a, True), (1.0, b, True)]).tolist() == pytest.approx([0.8, 0, 1])  # type: ignore[union-attr]
    assert kept([(0.3, a, True)]).tolist() == pytest.approx([0, 0.3, 0.3])  # type: ignore[union-attr]
    assert kept([(1.0, a, False), (1.0, b, True)]).tolist() == [0, 0, 1]  # type: ignore[union-attr]
    assert kept([(1.0, a, False)]) is None, "nobody holds"


@pytest.mark.slow
def test_holes_of_films_are_one_field_too() -> None:
    frames = np.stack([mix.picture(i) for i in range(4)])
    film = {"film": frames}
    made = tiny.engine(tiny.video(dtype=torch.float64)).run(
        Recipe(
            model="tiny", steps=2, conditions=(MaskedVideo(mask=A, paste=False, **film), MaskedVideo(mask=B, **film))
        )
    )
    for shown, frame in zip(made.frames[0], frames, strict=True):
        same = (np.asarray(shown) == frame).all(-1)
        assert same[OUTSIDE].all() and same[IN_A].mean() < 0.2 and same[IN_B].mean() < 0.2


# ── the ground ──────────────────────────────────────────────────────────────────────────────────────────────────────


def shown(*conditions: Any, seed: int = 5, **fields: Any) -> list[torch.Tensor]:
    """What a network of nine channels is shown beside the latent in each evaluation (5 h w), first row."""
    made, said = engine("nine"), {"steps": 4, "scheduler": "DDIM"} | fields
    with watched(made) as seen:
        made.run(Recipe(model="tiny", seed=seed, conditions=conditions, **said))
    return seen


@pytest.mark.slow
def test_where_an_inpainting_condition_is_silent_the_network_is_shown_gray() -> None:
    nobody = shown()
    half = shown(hole(A, weight={0: 1.0, 0.5: 0.0}, start=0.0))
    ends = shown(hole(A, end=0.5))
    for seen in (half, ends):
        assert torch.equal(seen[-1], nobody[-1]), "the gray latent and a hole everywhere, as without the condition"
    assert not torch.equal(half[0], nobody[0])


@pytest.mark.slow
def test_a_weight_just_below_one_is_just_below_it() -> None:
    whole, nearly = shown(hole(A), steps=2), shown(hole(A, weight=0.999999), steps=2)
    assert max(float((a - b).abs().max()) for a, b in zip(whole, nearly, strict=True)) < 1e-4


@pytest.mark.slow
def test_the_ground_does_not_share_the_picture_s_randomness() -> None:
    """With or without a ground to draw, an ancestral sampler sees the same noise."""
    import infuse.engine.job as jobs

    ancestral = Recipe(model="tiny", steps=3, scheduler="Euler a", conditions=(hole(A, end=0.4, paste=False),))
    noise: list[list[float]] = []
    for covered in (False, True):
        drawn: list[float] = []
        noise.append(drawn)
        randn = torch.randn

        def spy(*args: Any, drawn: list[float] = drawn, randn: Any = randn, **named: Any) -> torch.Tensor:
            out = randn(*args, **named)
            if named.get("generator") is not None and named["generator"].initial_seed() == 0:
                drawn.append(float(out.sum()))
            return out

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, "randn", spy)
            patch.setattr(jobs, "covered", lambda *a, covered=covered: covered)
            engine("nine").run(ancestral)
    assert noise[0] == noise[1] and len(noise[0]) >= 3


@pytest.mark.slow
def test_a_condition_of_one_side_is_drawn_for_as_well() -> None:
    made = run(brush(A, applies_to="negative"))
    assert original(made, ~IN_A) == 1 and original(made, IN_A) < 0.2
    assert not np.array_equal(made, run(brush(A, applies_to="prompt")))


@pytest.mark.slow
def test_a_network_that_is_shown_the_hole_is_shown_all_of_them() -> None:
    """A BrushNet's hole beside an inpainting network of nine channels: both know that nothing is known there."""
    both, turned, union, one = (
        shown(*conditions, steps=1)[0]
        for conditions in ((hole(B), brush(A)), (brush(A), hole(B)), (hole(np.maximum(A, B)),), (hole(B),))
    )
    assert torch.equal(both, union)
    assert not torch.equal(both, one)
    assert torch.equal(turned, union)


@pytest.mark.slow
def test_a_videocomposer_is_told_all_holes_of_its_film() -> None:
    frames = np.stack([mix.picture(i) for i in range(4)])
    made = tiny.engine(tiny.videocomposer(dtype=torch.float64))
    one, two, both = (MaskedVideo(film=frames, mask=m, paste=False) for m in (A, B, np.maximum(A, B)))
    with watched(made) as seen:
        for conditions in ((one, two), (both,)):
            made.run(Recipe(model="tiny", steps=1, conditions=conditions))
    assert torch.allclose(seen[0], 2 * seen[1]), "two who say the same"
