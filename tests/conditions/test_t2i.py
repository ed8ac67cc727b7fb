"""T2I-Adapters, styles and CoAdapters in recipes: what is refused, what is drawn, and the laws that every condition keeps."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

import tiny
from infuse import CoAdapter, ControlNet, Inpaint, Recipe, T2IAdapter, T2IStyle
from infuse.encoders.annotators.simple import palette, strokes
from infuse.encoders.coadapter import Fuser
from infuse.encoders.t2i import T2IAdapter as Network
from infuse.encoders.t2i import features_of
from infuse.encoders.t2i_kinds import TASKS, Anatomy, Fusing
from infuse.encoders.t2i_style import StyleAdapter
from infuse.engine.engine import Engine
from infuse.errors import InfuseError, RecipeError, WeightsError
from infuse.ports import Features

FULL, GREY = Anatomy(False, 12, (32, 64), 2), Anatomy(False, 4, (32, 64), 2)
STYLE = "style"


def adapter(numbers: Anatomy = FULL, seed: int = 3) -> Network:
    torch.manual_seed(seed)
    return tiny.randomized(Network(numbers), seed)  # type: ignore[return-value]


def style(context: int = 32, width: int = 48, seed: int = 5) -> StyleAdapter:
    torch.manual_seed(seed)
    return tiny.randomized(StyleAdapter(width, context, 8, 2), seed)  # type: ignore[return-value]


def fuser(trained: bool = True, width: int = 32) -> Fuser:
    torch.manual_seed(6)
    net = Fuser(Fusing(width, 16, (32, 64), 2)).eval().requires_grad_(False)
    return tiny.randomized(net, 6) if trained else net  # type: ignore[return-value]


@cache
def modules() -> dict[str, nn.Module]:
    return {
        "seg": adapter(), "depth": adapter(seed=4), "sketch": adapter(GREY), "style": style(), "other-style": style(64), "wide-style": style(width=40),
        "fuser": fuser(), "plain-fuser": fuser(trained=False), "wide-fuser": fuser(width=64), "edges": tiny.controlnet("sd1", 7),
        "xl": adapter(Anatomy(False, 48, (32, 64, 64), 2)), "three": adapter(Anatomy(False, 12, (32, 64, 64), 2)),
    }  # fmt: skip


@cache
def engine(dtype: torch.dtype = torch.float32) -> Engine:
    return tiny.engine(tiny.base("sd1", dtype=dtype), modules())


def photo(seed: int = 0, size: tuple[int, int] = (32, 32)) -> Image.Image:
    small = np.random.RandomState(seed).randint(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def lines(light: bool = True) -> Image.Image:
    drawn = np.zeros((32, 32, 3), np.uint8)
    drawn[::9], drawn[:, 4::11] = 255, 200
    return Image.fromarray(drawn if light else 255 - drawn)


def asked(*conditions: Any, **fields: Any) -> Recipe:
    plain = {"prompt": "a red cube", "width": 32, "height": 32, "steps": 2, "seed": 1, "guidance": 5.0}
    return Recipe(model="tiny", conditions=conditions, **{**plain, **fields})


def latents(*conditions: Any, dtype: torch.dtype = torch.float32, **fields: Any) -> Tensor:
    return engine(dtype).run(asked(*conditions, **fields)).latents


def said(condition: Any) -> list[str]:
    return [w for w in engine().check(asked(condition)).warnings if w.startswith("conditions.0")]


# ── laws ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def every() -> Mapping[str, Any]:
    member = {"type": "seg", "model": "seg", "image": photo()}
    return {
        "adapter": T2IAdapter(model="seg", image=photo()),
        "style": T2IStyle(model="style", image=photo()),
        "coadapter": CoAdapter(model="fuser", members=(member, {"type": STYLE, "model": "style", "image": photo(1)})),
    }  # fmt: skip


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


# ── letters ─────────────────────────────────────────────────────────────────────────────────────────────────────────

MEMBER = {"type": "seg", "model": "seg", "image": "a"}
LETTERS: dict[str, tuple[Any, type[InfuseError], str, tuple[str, ...]]] = {
    "colour for one channel": (lambda: T2IAdapter(model="sketch", image=photo()), RecipeError, "image", ("coloured", "one channel", "canny")),
    "a film for a picture": (lambda: T2IAdapter(model="seg", film=[photo()] * 3), RecipeError, "film", ("makes pictures",)),
    "sites": (lambda: T2IAdapter(model="seg", image=photo(), sites=(1, 1, 1)), RecipeError, "sites", ("3 factors", "2 features")),
    "invert of canny": (lambda: T2IAdapter(model="seg", image=photo(), annotator="canny", invert=True), RecipeError, "invert", ("Remove invert",)),
    "another base": (lambda: T2IAdapter(model="xl", image=photo()), RecipeError, "model", ("'xl'", "48", "4 (grey) or 12")),
    "a ControlNet": (lambda: T2IAdapter(model="edges", image=photo()), WeightsError, "model", ("'edges'", "no T2I-Adapter")),
    "a style as adapter": (lambda: T2IAdapter(model="style", image=photo()), WeightsError, "model", ("no T2I-Adapter",)),
    "an adapter as style": (lambda: T2IStyle(model="seg", image=photo()), WeightsError, "model", ("no style adapter",)),
    "another family's style": (lambda: T2IStyle(model="other-style", image=photo()), RecipeError, "model", ("64", "32")),
    "another eye": (lambda: T2IStyle(model="wide-style", image=photo()), WeightsError, "image_encoder", ("40", "48")),
    "a negative style": (lambda: T2IStyle(model="style", image=photo(), weight=-1), RecipeError, "weight", ("0 or more",)),
    "no fuser": (lambda: CoAdapter(model="seg", members=(MEMBER | {"image": photo()},)), WeightsError, "model", ("no fuser", "members")),
    "another family's fuser": (lambda: CoAdapter(model="wide-fuser", members=(MEMBER | {"image": photo()},)), RecipeError, "model", ("64", "32")),
    "nobody speaks": (lambda: CoAdapter(model="fuser", members=(MEMBER | {"image": photo(), "weight": 0},)), RecipeError, "members", ("weight 0",)),
    "a member's hint": (lambda: CoAdapter(model="fuser", members=(MEMBER | {"model": "sketch", "image": photo()},)), RecipeError, "members.0.image", ("one channel",)),
    "a member's film": (lambda: CoAdapter(model="fuser", members=({"type": "seg", "model": "seg", "film": [photo()] * 3},)), RecipeError, "members.0.film", ("one picture",)),
    "a member of other levels": (lambda: CoAdapter(model="fuser", members=(MEMBER | {"model": "three", "image": photo()},)), RecipeError, "members.0.model", ("64, 64", "32, 64")),
}  # fmt: skip


@pytest.mark.parametrize("case", LETTERS)
def test_it_is_a_letter(case: str) -> None:
    make, error, field, says = LETTERS[case]
    with pytest.raises(error) as letter:
        engine().check(asked(make()))
    assert letter.value.field == f"conditions.0.{field}", letter.value
    assert all(word in letter.value.message for word in says), letter.value


def test_an_unknown_type_is_a_letter() -> None:
    with pytest.raises(RecipeError, match="members.0.type.*sketch.*openpose"):
        asked({"kind": "coadapter", "model": "fuser", "members": [MEMBER | {"type": "hed", "image": photo()}]})


def test_grey_pictures_and_the_negative_of_a_drawing() -> None:
    grey = photo().convert("L").convert("RGB")
    assert said(T2IAdapter(model="sketch", image=grey)) == []
    (warning,) = said(T2IAdapter(model="sketch", image=lines(light=False)))
    assert "Set invert: true" in warning


# ── files ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_from_files(tmp_path: Path) -> None:
    """The original's .pth, wrapped, and diffusers' folder are one adapter; a silent file change is seen."""
    tensors = {k: t.clone() for k, t in adapter().state_dict().items()}
    folder = tmp_path / "folder"
    folder.mkdir()
    save_file(tensors, folder / "diffusion_pytorch_model.safetensors")
    (folder / "config.json").write_text('{"_class_name": "T2IAdapter", "adapter_type": "full_adapter"}')
    original = {
        k.removeprefix("adapter.").replace("body.1.", "body.x.").replace("resnets.", ""): t for k, t in tensors.items()
    }
    original = {
        k.replace("body.0.", "body.", 1).replace("body.x.in_conv", "body.2.in_conv"): t for k, t in original.items()
    }
    original = {k.replace("body.x.0.", "body.2.").replace("body.x.1.", "body.3."): t for k, t in original.items()}
    torch.save({"adapter": original}, tmp_path / "sketchy.pth")
    right = latents(T2IAdapter(model="seg", image=photo()))
    for place in (folder, tmp_path / "sketchy.pth"):
        assert torch.allclose(latents(T2IAdapter(model=str(place), image=photo())), right, atol=1e-5), place
    styled, fused = tmp_path / "style.safetensors", tmp_path / "fuser.safetensors"
    save_file({k: t.clone() for k, t in modules()["style"].state_dict().items()}, styled)
    save_file({k: t.clone() for k, t in modules()["fuser"].state_dict().items()}, fused)
    own = latents(T2IStyle(model="style", image=photo()))
    assert torch.allclose(latents(T2IStyle(model=str(styled), image=photo())), own, atol=1e-5)
    members = (
        {"type": "seg", "model": str(folder), "image": photo()},
        {"type": STYLE, "model": str(styled), "image": photo(1)},
    )
    named = ({"type": "seg", "model": "seg", "image": photo()}, {"type": STYLE, "model": "style", "image": photo(1)})
    found = latents(CoAdapter(model=str(fused), members=members))
    assert torch.allclose(found, latents(CoAdapter(model="fuser", members=named)), atol=1e-5)
    save_file({k: 2 * t for k, t in tensors.items()}, folder / "diffusion_pytorch_model.safetensors")
    assert not torch.allclose(latents(CoAdapter(model=str(fused), members=members)), found, atol=1e-4)


def test_a_recipe_survives() -> None:
    recipe = asked(*every().values())
    assert Recipe.load(recipe.dump()).digest == recipe.digest
