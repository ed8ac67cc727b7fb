"""A folder as the documents imagine it: tiny networks under the names of the embedded models and of released ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import beside_nets
import disk
import lora_files
import pytest
import tiny_faces
import torch
from parity import told as told_bases
from PIL import Image
from safetensors.torch import save_file
from weights import ldm
from weights.test_base import checkpoint
from weights.test_gligen import comfy
from weights.test_lllite import term, written

import tiny
from infuse.tabletop.examples import PICTURES

HUB: dict[str, Callable[[Path], object]] = {
    "stable-diffusion-v1-5/stable-diffusion-v1-5": disk.base,
    "stabilityai/stable-diffusion-xl-base-1.0": lambda folder: disk.base(folder, "sdxl"),
    "SimianLuo/LCM_Dreamshaper_v7": disk.base,
    "lllyasviel/control_v11p_sd15_canny": disk.controlnet,
    "h94/IP-Adapter": lambda folder: disk.adapter(folder / "models" / "ip-adapter_sd15.safetensors"),
}
"""What the documents take from the Hub."""


def embedded(weights: Path) -> None:
    """What comes with infuse, and a small SDXL."""
    disk.base(weights / "base")
    disk.base(weights / "sdxl", "sdxl")
    disk.powerpaint1(weights / "inpaint")
    disk.video(weights / "video")
    disk.base(weights / "depth", "sd1", 5)
    disk.base(weights / "edit", "sd1", 8)
    for name, kind in (("edges", "canny"), ("depths", "depth")):
        disk.controlnet(weights / name)
        (weights / name / "card.json").write_text(f'{{"description": "{name}", "annotator": "{kind}"}}')
    disk.adapter(weights / "ip-adapter.safetensors")
    t2i(weights / "segments.safetensors")
    lora(weights / "wood.safetensors")
    save_file({"<gold>": torch.randn(2, 32)}, weights / "gold.safetensors")


def released(home: Path, hub: Path) -> None:
    """What somebody has in their folder, and in the Hub's cache."""
    disk.base(home / "my-sd15")
    disk.base(home / "my-sdxl", "sdxl")
    ldm.save(home / "v1-5-pruned-emaonly.safetensors", checkpoint("sd1")[0])
    ldm.save(home / "sd_xl_base_1.0.safetensors", checkpoint("sdxl", cross_attention_dim=48 + 64)[0])
    vae = {k: v.contiguous() for k, v in ldm.ldm_vae(tiny.vae()).items()}
    save_file(vae, home / "vae-ft-mse-840000-ema-pruned.safetensors")
    for repo, make in HUB.items():
        cached = hub / ("models--" + repo.replace("/", "--"))
        snapshot = cached / "snapshots" / ("0" * 40)
        for folder in (cached / "refs", snapshot / "models" if repo == "h94/IP-Adapter" else snapshot):
            folder.mkdir(parents=True)
        (cached / "refs" / "main").write_text("0" * 40)
        make(snapshot)


def branch(home: Path) -> None:
    """A BrushNet beside the embedded base."""
    from infuse.network.brushnet import stored

    state = tiny.brushnet(attention=False).state_dict()
    save_file({stored(k): t.contiguous() for k, t in state.items()}, home / "random_mask_brushnet.safetensors")


def attended(home: Path) -> None:
    """A GLIGEN and a LLLite beside the embedded base."""
    terms = {"middle_block_1_transformer_blocks_0_attn1_to_q": (64, 2)}
    written(home, {name: term(*of) for name, of in terms.items()}).rename(home / "lllite_canny.safetensors")
    comfy(home, "text").rename(home / "gligen_textbox.safetensors")


def branched(home: Path) -> None:
    """ControlNets of several kinds beside the embedded bases."""
    for name in ("control_v11p_sd15_inpaint", "control_v11f1e_sd15_tile"):
        disk.controlnet(home / name)
    unet = tiny.unet("sd1")
    lora = beside_nets.lora_state(beside_nets.control(unet, 7), unet)
    for name, state in (("control-lora-canny", lora), ("union-promax", beside_nets.union().state_dict())):
        save_file({k: t.contiguous() for k, t in state.items()}, home / f"{name}.safetensors")


def faced(home: Path) -> None:
    """IP-Adapters that read faces beside the embedded base, and somebody's face."""
    for name, kind in (("ip-adapter-faceid_sd15", "faceid"), ("ip-adapter-faceid-plusv2_sd15", "faceid_plus")):
        state = tiny_faces.adapter("sd1", kind).save()
        parts = {
            p: {k.removeprefix(f"{p}."): t for k, t in state.items() if k.startswith(p)}
            for p in ("image_proj", "ip_adapter")
        }
        torch.save(parts, home / f"{name}.bin")
    (home / "someone.json").write_text(str(tiny_faces.face()))


def t2i(path: Path, **kind: Any) -> None:
    """A T2I-Adapter of the embedded base."""
    from infuse.encoders.t2i import T2IAdapter
    from infuse.encoders.t2i_kinds import made_for

    save_file(dict(T2IAdapter(made_for(tiny.base("sd1").base.spec, **kind)).state_dict()), path)


def adapted(home: Path) -> None:
    """T2I-Adapters, a style adapter and a fuser beside the embedded base."""
    from infuse.encoders.coadapter import Fuser
    from infuse.encoders.t2i import T2IAdapter
    from infuse.encoders.t2i_kinds import Fusing, made_for
    from infuse.encoders.t2i_style import StyleAdapter

    spec = tiny.base("sd1").base.spec
    t2i(home / "t2iadapter_seg.safetensors")
    t2i(home / "t2iadapter_color.safetensors", light=True, layers=4)
    nets = {
        "t2iadapter_style": StyleAdapter(48, 32, 8, 3), "coadapter-fuser": Fuser(Fusing(32, 16, spec.widths, 3)),
    }  # fmt: skip
    for name, net in nets.items():
        save_file(dict(net.state_dict()), home / f"{name}.safetensors")
    torch.save({"adapter": T2IAdapter(made_for(spec, channels=1)).state_dict()}, home / "t2iadapter_sketch.pth")


def lora(path: Path) -> None:
    """A LoRA of the embedded base."""
    lora_files.save(
        path, lora_files.kohya(lora_files.changes(tiny.base("sd1").base.network.unet, pattern=lora_files.ATTENDED))
    )


def changed(home: Path) -> None:
    """A LoRA for few steps beside the embedded base."""
    lora(home / "lcm-lora-sdv1-5.safetensors")


def told(home: Path) -> None:
    """Bases that are told more beside their latents."""
    disk.base(home / "stable-diffusion-2-depth", "sd2", 5)
    disk.base(home / "instruct-pix2pix", "sd1", 8)
    for kind, name in (("upscale", "stable-diffusion-x4-upscaler"), ("unclip", "stable-diffusion-2-1-unclip")):
        folder = disk.base(home / name, "sd2")
        for part in ("unet", "vae"):
            told_bases.base(kind, "sd2").parts[part].save_pretrained(folder / part)
        if kind == "unclip":
            told_bases.normalizer().save_pretrained(folder / "image_normalizer")


def small(pictures: Path, folder: Path) -> None:
    """The pictures that come with infuse, as large as tiny networks like them."""
    folder.mkdir()
    for path in pictures.iterdir():
        if path.suffix == ".gif":
            disk.film(folder / path.name)
            continue
        with Image.open(path) as image:
            image.resize((32, 32), Image.Resampling.NEAREST).save(folder / path.name)


def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to stand in, beside tiny models as if they came with infuse."""
    embedded(tmp_path / "weights")
    monkeypatch.setattr("infuse.weights.library.embedded_root", lambda: tmp_path / "weights")
    small(PICTURES, tmp_path / "pictures")
    monkeypatch.setattr("infuse.tabletop.examples.PICTURES", tmp_path / "pictures")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for place in ("huggingface_hub.constants", "huggingface_hub._snapshot_download.constants"):
        monkeypatch.setattr(f"{place}.HF_HUB_CACHE", str(tmp_path / "hub"), raising=False)
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path / "home")
    return tmp_path / "home"
