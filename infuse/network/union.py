"""One ControlNet for several kinds of map: it is told which kinds it is shown, and sums their hints before its encoder.

A row with several hints of one union model is one evaluation: each hint passes the shared hint encoder and a small block
that knows its type, the sum enters the encoder, and the time embedding hears all types at once.
Source: xinsir6/ControlNetPlus@b484205 (ControlNet++, ProMax), diffusers' ControlNetUnionModel for the scales of several.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.controlnets.controlnet_union import ControlNetUnionModel
from jaxtyping import Float
from torch import Tensor

from infuse.network.walk import Layers, Plain, Stroll, bottom, encode


class Union(ControlNetUnionModel):
    """diffusers' modules, asked so that no row depends on the others.

    The original's block attends over the batch, by a slip; where all rows of a batch are shown the same hint, as under
    guidance, every token then attends to copies of itself, and what is left is its value. That is what is computed here,
    so a hint's answer depends on that hint alone: hints of one row meet in their sum and in the joint types only.
    """

    merges = True
    """Several entries of one row are one call: `controlnet_cond` has all of them."""

    @property
    def types(self) -> int:
        """How many kinds of map it knows: 6, or 8 (ProMax)."""
        return int(self.task_embedding.shape[0])

    def forward(  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        sample: Float[Tensor, "k 4 h w"],
        timestep: Float[Tensor, " k"],
        encoder_hidden_states: Float[Tensor, "k n d"],
        controlnet_cond: Float[Tensor, "k *m c height width"],
        vectors: Float[Tensor, "k *m t"],
        parts: Float[Tensor, "k m"] | Float[Tensor, "k m h w"] | None = None,
        conditioning_scale: float = 1.0,
        timestep_cond: Tensor | None = None,
        added_cond_kwargs: Mapping[str, Tensor] | None = None,
        cross_attention_kwargs: Mapping[str, Any] | None = None,
        return_dict: bool = False,
        layers: Layers | None = None,
    ) -> tuple[list[Float[Tensor, "k c h w"]], Float[Tensor, "k c h w"]]:
        """Residuals, shallow to deep, and the middle's.

        vectors: one row of 0 and 1 for each hint: its type; all 0: it has none, and passes by the block ("auto").
        parts: how loud each hint of a row is before they are summed, everywhere or place by place; 0 for what only fills up a row.
        Without a dimension m, each row has one hint, at full strength. layers: how they are computed; None: the modules' own way.
        """
        if controlnet_cond.ndim == 4:
            controlnet_cond, vectors = controlnet_cond[:, None], vectors[:, None]
        if parts is None:
            parts = vectors.new_ones(controlnet_cond.shape[:2])
        parts = parts[:, :, None, None] if parts.ndim == 2 else parts
        emb = self._embedded(sample, timestep, timestep_cond, (vectors * (loudest(parts) != 0)[..., None]).amax(1))
        if added_cond_kwargs:
            emb = emb + self._sizes(added_cond_kwargs, emb)
        h = self.conv_in(sample)
        h = h + self.fused(controlnet_cond, vectors, parts, h)
        layers = layers or Plain(encoder_hidden_states, cross_attention_kwargs or {})
        h, skips, _ = encode(self, h, emb, layers, Stroll())
        h = bottom(self, h, emb, layers)
        down = [conv(s) * conditioning_scale for conv, s in zip(self.controlnet_down_blocks, skips, strict=True)]
        middle = self.controlnet_mid_block(h) * conditioning_scale
        if self.config["global_pool_conditions"]:
            down, middle = [r.mean((2, 3), keepdim=True) for r in down], middle.mean((2, 3), keepdim=True)
        return down, middle

    def fused(
        self, hints: Float[Tensor, "k m c height width"], vectors: Tensor, parts: Tensor, like: Float[Tensor, "k c h w"]
    ) -> Float[Tensor, "k c h w"]:
        """The sum over a row's hints of what each says: its embedding, and the block's answer to it.

        As in diffusers, the block is shown a hint that is scaled already: at its loudest, where it has a region.
        """
        k, m = hints.shape[:2]
        types, parts = vectors.flatten(0, 1).to(like), parts.to(like)
        c = self.controlnet_cond_embedding(hints.flatten(0, 1))
        f = (c.mean((2, 3)) + types @ self.task_embedding) * loudest(parts).reshape(k * m, 1)
        for layer in self.transformer_layes:
            f = alone(layer, f)
        typed = (types.sum(-1) > 0).to(like)[:, None]
        said = c + (self.spatial_ch_projs(f) * typed)[:, :, None, None]
        return (said.unflatten(0, (k, m)) * parts[:, :, None]).sum(1)

    def _embedded(self, sample: Tensor, timestep: Tensor, guidance: Tensor | None, types: Tensor) -> Tensor:
        """The time embedding, with the types in it: a sinusoid of 0 or 1 for each."""
        emb = self.time_embedding(self.time_proj(timestep).to(sample.dtype), guidance)
        waves = self.control_type_proj(types.flatten()).reshape(len(types), -1)
        return emb + self.control_add_embedding(waves.to(emb.dtype))

    def _sizes(self, added: Mapping[str, Tensor], emb: Tensor) -> Tensor:
        """SDXL's pooled text and sizes."""
        ids = self.add_time_proj(added["time_ids"].flatten()).reshape(len(emb), -1)
        return self.add_embedding(torch.cat([added["text_embeds"], ids], -1).to(emb.dtype))


def loudest(parts: Float[Tensor, "k m h w"]) -> Float[Tensor, "k m"]:
    """The strength of each hint where it is strongest."""
    flat = parts.flatten(2)
    return flat.gather(2, flat.abs().argmax(2, keepdim=True))[:, :, 0]


def alone(layer: Any, f: Float[Tensor, "k c"]) -> Float[Tensor, "k c"]:
    """The block's answer to tokens that attend to themselves only: the value projection, and the MLP."""
    width = f.shape[-1]
    attn = layer.attn
    value = F.linear(layer.ln_1(f), attn.in_proj_weight[2 * width :], attn.in_proj_bias[2 * width :])
    f = f + attn.out_proj(value)
    return f + layer.mlp(layer.ln_2(f))
