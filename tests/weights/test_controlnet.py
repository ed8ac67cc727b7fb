"""Whatever layout a ControlNet was written in, the module that comes back answers the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from some import in_turn

from infuse.errors import RecipeError, WeightsError
from infuse.weights.layouts.controlnet import load_controlnet
from infuse.weights.layouts.ip_adapter import read_ip_adapter

from . import ldm

LAYOUTS = ("bare", "stripped", "module", "full", "diffusers", "folder", "pickle")


def written(layout: str, net: torch.nn.Module, root: Path) -> Path:
    state, path = ldm.ldm_controlnet(net), root / "control.safetensors"  # pyright: ignore[reportArgumentType]
    if layout == "folder":
        net.save_pretrained(root / "net")  # pyright: ignore[reportCallIssue]
        return root / "net"
    if layout == "diffusers":
        return ldm.save(path, net.state_dict())
    if layout == "pickle":
        torch.save({"state_dict": {"state_dict": ldm.prefixed("control_model.", state)}}, root / "control.pth")
        return root / "control.pth"
    prefix = {"bare": "", "stripped": "control_model.", "module": "module.control_model.", "full": "control_model."}[
        layout
    ]
    state = ldm.prefixed(prefix, state)
    if layout == "full":
        state["model.diffusion_model.input_blocks.0.0.weight"] = torch.zeros(64, 4, 3, 3)
    return ldm.save(path, state)


@pytest.mark.slow
@pytest.mark.parametrize(("kin", "layout"), in_turn(("sd1", "sd2", "sdxl"), LAYOUTS))
def test_every_layout_gives_the_same_network(kin: str, layout: str, tmp_path: Path) -> None:
    unet = ldm.tiny_unet(kin)
    net = ldm.tiny_controlnet(unet)
    found = load_controlnet(written(layout, net, tmp_path), base=unet)
    assert found.state_dict().keys() == net.state_dict().keys()
    assert all(torch.equal(v, net.state_dict()[k]) for k, v in found.state_dict().items())
    x, hint = torch.randn(1, 4, 8, 8), torch.rand(1, 3, 64, 64)
    added = {"text_embeds": torch.randn(1, 32), "time_ids": torch.ones(1, 6)} if kin == "sdxl" else None
    context = torch.randn(1, 5, unet.config["cross_attention_dim"])
    with torch.no_grad():
        got, want = (
            n(x, torch.tensor([3]), context, hint, added_cond_kwargs=added).down_block_res_samples for n in (found, net)
        )
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("channels", [4, 9])
def test_a_difference_file_is_added_to_the_base_in_use(channels: int, tmp_path: Path) -> None:
    unet = ldm.tiny_unet("sd1", channels)
    net = ldm.tiny_controlnet(ldm.tiny_unet("sd1"))
    of_base = ldm.encoder(unet)
    of_base["input_blocks.0.0.weight"] = of_base["input_blocks.0.0.weight"][:, :4]
    state = {k: v - of_base[k] if k in of_base else v for k, v in ldm.ldm_controlnet(net).items()}
    path = ldm.save(tmp_path / "d.safetensors", state | {"difference": torch.zeros(1)})
    found = load_controlnet(path, base=unet).state_dict()
    for key, value in net.state_dict().items():
        torch.testing.assert_close(found[key], value, rtol=0, atol=1e-6)
    with pytest.raises(WeightsError, match="difference to its base"):
        load_controlnet(path)


def test_sd1_matrices_in_place_of_convolutions_are_reshaped(tmp_path: Path) -> None:
    unet = ldm.tiny_unet("sd1", cross_attention_dim=768)
    net = ldm.tiny_controlnet(unet)
    state = {k: v[:, :, 0, 0] if "proj_in.w" in k else v for k, v in ldm.ldm_controlnet(net).items()}
    found = load_controlnet(ldm.save(tmp_path / "c.safetensors", state))
    assert found.state_dict()["down_blocks.0.attentions.0.proj_in.weight"].ndim == 4
    assert found.config["attention_head_dim"] == 8


@pytest.mark.slow
def test_another_family_or_kind_is_refused_before_loading(tmp_path: Path) -> None:
    net = ldm.tiny_controlnet(ldm.tiny_unet("sd1"))
    path = ldm.save(tmp_path / "c.safetensors", ldm.ldm_controlnet(net))
    with pytest.raises(RecipeError, match=r"conditions.0.model: .*context width 48.*context width 96"):
        load_controlnet(path, base=ldm.tiny_unet("sdxl"))
    with pytest.raises(WeightsError, match="is a UNet alone .* needs a ControlNet"):
        load_controlnet(ldm.save(tmp_path / "u.safetensors", ldm.ldm_unet(ldm.tiny_unet())))


@pytest.mark.parametrize("form", ["released", "training", "bin"])
def test_ip_adapter_files_come_back_under_one_spelling(form: str, tmp_path: Path) -> None:
    flat = {"image_proj.proj.weight": torch.randn(4 * 48, 32), "image_proj.norm.weight": torch.ones(48),
            "ip_adapter.1.to_k_ip.weight": torch.randn(64, 48), "ip_adapter.1.to_v_ip.weight": torch.randn(64, 48)}  # fmt: skip
    path = tmp_path / "ip.safetensors"
    if form == "released":
        ldm.save(path, flat)
    elif form == "training":
        names = {
            k.replace("image_proj.", "image_proj_model.").replace("ip_adapter.", "adapter_modules."): v
            for k, v in flat.items()
        }
        ldm.save(path, names | {"unet.conv_in.weight": torch.zeros(1)})
    else:
        path = tmp_path / "ip.bin"
        parts = {
            p: {k.removeprefix(f"{p}."): v for k, v in flat.items() if k.startswith(p)}
            for p in ("image_proj", "ip_adapter")
        }
        torch.save(parts, path)
    tensors, identity = read_ip_adapter(path, base=48)
    assert tensors.keys() == flat.keys() and all(torch.equal(tensors[k], flat[k]) for k in flat)
    assert (identity.variant, identity.tokens, identity.cross_layers) == ("plain", 4, 1)
    with pytest.raises(RecipeError):
        read_ip_adapter(path, base=768)
