"""Unions, ControlNet-XS and Control-LoRAs: whatever layout they were written in, the module that comes back is the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import beside_nets
import pytest
import torch
from some import some
from torch import Tensor

import tiny
from infuse.errors import RecipeError, WeightsError
from infuse.weights.layouts.beside import load_beside

from . import ldm


def equal(found: Any, net: Any) -> bool:
    theirs = net.state_dict()
    ours = found.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def like_sdxl() -> Any:
    """Its vector is 2 sinusoids' worth of what a real one has, but read by the same rule."""
    return ldm.tiny_unet("sdxl")


def tiny_union(unet: Any) -> Any:
    from infuse.network.union import Union

    keys = ("down_block_types", "block_out_channels", "layers_per_block", "cross_attention_dim", "attention_head_dim",
            "transformer_layers_per_block", "use_linear_projection", "addition_embed_type", "addition_time_embed_dim",
            "projection_class_embeddings_input_dim")  # fmt: skip
    return ldm.random(
        Union(**{k: unet.config[k] for k in keys}, conditioning_embedding_out_channels=(16, 32, 32, 64), num_control_type=6,
              num_trans_channel=64, num_proj_channel=64)
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("layout", some(["diffusers", "folder", "ldm", "dotted"], quick=["dotted"]))
def test_a_union_in_every_layout(layout: str, tmp_path: Path) -> None:
    unet = like_sdxl()
    net = tiny_union(unet)
    state: dict[str, Tensor] = net.state_dict()
    path = tmp_path / "union.safetensors"
    if layout == "folder":
        net.register_to_config(num_control_type=99)  # released configs tell of other networks: the tensors decide
        net.save_pretrained(path := tmp_path / "net")
    elif layout == "diffusers":
        ldm.save(path, state)
    else:
        own = ("task_embedding", "transformer_layes.", "spatial_ch_projs.", "control_add_embedding.")
        rest = {k: t for k, t in state.items() if k.startswith(own)}
        dotted = {k.replace("in_proj_", "in_proj.") if layout == "dotted" else k: t for k, t in rest.items()}
        ldm.save(path, ldm.ldm_controlnet(net) | dotted)
    found = load_beside(path, base=unet)
    assert equal(found, net) and found.types == 6
    assert found.config["attention_head_dim"] == unet.config["attention_head_dim"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "layout"),
    some(
        [(f, n) for f in ("sd1", "sdxl") for n in ("file", "folder", "fused")],
        quick=[("sd1", "file"), ("sd1", "fused")],
    ),
)
def test_xs_in_every_layout(family: str, layout: str, tmp_path: Path) -> None:
    unet, net = beside_nets.unet(family), beside_nets.xs(family)
    path = tmp_path / "xs.safetensors"
    if layout == "folder":
        net.save_pretrained(path := tmp_path / "net")
    elif layout == "fused":
        from diffusers import UNetControlNetXSModel

        ldm.save(path, UNetControlNetXSModel.from_unet(unet, net).state_dict())
    else:
        ldm.save(path, net.state_dict())
    found = load_beside(path, base=unet)
    assert equal(found, net)
    same = ("block_out_channels", "base_block_out_channels", "down_block_types", "learn_time_embedding", "use_linear_projection")  # fmt: skip
    assert {k: list(v) if isinstance(v := found.config[k], list | tuple) else v for k in same} == {
        k: list(v) if isinstance(v := net.config[k], list | tuple) else v for k in same
    }
    mix = found.config["time_embedding_mix"]
    assert mix == (0.9 if layout == "folder" else 1.0)  # only a config.json tells
    with pytest.raises(RecipeError, match="walks beside a base of widths"):
        load_beside(path, base=ldm.tiny_unet("sd1"))


def merged(net: Any, unet: Any, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """What a Control-LoRA's network must be, by its definition."""
    out = dict(net.state_dict())
    for key, up in state.items():
        if key.endswith(".up"):
            stem, base = key.removesuffix(".up"), unet.state_dict()[f"{key.removesuffix('.up')}.weight"]
            base = base[:, :4] if stem == "conv_in" else base
            out[f"{stem}.weight"] = base + (up.flatten(1) @ state[f"{stem}.down"].flatten(1)).reshape(base.shape)
    return out


SPELLINGS = {"stability": (".up", ".down"), "peft": (".lora_B.weight", ".lora_A.weight"), "kohya": (".lora_up.weight", ".lora_down.weight")}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("spelling", "channels"), [("stability", 4), ("peft", 9), ("kohya", 4)])
def test_a_control_lora_is_made_from_the_base_in_use(spelling: str, channels: int, tmp_path: Path) -> None:
    unet = ldm.tiny_unet("sdxl", channels)
    net = ldm.tiny_controlnet(ldm.tiny_unet("sdxl"))
    state = beside_nets.lora_state(net, ldm.tiny_unet("sdxl"))
    up, down = SPELLINGS[spelling]
    spelled = {k.removesuffix(".up") + up if k.endswith(".up") else k.removesuffix(".down") + down if k.endswith(".down") else k: t
               for k, t in state.items()}  # fmt: skip
    path = ldm.save(tmp_path / "lora.safetensors", spelled | {"conv_in.weight__absmax": torch.zeros(1)})
    found = load_beside(path, base=unet).state_dict()
    want = merged(net, unet, state)
    assert found.keys() == want.keys()
    for key, value in want.items():
        torch.testing.assert_close(found[key], value, rtol=1e-5, atol=1e-6)
    other = ldm.tiny_unet("sdxl", channels)
    other.conv_in.weight.data += 1  # another base, another branch
    assert not torch.equal(load_beside(path, base=other).conv_in.weight, found["conv_in.weight"])


@pytest.mark.slow
def test_a_control_lora_of_another_base_or_half_of_one_is_a_letter(tmp_path: Path) -> None:
    net = ldm.tiny_controlnet(ldm.tiny_unet("sdxl"))
    state = beside_nets.lora_state(net, ldm.tiny_unet("sdxl"))
    path = ldm.save(tmp_path / "lora.safetensors", state)
    with pytest.raises(WeightsError, match="difference to its base"):
        load_beside(path)
    with pytest.raises(RecipeError, match="of another base"):
        load_beside(path, base=ldm.tiny_unet("sd1"))
    half = {k: t for k, t in state.items() if k != "mid_block.resnets.0.conv1.down"}
    with pytest.raises(WeightsError, match="one factor of two"):
        load_beside(ldm.save(tmp_path / "half.safetensors", half), base=ldm.tiny_unet("sdxl"))


def test_other_kinds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="needs a ControlNet"):
        load_beside(ldm.save(tmp_path / "u.safetensors", ldm.ldm_unet(tiny.unet("sd1"))))
