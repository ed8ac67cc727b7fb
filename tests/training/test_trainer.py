"""A run that is killed and resumed must end in the very same bits as one that was not."""

import csv
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from infuse.training.muon import orthogonal
from infuse.training.trainer import TrainConfig, Trainer


class Line:
    """Fit a small network to the sum of its inputs, with noise from the generator."""

    def __init__(self) -> None:
        torch.manual_seed(3)
        self.net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.BatchNorm1d(8), nn.Linear(8, 1))

    def modules(self) -> dict[str, nn.Module]:
        return {"net": self.net}

    def batch(self, rng: np.random.Generator) -> Tensor:
        return torch.from_numpy(rng.standard_normal((16, 4), np.float32))

    def loss(self, batch: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        target = batch.sum(1, keepdim=True) + 0.1 * torch.randn(len(batch), 1, generator=generator)
        loss = (self.net(batch) - target).square().mean()
        return loss, {"mse": float(loss.detach())}


def config(steps: int = 40, **changes: float | str) -> TrainConfig:
    return TrainConfig(
        **{"steps": steps, "lr": 0.05, "warmup": 5, "ema": 0.9, "save_every": 7, "log_every": 5} | changes
    )  # type: ignore[arg-type]


def final(folder: Path) -> dict[str, Tensor]:
    checkpoint = max(folder.glob("checkpoint-*"))
    weights, ema = load_file(checkpoint / "weights.safetensors"), load_file(checkpoint / "ema.safetensors")
    return weights | {f"ema.{k}": v for k, v in ema.items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_it_learns(tmp_path: Path) -> None:
    Trainer(Line(), config(steps=200), tmp_path).run()
    losses = [float(row["loss"]) for row in rows(tmp_path)]
    assert losses[-1] < 0.3 * losses[0]


class Stop(Exception):
    """The plug is pulled."""


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_resumed_equals_uninterrupted(tmp_path: Path, optimizer: str) -> None:
    Trainer(Line(), config(optimizer=optimizer), tmp_path / "whole").run()
    broken = Trainer(Line(), config(optimizer=optimizer), tmp_path / "broken")
    advance = broken.advance

    def failing() -> dict[str, float]:
        if broken.step == 24:  # three steps after a checkpoint: those three must be done again, alike
            raise Stop
        return advance()

    broken.advance = failing  # type: ignore[method-assign]
    with pytest.raises(Stop):
        broken.run()
    again = Trainer(Line(), config(optimizer=optimizer), tmp_path / "broken")
    assert again.run() == 40
    assert same(final(tmp_path / "whole"), final(tmp_path / "broken"))
    assert [r["step"] for r in rows(tmp_path / "whole")] == [r["step"] for r in rows(tmp_path / "broken")]
    assert rows(tmp_path / "whole")[-1] == rows(tmp_path / "broken")[-1]


VICTIM = """
import os, signal, sys, pathlib
sys.path[:0] = sys.argv[2:]
import test_trainer as t
trainer = t.Trainer(t.Line(), t.config(), pathlib.Path(sys.argv[1]))
save = trainer.save
def killing():
    if trainer.step == 21:
        (trainer.folder / "checkpoint-00000021.draft").mkdir()
        os.kill(os.getpid(), signal.SIGKILL)
    return save()
trainer.save = killing
trainer.run()
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs kill -9")
def test_survives_kill_9_in_the_middle_of_a_save(tmp_path: Path) -> None:
    here = Path(__file__).resolve()
    command = [sys.executable, "-c", VICTIM, str(tmp_path / "killed"), str(here.parent), str(here.parents[2])]
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}  # sums in another order would be other bits
    process = subprocess.run(command, env=os.environ | threads, capture_output=True, text=True)
    assert process.returncode == -signal.SIGKILL, process.stderr
    resumed = Trainer(Line(), config(), tmp_path / "killed")
    resumed.resume()
    assert resumed.step == 14
    resumed.run()
    Trainer(Line(), config(), tmp_path / "whole").run()
    assert same(final(tmp_path / "whole"), final(tmp_path / "killed"))


def test_time_limit_stops_and_saves(tmp_path: Path) -> None:
    assert Trainer(Line(), config(max_minutes=0.0), tmp_path).run() == 1
    assert (tmp_path / "checkpoint-00000001").is_dir()
    assert Trainer(Line(), config(), tmp_path).run() == 40


def test_average_is_lent_and_given_back(tmp_path: Path) -> None:
    trainer = Trainer(Line(), config(), tmp_path)
    trainer.run()
    before = {k: v.detach().clone() for k, v in trainer.named.items()}
    with trainer.averaged():
        assert same({k: v.detach() for k, v in trainer.named.items()}, trainer.ema)
    assert same({k: v.detach() for k, v in trainer.named.items()}, before)


def test_schedule() -> None:
    rates = [config(steps=100).lr_at(s) for s in range(100)]
    assert max(rates) == pytest.approx(0.05, rel=0.01) and rates.index(max(rates)) == 4
    assert rates[-1] < 1e-4 and math.isclose(TrainConfig(10, 1.0, 0, "constant").lr_at(9), 1.0)


def test_unknown_optimizer_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="adamw, muon"):
        Trainer(Line(), config(optimizer="sgd"), tmp_path)


@pytest.mark.parametrize("shape", [(8, 8), (16, 5), (5, 16)])
def test_muon_steps_in_all_directions_alike(shape: tuple[int, int]) -> None:
    torch.manual_seed(1)
    loud = torch.randn(shape[0], 1) @ torch.randn(1, shape[1])
    values = torch.linalg.svdvals(orthogonal(loud + 0.1 * torch.randn(shape)))
    assert values.min() > 0.3 and values.max() < 1.4


def test_nothing_to_train_is_an_error(tmp_path: Path) -> None:
    line = Line()
    line.net.requires_grad_(False)
    with pytest.raises(ValueError, match="requires_grad"):
        Trainer(line, config(), tmp_path)
