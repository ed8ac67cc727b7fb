"""A GLIGEN is the same in every file it comes in; what it is not, or not for this base, is a letter before anything is loaded."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from gligens import adapter as in_memory
from gligens import eye, gated, projected
from parity.cases import photo
from safetensors.torch import save_file
from some import some
from torch import Tensor

import tiny
from infuse.conditions import Box, Gligen
from infuse.conditions.gligen import context, feature, fits, fusers, kind_of, named
from infuse.errors import InfuseError, InfuseWarning, RecipeError, WeightsError
from infuse.network.ldm_names import transformer_blocks
from infuse.network.spec import NetworkSpec
from infuse.recipe import Recipe
from infuse.weights.layouts.gligen import load_gligen, read_projection, same_trunk
from infuse.weights.source import Source

State = dict[str, Tensor]
LDM = {
    "time_embedding.linear_1.weight": "time_embed.0.weight",
    "down_blocks.0.attentions.0.norm.weight": "input_blocks.1.1.norm.weight",
    "conv_norm_out.weight": "out.0.weight",
    "conv_in.weight": "input_blocks.0.0.weight",
}


@cache
def spec() -> NetworkSpec:
    return NetworkSpec.from_unet_config("tiny", dict(tiny.unet("sd1").config), vae_factor=2)


@cache
def whole(kind: str) -> State:
    """All of the UNet with gated layers, in diffusers' names."""
    return {k: t.contiguous() for k, t in gated(kind).state_dict().items()}


def alone(state: State) -> State:
    return {k: t for k, t in state.items() if ".fuser." in k or k.startswith("position_net.")}


def original(state: State) -> State:
    """In the names of original checkpoints; of the rest of the UNet only some tensors."""
    blocks = {at.path: name for name, at in transformer_blocks(spec()).items() if name != at.path}
    out = {LDM.get(k, k): t for k, t in state.items() if k.startswith("position_net.") or k in LDM}
    for k, t in state.items():
        block, fuser, leaf = k.partition(".fuser.")
        out |= {f"{blocks[block]}{fuser}{leaf}": t} if fuser else {}
    return out


def comfy(folder: Path, kind: str) -> Path:
    save_file(alone(original(whole(kind))), folder / "x.safetensors")
    return folder / "x.safetensors"


def release(folder: Path, kind: str) -> Path:
    """The .pth of the repository, beside the matrix that it multiplies pictures by."""
    rest = {
        "autoencoder": {"decoder.conv_in.weight": torch.zeros(1)},
        "text_encoder": {},
        "diffusion": {"betas": torch.zeros(3)},
    }
    torch.save(
        {"model": original(whole(kind)), **rest, "config_dict": {"max_iters": 3}},
        folder / "diffusion_pytorch_model.pth",
    )
    if kind == "text_image":
        torch.save(projected().project.weight.T.contiguous(), folder / "projection_matrix")
    return folder / "diffusion_pytorch_model.pth"


def checkpoint(folder: Path, kind: str) -> Path:
    save_file({f"model.diffusion_model.{k}": t for k, t in original(whole(kind)).items()}, folder / "y.safetensors")
    return folder / "y.safetensors"


def unet(folder: Path, kind: str) -> Path:
    save_file(whole(kind), folder / "z.safetensors")
    return folder / "z.safetensors"


def half(folder: Path, kind: str) -> Path:
    save_file({k: t.half() for k, t in whole(kind).items()}, folder / "h.safetensors")
    return folder / "h.safetensors"


def pipeline(folder: Path, kind: str) -> Path:
    """Diffusers' folder, of which a GLIGEN is read."""
    gated(kind).save_pretrained(folder / "unet")
    tiny.vae().save_pretrained(folder / "vae")
    index = {"_class_name": "StableDiffusionGLIGENPipeline", "unet": ["diffusers", "UNet2DConditionModel"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    if kind == "text_image":
        projected().save_pretrained(folder / "image_project")
        eye()[0].save_pretrained(folder / "image_encoder")
    return folder


FORMS: dict[str, Callable[[Path, str], Path]] = {
    "bare UNet keys of what is added": comfy, "the original .pth": release, "a checkpoint's prefix": checkpoint,
    "a whole UNet": unet, "half precision": half, "diffusers' folder": pipeline,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "kind"),
    some(
        [(f, k) for f in FORMS for k in ("text", "text_image")],
        quick=[
            ("bare UNet keys of what is added", "text"),
            ("the original .pth", "text_image"),
            ("a whole UNet", "text"),
        ],
    ),
)
def test_every_form_is_the_same_network(form: str, kind: str, tmp_path: Path) -> None:
    place, base = FORMS[form](tmp_path, kind), tiny.unet("sd1")
    with warnings.catch_warnings():
        warnings.simplefilter("error", InfuseWarning)  # its own base: nothing to say
        found = load_gligen(Source("boxes", place), base, torch.float32)
    close = {"atol": 1e-2, "rtol": 1e-2} if form == "half precision" else {"atol": 0.0, "rtol": 0.0}
    own, theirs = found.state_dict(), in_memory(kind).state_dict()
    for k, t in own.items():
        torch.testing.assert_close(t, theirs[k], **close)
    has = form in ("the original .pth", "diffusers' folder") and kind == "text_image"
    assert own.keys() == {k for k in theirs if has or not k.startswith("image_project")}
    x, tokens = torch.randn(2, 16, 64), torch.randn(2, 30, 32)
    path = "mid_block.attentions.0.transformer_blocks.0"
    block = gated(kind).get_submodule(f"{path}.fuser")
    torch.testing.assert_close(x + found.fused(path, x, tokens, torch.ones(2)), block(x, tokens), atol=2e-2 if close["atol"] else 1e-5, rtol=1e-2)  # fmt: skip


def test_another_base_is_said(tmp_path: Path) -> None:
    base = tiny.unet("sd1")
    base.conv_norm_out.weight.data += 0.5
    with pytest.warns(InfuseWarning, match="trained beside another base"):
        same_trunk(Source("boxes", unet(tmp_path, "text")), base)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        same_trunk(Source("boxes", comfy(tmp_path, "text")), base)  # it brings no UNet to compare


def test_a_matrix_that_is_none_is_a_letter(tmp_path: Path) -> None:
    place = release(tmp_path, "text_image")
    torch.save({"projection": torch.zeros(3)}, tmp_path / "projection_matrix")
    with pytest.raises(WeightsError, match="holds no matrix"):
        read_projection(Source("boxes", place))
    (tmp_path / "projection_matrix").write_bytes(b"<html>")
    with pytest.raises(WeightsError, match="cannot be read as a tensor"):
        read_projection(Source("boxes", place))


# ── from a recipe ───────────────────────────────────────────────────────────────────────────────────────────────────

ASKED = {"prompt": "a red cube", "width": 32, "height": 32, "steps": 4, "seed": 3, "scheduler": "DDIM"}
BALL = Box(box=(0.1, 0.2, 0.5, 0.9), phrase="a green ball")


@pytest.mark.slow
@pytest.mark.parametrize(
    "form", some(["bare UNet keys of what is added", "diffusers' folder"], quick=["bare UNet keys of what is added"])
)
def test_a_file_is_heard_as_the_module_is(form: str, tmp_path: Path) -> None:
    engine = tiny.engine(tiny.base("sd1"), {"boxes": in_memory("text")})
    said = [Gligen(model=m, boxes=(BALL,), end=0.5) for m in (str(FORMS[form](tmp_path, "text")), "boxes")]
    file, module = (engine.run(Recipe(model="tiny", conditions=(c,), **ASKED)).latents for c in said)
    assert torch.equal(file, module)


@pytest.mark.slow
def test_pictures_through_a_folder_with_its_own_eyes(tmp_path: Path) -> None:
    """The base's image encoder is of another width; the folder's is found beside its UNet."""
    engine = tiny.engine(tiny.base("sd1"))
    condition = Gligen(model=str(pipeline(tmp_path, "text_image")), boxes=(Box(box=(0, 0, 1, 0.5), image=photo(3)),))
    (tmp_path / "image_encoder" / "preprocessor_config.json").write_text(json.dumps({
        "image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}))  # fmt: skip
    found = engine.check(Recipe(model="tiny", conditions=(condition,), **ASKED))
    route = next(r for who, _, r in found.routes if who == "conditions.0")
    assert (route.port, route.shape) == ("decoupled", "tokens (60 32) of 1 box") and condition.end == 1


@cache
def both_kinds() -> Any:
    return tiny.engine(tiny.base("sd1"), {"boxes": in_memory("text"), "both": in_memory("text_image")})


def letter(condition: Callable[[], Gligen], engine: Any = None, **fields: Any) -> InfuseError:
    with pytest.raises((RecipeError, WeightsError)) as caught:
        made = Recipe(model="tiny", conditions=(condition(),), **{**ASKED, **fields})
        (engine or both_kinds()).check(made)
    return caught.value


@pytest.mark.parametrize(
    ("fields", "field", "said"),
    [
        ({"boxes": (BALL,) * 31}, "boxes", "31 boxes, and GLIGEN knows 30 at most"),
        ({"boxes": ()}, "boxes", "at least 1"),
        ({"boxes": ({"box": (0.1, 0.2, 0.5, 0.9)},)}, "boxes.0.phrase", "what is in it"),
        ({"boxes": (BALL, {"box": (0.6, 0.2, 0.5, 0.9), "phrase": "x"})}, "boxes.1.box", "has no inside"),
        ({"boxes": ({"box": (10, 20, 30, 31), "phrase": "x"},)}, "boxes.0.box", "unit: pixel"),
        ({"boxes": ({"box": (-0.1, 0.2, 0.5, 0.9), "phrase": "x"},)}, "boxes.0.box", "reaches out of the picture"),
        ({"boxes": ({"box": (10, 20, 30, 40), "phrase": "x"},), "unit": "pixel"}, "conditions.0.boxes.0.box", "32 x 32 px"),
        ({"boxes": ({"box": (0, 0, 1), "phrase": "x"},)}, "boxes.0.box", "required|4|missing"),
        ({"boxes": (BALL,), "weight": -1}, "conditions.0.weight", "less than not at all"),
        ({"boxes": (Box(box=BALL.box, image=photo(1)),)}, "conditions.0.boxes.0.image", "hears phrases only"),
        ({"boxes": (Box(box=BALL.box, image=photo(1)),), "model": "both"}, "conditions.0.image_encoder", "of width 32, and .* gives 24"),
    ],
)  # fmt: skip
def test_letters(fields: dict[str, Any], field: str, said: str) -> None:
    import re

    found = letter(lambda: Gligen(**{"model": "boxes", **fields}))
    assert re.search(said, found.message), found.message
    assert found.field == field or found.field.startswith(f"{field}.")


@pytest.mark.slow
def test_a_base_of_another_family() -> None:
    engine = tiny.engine(tiny.base("sdxl"), {"boxes": in_memory("text")})
    assert (
        "Choose a GLIGEN of the base's family" in letter(lambda: Gligen(model="boxes", boxes=(BALL,)), engine).message
    )


def names(kind: str = "text") -> dict[str, tuple[int, ...]]:
    return named({f"model.{k}": tuple(t.shape) for k, t in original(whole(kind)).items()})


def test_what_its_names_say() -> None:
    own = names()
    assert (kind_of(own, "x"), feature(own), context(own)) == ("text", 32, 32) and kind_of(
        names("text_image"), "x"
    ) == "text_image"
    assert fusers(own)["middle_block.1.transformer_blocks.0"] == 64 and len(fusers(own)) == 7
    fits(own, "x", spec())


@pytest.mark.parametrize(
    ("mark", "said"),
    [
        ("position_net.in_conv.weight", "semantic maps"),
        ("position_net.convnext_tiny_backbone.stem.weight", "reads maps"),
        ("position_net.person_embeddings", "joints of people"),
    ],
)
def test_other_kinds_are_named(mark: str, said: str) -> None:
    rest = {k: s for k, s in names().items() if not k.startswith("position_net.linears")}
    with pytest.raises(WeightsError, match=said):
        kind_of({**rest, mark: (1,)}, "x")


def test_gated_layers_of_another_network() -> None:
    own = names()
    for change, said in (
        ({"input_blocks.7.1.transformer_blocks.0.fuser.linear.weight": (64, 32)}, "no such block"),
        ({"middle_block.1.transformer_blocks.0.fuser.linear.weight": (1280, 32)}, "1280 channels .* has 64 channels"),
    ):
        with pytest.raises(WeightsError, match=said):
            fits({**own, **change}, "x", spec())
    with pytest.raises(WeightsError, match="for 6 of the 7 transformer blocks"):
        fits({k: s for k, s in own.items() if not k.startswith("middle_block")}, "x", spec())


@pytest.mark.slow
def test_pixels_are_fractions_of_the_picture_to_be_made() -> None:
    engine = tiny.engine(tiny.base("sd1"), {"boxes": in_memory("text")})
    boxes = (Box(box=(3.2, 6.4, 16, 28.8), phrase="a green ball"), BALL)
    pixel = Gligen(model="boxes", boxes=boxes[:1], unit="pixel", end=1)
    fraction = Gligen(model="boxes", boxes=boxes[1:], end=1)
    a, b = (engine.run(Recipe(model="tiny", conditions=(c,), **ASKED)).latents for c in (pixel, fraction))
    torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_a_recipe_survives_plain_data() -> None:
    made = Recipe(
        model="tiny", conditions=(Gligen(model="boxes", boxes=(BALL, Box(box=(0, 0, 1, 1), image=photo(2)))),), **ASKED
    )
    again = Recipe(**made.dump())
    assert again == made and again.digest == made.digest and again.conditions[0].end == 1
