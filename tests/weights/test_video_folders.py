"""Video bases in folders: those of diffusers, infuse's own `composer/` beside them, and a release that becomes one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import tiny
from infuse import Recipe
from infuse.encoders.kit import Kit
from infuse.errors import WeightsError
from infuse.network.stc import Composer, STCEncoder, StyleMLP
from infuse.network.video import VideoNetwork
from infuse.weights.base import load_base
from infuse.weights.layouts.composer_folder import save_composer, to_folder
from infuse.weights.library import Library
from infuse.weights.outline import outline
from infuse.weights.source import Source

from .video_files import ASKED, engine, lender, outlined, release, same

pytestmark = pytest.mark.slow  # half of the fast suite's time, for loaders that seldom change


def modelscope(folder: Path, in_channels: int = 4, **index: Any) -> Path:
    """A text-to-video folder as the Hub has it."""
    parts = tiny.video(in_channels).parts
    for name in ("unet", "vae", "text_encoder", "tokenizer"):
        parts[name].save_pretrained(folder / name)
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(tiny.SCHEDULE))
    said = {
        "_class_name": "TextToVideoSDPipeline",
        "unet": ["diffusers", "UNet3DConditionModel"],
        "infuse_family": "sd1",
    }
    (folder / "model_index.json").write_text(json.dumps({**said, **index}))
    return folder


def test_a_text_to_video_folder_runs_as_its_modules_in_memory(tmp_path: Path) -> None:
    folder = modelscope(tmp_path / "t2v", infuse_frames=4)
    source = Library(offline=True).find(str(folder))
    found = source.identity
    assert (found.kind, found.variant, found.layout, found.prediction) == ("base", "video", "diffusers", "epsilon")
    spec = outlined(source).spec
    assert (spec.frames, spec.guidance, spec.native_size) == (4, 9.0, 32)
    assert outline(Source("plain", modelscope(tmp_path / "plain"))).spec.frames == 16
    made = tiny.engine(tiny.video())
    ours, theirs = made.run_all(Recipe(model=str(folder), **ASKED), Recipe(model="tiny", **ASKED))
    torch.testing.assert_close(ours.latents, theirs.latents, rtol=1e-5, atol=1e-5)
    assert isinstance(made.store.base(str(folder)).network, VideoNetwork)


def test_a_video_unet_over_a_borrowed_rest(tmp_path: Path) -> None:
    lender(tmp_path / "sd21")
    tiny.video_unet().save_pretrained(tmp_path / "mine" / "unet")
    (tmp_path / "mine" / "model_index.json").write_text('{"infuse_base": "../sd21", "infuse_guidance": 6}')
    parts = outlined(Library(offline=True).find(str(tmp_path / "mine")))
    assert parts.spec.frames == 16 and parts.spec.guidance == 6 and parts.composer is None


def composer(style: int | None = 32, dim: int = 8, layers: int = 2) -> Composer:
    torch.manual_seed(8)
    stc = nn.ModuleDict({"motion": STCEncoder(2, dim, layers), "depth": STCEncoder(1, dim, layers)})
    return Composer(stc.eval(), StyleMLP(style) if style else None)


@pytest.mark.parametrize("style", [32, None])
def test_infuse_s_own_layout(style: int | None, tmp_path: Path) -> None:
    folder, ours = modelscope(tmp_path / "m", 12), composer(style)
    save_composer(folder, ours)
    config = {"conditions": {"motion": 2, "depth": 1}, "layers": 2, "dim": 8, "style": style}
    assert json.loads((folder / "composer" / "config.json").read_text()) == config
    source = Library(offline=True).find(str(folder))
    assert source.identity.variant == "videocomposer"
    parts = outlined(source)
    assert (parts.spec.compositions, parts.spec.style) == (("motion", "depth"), style is not None)
    same(parts.composer.stc, ours.stc)
    if style:
        same(parts.composer.style, ours.style)
    plain = Source("m", modelscope(tmp_path / "plain", 12)).digest
    assert plain != source.digest


def test_composer_letters(tmp_path: Path) -> None:
    folder = modelscope(tmp_path / "m", 12)
    for wrong, says in (
        (composer(dim=4), "encoders of 4 channels .* takes 8"),
        (composer(style=48), "style network of width 48"),
    ):
        save_composer(folder, wrong)
        with pytest.raises(WeightsError, match=says):
            engine().check(Recipe(model=str(folder)))
    place = save_composer(folder, composer())
    config = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps({**config, "conditions": {"depth": 1, "motion": 2, "sketch": 1}}))
    with pytest.raises(WeightsError, match="lacks the encoder of sketch"):
        outline(Source("m", folder))
    (place / "config.json").write_text(json.dumps({**config, "conditions": {"depth": 1}}))
    with pytest.raises(WeightsError, match="no place in the network"):
        load_base(folder)
    (place / "config.json").write_text("{}")
    with pytest.raises(WeightsError, match='does not say its "conditions"'):
        outline(Source("m", folder))


def test_a_release_becomes_a_folder_and_stays_the_same(tmp_path: Path) -> None:
    loose = load_base(release(tmp_path / "r"))
    root = to_folder(loose, tmp_path / "folder")
    parts = outlined(Library(offline=True).find(str(root)))
    assert replace(parts.spec, name="", config={}) == replace(loose.spec, name="", config={})
    for name in ("unet", "vae", "image_encoder"):
        same(getattr(parts, name), getattr(loose, name))
    same(parts.text_encoders[0], loose.text_encoders[0])
    same(parts.composer.stc, loose.composer.stc)
    same(parts.composer.style, loose.composer.style)
    assert parts.tokenizers[0]("a cube").input_ids == loose.tokenizers[0]("a cube").input_ids
    assert parts.tokenizers[0].pad_token_id == 0 and parts.scheduler_config == loose.scheduler_config
    with pytest.raises(WeightsError, match="makes pictures"):
        to_folder(replace(loose, spec=replace(loose.spec, frames=0)), tmp_path / "no")


def test_what_the_encoders_say_to_each_window() -> None:
    clip, ours = tiny.video(12), composer()
    spec = replace(clip.base.network.spec, compositions=ours.names, style=True)
    base = replace(
        clip.base, network=VideoNetwork(clip.base.network.unet, spec), composer=ours.to("cpu", torch.float32)
    )
    kit = Kit(base, (32, 24), None, frames=6, windows=((0, 4), (2, 6)))
    video = torch.rand(1, 6, 50, 70)
    said = kit.stc("depth", video)
    assert set(said.pieces) == {(0, 4), (2, 6)}
    with torch.no_grad():
        for (a, b), piece in said.pieces.items():
            assert piece.shape == (8, b - a, 12, 16) and not piece.requires_grad
            torch.testing.assert_close(piece, ours.stc["depth"](video[None, :, a:b], (12, 16))[0])
        assert ours.style is not None
        zeros = ours.style(torch.zeros(1, 32))
        torch.testing.assert_close(kit.style(None), zeros)
        assert kit.style(torch.ones(32)).shape == (1, 32) and not torch.equal(kit.style(torch.ones(32)), zeros)
    whole = Kit(base, (32, 24), None, frames=6).stc("motion", torch.rand(2, 6, 24, 32))
    assert [tuple(p.shape) for p in whole.pieces.values()] == [(8, 6, 12, 16)]
