"""The video stage of the tabletop runs through all of its lessons, resumes each, and goes on from what it left."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from shutil import copytree, rmtree

import numpy as np
import pytest
import torch

from infuse.tabletop import clips as tabletop_clips
from infuse.tabletop import dataset
from infuse.tabletop.making.stages import STAGES
from infuse.tabletop.making.workshop import PLANS, Workshop
from infuse.weights.formats import read_header
from infuse.weights.library import Library, embedded_root

LESSONS = ("video-text", "video", "video-all", "video-held")
CLIPS = 8


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    """A workshop in which the pictures' model is ready, and every lesson lasts one step."""
    copytree(embedded_root() / "base", tmp_path / "models" / "base")
    load = tabletop_clips.load_clips
    monkeypatch.setattr(tabletop_clips, "load_clips", lambda *a, **k: load(*a, **k, workers=1))
    plans = PLANS | {name: replace(PLANS[name], steps=1) for name in LESSONS}
    return Workshop(tmp_path, plans=plans, clips=CLIPS)


@pytest.mark.slow
def test_the_video_stage_goes_through_all_of_its_lessons(shop: Workshop) -> None:
    assert STAGES["video"](shop)
    runs = [shop.root / "runs" / name / "checkpoint-00000001" for name in LESSONS]
    assert all(run.is_dir() for run in runs)
    learned = [set(read_header(run / "weights.safetensors")) for run in runs]
    assert learned[0] < learned[1] and any(k.startswith("unet.conv_in.learned") for k in learned[1])
    assert any("resnets.0.conv1" in k for k in learned[2] - learned[1]), "the last lesson is about everything"

    folder = shop.models / "video"
    assert "infuse_adds" not in json.loads((folder / "model_index.json").read_text())
    left = shop.base("tabletop-video")
    assert left.composer is not None and left.spec.channel_slots

    before = {p: p.stat().st_mtime_ns for run in runs for p in run.iterdir()}
    assert STAGES["video"](shop), "resumed where nothing is left to do"
    assert all(p.stat().st_mtime_ns == at for p, at in before.items())
    again = shop.base("tabletop-video").network.unet.state_dict()
    assert all(torch.equal(t, again[k]) for k, t in left.network.unet.state_dict().items())


@pytest.mark.slow
def test_without_checkpoints_it_goes_on_from_the_model(shop: Workshop) -> None:
    copytree(embedded_root() / "video", shop.models / "video")
    assert STAGES["video"](shop)
    assert sorted(p.name for p in (shop.root / "runs").iterdir()) == ["video-all", "video-held"]


@pytest.mark.slow
def test_what_only_adds_is_saved_as_that(shop: Workshop) -> None:
    shop.learn_video = "attention"
    assert STAGES["video"](shop)
    assert json.loads((shop.models / "video" / "model_index.json").read_text())["infuse_adds"] == ["unet"]
    added = read_header(shop.models / "video" / "unet" / "diffusion_pytorch_model.safetensors")
    assert not any("resnets.0.conv1" in k for k in added) and any(".attn1." in k for k in added)
    rmtree(shop.root / "runs")
    assert shop.base("tabletop-video").composer is not None


@pytest.mark.slow
def test_what_is_told_by_edits_and_maps_is_made_and_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each stage with one step: what it leaves loads as what it is, and has learned something."""
    copytree(embedded_root() / "base", tmp_path / "models" / "base")
    names = ("edit", "depth", "depths", "segments")
    shop = Workshop(tmp_path, plans=PLANS | {name: replace(PLANS[name], steps=1, warmup=1) for name in names})
    pictures = dataset.load(3, root=tmp_path / "cache", workers=1)
    monkeypatch.setattr(Workshop, "pictures", property(lambda self: pictures))
    rng = np.random.default_rng(0)
    np.save(tmp_path / "latents.npy", rng.normal(size=(3, 4, 16, 16)).astype(np.float16))
    assert all(STAGES[name](shop) for name in names)
    library = Library([], embedded=shop.models)
    kinds = {name: library.find(name).identity for name in ("tabletop-edit", "tabletop-depth", "depths", "segments")}
    assert {n: (i.kind, i.variant) for n, i in kinds.items()} == {
        "tabletop-edit": ("base", "pix2pix"), "tabletop-depth": ("base", "depth"), "depths": ("controlnet", "full"),
        "segments": ("t2i_adapter", "full"),
    }  # fmt: skip
    first = shop.base().network.unet.state_dict()["conv_in.weight"]
    for name, channels in (("tabletop-edit", 8), ("tabletop-depth", 5)):
        wide = shop.base(name).network.unet.state_dict()["conv_in.weight"]
        assert wide.shape[1] == channels and (wide[:, 4:] != 0).any() and (wide[:, :4] - first).abs().max() < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["wood", "gold"])
def test_looks_are_learned_from_their_own_pictures(stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copytree(embedded_root() / "base", tmp_path / "models" / "base")
    (tmp_path / "cache").mkdir()
    monkeypatch.setattr("infuse.tabletop.making.stages.LOOKS", 3)
    lessons = ("grain", "wood", "gold")
    shop = Workshop(tmp_path, plans=PLANS | {name: replace(PLANS[name], steps=1) for name in lessons})
    assert STAGES[stage](shop)
    library = Library([], embedded=shop.models)
    kind = {"wood": "lora", "gold": "textual_inversion"}[stage]
    assert library.find(stage).identity.kind == kind and library.names()[stage]
    runs = {p.name for p in (tmp_path / "runs").iterdir()}
    assert runs == {"wood": {"grain", "wood"}, "gold": {"gold"}}[stage]
    assert np.load(tmp_path / f"{stage}.npy").shape == (3, 4, 16, 16)
