"""One loop for every objective. Step n draws all its randomness from (seed, n), so a killed run resumes bit for bit.

An objective says what may be updated, makes a batch and returns a loss; the trainer owns the optimizer, the schedule,
the moving average and the checkpoints. A checkpoint is a folder that appears by one rename: whole, or not at all.
"""

import csv
import json
import logging
import math
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from infuse.training.muon import Muon

OPTIMIZERS: dict[str, Any] = {"adamw": torch.optim.AdamW, "muon": Muon}
log = logging.getLogger("infuse.training")


class Objective(Protocol):
    """What is to be learned. Modules that call the global random generator (dropout) would break exact resuming."""

    def modules(self) -> Mapping[str, nn.Module]:
        """Name to module: what may be updated. Parameters with `requires_grad` off stay as they are."""
        ...

    def batch(self, rng: np.random.Generator) -> Any:
        """One batch, a pure function of the generator."""
        ...

    def loss(self, batch: Any, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """A scalar to minimise and numbers worth recording. Noise comes from `generator` alone."""
        ...


@dataclass(frozen=True)
class TrainConfig:
    """How to train; the objective knows its own batch size.

    `lr` is reached after `warmup` steps and falls to zero by `steps` ("cosine") or stays ("constant").
    `ema` is the decay of the moving average of the weights, 0 for none; `clip` bounds the gradient's norm, 0 for none.
    """

    steps: int
    lr: float = 1e-3
    warmup: int = 100
    schedule: str = "cosine"
    optimizer: str = "adamw"
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.99)
    ema: float = 0.0
    bf16: bool = False
    clip: float = 1.0
    save_every: int = 500
    log_every: int = 50
    max_minutes: float = math.inf
    seed: int = 0

    def lr_at(self, step: int) -> float:
        """The learning rate of one step: linear warm-up, then the schedule."""
        rise = min(1.0, (step + 1) / max(self.warmup, 1))
        if self.schedule == "constant":
            return self.lr * rise
        if self.schedule != "cosine":
            raise ValueError(f'schedule: "{self.schedule}" is not known. Choose "cosine" or "constant".')
        return self.lr * rise * 0.5 * (1 + math.cos(math.pi * step / self.steps))


class Trainer:
    """Trains `objective` in `folder`, which holds `checkpoint-<step>/` (the newest only) and `metrics.csv`."""

    def __init__(self, objective: Objective, config: TrainConfig, folder: Path) -> None:
        self.objective, self.config, self.folder = objective, config, folder
        self.step = 0
        self.named = {
            f"{name}.{key}": parameter
            for name, module in objective.modules().items()
            for key, parameter in module.named_parameters()
            if parameter.requires_grad
        }
        self.buffers = {
            f"{name}.{key}": value
            for name, module in objective.modules().items()
            for key, value in module.named_buffers()
        }
        if not self.named:
            raise ValueError("objective.modules(): no parameter has requires_grad on. There is nothing to train.")
        if config.optimizer not in OPTIMIZERS:
            raise ValueError(f'optimizer: "{config.optimizer}" is not known. Choose one of {", ".join(OPTIMIZERS)}.')
        for module in (m for named in objective.modules().values() for m in named.modules()):
            if isinstance(module, nn.Embedding):
                module.weight.is_table = True  # type: ignore[attr-defined]
        self.optimizer = OPTIMIZERS[config.optimizer](
            self.named.values(), lr=config.lr, betas=config.betas, weight_decay=config.weight_decay
        )
        self.ema = {k: p.detach().clone() for k, p in self.named.items()} if config.ema else {}

    def run(self) -> int:
        """Train on from the newest checkpoint (or from scratch) to the last step or the time limit; the step reached."""
        self.resume()
        started = time.monotonic()
        for module in self.objective.modules().values():
            module.train()
        with _report(self) as report:
            while self.step < self.config.steps:
                report(self.advance())
                if self.step % self.config.save_every == 0:
                    self.save()
                if time.monotonic() - started > 60 * self.config.max_minutes:
                    break
        self.save()
        return self.step

    def advance(self) -> dict[str, float]:
        """One step: batch, loss, gradient, update, average."""
        config, step = self.config, self.step
        device = next(iter(self.named.values())).device
        generator = torch.Generator().manual_seed(config.seed * 2**32 + step)
        batch = self.objective.batch(np.random.default_rng((config.seed, step)))
        with torch.autocast(device.type, torch.bfloat16, enabled=config.bf16):
            loss, numbers = self.objective.loss(batch, generator)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.named.values(), config.clip or math.inf)
        for group in self.optimizer.param_groups:
            group["lr"] = config.lr_at(step)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._average()
        self.step = step + 1
        return {"loss": float(loss.detach()), **numbers, "norm": float(norm), "lr": config.lr_at(step)}

    @torch.no_grad()
    def _average(self) -> None:
        if self.ema:  # the decay rises over the first steps, or the random start would linger in the average
            decay = min(self.config.ema, (self.step + 1) / (self.step + 10))
            for key, average in self.ema.items():
                average.lerp_(self.named[key], 1 - decay)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within the block the modules hold the moving average, if one is kept."""
        kept = {k: self.named[k].detach().clone() for k in self.ema}
        _copy_into(self.named, self.ema)
        try:
            yield
        finally:
            _copy_into(self.named, kept)

    def use_average(self) -> None:
        """Leave the moving average in the modules: what is saved for use."""
        _copy_into(self.named, self.ema)

    def save(self) -> Path:
        """Write `checkpoint-<step>` and drop the older ones."""
        target = self.folder / f"checkpoint-{self.step:08d}"
        if target.exists():
            return target
        draft = target.with_suffix(".draft")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        weights = {k: v.detach().contiguous().clone() for k, v in (self.named | self.buffers).items()}
        save_file(weights, draft / "weights.safetensors")
        if self.ema:
            save_file(self.ema, draft / "ema.safetensors")
        torch.save(self.optimizer.state_dict(), draft / "optimizer.pt")
        (draft / "config.json").write_text(json.dumps({**asdict(self.config), "max_minutes": None}, indent=1))
        draft.rename(target)
        for old in self.folder.glob("checkpoint-*"):
            if old != target:
                shutil.rmtree(old)
        return target

    def resume(self) -> None:
        """Load the newest whole checkpoint, if there is one."""
        found = sorted(p for p in self.folder.glob("checkpoint-*") if p.suffix != ".draft")
        if not found:
            return
        _copy_into(self.named | self.buffers, load_file(found[-1] / "weights.safetensors"))
        if self.ema:
            _copy_into(self.ema, load_file(found[-1] / "ema.safetensors"))
        self.optimizer.load_state_dict(torch.load(found[-1] / "optimizer.pt", weights_only=True))
        self.step = int(found[-1].name.split("-")[1])


@torch.no_grad()
def _copy_into(target: Mapping[str, Tensor], source: Mapping[str, Tensor]) -> None:
    for key, value in source.items():
        target[key].copy_(value)


@contextmanager
def _report(trainer: Trainer) -> Iterator[Any]:
    """A progress bar on a terminal, log lines elsewhere, and every `log_every` steps a row of means in metrics.csv."""
    every, total = trainer.config.log_every, trainer.config.steps
    rows = _rows_before(trainer.folder / "metrics.csv", trainer.step)
    seen: list[dict[str, float]] = []
    begun, first = time.monotonic(), trainer.step
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, disable=not sys.stdout.isatty()) as bar:
        task = bar.add_task("", total=total, completed=first)

        def report(numbers: dict[str, float]) -> None:
            seen.append(numbers)
            if trainer.step % every == 0 or trainer.step == total:
                rate = (trainer.step - first) / (time.monotonic() - begun)
                row = {"step": trainer.step} | {k: float(np.mean([s[k] for s in seen])) for k in numbers}
                rows.append({k: format(v, ".6g") for k, v in row.items()})
                _write_rows(trainer.folder / "metrics.csv", rows)
                text = f"loss {row['loss']:.4f}  {rate:.2f} steps/s"
                left = (total - trainer.step) / rate / 60
                log.info("step %d/%d  %s  %.1f min left  %s", trainer.step, total, text, left, rows[-1])
                bar.update(task, description=text)
                seen.clear()
            bar.update(task, completed=trainer.step)

        yield report


def _rows_before(path: Path, step: int) -> list[dict[str, str]]:
    """The rows of an earlier life of this run, without those after its last checkpoint."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [row for row in csv.DictReader(file) if int(row["step"]) <= step]


def _write_rows(path: Path, rows: list[dict[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[-1]), extrasaction="ignore", restval="")
        writer.writeheader()
        writer.writerows(rows)
