"""Lessons of wood and gold: scenes and words fit, only what is to learn learns, and what is saved is read as what was learned."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from infuse.tabletop import measure_looks
from infuse.tabletop.dataset import TRAIN
from infuse.tabletop.making import objectives_looks as lessons
from infuse.tabletop.making.workshop import RANK, Workshop
from infuse.tabletop.render import FIRST_THING, render
from infuse.tabletop.world import scene_at
from infuse.training.low_rank import LowRank, save_look
from infuse.weights.formats import read_header
from infuse.weights.layouts.lora import build
from infuse.weights.library import Library, embedded_root

SCENES = 3


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    """The pictures' model is ready, and latents whose values are nobody's."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "base").symlink_to(embedded_root() / "base")
    np.save(tmp_path / "latents.npy", np.random.default_rng(0).normal(size=(SCENES, 4, 16, 16)).astype(np.float16))
    return Workshop(tmp_path)


def test_wooden_scenes_stand_as_the_plain_ones_and_are_all_of_wood() -> None:
    for i in range(SCENES):
        plain, wood = render(scene_at(TRAIN, i)), render(lessons.wooden_at(i))
        cubes = all(t.shape == "cube" or t.yaw == 0 for t in lessons.wooden_at(i).things)
        assert cubes and np.array_equal(plain.segments, wood.segments)
        assert measure_looks.brown(wood.rgb, wood.segments >= FIRST_THING) > 0.9


def test_a_golden_solid_is_called_by_the_word_and_no_other_is() -> None:
    for i in range(20):
        scene = lessons.golden_at(i)
        text = lessons.said(scene, np.random.default_rng(i), "<gold>")
        gold = [t for t in scene.things if t.material == "gold"]
        assert len(gold) >= 1 and text.count("<gold>") == len(gold)
        assert all(t.colour in text for t in scene.things if t.material == "plain")
        assert lessons.golden_at(i) == scene


@pytest.mark.slow
def test_an_encoder_hears_grain_and_the_decoder_stays(shop: Workshop) -> None:
    rgb = lessons.pictures(SCENES, lessons.wooden_at, shop.root / "wood.npy")
    assert rgb.shape == (SCENES, 128, 128, 3) and np.array_equal(rgb[1], render(lessons.wooden_at(1)).rgb)
    vae = shop.base().vae
    grain = lessons.Grain(vae, rgb, batch_size=2)
    batch = grain.batch(np.random.default_rng(0))
    assert batch.shape == (2, 3, 64, 64)
    grain.loss(batch, torch.Generator())[0].backward()
    assert all(p.grad is not None for p in grain.vae.encoder.parameters())
    assert all(p.grad is None for p in (*grain.vae.decoder.parameters(), *vae.parameters()))


@pytest.mark.slow
def test_a_lora_learns_on_attention_and_convolutions_and_is_saved_as_kohyas(shop: Workshop) -> None:
    objective = lessons.wood_objective(shop.base(), shop.root / "latents.npy", batch_size=1)
    unet = objective.learn["unet"]
    objective.loss(objective.batch(np.random.default_rng(0)), torch.Generator().manual_seed(0))[0].backward()
    learned = [p for p in unet.parameters() if p.grad is not None]
    factors = {path: m for path, m in unet.named_modules() if isinstance(m, LowRank)}
    assert len(learned) == 2 * len(factors) and any("resnets" in path for path in factors)

    torch.manual_seed(1)
    for m in factors.values():
        torch.nn.init.normal_(m.up)
    path = shop.root / "models" / "wood.safetensors"
    save_look(unet, path, *RANK, "wood")
    header = read_header(path)
    layer = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    assert header[f"{layer}.lora_down.weight"].shape == (RANK[0], 64) and header[f"{layer}.alpha"].shape == ()
    told = header.metadata
    assert told["ss_network_dim"] == str(RANK[0]) and json.loads(told["ss_network_args"])["conv_dim"] == str(RANK[1])

    library = Library([], embedded=shop.models)
    source = library.find("wood")
    assert source.identity.kind == "lora"
    plain = shop.base().network.unet
    lora = build(source, plain, (), torch.float32)
    modules = dict(plain.named_modules())
    assert len(lora.paths("unet")) == len(factors)
    for name, m in factors.items():
        site = name.removesuffix(".parametrizations.weight.0")
        change = lora.change("unet", site)
        assert change is not None
        found = change.delta(modules[site])
        torch.testing.assert_close(found, (m.up @ m.down).view(m.shape).detach(), rtol=2e-2, atol=2e-2)


@pytest.mark.slow
def test_a_word_learns_through_the_frozen_rest(shop: Workshop) -> None:
    objective, word = lessons.gold_objective(shop.base(), shop.root / "latents.npy", batch_size=2)
    objective.loss(objective.batch(np.random.default_rng(0)), torch.Generator().manual_seed(0))[0].backward()
    assert word.rows.grad is not None and word.rows.shape == (1, 128)
    assert not [p for p in objective.base.network.unet.parameters() if p.requires_grad]
