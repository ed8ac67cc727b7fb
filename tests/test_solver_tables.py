"""A table does what its scheduler does, for all samplers, spacings and predictions; what is not linear has none."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from some import some
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import tiny
from infuse import solver_tables
from infuse.errors import RecipeError
from infuse.samplers import CLASSES, DPM, NAMES, SCHEDULES, ZERO
from infuse.solver_tables import Stacked, Table
from infuse.solvers import Plan, parse, plan, solve, stepped

DRAWING = ("DDPM", "Euler a", "DPM2 a", "DPM++ 2M SDE", "DPM++ 2M SDE Heun", "DPM++ 3M SDE", "DPM++ SDE", "DPM++ 2S a", "SA-Solver", "LCM")  # fmt: skip
LINEAR = tuple(n for n in NAMES if n not in DRAWING)
SINGLE_INSIDE = ("Euler", "DPM++ 2M", "DPM++ 3M")
"""diffusers takes the latent to single precision in each of their steps, also a double one."""
QUICK = ("DDIM", "Euler", "Euler karras", "UniPC", "DPM++ 2M", "DPM++ 2M beta", "PNDM")


def planned(name: str, steps: int, strength: float | None = None, told: dict[str, Any] | None = None, **config: Any) -> Plan:  # fmt: skip
    choice = parse(name, "")
    if told:
        choice = type(choice)(choice.cls, choice.arguments, step=told)
    return plan(choice, tiny.SCHEDULE | config, steps, strength).fresh()


def table(run: Plan) -> Table | None:
    return solver_tables.table(run.scheduler, run.timesteps, run.told)


def network(x: Tensor, t: Any) -> Tensor:
    """Of no use, but bent and bounded; in double precision inside, so that it rounds once."""
    wide = x.double()
    return (0.8 * torch.tanh(wide + float(t) / 1000) + 0.3 * torch.sin(3 * wide)).to(x)


def ran(solver: Any, answer: Callable[[Tensor, Any], Tensor] = network) -> Tensor:
    query = next(solver)
    while True:
        try:
            query = solver.send(answer(*query))
        except StopIteration as done:
            return done.value


def start(run: Plan, dtype: torch.dtype = torch.float64) -> Tensor:
    noise = torch.randn((4, 6, 6), generator=torch.Generator().manual_seed(0))
    if run.full:
        return (noise * run.scheduler.init_noise_sigma).to(dtype)
    return run.scheduler.add_noise(torch.full_like(noise, 0.5)[None], noise[None], run.timesteps[:1])[0].to(dtype)


def both(run: Plan, dtype: torch.dtype, hold: Any = None) -> tuple[Tensor, Tensor]:
    """(by its table, step by step)."""
    found = []
    for how in (solve, stepped):
        own = run.fresh()
        keep = None if hold is None else hold(own.scheduler)
        found.append(ran(how(own, start(own, dtype), torch.Generator().manual_seed(1), keep)))
    return found[0], found[1]


def off(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).abs().max() / b.double().abs().max().clamp(min=1))


class Doubles(ModuleType):
    """torch, as a scheduler sees it whose single precision is double: what is left is its arithmetic."""

    float32 = torch.float64

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


@pytest.fixture
def doubles(monkeypatch: pytest.MonkeyPatch) -> None:
    import diffusers

    for name in ("EulerDiscreteScheduler", DPM):
        monkeypatch.setattr(f"{getattr(diffusers, name).__module__}.torch", Doubles("torch"))


def schedules(name: str) -> list[str]:
    takes = CLASSES[NAMES[name][0]].accepts
    plain = ("karras", "exponential", "beta", "trailing", "leading", "linspace")
    return [name, *(f"{name} {s}" for s in plain if {a for a, on in SCHEDULES[s].items() if on} <= takes)]


ALL = some([s for n in LINEAR for s in schedules(n)], quick=QUICK)


def runs(name: str) -> list[Plan]:
    """Of one step, of two, of many, from a picture; for all that networks predict; from pure noise."""
    found = []
    facts = CLASSES[parse(name, "").cls]
    for prediction in ("epsilon", "v_prediction", *(["sample"] if facts.sample else [])):
        asked: list[tuple[int, float | None]] = [(1, None), (2, None), (3, 0.7), (9, None), (20, 0.3)]
        found += [planned(name, *a, prediction_type=prediction) for a in asked]
    pure = {ZERO: True, "prediction_type": "v_prediction"}
    return found + ([planned(name, n, **pure) for n in (2, 9)] if facts.zero else [])


# ── the same numbers ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ALL)
def test_a_table_is_its_scheduler_in_double_precision(name: str, doubles: None) -> None:
    for run in runs(name):
        assert table(run) is not None, (run.scheduler.config, len(run.timesteps))
        assert off(*both(run, torch.float64)) < 1e-10, (run.scheduler.config, len(run.timesteps))


@pytest.mark.parametrize("name", ALL)
def test_a_table_is_its_scheduler_in_single_precision(name: str) -> None:
    for run in runs(name):
        exact = stepped(run.fresh(), start(run), torch.Generator())
        mine, theirs = both(run, torch.float32)
        assert mine.dtype == torch.float32
        assert off(mine, theirs) < 1e-5 or off(mine, want := ran(exact)) <= off(theirs, want), run.scheduler.config


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", LINEAR)
def test_half_precision_is_rounded_no_worse(name: str, dtype: torch.dtype) -> None:
    run = planned(name, 12)
    want = ran(stepped(run.fresh(), start(run, dtype).double(), torch.Generator()))
    mine, theirs = both(run, dtype)
    assert mine.dtype == dtype
    assert (mine.double() - want).square().mean() <= (theirs.double() - want).square().mean() * 1.05


@pytest.mark.slow
@pytest.mark.parametrize("steps", [999, 1000])
@pytest.mark.parametrize("name", [n for n in LINEAR if n not in ("LMS", "TCD")])
def test_as_many_steps_as_there_are_noise_levels(name: str, steps: int, doubles: None) -> None:
    run = planned(name, steps)
    assert table(run) is not None
    assert off(*both(run, torch.float64)) < 1e-10
    assert off(*both(run, torch.float32)) < 2e-5


@pytest.mark.parametrize("name", LINEAR)
def test_what_is_changed_between_steps_is_where_the_next_begins(name: str, doubles: None) -> None:
    """As blend inpainting does it, which asks the scheduler for the noise of the step that comes."""
    known, noise = torch.full((4, 6, 6), 0.3).double(), torch.randn(4, 6, 6, generator=torch.Generator().manual_seed(2)).double()  # fmt: skip
    keep = torch.linspace(0, 1, 6).double()

    def hold(scheduler: Any) -> Any:
        def held(x: Tensor, t: Tensor | None) -> Tensor:
            level = known if t is None else scheduler.add_noise(known[None], noise[None], t[None])[0]
            return (1 - keep) * x + keep * level

        return held

    for run in (planned(name, 9), planned(name, 12, 0.5)):
        mine, theirs = both(run, torch.float64, hold)
        assert off(mine, theirs) < 1e-10
        assert off(mine, both(run, torch.float64)[0]) > 1e-3, "it counts"


@pytest.mark.parametrize("name", LINEAR)
def test_levels_are_those_of_what_is_kept(name: str) -> None:
    run = planned(name, 7, 0.8)
    found, own, asked = table(run), run.fresh(), []
    assert found is not None

    def hold(x: Tensor, t: Tensor | None) -> Tensor:
        if t is not None:
            one, none = torch.ones_like(x)[None], torch.zeros_like(x)[None]
            asked.append([float(own.scheduler.add_noise(*pair, t[None]).mean()) for pair in ((one, none), (none, one))])
        return x

    ran(stepped(own, start(own), torch.Generator().manual_seed(1), hold))
    assert torch.allclose(torch.tensor([*asked, [1, 0]]).double(), torch.from_numpy(found.levels), atol=1e-6)


@pytest.mark.parametrize("name", ["DDIM", "UniPC", "DPM++ 2M"])
def test_what_is_yielded_is_not_written_to_later(name: str) -> None:
    run, seen = planned(name, 6), list[tuple[Tensor, Tensor]]()

    def answer(x: Tensor, t: Any) -> Tensor:
        said = network(x, t)
        seen.extend([(x, x.clone()), (said, said.clone())])
        return said

    ran(solve(run, start(run, torch.float32), torch.Generator()), answer)
    assert all(torch.equal(a, b) for a, b in seen)


# ── who has one ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", DRAWING)
def test_whoever_draws_noise_has_no_table_and_draws_as_before(name: str) -> None:
    if name == "DPM++ SDE":
        pytest.importorskip("torchsde")
    run = planned(name, 6)
    before = torch.random.get_rng_state()
    assert table(run) is None
    assert torch.equal(torch.random.get_rng_state(), before)
    mine, theirs = both(run, torch.float32)
    assert torch.equal(mine, theirs)


@pytest.mark.parametrize(
    ("name", "config", "told"),
    [
        ("DDIM", {"clip_sample": True}, {}),
        ("DDIM", {"clip_sample": True, "clip_sample_range": 1000.0}, {}),
        ("DDIM", {"thresholding": True}, {}),
        ("DDIM", {"thresholding": True, "dynamic_thresholding_ratio": 1.0, "sample_max_value": 1e12}, {}),
        ("DPM++ 2M", {"thresholding": True, "sample_max_value": 100.0}, {}),
        ("UniPC", {"thresholding": True}, {}),
        ("DDIM", {}, {"eta": 0.01}),
        ("TCD", {}, {"eta": 0.3}),
        ("Euler", {}, {"s_churn": 1.0}),
        ("Heun", {"clip_sample": True}, {}),
    ],
)
def test_what_is_bent_has_no_table(name: str, config: dict[str, Any], told: dict[str, Any]) -> None:
    run = planned(name, 6, told=told, **config)
    assert table(run) is None
    mine, theirs = both(run, torch.float32)
    assert torch.equal(mine, theirs)


def test_what_a_recipe_says_of_each_step_is_in_the_table(doubles: None) -> None:
    for name, told in (("LMS", {"order": 2}), ("Euler", {"s_churn": 0.0, "s_noise": 1.1})):
        run = planned(name, 8, told=told)
        assert table(run) is not None and off(*both(run, torch.float64)) < 1e-10
    lms = [table(planned("LMS", 8, told={"order": n})) for n in (1, 2, 3)]
    assert [t and t.carried for t in lms] == [0, 1, 2]


def test_a_scheduler_that_bends_a_little_is_found_out() -> None:
    """By what it does, not by its name."""
    run = planned("DDIM", 6)
    straight = run.scheduler.step
    assert table(run) is not None
    run.scheduler.step = lambda answer, t, x, **k: straight(answer + 1e-8 * answer.abs(), t, x, **k)
    assert table(run) is None
    run.scheduler.step = lambda answer, t, x, **k: straight(answer + 1e-8, t, x, **k)
    assert table(run) is None
    run.scheduler.step = lambda answer, t, x, **k: straight(answer.flip(-1), t, x, **k)
    assert table(run) is None


def test_only_what_is_needed_is_carried() -> None:
    carried = {name: table(planned(name, 12)) for name in LINEAR}
    assert {n: t and t.carried for n, t in carried.items()} == {
        "DDIM": 0, "PNDM": 3, "PLMS": 3, "LMS": 3, "Euler": 0, "Heun": 1, "DPM2": 1, "DPM++ 2M": 1, "DPM++ 3M": 2, "DPM++ 2S": 1,
        "DEIS": 1, "UniPC": 2, "TCD": 0,
    }  # fmt: skip


# ── asked before ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_table_is_read_once_for_all_that_ask_for_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    read, real = [], solver_tables._read
    monkeypatch.setattr(solver_tables, "_read", lambda *a: read.append(a) or real(*a))
    solver_tables._probed.cache_clear()
    for _ in range(3):
        assert table(planned("Euler", 7)) is table(planned("Euler", 7))
        assert table(planned("Euler a", 7)) is None
    assert len(read) == 2
    others = [
        planned("Euler", 8), planned("Euler", 7, 0.5), planned("Euler Karras", 7), planned("Euler", 7, prediction_type="v_prediction"),
        planned("Euler", 7, told={"s_churn": 0.0}), planned("Euler", 7, timestep_spacing="trailing"), planned("DDIM", 7),
    ]  # fmt: skip
    assert len({id(table(o)) for o in (*others, planned("Euler", 7))}) == 8
    solver_tables._probed.cache_clear()


def test_a_scheduler_stays_where_it_was() -> None:
    run = planned("UniPC", 7)
    before = solver_tables._frozen(vars(run.scheduler))
    assert table(run) is not None
    assert solver_tables._frozen(vars(run.scheduler)) == before


def test_an_interrupted_solver_is_over() -> None:
    run = planned("DDIM", 4)
    solver = solve(run, start(run), torch.Generator(), lambda x, t: (_ for _ in ()).throw(KeyboardInterrupt()))
    x, t = next(solver)
    with pytest.raises(KeyboardInterrupt):
        solver.send(network(x, t))
    with pytest.raises(StopIteration):
        next(solver)


def test_a_failure_inside_of_a_scheduler_is_raised_by_the_run() -> None:
    run = planned("DDIM", 4)

    def broken(*_: Any, **__: Any) -> None:
        raise RecipeError("scheduler", "broken")

    run.scheduler.step = broken
    with pytest.raises(RecipeError, match="broken"):
        ran(solve(run, start(run), torch.Generator()))


# ── several at once ─────────────────────────────────────────────────────────────────────────────────────────────────


class Counted(TorchDispatchMode):
    """What torch is asked to do."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls.append(str(func))
        return func(*args, **(kwargs or {}))


def test_jobs_move_on_together_as_they_do_alone(doubles: None) -> None:
    names = ("DDIM", "Euler Karras", "UniPC", "DPM++ 2M", "PNDM", "Heun")
    jobs = [planned(name, n) for name, n in zip(names, (9, 8, 7, 9, 8, 5), strict=True)]
    tables = [t for job in jobs if (t := table(job)) is not None]
    stacked = Stacked.of(tables, "cpu", torch.float64)
    xs = torch.stack([start(job) for job in jobs])
    alone = [solve(job, x, torch.Generator()) for job, x in zip(jobs, xs, strict=True)]
    rows, carried, queries = torch.tensor(stacked.starts), stacked.carried(xs), [next(s) for s in alone]
    for i in range(5):
        shown = stacked.shown(rows, xs)
        assert all(off(mine, query[0]) < 1e-12 for mine, query in zip(shown, queries, strict=True))
        answers = torch.stack([network(mine, job.timesteps[i]) for mine, job in zip(shown, jobs, strict=True)])
        xs, carried = stacked.advance(rows, xs, answers, carried)
        rows = rows + 1
        queries = [s.send(a) for s, a in zip(alone, answers, strict=True)]
    for x, (shown, _), t, row in zip(xs, queries, tables, range(6), strict=True):
        assert off(x * t.scales[5], shown) < 1e-12, names[row]


def test_moving_on_asks_the_host_nothing() -> None:
    tables = [t for name in ("UniPC", "DPM++ 2M") if (t := table(planned(name, 9))) is not None]
    stacked, xs = Stacked.of(tables, "cpu", torch.bfloat16), torch.randn(2, 4, 6, 6)
    rows, carried = torch.tensor(stacked.starts), stacked.carried(xs)
    assert stacked.updates.dtype == torch.float32
    with Counted() as counted:
        stacked.advance(rows, xs, xs.bfloat16(), carried)
    names = " ".join(counted.calls)
    assert not any(n in names for n in ("_local_scalar", "nonzero", "aten::item", "mm", "bmm"))
    assert sum("addcmul" in c for c in counted.calls) == 3 and sum("mul.Tensor" in c for c in counted.calls) == 1


@pytest.mark.parametrize(("name", "most"), [("DDIM", 2), ("Euler", 2), ("DPM++ 2M", 5), ("UniPC", 8)])
def test_a_step_is_a_few_operations(name: str, most: int) -> None:
    run = planned(name, 12)
    solver, counted = solve(run, start(run, torch.float32), torch.Generator()), Counted()
    x, _ = next(solver)
    for _ in range(6):
        x, _ = solver.send(x)
    with counted:
        solver.send(x)
    moved = [c for c in counted.calls if "select" not in c and "unbind" not in c]
    assert len(moved) <= most, moved
