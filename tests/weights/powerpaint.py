"""PowerPaint on the disk, in every layout of its releases, and a small picture painted with it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import disk
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import tiny
from infuse import BrushNet, PowerPaint, Recipe
from infuse.engine.engine import Engine
from infuse.engine.model_store import ModelStore

State = dict[str, Tensor]
TABLE = "text_model.embeddings.token_embedding."
HOLE: Any = np.zeros((32, 32), np.uint8)
HOLE[6:26, 8:25] = 255
PICTURE: Any = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
LENT = "runwayml/stable-diffusion-inpainting"


# ── writing ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def wrapped(texts: Any, **more: Tensor) -> State:
    """The task encoder as the releases hold it: transformers 4 names, learned vectors beside the table."""
    state = {f"text_model.{k.removeprefix('text_model.')}": t for k, t in texts.model.state_dict().items()}
    table = state.pop(f"{TABLE}weight")
    state |= {f"{TABLE}wrapped.weight": table[:-30], "text_model.embeddings.position_ids": torch.arange(77)[None]}
    for n, name in enumerate(("P_ctxt", "P_shape", "P_obj")):
        state[f"{TABLE}trainable_embeddings.{name}"] = table[len(table) - 30 + 10 * n :][:10]
    return {k: t.clone() for k, t in (state | more).items()}


def stored(branch: Any) -> State:
    """A BrushNet as the releases hold it."""
    names = {k: k.removeprefix("network.") for k in branch.state_dict()}
    names |= {f"network.conv_in.{end}": f"conv_in_condition.{end}" for end in ("weight", "bias")}
    return {names[k]: t.clone() for k, t in branch.state_dict().items()}


def write(path: Path, state: Mapping[str, Tensor]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        save_file(dict(state), path)
    else:
        torch.save(dict(state), path)
    return path


def said(folder: Path, **content: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ("model_index.json" if "infuse_base" in content else "config.json")).write_text(json.dumps(content))


def below(folder: Path, channels: int = 9) -> Path:
    """The pipeline that a release leaves VAE, tokenizer and configs to. Its UNet and text encoder are other ones."""
    disk.base(folder, in_channels=channels, image_encoder=False)
    for part in ("unet", "text_encoder"):
        (weights,) = (folder / part).glob("*.safetensors")
        write(weights, {k: t * 0.5 for k, t in load_file(weights).items()})
    return folder


def v1(folder: Path, unet: str = "unet.safetensors", texts: str = "text_encoder.safetensors") -> Path:
    parts = tiny.powerpaint1()
    write(folder / "unet" / unet, parts.parts["unet"].state_dict())
    write(folder / "text_encoder" / texts, wrapped(parts.base.tasks))
    return folder


def v2(folder: Path, branch: Any, **more: Tensor) -> Path:
    """A whole release of PowerPaint 2, its base inside."""
    inside = folder / "PowerPaint_Brushnet"
    write(inside / "diffusion_pytorch_model.safetensors", stored(branch))
    write(inside / "pytorch_model.bin", wrapped(branch.tasks, **more))
    disk.base(folder / "realistic", image_encoder=False)
    return folder


def dev2(folder: Path, branch: Any) -> Path:
    write(folder / "brushnet" / "diffusion_pytorch_model.safetensors", stored(branch))
    said(folder / "brushnet", _class_name="BrushNetModel", conditioning_channels=5, attention_head_dim=8)
    branch.tasks.model.save_pretrained(folder / "text_encoder")
    added(folder / "tokenizer")
    return folder


def added(folder: Path, several: bool = False) -> None:
    """The tokenizer as the dev trainer leaves it, with thirty words more: as transformers 5 saves it, or as 4 did."""
    from infuse.weights.tokenizer import clip_tokenizer, vocabulary

    words = [f"P_{x}{'' if n == 0 else f'_{n}'}" for x in ("obj", "ctxt", "shape") for n in range(10)]
    own = clip_tokenizer()
    own.add_tokens(words)
    own.save_pretrained(folder)
    if several:
        (folder / "tokenizer.json").unlink()
        vocab, merges = vocabulary()
        (folder / "vocab.json").write_text(json.dumps(vocab))
        (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
        (folder / "added_tokens.json").write_text(json.dumps({word: 49408 + n for n, word in enumerate(words)}))


def branched(generation: str | None, seed: int = 30, **more: Any) -> Any:
    """A BrushNet whose task encoder is not the base's."""
    net = tiny.brushnet(seed=seed, generation=generation, **more)
    for p in net.tasks.model.parameters() if net.tasks else ():
        p.data = p.data * 1.1 + 0.01
    return net


# ── painting ────────────────────────────────────────────────────────────────────────────────────────────────────────


def paint(**fields: Any) -> PowerPaint:
    return PowerPaint(**{"image": PICTURE, "mask": HOLE, "task": "shape", "fit": 0.6, "paste": False, **fields})


def painted(engine: Engine, model: str | Path, condition: PowerPaint | BrushNet) -> Tensor:
    recipe = Recipe(
        model=str(model), prompt="a red cube", negative_prompt="dull", steps=2, guidance=4.0, seed=5, scheduler="DDIM",
        conditions=(condition,),
    )  # fmt: skip
    return engine.run(recipe).latents


def on_disk() -> Engine:
    return Engine(store=ModelStore(dtype=torch.float32, device="cpu"))


def same(got: Tensor, want: Tensor) -> None:
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


def memory1(generation: str = "v1") -> Tensor:
    return painted(tiny.engine(tiny.powerpaint1(generation)), "tiny", paint())


def memory2(branch: Any, condition: PowerPaint | BrushNet | None = None) -> Tensor:
    return painted(tiny.engine(tiny.base("sd1"), {"b": branch}), "tiny", condition or paint(model="b"))
