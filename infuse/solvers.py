"""A solver is a generator: `answer = yield x, t`. The state of a sampler is its local variables; one per job.

The arithmetic is diffusers': one instance of a scheduler per job, so two jobs never share state and the engine may
interleave any number of them. Names people know ("DPM++ 2M Karras") are a row in `NAMES`.

What a check asks (`parse`, `evaluations`) is answered from facts, without torch and diffusers; only a run builds a
scheduler.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from infuse.errors import RecipeError
from infuse.samplers import BETA, CLASSES, PNDM, SPACING, ZERO, Choice, Facts, foreign, parse, require, spoken

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float
    from torch import Tensor

__all__ = [
    "Choice",
    "Hold",
    "Plan",
    "Solver",
    "evaluations",
    "foreign",
    "least",
    "parse",
    "plan",
    "solve",
    "spoken",
    "stepped",
]

KNOWN: Mapping[str, tuple[str, ...]] = {
    "prediction_type": ("epsilon", "v_prediction", "sample"),
    "beta_schedule": ("linear", "scaled_linear", "squaredcos_cap_v2"),
    SPACING: ("leading", "linspace", "trailing"),
}
"""What a scheduler_config.json may say, the usual first."""


def evaluations(choice: Choice, config: Mapping[str, Any], steps: int, strength: float | None) -> int:
    """How many times a run asks the network: `len(plan(...).timesteps)`, without torch and diffusers.

    Raises RecipeError under `steps`, `strength` or `scheduler` for what `plan` refuses.
    """
    said, steps = {**config, **choice.said}, choice.count(steps)
    facts = CLASSES.get(choice.cls)
    if facts is None or (choice.cls == PNDM and not said.get("skip_prk_steps")):
        return len(plan(choice, config, steps, strength).timesteps)
    kept = _kept(said, choice, steps, strength)
    if choice.cls == PNDM:  # it asks twice at its second timestep
        return kept + (steps > 1)
    return kept * facts.order - (facts.order - 1)


def _kept(said: Mapping[str, Any], choice: Choice, steps: int, strength: float | None) -> int:
    """Steps that are run: with `strength`, only the last floor(steps * strength) steps, as in diffusers."""
    facts = CLASSES.get(choice.cls) or Facts(frozenset())
    _sound(said, choice, facts)
    trained, distilled = said.get("num_train_timesteps", 1000), said.get("original_inference_steps", 50)
    field = f"scheduler_options.{next(iter(choice.set))}" if choice.set else "steps"
    if distilled > trained and "original_inference_steps" in choice.own:
        raise RecipeError("scheduler_options.original_inference_steps", f"{distilled}, but the base was trained on {trained}. Use at most {trained}.")  # fmt: skip
    most = _fitted(said, choice, steps).get("steps_offset")
    if most is not None and "steps_offset" in choice.own and not choice.set:
        raise RecipeError("scheduler_options.steps_offset", f"{said['steps_offset']} steps further there is no timestep: {steps} steps leave room "
                                                            f"for {most}. Use at most {most}.")  # fmt: skip
    if steps > trained:
        raise RecipeError(field, f"{steps}, but the base was trained on {trained} noise levels. Use at most {trained}.")
    if facts.distilled and steps > min(distilled, trained):
        raise RecipeError(
            field,
            f"{steps}, but {choice.cls} runs the {distilled} steps that the base was distilled on, or some of them. "
            f"Use at most {distilled}; 4 to 8 are usual.",
        )
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


def _sound(said: Mapping[str, Any], choice: Choice, facts: Facts) -> None:
    """What the base's scheduler_config.json says is something that this class can run."""
    for name, known in KNOWN.items():
        if (value := said.get(name, known[0])) not in known and not (
            name == "beta_schedule" and said.get("trained_betas")
        ):
            raise RecipeError(
                "model",
                f"its scheduler_config.json has {name} {value!r}; samplers know {', '.join(known)}. Correct it there.",
            )
    for name in ("num_train_timesteps", "original_inference_steps"):
        if type(value := said.get(name, 1)) is not int or value < 1:
            raise RecipeError(
                "model",
                f"its scheduler_config.json has {name} {value!r}; that is a whole number from 1. Correct it there.",
            )
    if said.get("prediction_type") == "sample" and not facts.sample:
        raise RecipeError(
            "scheduler", f"{choice.cls} cannot run a base that predicts the clean latent. Use DDIM, Euler or DPM++ 2M."
        )
    if said.get(ZERO) and not facts.zero:
        raise RecipeError(
            "scheduler",
            f"{choice.cls} cannot start from pure noise, as this base was trained to (zero terminal SNR): its first step is "
            "an average that has no meaning there. Use DDIM, Euler or DPM++ 2M.",
        )
    if said.get(BETA) and BETA in facts.accepts:
        require("scipy", "the beta schedule")


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
    told: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of each of the scheduler's steps."""

    def fresh(self) -> Plan:
        """The same plan around a scheduler that nobody else has."""
        return replace(self, scheduler=deepcopy(self.scheduler))


def plan(choice: Choice, config: Mapping[str, Any], steps: int, strength: float | None) -> Plan:
    """Timesteps for a job; with `strength`, only the last floor(steps * strength) steps, as in diffusers.

    Raises RecipeError when nothing would be run, or more than the sampler can.
    """
    said, steps = {**config, **choice.said}, choice.count(steps)
    kept = _kept(said, choice, steps, strength)
    fitted = {} if choice.set else _fitted(said, choice, steps)
    scheduler = replace(choice, arguments={**choice.arguments, **fitted}).build(config)
    if choice.set:
        scheduler.set_timesteps(**choice.set)
    else:
        scheduler.set_timesteps(_Steps(steps))
    skip = (steps - kept) * scheduler.order
    if hasattr(
        scheduler, "set_begin_index"
    ):  # also without a start: two first timesteps may be rounded to the same number
        scheduler.set_begin_index(skip)
    return Plan(scheduler, scheduler.timesteps[skip:], strength is None, choice.step)


def _fitted(said: Mapping[str, Any], choice: Choice, steps: int) -> dict[str, Any]:
    """What must change in a base's spacing so that nearly as many steps as there are noise levels find one each.

    With the usual offset of 1, 1000 steps would ask for a timestep 1000, which nobody has.
    """
    facts, trained = CLASSES.get(choice.cls) or Facts(frozenset()), said.get("num_train_timesteps", 1000)
    if steps == trained and SPACING in facts.accepts:
        return {SPACING: "trailing"}  # each of them once
    most = trained - 1 - trained // (steps + facts.spare) * (steps - 1 + facts.spare)
    return {"steps_offset": most} if said.get("steps_offset", 0) > most else {}


class _Steps(int):
    """A number of steps that diffusers divides by, for `trailing`: np.arange(1000, 0, -1000 / steps).

    At 61, 103 and sixty others, rounding gives that array one element too many, which becomes a timestep of -1.
    """

    def __rtruediv__(self, trained: float) -> float:
        import numpy as np

        each = trained / int(self)
        return each if len(np.arange(trained, 0, -each)) == self else each * (1 + 1e-12)


Hold = Callable[["Tensor", "Tensor | None"], "Tensor"]
"""(x, timestep of the next step or None at the end) -> x: what must stay as it was (blend inpainting)."""

Solver = Generator["tuple[Tensor, Tensor]", "Tensor", "Tensor"]
"""Yields (input of the network, timestep), is sent the guided answer, returns the finished latent."""


def solve(plan: Plan, x: Float[Tensor, "c h w"], generator: torch.Generator, hold: Hold | None = None) -> Solver:
    """Run one job's scheduler over its timesteps: by its table where it has one, else by itself."""
    from infuse import solver_tables

    scheduler, steps = plan.scheduler, plan.timesteps
    table = solver_tables.table(scheduler, steps, plan.told)
    if table is None:
        return (yield from stepped(plan, x, generator, hold))
    return (yield from solver_tables.run(table, x, steps, hold, scheduler))


def stepped(plan: Plan, x: Float[Tensor, "c h w"], generator: torch.Generator, hold: Hold | None = None) -> Solver:
    """The same by the scheduler's own steps, whatever it is: the specification of the tables."""
    import torch

    from infuse.solver_tables import arguments

    scheduler, steps = plan.scheduler, plan.timesteps
    own, wide = x.dtype, getattr(scheduler, "wide", False)  # `wide`: it keeps x in single precision at least
    if wide:
        x = x.to(torch.promote_types(own, torch.float32))
    chosen = arguments(scheduler, plan.told, generator)
    if hasattr(scheduler, "noise_sampler_seed"):  # torchsde draws its own noise; give it the job's randomness
        from infuse.schedulers import brownian

        scheduler.noise_sampler = brownian(scheduler, x[None], int(torch.randint(2**31, (), generator=generator)))
    for i, t in enumerate(steps):
        shown = scheduler.scale_model_input(x[None], t)[0]
        answer = yield (shown.to(own) if wide else shown), t
        x = scheduler.step((answer.to(x) if wide else answer)[None], t, x[None], return_dict=False, **chosen)[0][0]
        if hold is not None:
            x = hold(x, steps[i + 1] if i + 1 < len(steps) else None)
    return x.to(own) if wide else x
