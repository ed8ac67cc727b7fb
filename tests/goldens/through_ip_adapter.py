"""IP-Adapter's goldens through infuse: its files, the tokens that it makes of pictures, and their attention in the UNet."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import Any

import torch
from torch import Tensor, nn

from infuse.conditions.ip_adapter import IPAdapter
from infuse.encoders.ip_adapter import Adapter
from infuse.grids import on_grid
from infuse.media.pictures import Picture
from infuse.ports import Ports, Sides, Voice

from .golden import Golden
from .through import Outputs, heard, network, predicted, said


class Seen:
    """A kit for image prompts alone: pictures are called by their place in the golden's features."""

    def __init__(self, adapter: Adapter, states: Tensor, silence: Tensor | None) -> None:
        self.adapter, self.states, self.silence = adapter, states, silence

    def look(self, picture: Picture | None, folder: str | None, hidden: bool) -> Tensor:
        if picture is None:
            assert self.silence is not None
            return self.silence
        return self.states[tuple(int(i) for i in picture.source.split("."))]

    def module(self, model: str, build: Any) -> nn.Module:
        return self.adapter


def looked(
    adapter: Adapter,
    states: Tensor,
    names: Sequence[str],
    silence: Tensor | None = None,
    layers: tuple[float, ...] | None = None,
) -> Sides:
    """What the IP-Adapter condition says of these pictures."""
    silence = torch.zeros_like(states[0, 0]) if silence is None else silence
    return IPAdapter(image=tuple(Picture(n) for n in names), layers=layers).encode(Seen(adapter, states, silence))  # type: ignore[arg-type]


def ip_adapter(golden: Golden) -> Outputs:
    """One adapter at every scale, on both sides."""
    net = network(golden.weights("unet."), golden.config["unet"])
    adapter = Adapter.load(golden.weights(but="unet."))
    silence = golden["uncond_image_features"][0] if "in.uncond_image_features" in golden.tensors else None
    states = golden["image_features"][:, None]
    if silence is None:
        silence = torch.zeros_like(states[0, 0])
    sides = [looked(adapter, states, [f"{i}.0"], silence) for i in range(len(states))]
    tokens = [[d.tokens for d in p.decoupled] for p in (*(s.on for s in sides), sides[0].off)]
    found = {
        "image_tokens": torch.cat([torch.stack(t) for t in tokens[:-1]]),
        "uncond_image_tokens": torch.stack(tokens[-1]),
    }
    modules = [k.removeprefix("attn2.") for k in golden.outputs if k.startswith("attn2.")]
    for key in golden.outputs:
        if m := re.fullmatch(r"eps_(uncond_)?scale([\d.]+)", key):
            texts = said(golden["uncond_context" if m[1] else "context"])
            ports = [
                t + (s.off if m[1] else s.on).spoken(Voice(float(m[2]))) for t, s in zip(texts, sides, strict=True)
            ]
            found[key] = predicted(net, golden, ports)
    for path in modules:
        with heard(net.unet.get_submodule(path)) as calls:
            predicted(net, golden, [t + s.on for t, s in zip(said(golden["context"]), sides, strict=True)])
        found[f"attn2.{path}"] = calls[0][1]
    return found


def ip_adapter_multi(golden: Golden) -> Outputs:
    """Two adapters, two pictures, masks, a scale for each picture, one block alone."""
    config = golden.config
    net = network(golden.weights("unet."), config["unet"])
    adapters = [Adapter.load(golden.weights(f"adapter{i}.")) for i in range(2)]
    states = [golden["features0"], golden["features1"]]
    masks = [
        [m.repeat_interleave(8, 0).repeat_interleave(8, 1) for m in golden[f"masks{i}_latent"][0]] for i in range(2)
    ]
    texts = said(golden["context"])

    def says(
        a: int,
        sample: int,
        pictures: Sequence[int],
        weight: float,
        mask: Tensor | None = None,
        layers: tuple[float, ...] | None = None,
    ) -> Ports:
        silence = torch.zeros_like(states[a][0, 0])
        on = looked(adapters[a], states[a], [f"{sample}.{p}" for p in pictures], silence, layers).on
        return on.spoken(Voice(weight, mask=mask))

    def eps(speakers: Any) -> Tensor:
        return predicted(net, golden, [reduce(add, speakers(i), text) for i, text in enumerate(texts)])

    def masked(scales: Sequence[float], second: float, second_mask: Tensor) -> Tensor:
        return eps(
            lambda i: [
                *(says(0, i, [p], s, masks[0][p]) for p, s in enumerate(scales)),
                says(1, i, [0], second, second_mask),
            ]
        )

    first, second = config["scales"]
    both = range(states[0].shape[1])
    block = tuple(float(path.startswith(config["single_block"])) for path, _ in net.spec.cross_layers)
    grid = tuple(golden["x"].shape[-2:])
    tokens = torch.stack(
        [torch.stack([says(0, i, [p], 1.0).decoupled[0].tokens for p in both]) for i in range(len(texts))]
    )
    return {
        "eps_off": eps(lambda i: [says(0, i, both, 0.0), says(1, i, [0], 0.0)]),
        "eps_two": eps(lambda i: [says(0, i, both, first), says(1, i, [0], second)]),
        "eps_two_masked": masked([first] * len(both), second, masks[1][0]),
        "eps_two_masked_image_scales": masked(config["image_scales"], second, masks[1][0]),
        "eps_two_masked_second_unmasked": masked(config["image_scales"], second, torch.ones_like(masks[1][0])),
        "eps_single_block": eps(lambda i: [says(0, i, both, 1.0, layers=block)]),
        **{
            k: on_grid(masks[0][0], grid, int(m[1]))
            for k in golden.outputs
            if (m := re.fullmatch(r"mask0_queries(\d+)", k))
        },  # type: ignore[arg-type]
        "tokens0": tokens,
        "tokens0_average": tokens.mean(1),
        "tokens1": torch.stack([says(1, i, [0], 1.0).decoupled[0].tokens for i in range(len(texts))]),
    }


WAYS = {
    "ip_adapter_plain": ip_adapter,
    "ip_adapter_plus": ip_adapter,
    "ip_adapter_full": ip_adapter,
    "ip_adapter_multi": ip_adapter_multi,
}
