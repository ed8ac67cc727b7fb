"""Attention that listens to ports: shared queries, text tokens behind a bias, and any number of decoupled adapters.

One processor per attention layer, installed once when a network is loaded and never changed: which adapters speak,
to which rows, how loudly and where, arrives as data through diffusers' own `cross_attention_kwargs`.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from infuse.batch import Spoken, SpokenDecoupled, on_grid


class PortedAttention:
    """diffusers' attention (AttnProcessor2_0 semantics) plus the context and decoupled ports.

    `layer` is the index among the network's cross-attentions in IP-Adapter order, or None for self-attention.
    Source: IP-Adapter 3.2, eq. 5; two separate softmaxes, one sum before the output projection.
    """

    def __init__(self, layer: int | None) -> None:
        self.layer = layer

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        context: Spoken | None = None,
        decoupled: tuple[SpokenDecoupled, ...] = (),
        **_: Any,
    ) -> Tensor:
        cross = encoder_hidden_states is not None
        source = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        q = heads(attn.to_q(hidden_states), attn.heads)
        bias = context.bias_for(hidden_states.shape[1]) if cross and context is not None else None
        out = merged(attend(q, heads(attn.to_k(source), attn.heads), heads(attn.to_v(source), attn.heads), bias))
        if cross and self.layer is not None:
            for said in decoupled:
                out = out.index_add(0, said.rows, self.image_answer(q, said, attn.heads).to(out.dtype))
        return attn.to_out[1](attn.to_out[0](out))

    def image_answer(self, q: Tensor, said: SpokenDecoupled, n: int) -> Tensor:
        """(k, queries, width): what one adapter adds for the rows that carry it, weighed and masked."""
        to_k, to_v = said.adapter.layer(self.layer)  # type: ignore[operator]
        k, v = heads(to_k(said.tokens.values), n), heads(to_v(said.tokens.values), n)
        out = merged(attend(q[said.rows], k, v, said.tokens.bias_for(q.shape[2])))
        weight = said.weights if said.layers is None else said.weights * said.layers[:, self.layer]
        out = out * weight[:, None, None].to(out.dtype)
        for i, mask in enumerate(said.masks):
            if mask is not None:
                out[i] = out[i] * on_grid(mask, said.tokens.grid, out.shape[1])[:, None].to(out)
        return out


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """softmax(q k^T / sqrt(d) + bias) v."""
    if q.device.type == "cpu" and torch.is_grad_enabled():
        # CPU's fused kernel is fast forward, but its backward takes twice the time of plain products at small widths.
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        return (scores if bias is None else scores + bias.to(scores.dtype)).softmax(-1).to(v.dtype) @ v
    return F.scaled_dot_product_attention(q, k, v, None if bias is None else bias.to(q.dtype))


def heads(t: Tensor, n: int) -> Tensor:
    """(b, places, n*d) to (b, n, places, d)."""
    return t.unflatten(-1, (n, -1)).transpose(1, 2)


def merged(t: Tensor) -> Tensor:
    """The reverse of `heads`."""
    return t.transpose(1, 2).flatten(2)


def install(network: nn.Module, cross_layers: tuple[str, ...] = ()) -> None:
    """Give every attention of a diffusers network a ported processor; `cross_layers` are numbered in that order."""
    index = {path: i for i, path in enumerate(cross_layers)}
    processors = {name: PortedAttention(index.get(name.removesuffix(".processor"))) for name in network.attn_processors}  # type: ignore[union-attr]
    network.set_attn_processor(processors)  # type: ignore[operator]
