"""Original checkpoints number the blocks of a UNet in one row, diffusers by level: which transformer block is which, in a base.

Files of adapters name blocks and projections of their base, and hold too little of it to tell how it is divided: the base
itself is asked. Names only; imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass

from infuse.network.spec import NetworkSpec


@dataclass(frozen=True)
class Block:
    """One transformer block of a base."""

    path: str
    """Its module path in diffusers: `down_blocks.1.attentions.0.transformer_blocks.0`."""
    width: int
    """Channels of its features."""
    level: int
    """How often the latent was halved before it."""


@dataclass(frozen=True)
class Projection:
    """What turns features, or text, into queries, keys or values."""

    attention: str
    """Module path of its attention."""
    name: str
    """to_q, to_k or to_v."""
    width: int
    """Channels that it reads."""
    level: int
    reads_text: bool
    """Is its input the text, which lies on no grid?"""


def transformer_blocks(net: NetworkSpec) -> dict[str, Block]:
    """Every transformer block of a base, by its name in diffusers and by its name in original checkpoints."""
    per = net.config.get("layers_per_block", 2)
    levels = len(net.widths)
    down = [per] * levels if isinstance(per, int) else list(per)
    up = [n + 1 for n in reversed(down)]
    found: dict[str, Block] = {}
    for attention, width in net.cross_layers:
        path = attention.removesuffix(".attn2")
        side, *rest = path.split(".")
        depth = rest[-1]
        if side == "mid_block":
            level, original = levels - 1, f"middle_block.1.transformer_blocks.{depth}"
        else:
            block, layer = int(rest[0]), int(rest[2])
            if side == "down_blocks":
                level, at, place = block, 1 + sum(down[:block]) + block + layer, "input_blocks"
            else:
                level, at, place = levels - 1 - block, sum(up[:block]) + layer, "output_blocks"
            original = f"{place}.{at}.1.transformer_blocks.{depth}"
        found[path] = found[original] = Block(path, width, level)
    return found


def projections(net: NetworkSpec) -> dict[str, Projection]:
    """Every projection of a base by its names with underscores: `input_blocks_4_1_transformer_blocks_0_attn1_to_q`."""
    found: dict[str, Projection] = {}
    for block, at in transformer_blocks(net).items():
        for attention in ("attn1", "attn2"):
            for name in ("to_q", "to_k", "to_v"):
                text = attention == "attn2" and name != "to_q"
                width = net.context_width if text else at.width
                key = f"{block}.{attention}.{name}".replace(".", "_")
                found[key] = Projection(f"{at.path}.{attention}", name, width, at.level, text)
    return found
