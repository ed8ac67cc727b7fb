"""One condition for every kind of ControlNet: what it refuses, what it warns of, and what its branch is shown."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import beside_nets
import numpy as np
import pytest
import torch
from PIL import Image
from some import some

import tiny
from infuse import ControlNet, Recipe
from infuse.conditions.controlnet import types
from infuse.encoders.kit import Kit
from infuse.engine.engine import Engine
from infuse.errors import InfuseError, RecipeError
from infuse.media.films import Film
from infuse.ports import Residual
from infuse.weights.estimate import grown

SIDE = 32


def photo(seed: int = 0, width: int = SIDE, height: int = SIDE) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def half() -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[:, SIDE // 2 :] = 255
    return mask


@cache
def engine(family: str = "sdxl") -> Engine:
    names = ("plain", "my_inpaint", "my_shuffle", "my_canny")
    unet = beside_nets.unet(family)
    modules: dict[str, Any] = {"xs": beside_nets.xs(family), **{n: beside_nets.control(unet, 7) for n in names}}
    if family == "sdxl":
        modules |= {"union": beside_nets.union(like=unet), "six": beside_nets.union(types=6, like=unet)}
    modules["other"] = tiny.controlnet(family, 7)
    return tiny.engine(beside_nets.base(family), modules)


def letter(family: str = "sdxl", **fields: Any) -> str:
    with pytest.raises(InfuseError) as caught:
        engine(family).check(Recipe(prompt="x", conditions=(ControlNet(**{"image": photo(), **fields}),)))
    return str(caught.value)


def checked(family: str = "sdxl", **fields: Any) -> Any:
    return engine(family).check(Recipe(prompt="x", conditions=(ControlNet(**{"image": photo(), **fields}),)))


def routed(model: str, **fields: Any) -> Any:
    return next(route for where, _, route in checked(model=model, **fields).routes if where == "conditions.0")


def entry(model: str, family: str = "sdxl", size: tuple[int, int] = (SIDE, SIDE), **fields: Any) -> Residual:
    store = engine(family).store
    kit = Kit(store.base("tiny"), size, store)
    sides = ControlNet(**{"model": model, "image": photo(), **fields}).encode(kit)
    return sides.on.residuals[0]  # type: ignore[return-value]


LETTERS: Mapping[str, tuple[dict[str, Any], str]] = {
    "no type": ({"model": "union"}, "conditions.0.type: this field is required.*openpose \\(0\\), depth \\(1\\)"),
    "unknown type": ({"model": "union", "type": "dreams"}, "conditions.0.type: no type of map is called 'dreams'"),
    "too high": ({"model": "union", "type": 8}, "conditions.0.type: 'union' knows 8 types, and 8 is none"),
    "ProMax's": ({"model": "six", "type": "tile"}, "conditions.0.type: 'six' knows 6 types.*A ProMax file has 8"),
    "below": ({"model": "six", "type": -1}, "conditions.0.type: 'six' knows 6 types"),
    "one kind": ({"model": "plain", "type": "canny"}, "conditions.0.type: 'plain' is a ControlNet, which knows one kind"),
    "sites of XS": ({"model": "xs", "sites": (1.0,) * 7}, "conditions.0.sites: 'xs' is a ControlNet-XS.*applies_to: prompt"),
    "mode of XS": ({"model": "xs", "mode": "control"}, "conditions.0.mode: 'xs' is a ControlNet-XS"),
    "pool of a union": ({"model": "union", "type": 0, "pool": True}, "conditions.0.pool: 'union' is a ControlNet-Union"),
    "sites": ({"model": "plain", "sites": (1.0, 2.0)}, "conditions.0.sites: 2 factors, but sdxl has 7 sites"),
    "option": ({"model": "plain", "annotator": "canny", "options": {"gamma": 1}}, "options: annotator canny has no option 'gamma'. It has: low, high"),
    "range": ({"model": "plain", "annotator": "luminance", "options": {"gamma": 3}}, "options: gamma of luminance lies between 0.1 and 2"),
    "other base": ({"model": "other"}, "conditions.0.model: 'other' is a ControlNet of a base with 4 skips.*sdxl.* has 6"),
    "nothing drawn": ({"model": "plain", "options": {"low": 1}}, "options: it is an annotator's"),
    "nobody looks": ({"model": "plain", "resolution": 64}, "resolution: it is an annotator's"),
    "turned over twice": ({"model": "plain", "annotator": "scribble", "invert": True}, "invert: scribble draws light on dark"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("case", LETTERS)
def test_what_means_nothing_is_a_letter(case: str) -> None:
    import re

    fields, words = LETTERS[case]
    found = letter(**fields)
    assert re.search(words, found), found


@pytest.mark.slow
def test_xs_walks_beside_its_own_base_only() -> None:
    wide = tiny.engine(tiny.base("sd1"), {"xs": beside_nets.xs("sd1")})  # one layer in each block
    with pytest.raises(RecipeError, match="two layers a block, and 'sd1' has 1 layers"):
        wide.check(Recipe(prompt="x", conditions=(ControlNet(model="xs", image=photo()),)))
    other = tiny.engine(beside_nets.base("sdxl"), {"xs": beside_nets.xs("sd1")})
    with pytest.raises(RecipeError, match="conditions.0.model: 'xs' was trained for"):
        other.check(Recipe(prompt="x", conditions=(ControlNet(model="xs", image=photo()),)))


@pytest.mark.parametrize(("said", "number"), [
    ("openpose", 0), ("DW Pose", 0), ("depth", 1), ("hed/pidi/scribble/ted", 2), ("soft-edge", 2), ("SoftEdge", 2), ("lineart", 3),
    ("canny/lineart/anime_lineart/mlsd", 3), ("normal", 4), ("segment", 5), ("tile", 6), ("repaint", 7), ("3", 3), (5, 5), ("auto", None),
])  # fmt: skip
def test_types_by_all_names(said: str | int, number: int | None) -> None:
    assert types.number(said, 8, "u") == number


@pytest.mark.slow
def test_a_union_is_told_its_type() -> None:
    assert entry("union", type="depth").vector.tolist() == [0, 1, 0, 0, 0, 0, 0, 0]  # type: ignore[union-attr]
    assert entry("union", annotator="canny").vector.tolist() == [0, 0, 0, 1, 0, 0, 0, 0]  # type: ignore[union-attr]
    assert entry("union", type="auto").vector.tolist() == [0.0] * 8  # type: ignore[union-attr]
    assert entry("six", type=5).vector.tolist() == [0, 0, 0, 0, 0, 1]  # type: ignore[union-attr]
    assert entry("plain").vector is None
    assert routed("union", type="depth").note == "mode balanced, type depth (1)"


@pytest.mark.slow
def test_a_hole_is_minus_one_and_black_for_a_union() -> None:
    picture = np.asarray(photo(), np.float32) / 255
    known, hole = picture[:, : SIDE // 2], slice(SIDE // 2, None)
    plain, union = entry("my_inpaint", hole=half()).hint, entry("union", hole=half()).hint
    assert isinstance(plain, torch.Tensor) and isinstance(union, torch.Tensor)
    assert (plain[:, :, hole] == -1).all() and (union[:, :, hole] == 0).all()
    for hint in (plain, union):
        np.testing.assert_allclose(hint[:, :, : SIDE // 2].permute(1, 2, 0).numpy(), known, atol=1e-6)
    assert entry("union", hole=half()).vector.argmax() == 7  # type: ignore[union-attr]


def test_a_hole_is_what_the_picture_does_not_reach_either() -> None:
    """Resize and fill of an inpainting unit: the bars are to be painted, too."""
    none = np.zeros((SIDE, SIDE // 2), np.uint8)
    none[0, 0] = 255
    hint = entry("my_inpaint", image=photo(0, SIDE // 2), hole=none, fit="pad").hint
    assert isinstance(hint, torch.Tensor)
    assert (hint[:, :, : SIDE // 4] == -1).all() and (hint[:, :, -SIDE // 4 :] == -1).all()
    assert (hint[:, 1:, SIDE // 4 : 3 * SIDE // 4] >= 0).all()


def test_holes_are_warned_of() -> None:
    said = checked(model="my_inpaint").warnings
    assert any("Give the mask as hole" in w for w in said), said
    assert any("was not trained on holes" in w for w in checked(model="my_canny", hole=half()).warnings)
    assert not any("hole" in w for w in checked(model="plain", hole=half()).warnings)  # nobody says what it hears
    assert any("Give the mask as hole" in w for w in checked(model="union", type="inpaint").warnings)


@pytest.mark.slow
def test_a_shuffle_model_pools_by_its_name_or_by_a_field() -> None:
    """Pooling cannot be told by tensors; a pooled branch is one twin, so that its rows stay together."""
    plain, named, asked = entry("my_shuffle", pool=False), entry("my_shuffle"), entry("plain", pool=True)
    pooled = [e.branch.config["global_pool_conditions"] for e in (plain, named, asked)]  # type: ignore[index, union-attr]
    assert pooled == [False, True, True]
    assert entry("my_shuffle").branch is named.branch and entry("plain").branch is not asked.branch
    assert next(named.branch.parameters()) is next(plain.branch.parameters())
    store = engine().store
    sides = ControlNet(model="plain", image=photo(), pool=True).encode(Kit(store.base("tiny"), (SIDE, SIDE), store))
    assert sides.on and not sides.off
    assert (
        routed("my_shuffle").one_sided
        and not routed("my_shuffle", pool=False).one_sided
        and not routed("plain").one_sided
    )


@pytest.mark.slow
def test_a_union_from_diffusers_is_asked_as_ours() -> None:
    from diffusers import ControlNetUnionModel

    theirs = ControlNetUnionModel.from_config(beside_nets.union().config)
    ours = tiny.engine(tiny.base("sdxl"), {"u": theirs.eval()})
    run = ours.run(Recipe(prompt="x", width=16, height=16, steps=1, conditions=(ControlNet(model="u", image=photo(), type=1),)))  # fmt: skip
    assert torch.isfinite(run.latents).all()


def test_fit_pads_with_the_colour_of_the_rim() -> None:
    grey = Image.new("RGB", (SIDE // 2, SIDE), (51, 102, 204))
    hint = entry("plain", image=grey, fit="pad").hint
    assert isinstance(hint, torch.Tensor)
    torch.testing.assert_close(hint[:, 0, 0], torch.tensor([0.2, 0.4, 0.8]))


def test_memory_of_a_control_lora_is_that_of_what_it_becomes() -> None:
    assert grown({"a.up": (64, 2), "a.down": (2, 32), "b.weight": (10,)}) == 64 * 32 + 10
    conv = {"c.lora_B.weight": (8, 2, 1, 1), "c.lora_A.weight": (2, 4, 3, 3)}
    assert grown(conv) == 8 * 4 * 9


def test_auto_draws_what_a_union_is_told_that_it_is_shown() -> None:
    drawn = [
        ControlNet(model="union", image=photo(), type=t, annotator="auto").drawn("union", {}, photo())[0]
        for t in ("canny", 1)
    ]
    assert drawn == ["canny", "none"]


def test_other_tools_words_for_it() -> None:
    found = ControlNet(
        model="m", image=photo(), module="tile_resample", resize_mode="Crop and Resize", pixel_perfect=True, control_type="tile",  # type: ignore[call-arg]
        control_mode="My prompt is more important",  # type: ignore[call-arg]
    )  # fmt: skip
    assert (found.annotator, found.fit, found.resolution, found.type, found.mode) == ("tile", "crop", "perfect", "tile", "prompt")  # fmt: skip
    assert ControlNet(model="m", image=photo(), pixel_perfect=False).resolution is None  # type: ignore[call-arg]


@pytest.mark.slow
def test_a_twin_leaves_with_the_module_whose_weights_it_has() -> None:
    own = tiny.engine(beside_nets.base("sd1"), {"c": beside_nets.control(beside_nets.unet("sd1"), 7)})
    asked = Recipe(
        prompt="x", width=16, height=16, steps=1, conditions=(ControlNet(model="c", image=photo(), pool=True),)
    )
    own.run(asked)
    kept = len(own.encodings)
    own.store.unload("c")
    assert len(own.encodings) == kept - 1


@pytest.mark.slow
def test_the_hole_of_a_film_is_in_each_of_its_frames() -> None:
    film = Film.of(np.random.default_rng(1).integers(0, 256, (4, SIDE, SIDE, 3), dtype=np.uint8))
    store = tiny.engine(tiny.video(), {"c": tiny.controlnet("sd1", 7)}).store
    kit = Kit(store.base("tiny"), (SIDE, SIDE), store, frames=4)
    (said,) = ControlNet(model="c", film=film, hole=half()).encode(kit).on.residuals
    hint: Any = said.hint  # type: ignore[union-attr]
    assert hint.shape == (3, 4, SIDE, SIDE)
    assert (hint[..., SIDE // 2 :] == -1).all() and (hint[..., : SIDE // 2] >= 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("kind", some(["control", "union", "xs"], quick=["control"]))
def test_a_hint_that_becomes_smaller_than_the_latent_is_a_letter(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside_nets, "HINT", (8, 12, 16))
    unet = beside_nets.unet("sdxl")
    net = {"control": lambda: beside_nets.control(unet, 7), "union": lambda: beside_nets.union(like=unet),
           "xs": lambda: beside_nets.xs.__wrapped__("sdxl")}[kind]()  # fmt: skip
    monkeypatch.undo()
    other = tiny.engine(beside_nets.base("sdxl"), {"deep": net})
    condition = ControlNet(model="deep", image=photo(), **({"type": "depth"} if kind == "union" else {}))
    with pytest.raises(RecipeError, match="makes its map 4 times smaller.* is 2 times smaller.*Choose one") as caught:
        other.check(Recipe(prompt="x", conditions=(condition,)))
    assert caught.value.field == "conditions.0.model"


def test_a_preprocessor_s_name_is_a_type_and_no_truth_is() -> None:
    said = {
        "openpose_full": 0,
        "depth_anything_v2": 1,
        "lineart_coarse": 3,
        "seg_ofade20k": 5,
        "tile_resample": 6,
        "inpaint_only": 7,
    }
    assert {name: types.number(name, 8, "u") for name in said} == said
    for wrong in (True, "depthh", "full_openpose"):
        with pytest.raises(RecipeError, match="type of map") as caught:
            types.number(wrong, 8, "u")
        assert caught.value.field == "type"
