"""What a sampler can be told besides its name: eta, churn, orders, spacing, timesteps and noise levels of one's own.

Each class of diffusers has knobs of its own, as arguments of its constructor, of `set_timesteps` or of `step`. `TAKES` says
which, so that a check need import none of them; the tests compare it with the classes. What a class does not have is a
letter that lists what it has, never a knob that turns nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import Field

from infuse import spellings
from infuse.errors import RecipeError
from infuse.samplers import (
    BETA,
    DPM,
    PNDM,
    SCHEDULES,
    SDE,
    SIGMAS,
    SINGLE,
    SPACING,
    TWO_S_A,
    ZERO,
    Choice,
    require,
    spoken,
)
from infuse.validation import Strict

KIND = "scheduleroptions"
"""Under which name `spellings` knows them."""
Share = Annotated[float, Field(ge=0, le=1)]
Level = Annotated[float, Field(ge=0)]
LONGEST = 1000
LU, UNIPC = "use_lu_lambdas", "UniPCMultistepScheduler"


class SchedulerOptions(Strict):
    """Knobs of the recipe's scheduler; what is left out is as the base's own scheduler_config.json has it.

    Raises RecipeError for values out of range. Which of them a scheduler has, `told` knows.
    """

    timesteps: Annotated[tuple[int, ...], Field(min_length=1, max_length=LONGEST)] | None = None
    """Where the network is asked, from noise to picture, each below the one before: as many as there are steps."""
    sigmas: Annotated[tuple[Level, ...], Field(min_length=2, max_length=LONGEST + 1)] | None = None
    """Noise levels, each below the one before; the last is where the run ends, 0 as a rule, and no step of its own."""
    spacing: Literal["leading", "linspace", "trailing"] | None = None
    schedule: Literal["karras", "exponential", "beta", "lu", "even"] | None = None
    """How noise levels are spread. "DPM++ 2M Karras" says the same in the scheduler's name."""
    steps_offset: Annotated[int, Field(ge=0, le=LONGEST)] | None = None
    """Added to all timesteps where the spacing is "leading"."""
    sigma_min: Annotated[float, Field(gt=0)] | None = None
    sigma_max: Annotated[float, Field(gt=0)] | None = None
    """Ends of the noise levels that a schedule spreads."""
    final_sigmas: Literal["zero", "sigma_min"] | None = None
    eta: Share | None = None
    """Share of fresh noise in a step of DDIM; gamma of TCD."""
    s_churn: Level | None = None
    s_tmin: Level | None = None
    s_tmax: Level | None = None
    s_noise: Level | None = None
    """Noise that is added before each step where sigma lies from s_tmin to s_tmax, and its strength (Karras et al. 2022,
    algorithm 2)."""
    order: Annotated[int, Field(ge=1, le=4)] | None = None
    corrector_order: Annotated[int, Field(ge=1, le=4)] | None = None
    algorithm: Literal["dpmsolver++", "sde-dpmsolver++", "data_prediction", "noise_prediction"] | None = None
    solver_type: Literal["midpoint", "heun", "bh1", "bh2", "logrho"] | None = None
    lower_order_final: bool | None = None
    euler_at_final: bool | None = None
    predict_x0: bool | None = None
    disable_corrector: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    """Steps that are not corrected."""
    interpolation: Literal["linear", "log_linear"] | None = None
    thresholding: bool | None = None
    dynamic_thresholding_ratio: Share | None = None
    sample_max_value: Annotated[float, Field(ge=1)] | None = None
    """Dynamic thresholding of the clean latent (Saharia et al. 2022): made for pixels, whose values end at 1."""
    clip_sample: bool | None = None
    clip_sample_range: Annotated[float, Field(gt=0)] | None = None
    use_clipped_model_output: bool | None = None
    variance: Literal["fixed_small", "fixed_small_log", "fixed_large"] | None = None
    zero_snr: bool | None = None
    """Begin at pure noise, as networks do that were trained to."""
    set_alpha_to_one: bool | None = None
    original_inference_steps: Annotated[int, Field(ge=1, le=LONGEST)] | None = None
    timestep_scaling: Annotated[float, Field(gt=0)] | None = None

    @classmethod
    def spelled(cls, data: dict[str, Any]) -> dict[str, Any]:
        """diffusers has a flag for each schedule, and knobs for networks that infuse does not run."""
        for name in data:
            if (key := spellings.plain(str(name))) in NOT_HERE:
                raise RecipeError(str(name), NOT_HERE[key])
        flags = {k: v for k, v in data.items() if spellings.plain(str(k)) in FLAGS}
        rest = {k: v for k, v in data.items() if k not in flags}
        on = [FLAGS[spellings.plain(k)] for k, v in flags.items() if v]
        if len(on) > 1:
            raise RecipeError(
                next(iter(flags)), f"noise levels are spread in one way: {' and '.join(on)} are two. Keep one."
            )
        if flags and rest.setdefault("schedule", *(on or ["even"])) not in (on or ["even"]):
            raise RecipeError("schedule", f"it is {rest['schedule']!r}, and {next(iter(flags))} says {(on or ['even'])[0]}; both mean the "
                                          "same. Keep one of them.")  # fmt: skip
        return super().spelled(rest)

    @property
    def said(self) -> dict[str, Any]:
        """What is not left out."""
        return {n: v for n in type(self).model_fields if (v := getattr(self, n)) is not None}


FLAGS: Mapping[str, str] = {
    "use_karras_sigmas": "karras", "use_exponential_sigmas": "exponential", "use_beta_sigmas": "beta", "use_lu_lambdas": "lu",
    "karras": "karras", "exponential": "exponential", "beta": "beta",
}  # fmt: skip
"""diffusers' flag -> schedule."""
_FLOW = "it is a knob of flow networks (SD3, FLUX), and infuse runs networks with a noise schedule. Remove it."
NOT_HERE: Mapping[str, str] = {
    **dict.fromkeys(("shift", "flow_shift", "use_flow_sigmas", "use_dynamic_shifting", "time_shift_type", "mu", "base_shift", "max_shift"), _FLOW),
    "rho": "Karras' rho is 7 in every scheduler here. For another one give the noise levels themselves, as sigmas of Euler.",
    "noise_sampler_seed": "a sampler's noise is the recipe's seed's. Remove it.",
    "prediction_type": "what a network predicts is in its files; `infuse identify` says where that is read. Remove it.",
}  # fmt: skip
MOVED = (
    "eta", "s_churn", "s_tmin", "s_tmax", "s_noise", "timesteps", "sigmas", "timestep_spacing", "use_karras_sigmas",
    "use_exponential_sigmas", "use_beta_sigmas", "solver_order", "algorithm_type", "solver_type", "lower_order_final", "euler_at_final",
    "final_sigmas_type", "thresholding", "steps_offset", "rescale_betas_zero_snr", "original_inference_steps", "set_alpha_to_one",
)  # fmt: skip
"""What others say beside the prompt, and a recipe in its scheduler_options."""


@dataclass(frozen=True)
class Knob:
    """Where an option goes: an argument of the constructor ("made"), of `set_timesteps` ("set"), or of each `step`."""

    argument: str
    where: Literal["made", "set", "step"] = "made"
    values: tuple[Any, ...] = ()
    """All that this class can be told, if that is less than the option's own range."""


def _made(*names: str) -> dict[str, Knob]:
    return {name: Knob(ARGUMENTS.get(name, name)) for name in names}


ARGUMENTS: Mapping[str, str] = {
    "spacing": SPACING, "order": "solver_order", "algorithm": "algorithm_type", "interpolation": "interpolation_type",
    "final_sigmas": "final_sigmas_type", "zero_snr": ZERO, "variance": "variance_type",
}  # fmt: skip
_SPACED = _made("spacing", "steps_offset")
_TIMESTEPS, _STEP = {"timesteps": Knob("timesteps", "set")}, "step"
_SPREAD = {"schedule": Knob("", values=("karras", "exponential", "beta", "even"))}
_CAPPED = _made("thresholding", "dynamic_thresholding_ratio", "sample_max_value")
_CLIPPED = _made("clip_sample", "clip_sample_range")
_DISTILLED = _made("original_inference_steps", "set_alpha_to_one", "timestep_scaling", "zero_snr")
_ORDER = {"order": Knob("solver_order", values=(1, 2, 3))}
_FINAL = _made("lower_order_final")
TAKES: Mapping[str, Mapping[str, Knob]] = {
    "DDIMScheduler": {
        **_SPACED, **_CAPPED, **_CLIPPED, **_made("set_alpha_to_one", "zero_snr"), "eta": Knob("eta", _STEP),
        "use_clipped_model_output": Knob("use_clipped_model_output", _STEP),
    },
    "DDPMScheduler": {**_TIMESTEPS, **_SPACED, **_CAPPED, **_CLIPPED, **_made("variance", "zero_snr")},
    PNDM: {**_SPACED, **_made("set_alpha_to_one")},
    "LMSDiscreteScheduler": {**_SPACED, **_SPREAD, "order": Knob("order", _STEP)},
    "EulerDiscreteScheduler": {
        **_TIMESTEPS, "sigmas": Knob("sigmas", "set"), **_SPACED, **_SPREAD,
        **_made("sigma_min", "sigma_max", "final_sigmas", "interpolation", "zero_snr"),
        **{name: Knob(name, _STEP) for name in ("s_churn", "s_tmin", "s_tmax", "s_noise")},
    },
    "EulerAncestralDiscreteScheduler": {**_SPACED, **_made("zero_snr")},
    "HeunDiscreteScheduler": {**_TIMESTEPS, **_SPACED, **_SPREAD, **_CLIPPED},
    "KDPM2DiscreteScheduler": {**_SPACED, **_SPREAD},
    "KDPM2AncestralDiscreteScheduler": {**_SPACED, **_SPREAD},
    DPM: {
        **_TIMESTEPS, **_SPACED, "schedule": Knob("", values=("karras", "exponential", "beta", "lu", "even")), **_CAPPED, **_ORDER, **_FINAL,
        "algorithm": Knob("algorithm_type", values=("dpmsolver++", "sde-dpmsolver++")),
        "solver_type": Knob("solver_type", values=("midpoint", "heun")), **_made("euler_at_final", "final_sigmas", "zero_snr"),
    },
    SDE: {**_SPACED, **_SPREAD, "s_noise": Knob("s_noise", _STEP)},
    SINGLE: {
        **_TIMESTEPS, **_SPREAD, **_CAPPED, **_ORDER, **_FINAL, "algorithm": Knob("algorithm_type", values=("dpmsolver++", "sde-dpmsolver++")),
        "solver_type": Knob("solver_type", values=("midpoint", "heun")), **_made("final_sigmas"),
    },
    TWO_S_A: {**_SPACED, **_SPREAD},
    "DEISMultistepScheduler": {**_SPACED, **_SPREAD, **_CAPPED, **_ORDER, **_FINAL},
    UNIPC: {
        **_SPACED, **_SPREAD, **_CAPPED, "order": Knob("solver_order", values=(1, 2, 3, 4)), **_FINAL,
        "solver_type": Knob("solver_type", values=("bh1", "bh2")),
        **_made("predict_x0", "disable_corrector", "final_sigmas", "sigma_min", "sigma_max", "zero_snr"),
    },
    "SASolverScheduler": {
        **_SPACED, **_SPREAD, **_CAPPED, "order": Knob("predictor_order", values=(1, 2, 3)), "corrector_order": Knob("corrector_order"),
        "algorithm": Knob("algorithm_type", values=("data_prediction", "noise_prediction")), **_FINAL,
    },
    "LCMScheduler": {**_TIMESTEPS, **_SPACED, **_CAPPED, **_CLIPPED, **_DISTILLED},
    "TCDScheduler": {**_TIMESTEPS, **_SPACED, **_CAPPED, **_CLIPPED, **_DISTILLED, "eta": Knob("eta", _STEP)},
}  # fmt: skip
"""Class -> option -> where it goes. Left out: what is for networks of other families, and what the engine says itself."""


def told(choice: Choice, options: SchedulerOptions | None, steps: int, config: Mapping[str, Any]) -> Choice:
    """The choice with these options. config: the base's own scheduler_config.json.

    Raises RecipeError under `scheduler_options` for what this scheduler does not have or cannot be.
    """
    if options is None or not options.said:
        return choice
    takes, said = TAKES.get(choice.cls, {}), options.said
    for name, value in said.items():
        if name not in takes:
            raise RecipeError(f"scheduler_options.{name}", f"{spoken(choice)[0]} ({choice.cls}) has no {name}. It has {', '.join(takes) or 'none'}; "
                                                           f"{_who(name)}.")  # fmt: skip
        if (values := takes[name].values) and value not in values:
            raise RecipeError(
                f"scheduler_options.{name}",
                f"{value!r} is none that {choice.cls} has. It has {', '.join(map(str, values))}.",
            )
    named, own = dict(choice.arguments), dict[str, Any]()
    calls: dict[str, dict[str, Any]] = {"set": {}, "step": {}}
    for name, value in said.items():
        if name == "schedule":
            named |= _spread(choice, value)
        elif name == "spacing":
            named[SPACING] = value
        elif takes[name].where == "made":
            own[takes[name].argument] = list(value) if isinstance(value, tuple) else value
        else:
            calls[takes[name].where][takes[name].argument] = list(value) if isinstance(value, tuple) else value
    found = replace(choice, arguments=named, own=own, set=calls["set"], step=calls["step"])
    if calls["set"]:
        found = _given(found, said, config)
    _together(found, said, found.count(steps), config)
    return found


def _who(name: str) -> str:
    have = [spoken(Choice(cls, {}))[0] for cls, takes in TAKES.items() if name in takes]
    return f"{', '.join(have)} {'has' if len(have) == 1 else 'have'} {name}" if have else f"none has {name}"


def _spread(choice: Choice, schedule: str) -> dict[str, Any]:
    """One way to spread noise levels; one that the scheduler's name says otherwise is a contradiction."""
    arguments = {**SCHEDULES.get(schedule, dict.fromkeys(SIGMAS, False)), **({LU: schedule == "lu"} if choice.cls == DPM else {})}  # fmt: skip
    if any(choice.arguments.get(n) and not arguments[n] for n in SIGMAS):
        raise RecipeError("scheduler_options.schedule", f"it is {schedule!r}, and the scheduler's name says another. Keep one of the two.")  # fmt: skip
    if arguments.get(BETA):
        require("scipy", "the beta schedule")
    return arguments


def _given(choice: Choice, said: Mapping[str, Any], config: Mapping[str, Any]) -> Choice:
    """Timesteps or noise levels of one's own: nothing else spreads them."""
    if len(choice.set) > 1:
        raise RecipeError("scheduler_options.sigmas", "timesteps say the same. Keep one of the two.")
    name = next(iter(choice.set))
    values, field = said[name], f"scheduler_options.{name}"
    for i, (above, below) in enumerate(pairwise(values)):
        if below >= above:
            raise RecipeError(
                field,
                f"{below:g} comes after {above:g} (entry {i + 2}). From noise to picture each is below the one before.",
            )
    trained = config.get("num_train_timesteps", 1000)
    if name == "timesteps" and not 0 <= values[-1] <= values[0] < trained:
        wrong = values[0] if values[0] >= trained else values[-1]
        raise RecipeError(
            field, f"{wrong} is no timestep of this base, which has those from {trained - 1} to 0. Choose one of these."
        )
    if name == "sigmas" and not all(values[:-1]):
        raise RecipeError(field, "0 is the picture itself, where nothing is asked: only the last may be 0. Remove it.")
    for other in ("schedule", "spacing", "steps_offset", "sigma_min", "sigma_max", "interpolation"):
        if other in said:
            raise RecipeError(
                f"scheduler_options.{other}", f"it spreads the steps, and {name} says where they are. Keep one."
            )
    if any(choice.arguments.get(n) for n in SIGMAS):
        raise RecipeError(
            field, "the scheduler's name says how noise levels are spread, and these say where they are. Keep one."
        )
    even = {n: False for n in (*SIGMAS, *([LU] if choice.cls == DPM else [])) if config.get(n)}
    return replace(choice, own={**choice.own, **even})


def _together(choice: Choice, said: Mapping[str, Any], steps: int, config: Mapping[str, Any]) -> None:
    """What contradicts each other, or the number of steps."""
    made = {**config, **choice.said}
    low, high = said.get("s_tmin", 0.0), said.get("s_tmax", float("inf"))
    if low > high:
        raise RecipeError("scheduler_options.s_tmin", f"{low:g} is above s_tmax, {high:g}. Turn them round.")
    if (low := made.get("sigma_min")) and (high := made.get("sigma_max")) and low >= high:
        raise RecipeError("scheduler_options.sigma_min", f"{low:g} is not below sigma_max, {high:g}. Turn them round.")
    if {"sigma_min", "sigma_max"} & said.keys() and not any(made.get(n) for n in SIGMAS):
        field = "sigma_min" if "sigma_min" in said else "sigma_max"
        raise RecipeError(f"scheduler_options.{field}", "even steps have the ends of the base's own schedule, so it would change nothing. Add "
                                                        "schedule: karras, exponential or beta, or remove it.")  # fmt: skip
    if said.get("interpolation") == "log_linear" and any(made.get(n) for n in SIGMAS):
        raise RecipeError("scheduler_options.interpolation", "a schedule spreads the noise levels already. Keep one.")
    if choice.cls == SINGLE and said.get("lower_order_final") is False:
        order = made.get("solver_order", 2)
        if steps % order or made.get("final_sigmas_type", "zero") == "zero":
            raise RecipeError("scheduler_options.lower_order_final", f"without it, {choice.cls} needs steps that divide by its order ({order}) and "
                                                                     "final_sigmas: sigma_min. Say these, or remove it.")  # fmt: skip
    if choice.cls == UNIPC and made.get("final_sigmas_type", "zero") == "zero":
        for name, value in (("solver_type", "bh1"), ("predict_x0", False), ("lower_order_final", False)):
            if said.get(name) == value:
                raise RecipeError(f"scheduler_options.{name}", f"with {value!r} UniPC divides by the last noise level, which is 0. Add "
                                                               "final_sigmas: sigma_min, or remove it.")  # fmt: skip
    if (
        choice.cls == "SASolverScheduler"
        and made.get("thresholding")
        and made.get("algorithm_type") == "noise_prediction"
    ):
        raise RecipeError("scheduler_options.thresholding", "a clean latent is capped, and this algorithm works on noise. Remove one of the two.")  # fmt: skip
    if said.get("steps_offset") and made.get(SPACING, "leading") != "leading":
        raise RecipeError("scheduler_options.steps_offset", f"only the spacing \"leading\" hears it, and it is {made[SPACING]!r}. Remove it, or "
                                                            "add spacing: leading.")  # fmt: skip
