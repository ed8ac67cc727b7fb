"""ComfyUI writes the graph it ran. So follow it: from what was saved back to the sampler, and from there to the words, the
size and the files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from infuse.foreign.said import Network, Said, mapping, real

SAMPLERS = ("KSampler", "KSamplerAdvanced", "SamplerCustom", "SamplerCustomAdvanced", "KSampler (Efficient)")
SAVERS = ("SaveImage", "PreviewImage", "SaveAnimatedWEBP", "SaveAnimatedPNG", "VHS_VideoCombine", "SaveImageWebsocket")
EMPTY = ("EmptyLatentImage", "EmptySD3LatentImage", "EmptyLatentImagePresets")
WORDS = re.compile(r"(?<!\\)[\[\]]")
WEIGHED = re.compile(r"(?<!\\)\(")
DEEPEST = 200
"""Nodes between two ends of a graph."""
PLAIN = (
    "value",
    "int",
    "float",
    "seed",
    "noise_seed",
    "text",
    "string",
    "number",
    "Number",
    "Value",
    "String",
    "prompt",
)
"""How nodes call a value of their own that they hand on."""
ONWARD = ("samples", "latent_image", "latent", "images", "image", "pixels", "model", "clip", "conditioning", "conditioning_1",
          "conditioning_to", "positive", "negative", "any_input", "anything", "source", "input", "value")  # fmt: skip


def is_graph(data: Any) -> bool:
    """Is it the graph of nodes that ComfyUI runs (its API form)?"""
    return isinstance(data, dict) and any("class_type" in mapping(node) for node in data.values())


def read(data: Mapping[str, Any]) -> Said:
    """What a graph says of its picture: of the first of its samplers, the one that begins; others are named as left out."""
    graph = Graph({str(k): v for k, v in data.items() if isinstance(v, dict)})
    said = Said("ComfyUI")
    row = graph.samplers()
    if not row:
        said.notes.append("no sampler was found in its graph, so that nothing of it can be meant")
        return said
    graph.sampler(row[0], said)
    said.vae = graph.decoder()
    for other in row[1:]:
        steps, denoise = graph.value(other, "steps"), graph.value(other, "denoise")
        told = ", ".join(f"{n} {v}" for n, v in (("steps", steps), ("denoise", denoise)) if v is not None)
        said.notes.append(
            f"a second sampler ({told or 'of its own settings'}) worked on the first one's picture and was left out"
        )
    return said


class Graph:
    """Nodes by their number; links are [number, slot]."""

    def __init__(self, nodes: Mapping[str, Any]) -> None:
        self.nodes = nodes

    def kind(self, node: str) -> str:
        return str(mapping(self.nodes.get(node)).get("class_type", ""))

    def inputs(self, node: str) -> Mapping[str, Any]:
        return mapping(mapping(self.nodes.get(node)).get("inputs"))

    def link(self, node: str | None, name: str) -> tuple[str, int] | None:
        """(node, slot) that an input comes from."""
        found = self.inputs(node).get(name) if node is not None else None
        if isinstance(found, list) and len(found) == 2 and str(found[0]) in self.nodes:
            return str(found[0]), found[1] if isinstance(found[1], int) else 0
        return None

    def source(self, node: str | None, name: str) -> str | None:
        return found[0] if (found := self.link(node, name)) else None

    def value(self, node: str | None, *names: str) -> Any:
        """The first of these inputs that has a value: written there, or handed on by nodes that only hold one."""
        for name in names:
            here, wanted = node, name
            for _ in range(DEEPEST):
                found = self.inputs(here).get(wanted) if here is not None else None
                if not isinstance(found, list):
                    if found is not None:
                        return found
                    break
                here = self.source(here, wanted)
                wanted = next((p for p in PLAIN if p in self.inputs(here)), "") if here is not None else ""
        return None

    def back(self, node: str | None, name: str) -> Iterator[str]:
        """Nodes from an input backwards, along whatever is handed on."""
        here, seen = self.source(node, name), set[str]()
        while here is not None and here not in seen and len(seen) < DEEPEST:
            seen.add(here)
            yield here
            here = next((s for n in (name, *ONWARD) if (s := self.source(here, n)) is not None), None)

    def samplers(self) -> list[str]:
        """The samplers behind what was saved, first to last; without a saver, behind the last sampler of all."""
        ends = [n for n in self.nodes if self.kind(n) in SAVERS] or [n for n in self.nodes if self.kind(n) in SAMPLERS][
            -1:
        ]
        for end in ends:
            found = [end] if self.kind(end) in SAMPLERS else []
            for first in ("images", "image", "latent_image", "samples"):
                found += [n for n in self.back(end, first) if self.kind(n) in SAMPLERS and n not in found]
            if found:
                return found[::-1]
        return [n for n in self.nodes if self.kind(n) in SAMPLERS][:1]

    def decoder(self) -> Any:
        """The file of the VAE that decodes, if it is none of the model's own."""
        loaders = (self.source(n, "vae") for n in self.nodes if self.kind(n).startswith("VAEDecode"))
        return next((name for loader in loaders if (name := self.value(loader, "vae_name"))), None)

    def sampler(self, node: str, said: Said) -> None:
        guider = self.source(node, "guider")
        asks = guider or node  # who has the words and the model
        sigmas, chosen = self.source(node, "sigmas"), self.source(node, "sampler")
        said.seed = self.value(node, "seed", "noise_seed")
        if said.seed is None:
            said.seed = self.value(self.source(node, "noise"), "noise_seed", "seed")
        said.steps = self.value(node, "steps") or self.value(sigmas, "steps")
        said.guidance = self.value(asks, "cfg", "guidance")
        said.sampler = self.value(node, "sampler_name") or self.value(chosen, "sampler_name")
        said.schedule = self.value(node, "scheduler") or self.value(sigmas, "scheduler")
        if sigmas and not said.schedule:
            said.schedule = self.kind(sigmas).removesuffix("Scheduler").lower()
        positive = "positive" if "positive" in self.inputs(asks) else "conditioning"
        said.prompt = weighed(self.words(asks, positive, said), said)
        said.negative_prompt = weighed(self.words(asks, "negative", said), said)
        self.files(asks, said)
        self.start(node, self.value(node, "denoise") or self.value(sigmas, "denoise"), said)
        for name, usual in (("start_at_step", 0), ("end_at_step", 10_000)):
            cut = real(self.value(node, name))
            if cut is not None and (
                cut > 0 if usual == 0 else said.steps is not None and cut < (real(said.steps) or 0)
            ):
                said.left[name] = cut

    def words(self, node: str | None, name: str, said: Said) -> str:
        """All texts behind a conditioning, joined by commas; other nodes on the way are named."""
        texts: list[str] = []
        left, seen = [self.link(node, name)], set[str]()
        while left and len(seen) < DEEPEST:
            found = left.pop(0)
            if found is None or found[0] in seen:
                continue
            here, slot = found
            seen.add(here)
            kind = self.kind(here)
            if kind == "ConditioningZeroOut":
                continue
            text = self.value(here, "text", "text_g", "text_l", "prompt")
            if isinstance(text, str):
                texts.append(text)
                layer = real(
                    next(
                        (v for n in self.back(here, "clip") if (v := self.value(n, "stop_at_clip_layer")) is not None),
                        None,
                    )
                )
                said.clip_skip = said.clip_skip or (layer and -layer)
                continue
            if "ControlNetApply" in kind:
                self.controlnet(here, said)
            elif kind:
                said.left.setdefault(kind, "a node between the words and the sampler")
            both = ("positive", "negative") if slot == 0 else ("negative", "positive")
            onward = [n for n in (both[0], "conditioning", "conditioning_1", "conditioning_2", "conditioning_to", "conditioning_from")
                      if self.link(here, n)]  # fmt: skip
            left += [self.link(here, n) for n in onward]
        if len(texts) > 1:
            said.notes.append(f"{len(texts)} texts of its {name} prompt were joined to one")
        return ", ".join(dict.fromkeys(texts))

    def controlnet(self, node: str, said: Said) -> None:
        model = self.value(self.source(node, "control_net"), "control_net_name") or "of an unknown name"
        said.left[f"ControlNet {model}"] = f"weight {self.value(node, 'strength')}; its picture is not inside"

    def files(self, node: str, said: Said) -> None:
        for here in self.back(node, "model"):
            kind = self.kind(here)
            name = self.value(here, "ckpt_name", "unet_name", "model_name")
            if "lora" in kind.lower() and (lora := self.value(here, "lora_name")):
                words = 0 if "ModelOnly" in kind else self.value(here, "strength_clip")
                said.loras.append(Network(str(lora), self.value(here, "strength_model", "strength"), words))
            elif kind == "RescaleCFG":
                said.guidance_rescale = self.value(here, "multiplier")
            elif name:
                said.model = name
                return
            elif kind:
                said.left.setdefault(kind, "a node between the model and the sampler")

    def start(self, node: str, denoise: Any, said: Said) -> None:
        """The size, or the picture that it starts from."""
        for here in self.back(node, "latent_image"):
            kind = self.kind(here)
            width, height = self.value(here, "width"), self.value(here, "height")
            if kind in EMPTY or "Empty" in kind and width:
                said.width, said.height = width, height
                return
            if kind.startswith("VAEEncode"):
                said.strength = 0.999 if denoise is None or real(denoise) == 1 else denoise
                if "Inpaint" in kind:
                    said.left["mask"] = "its hole is not inside"
                return
            if kind in SAMPLERS:
                return
            said.left.setdefault(kind, "a node between the start and the sampler")


def weighed(words: str, said: Said) -> str:
    """Its words in the webui's syntax: both weigh (a:1.2), but square brackets and AND are words there."""
    if (
        WEIGHED.search(words)
        and (text := "its weights of words are read as the webui's, which sound a little different") not in said.notes
    ):
        said.notes.append(text)
    return WORDS.sub(r"\\\g<0>", words)
