"""What a CLIP text model makes of rows of tokens: the state after every layer, the last one normed, and the whole as a vector.

Where vectors stand in the place of tokens, the same modules are visited in the same order from here: models are shared by
threads, so nothing is written into them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from infuse.encoders.chunks import CHUNK
from infuse.errors import RecipeError

Placed = tuple[int, int, Tensor]
"""A row, a place in its chunk, and the vectors (m d) that stand from there on."""


@dataclass(frozen=True)
class States:
    layers: Sequence[Float[Tensor, "k 77 d"]]
    """What goes into the first layer, and what comes out of each."""
    last: Float[Tensor, "k 77 d"]
    """The last layer's, after the final norm."""
    pooled: Float[Tensor, "k e"] | None
    """Each row's state at its end, projected; None for models without a projection."""


def states(
    model: Any, ids: Int[Tensor, "k 77"], placed: Sequence[Placed] = (), mask: Int[Tensor, "k 77"] | None = None
) -> States:
    """`mask`: 0 where a token is not attended to."""
    ids = ids.to(model.device)
    mask = None if mask is None else mask.to(model.device)
    if placed:
        return _visited(model, ids, placed, mask)
    out = model(ids, attention_mask=mask, output_hidden_states=True)
    return States(out.hidden_states, out.last_hidden_state, out.text_embeds if "text_embeds" in out else None)


def _visited(model: Any, ids: Tensor, placed: Sequence[Placed], mask: Tensor | None) -> States:
    from transformers.masking_utils import create_causal_mask

    core = getattr(model, "text_model", model)  # a model with a projection holds one without
    rows = core.get_input_embeddings()(ids).clone()
    for row, place, vectors in placed:
        own = vectors[: CHUNK - place].to(rows)
        rows[row, place + 1 : place + 1 + len(own)] = own  # 1: after the start
    layers = [core.embeddings(inputs_embeds=rows)]
    seen = create_causal_mask(config=core.config, inputs_embeds=layers[0], attention_mask=mask, past_key_values=None)
    for layer in core.encoder.layers:
        layers.append(layer(layers[-1], seen, is_causal=True))
    last = core.final_layer_norm(layers[-1])
    if core is model:
        return States(layers, last, None)
    # older configs say 2, and mean the largest id (transformers' own rule)
    ends = ids.argmax(-1) if core.eos_token_id == 2 else (ids == core.eos_token_id).int().argmax(-1)
    return States(layers, last, model.text_projection(last[torch.arange(len(ids), device=last.device), ends]))


def heard(model: Any, found: States, skip: int | None, wide: bool) -> Float[Tensor, "k 77 d"]:
    """The layer that a network hears. SD 1/2: the last, or the one that `skip` counts to (1: the last), after the final norm.
    `wide` (SDXL): the penultimate or one before it, as it is.

    Raises RecipeError for a layer that the model doesn't have.
    """
    most = len(found.layers) - 1
    if skip is not None and not 1 <= skip <= most:
        raise RecipeError("clip_skip", f"{skip} is none of this base's: its text encoder has {most} layers, and 1 is the last of them. "
                                       f"Choose 1 to {most}.")  # fmt: skip
    if wide:
        return found.layers[-max(skip or 2, 2)]
    if skip in (None, 1):
        return found.last
    return getattr(model, "text_model", model).final_layer_norm(found.layers[-skip])
