"""Whole runs of words that are more than words equal the stock pipelines: textual inversions of several vectors, clip skip, SDXL's
second prompt. Alone, together, and beside a LoRA."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lora_files
import pytest
import torch
from some import some

from infuse import ControlNet, Lora, Recipe

from . import stock
from .cases import photo
from .test_lora import FAMILIES, base, engine, file, modules, recipe
from .test_parity import TOLERANCE, difference

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' schedulers


def gold(folder: Path, family: str, vectors: int = 3, seed: int = 3) -> str:
    """A textual inversion as its trainers write it, under the word that its file's name is."""
    g = torch.Generator().manual_seed(seed)
    said = {k: torch.randn(vectors, 32, generator=g) for k in ("clip_l", "clip_g")}
    state = said if family == "sdxl" else {"<gold>": said["clip_l"]}
    return str(lora_files.save(folder / "gold.safetensors", state))


def compared(family: str, asked: Recipe, plain: Recipe) -> float:
    ours = engine(family).run(asked).latents
    assert difference(engine(family).run(plain).latents, ours) > 10 * TOLERANCE, "nothing was heard"
    found = difference(ours, stock.latents(base(family), asked, modules(family)))
    print(f"{found:.1e}")  # pytest -rP shows it
    return found


@pytest.mark.slow
@pytest.mark.parametrize("family", some(FAMILIES, quick=["sd1"]))
def test_a_word_of_several_vectors(family: str, tmp_path: Path) -> None:
    words = {"prompt": "a cube of <gold> on a table", "negative_prompt": "<gold>, blurry"}
    asked = recipe(embeddings=(gold(tmp_path, family),), **words)
    assert compared(family, asked, recipe(**words)) < TOLERANCE


SKIPS = [(family, skip) for family in FAMILIES for skip in (1, 2, 3)]


@pytest.mark.slow
@pytest.mark.parametrize(("family", "skip"), some(SKIPS, quick=[("sd1", 2), ("sdxl", 2), ("sdxl", 3)]))
def test_clip_skip(family: str, skip: int) -> None:
    """The webui's 1 is the last layer; diffusers counts from what a base hears anyway: the last, of SDXL the one before."""
    asked = recipe(clip_skip=skip)
    first = skip <= (2 if family == "sdxl" else 1)
    if first:
        assert torch.equal(engine(family).run(asked).latents, engine(family).run(recipe()).latents)
    else:
        assert compared(family, asked, recipe()) < TOLERANCE


SECOND: dict[str, dict[str, Any]] = {
    "prompt_2": {"prompt_2": "made of wood"},
    "negative_prompt_2": {"negative_prompt_2": "metal, dark"},
    "negative_prompt_2 alone": {"negative_prompt": "", "negative_prompt_2": "metal, dark"},
    "both": {"prompt_2": "made of wood", "negative_prompt_2": "metal, dark", "clip_skip": 3},
}


@pytest.mark.slow
@pytest.mark.parametrize("case", some(SECOND, quick=["both"]))
def test_the_second_prompt_of_sdxl(case: str) -> None:
    fields = SECOND[case]
    plain = {k: v for k, v in fields.items() if k == "negative_prompt"}
    assert compared("sdxl", recipe(**fields), recipe(**plain)) < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("family", some(FAMILIES, quick=["sdxl"]))
def test_all_of_it_at_once(family: str, tmp_path: Path) -> None:
    words = {"prompt": "a cube of <gold> on a table", "negative_prompt": "blurry"}
    more = {"prompt_2": "<gold>, wood", "negative_prompt_2": "<gold>"} if family == "sdxl" else {}
    asked = recipe(
        Lora(model=file(tmp_path, family, "kohya"), weight=0.7),
        ControlNet(model="control0", image=photo(10), weight=0.8),
        embeddings=(gold(tmp_path, family),), clip_skip=3, **words, **more,
    )  # fmt: skip
    assert compared(family, asked, recipe(**words)) < TOLERANCE
