"""Networks are built empty and given their tensors: nothing is initialised for nothing, no key is lost in silence."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from infuse.errors import WeightsError
from infuse.notices import note

M = TypeVar("M", bound=nn.Module)


def assemble(
    make: Callable[[], M],
    tensors: Mapping[str, Tensor],
    dtype: torch.dtype,
    device: torch.device | str,
    what: str,
    field: str,
    outer: str = "",
    strict: bool = False,
) -> M:
    """Call `make` without allocating, then hand it `tensors` (by module key) in `dtype` on `device`, in eval mode.

    1x1 convolutions stored as matrices, and the reverse, are reshaped. `outer` is a leading name that the module may not
    have (transformers 5 dropped `text_model.` from CLIPTextModel; its projection belongs to the other class). Raises WeightsError when keys are missing or
    shapes differ; keys without a place are logged and counted in the letter, or refused if `strict`.
    """
    from accelerate import init_empty_weights

    with init_empty_weights():
        module = make()
    slots = module.state_dict()
    if outer and not any(k.startswith(outer) for k in slots):
        tensors = {k.removeprefix(outer): t for k, t in tensors.items() if k.startswith(outer)}
    missing = [k for k in slots if k not in tensors]
    extra = [k for k in tensors if k not in slots]
    if missing:
        tail = f", and {len(extra)} of its keys have no place there (first: {extra[0]})" if extra else ""
        raise WeightsError(field, f"{what} is incomplete: {len(missing)} of {len(slots)} tensors are missing "
                                  f"(first: {missing[0]}){tail}. Choose a complete file of this model.")  # fmt: skip
    if extra and strict:
        raise WeightsError(field, f"{what} has {len(extra)} of {len(tensors)} tensors that have no place in the network (first: "
                                  f"{extra[0]}). Choose one that was made for this base model, or its complete original.")  # fmt: skip
    if extra:
        note(f"{what}: {len(extra)} tensors have no place in the network and are left out (first: {extra[0]})")
    state = {}
    for key, slot in slots.items():
        tensor = tensors[key]
        if tensor.shape != slot.shape:
            tensor = _fit(tensor, slot, what, key, field)
        state[key] = laid(tensor.to(device, dtype if tensor.is_floating_point() else None))
    module.load_state_dict(state, strict=True, assign=True)
    return module.to(device).eval()


def laid(tensor: Tensor) -> Tensor:
    """A convolution's weight in the order in which kernels of bfloat16 read it; the same numbers (decode 512: 4.0 s to 1.6 s with AMX)."""
    last = tensor.dtype == torch.bfloat16 and tensor.dim() == 4
    return tensor.contiguous(memory_format=torch.channels_last) if last else tensor


def _fit(tensor: Tensor, slot: Tensor, what: str, key: str, field: str) -> Tensor:
    def core(shape: torch.Size) -> list[int]:
        return [*shape[:2], *(n for n in shape[2:] if n != 1)]

    if core(tensor.shape) != core(slot.shape):
        raise WeightsError(field, f"{what}: {key} has shape {tuple(tensor.shape)}, the network's other tensors ask for "
                                  f"{tuple(slot.shape)}. The file mixes two models; choose another.")  # fmt: skip
    return tensor.reshape(slot.shape)
