"""Bases that want to be told more than any condition says: a letter names them before anything is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from some import some

from infuse import Recipe
from infuse.engine.engine import Engine
from infuse.errors import WeightsError
from infuse.network.spec import WANTS, NetworkSpec
from infuse.weights.outline import outline
from infuse.weights.source import Source

from . import full, ldm
from .test_base import checkpoint, folder

KINDS: dict[str, tuple[str, int, dict[str, Any], tuple[str, ...]]] = {
    "six channels": ("sd1", 6, {}, ("a network of 6 input channels", "2 channels beside the 4 of its latents")),
    "thirteen channels": ("sd1", 13, {}, ("a network of 13 input channels",)),
    "class-conditioned": (
        "sd1",
        4,
        {"num_class_embeds": 10},
        ("a class-conditioned model", "a class for every picture"),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "layout"),
    some(
        [(k, at) for k in KINDS for at in ("one file", "a folder")],
        quick=[("six channels", "one file"), ("class-conditioned", "a folder")],
    ),
)
def test_a_base_that_nobody_can_tell_what_it_wants(kind: str, layout: str, tmp_path: Path, monkeypatch: Any) -> None:
    def loaded(*_: Any, **__: Any) -> None:
        raise AssertionError("a network was loaded")

    monkeypatch.setattr("infuse.weights.base.load_base", loaded)
    kin, channels, config, words = KINDS[kind]
    state, made = checkpoint(kin, channels, **config)
    place = ldm.save(tmp_path / "m.safetensors", state) if layout == "one file" else folder(tmp_path / "m", made)
    with pytest.raises(WeightsError) as caught:
        Engine(device="cpu").run(Recipe(model=str(place), prompt="x"))
    assert caught.value.field == "model"
    assert all(w in caught.value.message for w in (*words, "no condition for that", "Choose a base")), (
        caught.value.message
    )


@pytest.mark.parametrize("name", full.CONFIGS)
def test_of_the_published_bases_these_can_run(name: str) -> None:
    spec = NetworkSpec.from_unet_config(name, full.unet(name).config)
    assert not spec.unheard
    wanted = {"pix2pix": "image", "sd2-depth": "depth", "unclip": "image_embeds", "upscaler": "lowres"}.get(name)
    slots = {s.name for s in spec.channel_slots} | set(spec.embedding_slots)
    assert {s for s in slots if s in WANTS} == ({wanted} if wanted else set())
    assert ("noise_level" in slots) == (name == "upscaler")


def test_another_pipeline_s_network_is_named() -> None:
    kandinsky = {"block_out_channels": [8], "cross_attention_dim": 768, "in_channels": 4, "out_channels": 8,
                 "addition_embed_type": "image", "encoder_hid_dim_type": "image_proj"}  # fmt: skip
    assert "Kandinsky" in NetworkSpec.from_unet_config("k", kandinsky).unheard


@pytest.mark.slow
def test_a_refiner_s_folder_is_the_refiner_and_what_a_folder_lacks_is_named(tmp_path: Path) -> None:
    _, made = checkpoint("sdxl", cross_attention_dim=1280)
    root = folder(tmp_path / "refiner", made)
    with pytest.raises(WeightsError, match="the SDXL refiner"):
        outline(Source("m", root))
    _, made = checkpoint("sd1")
    for part in ("vae", "text_encoder"):
        root = folder(tmp_path / part, made)
        (root / part).rename(tmp_path / f"{part}-elsewhere")
        with pytest.raises(WeightsError, match=f"has no {part}/ folder"):
            outline(Source("m", root))
