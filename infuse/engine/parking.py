"""What leaves a device waits in the machine's memory: a copy of it there, and one back when it is asked for again.

Copies, not moves: jobs under way keep the one that they use, on the device, until they are done. What was made for a base or shares
its weights is not kept so, and is read again.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from infuse.encoders.kit import Base
from infuse.encoders.text import TextEncoders


def copied_to(thing: Any, device: torch.device) -> Any:
    """A base, a module, or an image encoder with its processor, the same on this device, tensor by tensor; None for other things."""
    if isinstance(thing, Base):
        if (
            thing.of is not None
            or thing.tasks is not None
            or thing.composer is not None
            or thing.image_noise is not None
        ):
            return None  # parts that share weights, or tensors outside of modules
        net, texts = thing.network, thing.texts
        return replace(
            thing,
            network=type(net)(module(net.unet, device), net.spec),
            vae=module(thing.vae, device),
            texts=TextEncoders([module(m, device) for m in texts.models], texts.tokenizers),
            image_encoder=thing.image_encoder and module(thing.image_encoder, device),
        )
    if isinstance(thing, tuple) and len(thing) == 2 and isinstance(thing[0], nn.Module):
        return module(thing[0], device), thing[1]
    if isinstance(thing, nn.Module) and getattr(thing, "tasks", None) is None:
        return module(thing, device)
    return None


def module(original: nn.Module, device: torch.device) -> Any:
    """A module like this one on a device. No tensor is copied where it lies, which may be full."""
    memo: dict[int, Any] = {}
    for t in original.parameters():
        memo[id(t)] = nn.Parameter(_elsewhere(t, device), requires_grad=t.requires_grad)
    memo |= {id(t): _elsewhere(t, device) for t in original.buffers()}
    return copy.deepcopy(original, memo)


def _elsewhere(t: torch.Tensor, device: torch.device) -> torch.Tensor:
    return t.detach().to(device, copy=True)
