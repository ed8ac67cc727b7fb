"""Samplers by name: what people call them, here and in other programs, and facts enough to check one without importing it.

The names are the webui's, because files and forums speak them ("DPM++ 2M Karras"); ComfyUI, InvokeAI and diffusers spell
the same samplers in other ways. What a scheduler class of diffusers takes is written down in `CLASSES`; the tests compare
it with the classes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from importlib.util import find_spec
from typing import Any

from infuse.errors import RecipeError

DPM, SDE, SINGLE = "DPMSolverMultistepScheduler", "DPMSolverSDEScheduler", "DPMSolverSinglestepScheduler"
PNDM, TWO_S_A = "PNDMScheduler", "DPMSolver2SAncestralScheduler"

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
    "DPM++ 3M": (DPM, {"algorithm_type": "dpmsolver++", "solver_order": 3}),
    "DPM++ 2M SDE": (DPM, {"algorithm_type": "sde-dpmsolver++"}),
    "DPM++ 2M SDE Heun": (DPM, {"algorithm_type": "sde-dpmsolver++", "solver_type": "heun"}),
    "DPM++ 3M SDE": (DPM, {"algorithm_type": "sde-dpmsolver++", "solver_order": 3}),
    "DPM++ SDE": (SDE, {}),
    "DPM++ 2S": (SINGLE, {}),
    "DPM++ 2S a": (TWO_S_A, {}),
    "DEIS": ("DEISMultistepScheduler", {}),
    "UniPC": ("UniPCMultistepScheduler", {}),
    "SA-Solver": ("SASolverScheduler", {}),
    "LCM": ("LCMScheduler", {}),
    "TCD": ("TCDScheduler", {}),
}
"""Names people know -> class and arguments."""

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
    "simple": {SPACING: "trailing"},
    "leading": {SPACING: "leading"},
    "ddim uniform": {SPACING: "leading"},
    "ddim": {SPACING: "leading"},
    "linspace": {SPACING: "linspace"},
    "uniform": {},
    "normal": {},
}
"""A noise schedule named after the sampler, as in "DPM++ 2M Karras". "Uniform" is the base's own, which is even, too."""


@dataclass(frozen=True)
class Facts:
    """What a scheduler class is, so that a check need not import it."""

    accepts: frozenset[str]
    """Which of the arguments above its constructor has."""
    order: int = 1
    """Evaluations of the network for each step but the last, which has one."""
    distilled: bool = False
    """It cannot take more steps than its `original_inference_steps`, which it picks its timesteps from."""
    sample: bool = True
    """It runs networks that predict the clean latent (`prediction_type: sample`)."""
    zero: bool = True
    """It can start from pure noise (zero terminal SNR). Whoever averages the noise seen at both ends of the first step
    cannot: what differs there would count 2000 times."""
    spare: int = 0
    """Noise levels that it leaves out beyond the last step when they are spaced as "leading": it divides by n + 1."""
    needs: str | None = None
    """A package that it asks for."""


_SPACED, _FULL = frozenset({SPACING}), frozenset({SPACING, *SIGMAS})
CLASSES: Mapping[str, Facts] = {
    "DDIMScheduler": Facts(_SPACED | {ZERO}),
    "DDPMScheduler": Facts(_SPACED | {ZERO}),
    PNDM: Facts(_SPACED, sample=False, zero=False),
    "LMSDiscreteScheduler": Facts(_FULL, needs="scipy"),
    "EulerDiscreteScheduler": Facts(_FULL | {ZERO}),
    "EulerAncestralDiscreteScheduler": Facts(_SPACED | {ZERO}, sample=False),
    "HeunDiscreteScheduler": Facts(_FULL, order=2, zero=False),
    "KDPM2DiscreteScheduler": Facts(_FULL, order=2, sample=False),
    "KDPM2AncestralDiscreteScheduler": Facts(_FULL, order=2, sample=False),
    DPM: Facts(_FULL | {ZERO}, spare=1),
    SDE: Facts(_FULL, order=2, sample=False, needs="torchsde"),
    SINGLE: Facts(frozenset(SIGMAS)),
    TWO_S_A: Facts(_FULL, order=2, sample=False),
    "DEISMultistepScheduler": Facts(_FULL, spare=1),
    "UniPCMultistepScheduler": Facts(_FULL | {ZERO}, spare=1),
    "SASolverScheduler": Facts(_FULL, spare=1),
    "LCMScheduler": Facts(_SPACED | {ZERO}, distilled=True),
    "TCDScheduler": Facts(_SPACED | {ZERO}, distilled=True),
}


@dataclass(frozen=True)
class Choice:
    """A scheduler class by its name, with the arguments its spoken name stands for."""

    cls: str
    arguments: Mapping[str, Any]
    own: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the constructor that no name stands for (`scheduler_options`)."""
    set: Mapping[str, Any] = field(default_factory=dict)
    """Timesteps or noise levels of one's own, as arguments of `set_timesteps`."""
    step: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of each `step`: eta, churn."""

    @property
    def said(self) -> dict[str, Any]:
        """All arguments of the constructor."""
        return {**self.arguments, **self.own}

    def count(self, steps: int) -> int:
        """Steps of a run that is asked for so many: timesteps and noise levels of one's own have their number."""
        if (sigmas := self.set.get("sigmas")) is not None:
            return len(sigmas) - 1  # the last is where it ends
        return len(self.set.get("timesteps", range(steps)))

    def build(self, config: Mapping[str, Any]) -> Any:
        """A fresh instance on the base model's own noise schedule (its scheduler_config.json)."""
        from infuse.schedulers import built

        return built(self.cls, config, self.said)


# ── names ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _key(name: str) -> str:
    """What all spellings of a name have in common."""
    key = re.sub(r"[\s_\-]+|scheduler|gpu", "", name.lower().removeprefix("k_").removeprefix("sample_"))
    return key.replace("pp", "++").replace("ancestral", "a")


_PLAIN = {_key(cls): (cls, {}) for cls in CLASSES} | {_key(n): v for n, v in NAMES.items()}  # "PNDM" is both
ALIASES: Mapping[str, str] = {
    "kdpm2": "DPM2",
    "kdpm2a": "DPM2 a",
    "unipcbh1": "UniPC",
    "unipcbh2": "UniPC",
}
"""Keys of other programs that are no spelling of ours."""
AUTOMATIC: Mapping[str, str] = {
    "DPM++ 2M": "karras", "DPM++ SDE": "karras", "DPM++ 2S a": "karras", "DPM2": "karras", "DPM2 a": "karras",
    "DPM++ 2M SDE": "exponential", "DPM++ 2M SDE Heun": "exponential", "DPM++ 3M SDE": "exponential",
}  # fmt: skip
"""What the webui's schedule type "Automatic" means; for the others, even steps."""


def _found(key: str) -> tuple[str, dict[str, Any]] | None:
    """(class, arguments) of a sampler's key."""
    return _PLAIN.get(key) or (NAMES[ALIASES[key]] if key in ALIASES else None)


def _split(text: str) -> tuple[str, str | None]:
    """(key of the sampler, schedule): "dpmpp_2m_k" and "k_dpmpp_2m_ka", too, mean Karras."""
    key = _key(text)
    if _found(key):
        return key, None
    for schedule in sorted(SCHEDULES, key=len, reverse=True):
        if key.endswith(_key(schedule)) and _found(key.removesuffix(_key(schedule))):
            return key.removesuffix(_key(schedule)), schedule
    short = re.fullmatch(r"(.+?)ka?", key)
    return (short[1], "karras") if short and _found(short[1]) else (key, None)


@cache
def parse(name: str | None, default: str) -> Choice:
    """A scheduler by any of its names; None means the model's own (`default`, a diffusers class name).

    Raises RecipeError for an unknown name or a missing optional package.
    """
    text = name or default
    key, schedule = _split(text)
    found = _found(key)
    if found is None:
        near = get_close_matches(text, list(NAMES), 3, 0.4)
        said = f"no scheduler is called {text!r}." if name else f"the model's own is {text!r}, which is not known here."
        raise RecipeError(
            "scheduler",
            f"{said} {'Did you mean ' + ', '.join(near) + '? ' if near else ''}"
            f"Known: {', '.join(NAMES)}; with Karras, exponential, beta or trailing after the name.",
        )
    cls, arguments = found
    extra = SCHEDULES[schedule] if schedule else {}
    require(CLASSES[cls].needs, text)
    if unknown := _refused(cls, extra):
        raise RecipeError("scheduler", f"{text!r}: {cls} has no {unknown[0]}. Use {text.rsplit(' ', 1)[0]!r} alone.")
    if extra.get(BETA):
        require("scipy", text)
    return Choice(cls, {**arguments, **extra})


def _refused(cls: str, arguments: Mapping[str, Any]) -> list[str]:
    return [a for a, on in arguments.items() if on and a not in CLASSES[cls].accepts]


def require(package: str | None, text: str) -> None:
    """A letter with the install line, if it is not there."""
    if package and find_spec(package) is None:
        raise RecipeError("scheduler", f"{text!r} needs the package {package}. Run: pip install {package}")


# ── other programs ──────────────────────────────────────────────────────────────────────────────────────────────────


def foreign(sampler: str, schedule: str | None) -> str | None:
    """Our spelling of what the webui, ComfyUI, InvokeAI or diffusers calls a sampler and its schedule.

    ("dpmpp_2m", "karras") and ("DPM++ 2M", "Automatic") are "DPM++ 2M Karras". None if either is not known here, or this
    sampler does not take that schedule; without a schedule, the sampler's own name decides. What is even in the other
    program ("uniform", "normal") is even as the base's config says it.
    """
    key, within = _split(sampler)
    found = _found(key)
    if found is None:
        return None
    name = _spoken(*found)
    if schedule and _key(schedule) == "automatic":
        schedule = within or AUTOMATIC.get(name)
    elif schedule:
        schedule = next((s for s in SCHEDULES if _key(s) == _key(schedule)), schedule)
    else:
        schedule = within
    if schedule is None:
        return name
    arguments = SCHEDULES.get(schedule)
    if arguments is None or _refused(found[0], arguments):
        return None
    return f"{name} {_LABELS[_type(arguments)]}".rstrip()


def called(choice: Choice, config: Mapping[str, Any]) -> str:
    """Our name of a choice, "DPM++ 2M Karras": what it does not say itself, the base's own scheduler_config.json may."""
    there = {k: v for k in ("algorithm_type", *SIGMAS) if (v := config.get(k)) and k not in choice.arguments}
    arguments = {**(there if config.get("_class_name") == choice.cls else {}), **choice.arguments}
    return f"{_spoken(choice.cls, arguments)} {_LABELS[_type(arguments)]}".rstrip()


_LABELS = {"Karras": "Karras", "Exponential": "exponential", "Beta": "beta", "SGM Uniform": "trailing", "DDIM": "leading",
           "Linspace": "linspace", "Uniform": ""}  # fmt: skip
"""The webui's schedule type -> our word after the sampler's name."""


def _type(arguments: Mapping[str, Any]) -> str:
    """The webui's schedule type of a choice's arguments."""
    on = [label for label, name in zip(("Karras", "Exponential", "Beta"), SIGMAS, strict=True) if arguments.get(name)]
    spacing = {"trailing": "SGM Uniform", "leading": "DDIM", "linspace": "Linspace"}
    return on[0] if on else spacing.get(arguments.get(SPACING, ""), "Uniform")


def _spoken(cls: str, arguments: Mapping[str, Any]) -> str:
    """The name of a class with arguments; of a class alone, the first name it has."""
    plain = {k: v for k, v in arguments.items() if k not in (*SIGMAS, SPACING)}
    exact = [n for n, (c, a) in NAMES.items() if c == cls and a == plain]
    return next(iter(exact or [n for n, (c, _) in NAMES.items() if c == cls]), cls)


def spoken(choice: Choice) -> tuple[str, str]:
    """(sampler, schedule type) of a choice as the webui calls them; what it does not have keeps our name."""
    name, schedule = _spoken(choice.cls, choice.arguments), _type(choice.arguments)
    if schedule == "Uniform" and name not in AUTOMATIC:
        schedule = "Automatic"
    elif schedule == "Linspace":  # its own word for even steps over all noise levels
        schedule = "Uniform"
    return ("PLMS" if name == "PNDM" else name), schedule
