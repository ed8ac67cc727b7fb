"""T2I-Adapters, styles and CoAdapters in recipes: what is refused, what is drawn, and the laws that every condition keeps."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from mapped import STYLE, adapter, asked, engine, every, latents, lines, modules, photo
from PIL import Image
from torch import Tensor

import tiny
from infuse import CoAdapter, ControlNet, Inpaint, T2IAdapter, T2IStyle
from infuse.encoders.annotators.simple import palette, strokes
from infuse.encoders.t2i import features_of
from infuse.encoders.t2i_kinds import TASKS
from infuse.engine.engine import Engine
from infuse.ports import Features


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*it will not be heard")
@pytest.mark.parametrize(
    "name", ["adapter", *(pytest.param(n, marks=pytest.mark.slow) for n in ("style", "coadapter"))]
)
def test_weight_and_window(name: str) -> None:
    condition = every()[name]

    def change(**fields: Any) -> Any:
        return type(condition).model_validate(condition.model_dump() | fields)

    whole, nobody = latents(condition), latents()
    assert not torch.allclose(whole, nobody, atol=1e-3)
    assert torch.equal(latents(change(weight=0)), nobody)
    half = latents(change(end=0.5))
    assert not torch.allclose(half, whole, atol=1e-4) and not torch.allclose(half, nobody, atol=1e-4)
    assert not torch.allclose(latents(change(weight=0.5)), whole, atol=1e-4)
    white = Image.new("L", (32, 32), 255)
    assert torch.allclose(latents(change(mask=white)), whole, atol=1e-4)
    left = Image.fromarray(np.where(np.arange(32) < 16, 255, 0).astype(np.uint8)[None].repeat(32, 0))
    assert not torch.allclose(latents(change(mask=left)), whole, atol=1e-3)
    prompt = latents(change(applies_to="prompt"))
    assert torch.equal(prompt, whole) == (name == "style")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adapter", "style", "coadapter"])
def test_the_order_of_conditions_changes_nothing(name: str) -> None:
    condition, control = every()[name], ControlNet(model="edges", image=lines())
    one = latents(condition, control, dtype=torch.float64)
    assert torch.allclose(one, latents(control, condition, dtype=torch.float64), atol=1e-9)
    assert not torch.allclose(one, latents(control, dtype=torch.float64), atol=1e-3)


@pytest.mark.slow
def test_alone_equals_together() -> None:
    """Also in rows beside which nobody has features."""
    recipes = [asked(c) for c in every().values()]
    recipes += [
        asked(),
        asked(T2IAdapter(model="sketch", image=lines(), weight=0.4), T2IAdapter(model="depth", image=photo(2))),
    ]
    sd = engine(torch.float64)
    alone = [sd.run(r).latents for r in recipes]
    tickets = [sd.submit(r) for r in recipes]
    for ticket, one in zip(tickets, alone, strict=True):
        assert torch.allclose(ticket.result().latents, one, atol=1e-10)


def test_with_a_hole_beside_it() -> None:
    hole = Image.fromarray(np.pad(np.full((16, 16), 255, np.uint8), 8))
    start = Inpaint(image=photo(3), mask=hole)
    assert not torch.allclose(latents(start, T2IAdapter(model="seg", image=photo())), latents(start), atol=1e-3)


@pytest.mark.parametrize("size", [(36, 28), *(pytest.param(s, marks=pytest.mark.slow) for s in ((34, 40), (26, 30)))])
def test_any_size(size: tuple[int, int]) -> None:
    found = latents(T2IAdapter(model="seg", image=photo()), width=size[0], height=size[1])
    assert torch.isfinite(found).all() and found.shape[-1] == -(-size[0] // 2)


# ── modes ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_modes_are_factors_and_sides() -> None:
    soft = latents(T2IAdapter(model="seg", image=photo(), mode="prompt"))
    assert torch.equal(soft, latents(T2IAdapter(model="seg", image=photo(), sites=(0.25, 0.62))))
    control = T2IAdapter(model="seg", image=photo(), mode="control")
    assert torch.equal(
        latents(control), latents(T2IAdapter(model="seg", image=photo(), sites=(0.25, 0.62), applies_to="prompt"))
    )
    zeros = latents(T2IAdapter(model="seg", image=photo(), sites=(0, 0)))
    assert torch.allclose(zeros, latents(), atol=1e-5)


@pytest.mark.slow
def test_it_is_asked_once() -> None:
    """A step costs what it costs without: no rows of a branch, and the adapter runs once for the whole run."""
    report = engine().check(asked(T2IAdapter(model="seg", image=photo())))
    assert report.branch_rows == 0
    net = adapter()
    calls: list[int] = []
    net.register_forward_hook(lambda *_: calls.append(1))
    tiny.engine(tiny.base("sd1"), {"seg": net}, own=False).run(asked(T2IAdapter(model="seg", image=photo())))
    assert len(calls) == 1


# ── hints ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def hint(condition: T2IAdapter, channels: int = 3) -> Tensor:
    from infuse.encoders.kit import Kit

    sd = engine()
    return condition.hint(Kit(sd.store.base("tiny"), (32, 32), sd.store), condition.model, channels)


def test_a_palette_has_a_colour_for_each_cell() -> None:
    drawn = palette(photo(1, (128, 192)), 64)
    cells = np.asarray(drawn).reshape(3, 64, 2, 64, 3)
    assert (cells == cells[:, :1, :, :1]).all() and len(np.unique(cells[:, 0, :, 0].reshape(-1, 3), axis=0)) == 6
    assert np.array_equal(np.asarray(palette(drawn, 64)), np.asarray(drawn)), "a palette is one already"
    found = hint(T2IAdapter(model="seg", image=photo(), annotator="color"))  # 8 places of 2 px each
    assert torch.equal(found[:, :16, :16], found[:, :1, :1].expand(3, 16, 16))


def test_a_sketch_is_black_and_white() -> None:
    grey = Image.fromarray(np.tile(np.arange(0, 256, 8, dtype=np.uint8), (32, 1)))
    found = hint(T2IAdapter(model="sketch", image=grey, annotator="sketch"), 1)
    assert found.shape == (1, 32, 32) and torch.equal(found[0, 0], (torch.arange(0, 256, 8) > 127).float())
    assert set(np.unique(np.asarray(strokes(photo())))) <= {0, 255}
    turned = hint(T2IAdapter(model="sketch", image=lines(light=False), annotator="sketch", invert=True), 1)
    assert torch.equal(turned, hint(T2IAdapter(model="sketch", image=lines(), annotator="sketch"), 1))


def test_edges_and_segmentations() -> None:
    assert set(hint(T2IAdapter(model="sketch", image=photo(), annotator="canny"), 1).unique().tolist()) <= {0.0, 1.0}
    colours = Image.fromarray(
        np.repeat([[(255, 0, 0), (0, 255, 0)], [(0, 0, 255), (9, 9, 9)]], 1, 0).astype(np.uint8)
    ).resize((50, 70), 0)
    assert len(np.unique((255 * hint(T2IAdapter(model="seg", image=colours)).numpy()).reshape(3, -1), axis=1).T) == 4


# ── clips ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@cache
def clips() -> Engine:
    return tiny.engine(tiny.video(), modules())


@pytest.mark.slow
def test_a_picture_or_a_film_beside_a_clip() -> None:
    def clip(*conditions: Any) -> Tensor:
        return clips().run(asked(*conditions, frames=4, steps=2)).latents

    still = [photo(7)] * 4
    one, film = clip(T2IAdapter(model="seg", image=photo(7))), clip(T2IAdapter(model="seg", film=still))
    nobody = clip()
    assert torch.allclose(one, film, atol=1e-4) and not torch.allclose(one, nobody, atol=1e-3)
    moving = clip(T2IAdapter(model="seg", film=[photo(i) for i in range(4)]))
    assert not torch.allclose(moving, one, atol=1e-3)
    assert torch.equal(clip(), nobody), "nothing stays in the network"


# ── style ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_style_is_words_of_the_prompt() -> None:
    from infuse.encoders.kit import Kit

    sd = engine()
    kit = Kit(sd.store.base("tiny"), (32, 32), sd.store)
    sides = T2IStyle(model="style", image=[photo(), photo(1)]).encode(kit)
    (tokens,) = sides.on.context
    assert tokens.values.shape == (16, 32) and not sides.off
    eye, prepare = kit.base.image_encoder, kit.base.feature_extractor
    states = eye(prepare(photo(1), return_tensors="pt").pixel_values).last_hidden_state
    torch.testing.assert_close(tokens.values[8:], sd.store.own("style")(states)[0])


# ── CoAdapter ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_an_untrained_fuser_equals_the_members_beside_each_other() -> None:
    members = (
        {"type": "seg", "model": "seg", "image": photo(), "weight": 0.7},
        {"type": "depth", "model": "depth", "image": photo(1)},
    )
    together = latents(CoAdapter(model="plain-fuser", members=members))
    apart = latents(T2IAdapter(model="seg", image=photo(), weight=0.7), T2IAdapter(model="depth", image=photo(1)))
    assert torch.allclose(together, apart, atol=1e-4)
    assert not torch.allclose(latents(CoAdapter(model="fuser", members=members)), apart, atol=1e-3)


@pytest.mark.slow
def test_a_silent_member_is_not_there() -> None:
    one = {"type": "seg", "model": "seg", "image": photo()}
    silent = {"type": "depth", "model": "depth", "image": photo(1), "weight": 0}
    assert torch.equal(
        latents(CoAdapter(model="fuser", members=(one, silent))), latents(CoAdapter(model="fuser", members=(one,)))
    )


def test_a_member_s_weight_is_in_what_the_fuser_hears() -> None:
    from infuse.encoders.kit import Kit

    sd = engine()
    kit = Kit(sd.store.base("tiny"), (32, 32), sd.store)
    members = (
        {"type": "color", "model": "seg", "image": photo(), "weight": 0.5},
        {"type": STYLE, "model": "style", "image": photo(1), "weight": 2},
    )
    sides = CoAdapter(model="fuser", members=members).encode(kit)
    maps = features_of(sd.store.own("seg"), kit.pixels(T2IAdapter(model="seg", image=photo()).image), (0, 1), 2)
    tokens = T2IStyle(model="style", image=photo(1)).encode(kit).on.context[0].values
    right, words = sd.store.own("fuser")([(TASKS.index("color"), tuple(0.5 * m for m in maps)), (5, 2 * tokens)])
    (found,) = sides.on.residuals
    assert isinstance(found, Features)
    for a, b in zip(found.levels, right, strict=True):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(sides.on.context[0].values, words)
    assert not sides.off.context and sides.off.residuals
