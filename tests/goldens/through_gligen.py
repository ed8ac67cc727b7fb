"""GLIGEN's golden through infuse: its file, the tokens of its boxes, and its gated layers in a UNet that has none."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from diffusers.models.embeddings import get_fourier_embeds_from_boundingbox
from safetensors.torch import save_file
from torch import Tensor

from infuse.conditions.gligen import Box, Gligen
from infuse.network.gligen import Gligen as Network
from infuse.ports import Ports, Sides
from infuse.weights.layouts.gligen import load_gligen

from .golden import Golden
from .through import Outputs, network, predicted, said


class Spoken:
    """A kit for boxes alone: phrases are called by their place in the golden's features."""

    size = canvas = (64, 48)

    def __init__(self, adapter: Network, phrases: Tensor) -> None:
        self.adapter, self.phrases = adapter, phrases

    def gligen(self, model: str) -> Network:
        return self.adapter

    def phrase(self, text: str) -> Tensor:
        return self.phrases[int(text)]

    def vector(self, values: Any) -> Tensor:
        return torch.tensor(values)


def sides(adapter: Network, golden: Golden, row: int) -> Sides:
    """What the condition says of one sample's boxes."""
    used = int(golden["masks"][row].sum())
    boxes = tuple(Box(box=tuple(b), phrase=str(i)) for i, b in enumerate(golden["boxes"][row][:used].tolist()))
    return Gligen(model="golden", boxes=boxes).encode(Spoken(adapter, golden["phrase_embeddings"][row]))  # type: ignore[arg-type]


def weights(golden: Golden, prefix: str) -> dict[str, Tensor]:
    """Those of the rule, and those that lie in the golden itself: gates and null features."""
    front = f"stored.{prefix}"
    stored = {k.removeprefix(front): t for k, t in golden.tensors.items() if k.startswith(front)}
    return golden.weights(prefix) | stored


def gligen(golden: Golden) -> Outputs:
    config = {k: v for k, v in golden.config["unet"].items() if k != "attention_type"}
    whole = weights(golden, "unet.")
    net = network({k: t for k, t in whole.items() if "position_net" not in k and ".fuser." not in k}, config)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "anything.safetensors"
        save_file({k: t.contiguous() for k, t in whole.items()}, path)
        adapter = load_gligen(path, net.unet, torch.float32)
    each = [sides(adapter, golden, i) for i in range(2)]
    words = said(golden["context"])

    def eps(grounding: list[Ports]) -> Tensor:
        return predicted(net, golden, [w + g for w, g in zip(words, grounding, strict=True)])

    embedded = get_fourier_embeds_from_boundingbox(8, golden["boxes"])
    return {
        "grounding_tokens": torch.stack([s.on.decoupled[0].tokens[:3] for s in each]),  # type: ignore[misc]
        "box_embedding": embedded,
        "eps_grounded": eps([s.on for s in each]),
        "eps_null": eps([s.off for s in each]),
        "eps_fuser_off": eps([s.on.at(0.5, 0.0) for s in each]),
        "text_image_tokens": text_image(golden),
    }


def text_image(golden: Golden) -> Tensor:
    """(2 6 d): the tokens of three slots, phrases' and pictures'. Pictures come already among phrases."""
    net = Network("text_image", 32, 32, {})
    net.position_net.load_state_dict(weights(golden, "position_net_text_image."))
    net.projected = lambda embedding: embedding  # type: ignore[method-assign]
    out = []
    for i in range(2):
        phrases, pictures = (
            [f if m else None for f, m in zip(golden[f"{of}_embeddings"][i], golden[f"{mask}_masks"][i], strict=True)]
            for of, mask in (("phrase", "text"), ("image", "image"))
        )
        used = int(golden["masks"][i].sum())
        tokens = net.tokens(golden["boxes"][i][:used], phrases, pictures)
        out.append(torch.cat([tokens[:3], tokens[30:33]]))
    return torch.stack(out)


WAYS = {"gligen": gligen}
