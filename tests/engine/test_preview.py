"""The clean latent as a network takes it to be equals what diffusers' schedulers say; a picture of any latent."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import tiny
from infuse.engine.preview import COLOURS, FACTOR, LONGEST, denoised, preview, shades, signal
from infuse.solvers import parse

STEPS, SHAPE = 6, (1, 4, 8, 8)


def visited(name: str, prediction: str, **schedule: Any) -> list[tuple[Tensor, Tensor, Tensor, Tensor, Tensor]]:
    """A run with random answers: (network's input, timestep, answer, x0 as the scheduler has it, its alphas)."""
    config = tiny.SCHEDULE | {"prediction_type": prediction} | schedule
    scheduler: Any = parse(name, "DDIMScheduler").build(config)
    scheduler.set_timesteps(STEPS)
    g = torch.Generator().manual_seed(0)
    x, found = torch.randn(SHAPE, generator=g) * scheduler.init_noise_sigma, []
    for t in scheduler.timesteps:
        shown, answer = scheduler.scale_model_input(x, t), torch.randn(SHAPE, generator=g)
        x0 = None
        if hasattr(scheduler, "convert_model_output"):  # the DPM family keeps x0 itself
            if scheduler.step_index is None:
                scheduler._init_step_index(t)
            x0 = scheduler.convert_model_output(answer, sample=x)
        more = {"generator": g} if "a" in name.split() or name in ("DDPM", "LCM") else {}
        out = scheduler.step(answer, t, x, **more)
        known = getattr(out, "pred_original_sample", getattr(out, "denoised", None)) if x0 is None else x0
        found.append((shown, t, answer, known, scheduler.alphas_cumprod))
        x = out.prev_sample
    return found


def furthest(name: str, prediction: str, **schedule: Any) -> list[float]:
    """Of each step, the largest error against the size of x0."""
    steps = visited(name, prediction, **schedule)
    return [
        float((denoised(x, t, answer, alphas, prediction) - x0).abs().max() / x0.std())
        for x, t, answer, x0, alphas in steps
    ]


PREDICTIONS = ("epsilon", "v_prediction", "sample")
SCHEDULERS = ("DDIM", "DDPM", "Euler", "Euler a", "DPM++ 2M", "DPM++ 2M trailing", "UniPC")
CASES = [(n, p) for n in SCHEDULERS for p in PREDICTIONS if (n, p) != ("Euler a", "sample")]  # diffusers has none


@pytest.mark.parametrize(("name", "prediction"), CASES)
def test_it_is_what_the_schedulers_say(name: str, prediction: str) -> None:
    assert max(furthest(name, prediction)) < 1e-5


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("name", ["Euler Karras", "DPM++ 2M Karras", "UniPC Karras"])
def test_between_timesteps_it_is_close(name: str, prediction: str) -> None:
    """Karras' noise levels lie between timesteps. Euler tells where, the others round to the next timestep."""
    assert max(furthest(name, prediction)) < (1e-3 if name.startswith("Euler") else 0.02)


def test_zero_terminal_snr_is_finite() -> None:
    alphas = torch.linspace(0.99, 0.0, 10) ** 2
    x, answer = torch.randn(4, 8, 8), torch.randn(4, 8, 8)
    assert torch.equal(denoised(x, 9, answer, alphas, "v_prediction"), -answer), "a v at pure noise is -x0"
    assert torch.equal(denoised(x, 9, answer, alphas, "sample"), answer)
    assert denoised(x, torch.tensor(9), answer, alphas, "epsilon").isfinite().all()
    last = visited("DDIM", "v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing")[0]
    assert (
        float(last[1]) == 999
        and float((denoised(last[0], last[1], last[2], last[4], "v_prediction") - last[3]).abs().max()) < 1e-5
    )
    with pytest.raises(ValueError, match="flow"):
        denoised(x, 9, answer, alphas, "flow")


def test_alphas_between_timesteps() -> None:
    alphas = torch.tensor([0.9, 0.5, 0.1])
    found = [float(signal(alphas, t)) for t in (0, 0.25, 1, torch.tensor(1.5), 2, 7, -1)]
    assert found == pytest.approx([0.9, 0.8, 0.5, 0.3, 0.1, 0.1, 0.9])


def test_clips_and_precisions() -> None:
    alphas = torch.linspace(0.99, 0.01, 10)
    x = torch.randn(4, 3, 8, 8, dtype=torch.bfloat16)
    found = denoised(x, torch.tensor(4.5), x, alphas, "epsilon")
    assert found.shape == x.shape and found.dtype == x.dtype
    assert preview(found, "sd1").size == (64, 64)


@pytest.mark.parametrize("family", [*COLOURS, "width 40"])
@pytest.mark.parametrize(
    ("h", "w", "size"), [(8, 12, (96, 64)), (64, 64, (512, 512)), (128, 96, (384, 512)), (1, 1024, (512, 1))]
)
def test_a_picture_of_the_job_s_aspect(family: str, h: int, w: int, size: tuple[int, int]) -> None:
    image = preview(torch.randn(4, h, w), family)
    assert image.size == size and image.mode == "RGB"
    assert image.size == tuple(round(n * min(FACTOR, LONGEST / max(h, w))) or 1 for n in (w, h))


def test_a_clip_shows_its_middle_frame() -> None:
    clip = torch.randn(4, 5, 8, 8)
    assert preview(clip, "sd2").tobytes() == preview(clip[:, 2], "sd2").tobytes()


def test_colours_are_those_of_the_factors() -> None:
    """A latent of one channel alone has that channel's colour: SD's first is light, its last a missing blue."""
    light, blue = torch.zeros(2, 4, 2, 2)
    light[0], blue[3] = 1.0, -1.0
    assert preview(light, "sd1").getpixel((0, 0)) == tuple(round(255 * (f / 2 + 0.5)) for f in (0.3512, 0.2297, 0.3227))
    assert preview(blue, "sd1").getpixel((0, 0)) == tuple(round(255 * (f / 2 + 0.5)) for f in (0.2120, 0.2616, 0.7177))
    assert preview(torch.zeros(4, 2, 2), "sdxl").getpixel((0, 0)) == tuple(
        math.floor(255 * (b / 2 + 0.5) + 0.5) for b in (0.1084, -0.0175, -0.0011)
    )


def test_unknown_families_and_channels_are_grey() -> None:
    ramp = torch.arange(16.0).reshape(1, 4, 4).repeat(4, 1, 1) * 100
    for z, family in ((ramp, "width 40"), (ramp.repeat(4, 1, 1), "sd1")):
        pixels = np.asarray(preview(z, family)).astype(int)
        assert (np.ptp(pixels, axis=-1) == 0).all() and pixels[0, 0, 0] < 60 and pixels[-1, -1, 0] > 195
    assert torch.equal(shades(torch.full((2, 2), 7.0)), torch.full((2, 2, 3), 0.5)), "nothing to see"


def test_numbers_that_are_none_do_no_harm() -> None:
    z = torch.randn(4, 8, 8)
    z[:, 0, 0], z[:, 1, 1] = float("nan"), float("inf")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert {preview(z, f).size for f in ("sd1", "unknown")} == {(64, 64)}
