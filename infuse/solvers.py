"""A solver is a generator: `answer = yield x, t`. The state of a sampler is its local variables; one per job.

The arithmetic is diffusers': one instance of a scheduler per job, so two jobs never share state and the engine may
interleave any number of them. Names people know ("DPM++ 2M Karras") are a row in `NAMES`.

What a check asks (`parse`, `evaluations`) is answered from facts, without torch and diffusers; only a run builds a
scheduler.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Generator, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from infuse.errors import RecipeError
from infuse.friends import prime

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float
    from torch import Tensor

DPM, SDE, SINGLE = "DPMSolverMultistepScheduler", "DPMSolverSDEScheduler", "DPMSolverSinglestepScheduler"
PNDM = "PNDMScheduler"

NAMES: Mapping[str, tuple[str, dict[str, Any]]] = {
    "DDIM": ("DDIMScheduler", {}),
    "DDPM": ("DDPMScheduler", {}),
    "PNDM": (PNDM, {"skip_prk_steps": True}),
    "PLMS": (PNDM, {"skip_prk_steps": True}),
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

SPACING, ZERO = "timestep_spacing", "rescale_betas_zero_snr"
KARRAS, EXPONENTIAL, BETA = "use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"
SIGMAS = (KARRAS, EXPONENTIAL, BETA)


def _sigmas(chosen: str) -> dict[str, Any]:
    """One of the three; a config that says another gives way, as diffusers takes one at most."""
    return {name: name == chosen for name in SIGMAS}


SCHEDULES: Mapping[str, dict[str, Any]] = {
    "karras": _sigmas(KARRAS),
    "exponential": _sigmas(EXPONENTIAL),
    "beta": _sigmas(BETA),
    "trailing": {SPACING: "trailing"},
    "sgm uniform": {SPACING: "trailing"},
}
"""A noise schedule named after the sampler, as in "DPM++ 2M Karras"."""


@dataclass(frozen=True)
class Facts:
    """What a scheduler class of diffusers is, so that a check need not import it (the tests compare)."""

    accepts: frozenset[str]
    """Which of the arguments above its constructor has."""
    order: int = 1
    """Evaluations of the network for each step but the last, which has one."""
    distilled: bool = False
    """It cannot take more steps than its `original_inference_steps`, which it picks its timesteps from."""
    needs: str | None = None
    """A package that diffusers asks for."""


_SPACED, _FULL = frozenset({SPACING}), frozenset({SPACING, *SIGMAS})
CLASSES: Mapping[str, Facts] = {
    "DDIMScheduler": Facts(_SPACED | {ZERO}),
    "DDPMScheduler": Facts(_SPACED | {ZERO}),
    PNDM: Facts(_SPACED),
    "LMSDiscreteScheduler": Facts(_FULL, needs="scipy"),
    "EulerDiscreteScheduler": Facts(_FULL | {ZERO}),
    "EulerAncestralDiscreteScheduler": Facts(_SPACED | {ZERO}),
    "HeunDiscreteScheduler": Facts(_FULL, order=2),
    "KDPM2DiscreteScheduler": Facts(_FULL, order=2),
    "KDPM2AncestralDiscreteScheduler": Facts(_FULL, order=2),
    DPM: Facts(_FULL | {ZERO}),
    SDE: Facts(_FULL, order=2, needs="torchsde"),
    SINGLE: Facts(frozenset(SIGMAS)),
    "DEISMultistepScheduler": Facts(_FULL),
    "UniPCMultistepScheduler": Facts(_FULL | {ZERO}),
    "SASolverScheduler": Facts(_FULL),
    "LCMScheduler": Facts(_SPACED | {ZERO}, distilled=True),
    "TCDScheduler": Facts(_SPACED | {ZERO}, distilled=True),
}


@dataclass(frozen=True)
class Choice:
    """A scheduler class by its diffusers name, with the arguments its spoken name stands for."""

    cls: str
    arguments: Mapping[str, Any]

    def build(self, config: Mapping[str, Any]) -> Any:
        """A fresh instance on the base model's own noise schedule (its scheduler_config.json)."""
        prime()
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
    _require(CLASSES[cls].needs, text)
    unknown = [a for a, on in extra.items() if on and a not in CLASSES[cls].accepts]
    if unknown:
        raise RecipeError("scheduler", f"{text!r}: {cls} has no {unknown[0]}. Use {text.rsplit(' ', 1)[0]!r} alone.")
    if extra.get(BETA):
        _require("scipy", text)
    return Choice(cls, {**arguments, **extra})


def _key(name: str) -> str:
    return (
        re.sub(r"[\s_\-]+|scheduler$", "", name.lower().removeprefix("k_"))
        .replace("pp", "++")
        .replace("ancestral", "a")
        if name
        else ""
    )


def _require(package: str | None, text: str) -> None:
    if package and find_spec(package) is None:
        raise RecipeError("scheduler", f"{text!r} needs the package {package}. Run: pip install {package}")


def evaluations(choice: Choice, config: Mapping[str, Any], steps: int, strength: float | None) -> int:
    """How many times a run asks the network: `len(plan(...).timesteps)`, without torch and diffusers.

    Raises RecipeError under `steps`, `strength` or `scheduler` for what `plan` refuses.
    """
    said = {**config, **choice.arguments}
    facts = CLASSES.get(choice.cls)
    if facts is None or (choice.cls == PNDM and not said.get("skip_prk_steps")):
        return len(plan(choice, config, steps, strength).timesteps)
    kept = _kept(said, facts, steps, strength)
    if choice.cls == PNDM:  # it asks twice at its second timestep
        return kept + (steps > 1)
    return kept * facts.order - (facts.order - 1)


def _kept(said: Mapping[str, Any], facts: Facts | None, steps: int, strength: float | None) -> int:
    """Steps that are run: with `strength`, only the last floor(steps * strength) steps, as in diffusers."""
    trained, distilled = said.get("num_train_timesteps", 1000), said.get("original_inference_steps", 50)
    if steps > trained:
        raise RecipeError(
            "steps", f"{steps}, but the base was trained on {trained} noise levels. Use at most {trained}."
        )
    if facts and facts.distilled and steps > distilled:
        raise RecipeError(
            "steps",
            f"{steps}, but this sampler runs the {distilled} steps that the base was distilled on, or some of them. "
            f"Use at most {distilled}; 4 to 8 are usual.",
        )
    if facts and said.get(BETA) and BETA in facts.accepts:
        _require("scipy", "the model's beta schedule")
    if strength is None:
        return steps
    kept = min(int(steps * strength), steps)
    if kept < 1:
        raise RecipeError(
            "strength",
            f"{strength:g} of {steps} steps is less than one step, so nothing would change. "
            f"Use a strength of at least {least(steps):g}, or more steps.",
        )
    return kept


def least(steps: int) -> float:
    """The smallest strength that runs one of `steps`, rounded up, so that it works when it is typed as it is printed."""
    places = 10 ** (len(str(steps)) + 1)
    return -(-places // steps) / places


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

    Raises RecipeError when nothing would be run, or more than the sampler can.
    """
    kept = _kept({**config, **choice.arguments}, CLASSES.get(choice.cls), steps, strength)
    scheduler = choice.build(config)
    scheduler.set_timesteps(steps)
    if strength is None:
        return Plan(scheduler, scheduler.timesteps, True)
    skip = (steps - kept) * scheduler.order
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(skip)
    return Plan(scheduler, scheduler.timesteps[skip:], False)


Hold = Callable[["Tensor", "Tensor | None"], "Tensor"]
"""(x, timestep of the next step or None at the end) -> x: what must stay as it was (blend inpainting)."""

Solver = Generator["tuple[Tensor, Tensor]", "Tensor", "Tensor"]
"""Yields (input of the network, timestep), is sent the guided answer, returns the finished latent."""


def solve(plan: Plan, x: Float[Tensor, "c h w"], generator: torch.Generator, hold: Hold | None = None) -> Solver:
    """Run one job's scheduler over its timesteps."""
    import torch

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
