"""How much arithmetic a step is: FLOP = 2 x multiply-add, of the algorithm as it is written, whatever an implementation saves.

Networks are counted on the `meta` device by torch's FlopCounterMode, which sees attention as two products there; what
IP-Adapters add is a formula. Only convolutions, linear layers and attention count.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.asked import Request
from benchmarks.networks import CONTROL, Sizes, World

KNOWN: dict[str, Sizes] = {}


class Count:
    """FLOP of one row (a latent of one term of guidance) of each network."""

    def __init__(self, sizes: Sizes) -> None:
        self.sizes = sizes
        grid = sizes.unet["sample_size"]
        context = sizes.unet["cross_attention_dim"]
        more: dict[str, Any] = {}
        with torch.device("meta"), torch.no_grad():
            unet = UNet2DConditionModel(**sizes.unet)
            control = ControlNetModel(
                **{k: v for k, v in dict(unet.config).items() if k in CONTROL},
                conditioning_embedding_out_channels=sizes.hints,
            )
            x, t, words = torch.empty(1, 4, grid, grid), torch.empty(1), torch.empty(1, 77, context)
            if sizes.wide:
                pooled = (
                    unet.config["projection_class_embeddings_input_dim"] - 6 * unet.config["addition_time_embed_dim"]
                )
                more = {"added_cond_kwargs": {"text_embeds": torch.empty(1, pooled), "time_ids": torch.empty(1, 6)}}
            hears: list[tuple[int, int]] = []
            for path, module in unet.named_modules():
                if path.endswith("attn2"):
                    module.register_forward_pre_hook(
                        lambda m, args, kwargs: hears.append((args[0].shape[1], m.to_q.out_features)),  # type: ignore[union-attr]
                        with_kwargs=True,
                    )
            self.unet = counted(lambda: unet(x, t, words, **more))
            hint = torch.empty(1, 3, sizes.side, sizes.side)
            self.controlnet = counted(lambda: control(x, t, words, hint, **more))
        tokens = 4
        self.adapter = sum(
            2 * 2 * tokens * context * width + 2 * 2 * places * tokens * width for places, width in hears
        )
        """K and V of its tokens, and their attention; all cross-attentions, a row."""

    def step(self, request: Request, step: int) -> float:
        """One step of a request: two rows if it is guided."""
        rows = 1 if request.guidance <= 1 else 2
        each = self.unet + len(request.heard(step)) * self.controlnet + len(request.looks) * self.adapter
        return rows * each

    def all(self, requests: Sequence[Request]) -> float:
        """Every step of every request."""
        return float(sum(self.step(r, i) for r in requests for i in range(r.steps)))


@cache
def count(name: str) -> Count:
    return Count(KNOWN[name])


def counts(world: World) -> Count:
    """Counted once."""
    KNOWN[world.sizes.name] = world.sizes
    return count(world.sizes.name)


def counted(call: Any) -> float:
    with FlopCounterMode(display=False) as counter:
        call()
    return float(counter.get_total_flops())
