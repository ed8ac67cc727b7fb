"""PowerPaint's goldens through infuse: task prompts, mask preparation, and the BrushNet branch inside of a UNet."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from infuse.batch import Row, collate
from infuse.conditions.powerpaint.condition import PowerPaint, PowerPaints, blanked
from infuse.conditions.powerpaint.words import Said, words
from infuse.encoders.generations import GENERATIONS, V1, V2
from infuse.encoders.kit import Base, Kit
from infuse.encoders.tasks import TaskTexts
from infuse.encoders.text import TextEncoders
from infuse.media.pictures import Picture
from infuse.network.branches import branch_answer
from infuse.ports import Ports, Residual, Tokens, Voice
from infuse.weights.build import assemble
from infuse.weights.layouts.powerpaint import brush_in, load_brushnet, text_model
from infuse.weights.source import Source

from .golden import Golden
from .through import Outputs, network

TASKS = {"text-guided": "text", "object-removal": "removal", "shape-guided": "shape", "image-outpainting": "outpaint"}


def tokenizer(config: Mapping[str, Any]) -> Any:
    vocab = {token: i for i, token in enumerate(config["vocabulary"])}
    merges = [tuple(m.split(" ")) for m in config["merges"]]
    return CLIPTokenizer(vocab=vocab, merges=merges, pad_token="<|endoftext|>", model_max_length=77)  # pyright: ignore[reportArgumentType]


def prompts(golden: Golden) -> Outputs:
    """Ids, blended states of both sides, and what the pictures become."""
    config = golden.config
    reader = tokenizer(config["tokenizer"])
    wrapped = golden.weights("text_encoder.")
    texts = {
        name: TaskTexts(
            text_model(wrapped, config["text_encoder"], torch.float32, "cpu", "the golden's text encoder", "model"),
            reader,
            GENERATIONS[name],
        )
        for name in ("v1", "v2")
    }
    plain = assemble(
        lambda: CLIPTextModel(CLIPTextConfig(**config["text_encoder"])), golden.weights("text_encoder_plain."),
        torch.float32, "cpu", "the golden's plain encoder", "model", outer="text_model.",
    )  # fmt: skip
    found: Outputs = {}
    for name, case in config["cases"].items():
        generation = GENERATIONS[case["generation"]]
        said = words(generation, TASKS[case["task"]], case["prompt"], case["negative"])  # type: ignore[arg-type]
        mine = texts[case["generation"]]
        sides = {"A": said.a, "B": said.b, "nA": said.not_a, "nB": said.not_b}
        for side, one in sides.items():
            found[f"{name}.ids_{side}"] = ids(mine.ids(*one), reader)
        rows = torch.stack([blend(mine, said.not_a, said.not_b, case["t"]), blend(mine, said.a, said.b, case["t"])])
        if not generation.branch:
            found[f"{name}.embeds"] = rows[:, : golden.outputs[f"{name}.embeds"].shape[1]]
            if name == "shape_055":
                found["two_images.embeds"] = rows.repeat_interleave(2, 0)[:, :4]
            continue
        found[f"{name}.brushnet_embeds"] = rows[:, : golden.outputs[f"{name}.brushnet_embeds"].shape[1]]
        base = TextEncoders([plain], [reader])
        for side, text in (("U", said.base), ("nU", said.not_base)):
            found[f"{name}.ids_{side}"] = ids(base.ids(str(text)), reader)
        both = torch.stack([base.tokens(str(said.not_base)), base.tokens(str(said.base))])
        found[f"{name}.unet_embeds"] = both[:, : golden.outputs[f"{name}.unet_embeds"].shape[1]]
    return found | masks(golden)


def ids(chunks: list[list[int]], reader: Any) -> Tensor:
    (one,) = chunks
    return torch.tensor([reader.bos_token_id, *one, reader.eos_token_id], dtype=torch.int32)


def blend(texts: TaskTexts, a: Said, b: Said, t: float) -> Tensor:
    """As the port does it, at a constant fitting degree."""
    return Tokens(texts.tokens(*a), other=texts.tokens(*b), share=t).at(0.0).values


class AsStock(Kit):
    """A hole of another size is scaled as diffusers scales it, and is where it is white by half; ours is where it is white at all."""

    def hole(self, picture: Picture, fit: Any = "stretch") -> Tensor:
        return (self.pixels(picture, 1, fit) >= 0.5).to(self.dtype)


def masks(golden: Golden) -> Outputs:
    found: Outputs = {}
    spec = type("Spec", (), {"vae_factor": 8})()
    net: Any = type("Net", (), {"dtype": torch.float32, "device": torch.device("cpu"), "spec": spec})()
    for name, case in golden.config["mask_cases"].items():
        height, width = case["target_size"]
        kit = AsStock(Base("golden", net, None, TextEncoders((), ()), {}), (width, height), None)
        image = Picture.of(golden[f"{name}.image_u8"].numpy())
        mask = Picture.of(golden[f"{name}.mask_u8"].numpy())
        joined = PowerPaints(
            regions=(PowerPaint(image=image, mask=mask),), places=("",), prompt="", negative_prompt="", controlled=False
        )
        laid, holes = joined.laid()
        for generation, key in ((V1, "v1"), (V2, "v2")):
            known, hole = blanked(kit, laid, holes, generation)
            hole = hole if generation is V1 else 1 - hole
            kept = "mask" if generation is V1 else "keep"
            found[f"{name}.{key}_{kept}"] = hole[None]
            found[f"{name}.{key}_{kept}_latent"] = F.interpolate(hole[None], size=(height // 8, width // 8))
            found[f"{name}.{key}_masked_image"] = 2 * known[None] - 1
    return found


def brushnet(golden: Golden) -> Outputs:
    """The branch from its file, its residuals, and what the base answers with them."""
    net = network(golden.weights("unet."), golden.config["unet"])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "brushnet.safetensors"
        save_file({k: t.contiguous() for k, t in golden.weights("brushnet.").items()}, path)
        branch = load_brushnet(brush_in(Source("golden", path)), net.unet, torch.float32, "cpu")
    factors = tuple(float(f) for f in torch.logspace(-1, 0, branch.sites))
    found: Outputs = {}
    for case in golden.config["cases"]:
        spoken = {
            "plain": None, "scale1": (1.0, None), "scale0.7": (0.7, None), "guess": (1.0, factors),
        }  # fmt: skip
        for name, how in spoken.items():
            key = f"{case}.eps_{name}"
            if key in golden.outputs:
                rows = [row(golden, case, i, branch, how) for i in range(len(golden[f"{case}.sample"]))]
                batch = collate(rows, net.spec)
                found[key] = net.predict(batch)
                if name == "scale1":
                    answer = branch_answer(batch.residuals[0], batch)
                    downs = len(branch.brushnet_down_blocks)
                    named = [f"down.{i}" for i in range(downs)] + ["mid"]
                    named += [f"up.{i}" for i in range(len(branch.brushnet_up_blocks))]
                    every = {f"{case}.{n}": a for n, a in zip(named, answer, strict=True)}
                    found |= {k: a for k, a in every.items() if k in golden.outputs}
    return found


def row(golden: Golden, case: str, i: int, branch: Any, how: tuple[float, tuple[float, ...] | None] | None) -> Row:
    ports = Ports(context=(Tokens(golden[f"{case}.context_unet"][i]),))
    if how is not None:
        own = (Tokens(golden[f"{case}.context_brushnet"][i]),)
        said = Residual(branch, (golden[f"{case}.condition"][i],), how[1], Voice(how[0]), own)
        ports += Ports(residuals=(said,)).drawn({})
    return Row(golden[f"{case}.sample"][i], golden[f"{case}.timestep"].reshape(()), ports.at(0.0))
