"""A job's result does not depend on the jobs beside it, on the order of its conditions, or on conditions that are silent."""

from __future__ import annotations

import threading

import pytest
import torch
from some import some

import mix
from infuse import ControlNet, IPAdapter, Recipe
from infuse.engine.engine import Engine

CLOSE = 1e-10


def calls(engine: Engine) -> int:
    return engine.store.base("tiny").network.calls


def furthest(a: list[torch.Tensor], b: list[torch.Tensor]) -> float:
    return max(float((x - y).abs().max()) for x, y in zip(a, b, strict=True))


@pytest.fixture(scope="module")
def alone() -> tuple[list[torch.Tensor], int]:
    engine = mix.engine()
    return [engine.run(r).latents for r in mix.recipes()], calls(engine)


def test_alone_equals_together(alone: tuple[list[torch.Tensor], int]) -> None:
    engine = mix.engine()
    together = [r.latents for r in engine.run_all(*mix.recipes())]
    assert furthest(alone[0], together) < CLOSE
    assert calls(engine) < alone[1] / 2, f"{calls(engine)} calls together, {alone[1]} alone"
    assert len({float(z.abs().sum()) for z in together}) == 6, "six recipes, six results"


@pytest.mark.slow
def test_alone_equals_joined_midway(alone: tuple[list[torch.Tensor], int]) -> None:
    engine = mix.engine()
    first = [engine.submit(r) for r in mix.recipes()[:3]]
    for _ in range(3):
        engine.step()
    late = [engine.submit(r) for r in mix.recipes()[3:]]
    while not all(t.finished for t in first + late):
        engine.step()
    assert furthest(alone[0], [t.result().latents for t in first + late]) < CLOSE


@pytest.mark.slow
def test_alone_equals_two_threads(alone: tuple[list[torch.Tensor], int]) -> None:
    engine, found = mix.engine(), {}

    def work(which: slice) -> None:
        for i, r in list(enumerate(mix.recipes()))[which]:
            found[i] = engine.run(r).latents

    threads = [threading.Thread(target=work, args=(w,)) for w in (slice(0, 3), slice(3, 6))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert furthest(alone[0], [found[i] for i in range(6)]) < CLOSE


@pytest.mark.slow
def test_narrow_calls_give_the_same(alone: tuple[list[torch.Tensor], int]) -> None:
    engine = mix.engine(max_rows=3)
    assert furthest(alone[0], [r.latents for r in engine.run_all(*mix.recipes())]) < CLOSE


@pytest.mark.slow
@pytest.mark.parametrize("family", ["sd2", "sdxl"])
def test_the_other_families(family: str) -> None:
    solo, both = mix.engine(family), mix.engine(family)
    recipes = mix.recipes()[1:4]
    assert furthest([solo.run(r).latents for r in recipes], [r.latents for r in both.run_all(*recipes)]) < CLOSE


@pytest.mark.slow
def test_at_a_fixed_row_width_float32_is_bit_identical() -> None:
    """The promise of `row_width`: same width of every call, same bits, whoever the neighbours are."""
    recipes = [
        Recipe(model="tiny", prompt=f"{i} cats", seed=i, steps=4, scheduler=s, guidance=4)
        for i, s in enumerate(("DDIM", "Euler a", "UniPC"))
    ]
    engine = mix.engine(dtype=torch.float32, row_width=8)
    alone = [engine.run(r).latents for r in recipes]
    together = [r.latents for r in engine.run_all(*recipes)]
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


@pytest.mark.parametrize("i", some(range(6), quick=[1, 3]))
def test_the_order_of_conditions_does_not_matter(i: int, alone: tuple[list[torch.Tensor], int]) -> None:
    recipe = mix.recipes()[i]
    turned = recipe.model_copy(update={"conditions": recipe.conditions[::-1]})
    assert torch.equal(mix.engine().run(turned).latents, alone[0][i])


@pytest.mark.parametrize(
    "silent",
    [
        ControlNet(model="canny", image=mix.picture(1), weight=0),
        IPAdapter(model="face", image=mix.picture(1), weight={0: 0.0, 1: 0.0}),
        pytest.param(ControlNet(model="canny", image=mix.picture(1), start=0.99), marks=pytest.mark.slow),
        IPAdapter(model="face", image=mix.picture(1), end=0.01),
    ],
    ids=["weight 0", "curve 0", "too late", "too early"],
)
def test_a_silent_condition_is_not_evaluated_and_changes_nothing(
    silent: ControlNet | IPAdapter, alone: tuple[list[torch.Tensor], int]
) -> None:
    engine, recipe = mix.engine(), mix.recipes()[0]
    found = engine.run(recipe.model_copy(update={"conditions": (silent,)})).latents
    assert torch.equal(found, alone[0][0])
    assert engine.store.base("tiny").network.branch_calls == 0


def test_a_silent_condition_says_so() -> None:
    late = ControlNet(model="canny", image=mix.picture(1), start=0.99)
    report = mix.engine().check(Recipe(model="tiny", steps=4, conditions=(late,)))
    assert any("not be heard" in w for w in report.warnings)


def test_outside_of_its_window_a_branch_is_not_called() -> None:
    engine = mix.engine()
    engine.run(
        Recipe(
            model="tiny",
            steps=10,
            scheduler="DDIM",
            conditions=(ControlNet(model="canny", image=mix.picture(1), start=0.2, end=0.5),),
        )
    )
    assert engine.store.base("tiny").network.branch_calls == 3


@pytest.mark.slow
def test_same_recipe_same_bytes_and_pictures_differ_by_seed() -> None:
    recipe = mix.recipes()[3].model_copy(update={"count": 2, "steps": 4})
    one, two = mix.engine().run(recipe), mix.engine().run(recipe)
    assert [i.tobytes() for i in one.images] == [i.tobytes() for i in two.images]
    assert one.images[0].tobytes() != one.images[1].tobytes()
    second = mix.engine().run(recipe.model_copy(update={"count": 1, "seed": recipe.seed + 1}))
    assert float((second.latents[0] - one.latents[1]).abs().max()) < CLOSE


@pytest.mark.slow
def test_a_failing_job_is_an_answer_to_its_caller_only() -> None:
    engine = mix.engine()
    good, bad = engine.submit(mix.recipes()[0]), engine.submit(mix.recipes()[5])
    bad_job = next(r for r in engine._running if r.ticket is bad)
    bad_job.job._guidance = None  # type: ignore[assignment]
    bad_job.job.answer = lambda answers: (_ for _ in ()).throw(ValueError("broken on purpose"))  # type: ignore[method-assign]
    while not (good.finished and bad.finished):
        engine.step()
    assert good.result().latents.isfinite().all()
    with pytest.raises(ValueError, match="on purpose"):
        bad.result()


@pytest.mark.slow
def test_a_cancelled_ticket_leaves_and_the_others_go_on() -> None:
    engine = mix.engine()
    stay, leave = engine.submit(mix.recipes()[0]), engine.submit(mix.recipes()[1])
    engine.step()
    leave.cancel()
    while not stay.finished:
        engine.step()
    assert leave.finished and stay.progress == 1
    with pytest.raises(Exception, match="cancelled"):
        leave.result()


@pytest.mark.slow
def test_what_is_kept_for_later_is_bounded_and_never_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    encode = ControlNet.encode
    monkeypatch.setattr(ControlNet, "encode", lambda self, kit: (asked.append(self.model), encode(self, kit))[1])
    recipes = [
        Recipe(model="tiny", steps=1, conditions=(ControlNet(model=m, image=mix.picture(i)),))
        for m, i in [("canny", 1), ("depth", 2), ("canny", 3)]
    ]
    first = mix.engine()
    expected = [r.latents for r in first.run_all(*recipes)]
    kept = first.encodings.sizes
    picture = 3 * 32 * 32 * 8  # float64
    assert len(kept) == 4 and sorted(kept)[1:] == [picture] * 3, "the empty prompt, and three pictures"

    asked.clear()
    roomy, narrow = mix.engine(), mix.engine(cache_bytes=max(kept) + min(kept))
    for engine in (roomy, narrow):
        again = [engine.run(r).latents for r in (*recipes, *recipes[::-1])]
        assert furthest(again, [*expected, *expected[::-1]]) < CLOSE
    assert asked == ["canny", "depth", "canny"] + ["canny", "depth", "canny", "depth", "canny"], (
        "all are kept; the last alone is kept"
    )
    assert narrow.encodings.nbytes <= narrow.encodings.most_bytes
    few = mix.engine(cache=0)
    assert furthest([few.run(recipes[0]).latents], expected[:1]) < CLOSE and not len(few.encodings)
