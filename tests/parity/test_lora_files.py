"""Four layouts of LoRAs on three families: what infuse reads is what stock diffusers merges into its pipelines.

diffusers gives all attentions of a kohya file the commonest alpha (its names of alphas do not match those of its layers), so
alphas are alike where it is asked; the right mixed numbers have a test of their own.
"""

from __future__ import annotations

import copy
import re
import warnings
from pathlib import Path
from typing import Any

import diffusers
import lora_files
import pytest
import torch
from some import some
from torch import Tensor

import tiny
from infuse.network.lora import LoraNetwork
from infuse.weights.layouts.lora import build

FAMILIES = ("sd1", "sd2", "sdxl")
LAYOUTS = ("kohya", "kohya, original names", "peft", "middle-aged", "oldest")
Weights = dict[tuple[str, str], Tensor]


def texts(made: tiny.Tiny) -> dict[str, Any]:
    return {p: made.parts[p] for p in ("text_encoder", "text_encoder_2") if p in made.parts}


def pipeline(made: tiny.Tiny) -> Any:
    parts = {k: copy.deepcopy(v) for k, v in made.parts.items() if k not in ("image_encoder", "feature_extractor")}
    parts["scheduler"] = diffusers.DDIMScheduler.from_config(tiny.SCHEDULE)
    if made.family == "sdxl":
        return diffusers.StableDiffusionXLPipeline(**parts, add_watermarker=False)
    return diffusers.StableDiffusionPipeline(
        **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )


def weights(nets: dict[str, Any]) -> Weights:
    """Every weight by part and path, whether or not diffusers has wrapped its module."""
    found: Weights = {}
    for part, net in nets.items():
        for path, module in net.named_modules():
            if isinstance(weight := getattr(module, "weight", None), Tensor) and ".lora_" not in path:
                found[part, path.removesuffix(".base_layer")] = weight.detach().clone()
    return found


def fused(made: tiny.Tiny, states: list[dict[str, Tensor]], scales: list[float]) -> Weights:
    """What stock diffusers adds to each weight."""
    pipe = pipeline(made)
    parts = ["unet", *texts(made)]
    before = weights({p: getattr(pipe, p) for p in parts})
    names = [f"n{i}" for i in range(len(states))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own, of pipelines without an offload hook
        for name, state in zip(names, states, strict=True):
            pipe.load_lora_weights({k: t.clone() for k, t in state.items()}, adapter_name=name)
        pipe.set_adapters(names, scales)
        pipe.fuse_lora(components=parts, adapter_names=names)
    after = weights({p: getattr(pipe, p) for p in parts})
    assert before.keys() == after.keys()
    return {at: after[at] - before[at] for at in before}


def ours(made: tiny.Tiny, state: dict[str, Tensor], folder: Path) -> LoraNetwork:
    path = lora_files.save(folder / "lora.safetensors", state)
    return build(str(path), made.base.network.unet, made.base.texts.models, torch.float32)  # type: ignore[arg-type]


def deltas(made: tiny.Tiny, network: LoraNetwork, strength: float = 1.0) -> Weights:
    nets = {"unet": made.base.network.unet, **texts(made)}
    found: Weights = {}
    for part, net in nets.items():
        modules = dict(net.named_modules())
        for path in network.paths(part):
            change = network.change(part, path)
            assert change is not None
            found[part, path] = change.delta(modules[path], strength)
    return found


def written(layout: str, made: tiny.Tiny, seed: int = 0) -> dict[str, Tensor]:
    unet = made.parts["unet"]
    pattern = lora_files.ATTENDED if layout == "oldest" else lora_files.LINEAR
    if "kohya" in layout:  # resnets, too
        pattern = re.compile(f"{pattern.pattern}|{lora_files.RESNETS.pattern}")
    lows = lora_files.changes(
        unet, list(texts(made).values()), alphas=(2.0,) if "kohya" in layout else (4.0,), pattern=pattern, seed=seed
    )
    if "kohya" in layout:
        names = lora_files.originals(unet) if "original" in layout else None
        return lora_files.kohya(lows, made.family == "sdxl", names)
    return {"peft": lora_files.peft, "middle-aged": lora_files.middle_aged, "oldest": lora_files.oldest}[layout](lows)


CASES = [
    (f, x) for f in FAMILIES for x in LAYOUTS if f == "sdxl" or "original" not in x
]  # diffusers knows these for SDXL alone


@pytest.mark.parametrize(
    ("family", "layout"),
    some(CASES, quick=[("sd1", "kohya"), ("sd2", "peft"), ("sdxl", "kohya, original names"), ("sd1", "middle-aged")]),
)
def test_a_layout_changes_what_it_changes_in_diffusers(family: str, layout: str, tmp_path: Path) -> None:
    made = tiny.base(family)
    state = written(layout, made)
    theirs, network = fused(made, [state], [1.0]), ours(made, state, tmp_path)
    found = deltas(made, network)
    changed = {at for at, d in theirs.items() if d.abs().max() > 1e-6}
    assert changed == found.keys() and {part for part, _ in changed} == {"unet", *texts(made)}
    for at in changed:
        torch.testing.assert_close(found[at], theirs[at], atol=1e-5, rtol=0)
