"""A golden: inputs and outputs of a public implementation at tiny size; its weights follow from a rule (see weights.py)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from .weights import kind, make

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Golden:
    """`golden["x"]` is an input; `outputs` is what must come out, by name."""

    name: str

    @cached_property
    def record(self) -> dict[str, Any]:
        return json.loads((HERE / f"{self.name}.json").read_text())

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        return load_file(HERE / f"{self.name}.safetensors")

    @property
    def config(self) -> dict[str, Any]:
        return self.record["config"]

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[f"in.{name}"]

    @property
    def outputs(self) -> dict[str, Tensor]:
        return {k.removeprefix("out."): t for k, t in self.tensors.items() if k.startswith("out.")}

    def weights(self, prefix: str = "", but: str = "\0") -> dict[str, Tensor]:
        """The tensors under a prefix, without it. The rule's salted string contains the prefix."""
        shapes = {k: s for k, s in self.record["shapes"].items() if k.startswith(prefix) and not k.startswith(but)}
        ruled = {k: s for k, s in shapes.items() if kind(k, s) and f"stored.{k}" not in self.tensors}
        made = make(ruled, self.record["salt"], self.record["gain"])
        return {k.removeprefix(prefix): made[k] if k in made else self.tensors[f"stored.{k}"] for k in shapes}

    def differences(self, found: Mapping[str, Tensor]) -> dict[str, float]:
        """max|a - b| / max(std(b), 0.01) of every output; integers must be equal."""
        assert found.keys() == self.outputs.keys()
        return {k: difference(found[k], b) for k, b in self.outputs.items()}


def difference(a: Tensor, b: Tensor) -> float:
    assert a.shape == b.shape, (a.shape, b.shape)
    if not b.is_floating_point():
        return 0.0 if torch.equal(a, b) else float("inf")
    return float((a - b).abs().max() / b.std().clamp(min=0.01))
