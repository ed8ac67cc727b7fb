"""What `infuse identify` says can be used: its lines are a recipe, and a check of it passes on the file it was told of."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import yaml
from PIL import Image
from some import some
from typer.testing import CliRunner

from infuse.cli.app import app
from infuse.conditions import AnyCondition
from infuse.engine.engine import Engine
from infuse.recipe import Recipe
from infuse.weights.kinds import ADVICE, Identity
from infuse.weights.source import Source
from infuse.weights.usage import (
    BASES,
    CONDITIONS,
    FACE,
    MAP,
    MASK,
    PHOTO,
    lines,
    precision,
    recipe,
    report,
    told,
    untold,
)

from . import full, zoo, zoo_more
from .test_identify_zoo import written

CASES = zoo.CASES | zoo_more.CASES
KINDS = {c.model_fields["kind"].default for c in get_args(get_args(AnyCondition)[0])}


@pytest.fixture(autouse=True)
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files that stand for the reader's own, where the recipe is."""
    dots = np.random.default_rng(0).integers(0, 2, (64, 64)).astype("u1") * 255
    for name in (PHOTO, MAP, MASK):
        Image.fromarray(dots).save(tmp_path / name)
    np.save(tmp_path / FACE, np.random.default_rng(0).standard_normal(512).astype("f4") / 512**0.5)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("kind", "variant"), [("base", v) for v in BASES] + list(CONDITIONS))
def test_the_lines_are_a_recipe(kind: str, variant: str) -> None:
    use = recipe(Identity(kind, variant=variant), "./a: b's.safetensors")
    assert use is not None
    again = yaml.safe_load(lines(use))
    assert again == use
    made = Recipe.model_validate({"prompt": "x", **again})
    assert all(c.kind in KINDS for c in made.conditions)
    if kind != "base":
        assert lines(use).startswith("conditions:\n- {kind: ") and lines(use).count("\n") == 2


USED = {
    "ControlNet for SD 1.5, ldm": "sd1", "ControlNet 1.1, stripped": "sd1", "ControlNet for SDXL, small, diffusers": "sdxl", "Union ProMax": "sdxl",
    "Control-LoRA SDXL 128": "sdxl", "Control-LoRA SD 1.5": "sd1", "XS SD 1.5": "sd1", "LLLite SDXL": "sdxl", "LLLite SD 1.5": "sd1", "BrushNet SD 1.5": "sd1",
    "T2I full, original": "sd1", "T2I light, diffusers": "sd1", "T2I XL, original": "sdxl", "GLIGEN text, ComfyUI's": "sd1",
    "GLIGEN text, diffusers": "sd1", "IP-Adapter: FaceID SD 1.5": "sd1", "IP-Adapter: FaceID portrait": "sd1", "IP-Adapter: InstantID or unnorm": "sdxl",
}  # fmt: skip


@pytest.mark.parametrize(
    "case", some(USED, quick=["T2I light, diffusers", "GLIGEN text, ComfyUI's", "IP-Adapter: FaceID portrait"])
)
def test_a_check_of_the_lines_passes(case: str, tmp_path: Path) -> None:
    base = {"sd1": "sd15", "sdxl": "sdxl"}[USED[case]]
    written(tmp_path, zoo.shapes(full.checkpoint(base)), "F16", "base.safetensors")
    written(tmp_path, zoo.shapes(CASES[case].make()), "F16", "it.safetensors")
    said = report(Source("it.safetensors", tmp_path / "it.safetensors"))
    data = {"model": "base.safetensors", "prompt": "x", **yaml.safe_load(said["yaml"])}
    assert Engine("base.safetensors").check(Recipe.model_validate(data)).routes


@pytest.mark.parametrize(
    "base",
    some(
        ["SD 1.5 inpainting", "InstructPix2Pix", "LCM of SD 1.5", "SDXL", "SDXL edit", "x4 upscaler"],
        quick=["InstructPix2Pix"],
    ),
)
def test_a_check_of_a_base_passes(base: str, tmp_path: Path) -> None:
    written(tmp_path, zoo.shapes(CASES[f"{base}, one file"].make()), "BF16", "it.safetensors")
    said = report(Source("it.safetensors", tmp_path / "it.safetensors"))
    assert said["numbers"] == "bf16"
    Engine("it.safetensors").check(Recipe.model_validate(yaml.safe_load(said["yaml"])))


def identify(*words: str) -> Any:
    result = CliRunner().invoke(app, ["identify", *words])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_command_says_what_how_and_what_not(tmp_path: Path) -> None:
    written(tmp_path, zoo.shapes(CASES["T2I full of one channel, original"].make()), "F32", "q.safetensors")
    out = identify("q.safetensors")
    assert re.search(r"^what +a T2I-Adapter \(full\) for SD 1\.x \(context width 768\)$", out, re.M)
    assert re.search(r"^hint channels +1$", out, re.M) and re.search(r"^numbers +fp32, ", out, re.M)
    assert re.search(r"^not told +which kind of map it was trained with$", out, re.M)
    assert out.endswith("\n\nconditions:\n- {kind: t2i_adapter, model: q.safetensors, image: map.png}\n")
    data = json.loads(identify("q.safetensors", "--json"))
    assert (data["kind"], data["family"], data["variant"], data["facts"]["hint channels"]) == (
        "t2i_adapter",
        "sd1",
        "full",
        "1",
    )
    assert data["recipe"]["conditions"][0]["kind"] == "t2i_adapter" and data["untold"]


def test_a_pickle_is_told_as_well(tmp_path: Path) -> None:
    import torch

    torch.save({"string_to_param": {"*": torch.zeros(3, 768)}, "name": "cat", "step": 10}, tmp_path / "a.pt")
    data = json.loads(identify("a.pt", "--json"))
    assert (data["kind"], data["facts"]["tokens"], data["yaml"]) == ("textual_inversion", "3", "")
    torch.save(
        {"image_proj": {"proj.weight": torch.zeros(3072, 4)}, "ip_adapter": {"1.to_k_ip.weight": torch.zeros(3, 768)}},
        tmp_path / "b.bin",
    )
    assert json.loads(identify("b.bin", "--json"))["kind"] == "ip_adapter"


def test_packed_weights_are_said_to_be(tmp_path: Path) -> None:
    state = zoo.shapes(CASES["T2I full, original"].make())
    written(
        tmp_path,
        state | {k.replace("weight", "weight.absmax"): (8,) for k in state if k.endswith("weight")},
        "F16",
        "p.safetensors",
    )
    assert re.search(r"^note +its weights are packed", identify("p.safetensors"), re.M)


def test_headers_are_told_without_torch(tmp_path: Path) -> None:
    written(tmp_path, zoo.shapes(CASES["T2I full, original"].make()), "F16", "q.safetensors")
    asked = "import sys\nfrom infuse.cli.app import app\ntry: app(['identify', 'q.safetensors'])\nexcept SystemExit: pass\nprint('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False" and "T2I-Adapter" in done.stdout


def test_what_is_no_file_is_a_letter() -> None:
    result = CliRunner().invoke(app, ["identify", "./nothing.safetensors"])
    assert result.exit_code == 2 and "was not found" in result.stderr
    result = CliRunner().invoke(app, ["identify", PHOTO])
    assert result.exit_code == 2 and "a picture" in result.stderr


def test_a_pipeline_of_another_family_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "flux"
    for part, case in (("transformer", "FLUX.1, original"), ("vae", "VAE of SD3 or FLUX.1")):
        (folder / part).mkdir(parents=True)
        written(folder / part, zoo.shapes(CASES[case].make()), "BF16", "diffusion_pytorch_model.safetensors")
    (folder / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    assert told(Source("flux", folder)).described == "a model of another family (FLUX.1)"
    (folder / "transformer" / "diffusion_pytorch_model.safetensors").unlink()
    assert told(Source("flux", folder)).variant == "Flux"


def test_a_config_tells_what_tensors_cannot(tmp_path: Path) -> None:
    written(
        tmp_path,
        zoo.shapes(CASES["ControlNet for SD 1.5, diffusers"].make()),
        "F16",
        "diffusion_pytorch_model.safetensors",
    )
    (tmp_path / "config.json").write_text('{"_class_name": "ControlNetModel", "global_pool_conditions": true}')
    assert "shuffle" in report(Source("x", tmp_path))["notes"][0]


@pytest.mark.parametrize(
    ("kind", "variant", "says"),
    [("controlnet", "full", "shuffle"), ("ip_adapter", "faceid_plus", "shortcut: true"), ("ip_adapter", "instantid", "antelopev2"), ("vae", "", "SDXL")],
)  # fmt: skip
def test_what_cannot_be_told_is_said(kind: str, variant: str, says: str) -> None:
    assert any(says in text for text in untold(Identity(kind, variant=variant)))


@pytest.mark.parametrize(("keys", "words"), [
    (("<gold>",), "<gold>"), (("string_to_param.cat",), "cat"), (("string_to_param.*",), ""), (("emb_params",), ""), (("clip_l",), ""),
    (("embedding",), ""), (("<a>", "<b>"), "<a>, <b>"), (("clip_l", "clip_g"), ""),
])  # fmt: skip
def test_a_word_that_the_file_tells_is_told(keys: tuple[str, ...], words: str, tmp_path: Path) -> None:
    shapes = {k: (2, 1280 if k == "clip_g" else 768) for k in keys}
    written(tmp_path, zoo.shapes(shapes), "F16", "any.safetensors")
    said = report(Source("any.safetensors", tmp_path / "any.safetensors"))
    assert said["kind"] == "textual_inversion" and bool(said["untold"]) == (not words)
    assert said["facts"].get("words" if "," in words else "word", "") == words


def test_letters_name_conditions_that_there_are() -> None:
    for kind, text in ADVICE.items():
        for named in re.findall(r"condition of kind (\w+)", text):
            assert named in KINDS, text
        assert not (any(k == kind for k, _ in CONDITIONS) and "runs no" in text), text


def test_numbers_in_words() -> None:
    header = full.header({"a": (4, 4)})
    assert precision(header) == "fp16" and precision(full.header({})) == ""
