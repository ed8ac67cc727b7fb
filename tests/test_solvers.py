"""Samplers: what a check knows of them without importing them is what they are; none of them ends in a raw error."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from some import some
from torch import Tensor

import tiny
from infuse import Img2Img, Inpaint, Recipe, samplers
from infuse.errors import RecipeError
from infuse.samplers import CLASSES, NAMES, SCHEDULES, SIGMAS, SPACING, TWO_S_A, ZERO, called
from infuse.solvers import Choice, Plan, evaluations, foreign, least, parse, plan, solve, spoken

SPOKEN = [name for name, (cls, _) in NAMES.items() if cls != samplers.SDE or find_spec("torchsde")]
DISTINCT = ("karras", "exponential", "beta", "trailing", "leading", "linspace")
"""Schedules, each under one of its names."""


def takes(name: str, schedule: str | None) -> bool:
    return schedule is None or {a for a, on in SCHEDULES[schedule].items() if on} <= CLASSES[NAMES[name][0]].accepts


def spoken_with_schedules() -> list[str]:
    """Every name alone and with every schedule that it takes."""
    return [f"{n} {s or ''}".strip() for n in SPOKEN for s in (None, *DISTINCT) if takes(n, s)]


def constructor(cls: str) -> set[str]:
    """Arguments of a diffusers class, read from its source: one whose package is not installed is a dummy."""
    cls = "KDPM2AncestralDiscreteScheduler" if cls == TWO_S_A else cls  # ours has what it inherits
    spec = find_spec("diffusers")
    assert spec and spec.submodule_search_locations
    for path in Path(spec.submodule_search_locations[0], "schedulers").glob("scheduling_*.py"):
        for node in ast.parse(path.read_text("utf-8")).body if f"class {cls}(" in path.read_text("utf-8") else ():
            if isinstance(node, ast.ClassDef) and node.name == cls:
                inits = [n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"]
                return {a.arg for a in inits[0].args.args}
    raise AssertionError(cls)


# ── a toy: data of mean MEAN and spread SPREAD, whose best network is known ─────────────────────────────────────────

MEAN, SPREAD = 0.7, 0.5


def best(planned: Plan, prediction: str) -> Callable[[Tensor, Any], Tensor]:
    """What the best network of the toy answers to (input, timestep)."""
    alphas = planned.scheduler.alphas_cumprod.double()

    def answer(x: Tensor, t: Any) -> Tensor:
        t = torch.as_tensor(t).double().clamp(0, len(alphas) - 1)
        low = t.floor().long()
        a = torch.lerp(alphas[low], alphas[t.ceil().long()], t - low)
        x0 = MEAN + a.sqrt() * SPREAD**2 * (x.double() - a.sqrt() * MEAN) / (a * SPREAD**2 + 1 - a)
        eps = (x.double() - a.sqrt() * x0) / (1 - a).sqrt()
        said = {"epsilon": eps, "v_prediction": a.sqrt() * eps - (1 - a).sqrt() * x0, "sample": x0}[prediction]
        return said.to(x)

    return answer


def run(
    name: str,
    steps: int,
    strength: float | None = None,
    side: int = 8,
    dtype: torch.dtype = torch.float32,
    **schedule: Any,
) -> tuple[Tensor, Tensor, int]:
    """(what comes out, the noise it began with, how often the network was asked)."""
    config = tiny.SCHEDULE | schedule
    planned = plan(parse(name, ""), config, steps, strength).fresh()
    network = best(planned, config["prediction_type"])
    g = torch.Generator().manual_seed(0)
    noise = torch.randn((1, side, side), generator=g).to(dtype)
    x = noise * planned.scheduler.init_noise_sigma
    if strength is not None:
        x = planned.scheduler.add_noise(torch.full_like(noise, MEAN)[None], noise[None], planned.timesteps[:1])[0].to(
            dtype
        )
    solver, asked = solve(planned, x.to(dtype), g), 0
    query = next(solver)
    while True:
        asked += 1
        try:
            query = solver.send(network(*query))
        except StopIteration as done:
            assert done.value.dtype == dtype
            return done.value, noise, asked


# ── facts ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("cls", CLASSES)
def test_facts_are_those_of_the_installed_diffusers(cls: str) -> None:
    assert CLASSES[cls].accepts == constructor(cls) & {SPACING, ZERO, *SIGMAS}
    assert CLASSES[cls].distilled == ("original_inference_steps" in constructor(cls))


@pytest.mark.parametrize("name", SPOKEN)
def test_who_runs_a_network_that_predicts_the_clean_latent(name: str) -> None:
    config = tiny.SCHEDULE | {"prediction_type": "sample"}
    if CLASSES[parse(name, "").cls].sample:
        assert run(name, 3, prediction_type="sample")[0].isfinite().all()
        return
    with pytest.raises(RecipeError, match="Use DDIM, Euler") as letter:
        evaluations(parse(name, ""), config, 3, None)
    assert letter.value.field == "scheduler"


@pytest.mark.parametrize(
    "name",
    [
        n if n in ("DDIM", "PNDM", "Heun", "DPM++ 2S a") else pytest.param(n, marks=pytest.mark.slow)
        for n in spoken_with_schedules()
    ],
)
def test_evaluations_are_the_timesteps_of_the_plan(name: str) -> None:
    choice = parse(name, "")
    for steps in (1, 2, 3, 5, 20, 50):
        for strength in (None, 0.1, 0.5, 1.0):
            try:
                count = evaluations(choice, tiny.SCHEDULE, steps, strength)
            except RecipeError as refused:
                with pytest.raises(RecipeError) as again:
                    plan(choice, tiny.SCHEDULE, steps, strength)
                assert str(again.value) == str(refused) and refused.field == "strength"
                continue
            assert count == len(plan(choice, tiny.SCHEDULE, steps, strength).timesteps), (steps, strength)


def test_a_class_without_facts_is_built() -> None:
    for choice in (Choice("IPNDMScheduler", {}), Choice("PNDMScheduler", {"skip_prk_steps": False})):
        found = evaluations(choice, tiny.SCHEDULE, 10, None)
        assert found == len(plan(choice, tiny.SCHEDULE, 10, None).timesteps) >= 10


def test_a_check_imports_neither_torch_nor_diffusers() -> None:
    code = (
        "import sys; from infuse.solvers import evaluations, parse\n"
        f"for name in {spoken_with_schedules()!r}: evaluations(parse(name, ''), {tiny.SCHEDULE!r}, 20, 0.5)\n"
        "print([m for m in ('torch', 'diffusers', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ── numbers of steps ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("steps", [1, 3, 7, 30, 50, 999, 1000])
def test_the_smallest_strength_works_as_it_is_printed(steps: int) -> None:
    printed = f"{least(steps):g}"
    assert evaluations(parse("DDIM", ""), tiny.SCHEDULE, steps, float(printed)) == 1
    assert float(printed) < 1.2 / steps or steps < 10
    if steps > 1:
        with pytest.raises(RecipeError, match=f"at least {printed}, or") as letter:
            evaluations(parse("DDIM", ""), tiny.SCHEDULE, steps, 0.9 / steps)
        assert letter.value.field == "strength"


def test_the_smallest_strength_works_for_all_numbers_of_steps() -> None:
    assert all(int(steps * float(f"{least(steps):g}")) == 1 for steps in range(1, 1001))


@pytest.mark.parametrize("name", ["LCM", "TCD"])
def test_more_steps_than_were_distilled_are_a_letter(name: str) -> None:
    said: list[Any] = []
    for ask in (evaluations, plan):
        with pytest.raises(RecipeError, match="Use at most 50") as letter:
            ask(parse(name, ""), tiny.SCHEDULE, 51, None)
        said.append((letter.value.field, str(letter.value)))
    assert said[0] == said[1] and said[0][0] == "steps"
    assert evaluations(parse(name, ""), tiny.SCHEDULE | {"original_inference_steps": 100}, 51, None) == 51


def test_more_steps_than_noise_levels_are_a_letter() -> None:
    for name in SPOKEN:
        with pytest.raises(RecipeError, match="Use at most 40") as letter:
            evaluations(parse(name, ""), tiny.SCHEDULE | {"num_train_timesteps": 40}, 41, None)
        assert letter.value.field == "steps"


@pytest.mark.parametrize("name", ["DPM++ SDE", "DPM++ SDE Karras", "dpmpp_sde"])
def test_a_missing_package_is_named_with_its_install_line(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samplers, "find_spec", lambda package: None)
    with pytest.raises(RecipeError, match="pip install torchsde") as letter:
        parse.__wrapped__(name, "")
    assert letter.value.field == "scheduler" and "Karras" not in letter.value.message.split("needs")[1]
    with pytest.raises(RecipeError, match="pip install scipy"):
        parse.__wrapped__("Euler beta", "")
    with pytest.raises(RecipeError, match="pip install scipy"):
        evaluations(parse("Euler", ""), tiny.SCHEDULE | {"use_beta_sigmas": True}, 5, None)


def test_a_schedule_that_is_named_takes_the_place_of_the_models() -> None:
    for said in SIGMAS:
        for schedule in ("karras", "exponential", "beta"):
            config = plan(parse(f"Euler {schedule}", ""), tiny.SCHEDULE | {said: True}, 5, None).scheduler.config
            assert [a for a in SIGMAS if config[a]] == [f"use_{schedule}_sigmas"]


@pytest.mark.parametrize(
    ("field", "said", "words"),
    [
        ("model", {"prediction_type": "flow_prediction"}, "prediction_type 'flow_prediction'"),
        ("model", {"timestep_spacing": "logarithmic"}, "timestep_spacing 'logarithmic'"),
        ("model", {"beta_schedule": "steep"}, "beta_schedule 'steep'"),
        ("model", {"num_train_timesteps": "1000"}, "num_train_timesteps '1000'"),
        ("model", {"num_train_timesteps": 0}, "num_train_timesteps 0"),
    ],
)
def test_a_config_that_nobody_can_run_is_a_letter(field: str, said: dict[str, Any], words: str) -> None:
    for name in SPOKEN:
        for ask in (evaluations, plan):
            with pytest.raises(RecipeError, match=words) as letter:
                ask(parse(name, ""), tiny.SCHEDULE | said, 5, None)
            assert letter.value.field == field


QUICK = ("DDIM", "PNDM", "Euler", "Euler a", "DPM++ 2M", "DPM++ 2S a", "UniPC", "LCM")


@pytest.mark.parametrize("name", QUICK)
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_few_steps_end_in_numbers(name: str, steps: int) -> None:
    for strength in (None, least(steps), 0.5, 1.0):
        ends_well(name, steps, strength)


@pytest.mark.slow
@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
@pytest.mark.parametrize(
    "name", [n for n in spoken_with_schedules() if not n.endswith(("leading", "linspace", "trailing"))]
)
def test_any_number_of_steps_ends_in_numbers_or_a_letter(name: str, spacing: str) -> None:
    for steps in (1, 2, 3, 7):
        for strength in (None, least(steps), 0.5, 1.0):
            for prediction, dtype in (("epsilon", torch.float32), ("v_prediction", torch.float64)):
                ends_well(name, steps, strength, dtype=dtype, timestep_spacing=spacing, prediction_type=prediction)


@pytest.mark.slow
@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
@pytest.mark.parametrize("name", [n for n in SPOKEN if n != "LMS"])
def test_as_many_steps_as_there_are_noise_levels(name: str, spacing: str) -> None:
    for steps, strength in (
        ((61, None), (999, 0.002), (1000, None)) if spacing == "leading" else ((61, 1.0), (999, None))
    ):
        ends_well(name, steps, strength, timestep_spacing=spacing)


@pytest.mark.slow
@pytest.mark.parametrize("steps", [999, 1000])
def test_as_many_steps_of_lms(steps: int) -> None:
    """Its coefficients are integrals that scipy takes 50 s for."""
    ends_well("LMS", steps, 0.05)


def ends_well(name: str, steps: int, strength: float | None, **schedule: Any) -> None:
    """As often as was said before, and in numbers of no great size; or a letter before anything began."""
    try:
        said = evaluations(
            parse(name, ""), tiny.SCHEDULE | {k: v for k, v in schedule.items() if k != "dtype"}, steps, strength
        )
    except RecipeError as letter:
        assert letter.field in ("steps", "strength")
        return
    x, _, asked = run(name, steps, strength, **schedule)
    assert asked == said and x.isfinite().all() and x.abs().max() < 500, (name, steps, strength, schedule)


@pytest.mark.parametrize("name", some(["DDIM", "PNDM", "Euler", "DPM++ 2M"], quick=["DDIM"]))
def test_a_thousand_steps_visit_every_noise_level(name: str) -> None:
    """With an offset of 1 the first would be 1000, which is none: IndexError."""
    planned = plan(parse(name, ""), tiny.SCHEDULE, 1000, None)
    assert sorted(set(planned.timesteps.int().tolist())) == list(range(1000))
    ends_well(name, 1000, None) if name in ("DDIM", "PNDM") else None


@pytest.mark.parametrize("name", ["DDIM", "DDPM", "PNDM", "Euler", "DPM++ 2M", "Heun"])
def test_trailing_has_no_timestep_before_the_first(name: str) -> None:
    """diffusers rounds 61 trailing steps to 62, of which the last is -1: the noisiest level in the place of the cleanest."""
    steps = plan(parse(name, ""), tiny.SCHEDULE | {SPACING: "trailing"}, 61, None).timesteps
    assert len(steps) == evaluations(parse(name, ""), tiny.SCHEDULE | {SPACING: "trailing"}, 61, None)
    assert steps.min() >= 0 and steps.max() == 999


def test_steps_that_round_well_are_those_of_diffusers() -> None:
    from diffusers import EulerDiscreteScheduler

    stock: Any = EulerDiscreteScheduler.from_config(tiny.SCHEDULE | {SPACING: "trailing"})
    for steps in (7, 16, 30, 400):
        stock.set_timesteps(steps)
        mine = plan(parse("Euler", ""), tiny.SCHEDULE | {SPACING: "trailing"}, steps, None)
        assert torch.equal(mine.timesteps, stock.timesteps) and torch.equal(mine.scheduler.sigmas, stock.sigmas)


def test_two_first_timesteps_that_are_equal_skip_nothing() -> None:
    """20 beta steps at zero terminal SNR begin at 999 twice; a scheduler that looks for 999 begins at the second."""
    x, _, asked = run("DPM++ 2M beta", 20, prediction_type="v_prediction", rescale_betas_zero_snr=True)
    assert asked == 20 and x.isfinite().all()


# ── zero terminal SNR ───────────────────────────────────────────────────────────────────────────────────────────────

PURE = {ZERO: True, SPACING: "trailing", "prediction_type": "v_prediction"}


@pytest.mark.parametrize("name", SPOKEN)
def test_zero_terminal_snr_is_applied_or_refused(name: str) -> None:
    """The noise levels are those of the schedulers that have the flag."""
    choice, config = parse(name, ""), tiny.SCHEDULE | PURE
    if not CLASSES[choice.cls].zero:
        for ask in (evaluations, plan):
            with pytest.raises(RecipeError, match="pure noise") as letter:
                ask(choice, config, 5, None)
            assert letter.value.field == "scheduler"
        return
    found = plan(choice, config, 5, None).scheduler.alphas_cumprod
    flagged = plan(parse("Euler", ""), config, 5, None).scheduler.alphas_cumprod
    assert torch.allclose(found[:-1], flagged[:-1], rtol=1e-4, atol=0) and float(flagged[-1]) == 2**-24
    assert float(found[-1]) == 0 or abs(float(found[-1]) * 2**24 - 1) < 1e-4
    plain = plan(choice, tiny.SCHEDULE, 5, None).scheduler.alphas_cumprod
    assert float(plain[-1]) > 0.004, "and only where the config says so"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("name", ["DDIM", "LMS", "DPM2", "DPM++ 2S", "DEIS", "DPM++ 2S a"])
def test_pure_noise_says_nothing_of_the_mean(name: str, dtype: torch.dtype) -> None:
    """Without it, pure noise is taken for a picture that shines through a little, and all come out darker by 0.02."""
    x, noise, _ = run(name, 20, side=32, dtype=dtype, **PURE)
    if not name.endswith(" a"):
        assert abs(float((x - MEAN - SPREAD * noise).mean())) < 0.004
    else:
        assert abs(float(x.mean()) - MEAN) < 0.06
    assert abs(float(x.std()) - SPREAD) < 0.08


@pytest.mark.parametrize("name", ["DDIM", "DDPM", "Euler", "LCM"])
def test_noise_predicted_at_pure_noise_is_finite(name: str) -> None:
    x, _, _ = run(name, 4, **(PURE | {"prediction_type": "epsilon"}))
    assert x.isfinite().all()


# ── DPM++ 2S a ──────────────────────────────────────────────────────────────────────────────────────────────────────


def published(
    sigmas: list[float], x: Tensor, denoiser: Callable[[Tensor, float], Tensor], generator: torch.Generator
) -> Tensor:
    """DPM-Solver++(2S) with ancestral noise as it was published (k-diffusion), in float64 and in terms of log sigma."""
    from math import exp, expm1, log

    for now, then in zip(sigmas, sigmas[1:], strict=False):
        clean = denoiser(x, now)
        up = (then**2 * (now**2 - then**2) / now**2) ** 0.5
        down = (then**2 - up**2) ** 0.5
        if down == 0:
            x = x + (x - clean) / now * (down - now)
            continue
        t, t_next = -log(now), -log(down)
        h = t_next - t
        middle = t + h / 2
        between = exp(-middle) / exp(-t) * x - expm1(-h / 2) * clean
        x = exp(-t_next) / exp(-t) * x - expm1(-h) * denoiser(between, exp(-middle))
        x = x + torch.randn(x.shape, generator=generator, dtype=x.dtype) * up
    return x


@pytest.mark.parametrize("name", ["DPM++ 2S a", "DPM++ 2S a Karras"])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_2s_ancestral_is_the_published_algorithm(name: str, prediction: str) -> None:
    config = tiny.SCHEDULE | {"prediction_type": prediction}
    planned = plan(parse(name, ""), config, 8, None).fresh()
    scheduler = planned.scheduler
    levels = scheduler.sigmas.double()
    sigmas = levels[::2].tolist()  # each is there twice
    assert sigmas[-1] == 0 and len(sigmas) == 9 and len(planned.timesteps) == 15
    logs = ((1 - scheduler.alphas_cumprod.double()) / scheduler.alphas_cumprod.double()).sqrt().log()

    def denoiser(x: Tensor, sigma: float) -> Tensor:
        return (x + torch.sin(x)) / (1 + sigma**2)  # of no use, but bent and known

    def network(shown: Tensor, t: Any) -> Tensor:
        t = torch.as_tensor(t).double().clamp(0, 999)
        low = t.floor().long()
        sigma = float(torch.lerp(logs[low], logs[t.ceil().long()], t - low).exp())
        x = shown * (sigma**2 + 1) ** 0.5
        eps = (x - denoiser(x, sigma)) / sigma
        return eps if prediction == "epsilon" else (eps - sigma * denoiser(x, sigma)) / (sigma**2 + 1) ** 0.5

    seeded = torch.Generator().manual_seed
    start = torch.randn((1, 8, 8), generator=seeded(1), dtype=torch.float64) * sigmas[0]
    solver = solve(planned, start, seeded(2))
    query = next(solver)
    with pytest.raises(StopIteration) as done:
        while True:
            query = solver.send(network(*query))
    reference = published(sigmas, start[None], denoiser, seeded(2))[0]
    error = (done.value.value - reference).abs()
    assert float(error.max()) < 1e-5, "noise levels are kept in float32"
    other = published(sigmas, start[None], denoiser, seeded(3))[0]
    assert float((other - reference).abs().max()) > 0.1, "noise decides"


def test_what_2s_ancestral_holds_is_as_noisy_as_what_it_paints() -> None:
    """Blend inpainting puts back the kept part after each evaluation, at the level that is looked at next."""
    planned = plan(parse("DPM++ 2S a", ""), tiny.SCHEDULE, 6, None).fresh()
    one, none = torch.ones(1, 1, 64, 64), torch.zeros(1, 1, 64, 64)
    alphas, held, times = planned.scheduler.alphas_cumprod.double(), [], []

    def hold(x: Tensor, t: Tensor | None) -> Tensor:
        if t is not None:
            held.append(float(planned.scheduler.add_noise(none, one, t[None]).mean()))
            times.append(float(t))
        return x

    solver = solve(planned, torch.randn(1, 64, 64), torch.Generator().manual_seed(0), hold)
    query = next(solver)
    with pytest.raises(StopIteration):
        while True:
            query = solver.send(query[0])
    low = torch.tensor(times).floor().long()
    near = ((1 - alphas) / alphas).sqrt()[torch.stack((low, low + 1))]
    assert len(held) == 10 and all(a * 0.99 <= h <= b * 1.01 for h, a, b in zip(held, *near.tolist(), strict=True))


def test_2s_ancestral_is_not_2s() -> None:
    a, b = run("DPM++ 2S a", 10)[0], run("DPM++ 2S", 10)[0]
    assert float((a - b).abs().max()) > 0.1


# ── names ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", spoken_with_schedules())
def test_a_choice_is_called_by_a_name_that_means_it(name: str) -> None:
    choice = parse(name, "")
    assert parse(called(choice, {}), "") == choice and parse(called(choice, tiny.SCHEDULE), "") == choice


def test_a_base_s_own_scheduler_has_a_name() -> None:
    own = {"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "sde-dpmsolver++", "use_karras_sigmas": True}
    assert called(parse(None, own["_class_name"]), own) == "DPM++ 2M SDE Karras"
    assert called(parse("Euler a", own["_class_name"]), own) == "Euler a"


@pytest.mark.parametrize("name", spoken_with_schedules())
def test_names_survive_being_spoken(name: str) -> None:
    """Ours -> the webui's two names -> ours."""
    choice = parse(name, "")
    back = foreign(*spoken(choice))
    assert back is not None
    if "linspace" in name:
        assert parse(back, "").cls == choice.cls  # the webui's Uniform
    else:
        assert parse(back, "") == choice


THEIRS = [
    ("k_euler_ancestral", None, "Euler a"),
    ("euler_ancestral", "normal", "Euler a"),
    ("euler_a", None, "Euler a"),
    ("Euler a", "Automatic", "Euler a"),
    ("dpmpp_2m", "karras", "DPM++ 2M Karras"),
    ("dpmpp_2m_sde", "exponential", "DPM++ 2M SDE exponential"),
    ("dpmpp_2m_sde_gpu", "karras", "DPM++ 2M SDE Karras"),
    ("dpmpp_2m_k", None, "DPM++ 2M Karras"),
    ("k_dpmpp_2m_ka", None, "DPM++ 2M Karras"),
    ("dpmpp_sde_k", None, "DPM++ SDE Karras"),
    ("dpmpp_3m_k", None, "DPM++ 3M Karras"),
    ("dpmpp_3m_sde", "normal", "DPM++ 3M SDE"),
    ("dpmpp_2s_ancestral", "karras", "DPM++ 2S a Karras"),
    ("dpmpp_2s", None, "DPM++ 2S"),
    ("dpm_2_ancestral", "simple", "DPM2 a trailing"),
    ("kdpm_2_a_k", None, "DPM2 a Karras"),
    ("kdpm_2", None, "DPM2"),
    ("DPM++ 2M SDE Karras", None, "DPM++ 2M SDE Karras"),
    ("DPM++ 2M Karras", "Automatic", "DPM++ 2M Karras"),
    ("DPM++ 2M", "Automatic", "DPM++ 2M Karras"),
    ("DPM++ 2M", "Uniform", "DPM++ 2M"),
    ("DPM++ 2M", None, "DPM++ 2M"),
    ("DPM++ 2M SDE", "Automatic", "DPM++ 2M SDE exponential"),
    ("DPM++ 3M SDE", "Automatic", "DPM++ 3M SDE exponential"),
    ("DPM++ 2M SDE Heun", "Karras", "DPM++ 2M SDE Heun Karras"),
    ("DPM++ 2M", "SGM Uniform", "DPM++ 2M trailing"),
    ("dpmpp_2m", "sgm_uniform", "DPM++ 2M trailing"),
    ("Euler", "Beta", "Euler beta"),
    ("ddim", "ddim_uniform", "DDIM leading"),
    ("ddim", None, "DDIM"),
    ("Euler", "DDIM", "Euler leading"),
    ("uni_pc", "normal", "UniPC"),
    ("uni_pc_bh2", "karras", "UniPC Karras"),
    ("unipc", None, "UniPC"),
    ("heun_k", None, "Heun Karras"),
    ("PLMS", "Automatic", "PNDM"),
    ("pndm", None, "PNDM"),
    ("lcm", "sgm_uniform", "LCM trailing"),
    ("tcd", None, "TCD"),
    ("sa_solver", None, "SA-Solver"),
    ("deis_k", None, "DEIS Karras"),
    ("lms", "karras", "LMS Karras"),
    ("DPMSolverMultistepScheduler", "karras", "DPM++ 2M Karras"),
    ("EulerAncestralDiscreteScheduler", None, "Euler a"),
    ("Euler a", "Karras", None),  # diffusers' class has no such noise levels
    ("Restart", "Automatic", None),
    ("DPM adaptive", None, None),
    ("euler_cfg_pp", "normal", None),
    ("Euler", "align_your_steps", None),
    ("", None, None),
]  # fmt: skip


@pytest.mark.parametrize(("sampler", "schedule", "ours"), THEIRS)
def test_other_programs_names(sampler: str, schedule: str | None, ours: str | None) -> None:
    assert foreign(sampler, schedule) == ours
    if ours is None:
        return
    if find_spec("torchsde") or "SDE" not in ours or ours.startswith(("DPM++ 2M", "DPM++ 3M")):
        meant = parse(ours, "")
        if schedule is None:
            assert parse(sampler, "") == meant, "and they may be written so here"
        elif schedule != "Automatic" and not sampler.endswith("Scheduler"):  # a class alone keeps the model's arguments
            assert parse(f"{sampler} {schedule}", "") == meant


def test_what_the_webui_calls_it() -> None:
    said = {
        name: spoken(parse(name, ""))
        for name in ("DPM++ 2M Karras", "DPM++ 2M", "Euler a", "PNDM", "DPM++ 2M SDE trailing")
    }
    assert said == {
        "DPM++ 2M Karras": ("DPM++ 2M", "Karras"),
        "DPM++ 2M": ("DPM++ 2M", "Uniform"),
        "Euler a": ("Euler a", "Automatic"),
        "PNDM": ("PLMS", "Automatic"),
        "DPM++ 2M SDE trailing": ("DPM++ 2M SDE", "SGM Uniform"),
    }
    assert spoken(Choice("DPMSolverMultistepScheduler", {})) == ("DPM++ 2M", "Uniform")


def test_unknown_names_are_letters() -> None:
    with pytest.raises(RecipeError, match="no scheduler is called 'Restart'"):
        parse("Restart", "")
    with pytest.raises(
        RecipeError, match="the model's own is 'FlowMatchEulerDiscreteScheduler', which is not known"
    ) as letter:
        parse(None, "FlowMatchEulerDiscreteScheduler")
    assert letter.value.field == "scheduler"


# ── in a recipe ─────────────────────────────────────────────────────────────────────────────────────────────────────


def half() -> np.ndarray:
    mask = np.zeros((32, 32), np.uint8)
    mask[:, 16:] = 255
    return mask


def checked(schedule: dict[str, Any] | None = None, *conditions: Any, **fields: Any) -> Any:
    """What a check says of a recipe for a small base with this schedule."""
    sd = tiny.engine(tiny.base("sd1", schedule=schedule))
    return sd.check(Recipe(model="tiny", prompt="x", conditions=conditions, **fields))


@pytest.mark.slow
@pytest.mark.parametrize("condition", [Img2Img, lambda **k: Inpaint(mask=half(), **k)], ids=["img2img", "inpaint"])
def test_a_strength_works_as_the_letter_prints_it(condition: Callable[..., Any]) -> None:
    image = np.zeros((32, 32, 3), np.uint8)
    with pytest.raises(RecipeError, match="at least 0.034, or") as letter:
        checked(None, condition(image=image, strength=0.033), steps=30, scheduler="DDIM")
    assert letter.value.field == "conditions.0.strength"
    assert checked(None, condition(image=image, strength=0.034), steps=30, scheduler="DDIM").steps == 1


@pytest.mark.slow
def test_steps_and_samplers_that_do_not_fit_are_letters_of_the_recipe() -> None:
    with pytest.raises(RecipeError, match="Use at most 50") as letter:
        checked(steps=60, scheduler="LCM")
    assert letter.value.field == "steps"
    with pytest.raises(RecipeError, match="pure noise") as letter:
        checked(PURE, steps=6, scheduler="Heun")
    assert letter.value.field == "scheduler"
    assert checked(PURE, steps=6, scheduler="LMS").steps == 6
    assert [checked(steps=1000, scheduler=s).steps for s in ("DDIM", "PNDM")] == [1000, 1001]
