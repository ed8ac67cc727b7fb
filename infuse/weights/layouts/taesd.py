"""A TAESD decodes a latent in a few milliseconds: a stack of small convolutions, written in two layouts.

Source: madebyollin/taesd (`taesd.py`); as a network, diffusers' `AutoencoderTiny`. A file may hold both halves or the decoder
alone; how many blocks there are, its names say. It reads latents as the UNet sees them (scaled), and answers in -1..1.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from infuse.errors import WeightsError
from infuse.weights.kinds import wrong_kind
from infuse.weights.source import Source

if TYPE_CHECKING:
    import torch
    from torch import nn

HEADS = (("decoder.layers.", 0), ("taesd_decoder.", 1), ("decoder.", 1), ("", 1))
"""What stands before the number of a layer, and how many layers without weights the original has before its first."""
CHANNELS = 4


def names(keys: Iterable[str], prefix: str = "") -> dict[str, str]:
    """Key -> diffusers' name in its `DecoderTiny`; empty if there is no decoder."""
    own = [k for k in keys if k.startswith(prefix)]
    for head, before in HEADS:
        start = prefix + head
        found = {
            k: f"layers.{int(m[1]) - before}.{m[2]}"
            for k in own if k.startswith(start) and (m := re.fullmatch(r"(\d+)\.(.+)", k.removeprefix(start)))
        }  # fmt: skip
        if found:
            return found
    return {}


def blocks(found: Iterable[str]) -> tuple[int, ...]:
    """How many residual blocks stand before each of the decoder's convolutions but the first."""
    layers: dict[int, bool] = {}
    for name in found:
        _, at, rest = name.split(".", 2)
        layers[int(at)] = layers.get(int(at), False) or rest.startswith("conv.")
    counts, run = [], 0
    for is_block in [layers[i] for i in sorted(layers)][1:]:
        run += is_block
        if not is_block:
            counts.append(run)
            run = 0
    return tuple(counts)


def checked(source: Source) -> tuple[Mapping[str, str], tuple[int, ...]]:
    """(names, blocks) of a TAESD's decoder, from its header. Raises WeightsError for what is none."""
    identity = source.identity
    if identity.kind != "taesd" or identity.variant == "approximation":
        raise wrong_kind(source.field, identity, "taesd", name=source.name)
    found = names(source.header, identity.prefix)
    counts = blocks(found.values())
    if identity.variant == "encoder" or not counts:
        raise WeightsError(source.field, f'"{source.name}" holds the encoder of a TAESD alone. Choose the file of its decoder, or of both.')  # fmt: skip
    return found, counts


def factor(counts: tuple[int, ...]) -> int:
    """Pixels of a side for each place of the latent."""
    return 2 ** (len(counts) - 1)


def load(source: Source, dtype: torch.dtype) -> nn.Module:
    """The decoder, on the CPU: (b 4 h w) scaled latents to (b 3 height width) in -1..1."""
    from diffusers.models.autoencoders.vae import DecoderTiny

    from infuse.weights.build import assemble
    from infuse.weights.formats import read_all

    found, counts = checked(source)
    stored = read_all(source.weights)
    tensors = {name: stored[source.header.stored.get(key, key)] for key, name in found.items()}
    width = tensors["layers.0.weight"].shape[0]

    def make() -> Any:
        return DecoderTiny(CHANNELS, 3, counts, (width,) * len(counts), 2, "relu", "nearest")

    module = assemble(make, tensors, dtype, "cpu", f'the TAESD "{source.name}"', source.field)
    return module.requires_grad_(False)
