"""The fast walk is the plain one: whatever speaks, on whatever base, pictures and clips, alone and beside others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import crowd
import pytest
import torch
from kinds import SIDE, WORLDS, world
from test_pairs import engine, recipe

import tiny
from infuse.batch import collate
from infuse.conditions import ControlNet
from infuse.constants import Constants
from infuse.engine.engine import Engine
from infuse.errors import InfuseError
from infuse.network.unet import Network
from infuse.ports import Ports, Tokens
from infuse.recipe import Recipe
from infuse.spoken import Row
from mix import picture


@contextmanager
def plainly() -> Iterator[None]:
    """Every network answers as the modules' own forward has it."""
    Network.plain = True
    try:
        yield
    finally:
        Network.plain = False


def both(made: Engine, *asked: Any) -> None:
    """The same latents on both walks, to 1e-10 in float64; another number of calls would be another cost."""
    fast = [r.latents for r in made.run_all(*asked)]
    with plainly():
        plain = [r.latents for r in made.run_all(*asked)]
    for a, b in zip(fast, plain, strict=True):
        assert a.dtype == torch.float64
        torch.testing.assert_close(a, b, atol=1e-10, rtol=1e-10)


def possible(name: str, *conditions: Any) -> bool:
    try:
        engine(name).check(recipe(world(name), *conditions))
    except InfuseError:
        return False
    return True


CASES = [(name, kind) for name in WORLDS for kind in world(name).kinds]
CURVE = {0: 0.3, 0.6: 1.0}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind"), CASES, ids=lambda v: v)
def test_one_kind_on_both_walks(name: str, kind: str) -> None:
    speaker = world(name).kinds[kind]
    if not possible(name, speaker()):
        pytest.skip("not alone on this base")
    ones = [recipe(world(name), speaker(), guidance=g, steps=2) for g in (7.5, 1.0)]
    for voice in ({"weight": CURVE}, {"start": 0.25, "end": 0.75}):
        with suppress(InfuseError, ValueError):  # some are heard all the time
            engine(name).check(other := recipe(world(name), speaker(**voice), steps=4))
            ones.append(other)
    both(engine(name), *ones)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_a_crowd_on_both_walks(seed: int) -> None:
    both(crowd.engine(), *(r.recipe for r in crowd.requests(seed, 6)))


def beside_a_hint(**options: Any) -> tuple[Engine, Recipe, list[int]]:
    """A recipe with a ControlNet, and how many rows the first convolution of each network is shown, call after call."""
    net, widths = tiny.controlnet("sd1", 7).double(), list[int]()
    made = tiny.engine(tiny.base("sd1", dtype=torch.float64), {"canny": net}, own=False, **options)
    for each in (made.store.base("tiny").network.unet, net):
        each.conv_in.register_forward_hook(lambda _m, args, _out: widths.append(len(args[0])))
    hint = ControlNet(model="canny", image=picture(91, SIDE))
    return made, Recipe(prompt="a red cube", width=SIDE, height=SIDE, steps=2, seed=3, conditions=[hint]), widths


def test_rows_of_guidance_begin_as_one() -> None:
    """Up to the first words they are the same; on a plain walk, and at a fixed width, every row is computed."""
    made, asked, widths = beside_a_hint()
    both(made, asked)
    assert widths == [1, 1] * 2 + [2, 2] * 2
    made, asked, widths = beside_a_hint(row_width=4)
    made.run(asked)
    assert widths == [4, 4] * 2


def test_what_does_not_change_is_made_once() -> None:
    """Keys and values of words, an embedded hint: made in a job's first step, found in all others, gone with the job."""
    made, asked, _ = beside_a_hint()
    network, calls = made.store.base("tiny").network, list[str]()
    unet, net = network.unet, made.store.own("canny")
    assert net is not None
    watched = {"words": unet.mid_block.attentions[0].transformer_blocks[0].attn2.to_k, "words of the branch": net.mid_block.attentions[0].transformer_blocks[0].attn2.to_k,
               "hint": net.controlnet_cond_embedding.conv_in}  # fmt: skip
    for name, module in watched.items():
        module.register_forward_hook(lambda *_, name=name: calls.append(name))
    held = list[int]()
    made.run(asked.model_copy(update={"steps": 5}), watch=lambda _: held.append(network.constants.nbytes))
    assert sorted(calls) == sorted(watched)
    assert held[0] > 0 and len(set(held[:-1])) == 1 and network.constants.nbytes == 0


def test_words_are_read_again_when_somebody_writes_into_a_weight() -> None:
    base = tiny.base("sd1", dtype=torch.float64).base
    torch.manual_seed(0)
    said = Ports(context=(Tokens(torch.randn(7, base.spec.context_width, dtype=torch.float64)),))
    row = Row(torch.randn(4, 2, 2, dtype=torch.float64), torch.tensor(500.0), said)

    def answer(constants: Constants | None) -> torch.Tensor:
        with torch.no_grad():
            return base.network.predict(collate([row], base.spec, constants))[0]

    before, kept = answer(None), base.network.constants
    torch.testing.assert_close(answer(kept), before, atol=0, rtol=0)
    with torch.no_grad():
        base.network.unet.mid_block.attentions[0].transformer_blocks[0].attn2.to_v.weight.mul_(2)
    after = answer(kept)
    assert not torch.equal(after, before)
    torch.testing.assert_close(after, answer(None), atol=0, rtol=0)


def test_hooks_of_strangers_are_called() -> None:
    """Whoever listens to a module of the network (attention maps, features) is told, on the fast walk too."""
    base, heard = tiny.base("sd1", dtype=torch.float64).base, list[str]()
    unet = base.network.unet
    block = unet.mid_block.attentions[0].transformer_blocks[0]
    each = {"resnet": unet.mid_block.resnets[0], "transformer": unet.mid_block.attentions[0], "block": block,
            "attention": block.attn2, "feed-forward": block.ff}  # fmt: skip
    row = Row(
        torch.zeros(4, 2, 2, dtype=torch.float64),
        torch.tensor(500.0),
        Ports(context=(Tokens(torch.ones(7, base.spec.context_width, dtype=torch.float64)),)),
    )
    for name, module in each.items():
        handle = module.register_forward_hook(lambda *_, name=name: heard.append(name))
        with torch.no_grad():
            base.network.predict(collate([row], base.spec))
        handle.remove()
    assert heard == list(each)
