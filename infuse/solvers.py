"""A solver is a generator: `answer = yield x, t`. The state of a sampler is its local variables; one per job.

The arithmetic is diffusers': one instance of a scheduler per job, so two jobs never share state and the engine may
interleave any number of them. Names people know ("DPM++ 2M Karras") are a row in `NAMES`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Generator, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from infuse.errors import RecipeError

DPM, SDE, SINGLE = "DPMSolverMultistepScheduler", "DPMSolverSDEScheduler", "DPMSolverSinglestepScheduler"

NAMES: Mapping[str, tuple[str, dict[str, Any]]] = {
    "DDIM": ("DDIMScheduler", {}),
    "DDPM": ("DDPMScheduler", {}),
    "PNDM": ("PNDMScheduler", {"skip_prk_steps": True}),
    "PLMS": ("PNDMScheduler", {"skip_prk_steps": True}),
    "LMS": ("LMSDiscreteScheduler", {}),
    "Euler": ("EulerDiscreteScheduler", {}),
    "Euler a": ("EulerAncestralDiscreteScheduler", {}),
    "Heun": ("HeunDiscreteScheduler", {}),
    "DPM2": ("KDPM2DiscreteScheduler", {}),
    "DPM2 a": ("KDPM2AncestralDiscreteScheduler", {}),
    "DPM++ 2M": (DPM, {"algorithm_type": "dpmsolver++"}),
    "DPM++ 2M SDE": (DPM, {"algorithm_type": "sde-dpmsolver++"}),
    "DPM++ 3M SDE": (DPM, {"algorithm_type": "sde-dpmsolver++", "solver_order": 3}),
    "DPM++ SDE": (SDE, {}),
    "DPM++ 2S": (SINGLE, {}),
    "DPM++ 2S a": (SINGLE, {}),
    "DEIS": ("DEISMultistepScheduler", {}),
    "UniPC": ("UniPCMultistepScheduler", {}),
    "SA-Solver": ("SASolverScheduler", {}),
    "LCM": ("LCMScheduler", {}),
    "TCD": ("TCDScheduler", {}),
}
"""Names people know -> diffusers class and arguments."""

SCHEDULES: Mapping[str, dict[str, Any]] = {
    "karras": {"use_karras_sigmas": True},
    "exponential": {"use_exponential_sigmas": True},
    "beta": {"use_beta_sigmas": True},
    "trailing": {"timestep_spacing": "trailing"},
    "sgm uniform": {"timestep_spacing": "trailing"},
}
"""A noise schedule named after the sampler, as in "DPM++ 2M Karras"."""

NEEDS = {SDE: "torchsde", "LMSDiscreteScheduler": "scipy"}


@dataclass(frozen=True)
class Choice:
    """A scheduler class by its diffusers name, with the arguments its spoken name stands for."""

    cls: str
    arguments: Mapping[str, Any]

    def build(self, config: Mapping[str, Any]) -> Any:
        """A fresh instance on the base model's own noise schedule (its scheduler_config.json)."""
        import diffusers

        return getattr(diffusers, self.cls).from_config(dict(config), **self.arguments)


@cache
def parse(name: str | None, default: str) -> Choice:
    """A scheduler by any of its names; None means the model's own (`default`, a diffusers class name).

    Raises RecipeError for an unknown name or a missing optional package.
    """
    text = name or default
    plain = {_key(cls): (cls, {}) for cls, _ in NAMES.values()}
    plain |= {_key(n): v for n, v in NAMES.items()}  # after the classes: "PNDM" is a name with arguments, too
    extra: dict[str, Any] = {}
    key = _key(text)
    for schedule, arguments in SCHEDULES.items():
        if key not in plain and key.endswith(_key(schedule)):
            key, extra = key.removesuffix(_key(schedule)), arguments
    if key not in plain:
        near = get_close_matches(text, list(NAMES), 3, 0.4)
        raise RecipeError(
            "scheduler",
            f"no scheduler is called {text!r}. {'Did you mean ' + ', '.join(near) + '? ' if near else ''}"
            f"Known: {', '.join(NAMES)}; with Karras, exponential, beta or trailing after the name.",
        )
    cls, arguments = plain[key]
    unknown = [a for a in extra if a not in _accepted(cls)]
    if unknown:
        raise RecipeError("scheduler", f"{text!r}: {cls} has no {unknown[0]}. Use {text.rsplit(' ', 1)[0]!r} alone.")
    _require(cls, text)
    return Choice(cls, {**arguments, **extra})


def _key(name: str) -> str:
    return (
        re.sub(r"[\s_\-]+|scheduler$", "", name.lower().removeprefix("k_"))
        .replace("pp", "++")
        .replace("ancestral", "a")
        if name
        else ""
    )


def _accepted(cls: str) -> frozenset[str]:
    import diffusers

    return frozenset(inspect.signature(getattr(diffusers, cls).__init__).parameters)


def _require(cls: str, text: str) -> None:
    from importlib.util import find_spec

    package = NEEDS.get(cls)
    if package and find_spec(package) is None:
        raise RecipeError("scheduler", f"{text!r} needs the package {package}. Run: pip install {package}")


@dataclass(frozen=True)
class Plan:
    """The timesteps of a job, one for each evaluation of the network, and the scheduler that was set to them."""

    scheduler: Any
    """A diffusers scheduler, untouched: each job runs on a copy of its own."""
    timesteps: Float[Tensor, " n"]
    full: bool
    """False if the run starts from a picture instead of pure noise."""

    def fresh(self) -> Plan:
        """The same plan around a scheduler that nobody else has."""
        return replace(self, scheduler=deepcopy(self.scheduler))


def plan(choice: Choice, config: Mapping[str, Any], steps: int, strength: float | None) -> Plan:
    """Timesteps for a job; with `strength`, only the last floor(steps * strength) steps, as in diffusers.

    Raises RecipeError when nothing would be run.
    """
    scheduler = choice.build(config)
    scheduler.set_timesteps(steps)
    if strength is None:
        return Plan(scheduler, scheduler.timesteps, True)
    skip = max(steps - min(int(steps * strength), steps), 0) * scheduler.order
    timesteps = scheduler.timesteps[skip:]
    if int(steps * strength) < 1 or not len(timesteps):
        raise RecipeError(
            "strength",
            f"{strength} of {steps} steps is less than one step, so nothing would change. "
            f"Use a strength of at least {1 / steps:.2g}, or more steps.",
        )
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(skip)
    return Plan(scheduler, timesteps, False)


Hold = Callable[[Tensor, Tensor | None], Tensor]
"""(x, timestep of the next step or None at the end) -> x: what must stay as it was (blend inpainting)."""

Solver = Generator[tuple[Tensor, Tensor], Tensor, Tensor]
"""Yields (input of the network, timestep), is sent the guided answer, returns the finished latent."""


def solve(plan: Plan, x: Float[Tensor, "c h w"], generator: torch.Generator, hold: Hold | None = None) -> Solver:
    """Run one job's scheduler over its timesteps."""
    scheduler, steps = plan.scheduler, plan.timesteps
    accepted = inspect.signature(scheduler.step).parameters
    chosen = {k: v for k, v in (("generator", generator), ("eta", 0.0)) if k in accepted}  # as the stock pipelines do
    if hasattr(scheduler, "noise_sampler_seed"):  # torchsde draws its own noise; give it the job's randomness
        scheduler.noise_sampler_seed = int(torch.randint(2**31, (), generator=generator))
    for i, t in enumerate(steps):
        answer = yield scheduler.scale_model_input(x[None], t)[0], t
        x = scheduler.step(answer[None], t, x[None], return_dict=False, **chosen)[0][0]
        if hold is not None:
            x = hold(x, steps[i + 1] if i + 1 < len(steps) else None)
    return x
