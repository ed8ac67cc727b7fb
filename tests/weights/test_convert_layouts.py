"""One file into a folder and back: every tensor comes back as it was, and diffusers reads what was written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from safetensors.torch import load_file
from some import some

from infuse import WeightsError
from infuse.weights.base import load_base
from infuse.weights.convert import convert

from . import ldm
from .test_base import checkpoint, same

KINS = ["sd1", "sd2", "sdxl"]


def ask(pipe: Any) -> torch.Tensor:
    pipe.set_progress_bar_config(disable=True)
    g = torch.Generator().manual_seed(0)
    return pipe("a cube", height=32, width=32, num_inference_steps=2, generator=g, output_type="latent").images


def halves(state: ldm.State) -> ldm.State:
    """A UNet in half precision beside a VAE in single, as trainers write them."""
    return {k: t.half() if k.startswith("model.") and t.is_floating_point() else t for k, t in state.items()}


@pytest.mark.slow
@pytest.mark.parametrize("kin", some(KINS, quick=["sdxl"]))
def test_a_file_becomes_a_folder_and_the_folder_the_file(kin: str, tmp_path: Path) -> None:
    state, modules = checkpoint(kin)
    state = halves(state)
    file = ldm.save(tmp_path / "model.safetensors", state)
    told: list[str] = []
    count = convert(file, tmp_path / "folder", tell=told.append)
    a, b = load_base(file), load_base(tmp_path / "folder")
    same(a.unet, b.unet), same(a.vae, b.vae)
    for one, two in zip(a.text_encoders, b.text_encoders, strict=True):
        same(one, two)
    written = {p.parent.name: load_file(p) for p in (tmp_path / "folder").rglob("*.safetensors")}
    assert count == sum(map(len, written.values())) and {t.dtype for t in written["unet"].values()} == {torch.float16}
    assert {t.dtype for t in written["vae"].values()} == {torch.float32} and any(t.startswith("unet: ") for t in told)
    assert b.spec.family == a.spec.family and b.scheduler_config.items() >= a.scheduler_config.items()
    convert(tmp_path / "folder", tmp_path / "again.safetensors")
    again = load_file(tmp_path / "again.safetensors")
    kept = {k: t for k, t in state.items() if k in again}
    assert all(torch.equal(again[k], t) and again[k].dtype == t.dtype for k, t in kept.items())
    lost = {k for k in state if k not in again} - {k for k in state if k.endswith(("position_ids", "logit_scale"))}
    assert lost <= {"cond_stage_model.model.text_projection"}, lost
    assert set(again) - set(state) <= {"v_pred"}
    c = load_base(tmp_path / "again.safetensors")
    same(a.unet, c.unet), same(a.vae, c.vae)
    for one, two in zip(a.text_encoders, c.text_encoders, strict=True):
        same(one, two)
    assert (c.spec.prediction, c.scheduler_config) == (a.spec.prediction, a.scheduler_config)


@pytest.mark.slow
@pytest.mark.parametrize("kin", some(KINS, quick=["sd1"]))
def test_diffusers_reads_the_folder(kin: str, tmp_path: Path) -> None:
    state, modules = checkpoint(kin)
    convert(ldm.save(tmp_path / "model.safetensors", state), tmp_path / "folder")
    pipe = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "folder", local_files_only=True)
    assert type(pipe).__name__ == ("StableDiffusionXLPipeline" if kin == "sdxl" else "StableDiffusionPipeline")
    same(pipe.unet, modules["unet"]), same(pipe.vae, modules["vae"])
    same(pipe.text_encoder, modules["texts"][0])
    if kin == "sdxl":
        same(pipe.text_encoder_2, modules["texts"][1])
        assert pipe.tokenizer_2.pad_token == "!" and pipe.config.force_zeros_for_empty_prompt
    if kin == "sd1":  # the other tiny ones speak more numbers than their network hears
        assert ask(pipe).isfinite().all()


@pytest.mark.parametrize("kin", some(["sd1", "sdxl"], quick=[]))
def test_diffusers_reads_the_file(kin: str, tmp_path: Path) -> None:
    """Its reader asks the Hub for configs; given the folder, it takes those that lie there."""
    state, modules = checkpoint(kin)
    folder, file = tmp_path / "folder", tmp_path / "back.safetensors"
    convert(ldm.save(tmp_path / "model.safetensors", state), folder)
    convert(folder, file)
    cls: Any = diffusers.StableDiffusionXLPipeline if kin == "sdxl" else diffusers.StableDiffusionPipeline
    pipe = cls.from_single_file(str(file), config=str(folder), local_files_only=True)
    same(pipe.unet, modules["unet"]), same(pipe.vae, modules["vae"]), same(pipe.text_encoder, modules["texts"][0])
    if kin == "sd1":
        assert torch.equal(ask(pipe), ask(cls.from_pretrained(folder, local_files_only=True)))


@pytest.mark.slow
def test_a_dtype_for_all(tmp_path: Path) -> None:
    state, _ = checkpoint("sd1")
    file = ldm.save(tmp_path / "model.safetensors", state)
    convert(file, tmp_path / "half", "fp16")
    folder = [t for p in (tmp_path / "half").rglob("*.safetensors") for t in load_file(p).values()]
    assert {t.dtype for t in folder if t.is_floating_point()} == {torch.float16}
    convert(file, tmp_path / "half.safetensors", "bf16")
    assert {t.dtype for t in load_file(tmp_path / "half.safetensors").values() if t.is_floating_point()} == {torch.bfloat16}  # fmt: skip
    with pytest.raises(WeightsError, match="int8") as letter:
        convert(file, tmp_path / "x.safetensors", "int8")
    assert letter.value.field == "dtype"


@pytest.mark.slow
def test_a_pickled_checkpoint_becomes_a_folder(tmp_path: Path) -> None:
    state, modules = checkpoint("sd1")
    torch.save({"state_dict": state, "global_step": 7}, tmp_path / "model.ckpt")
    convert(tmp_path / "model.ckpt", tmp_path / "folder")
    same(load_base(tmp_path / "folder").unet, modules["unet"])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder", "model.ckpt"]


@pytest.mark.slow
def test_what_a_model_predicts_goes_along(tmp_path: Path) -> None:
    state, _ = checkpoint("sd1", extra={"v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)})
    convert(ldm.save(tmp_path / "model.safetensors", state), tmp_path / "folder")
    said = json.loads((tmp_path / "folder/scheduler/scheduler_config.json").read_text())
    assert said["prediction_type"] == "v_prediction" and said["rescale_betas_zero_snr"]
    convert(tmp_path / "folder", tmp_path / "back.safetensors")
    assert {"v_pred", "ztsnr"} <= load_file(tmp_path / "back.safetensors").keys()


@pytest.mark.slow
def test_an_inpainting_model_says_what_runs_it(tmp_path: Path) -> None:
    state, _ = checkpoint("sd1", 9)
    convert(ldm.save(tmp_path / "model.safetensors", state), tmp_path / "folder")
    index = json.loads((tmp_path / "folder/model_index.json").read_text())
    assert index["_class_name"] == "StableDiffusionInpaintPipeline"


# ── letters ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_what_is_not_converted_is_a_letter_and_leaves_nothing(tmp_path: Path) -> None:
    state, _ = checkpoint("sd1")
    whole = ldm.save(tmp_path / "model.safetensors", state)
    alone = ldm.save(tmp_path / "unet.safetensors", {k: t for k, t in state.items() if k.startswith("model.")})
    depth = ldm.save(tmp_path / "depth.safetensors", checkpoint("sd2", 5)[0])
    (tmp_path / "there").mkdir()
    convert(whole, tmp_path / "odd")
    config = json.loads((tmp_path / "odd/unet/config.json").read_text()) | {"attention_head_dim": 4}
    (tmp_path / "odd/unet/config.json").write_text(json.dumps(config))
    (tmp_path / "notes.txt").write_text("x")
    before = sorted(p.name for p in tmp_path.iterdir())
    for source, out, field, words in (
        (tmp_path / "none.safetensors", "x", "source", "was not found"),
        (whole, "there", "out", "there already"),
        (alone, "x", "source", "no VAE inside"),
        (depth, "x", "source", "which is not converted"),
        (tmp_path / "odd", "x.safetensors", "source", "attention heads"),
        (tmp_path / "odd" / "unet", "x.safetensors", "source", "no pipeline"),
        (tmp_path / "odd", "x", "out", "end with .safetensors"),
        (tmp_path / "notes.txt", "x.safetensors", "source", "no weights file"),
    ):
        with pytest.raises(WeightsError, match=words) as letter:
            convert(source, tmp_path / out)
        assert letter.value.field == field, letter.value
        assert sorted(p.name for p in tmp_path.iterdir()) == before
