"""Words as stock diffusers encodes them: a skipped layer, SDXL's second prompt, textual inversions of several vectors."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import tiny
from infuse.encoders.embeddings import Embedding
from infuse.encoders.text import Said
from infuse.weights.layouts.textual_inversion import read
from infuse.weights.source import Source
from infuse.weights.tokenizer import clip_tokenizer

PROMPTS = ("", "a red cube", "a photo of a (cat), oil on canvas")


def stock(base: tiny.Tiny) -> Any:
    """A pipeline of its own encoders and tokenizers: loading a textual inversion changes them."""
    xl = base.family == "sdxl"
    names = [n for n in ("text_encoder", "text_encoder_2") if n in base.parts]
    parts = {n: copy.deepcopy(base.parts[n]) for n in names}
    own = parts["text_encoder"]  # this diffusers looks for its last norm where transformers 4 had it
    own.text_model = SimpleNamespace(final_layer_norm=own.final_layer_norm)
    parts |= {n.replace("text_encoder", "tokenizer"): clip_tokenizer() for n in names}
    if not xl:
        parts |= {"safety_checker": None, "requires_safety_checker": False}
    kind = diffusers.StableDiffusionXLPipeline if xl else diffusers.StableDiffusionPipeline
    scheduler = diffusers.DDIMScheduler.from_config(tiny.SCHEDULE)
    pipe = kind(vae=base.parts["vae"], unet=base.parts["unet"], scheduler=scheduler, feature_extractor=None, **parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def encoded(pipe: Any, prompt: str, **more: Any) -> tuple[Tensor, Tensor | None]:
    """(tokens, pooled)."""
    with torch.no_grad():
        found = pipe.encode_prompt(
            prompt, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False, **more
        )
    return found[0][0], found[2][0] if len(found) == 4 else None


def same(base: tiny.Tiny, said: Said, want: tuple[Tensor, Tensor | None]) -> None:
    with torch.no_grad():
        tokens, pooled = base.base.texts.tokens(said), base.base.texts.pooled(said)
    assert torch.allclose(tokens, want[0], atol=1e-4)
    assert (pooled is None) == (want[1] is None)
    assert pooled is None or torch.allclose(pooled, want[1], atol=1e-4)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def bases() -> dict[str, tiny.Tiny]:
    return {family: tiny.base(family) for family in ("sd1", "sd2", "sdxl")}


@pytest.mark.slow
@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_skipped_layers(family: str, bases: dict[str, tiny.Tiny]) -> None:
    """diffusers counts the layers that are skipped: from the last, or of SDXL from the one before."""
    pipe = stock(bases[family])
    for prompt in PROMPTS:
        same(bases[family], Said(prompt), encoded(pipe, prompt))
        for skipped in (0, 1):
            s = skipped + (2 if family == "sdxl" else 1)
            same(bases[family], Said(prompt, clip_skip=s), encoded(pipe, prompt, clip_skip=skipped))


@pytest.mark.slow
@pytest.mark.parametrize("second", PROMPTS[1:])
def test_the_second_prompt_of_sdxl(second: str, bases: dict[str, tiny.Tiny]) -> None:
    pipe = stock(bases["sdxl"])
    same(bases["sdxl"], Said("a red cube", second), encoded(pipe, "a red cube", prompt_2=second))
    same(
        bases["sdxl"],
        Said("a red cube", second, clip_skip=3),
        encoded(pipe, "a red cube", prompt_2=second, clip_skip=1),
    )


@pytest.mark.slow
@pytest.mark.parametrize("family", ["sd1", "sdxl"])
@pytest.mark.parametrize("n", [1, 3])
def test_textual_inversions(family: str, n: int, bases: dict[str, tiny.Tiny]) -> None:
    pipe, g = stock(bases[family]), torch.Generator().manual_seed(n)
    encoders = len(bases[family].base.texts.models)
    gold, wood = (tuple(torch.randn(k, 32, generator=g) * 0.3 for _ in range(encoders)) for k in (n, 2))
    for name, rows in (("<gold>", gold), ("<wood>", wood)):
        for i, own in enumerate(rows):
            ends = "_2" if i else ""
            pipe.load_textual_inversion(
                {name: own},
                token=name,
                text_encoder=getattr(pipe, f"text_encoder{ends}"),
                tokenizer=getattr(pipe, f"tokenizer{ends}"),
            )
    embeddings = {"<gold>": Embedding("<gold>", gold), "<wood>": Embedding("<wood>", wood)}
    for prompt in ("a cube of <gold>", "<gold>", "a <wood> ball, and <gold> <wood> cubes", "nothing of both"):
        same(bases[family], Said(prompt, embeddings=embeddings), encoded(pipe, prompt))
        same(bases[family], Said(prompt, syntax="webui", embeddings=embeddings), encoded(pipe, prompt))


@pytest.mark.parametrize("name", ["learned_embeds.bin", "learned_embeds.safetensors", "webui.pt"])
def test_one_file_for_both(name: str, tmp_path: Path, bases: dict[str, tiny.Tiny]) -> None:
    pipe, rows = stock(bases["sd1"]), torch.randn(2, 32, generator=torch.Generator().manual_seed(9)) * 0.3
    what: dict[str, Any] = {"<gold>": rows}
    if name == "webui.pt":
        what = {"string_to_token": {"*": 265}, "string_to_param": {"*": rows}, "name": "<gold>", "step": 1}
    save_file(what, tmp_path / name) if name.endswith(".safetensors") else torch.save(what, tmp_path / name)
    pipe.load_textual_inversion(str(tmp_path), weight_name=name, token="<gold>", local_files_only=True)
    ours = read(Source("gold", tmp_path / name))
    same(bases["sd1"], Said("a <gold> cube", embeddings={"<gold>": ours}), encoded(pipe, "a <gold> cube"))
