"""VideoComposer gives each spatial condition a tiny encoder of its own; what they say is summed and laid beside the latents.

An STC encoder sees each frame with three convolutions, then lets every latent pixel look at itself in all other frames.
Style and frame rate come by other doors: style as one more text token, frame rate on top of the time embedding.

Source: damo-vilab/videocomposer @ 5c14d4f2, tools/videocomposer/unet_sd.py; paper arXiv:2306.02018, section 3.2.
Keys are the originals: `convs.N` is `X_embedding.N`, `after.*` is `X_embedding_after.*`, `StyleMLP` is `pre_image_condition`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Num
from torch import Tensor, nn

HEADS, HEAD_DIM = 2, 8
HIDDEN = 32  # channels of the convolutions at picture size
DROPOUT = 0.05  # in training, on the answers of attention and feed-forward


class STCEncoder(nn.Module):
    """One condition's video, at any size, becomes `dim` channels at latent size.

    `channels` of the condition: 1 for depth, sketches and canny, 2 for motion, 3 for an image, 4 for a masked video.
    `layers`: temporal layers (`adapter_transformer_layers` in the original's configs; the release has 1).
    """

    def __init__(self, channels: int, dim: int = 8, layers: int = 1) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            nn.Conv2d(channels, HIDDEN, 3, padding=1),
            nn.SiLU(),
            nn.Identity(),  # the pooling stands here in the original; its target is an argument of ours
            nn.Conv2d(HIDDEN, HIDDEN, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(HIDDEN, dim, 3, stride=2, padding=1),
        )
        self.after = _Temporal(dim, layers)

    def forward(self, video: Float[Tensor, "b c f height width"], size: tuple[int, int]) -> Float[Tensor, "b d f h w"]:
        """`video` in the units of its condition; `size` is (h, w) of the latents: (32, 32) for 256 pixels."""
        return self.after(self.look(video, size))

    def look(self, video: Float[Tensor, "b c f height width"], size: tuple[int, int]) -> Float[Tensor, "b d f h w"]:
        """The convolutions alone, frame by frame."""
        h, w = size
        x = self.convs[:2](video.transpose(1, 2).flatten(0, 1))
        x = F.adaptive_avg_pool2d(x, (4 * h, 4 * w))  # 128 x 128 in the original, whatever the latents are
        return self.convs[3:](x).unflatten(0, (len(video), -1)).transpose(1, 2)


class _Temporal(nn.Module):
    """Self-attention over frames at each pixel. No positions, no mask, and no norm before the feed-forward."""

    def __init__(self, dim: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.ModuleList([_Attention(dim), _FeedForward(dim)]) for _ in range(layers))

    def forward(self, x: Float[Tensor, "b d f h w"]) -> Float[Tensor, "b d f h w"]:
        b, _, _, h, w = x.shape
        z = x.permute(0, 3, 4, 2, 1).flatten(0, 2)  # (b h w) f d
        for layer in self.layers:
            for part in layer:  # type: ignore[attr-defined]
                z = z + part(z)
        return z.unflatten(0, (b, h, w)).permute(0, 4, 3, 1, 2)


class _Attention(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        inner = HEADS * HEAD_DIM
        self.norm = nn.LayerNorm(dim)
        out = nn.Sequential(nn.Linear(inner, dim), nn.Dropout(DROPOUT))
        self.fn = nn.ModuleDict({"to_qkv": nn.Linear(dim, 3 * inner, bias=False), "to_out": out})

    def forward(self, z: Float[Tensor, "n f d"]) -> Float[Tensor, "n f d"]:
        qkv = self.fn["to_qkv"](self.norm(z)).unflatten(-1, (3, HEADS, HEAD_DIM))  # n f 3 heads d
        answer = F.scaled_dot_product_attention(*qkv.permute(2, 0, 3, 1, 4))
        return self.fn["to_out"](answer.transpose(1, 2).flatten(2))


class _FeedForward(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        widen = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU())
        self.net = nn.Sequential(widen, nn.Dropout(DROPOUT), nn.Linear(4 * dim, dim))

    def forward(self, z: Float[Tensor, "n f d"]) -> Float[Tensor, "n f d"]:
        return self.net(z)


class StyleMLP(nn.Sequential):
    """A pooled CLIP image embedding (b 1 width), not normalised, becomes one context token that follows the text's.

    Its silent side in the release is this network's answer to zeros, not the absence of the token.
    """

    def __init__(self, width: int = 1024) -> None:
        super().__init__(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))


class FpsEmbedding(nn.Sequential):
    """Frames per second, one number for each sample, to be added to the time embedding.

    `dim` of the sinusoid is the network's first width, `width` four times that. Configured but without weights in the
    released VideoComposer; the last layer begins at zero.
    """

    def __init__(self, dim: int, width: int) -> None:
        last = nn.Linear(width, width)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        super().__init__(nn.Linear(dim, width), nn.SiLU(), last)
        self.dim = dim

    def forward(self, fps: Num[Tensor, " b"]) -> Float[Tensor, "b width"]:
        from diffusers.models.embeddings import get_timestep_embedding

        waves = get_timestep_embedding(fps, self.dim, flip_sin_to_cos=True, downscale_freq_shift=0)
        return super().forward(waves.to(next(self.parameters()).dtype))


@dataclass(frozen=True, eq=False)
class Composer:
    """What a VideoComposer has beside its UNet: an encoder for each spatial condition, and the network of its style."""

    stc: nn.ModuleDict
    """Condition -> STCEncoder."""
    style: StyleMLP | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The conditions that have an encoder."""
        return tuple(self.stc)

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        return (self.stc,) if self.style is None else (self.stc, self.style)

    def to(self, device: torch.device | str, dtype: torch.dtype) -> Composer:
        """The same networks, moved."""
        for module in self.modules:
            module.to(device=device, dtype=dtype)
        return self
