"""GLIGEN: boxes and what is in them become tokens, which gated layers read between self- and cross-attention.

x += tanh(a) SelfAttention([x | tokens]), of which the picture's places are kept; x += tanh(b) FeedForward(x). The base is frozen,
so that these layers are heard beside any base of its family. Source: Li et al. 2023 (GLIGEN), sec. 3; layers of diffusers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers.models.attention import GatedSelfAttentionDense
from diffusers.models.embeddings import GLIGENTextBoundingboxProjection
from jaxtyping import Float
from torch import Tensor, nn

SLOTS = 30
"""Boxes that the network was trained with; what is not used holds learned null features."""
NORM = 28.7
"""Length of a picture's feature, as in the original demo: about that of a phrase's."""


KINDS = {"text": "text-only", "text_image": "text-image"}
"""Kind of a file -> what diffusers calls its network of tokens."""


class Gligen(nn.Module):
    """`position_net` makes tokens, the fusers lie under the module paths of their transformer blocks.

    kind: text (a phrase for each box), or text_image (a phrase, a picture or both; two tokens for each box).
    """

    place = "fuser"

    def __init__(self, kind: str, feature: int, width: int, fusers: Mapping[str, tuple[int, int]],
                 image: bool = False) -> None:  # fmt: skip
        """`feature`: of a phrase. `width`: of a token. `fusers`: block's path -> (channels, heads). `image`: has it a projection
        of pictures into the space of phrases?"""
        super().__init__()
        self.kind = kind
        self.position_net = GLIGENTextBoundingboxProjection(feature, width, KINDS[kind])
        for path, (channels, heads) in fusers.items():
            plant(self, f"{path}.fuser", GatedSelfAttentionDense(channels, width, heads, channels // heads))
        if image:
            self.image_project = nn.Module()
            self.image_project.project = nn.Linear(feature, feature, bias=False)

    def tokens(
        self,
        boxes: Float[Tensor, "n 4"],
        phrases: Sequence[Float[Tensor, " e"] | None],
        pictures: Sequence[Float[Tensor, " e"] | None] = (),
    ) -> Float[Tensor, "m d"]:
        """One token for each of 30 slots, two in the kind text_image: phrases' first. Boxes are (x0, y0, x1, y1) in 0-1; without any,
        this is what the network hears on the silent side."""
        net = self.position_net
        like = net.null_position_feature
        masks, where = like.new_zeros(SLOTS), like.new_zeros(SLOTS, 4)
        masks[: len(boxes)] = 1
        where[: len(boxes)] = boxes.to(like)
        words, has_words = self._slots(phrases)
        if self.kind == "text":
            return net(where[None], masks[None], positive_embeddings=words[None])[0]
        seen, has_seen = self._slots([None if p is None else self.projected(p) for p in pictures])
        return net(
            where[None], masks[None], phrases_masks=has_words[None], image_masks=has_seen[None], phrases_embeddings=words[None],
            image_embeddings=seen[None],
        )[0]  # fmt: skip

    def _slots(self, features: Sequence[Tensor | None]) -> tuple[Float[Tensor, "30 e"], Float[Tensor, " 30"]]:
        """Features in their slots, and which slots have one."""
        like = self.position_net.null_position_feature
        values, masks = like.new_zeros(SLOTS, self.position_net.positive_len), like.new_zeros(SLOTS)
        for i, feature in enumerate(features):
            if feature is not None:
                values[i], masks[i] = feature.to(like), 1
        return values, masks

    def projected(self, embedding: Float[Tensor, " e"]) -> Float[Tensor, " e"]:
        """An image encoder's pooled embedding among the features of phrases."""
        said = self.image_project.project(embedding.to(self.image_project.project.weight))  # type: ignore[operator,union-attr]
        return NORM * said / said.norm()

    def fused(
        self, path: str, x: Float[Tensor, "k n c"], tokens: Float[Tensor, "k m d"], scale: Float[Tensor, " k"]
    ) -> Float[Tensor, "k n c"]:
        """What is added to the features of the transformer block at `path`; `scale` multiplies its gates."""
        layer: Any = self.get_submodule(f"{path}.fuser")
        loud = scale[:, None, None].to(x.dtype)
        joint = layer.norm1(torch.cat([x, layer.linear(tokens.to(x.dtype))], dim=1))
        y = loud * layer.alpha_attn.tanh() * layer.attn(joint)[:, : x.shape[1]]
        return y + loud * layer.alpha_dense.tanh() * layer.ff(layer.norm2(x + y))


def plant(root: nn.Module, path: str, module: nn.Module) -> None:
    """Put a module at a dotted path, so that its weights have the names that they have in their UNet."""
    *folders, last = path.split(".")
    for name in folders:
        if name not in root._modules:
            root.add_module(name, nn.Module())
        root = root._modules[name]  # type: ignore[assignment]
    root.add_module(last, module)
