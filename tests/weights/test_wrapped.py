"""Files as training leaves them: other names around the same tensors, and the same model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from some import some

from infuse.errors import WeightsError
from infuse.weights.base import load_base
from infuse.weights.formats import Entry, Header, read_keys
from infuse.weights.identify import identify
from infuse.weights.layouts.controlnet import load_controlnet
from infuse.weights.layouts.wrapped import dotted, plain, unwrapped
from infuse.weights.outline import outline
from infuse.weights.source import Source

from . import full, ldm
from .test_base import checkpoint, folder, outlined, same

UNET, EMA = "model.diffusion_model.", "model_ema.diffusion_model"


def around(prefix: str, state: ldm.State) -> ldm.State:
    return {prefix + k: v for k, v in state.items()}


def inside(state: ldm.State, marker: str, wrapper: str) -> ldm.State:
    return {k.replace(marker, marker + wrapper, 1) if k.startswith(marker) else k: v for k, v in state.items()}


def averaged(state: ldm.State) -> ldm.State:
    """As Lightning's LitEma keeps them, when the plain weights were pruned instead of the averages."""
    counters = {"model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(7)}
    return counters | {
        EMA + k.removeprefix(UNET).replace(".", "") if k.startswith(UNET) else k: v for k, v in state.items()
    }


FORMS: dict[str, Any] = {
    "torch.compile before everything": lambda s: around("_orig_mod.", s),
    "DataParallel before everything": lambda s: around("module.", s),
    "both": lambda s: around("module._orig_mod.", s),
    "compiled UNet": lambda s: inside(s, UNET, "_orig_mod."),
    "compiled parts": lambda s: inside(inside(s, UNET, "_orig_mod."), "first_stage_model.", "_orig_mod."),
    "FSDP": lambda s: {re.sub(r"(blocks\.\d+\.)", r"\1_fsdp_wrapped_module.", k): v for k, v in s.items()},
    "below another name": lambda s: around("state_dict.", s),
    "a bare UNet beside the others": lambda s: {k.removeprefix(UNET): v for k, v in s.items()},
    "half a place": lambda s: {k.removeprefix("model.") if k.startswith(UNET) else k: v for k, v in s.items()},
    "only averages": averaged,
    "only averages, compiled": lambda s: around("_orig_mod.", averaged(s)),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "kin"),
    some(
        [(f, k) for f in FORMS for k in ("sd1", "sdxl")],
        quick=[
            ("both", "sd1"),
            ("compiled UNet", "sd1"),
            ("a bare UNet beside the others", "sdxl"),
            ("only averages", "sd1"),
        ],
    ),
)
def test_the_same_tensors_are_the_same_model(form: str, kin: str, tmp_path: Path) -> None:
    state, made = checkpoint(kin)
    parts = load_base(ldm.save(tmp_path / "m.safetensors", FORMS[form](state)))
    same(parts.unet, made["unet"])
    same(parts.vae, made["vae"])
    for got, want in zip(parts.text_encoders, made["texts"], strict=True):
        same(got, want)
    assert parts.source.identity.prefix == UNET and parts.source.identity.kind == "base"
    assert [n for n in parts.notes if "averages" not in n] == [] and bool(parts.notes) == ("averages" in form)
    outlined(parts)


@pytest.mark.slow
def test_sd2_in_the_layout_of_sgm_is_the_same_model(tmp_path: Path) -> None:
    """sd_turbo and what webui users merge: the OpenCLIP tower stands where SDXL has ViT-L."""
    state, made = checkpoint("sd2")
    moved = {k.replace("cond_stage_model.model.", "conditioner.embedders.0.model."): v for k, v in state.items()}
    parts = load_base(ldm.save(tmp_path / "m.safetensors", moved), prediction="epsilon")
    same(parts.text_encoders[0], made["texts"][0])
    same(parts.unet, made["unet"])
    assert len(parts.text_encoders) == 1 and not parts.force_zeros_for_empty_prompt and not parts.notes
    names = {
        k.replace("cond_stage_model.model.", "conditioner.embedders.0.model."): v
        for k, v in full.checkpoint("sd21").items()
    }
    said, known = identify(full.header(names)), identify(full.header(full.checkpoint("sd21")))
    assert (said.kind, said.family, said.parts, said.prediction) == (
        known.kind,
        known.family,
        known.parts,
        known.prediction,
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", full.CONFIGS)
def test_the_dots_of_averages_are_found_again(name: str) -> None:
    """Every key of every public UNet, the published sizes included."""
    keys = [k.removeprefix(UNET) for k in full.checkpoint(name) if k.startswith(UNET)]
    assert [dotted(k.replace(".", "")) for k in keys] == keys
    assert dotted("somebodyelses0weight") == "somebodyelses0weight"


def test_wrappers_are_modules_not_words() -> None:
    assert unwrapped("module.model.module._orig_mod.a.weight") == "model.a.weight"
    assert unwrapped("unet/_orig_mod.conv_in.weight") == "unet/conv_in.weight"
    assert unwrapped("motion_modules.0.module_a.weight") == "motion_modules.0.module_a.weight"
    two = Header(Path("x"), {k: Entry("F32", (1,)) for k in ("a.weight", "module.a.weight")})
    assert set(plain(two)) == set(two), "two tensors for one name: both keep theirs"


def test_tensors_are_read_by_either_name(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_file({"module.a": torch.ones(2), "module._orig_mod.b": torch.zeros(3)}, path)
    header = Source("m", path).header
    assert set(header) == {"a", "b"}
    assert {k: t.tolist() for k, t in read_keys(header, header).items()} == {"a": [1, 1], "b": [0, 0, 0]}


@pytest.mark.parametrize("layout", ["ldm", "diffusers"])
def test_a_controlnet_from_a_compiled_trainer(layout: str, tmp_path: Path) -> None:
    net = ldm.tiny_controlnet(ldm.tiny_unet())
    state = ldm.ldm_controlnet(net) if layout == "ldm" else net.state_dict()
    same(load_controlnet(ldm.save(tmp_path / "m.safetensors", around("module._orig_mod.", state))), net)


@pytest.mark.slow
@pytest.mark.parametrize("part", some(["unet", "vae", "text_encoder"], quick=["text_encoder"]))
def test_a_folder_whose_part_was_saved_compiled(part: str, tmp_path: Path) -> None:
    _, made = checkpoint("sd1")
    root = folder(tmp_path / "m", made)
    file = next((root / part).glob("*.safetensors"))
    save_file(around("_orig_mod.", load_file(file)), file)
    parts = load_base(root)
    for got, want in ((parts.unet, made["unet"]), (parts.vae, made["vae"]), (parts.text_encoders[0], made["texts"][0])):
        same(got, want)
    outlined(parts)


def letter(state: ldm.State, tmp_path: Path) -> str:
    with pytest.raises(WeightsError) as caught:
        outline(Source("m", ldm.save(tmp_path / "m.safetensors", state)))
    return caught.value.message


@pytest.mark.slow
def test_what_does_not_suffice_is_named_as_what_it_is(tmp_path: Path) -> None:
    state, made = checkpoint("sd1")
    no_unet = letter({k: v for k, v in state.items() if not k.startswith(UNET)}, tmp_path)
    assert "a checkpoint without a UNet" in no_unet and "VAE" not in no_unet
    odd = {
        k if k == f"{UNET}input_blocks.0.0.weight" else k.replace("input_blocks", "in_blocks"): v
        for k, v in state.items()
    }
    foreign = letter(odd, tmp_path)
    assert "named as in no layout" in foreign and "max()" not in foreign
    halved = letter({k: v for k, v in state.items() if not k.startswith("first_stage_model.encoder.")}, tmp_path)
    assert "VAE has no encoder" in halved
    parts = around("unet.", made["unet"].state_dict()) | around("vae.", made["vae"].state_dict())
    one_file = letter(parts | around("text_encoder.", ldm.hf_text(made["texts"][0])), tmp_path)
    assert "under diffusers' names in one file" in one_file and "unet/" in one_file
