"""A video network answers clips: diffusers' UNet3DConditionModel, with every port that pictures have.

Text, adapters and branch networks see a clip frame by frame; only the network's own temporal layers see it as a whole.
Source: ModelScope's text-to-video network (Wang et al. 2023) as in diffusers; VideoComposer adds input channels to it.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from infuse.batch import Batch, unrolled
from infuse.errors import InfuseError
from infuse.network.unet import Network, inside


class VideoNetwork(Network):
    """One UNet3DConditionModel and what it answers to rows of clips (c f h w)."""

    def predict(self, batch: Batch) -> Float[Tensor, "b c f h w"]:
        """What the base model answers, one call of the UNet."""
        frames = unrolled(batch)
        if any(inside(s) for s in batch.residuals):
            raise InfuseError("", "a BrushNet speaks inside of a picture network's blocks; a video network has others.")
        skips = self.answers(frames, frames.residuals)
        x = batch.x if batch.channels is None else torch.cat([batch.x, batch.channels], dim=1)
        self.calls += 1
        return self.unet(
            x,
            batch.timestep,
            encoder_hidden_states=batch.context.values,
            cross_attention_kwargs={"context": frames.context, "decoupled": frames.decoupled},
            down_block_additional_residuals=tuple(skips[:-1]) if skips else None,
            mid_block_additional_residual=skips[-1] if skips else None,
            return_dict=False,
        )[0]
