"""diffusers' schedulers as infuse runs them: zero terminal SNR for all of them, and DPM-Solver++(2S) ancestral beside them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import diffusers
import torch
from diffusers import DDPMScheduler, KDPM2AncestralDiscreteScheduler, KDPM2DiscreteScheduler
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from infuse.errors import RecipeError

ZERO = "rescale_betas_zero_snr"
FAINTEST = 2**-24
"""Signal (alpha_cumprod) at pure noise, where an algorithm divides by it; diffusers has the same number in Euler."""


class _Ready:
    """The constructors of diffusers' DPM2 set all noise levels, for 0.2 s, before anybody says how many steps there are."""

    def set_timesteps(
        self: Any, num_inference_steps: int, device: Any = None, num_train_timesteps: int | None = None
    ) -> None:
        few = 2 if num_train_timesteps else num_inference_steps  # only a constructor says both
        super().set_timesteps(few, device, num_train_timesteps)  # type: ignore[misc]


class DPM2Scheduler(_Ready, KDPM2DiscreteScheduler):
    """DPM2, ready sooner."""


class DPM2AncestralScheduler(_Ready, KDPM2AncestralDiscreteScheduler):
    """DPM2 a, ready sooner."""


class DPMSolver2SAncestralScheduler(DPM2AncestralScheduler):
    """DPM-Solver++(2S) with ancestral noise: two evaluations a step, the second in the middle of log sigma.

    Source: `sample_dpmpp_2s_ancestral` of k-diffusion 0.1.1, after Lu et al. 2022 (DPM-Solver++, algorithm 1). Where it
    looks is where DPM2 ancestral looks, so noise levels and timesteps are inherited; how it moves is its own.
    """

    def set_timesteps(
        self: Any, num_inference_steps: int, device: Any = None, num_train_timesteps: int | None = None
    ) -> None:
        super().set_timesteps(num_inference_steps, device, num_train_timesteps)
        if self.config.use_karras_sigmas:  # DPM2 rounds these, and tells the network of another level than it is at
            levels, logs = self.sigmas[:-2:2].double().numpy(), self.log_sigmas.double().numpy()
            self.timesteps[::2] = torch.tensor([float(self._sigma_to_t(level, logs)) for level in levels])

    def step(
        self: Any, model_output: Tensor, timestep: Any, sample: Tensor, generator: torch.Generator | None = None,
        return_dict: bool = False,
    ) -> Any:  # fmt: skip
        """(x at the next evaluation, clean latent as the network sees it); only `return_dict=False` is offered."""
        if self.step_index is None:
            self._init_step_index(timestep)
        first = self.state_in_first_order
        i = self._step_index - (not first)  # each level is there twice, once for each evaluation
        sigma, middle = self.sigmas[i], self.sigmas_interpol[i]
        x0 = self._clean(model_output, sample, sigma if first else middle)
        if first:
            x = (middle / sigma) * sample + (1 - middle / sigma) * x0  # x0 itself at the end, where the middle is 0
            self.sample = sample
        else:
            down, up = self.sigmas_down[i], self.sigmas_up[i]
            noise = randn_tensor(x0.shape, generator=generator, device=x0.device, dtype=x0.dtype)
            x = (down / sigma) * self.sample + (1 - down / sigma) * x0 + up * noise
            self.sample = None
        self._step_index += 1
        return x, x0

    def add_noise(self: Any, original_samples: Tensor, noise: Tensor, timesteps: Any) -> Tensor:
        """As DPM2 ancestral's; in the middle of a step, the noise of the middle, which that one takes for the step's end."""
        if self.step_index is None or self.state_in_first_order:
            return super().add_noise(original_samples, noise, timesteps)
        return original_samples + noise * self.sigmas_interpol[self.step_index - 1]

    def _clean(self: Any, answer: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
        """x0 from the network's answer, as the other schedulers on sigmas have it."""
        if self.config.prediction_type == "epsilon":
            return x - sigma * answer
        return x / (sigma**2 + 1) - answer * sigma / (sigma**2 + 1) ** 0.5


OWN: Mapping[str, Any] = {
    "KDPM2DiscreteScheduler": DPM2Scheduler,
    "KDPM2AncestralDiscreteScheduler": DPM2AncestralScheduler,
    "DPMSolver2SAncestralScheduler": DPMSolver2SAncestralScheduler,
}
"""What runs under a name, where it is not diffusers' class of that name."""


def built(name: str, config: Mapping[str, Any], arguments: Mapping[str, Any]) -> Any:
    """A scheduler of this class on a noise schedule, with zero terminal SNR wherever the config says so.

    Raises RecipeError for what a class cannot do.
    """
    cls: Any = OWN.get(name) or getattr(diffusers, name)
    takes = inspect.signature(cls.__init__).parameters
    if not {**config, **arguments}.get(ZERO) or ZERO in takes:
        return faint(cls.from_config(dict(config), **arguments))
    if "trained_betas" not in takes:
        raise RecipeError("scheduler", f"{name} has no zero terminal SNR, which this base was trained with. Use Euler.")
    scheduler = cls.from_config(dict(config), **arguments, trained_betas=zero_snr_betas(config))
    scheduler.wide = True  # sigmas go up to 4096: differences of such numbers ask for single precision
    return scheduler


def zero_snr_betas(config: Mapping[str, Any]) -> list[float]:
    """The betas of a schedule whose last noise level is pure noise (Lin et al. 2024, algorithm 1), all but `FAINTEST`."""
    linear: Any = DDPMScheduler.from_config(dict(config))
    betas = linear.betas.double()
    before = torch.cumprod(1 - betas[:-1], dim=0)[-1]
    return [*betas[:-1].tolist(), float(1 - FAINTEST / before)]


def faint(scheduler: Any) -> Any:
    """At zero terminal SNR a network that predicts noise says nothing of the picture, and a division by zero is no answer."""
    alphas = getattr(scheduler, "alphas_cumprod", None)
    if alphas is not None and alphas[-1] == 0 and scheduler.config.prediction_type == "epsilon":
        alphas[-1] = FAINTEST
    return scheduler


def brownian(scheduler: Any, x: Tensor, seed: int) -> Any:
    """The noise of DPM++ SDE, as it makes it itself, on a wider interval: torchsde rounds the ends of its own to 6 digits, and
    then warns that the smallest sigma lies outside."""
    from diffusers.schedulers.scheduling_dpmsolver_sde import BrownianTreeNoiseSampler

    least, most = float(scheduler.sigmas[scheduler.sigmas > 0].min()), float(scheduler.sigmas.max())
    return BrownianTreeNoiseSampler(x, 0.999 * least, 1.001 * most, seed)
