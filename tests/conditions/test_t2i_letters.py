"""What is wrong with a T2I-Adapter is a letter; its files and recipes are read as they were written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mapped import STYLE, adapter, asked, engine, every, latents, lines, modules, photo
from safetensors.torch import save_file

from infuse import CoAdapter, Recipe, T2IAdapter, T2IStyle
from infuse.errors import InfuseError, RecipeError, WeightsError


def said(condition: Any) -> list[str]:
    return [w for w in engine().check(asked(condition)).warnings if w.startswith("conditions.0")]


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
