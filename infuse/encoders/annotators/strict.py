"""An annotator's file fits its network to the last tensor, or a letter says what does not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from infuse.errors import WeightsError

M = TypeVar("M", bound=nn.Module)


def fitted(make: Callable[[], M], tensors: Mapping[str, Tensor], what: str, file: str, field: str = "") -> M:
    """The module that `make` makes, without allocating, given `tensors` by its own keys; in eval mode.

    Raises WeightsError that names missing, left-over and misshapen keys. `file` is what the release calls its file.
    """
    with torch.device("meta"):
        module = make()
    slots = {k: tuple(t.shape) for k, t in module.state_dict().items()}
    missing = [k for k in slots if k not in tensors]
    extra = [k for k in tensors if k not in slots]
    wrong = [
        f"{k} {tuple(tensors[k].shape)} for {s}" for k, s in slots.items() if k in tensors and tensors[k].shape != s
    ]
    lists = (("missing", missing), ("left over", extra), ("of another shape", wrong))
    if told := "; ".join(f"{len(k)} {how} ({', '.join(k[:3])}{', ...' * (len(k) > 3)})" for how, k in lists if k):
        raise WeightsError(field, f"this file is not {what}: of {len(slots)} tensors, {told}. Choose {file}.")
    module.load_state_dict(dict(tensors), strict=True, assign=True)
    return module.requires_grad_(False).eval()


def bare(tensors: Mapping[str, Tensor], first: str) -> dict[str, Tensor]:
    """The same tensors without what stands before `first` in every key ("module.", left by parallel training)."""
    prefix = next((k.removesuffix(first) for k in tensors if k.endswith(first)), "")
    return {k.removeprefix(prefix): t for k, t in tensors.items()}
