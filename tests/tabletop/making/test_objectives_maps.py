"""Lessons of edits and maps: what is shown is the truth, what learns gets a gradient, and what is saved loads to what was trained."""

from __future__ import annotations

import json
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
import torch

from infuse.tabletop import dataset
from infuse.tabletop.dataset import TRAIN
from infuse.tabletop.edits import change_at, darkened, edit
from infuse.tabletop.making import objectives_maps as lessons
from infuse.tabletop.making.workshop import Workshop
from infuse.tabletop.render import render
from infuse.training.low_rank import difference, save_difference
from infuse.weights.library import Library, embedded_root

SCENES = 4


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """The pictures' model is ready, and latents of a few scenes; their values are nobody's."""
    root = tmp_path_factory.mktemp("shop")
    copytree(embedded_root() / "base", root / "models" / "base")
    rng = np.random.default_rng(0)
    for name in ("latents", "changed"):
        np.save(root / f"{name}.npy", rng.normal(size=(SCENES, 4, 16, 16)).astype(np.float16))
    return Workshop(root)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dataset.Dataset:
    return dataset.load(SCENES, root=tmp_path_factory.mktemp("cache"), workers=1)


def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def learned(objective) -> dict[str, torch.Tensor]:  # type: ignore[no-untyped-def]
    """Gradients after one loss, of everything that may learn."""
    objective.loss(objective.batch(rng()), torch.Generator().manual_seed(0))[0].backward()
    named = ((f"{n}.{k}", p) for n, m in objective.modules().items() for k, p in m.named_parameters())
    return {k: p.grad for k, p in named if p.requires_grad}


@pytest.mark.slow
def test_edits_are_told_in_both_directions(shop: Workshop) -> None:
    first, second = shop.root / "latents.npy", shop.root / "changed.npy"
    objective = lessons.edit_objective(shop.base(), first, second, batch_size=2)
    assert objective.count == 2 * SCENES
    then, later = np.load(first).astype(np.float32), np.load(second).astype(np.float32)
    picks, scale = np.array([2, 3]), objective.base.vae.config.scaling_factor
    np.testing.assert_allclose(objective.latents(picks), np.stack([later[1], then[1]]) * scale, rtol=1e-6)
    said, shown = (c.source(picks, rng()) for c in objective.conditions)
    for sides, before in zip(shown, (then[1], later[1]), strict=True):
        assert sides.on.channels[0].slot == "image" and not sides.off.channels
        np.testing.assert_array_equal(sides.on.channels[0].value, before)
    one, other = change_at(TRAIN, 1)
    r = rng()
    words = [edit(one, other, r).text, edit(other, one, r).text, ""]
    with torch.no_grad():
        states = objective.base.texts.batch(words)
    for sides, state in zip(said, states, strict=False):
        torch.testing.assert_close(sides.on.context[0].values, state)


@pytest.mark.slow
def test_what_is_added_learns_and_what_is_saved_is_what_was_trained(shop: Workshop, tmp_path: Path) -> None:
    first, second = shop.root / "latents.npy", shop.root / "changed.npy"
    objective = lessons.edit_objective(shop.base(), first, second, batch_size=4)
    gradients = learned(objective)
    assert all(g is not None for g in gradients.values())
    ups = [k for k in gradients if k.endswith(".up")]
    assert len(ups) > 100 and any(k.startswith("text_encoder.") for k in ups)
    assert all(gradients[k].abs().sum() > 0 for k in ups if k.startswith("unet."))
    assert gradients["unet.conv_in.weight"].shape == (64, 8, 3, 3)
    with torch.no_grad():
        for module in objective.learn.values():
            for p in module.parameters():
                if p.requires_grad:
                    p += 0.01 * torch.randn(p.shape)
    copytree(shop.models / "base", tmp_path / "base")
    save_difference(objective.learn, tmp_path / "edit.safetensors", "tabletop", "edits")
    assert json.loads((tmp_path / "edit.card.json").read_text())["infuse_base"] == "tabletop"
    from infuse.weights.base import load_base

    parts = load_base(Library([], embedded=tmp_path).find("tabletop-edit"))
    pairs = ((parts.unet, objective.learn["unet"]), (parts.text_encoders[0], objective.learn["text_encoder"]))
    for loaded, trained in pairs:
        modules = dict(trained.named_modules())
        for key, value in loaded.named_parameters():
            module, _, leaf = key.rpartition(".")
            torch.testing.assert_close(value, getattr(modules[module], leaf), atol=2e-3, rtol=2e-3)
    x, words = torch.randn(1, 8, 16, 16), torch.randn(1, 5, 128)
    ours, theirs = (m(x, 3, words).sample for m in pairs[0])
    torch.testing.assert_close(ours, theirs, atol=0.05, rtol=0.05)


@pytest.mark.slow
def test_the_file_that_lies_here_is_such_a_difference(shop: Workshop) -> None:
    from infuse.weights.formats import read_header

    wide = lessons.depth_objective(shop.base(), dataset.Dataset(1, *[np.zeros((1, 1))] * 4), shop.root / "latents.npy")
    ours = {k: tuple(t.shape) for k, t in difference(wide.learn["unet"], "unet").items()}
    assert ours == read_header(embedded_root() / "depth.safetensors").shapes()


@pytest.mark.slow
def test_depths_are_shown_as_the_condition_says_them(shop: Workshop, data: dataset.Dataset) -> None:
    objective = lessons.depth_objective(shop.base(), data, shop.root / "latents.npy", batch_size=2)
    (sides,) = objective.conditions[1].source(np.array([1]), rng())
    value = sides.on.channels[0].value
    assert value.shape == (1, 16, 16) and (value.min(), value.max()) == (-1, 1) and not sides.off.channels
    assert value[0, -1].mean() > value[0, 4].mean(), "the table's near edge is nearer than the wall"
    assert all(g is not None for g in learned(objective).values())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["depths", "segments"])
def test_branches_learn_beside_a_base_that_does_not(name: str, shop: Workshop, data: dataset.Dataset) -> None:
    objective = getattr(lessons, f"{name}_objective")(shop.base(), data, shop.root / "latents.npy", batch_size=2)
    gradients = learned(objective)
    assert gradients and all(g is not None for g in gradients.values())
    assert not any(p.requires_grad for p in objective.base.network.unet.parameters())
    if name == "depths":
        hints = torch.stack([s.on.residuals[0].hint for s in objective.conditions[1].source(np.arange(4), rng())])
        plain = torch.from_numpy(np.array(data.inverse_depth[:4])) / 255
        same = [torch.equal(h[0], d) for h, d in zip(hints, plain, strict=True)]
        assert any(same) and not all(same) and all(h.max() == 1 for h, s in zip(hints, same, strict=True) if not s)


def test_changed_views_are_what_the_words_speak_of(tmp_path: Path) -> None:
    views = lessons.changed_views(2, tmp_path, workers=1)
    for i in range(2):
        view = change_at(TRAIN, i)[1]
        wanted = render(view.scene, (128, 128)).rgb
        np.testing.assert_array_equal(views[i], darkened(wanted) if view.dark else wanted)
