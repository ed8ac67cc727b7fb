"""A TAESD shows what becomes of a picture: both layouts, whole or the decoder alone, in the numbers of diffusers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import disk
import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny
from safetensors.torch import save_file
from weights import ldm

import tiny
from infuse import Recipe, WeightsError
from infuse.engine.engine import Engine
from infuse.engine.model_store import ModelStore
from infuse.engine.preview import preview
from infuse.weights.layouts import taesd
from infuse.weights.source import Source

LAYOUTS = ("folder", "diffusers", "original", "prefixed", "decoder", "pickle")


def small(levels: tuple[int, ...] = (2, 1)) -> AutoencoderTiny:
    """Of two levels, as the tiny VAE has."""
    n = len(levels)
    return ldm.random(AutoencoderTiny(encoder_block_out_channels=(64,) * n, decoder_block_out_channels=(64,) * n,
                                      num_encoder_blocks=levels[::-1], num_decoder_blocks=levels))  # fmt: skip


def written(net: AutoencoderTiny, layout: str, folder: Path) -> Path:
    """As diffusers saves it, or as its first repository names it: a clamp that has no weights comes before the rest."""
    state = {k: v.contiguous() for k, v in net.state_dict().items()}
    if layout == "folder":
        net.save_pretrained(folder / "taesd")
        return folder / "taesd"
    if layout == "diffusers":
        save_file(state, folder / "taesd.safetensors")
        return folder / "taesd.safetensors"
    heads = {"original": ("encoder.", "decoder."), "prefixed": ("taesd_encoder.", "taesd_decoder."), "decoder": ("", ""), "pickle": ("", "")}[layout]  # fmt: skip
    out: dict[str, torch.Tensor] = {}
    for key, value in state.items():
        side, _, at, rest = key.split(".", 3)
        if side == "decoder":
            out[f"{heads[1]}{int(at) + 1}.{rest}"] = value
        elif layout in ("original", "prefixed"):
            out[f"{heads[0]}{at}.{rest}"] = value
    path = folder / ("taesd_decoder.pth" if layout == "pickle" else "taesd_decoder.safetensors")
    torch.save(out, path) if layout == "pickle" else save_file(out, path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("levels", [(2, 1), (3, 3, 3, 1)])
def test_it_decodes_as_autoencoder_tiny(layout: str, levels: tuple[int, ...], tmp_path: Path) -> None:
    net, z = small(levels), torch.randn(2, 4, 6, 5, generator=torch.Generator().manual_seed(0))
    source = Source("x", written(net, layout, tmp_path))
    assert taesd.checked(source)[1] == levels and taesd.factor(levels) == 2 ** (len(levels) - 1)
    assert torch.equal(taesd.load(source, torch.float32)(z), net.decode(z).sample)


def engine(**options: Any) -> Engine:
    return tiny.engine(tiny.base("sd1"), **options)


def ask(model: str | None = None) -> Recipe:
    return Recipe(prompt="x", width=32, height=32, steps=2, guidance=1, model=model)


@pytest.mark.slow
def test_a_ticket_shows_what_the_decoder_makes_of_it(tmp_path: Path) -> None:
    net = small()
    path = written(net, "diffusers", tmp_path)
    e = engine(preview=str(path))
    ticket = e.submit(ask())
    assert ticket.preview() == ()
    e.step()
    (seen,) = ticket.preview()
    from infuse.engine.preview import denoised

    job = ticket.jobs[0]
    assert job.last is not None
    z = denoised(*job.last, job.plan.scheduler.alphas_cumprod, "epsilon")
    right = (net.decode(z[None]).sample[0].clamp(-1, 1) / 2 + 0.5).permute(1, 2, 0).detach().numpy()
    assert seen.size == (128, 128)  # 8 pixels for each of 16 x 16 places
    shrunk = np.asarray(seen.resize((32, 32))) / 255
    assert np.abs(shrunk - right).mean() < 0.1 and preview(z, "sd1").tobytes() != seen.tobytes()
    assert str(path) in e.store.loaded
    plain = engine().run(ask())
    assert torch.equal(ticket.result().latents, plain.latents)


@pytest.mark.slow
def test_one_beside_the_model_is_found(tmp_path: Path) -> None:
    disk.base(tmp_path / "base", image_encoder=False)
    e = Engine(str(tmp_path / "base"), store=ModelStore(dtype="float32", device="cpu"))
    ticket = e.submit(ask())
    e.step()
    (linear,) = ticket.preview()
    written(small(), "diffusers", tmp_path / "base")
    (seen,) = ticket.preview()
    assert seen.tobytes() != linear.tobytes()
    (tmp_path / "base/taesd.safetensors").unlink()
    assert ticket.preview()[0].tobytes() == linear.tobytes()


@pytest.mark.slow
def test_one_that_does_not_fit_is_told_of_and_not_used(tmp_path: Path) -> None:
    for name, net, words in (("taesd", small((3, 3, 3, 1)), "8 pixels"), ("taesdxl", small(), "by its name for SDXL")):
        (tmp_path / name).mkdir()
        path = written(net, "diffusers", tmp_path / name).rename(tmp_path / f"{name}.safetensors")
        e = engine(preview=str(path))
        ticket = e.submit(ask())
        e.step()
        with pytest.warns(match=words):
            (seen,) = ticket.preview()
        other = engine()
        again = other.submit(ask())
        other.step()
        assert seen.tobytes() == again.preview()[0].tobytes()


@pytest.mark.slow
def test_what_is_no_taesd_is_a_letter_when_the_engine_is_made(tmp_path: Path) -> None:
    tiny.vae().save_pretrained(tmp_path / "vae")
    encoder = {k.removeprefix("encoder.layers."): v.contiguous() for k, v in small((3, 3, 3, 1)).state_dict().items() if k.startswith("encoder")}  # fmt: skip
    save_file(encoder, tmp_path / "encoder.safetensors")
    for name, words in (
        ("vae", "a VAE"),
        ("encoder.safetensors", "encoder of a TAESD alone"),
        ("none", "was not found"),
    ):
        with pytest.raises(WeightsError, match=words) as letter:
            engine(preview=str(tmp_path / name))
        assert letter.value.field == "preview"
