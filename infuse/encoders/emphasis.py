"""A weight multiplies what an encoder says at a token. The webui then scales the whole so that its mean stays what it was.

Source: lllyasviel/stable-diffusion-webui-forge@dfdcbab backend/text_processing/emphasis.py. There the mean is taken over every text
of a call; here a call has one, so that no text depends on those beside it.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def weighted(z: Float[Tensor, "b n d"], weights: Float[Tensor, "b n"], keep_mean: bool) -> Float[Tensor, "b n d"]:
    """`keep_mean`: over texts, tokens and channels; a mean of exactly 0 has no factor, and is left alone."""
    louder = z * weights[..., None].to(z)
    if not keep_mean:
        return louder
    exact = torch.promote_types(z.dtype, torch.float32)
    before, after = z.mean(dtype=exact), louder.mean(dtype=exact)
    return louder if after == 0 else louder * (before / after).to(z.dtype)
