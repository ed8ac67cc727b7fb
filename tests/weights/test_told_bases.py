"""Bases that are told more beside their latents, from the files they come in: depth2img, InstructPix2Pix, x4 upscaler, unCLIP."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import StableUnCLIPImageNormalizer
from some import some
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from infuse.weights.base import BaseParts, load_base
from infuse.weights.estimate import estimate
from infuse.weights.outline import outline

from . import ldm
from .test_base import checkpoint, folder, outlined, same
from .video_files import visual

WIDTH = 32
"""Projection of the eye."""
UNCLIP = {
    "class_embed_type": "projection",
    "projection_class_embeddings_input_dim": 2 * WIDTH,
    "cross_attention_dim": 1024,
}
KINDS: dict[str, tuple[str, int, dict[str, Any], dict[str, int]]] = {
    "depth": ("sd2", 5, {}, {}),
    "image": ("sd1", 8, {}, {}),
    "image, SDXL": ("sdxl", 8, {}, {"text_embeds": 32, "time_ids": 6}),
    "lowres": ("sd2", 7, {"num_class_embeds": 30, "attention_head_dim": 8}, {"noise_level": 1}),
    "image_embeds": ("sd2", 4, UNCLIP, {"image_embeds": 2 * WIDTH}),
}  # fmt: skip


def stats() -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(5)
    return torch.randn(1, WIDTH, generator=g), torch.rand(1, WIDTH, generator=g) + 0.5


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "layout"), some([(k, at) for k in KINDS for at in ("one file", "a folder")],
                                                  quick=[("lowres", "one file"), ("image", "a folder")]))  # fmt: skip
def test_a_base_of_either_layout_is_what_it_was_and_knows_what_it_hears(kind: str, layout: str, tmp_path: Path) -> None:
    kin, channels, config, heard = KINDS[kind]
    state, made = checkpoint(kin, channels, **config)
    place = ldm.save(tmp_path / "m.safetensors", state) if layout == "one file" else folder(tmp_path / "m", made)
    if layout == "a folder" and kin == "sdxl":
        made["texts"][1].save_pretrained(place / "text_encoder_2")
    parts = load_base(place)
    outlined(parts)
    same(parts.unet, made["unet"])
    assert parts.spec.embedding_slots == heard and not parts.spec.unheard
    assert [s.name for s in parts.spec.channel_slots] == ([] if channels == 4 else [kind.split(",")[0]])
    own = (1e-4, 0.02) if kind == "lowres" and layout == "one file" else (0.00085, 0.012)  # the upscaler's own schedule
    assert layout == "a folder" or (parts.scheduler_config["beta_start"], parts.scheduler_config["beta_end"]) == own
    assert parts.spec.guidance == {"lowres": 9.0, "image_embeds": 10.0, "image, SDXL": 5.0}.get(kind, 7.5)


def told_unclip(parts: BaseParts) -> None:
    """It has an eye that its spec is told by, and the numbers under which embeddings are noised."""
    outlined(parts)
    mean, std = stats()
    assert torch.equal(parts.image_noise.mean, mean[0]) and torch.equal(parts.image_noise.std, std[0])  # type: ignore[union-attr]
    assert not parts.notes, parts.notes


@pytest.mark.slow
def test_an_unclip_s_one_file_has_its_eye_inside(tmp_path: Path) -> None:
    state, _ = checkpoint("sd2", 4, **UNCLIP)
    eye, (mean, std) = visual(), stats()
    state |= ldm.prefixed("embedder.model.visual.", eye.state_dict()) | {
        "embedder.model.logit_scale": torch.tensor(4.6)
    }
    state |= {
        "noise_augmentor.data_mean": mean,
        "noise_augmentor.data_std": std,
        "noise_augmentor.betas": torch.zeros(1000),
    }
    parts = load_base(ldm.save(tmp_path / "unclip.safetensors", state))
    told_unclip(parts)
    side = parts.image_encoder.config.image_size  # type: ignore[union-attr]
    assert parts.feature_extractor.crop_size["height"] == side  # type: ignore[union-attr]
    pixels = torch.randn(2, 3, side, side)
    with torch.no_grad():
        torch.testing.assert_close(parts.image_encoder(pixels).image_embeds, eye(pixels), rtol=1e-5, atol=1e-6)  # type: ignore[misc]
    counted = estimate(parts.source.header, "float32")
    seen = sum(t.numel() * 4 for t in eye.state_dict().values())
    del parts
    bare = load_base(
        ldm.save(tmp_path / "bare.safetensors", {k: t for k, t in state.items() if not k.startswith("embedder.")})
    )
    assert counted - estimate(bare.source.header, "float32") == seen, "the eye is loaded, so it counts"
    assert bare.image_encoder is None and outline(bare.source).vision_config is None


@pytest.mark.slow
def test_an_unclip_s_folder_has_its_eye_and_its_numbers(tmp_path: Path) -> None:
    _, made = checkpoint("sd2", 4, **UNCLIP)
    made["eye"] = ldm.random(CLIPVisionModelWithProjection(CLIPVisionConfig(hidden_size=32, intermediate_size=64, image_size=28,
                             num_hidden_layers=2, num_attention_heads=2, patch_size=14, projection_dim=WIDTH)))  # fmt: skip
    root = folder(tmp_path / "m", made)
    net = StableUnCLIPImageNormalizer(WIDTH)
    net.mean.data, net.std.data = stats()
    net.save_pretrained(root / "image_normalizer")
    (root / "image_noising_scheduler").mkdir()
    (root / "image_noising_scheduler" / "scheduler_config.json").write_text(
        json.dumps({"beta_schedule": "squaredcos_cap_v2"})
    )
    parts = load_base(root)
    told_unclip(parts)
    same(parts.image_encoder, made["eye"])  # type: ignore[arg-type]
    before = parts.digest
    net.mean.data += 1
    net.save_pretrained(root / "image_normalizer")
    assert load_base(root).digest != before, "these numbers are a part of the model"


def test_a_vit_l_without_its_numbers_is_said() -> None:
    """The original file leaves them out; ViT-H was trained without any."""
    import warnings

    from infuse.weights.layouts.unclip import load_noise
    from infuse.weights.source import Source

    class Bare(Source):
        is_folder = False  # type: ignore[assignment]
        header = {}  # type: ignore[assignment]

    with pytest.warns(match="ViT-L|mean and spread"):
        noise = load_noise(Bare("l", Path("l.ckpt")), 768)
    assert not noise.mean.any() and bool((noise.std == 1).all())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_noise(Bare("h", Path("h.ckpt")), 1024)


def test_openai_s_eye_has_openai_s_activation() -> None:
    from infuse.weights.layouts.unclip import activation

    shapes = {"visual_projection.weight": (768, 1024)}
    assert activation(shapes) == "quick_gelu" and activation({"visual_projection.weight": (1024, 1280)}) == "gelu"
