"""What is left out is left out alone: exact jobs beside it stay exact, both walks agree, and memory ends with the job."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from kinds import SIDE, world
from test_fast import both
from test_pairs import recipe

import tiny
from infuse.conditions import ControlNet, Reference
from infuse.engine.engine import Engine
from infuse.engine.shortened import idle
from infuse.errors import RecipeError
from infuse.lossy import Lossy, Shortcut, shortcuts
from infuse.recipe import Recipe
from infuse.timetable import timetable
from mix import picture

pytestmark = pytest.mark.filterwarnings("ignore:lossy")
OPTIONS: list[dict[str, Any]] = [
    {"deep_cache": 2}, {"controlnet_every": 3}, {"merge_tokens": 0.5}, {"deep_cache": 3, "controlnet_every": 2, "merge_tokens": 0.25},
]  # fmt: skip
ALONE = ("text", "regions (latent)")
"""Kinds that say the prompt in their own words, or what every recipe has."""


def engine(**options: Any) -> Engine:
    nets = {"canny": tiny.controlnet("sd1", 7).double()}
    return tiny.engine(tiny.base("sd1", dtype=torch.float64), nets, own=False, **options)


def asked(lossy: Any = None, steps: int = 4, **fields: Any) -> Recipe:
    hint = ControlNet(model="canny", image=picture(91, SIDE), weight={0: 1.0, 1: 0.4})
    said = {"width": SIDE, "height": SIDE, "steps": steps, "seed": 3, "conditions": [hint], "scheduler": "DDIM"}
    return Recipe(prompt="a red cube", lossy=lossy, **said | fields)


def test_counts_begin_anew_where_the_structure_changes() -> None:
    table = timetable({}, 6, {0: 5.0, 0.5: 1.0}, {})
    edge = table.stretches[0].last
    each = shortcuts(Lossy(deep_cache=2), table)
    assert [s.deep for s in each] == [("make", "use")[(i if i < edge else i - edge) % 2] for i in range(6)]
    assert shortcuts(None, table) == () == shortcuts(Lossy(), table)


@pytest.mark.slow
@pytest.mark.parametrize("lossy", OPTIONS, ids=str)
def test_it_changes_the_picture_alike_on_both_walks(lossy: dict[str, Any]) -> None:
    made = engine()
    both(made, asked(lossy))
    exact, other = made.run(asked()).latents, made.run(asked(lossy)).latents
    assert float((exact - other).abs().max()) > 1e-8


@pytest.mark.slow
def test_a_crowd_of_lossy_and_exact_jobs_gives_each_its_own() -> None:
    ones = [asked(lossy, seed=i, steps=4 + i % 2) for i, lossy in enumerate([None, *OPTIONS, None, OPTIONS[0]])]
    together = engine().run_all(*ones)
    for one, result in zip(ones, together, strict=True):
        torch.testing.assert_close(result.latents, engine().run(one).latents, atol=1e-10, rtol=1e-10)


def test_nothing_is_asked_that_is_left_out() -> None:
    made = engine()
    unet, calls = made.store.base("tiny").network.unet, list[str]()
    net = made.store.own("canny")
    assert net is not None
    for name, module in {"deep": unet.mid_block.resnets[0], "outer": unet.conv_in, "branch": net.conv_in}.items():
        module.register_forward_hook(lambda *_, name=name: calls.append(name))
    result = made.run(asked({"deep_cache": 2, "controlnet_every": 4}, guidance=1.0))
    assert [calls.count(n) for n in ("deep", "outer", "branch")] == [2, 4, 1]
    assert result.memory["lossy"] > 0


def test_guidance_of_one_asks_no_second_row() -> None:
    made, widths = engine(), list[int]()
    made.store.base("tiny").network.unet.conv_out.register_forward_hook(
        lambda _m, args, _o: widths.append(len(args[0]))
    )
    made.run(asked(guidance={0: 5.0, 0.5: 1.0, 1: 1.0}, steps=4))
    assert widths == [2, 2, 1, 1]


def test_memory_ends_with_the_job() -> None:
    made = engine()
    ticket = made.submit(asked({"deep_cache": 2, "controlnet_every": 2}))
    job = ticket.jobs[0]
    made.step()
    assert job.memory and job.shortcut == Shortcut("use", "use")
    ticket.cancel()
    assert not job.memory


def test_it_is_said_and_recorded() -> None:
    found = engine().check(asked({"deep_cache": 2, "merge_tokens": 0.5}))
    said = [w for w in found.warnings if w.startswith("lossy.")]
    assert len(said) == 2 and all("changes the picture" in w for w in said)
    assert found.plain()["lossy"] == {"deep_cache": 2, "merge_tokens": 0.5}
    assert "lossy" not in engine().check(asked()).plain()


def test_what_leaves_nothing_out_says_so() -> None:
    def said(name: str, **lossy: Any) -> list[str]:
        return [
            w for w in world(name).engine().check(recipe(world(name), lossy=lossy)).warnings if w.startswith("lossy.")
        ]

    assert said("sd1", controlnet_every=2) == ["lossy.controlnet_every: 2 leaves nothing out: no ControlNet is heard."]
    spec = SimpleNamespace(name="sdxl", cross_layers=(("down_blocks.1.attentions.0.transformer_blocks.0.attn2", 640),))
    assert set(idle(Lossy(merge_tokens=0.5, deep_cache=2), {}, SimpleNamespace(spec=spec))) == {"merge_tokens"}
    assert "changes the picture" in said("sd1", merge_tokens=0.5)[0]


def test_what_excludes_each_other_is_a_letter() -> None:
    beside = Reference(image=picture(96, SIDE))
    for lossy, field in (({"deep_cache": 2}, "lossy.deep_cache"), ({"merge_tokens": 0.5}, "lossy.merge_tokens")):
        with pytest.raises(RecipeError) as letter:
            engine().check(asked(lossy, conditions=[beside]))
        assert letter.value.field == field and "reference" in letter.value.message
    for wrong in ({"deep_cache": 1}, {"controlnet_every": 11}, {"merge_tokens": 0.8}, {"deep_cach": 2}):
        with pytest.raises(RecipeError):
            asked(wrong)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [k for k in world("sd1").kinds if k not in ALONE])
def test_every_kind_is_heard_beside_it_or_refused(kind: str) -> None:
    there = world("sd1")
    made, lossy = there.engine(), OPTIONS[3]
    one = recipe(there, there.kinds[kind](), steps=4, lossy=lossy)
    if kind.startswith(("reference", "controlnet-xs")):
        with pytest.raises(RecipeError, match="lossy"):
            made.check(one)
        return
    both(made, one)
    silent = recipe(there, steps=4, lossy=lossy)
    assert float((made.run(one).latents - made.run(silent).latents).abs().max()) > 1e-6
