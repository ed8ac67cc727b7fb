"""An engine that serves all day: its memory does not grow, and what it does besides asking the network takes no time."""

from __future__ import annotations

import gc
import os
import random
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import infuse
from infuse.engine import placement
from infuse.engine.engine import Engine
from infuse.network.unet import Network

JOBS, WAVE, WARM = 1000, 8, 300
SAMPLERS = ("DDIM", "Euler", "Euler a", "DPM++ 2M", "UniPC")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    infuse.examples(folder)
    return folder


def drawn(dice: random.Random, at: Path) -> infuse.Recipe:
    """Any of the kinds that the embedded models hear, none or several of them."""
    room = {"image": at / "room.png", "mask": at / "mask.png"}
    kinds: list[Any] = [
        infuse.ControlNet(model="edges", image=at / "edges.png", weight=dice.choice([0.5, {0: 1.0, 1: 0.2}]), end=dice.choice([0.5, 1.0])),
        infuse.ControlNet(model="depths", image=at / "depth.png"),
        infuse.IPAdapter(model="ip-adapter", image=at / "look.png", weight=dice.random() + 0.1),
        infuse.T2IAdapter(model="segments", image=at / "segments.png", weight=0.5),
        infuse.Lora(model="wood", weight=dice.choice([0.4, 1.0])),
        infuse.Text(prompt="a blue ball", weight=0.7),
        dice.choice([infuse.Inpaint(**room), infuse.Img2Img(image=at / "room.png", strength=0.6)]),
    ]  # fmt: skip
    return infuse.Recipe(
        prompt=dice.choice(["a red cube", "a (green:1.3) cone AND a table", "a [blue:red:0.5] ball BREAK on wood"]),
        width=64, height=dice.choice([64, 64, 96]), steps=2, seed=dice.randrange(2**31), guidance=dice.choice([1.0, 5.0]),
        scheduler=dice.choice(SAMPLERS), conditions=dice.sample(kinds, dice.choice([0, 1, 1, 2, 3])),
    )  # fmt: skip


def resident() -> int:
    """Bytes of memory that this process uses: pages that the allocator keeps free go back first."""
    gc.collect()
    placement.trim()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="this system does not tell a process's memory there")
def test_memory_stays_flat_over_a_thousand_mixed_jobs(pictures: Path) -> None:
    """Within 2 % once the encodings that are kept are as many as there may be."""
    dice, sd = random.Random(7), Engine("tabletop", cache=64)
    held, done = list[int](), 0
    while done < JOBS:
        for result in sd.run_all(*(drawn(dice, pictures) for _ in range(WAVE))):
            done += len(result.images)
        if done >= WARM and done % 100 < WAVE:
            held.append(resident())
    assert len(held) >= 7
    assert max(held) / min(held) < 1.02, [round(h / 2**20, 1) for h in held]
    network = sd.store.base("tabletop").network
    assert len(network.constants) == 0


@pytest.mark.slow
def test_a_step_is_the_network(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows, layout, guidance, the sampler and turns: less than 5 % of a step even of a network as small as this one."""
    inside, predict = [0.0], Network.predict

    def timed(self: Network, batch: Any) -> torch.Tensor:
        begin = time.thread_time()
        try:
            return predict(self, batch)
        finally:
            inside[0] += time.thread_time() - begin

    monkeypatch.setattr(Network, "predict", timed)
    threads, sd = torch.get_num_threads(), Engine("tabletop")
    torch.set_num_threads(1)  # so that this thread's time is all of it
    try:
        conditions = [
            infuse.ControlNet(model="edges", image=pictures / "edges.png"),
            infuse.IPAdapter(model="ip-adapter", image=pictures / "look.png", weight={0: 1.0, 1: 0.5}),
        ]
        shares = []
        for scheduler in ("DDIM", "UniPC", "DPM++ 2M Karras", "Euler a") * 2:
            ticket = sd.submit(
                infuse.Recipe(prompt="a red cube", steps=10, seed=1, scheduler=scheduler, conditions=conditions)
            )
            begin, inside[0] = time.thread_time(), 0.0
            while any(job.latent is None for job in ticket.jobs):
                sd._step()
            shares.append(1 - inside[0] / (time.thread_time() - begin))
            ticket.cancel()
    finally:
        torch.set_num_threads(threads)
    assert min(shares[4:]) < 0.05 and sorted(shares[4:])[2] < 0.05, shares
