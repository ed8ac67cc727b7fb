"""A scheduler's knobs: what a class has is what diffusers' class has; the rest is a letter; and they turn what they say."""

from __future__ import annotations

import ast
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from some import some

import tiny
from infuse import Recipe
from infuse.engine.advice import acceleration
from infuse.errors import RecipeError
from infuse.samplers import CLASSES, SDE, SIGMAS, SPACING, TWO_S_A, parse
from infuse.scheduler_options import LU, TAKES, SchedulerOptions, told
from infuse.solvers import evaluations, plan, solve

LEFT_OUT = {
    "num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "prediction_type", "self",  # the base's own
    "use_flow_sigmas", "flow_shift", "use_dynamic_shifting", "time_shift_type", "shift_terminal", "mu", "timestep_type",  # other families'
    "skip_prk_steps", "tau_func", "solver_p", "lambda_min_clipped", "noise_sampler_seed", "device", "num_inference_steps", "strength",
    "generator", "variance_noise", "return_dict", "model_output", "timestep", "sample", LU, *SIGMAS, SPACING,
}  # fmt: skip
"""Arguments that are the engine's, the base's, another option's, or of networks that infuse does not run."""


def arguments(cls: str, method: str) -> set[str]:
    """Of a method of a diffusers class, read from its source."""
    spec = find_spec("diffusers")
    assert spec and spec.submodule_search_locations
    for path in Path(spec.submodule_search_locations[0], "schedulers").glob("scheduling_*.py"):
        for node in ast.parse(path.read_text("utf-8")).body if f"class {cls}(" in path.read_text("utf-8") else ():
            if isinstance(node, ast.ClassDef) and node.name == cls:
                found = next(n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == method)
                return {a.arg for a in found.args.args}
    raise AssertionError(cls)


@pytest.mark.parametrize("cls", CLASSES)
def test_every_knob_is_an_argument_and_every_argument_a_knob(cls: str) -> None:
    theirs = "KDPM2AncestralDiscreteScheduler" if cls == TWO_S_A else cls
    own = {(k.where, k.argument) for k in TAKES[cls].values() if k.argument}
    for where, method in (("made", "__init__"), ("set", "set_timesteps"), ("step", "step")):
        there = arguments(theirs, method)
        said = {a for w, a in own if w == where}
        assert said <= there
        missing = there - said - LEFT_OUT
        # the learned variances of DDPM's kin need networks of twice the channels; LCM's steps are said in the constructor
        assert missing <= {"variance_type", "original_inference_steps", "algorithm_type", "solver_type"} | {"order", "timesteps", "sigmas"}, (method, missing)  # fmt: skip
    assert ("schedule" in TAKES[cls]) == (set(SIGMAS) <= arguments(theirs, "__init__"))


SOME: dict[str, tuple[Any, ...]] = {
    "timesteps": ((999, 700, 300, 10),), "sigmas": ((14.0, 6.0, 2.0, 0.0), (10.0, 3.0, 1.0)), "spacing": ("leading", "linspace", "trailing"),
    "schedule": ("karras", "exponential", "beta", "lu", "even"), "steps_offset": (3,), "sigma_min": (0.1,), "sigma_max": (10.0,),
    "final_sigmas": ("zero", "sigma_min"), "eta": (0.5, 1.0), "s_churn": (5.0,), "s_tmin": (0.5,), "s_tmax": (5.0,), "s_noise": (1.01,),
    "order": (1, 2, 3, 4), "corrector_order": (1, 3), "algorithm": ("dpmsolver++", "sde-dpmsolver++", "data_prediction", "noise_prediction"),
    "solver_type": ("midpoint", "heun", "bh1", "bh2"), "lower_order_final": (True, False), "euler_at_final": (True,), "predict_x0": (False,),
    "disable_corrector": ((0, 1),), "interpolation": ("log_linear",), "thresholding": (True,), "dynamic_thresholding_ratio": (0.9,),
    "sample_max_value": (2.0,), "clip_sample": (True,), "clip_sample_range": (3.0,), "use_clipped_model_output": (True,),
    "variance": ("fixed_small", "fixed_small_log", "fixed_large"), "zero_snr": (True,), "set_alpha_to_one": (False,),
    "original_inference_steps": (40,), "timestep_scaling": (5.0,),
}  # fmt: skip
"""Values of each option."""


def run(cls: str, options: SchedulerOptions, steps: int = 4, strength: float | None = None) -> torch.Tensor | None:
    """What comes out of a toy network; None for a letter."""
    try:
        choice = told(parse(None, cls), options, steps, tiny.SCHEDULE)
        count = evaluations(choice, tiny.SCHEDULE, steps, strength)
    except RecipeError as letter:
        assert letter.field.startswith("scheduler_options.") and letter.message.endswith(".")
        return None
    planned = plan(choice, tiny.SCHEDULE, steps, strength).fresh()
    assert len(planned.timesteps) == count
    g = torch.Generator().manual_seed(0)
    solver = solve(planned, torch.randn((1, 4, 4), generator=g) * planned.scheduler.init_noise_sigma, g)
    x, _ = next(solver)
    try:
        while True:
            x, _ = solver.send(0.3 * torch.tanh(x))
    except StopIteration as done:
        assert done.value.isfinite().all()
        return done.value


def test_there_is_a_value_for_every_option() -> None:
    assert SOME.keys() == SchedulerOptions.model_fields.keys()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("cls", [c for c in CLASSES if c != SDE or find_spec("torchsde")])
def test_every_value_is_a_letter_or_runs(cls: str) -> None:
    for name, values in SOME.items():
        for value in values:
            ran = run(cls, SchedulerOptions(**{name: value})) is not None
            assert not ran or name in TAKES[cls]
            if ran and name in ("timesteps", "sigmas", "spacing", "schedule"):
                run(cls, SchedulerOptions(**{name: value}), strength=0.6)


CHANGE = [
    ("DDIM", {"eta": 0.5}), ("TCD", {"eta": 0.5}), ("Euler", {"s_churn": 2.0}), ("Euler", {"sigmas": (12.0, 5.0, 1.0, 0.0)}),
    ("Euler", {"schedule": "karras"}), ("LMS", {"order": 1}), ("DPM++ 2M", {"order": 3}), ("DPM++ 2M", {"schedule": "lu"}),
    ("DPM++ 2M", {"algorithm": "sde-dpmsolver++"}), ("UniPC", {"solver_type": "bh1", "final_sigmas": "sigma_min"}),
    ("Heun", {"timesteps": (900, 500, 100)}), ("DDPM", {"variance": "fixed_large"}), ("DDPM", {"spacing": "trailing"}),
    ("SA-Solver", {"order": 1}), ("Euler", {"final_sigmas": "sigma_min"}), ("DDIM", {"thresholding": True}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options"), CHANGE)
def test_they_turn_something(name: str, options: dict[str, Any]) -> None:
    cls = parse(name, "").cls
    usual, turned = (run(cls, SchedulerOptions(**o), 6) for o in ({}, options))
    assert usual is not None and turned is not None and not torch.equal(usual, turned)


# ── letters ─────────────────────────────────────────────────────────────────────────────────────────────────────────


REFUSED = [
    ("Euler a", {"eta": 0.5}, "eta", ("has no eta", "It has spacing, steps_offset, zero_snr", "DDIM, TCD have eta")),
    ("Euler", {"order": 2}, "order", ("s_churn", "DPM++ 2M")),
    ("DPM++ 2M", {"order": 4}, "order", ("It has 1, 2, 3",)),
    ("DPM++ 2M", {"timesteps": (1, 2)}, "timesteps", ("2 comes after 1",)),
    ("DPM++ 2M", {"timesteps": (1000, 2)}, "timesteps", ("999 to 0",)),
    ("DPM++ 2M", {"timesteps": (900, -2)}, "timesteps", ("-2 is no timestep",)),
    ("DPM++ 2M Karras", {"timesteps": (900, 2)}, "timesteps", ("Keep one",)),
    ("DPM++ 2M", {"timesteps": (900, 2), "schedule": "karras"}, "schedule", ("Keep one",)),
    ("DPM++ 2M Karras", {"schedule": "beta"}, "schedule", ("says another",)),
    ("Euler", {"timesteps": (900, 2), "sigmas": (3.0, 0.0)}, "sigmas", ("Keep one",)),
    ("Euler", {"s_tmin": 3.0, "s_tmax": 1.0}, "s_tmin", ("Turn them round",)),
    ("Euler", {"sigma_min": 3.0}, "sigma_min", ("change nothing",)),
    ("UniPC", {"predict_x0": False}, "predict_x0", ("sigma_min",)),
    ("DDIM", {"steps_offset": 500}, "steps_offset", ("at most 199",)),
    ("DPM++ 2S", {"lower_order_final": False}, "lower_order_final", ("sigma_min",)),
    ("LCM", {"original_inference_steps": 1000, "timesteps": tuple(range(60, 0, -1))}, "", ()),
    ("LCM", {"timesteps": tuple(range(60, 0, -1))}, "timesteps", ("at most 50",)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options", "field", "words"), REFUSED)
def test_what_a_scheduler_does_not_have_is_a_letter(
    name: str, options: dict[str, Any], field: str, words: tuple[str, ...]
) -> None:
    def ask() -> int:
        choice = told(parse(name, ""), SchedulerOptions(**options), 5, tiny.SCHEDULE)
        return evaluations(choice, tiny.SCHEDULE, 5, None)

    if not field:
        assert ask() == 60
        return
    with pytest.raises(RecipeError) as letter:
        ask()
    assert letter.value.field == f"scheduler_options.{field}"
    assert all(w in letter.value.message for w in words), letter.value.message


@pytest.mark.parametrize(
    ("said", "field", "words"),
    [
        ({"eta": 2}, "scheduler_options.eta", "less than or equal to 1"),
        ({"etta": 0.5}, "scheduler_options.etta", "Did you mean eta"),
        ({"rho": 5}, "scheduler_options.rho", "sigmas of Euler"),
        ({"flow_shift": 3.0}, "scheduler_options.flow_shift", "flow networks"),
        ({"timesteps": []}, "scheduler_options.timesteps", "at least 1"),
        ({"s_noise": float("nan")}, "scheduler_options.s_noise", "finite"),
        ({"use_karras_sigmas": True, "use_beta_sigmas": True}, "scheduler_options.use_karras_sigmas", "in one way"),
        ({"use_karras_sigmas": True, "schedule": "beta"}, "scheduler_options.schedule", "Keep one"),
    ],
)
def test_wrong_values_are_letters(said: dict[str, Any], field: str, words: str) -> None:
    with pytest.raises(RecipeError, match=words) as letter:
        Recipe(prompt="x", scheduler_options=said)
    assert letter.value.field == field


def test_what_others_say_beside_the_prompt_is_an_option() -> None:
    options = Recipe(eta=0.5, timestep_spacing="trailing", use_karras_sigmas=False, timesteps=None).scheduler_options
    assert options == SchedulerOptions(eta=0.5, spacing="trailing")
    assert Recipe(eta=0).scheduler_options is None
    assert Recipe(use_karras_sigmas=True, solver_order=3).scheduler_options == SchedulerOptions(
        schedule="karras", order=3
    )
    assert Recipe(eta=0.5, scheduler_options={"s_noise": 1}).scheduler_options == SchedulerOptions(eta=0.5, s_noise=1)
    with pytest.raises(RecipeError, match="Keep one"):
        Recipe(eta=0.5, scheduler_options={"eta": 0.6})
    said = Recipe(scheduler="DDIM", scheduler_options={"eta": 0.5, "timesteps": None})
    assert Recipe(**said.dump()) == said and said.digest != Recipe(scheduler="DDIM").digest


# ── the engine ──────────────────────────────────────────────────────────────────────────────────────────────────────


STOCK: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = [
    ("DDIM", "DDIMScheduler", {"eta": 0.7}, {"eta": 0.7}),
    ("TCD", "TCDScheduler", {"eta": 0.3}, {"eta": 0.3}),
    ("Euler", "EulerDiscreteScheduler", {"sigmas": [14.6, 7.0, 3.0, 1.0, 0.0]}, {"sigmas": [14.6, 7.0, 3.0, 1.0, 0.0]}),
    ("Euler", "EulerDiscreteScheduler", {"timesteps": [999, 600, 200, 20]}, {"timesteps": [999, 600, 200, 20]}),
    ("DPM++ 2M", "DPMSolverMultistepScheduler", {"timesteps": [999, 850, 500, 100]}, {"timesteps": [999, 850, 500, 100]}),
    ("DPM++ 2S", "DPMSolverSinglestepScheduler", {"timesteps": [999, 850, 500, 100]}, {"timesteps": [999, 850, 500, 100]}),
    ("DDPM", "DDPMScheduler", {"timesteps": [999, 850, 500, 100]}, {"timesteps": [999, 850, 500, 100]}),
    ("Heun", "HeunDiscreteScheduler", {"timesteps": [999, 600, 200, 20]}, {"timesteps": [999, 600, 200, 20]}),
    ("LCM", "LCMScheduler", {"timesteps": [999, 759, 499, 259]}, {"timesteps": [999, 759, 499, 259]}),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize(
    ("name", "cls", "options", "asked"), some(STOCK, quick=[s for s in STOCK if s[0] in ("DDIM", "LCM", "DPM++ 2M")])
)
def test_stock_pipelines_with_the_same_arguments(
    name: str, cls: str, options: dict[str, Any], asked: dict[str, Any]
) -> None:
    small = tiny.base("sd1")
    scheduler = getattr(diffusers, cls).from_config(dict(small.base.scheduler))
    parts = {k: v for k, v in small.parts.items() if k not in ("image_encoder", "feature_extractor")}
    pipe = diffusers.StableDiffusionPipeline(
        **parts, scheduler=scheduler, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
    pipe.set_progress_bar_config(disable=True)
    theirs = pipe(
        "a red cube", height=32, width=32, num_inference_steps=4, guidance_scale=5.0, output_type="latent",
        generator=torch.Generator("cpu").manual_seed(3), **asked,
    ).images  # fmt: skip
    recipe = Recipe(prompt="a red cube", width=32, height=32, steps=4, guidance=5.0, seed=3, scheduler=name, scheduler_options=options)  # fmt: skip
    ours = tiny.engine(small).run(recipe).latents
    assert float((ours - theirs).abs().max() / theirs.abs().max()) < 1e-5  # float32 in another order, as in test_parity


def test_steps_that_are_said_twice_are_a_warning() -> None:
    said = {"prompt": "x", "scheduler": "Euler", "scheduler_options": {"sigmas": [9, 3, 0]}, "width": 32, "height": 32}
    engine = tiny.engine(tiny.base("sd1"))
    found = engine.check(Recipe(**said))
    assert found.steps == 2 and not any(w.startswith("steps:") for w in found.warnings)
    with pytest.warns(match="steps: 9, but scheduler_options.sigmas say 2"):
        engine.check(Recipe(**said, steps=9))


@pytest.mark.parametrize(
    ("name", "scheduler", "steps", "guidance", "words"),
    [
        ("loras/lcm-lora-sdv1-5.safetensors", "Euler", 30, 7.5, ("LCM", "scheduler: LCM", "steps: 4", "guidance: 1")),
        ("lcm-lora-sdxl", "LCM", 4, 1.5, ()),
        ("sdxl_lightning_8step_lora.safetensors", "Euler", 8, 1.0, ("Lightning", "scheduler: Euler trailing")),
        ("sdxl_lightning_8step_lora.safetensors", "Euler trailing", 4, 1.0, ("steps: 8",)),
        ("sdxl_lightning_8step_lora.safetensors", "Euler trailing", 8, 1.0, ()),
        ("Hyper-SD15-8steps-lora.safetensors", "DPM++ 2M Karras", 8, 1.0, ("Hyper-SD", "DDIM trailing")),
        ("Hyper-SDXL-1step-lora", "TCD", 1, 1.0, ()),
        ("sd_xl_turbo_lora_v1", "Euler a", 20, 7.0, ("Turbo", "steps: 4", "guidance: 1")),
        ("filmcore_hyperrealism.safetensors", "Euler", 30, 7.0, ()),
        ("lightninghorse", "Euler", 30, 7.0, ()),
    ],
)
def test_few_steps_want_their_scheduler(
    name: str, scheduler: str, steps: int, guidance: float, words: tuple[str, ...]
) -> None:
    text = acceleration(name, parse(scheduler, ""), steps, guidance)
    assert (text is None) == (not words) and all(w in (text or "") for w in words), text
