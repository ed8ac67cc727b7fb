"""A video network answers clips: diffusers' UNet3DConditionModel, with every port that pictures have.

Text, adapters and branch networks see a clip frame by frame; only the network's own temporal layers see it as a whole.
Source: ModelScope's text-to-video network (Wang et al. 2023) as in diffusers; VideoComposer adds input channels to it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from infuse.errors import InfuseError
from infuse.network.edits import telling
from infuse.network.spec import NetworkSpec
from infuse.network.unet import Network, speaking
from infuse.network.walk import Plain, Stroll, head, walk
from infuse.spoken import Batch
from infuse.unroll import unrolled

HEADS = "_infuse_heads"
"""In a config.json: heads of the spatial attentions, level by level. diffusers keeps what begins with _, and ignores it."""


class VideoNetwork(Network):
    """One UNet3DConditionModel and what it answers to rows of clips (c f h w)."""

    def __init__(self, unet: nn.Module, spec: NetworkSpec) -> None:
        super().__init__(unet, spec)
        if heads := getattr(unet, "config", {}).get(HEADS):
            with_heads(unet, heads)

    def compute(self, batch: Batch) -> Float[Tensor, "b c f h w"]:
        """What the base model answers, one call of the UNet."""
        frames = unrolled(batch)
        if any(speaking(batch, place) for place in ("inside", "lockstep")) or batch.shared:
            raise InfuseError(
                "", "a condition speaks inside of a picture network's blocks; a video network has others."
            )
        skips = self.answers(frames, speaking(frames, "skips"))
        x = batch.x if batch.channels is None else torch.cat([batch.x, batch.channels], dim=1)
        with adding(self.unet, frames.features or ()), telling(self.edits(batch)):
            return self.unet(
                x,
                batch.timestep,
                encoder_hidden_states=batch.context.values,
                cross_attention_kwargs=self.heard(frames).kwargs,
                down_block_additional_residuals=tuple(skips[:-1]) if skips else None,
                mid_block_additional_residual=skips[-1] if skips else None,
                return_dict=False,
            )[0]

    def stills(self, batch: Batch) -> Float[Tensor, "b c f h w"]:
        """What the picture network inside of it answers to each frame by itself: no temporal layer is asked.

        This is how a video network learns from pictures (VideoComposer multiplies its temporal residuals by 0 there).
        """
        assert not batch.residuals, "branches are not trained on stills"
        frames, f = unrolled(batch), batch.x.shape[2]
        x = batch.x if batch.channels is None else torch.cat([batch.x, batch.channels], dim=1)
        words = frames.context.values.repeat_interleave(f, 0)
        heard = self.heard(frames).kwargs
        pictures = _Pictures(self.unet)
        self.calls += 1
        h = walk(pictures, x.transpose(1, 2).flatten(0, 1), frames.timestep, Plain(words, heard), Stroll())
        return head(pictures, h).unflatten(0, (-1, f)).transpose(1, 2)


@contextmanager
def adding(unet: Any, features: Sequence[Float[Tensor, "b*f c h w"]]) -> Iterator[None]:
    """A T2I-Adapter's features during one call, where `walk` adds them in a picture network.

    diffusers' video blocks have no argument for them, so the modules in front of those places are listened to.
    """

    def after(more: Tensor) -> Callable[..., Any]:
        return lambda _module, _args, out: (out[0] + more, *out[1:]) if isinstance(out, tuple) else out + more

    ends = [
        block.temp_attentions[-1]
        if getattr(block, "attentions", None)
        else (block.downsamplers or block.temp_convs)[-1]
        for block in unet.down_blocks
    ]
    handles = [m.register_forward_hook(after(f)) for m, f in zip([*ends, unet.mid_block], features, strict=False)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Pictures:
    """A video network as `walk` knows picture networks: it visits resnets and spatial attentions, which have the same names."""

    def __init__(self, unet: Any) -> None:
        self.unet = unet

    def __getattr__(self, name: str) -> Any:
        return getattr(self.unet, name)

    def get_time_embed(self, sample: Tensor, timestep: Tensor) -> Tensor:
        return self.unet.time_proj(timestep).to(next(self.unet.parameters()).dtype)

    def get_aug_embed(self, **_: Any) -> None:
        return None

    def get_class_embed(self, **_: Any) -> None:
        return None


SPATIAL = re.compile(r"(down|mid|up)_block(?:s\.(\d+))?\.attentions\.\d+\.transformer_blocks\.\d+\.attn[12]")


def with_heads(unet: Any, heads_per_level: Sequence[int]) -> Any:
    """The same network with that many heads in the spatial attentions of each level, the outermost first.

    diffusers' UNet3DConditionModel has one width of a head for all levels, picture networks (SD 1.x) may have one number
    of heads instead. The config says it from then on; `VideoNetwork` does it again for what is loaded.
    """
    for path, attention in unet.named_modules():
        if m := SPATIAL.fullmatch(path):
            level = -1 if m[1] == "mid" else int(m[2]) if m[1] == "down" else -1 - int(m[2])
            attention.heads = attention.sliceable_head_dim = heads_per_level[level]
            attention.scale = (attention.inner_dim // attention.heads) ** -0.5
    unet.register_to_config(**{HEADS: list(heads_per_level)})
    return unet
