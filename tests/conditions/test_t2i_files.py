"""Public T2I files by their headers alone: what each of them wants to be told is said before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import bent
import pytest
from bent import base
from PIL import Image
from some import some
from strangers import sparse

from infuse import Recipe
from infuse.encoders.t2i_kinds import Anatomy
from infuse.engine.engine import Engine
from infuse.errors import RecipeError, WeightsError

pytestmark = pytest.mark.usefixtures("nothing_is_loaded")

WIDTHS = (320, 640, 1280, 1280)
SHAPES: Mapping[str, Mapping[str, tuple[int, ...]]] = {
    "full": Anatomy(False, 192, WIDTHS, 2).shapes(),
    "grey": Anatomy(False, 64, WIDTHS, 2).shapes(),
    "light": Anatomy(True, 192, WIDTHS, 4).shapes(),
    "xl": Anatomy(False, 768, WIDTHS, 2).shapes(),
}


def blocks(n: int, width: int) -> dict[str, tuple[int, ...]]:
    """CLIP's blocks under the originals' names."""
    inside = {
        "attn.in_proj_weight": (3 * width, width), "attn.in_proj_bias": (3 * width,), "attn.out_proj.weight": (width, width), "attn.out_proj.bias": (width,),
        "ln_1.weight": (width,), "ln_1.bias": (width,), "ln_2.weight": (width,), "ln_2.bias": (width,), "mlp.c_fc.weight": (4 * width, width),
        "mlp.c_fc.bias": (4 * width,), "mlp.c_proj.weight": (width, 4 * width), "mlp.c_proj.bias": (width,),
    }  # fmt: skip
    norms = {f"ln_{n}.{e}": (width,) for n in ("pre", "post") for e in ("weight", "bias")}
    return {f"transformer_layes.{i}.{k}": s for i in range(n) for k, s in inside.items()} | norms


@pytest.fixture
def at(tmp_path: Path) -> Path:
    for name, shapes in SHAPES.items():
        sparse(tmp_path / f"{name}.safetensors", shapes)
    half = {k: s for i, (k, s) in enumerate(SHAPES["full"].items()) if i % 2 == 0}
    sparse(tmp_path / "half.safetensors", half)
    sparse(tmp_path / "style.safetensors", {"style_embedding": (1, 8, 1024), "proj": (1024, 768), **blocks(3, 1024)})
    fuser: dict[str, tuple[int, ...]] = {
        "task_embedding": (16, 768),
        "positional_embedding": (4, 768),
        "seq_proj": (768, 768),
    }
    for i, c in enumerate(WIDTHS):
        fuser |= {f"spatial_feat_mapping.{i}.1.weight": (768, c), f"spatial_feat_mapping.{i}.1.bias": (768,)}
        fuser |= {f"spatial_ch_projs.{i}.weight": (c, 768), f"spatial_ch_projs.{i}.bias": (c,)}
    sparse(tmp_path / "fuser.safetensors", fuser | blocks(3, 768))
    Image.new("L", (512, 512)).save(tmp_path / "map.png")
    (tmp_path / "vit-l").mkdir()
    (tmp_path / "vit-l" / "config.json").write_text('{"hidden_size": 1024, "projection_dim": 768, "image_size": 224}')
    return tmp_path


def one(at: Path, model: str, base_model: str = "sd15.safetensors", **fields: Any) -> dict[str, Any]:
    sound = {"kind": "t2i_adapter", "model": str(at / f"{model}.safetensors"), "image": "a.png"}
    return base(conditions=[{**sound, **fields}]) | {"model": base_model}


def member(at: Path, kind: str, model: str) -> dict[str, Any]:
    return {"type": kind, "model": str(at / f"{model}.safetensors"), "image": "a.png"}


SOUND: Mapping[str, Any] = {
    "full": lambda at: one(at, "full"), "of inpainting": lambda at: one(at, "full", base_model="sd15-inpaint.safetensors"),
    "light": lambda at: one(at, "light", annotator="color"), "grey": lambda at: one(at, "grey", annotator="canny"),
    "a grey map": lambda at: one(at, "grey", image=str(at / "map.png")), "xl": lambda at: one(at, "xl", base_model="sdxl.safetensors"),
    "style": lambda at: one(at, "style", kind="t2i_style", image_encoder=str(at / "vit-l")),
    "members": lambda at: one(at, "fuser", kind="coadapter", members=[member(at, "depth", "full"), member(at, "style", "style")], image_encoder=str(at / "vit-l")),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", some(SOUND, quick=["members"]))
def test_the_sound_ones_pass(name: str, at: Path) -> None:
    recipe = SOUND[name](at)
    if name == "members":
        del recipe["conditions"][0]["image"]
    report = Engine(device="cpu").check(Recipe.load(recipe))
    assert report.routes[-1][2].port in ("residuals", "context") and report.memory > 1e9
    if name == "members":
        features, tokens = (route for _, _, route in report.routes[-2:])
        assert features.shape.startswith("4 features") and tokens.shape.startswith("8 tokens (768)")


@pytest.mark.parametrize(("make", "kind", "field", "words"), [
    (lambda at: one(at, "grey"), RecipeError, "image", ("coloured", "one channel")),
    (lambda at: one(at, "xl"), RecipeError, "model", ("was made for SDXL", "SD 1.x (context width 768)", "Choose a T2I-Adapter")),
    (lambda at: one(at, "full", base_model="sdxl.safetensors"), RecipeError, "model", ("was made for SD 1.x", "SDXL (context width 2048)")),
    (lambda at: one(at, "half"), WeightsError, "model", ("no whole T2I-Adapter", "Download it again")),
    (lambda at: one(at, "style"), WeightsError, "model", ("style",)),
    (lambda at: one(at, "full", kind="controlnet"), WeightsError, "model", ("a T2I-Adapter", "condition of kind t2i_adapter")),
    (lambda at: one(at, "style", kind="t2i_style", image_encoder="./vit-h"), WeightsError, "image_encoder", ("1024 (ViT-L)", "1280")),
    (lambda at: one(at, "full", sites=[1] * 13), RecipeError, "sites", ("13 factors", "4 features")),
    (lambda at: one(at, "full", mode="guess"), RecipeError, "mode", ("balanced",)),
])  # fmt: skip
def test_it_is_a_letter(at: Path, make: Any, kind: Any, field: str, words: tuple[str, ...]) -> None:
    bent.complains(make(at), kind, f"conditions.0.{field}", words)


def test_a_style_s_eye_lies_beside_its_file(at: Path) -> None:
    (at / "vit-l").rename(at / "image_encoder")
    report = Engine(device="cpu").check(Recipe.load(one(at, "style", kind="t2i_style")))
    assert report.speakers["conditions.0"].image_encoder == str(at / "image_encoder")


def test_half_of_a_fuser_is_a_letter() -> None:
    from infuse.encoders.t2i_kinds import fuser_of

    whole = {"task_embedding": (16, 768), "seq_proj": (768, 768), **{f"spatial_ch_projs.{i}.weight": (w, 768) for i, w in enumerate((320, 640, 1280))}}  # fmt: skip
    assert fuser_of(whole, "x").channels == (320, 640, 1280)
    with pytest.raises(WeightsError, match="no fuser"):
        fuser_of({k: s for k, s in whole.items() if "projs.1" not in k}, "x")
