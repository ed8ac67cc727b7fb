"""ControlNet-XS: a narrow encoder that runs in lockstep with the base's own, and hears it as it is heard.

Before each piece of the base's encoder the two exchange features, so nothing can be answered beforehand: the base is
walked, and this visitor walks beside it. Its features at the skips are heard once more in the decoder.
Source: ControlNet-XS (Zavadski et al. 2023); the modules are those of diffusers' ControlNetXSAdapter (v0.42.1).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.controlnets.controlnet_xs import ControlNetXSAdapter
from jaxtyping import Float
from torch import Tensor

from infuse.network.attention import Heard
from infuse.spoken import Spoken


class XS(ControlNetXSAdapter):
    """diffusers' adapter, which by itself has no way to be asked."""

    place = "lockstep"

    def begin(
        self,
        x: Float[Tensor, "k 4 h w"],
        t: Float[Tensor, " k"],
        emb: Float[Tensor, "k e"],
        hints: Float[Tensor, "k c height width"],
        context: Spoken,
        weights: Float[Tensor, " k"] | Float[Tensor, "k sites"],
        masks: Sequence[Tensor | None] = (),
    ) -> Beside:
        """Who walks beside the base for these rows, in one evaluation.

        emb: the base's embedding of them, complete. weights: how loud each row is (of one number per site, the first
        counts: this network has one scale). masks: where, (height width) each. Source: diffusers' UNetControlNetXSModel.
        """
        if self.config["conditioning_channel_order"] == "bgr":
            hints = hints.flip(1)
        loud = weights[:, 0] if weights.ndim == 2 else weights
        return Beside(self, x, t, emb, hints, context, loud, masks)


class Beside:
    """One walk: a `walk.Visitor`. What it answers at a site is added to the base's features there."""

    def __init__(
        self, net: XS, x: Tensor, t: Tensor, emb: Tensor, hints: Tensor, context: Spoken, loud: Tensor,
        masks: Sequence[Tensor | None],
    ) -> None:  # fmt: skip
        self.net: Any = net
        self.t, self.emb, self.loud, self.masks = t, emb, loud, masks
        self.said = {"encoder_hidden_states": context.values, "cross_attention_kwargs": Heard(context).kwargs}
        self.own: Tensor = net.conv_in(x) + net.controlnet_cond_embedding(hints)  # type: ignore[operator]
        self.skips = [self.own]
        self.before: Tensor = x
        self.pieces = self._pieces()

    def embedding(self, time: Float[Tensor, "k e"], emb: Float[Tensor, "k e"]) -> Float[Tensor, "k e"] | None:
        """What a learned embedding of the timestep adds to the one that both networks hear."""
        if self.net.time_embedding is None:
            return None
        part = self.net.config["time_embedding_mix"] ** 0.3
        waves = sinusoids(self.t, self.net.time_embedding.linear_1.in_features).to(time.dtype)
        more = (self.net.time_embedding(waves) - time) * part
        self.emb = emb + more
        return more

    def first(self, h: Float[Tensor, "k c h w"]) -> Float[Tensor, "k c h w"]:
        """After the base's first convolution."""
        return self._heard(self.net.control_to_base_for_conv_in, self.own)

    def __call__(
        self, h: Float[Tensor, "k c h w"], before: Float[Tensor, "k c h w"]
    ) -> Float[Tensor, "k c h w"] | None:
        """After each layer and each change of scale of the base."""
        self.before = before
        return next(self.pieces)

    def _pieces(self) -> Iterator[Tensor | None]:
        """What is added after each piece of the base. It reads what entered that piece (`before`), and runs beside it."""
        net = self.net
        for block in net.down_blocks:
            pieces = [*zip(block.resnets, block.attentions or [None] * len(block.resnets), strict=True)]
            pieces += [(block.downsamplers, None)] if block.downsamplers is not None else []
            for (module, attention), out, back in zip(pieces, block.base_to_ctrl, block.ctrl_to_base, strict=True):
                self.own = self._piece(module, attention, torch.cat([self.own, out(self.before)], 1))
                self.skips.append(self.own)
                yield self._heard(back, self.own)
        own = torch.cat([self.own, net.mid_block.base_to_ctrl(self.before)], 1)
        said = self._heard(net.mid_block.ctrl_to_base, net.mid_block.midblock(own, self.emb, **self.said))
        for i, block in enumerate(
            net.up_connections
        ):  # each layer of the decoder hears the skip that it takes, before it runs
            if i:
                yield None  # a level's last layer: the next level's first comes after the upsampler
            for back in block.ctrl_to_base:
                heard = self._heard(back, self.skips.pop())
                yield heard if said is None else said + heard
                said = None
        yield None

    def _piece(self, module: Any, attention: Any, own: Tensor) -> Tensor:
        own = module(own, self.emb) if hasattr(module, "time_emb_proj") else module(own)
        return own if attention is None else attention(own, return_dict=False, **self.said)[0]

    def _heard(self, conv: Any, own: Tensor) -> Tensor:
        """What the base hears of the own features: as loud, and there, as each row says."""
        said = conv(own) * self.loud[:, None, None, None].to(own)
        if all(m is None for m in self.masks):
            return said
        size = (int(said.shape[-2]), int(said.shape[-1]))
        ones = said.new_ones(1, *size)
        where = [ones if m is None else F.interpolate(m[None, None].to(said), size=size, mode="bilinear")[0] for m in self.masks]  # fmt: skip
        return said * torch.stack(where)


def sinusoids(t: Float[Tensor, " k"], width: int) -> Float[Tensor, "k width"]:
    """The timestep as the base's own embedding is shown it (cosines first)."""
    from diffusers.models.embeddings import get_timestep_embedding

    return get_timestep_embedding(t, width, flip_sin_to_cos=True, downscale_freq_shift=0)
