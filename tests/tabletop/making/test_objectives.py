"""The tabletop's objectives: batches are pure in their generator, targets are the truth, and every module gets a gradient."""

from pathlib import Path

import numpy as np
import pytest
import torch

from infuse.tabletop import dataset
from infuse.tabletop.captions import world_words
from infuse.tabletop.judge import CELL, COLOUR_NAMES, SHAPE_NAMES, Judge
from infuse.tabletop.making.models import VAGUE, vaguely
from infuse.tabletop.making.objectives_clip import ClipObjective
from infuse.tabletop.making.objectives_judge import JudgeObjective, accuracy
from infuse.tabletop.making.objectives_vae import VaeObjective, latent_means, psnr, tabletop_vae, thumbnail, to_input
from infuse.tabletop.tokenizer import build_tokenizer
from infuse.tabletop.world import SHAPES


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dataset.Dataset:
    return dataset.load(4, root=tmp_path_factory.mktemp("cache"), workers=1)


def rng() -> np.random.Generator:
    return np.random.default_rng(5)


@pytest.mark.slow
def test_vae_batches_and_gradients(data: dataset.Dataset) -> None:
    objective = VaeObjective(tabletop_vae(), data, batch_size=2, crop=32, anchor=1.0)
    batch = objective.batch(rng())
    assert torch.equal(batch, objective.batch(rng())) and batch.shape == (2, 3, 32, 32)
    objective.loss(batch, torch.Generator().manual_seed(0))[0].backward()
    for module in objective.modules().values():
        assert all(p.grad is not None for p in module.parameters())


def test_decoder_only_leaves_the_encoder_alone(data: dataset.Dataset) -> None:
    objective = VaeObjective(tabletop_vae(), data, batch_size=2, crop=32, decoder_only=True, noise=0.1)
    assert set(objective.modules()) == {"decoder", "post_quant_conv"}
    objective.loss(objective.batch(rng()), torch.Generator().manual_seed(0))[0].backward()
    assert all(p.grad is None for p in objective.vae.encoder.parameters())


def test_latents_have_stable_diffusions_layout(data: dataset.Dataset) -> None:
    latents = latent_means(tabletop_vae(), data)
    assert latents.shape == (4, 4, 16, 16) and latents.dtype == np.float16
    pictures = to_input(data.rgb)
    assert psnr(pictures, pictures + 0.02) == pytest.approx(40, abs=0.1)
    assert thumbnail(pictures).shape == (4, 3, 16, 16)


def test_judge_is_told_the_truth(data: dataset.Dataset) -> None:
    objective = JudgeObjective(Judge(), data, batch_size=4)
    batch = objective.batch(rng())
    assert torch.equal(batch.images, objective.batch(rng()).images)
    picks = rng().integers(4, size=4)
    for n, index in enumerate(picks):
        scene = data.scene(int(index))
        centres = (batch.heat[n] == 1).nonzero().tolist()
        found = {
            (COLOUR_NAMES[int(batch.attributes[n, 0, r, c])], SHAPE_NAMES[int(batch.attributes[n, 1, r, c])])
            for r, c in centres
        }
        assert found == {(t.colour, t.shape) for t in scene.things}
        for r, c in centres:
            left, _, right, _ = batch.box[n, :, r, c].tolist()
            assert abs(left - right) <= CELL  # the centre is in the middle of its box, to a cell
    total, numbers = objective.loss(batch, torch.Generator())
    total.backward()
    assert all(np.isfinite(v) for v in numbers.values())
    assert all(p.grad is not None for p in objective.judge.parameters())


def test_an_untrained_judge_scores_low(data: dataset.Dataset) -> None:
    assert accuracy(Judge(), data, data.rgb)["picture"] == 0


def test_clip_batches_and_gradients(data: dataset.Dataset, tmp_path: Path) -> None:
    objective = ClipObjective(build_tokenizer(tmp_path), data, batch_size=3)
    batch = objective.batch(rng())
    again = objective.batch(rng())
    assert all(torch.equal(batch[k], again[k]) for k in batch) and batch["pixel_values"].shape == (3, 3, 64, 64)
    objective.loss(batch, torch.Generator())[0].backward()
    assert objective.temperature.log.grad is not None and objective.questions.pairs.weight.grad is not None


@pytest.mark.slow
def test_beside_an_image_prompt_some_captions_name_nothing() -> None:
    draw = rng()
    said = [vaguely(i, draw).replace(",", " ,").replace(":", " :").split() for i in range(400)]
    named = {*SHAPES, "ball", "block"}
    vague = [words for words in said if not named.intersection(words)]
    assert len(vague) / len(said) == pytest.approx(VAGUE, abs=0.1)
    assert {w for words in vague for w in words} <= set(world_words())
    assert len({tuple(words) for words in vague}) > 8
