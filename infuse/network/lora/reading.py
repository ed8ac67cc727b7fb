"""The parameters of one module, under canonical names, become its change. Which kind it is, the parameters say; one kind a module.

Source of names and formulas: KohakuBlueleaf/LyCORIS@f49d30d (modules), kohya-ss/sd-scripts@48d368f (networks),
Comfy-Org/ComfyUI@a125cd8 (comfy/weight_adapter).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from infuse.errors import WeightsError
from infuse.network.lora.change import Change, exact
from infuse.network.lora.low_rank import LowRank, balanced


def change(
    name: str, parameters: Mapping[str, Tensor], shape: Sequence[int], dtype: torch.dtype | None = None
) -> Change:
    """The change of one layer.

    `name`: the module's, for letters. `parameters`: under canonical suffixes (`lora_down.weight`, `hada_w1_a`, `alpha`, `dora_scale`,
    `diff_b`, ...). `shape`: of the layer's weight: (out in), (out in kh kw), (c) for a norm. `dtype`: of what is kept; as stored if
    None. WeightsError, with the module's name, where the parameters don't make sense.
    """
    return _Module(name, dict(parameters), tuple(shape), dtype).change()


@dataclass
class _Module:
    name: str
    given: dict[str, Tensor]
    shape: tuple[int, ...]
    dtype: torch.dtype | None

    def letter(self, fact: str) -> WeightsError:
        return WeightsError("", f'"{self.name}": {fact}')

    def change(self) -> Change:
        dtype = self.dtype or next((t.dtype for t in self.given.values() if t.is_floating_point()), torch.float32)
        work = torch.float64 if dtype == torch.float64 else exact(*self.given.values())
        t = {k: v.to(work) for k, v in self.given.items()}
        A, B = t["lora_down.weight"], t["lora_up.weight"]
        r = len(A)
        scale = float(t["alpha"]) / r if "alpha" in t else 1.0
        A, B = balanced(A.reshape(r, *self.shape[1:]), B.reshape(self.shape[0], r) * scale)
        return LowRank(A.to(dtype), B.to(dtype))
