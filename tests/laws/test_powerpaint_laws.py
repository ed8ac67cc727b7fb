"""PowerPaint and BrushNet beside everything else: the laws, on both generations, with several regions and tasks."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

import mix
import tiny
from infuse import BrushNet, ControlNet, Img2Img, InfuseError, IPAdapter, PowerPaint, Recipe, RecipeError
from infuse.batch import Row, collate
from infuse.encoders.tasks import RUN
from infuse.engine.engine import Engine
from infuse.media.outpaint import Canvas
from infuse.network.walk import Plain, Stroll, head, walk
from infuse.ports import Ports, Tokens

pytestmark = pytest.mark.slow

CLOSE = 1e-10


def box(x0: int, y0: int, x1: int, y1: int, size: int = 32) -> np.ndarray:
    mask = np.zeros((size, size), np.uint8)
    mask[y0:y1, x0:x1] = 255
    return mask


LEFT, RIGHT = box(3, 4, 13, 20), box(18, 6, 29, 25)


@cache
def parts(dtype: torch.dtype) -> tuple[Any, dict[str, Any]]:
    modules: dict[str, Any] = {
        "canny": tiny.controlnet("sd1", 7),
        "face": tiny.adapter("sd1", "plain", 9),
        "brush": tiny.brushnet(generation="v2"),
        "brush-dev": tiny.brushnet(seed=31, generation="dev2"),
        "plain-brush": tiny.brushnet(attention=False, seed=32),
    }
    return tiny.powerpaint1(dtype=dtype), modules


def engine(kind: str = "v1", dtype: torch.dtype = torch.float64, **options: Any) -> Engine:
    one, modules = parts(dtype)
    for name in ("brush", "brush-dev"):
        tiny.cast(modules[name].tasks.model, dtype)
    base = one if kind == "v1" else tiny.base("sd1", dtype=dtype)
    return tiny.engine(base, modules, **options)


def paint(mask: np.ndarray = LEFT, **fields: Any) -> PowerPaint:
    return PowerPaint(**{"image": mix.picture(40), "mask": mask, **fields})


def others() -> tuple[Any, ...]:
    return (
        ControlNet(model="canny", image=mix.picture(1), weight=0.8, end=0.6),
        IPAdapter(model="face", image=mix.picture(3), weight=0.6, start=0.2),
    )


def recipes(model: str | None) -> list[Recipe]:
    """Rows that carry different tasks, alone and beside other conditions."""
    common = {"model": "tiny", "guidance": 4.0}
    fields = {"model": model} if model else {}
    return [
        Recipe(prompt="a cube", steps=5, scheduler="Euler", conditions=(paint(**fields), *others()), **common),
        Recipe(
            prompt="a ball", negative_prompt="dull", steps=4, scheduler="DDIM", seed=1,
            conditions=(paint(RIGHT, task="shape", fit={0: 0.2, 1: 0.9}, **fields),), **common,
        ),
        Recipe(
            steps=6, scheduler="Euler a", seed=2,
            conditions=(paint(task="removal", **fields), paint(RIGHT, prompt="a cone", **fields), *others()), **common,
        ),
        Recipe(
            prompt="a room", steps=6, scheduler="UniPC", seed=3, width=32, height=32,
            conditions=(
                PowerPaint(image=mix.picture(41, 24), task="outpaint", left=8, top=8, overlap=2, **fields),
                Img2Img(image=mix.picture(5), strength=0.7),
            ),
            **common,
        ),
    ]  # fmt: skip


KINDS = {"v1": None, "v2": "brush", "dev2": "brush-dev"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_alone_equals_together(kind: str) -> None:
    alone = [engine(kind).run(r).latents for r in recipes(KINDS[kind])]
    together = [r.latents for r in engine(kind).run_all(*recipes(KINDS[kind]))]
    worst = max(float((a - b).abs().max()) for a, b in zip(alone, together, strict=True))
    assert worst < CLOSE
    assert len({float(z.abs().sum()) for z in together}) == len(together)


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_does_not_change_when_others_use_the_branch(kind: str) -> None:
    plain = Recipe(model="tiny", prompt="alone", steps=4, scheduler="DDIM", guidance=3.0)
    beside = engine(kind).run_all(plain, recipes(KINDS[kind])[0])[0].latents
    assert float((beside - engine(kind).run(plain).latents).abs().max()) < CLOSE


@pytest.mark.parametrize("kind", ["v1", "v2"])
@pytest.mark.parametrize("i", range(4))
def test_the_order_of_conditions_does_not_matter(kind: str, i: int) -> None:
    recipe = recipes(KINDS[kind])[i]
    turned = recipe.model_copy(update={"conditions": recipe.conditions[::-1]})
    first, second = engine(kind).run(recipe), engine(kind).run(turned)
    assert float((first.latents - second.latents).abs().max()) < CLOSE
    assert np.array_equal(np.asarray(first.image), np.asarray(second.image))


@pytest.mark.parametrize(
    "silent",
    [
        PowerPaint(model="brush", image=mix.picture(40), mask=LEFT, weight=0, task="removal"),
        PowerPaint(model="brush", image=mix.picture(40), mask=LEFT, start=0.99),
        BrushNet(model="plain-brush", image=mix.picture(40), mask=LEFT, weight=0),
    ],
    ids=["weight 0", "too late", "plain, weight 0"],
)
def test_silence_changes_nothing(silent: Any) -> None:
    recipe = Recipe(model="tiny", prompt="a cube", steps=4, scheduler="Euler a", guidance=3.0)
    busy = engine("v2")
    found = busy.run(recipe.model_copy(update={"conditions": (silent,)}))
    bare = engine("v2").run(recipe)
    assert torch.equal(found.latents, bare.latents) and found.image.tobytes() == bare.image.tobytes()
    assert busy.store.base("tiny").network.branch_calls == 0


def test_a_silent_controlnet_changes_nothing_in_the_words_either() -> None:
    silent = ControlNet(model="canny", image=mix.picture(1), weight=0)
    recipe = Recipe(model="tiny", prompt="a cube", steps=4, guidance=3.0, conditions=(paint(),))
    with_it = recipe.model_copy(update={"conditions": (paint(), silent)})
    assert torch.equal(engine().run(with_it).latents, engine().run(recipe).latents)


@pytest.mark.parametrize("attention", [True, False])
def test_a_brushnet_speaks_and_its_weight_counts(attention: bool) -> None:
    model = "brush" if attention else "plain-brush"

    def run(**fields: Any) -> torch.Tensor:
        said = BrushNet(model=model, image=mix.picture(40), mask=LEFT, **fields)
        return engine("v2").run(Recipe(model="tiny", prompt="x", steps=3, guidance=3.0, conditions=(said,))).latents

    found = [run(), run(weight=0.7), run(mode="guess"), run(end=0.5)]
    assert len({float(z.sum()) for z in found}) == 4


def test_guessing_speaks_on_the_prompt_s_side_only() -> None:
    e = engine("v2")
    from infuse.encoders.kit import Kit

    recipe = Recipe(model="tiny", steps=3, conditions=(paint(model="brush", mode="guess"),))
    said = e.encode(e.check(recipe), Kit(e.store.base("tiny"), (32, 32), e.store))["conditions.0"]
    assert not said.off.residuals and said.on.residuals[0].sites is not None
    assert said.on.residuals[0].sites[0] == pytest.approx(0.1) and said.on.residuals[0].sites[-1] == 1
    assert e.run(recipe).latents.isfinite().all()


def test_regions_are_heard_in_their_own_hole() -> None:
    """Words of the right hole change what the right hole's queries read, and nothing in the left one."""
    both = (paint(task="removal"), paint(RIGHT, prompt="a cone"))
    recipe = Recipe(model="tiny", prompt="", steps=3, guidance=3.0, conditions=both)
    e = engine()
    from infuse.encoders.kit import Kit
    from infuse.timetable import PROMPT

    said = e.encode(e.check(recipe), Kit(e.store.base("tiny"), (32, 32), e.store))[PROMPT].on
    assert [t.voice.mask is not None for t in said.context] == [True, True]
    assert torch.equal(said.context[0].voice.mask, torch.from_numpy(LEFT / 255).float())
    hole = next(c.value for c in said.channels if c.slot == "mask")
    assert isinstance(hole, torch.Tensor)
    whole = torch.nn.functional.max_pool2d(torch.from_numpy(np.maximum(LEFT, RIGHT) / 255)[None, None], 2)
    assert torch.equal(hole, whole[0].to(hole)), "the network is shown all holes at once"


def test_outside_of_the_hole_pixels_stay() -> None:
    image = mix.picture(40)
    out = np.asarray(engine().run(Recipe(model="tiny", steps=2, conditions=(paint(),))).image)
    assert np.array_equal(out[LEFT == 0], image[LEFT == 0]) and not np.array_equal(out[LEFT > 0], image[LEFT > 0])
    raw = engine().run(Recipe(model="tiny", steps=2, conditions=(paint(paste=False),))).image
    assert not np.array_equal(np.asarray(raw)[LEFT == 0], image[LEFT == 0])


def test_outpainting_takes_the_canvas_as_the_picture_s_size() -> None:
    said = PowerPaint(image=mix.picture(41, 32), task="outpaint", horizontal=1.5, overlap=3)
    image = mix.picture(41, 32)
    result = engine().run(Recipe(model="tiny", steps=2, conditions=(said,)))
    assert result.image.size == (48, 32)
    assert np.array_equal(np.asarray(result.image)[:, 8 + 3 : 40 - 3], image[:, 3:-3])


@pytest.mark.parametrize(
    ("size", "ratios", "expected", "offset"),
    [((682, 512), (1.5, 1.0), (1023, 512), (170, 0)), ((40, 30), (1, 2), (40, 60), (0, 15))],
)
def test_canvases_of_the_original(size: Any, ratios: Any, expected: Any, offset: Any) -> None:
    canvas = Canvas.around(size, ratios, (0, 0, 0, 0))
    assert (canvas.size, canvas.offset) == (expected, offset)
    hole = np.asarray(canvas.hole(size, 10).image)
    known = np.argwhere(hole == 0)
    if ratios == (1.5, 1.0):
        assert (known[:, 1].min(), known[:, 1].max(), known[:, 0].min(), known[:, 0].max()) == (180, 841, 0, 511)


def test_no_length_of_prompt_pushes_a_task_token_out() -> None:
    texts = tiny.task_texts("v1")
    for n in (1, 60, 64, 66, 75, 80, 200):
        chunks = texts.ids("word " * n, "P_obj")
        assert all(c[-RUN:] == texts.run("P_obj") and len(c) <= 75 for c in chunks)
        assert sum(len(c) - RUN for c in chunks) == n, "and no word is lost"
    first = tiny.task_texts("dev1").ids("word " * 100, "P_obj")
    assert all(c[:RUN] == tiny.task_texts("dev1").run("P_obj") for c in first)


def test_the_walk_equals_the_network_s_own_way_bit_for_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    net = tiny.base("sd1").base.network
    monkeypatch.setattr(net, "plain", True)  # its own forward
    g = torch.Generator().manual_seed(0)
    rows = [
        Row(torch.randn(4, 10, 6, generator=g), torch.tensor(t), Ports(context=(Tokens(torch.randn(7, 32, generator=g)),)).at(0.0))
        for t in (900, 20)
    ]  # fmt: skip
    batch = collate(rows, net.spec)
    with torch.no_grad():
        attention = {"context": batch.context, "decoupled": ()}
        h = walk(net.unet, batch.x, batch.timestep, Plain(batch.context.values, attention), Stroll())
        assert torch.equal(head(net.unet, h), net.predict(batch))


def test_gradients_reach_only_what_is_asked_for() -> None:
    from infuse.network.brushnet import BrushNet as Branch
    from infuse.ports import Residual

    net = copy.deepcopy(tiny.base("sd1").base.network)
    branch = Branch.from_unet(net.unet)
    rows = [Row(torch.randn(4, 8, 8), torch.tensor(500), Ports(
        context=(Tokens(torch.randn(7, 32)),), residuals=(Residual(branch, torch.randn(5, 8, 8), context=(Tokens(torch.randn(9, 32)),)),),
    ))]  # fmt: skip
    net.predict(collate(rows, net.spec)).square().mean().backward()
    assert all(p.grad is None for p in net.unet.parameters())
    assert all(z.weight.grad is not None and z.weight.grad.abs().sum() > 0 for z in branch.zeros())


@pytest.mark.parametrize(
    ("fields", "where", "why"),
    [
        ({"task": "outpaint", "horizontal": 1.5}, "conditions.0.mask", "its own hole"),
        ({"task": "outpaint", "mask": None}, "conditions.0.horizontal", "nothing to"),
        (
            {"task": "outpaint", "mask": None, "horizontal": 1.5, "left": 3},
            "conditions.0.horizontal",
            "either by ratios",
        ),
        ({"task": "outpaint", "mask": None, "horizontal": 1.1, "overlap": 16}, "conditions.0.overlap", "leave nothing"),
        ({"mask": None}, "conditions.0.mask", "needs one"),
        ({"left": 8}, "conditions.0.left", "does not change the canvas"),
        ({"fit": 0.5}, "conditions.0.fit", "only task shape"),
        ({"task": "shape", "fit": 1.5}, "conditions.0.fit", "0 (loose) to 1"),
        ({"weight": 0.5}, "conditions.0.weight", "has no weight"),
        ({"mask": np.zeros((32, 32), np.uint8)}, "conditions.0.mask", "no white pixel"),
        ({"mode": "guess"}, "conditions.0.mode", "only the BrushNet"),
        ({"model": "canny"}, "conditions.0.model", "no BrushNet"),
        ({"model": "plain-brush"}, "conditions.0.model", "without task tokens"),
    ],
)
def test_bad_input_is_a_letter(fields: dict[str, Any], where: str, why: str) -> None:
    with pytest.raises(InfuseError) as caught:
        engine().check(Recipe(model="tiny", conditions=(paint(**fields),)))
    assert caught.value.field == where and why in caught.value.message


@pytest.mark.parametrize(
    ("second", "where"),
    [
        ({"image": mix.picture(77)}, "conditions.1.image"),
        ({"model": "brush"}, "conditions.1.model"),
        ({"paste": False}, "conditions.1.paste"),
    ],
)
def test_regions_that_cannot_paint_together(second: dict[str, Any], where: str) -> None:
    with pytest.raises(RecipeError) as caught:
        engine().check(Recipe(model="tiny", conditions=(paint(), paint(RIGHT, **second))))
    assert caught.value.field == where


def test_a_base_without_task_tokens_says_what_to_do() -> None:
    with pytest.raises(RecipeError) as caught:
        engine("v2").check(Recipe(model="tiny", conditions=(paint(),)))
    assert caught.value.field == "conditions.0.model" and "PowerPaint 2" in caught.value.message
