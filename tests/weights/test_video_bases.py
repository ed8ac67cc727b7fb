"""Video bases as they were released, in loose files: what they make, at full size by their headers, and their letters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, UNet3DConditionModel
from strangers import sparse
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModelWithProjection

import tiny
from infuse import ControlNet, Recipe
from infuse.engine.engine import Engine
from infuse.engine.model_store import ModelStore
from infuse.errors import WeightsError
from infuse.network.stc import STCEncoder, StyleMLP
from infuse.weights import hub
from infuse.weights.base import load_base
from infuse.weights.layouts import ldm_keys
from infuse.weights.layouts.video_composer import VideoParts, read, write
from infuse.weights.library import Library
from infuse.weights.outline import outline
from infuse.weights.source import Source

from . import full, ldm
from .video_files import (
    ASKED,
    OpenClipVisual,
    by_hand,
    engine,
    golden,
    lender,
    outlined,
    release,
    same,
    text_to_video,
    visual,
)

pytestmark = pytest.mark.slow  # half of the fast suite's time, for loaders that seldom change

RELEASED = {"depth": 1, "motion": 2, "sketch": 1, "single_sketch": 1, "local_image": 3, "masked": 4}


@pytest.mark.parametrize(("unet", "vae", "state", "kind"), [
    ("non_ema_228000.pth", "v2-1_512-ema-pruned.ckpt", golden, "a VideoComposer"),
    ("text2video_pytorch_model.pth", "VQGAN_autoencoder.pth", text_to_video, "a video base model"),
])  # fmt: skip
def test_a_release_runs_as_the_same_modules_in_memory(
    unet: str, vae: str, state: Any, kind: str, tmp_path: Path
) -> None:
    folder = release(tmp_path / "release", unet, vae)
    source = Library(offline=True).find(str(folder))
    assert source.identity.described.startswith(kind) and source.identity.kind == "base"
    parts = outlined(source)
    spec, composer = parts.spec, unet.startswith("non_ema")
    assert (spec.frames, spec.guidance, spec.native_size, spec.vae_factor) == (16, 9.0, 64, 2)
    assert [s.name for s in spec.channel_slots] == ["stc"] * composer
    assert spec.compositions == (
        ("depth", "motion", "sketch", "single_sketch", "canny", "local_image", "masked") if composer else ()
    )
    assert spec.style == composer == (parts.composer is not None)
    assert parts.tokenizers[0].pad_token_id == 0
    assert parts.scheduler_config == {**tiny.SCHEDULE, "_class_name": "DDIMScheduler"}
    same(parts.text_encoders[0], ldm.tiny_text(32, "gelu"))
    same(parts.vae, ldm.tiny_vae())
    made = engine()
    made.store.add("m", by_hand(state(), folder))
    ours, theirs = made.run_all(Recipe(model=str(folder), **ASKED), Recipe(model="m", **ASKED))
    torch.testing.assert_close(ours.latents, theirs.latents, rtol=1e-5, atol=1e-5)
    assert len(ours.frames[0]) == 3 and len(made.store.digests(ours.recipe)[str(folder)]) == 64
    report = made.check(Recipe(model=str(folder), prompt="x"))
    assert report.size == (64, 64) and report.frames == 16


def test_the_file_of_the_unet_may_be_named_and_any_name_will_do(tmp_path: Path) -> None:
    folder = release(tmp_path / "r")
    whole = load_base(folder)
    same(load_base(folder / "non_ema_228000.pth").unet, whole.unet)
    ldm.save(folder / "mine.safetensors", golden())
    (folder / "non_ema_228000.pth").unlink()
    for name in (folder, folder / "mine.safetensors"):
        parts = load_base(Library(offline=True).find(str(name)))
        same(parts.unet, whole.unet)
        same(parts.composer.stc, whole.composer.stc)


def test_of_two_unets_the_longer_trained_is_taken_and_said(tmp_path: Path) -> None:
    folder = release(tmp_path / "r")
    torch.save(golden(), folder / "non_ema_141000_no_watermark.pth")
    source = Source("r", folder)
    assert source.release and source.release.unet.name == "non_ema_228000.pth"
    assert any("non_ema_141000_no_watermark.pth" in note for note in load_base(source).notes)


def test_the_image_tower_says_what_open_clip_s_says(tmp_path: Path) -> None:
    eye = load_base(release(tmp_path / "r")).image_encoder
    pixels = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(eye(pixels).image_embeds, visual()(pixels), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("lost", [("v2-1_512-ema-pruned.ckpt",), ("open_clip_pytorch_model.bin",),
                                  ("v2-1_512-ema-pruned.ckpt", "open_clip_pytorch_model.bin")])  # fmt: skip
@pytest.mark.parametrize("by_file", [False, True])
def test_what_is_missing_may_be_lent(lost: tuple[str, ...], by_file: bool, tmp_path: Path) -> None:
    lender(tmp_path / "sd21")
    folder = release(tmp_path / "r")
    for name in lost:
        (folder / name).unlink()
    (folder / "model_index.json").write_text('{"infuse_base": "../sd21"}')
    parts = outlined(Library(offline=True).find(str(folder / "non_ema_228000.pth" if by_file else folder)))
    assert parts.spec.prediction == parts.scheduler_config["prediction_type"] == "epsilon"
    assert parts.spec.frames == 16 and parts.tokenizers[0].pad_token_id == 0
    assert (parts.image_encoder.config.hidden_size == 48) == ("open_clip_pytorch_model.bin" in lost)
    same(parts.vae, ldm.tiny_vae())
    same(parts.text_encoders[0], ldm.tiny_text(32, "gelu"))


def test_an_sd2_checkpoint_has_its_words_with_it(tmp_path: Path) -> None:
    folder = release(tmp_path / "r")
    (folder / "open_clip_pytorch_model.bin").unlink()
    whole = ldm.prefixed("first_stage_model.", ldm.ldm_vae(ldm.tiny_vae()))
    words = ldm.open_clip_text(ldm.tiny_text(32, "gelu"), spare_layer=True)
    torch.save(whole | ldm.prefixed("cond_stage_model.model.", words), folder / "v2-1_512-ema-pruned.ckpt")
    parts = outlined(Source(str(folder), folder))
    same(parts.text_encoders[0], ldm.tiny_text(32, "gelu"))
    assert parts.image_encoder is None and "there can be no style" in str(parts.notes)


def test_letters_name_the_missing_files_and_their_place(tmp_path: Path) -> None:
    folder = release(tmp_path / "r")
    (folder / "open_clip_pytorch_model.bin").unlink()
    for read_it in (load_base, outline):
        with pytest.raises(WeightsError) as letter:
            read_it(Source("composer", folder))
        assert "no text encoder" in letter.value.message and "open_clip_pytorch_model.bin" in letter.value.message
        assert str(folder) in letter.value.message and "infuse_base" in letter.value.message
    (folder / "v2-1_512-ema-pruned.ckpt").unlink()
    with pytest.raises(WeightsError, match=r"no VAE and no text encoder with it\. Put v2-1_512-ema-pruned\.ckpt"):
        engine().check(Recipe(model=str(folder / "non_ema_228000.pth")))
    lender(tmp_path / "sd15", width=48)
    (folder / "model_index.json").write_text('{"infuse_base": "../sd15"}')
    with pytest.raises(WeightsError, match="listens to words 32 wide, but the text encoder with it speaks 48"):
        engine().check(Recipe(model=str(folder)))


def test_video_bases_in_the_wrong_place(tmp_path: Path) -> None:
    folder = release(tmp_path / "r")
    base = tiny.engine(tiny.base("sd1"))
    said = {"image": tiny_picture(), "model": str(folder)}
    with pytest.raises(
        WeightsError, match="is a VideoComposer for .*needs a ControlNet. Use it as the recipe's `model`"
    ):
        base.check(Recipe(model="tiny", conditions=(ControlNet(**said),)))
    parts = read(text_to_video())
    ldm.save(tmp_path / "unet.safetensors", parts.unet)
    with pytest.raises(
        WeightsError, match="is the UNet of a video base model alone .*needs a base model. Use the whole model"
    ):
        base.check(Recipe(model=str(tmp_path / "unet.safetensors")))
    with pytest.raises(WeightsError, match="no place|incomplete|left over"):
        state = golden() | {"somebody.elses": torch.zeros(2)}
        torch.save(state, folder / "non_ema_228000.pth")
        load_base(folder)


def tiny_picture() -> Any:
    from PIL import Image

    return Image.new("RGB", (32, 32))


# ── full size, headers alone ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("name", "keys", "vae"), [("non_ema_228000.pth", 1_574, "v2-1_512-ema-pruned.ckpt"),
                                                   ("text2video_pytorch_model.pth", 1_480, "VQGAN_autoencoder.pth")])  # fmt: skip
def test_full_size_releases_are_checked_by_their_headers(name: str, keys: int, vae: str, tmp_path: Path) -> None:
    composed = keys == 1_574
    with init_empty_weights():
        unet, style = UNet3DConditionModel(in_channels=12 if composed else 4), StyleMLP()
        stc = {c: dict(STCEncoder(n).state_dict()) for c, n in RELEASED.items()} if composed else {}
        eye = OpenClipVisual(1280, 32, 14, 224, 1024)
        for block in eye.transformer["resblocks"]:  # type: ignore[union-attr]
            block.mlp = nn.ModuleDict({"c_fc": nn.Linear(1280, 5120), "c_proj": nn.Linear(5120, 1280)})
        words = ldm.open_clip_text(CLIPTextModel(CLIPTextConfig(**full.VIT_H)), spare_layer=True)
        decoder = ldm.ldm_vae(AutoencoderKL(**full.VAE))
        theirs = CLIPVisionModelWithProjection(CLIPVisionConfig(
            hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=16, patch_size=14, projection_dim=1024))  # fmt: skip
    state = write(VideoParts({}, dict(unet.state_dict()), stc, dict(style.state_dict()) if composed else None))
    assert len(state) == keys
    sparse(tmp_path / name, state)
    sparse(
        tmp_path / vae,
        ldm.prefixed("first_stage_model.", decoder) | ldm.prefixed("model.diffusion_model.", unet.state_dict()),
    )
    sparse(tmp_path / "open_clip_pytorch_model.bin", {**words, **ldm.prefixed("visual.", eye.state_dict())})
    report = Engine(store=ModelStore(dtype=torch.float16, device="cpu")).check(Recipe(model=str(tmp_path), prompt="x"))
    spec = report.spec
    assert (spec.frames, spec.guidance, spec.context_width, report.size) == (16, 9.0, 1024, (256, 256))
    assert spec.compositions == (tuple(RELEASED) if composed else ()) and spec.style == composed
    assert spec.parameters == (1_411_256_900 if composed else 1_411_233_860)
    vision = outline(Source("m", tmp_path)).vision_config
    assert vision and {k: getattr(theirs.config, k) for k in vision if k != "hidden_act"} == {
        k: v for k, v in vision.items() if k != "hidden_act"
    }
    network = 1_413_435_636 if composed else 1_411_233_860
    rest = 83_653_863 + 340_387_840 + sum(p.numel() for p in theirs.parameters())  # VAE, 23 layers of words, pictures
    assert report.memory == 2 * (network + rest)
    found = ldm_keys.open_clip_visual(eye.state_dict())
    assert (
        len(found) == len(eye.state_dict()) and len(theirs.state_dict()) == len(found) + 2 * 2 * 32
    )  # three names for one


def test_which_files_of_a_release_to_take_from_the_hub() -> None:
    files = ["README.md", "configuration.json", "VQGAN_autoencoder.pth", "open_clip_pytorch_model.bin", "samples/a.gif",
             "text2video_pytorch_model.pth"]  # fmt: skip
    assert set(hub.needed(files)) == {f for f in files if f.endswith((".pth", ".bin"))}
    files = ["non_ema_141000.pth", "non_ema_228000.pth", "midas_v3_dpt_large.pth", "v2-1_512-ema-pruned.ckpt"]
    assert hub.needed(files) == ["non_ema_228000.pth", "v2-1_512-ema-pruned.ckpt"]
    assert "composer" in hub.COMPONENTS
