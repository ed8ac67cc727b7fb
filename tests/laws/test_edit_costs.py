"""Users with LoRAs of their own share a call that takes hardly longer than one without any."""

from __future__ import annotations

import time
from types import SimpleNamespace

import loras
import pytest
import torch

from infuse.batch import Row, collate
from infuse.network.spec import NetworkSpec
from infuse.network.unet import Network
from infuse.ports import Edit, Ports, Tokens

MOST = 1.5
"""Times what the same rows take without them."""
ROWS, RANK, SIDE, WORDS = 8, 8, 8, 768


def network() -> Network:
    """As wide as the upper half of SD 1.5, where its time is spent, with one block a level."""
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel(
        sample_size=SIDE, block_out_channels=(320, 640), layers_per_block=1, cross_attention_dim=WORDS, attention_head_dim=8,
        down_block_types=("CrossAttnDownBlock2D",) * 2, up_block_types=("CrossAttnUpBlock2D",) * 2,
    )  # fmt: skip
    unet.eval().requires_grad_(False)
    return Network(unet, NetworkSpec.from_unet_config("wide", unet.config, family="sd1"))


@pytest.mark.slow
@pytest.mark.parametrize("plain", [False, True], ids=["fast", "plain"])
def test_eight_loras_in_one_call_cost_less_than_half_of_it(plain: bool) -> None:
    """Of rank 8 on all attentions and feed-forwards, one for each row. The best of some calls that take turns: others' work beside them is
    not infuse's."""
    net = network()
    net.plain = plain
    base = SimpleNamespace(network=net, texts=SimpleNamespace(models=[]))
    edits = [loras.lora(base, i, RANK, only="attentions", texts=False) for i in range(ROWS)]
    x, words, t = torch.randn(ROWS, 4, SIDE, SIDE), Tokens(torch.randn(77, WORDS)), torch.tensor(500.0)
    calls = {
        with_them: collate(
            [Row(x[i], t, Ports(context=(words,), edits=(Edit(edits[i]),) if with_them else ())) for i in range(ROWS)],
            net.spec,
        )
        for with_them in (False, True)
    }
    taken: dict[bool, list[float]] = {False: [], True: []}
    answers: dict[bool, torch.Tensor] = {}
    for n in range(6):
        for with_them, batch in calls.items():
            begin = time.perf_counter()
            with torch.no_grad():
                answers[with_them] = net.predict(batch)
            taken[with_them].append(time.perf_counter() - begin)
        if n and min(taken[True][1:]) < MOST * min(taken[False][1:]):  # the first of each warms up
            break
    else:
        raise AssertionError(f"{min(taken[True][1:]):.2f} s with them, {min(taken[False][1:]):.2f} s without")
    apart = (answers[True] - answers[False]).flatten(1).abs().amax(1)
    assert (apart > 1e-3).all() and apart.unique().numel() == ROWS, "each row hears its own"
