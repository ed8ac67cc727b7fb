"""A hundred prompts in the styles of model sites, as a base of SD 1.5 and one of SDXL understand them, without a surprise."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import lora_files
import pytest
import torch
import yaml
from safetensors.torch import save_file
from some import some

import tiny
from infuse import Recipe
from infuse.conditions.lora import Lora
from infuse.engine.understanding import Loaded, Reads, chunks, lines, loras
from infuse.errors import InfuseError
from infuse.weights.spelling import spelling
from infuse.words import sums, tags
from infuse.words.understood import understood

PROMPTS: list[dict[str, Any]] = yaml.safe_load((Path(__file__).parent / "hundred.yaml").read_text("utf-8"))
FIELDS = ("prompt", "prompt_2", "syntax", "emphasis", "clip_skip", "styles", "count")
LORAS = ("add_detail", "filmgrain_v2", "Studio Ghibli Style", "chars/emma_v1", "lcm-lora-sdv1-5")
WORDS = {"easynegative": 8, "bad-hands-5": 2, "negative_hand": 1, "gold-style": 3}
STEPS = 8


@cache
def base(family: str) -> tiny.Tiny:
    return tiny.base(family)


@pytest.fixture(scope="module")
def shelves(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Somebody's folder of models for each family, as the webui has it."""
    made = {}
    for family in ("sd1", "sdxl"):
        root = made[family] = tmp_path_factory.mktemp(family)
        parts = base(family).base
        lows = lora_files.changes(parts.network.unet, parts.texts.models, pattern=lora_files.ATTENDED)
        for name in LORAS:
            lora_files.save(root / "models/Lora" / f"{name}.safetensors", lora_files.kohya(lows, wide=family == "sdxl"))
        (root / "embeddings").mkdir()
        for name, n in WORDS.items():
            keys = ("clip_l", "clip_g") if family == "sdxl" else (f"<{name}>",)
            save_file({k: torch.randn(n, 32) for k in keys}, root / f"embeddings/{name}.safetensors")
        (root / "styles.csv").write_text(
            'name,prompt,negative_prompt\nnoir,"{prompt}, (film noir:1.2)",colourful\ncinematic,cinematic still,\n'
        )
        (root / "wildcards/place").mkdir(parents=True)
        (root / "wildcards/hair.txt").write_text("red\nblack\nsilver\n")
        (root / "wildcards/place/city.txt").write_text("Rome\nOslo\n")
    return made


@pytest.fixture(params=["sd1", "sdxl"])
def engine(request: Any, shelves: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("INFUSE_MODELS", str(shelves[request.param]))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    yield tiny.engine(base(request.param)), request.param


def asked(case: dict[str, Any]) -> Recipe:
    said = {f: case[f] for f in FIELDS if f in case}
    return Recipe(width=16, height=16, steps=STEPS, scheduler="Euler", negative_prompt=case.get("negative", ""), **said)


def found(engine: Any, case: dict[str, Any]) -> tuple[Any, list[str]]:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        resolved = engine.check(asked(case))
    return resolved, [str(w.message) for w in told]


@pytest.mark.parametrize("case", some(PROMPTS, quick=PROMPTS[::6]), ids=lambda c: str(c["prompt"])[:40])
def test_it_is_understood_as_it_is_meant(engine: Any, case: dict[str, Any]) -> None:
    engine, family = engine
    if case.get("family", family) != family:
        return
    if "letter" in case:
        with pytest.raises(InfuseError) as letter:
            found(engine, case)
        assert re.search(case["letter"], str(letter.value), re.DOTALL), letter.value
        return
    resolved, told = found(engine, case)
    wanted = case.get(f"{family}_says", case.get("says", []))
    assert all(any(words in text for text in told) for words in wanted), told
    assert bool(told) == bool(wanted), told
    each = resolved.each or (resolved,)
    assert len(each) == case.get("count", 1)
    for one in each:
        recipe, how = one.recipe, one.wording
        said = [
            understood(t, how.syntax, STEPS, negative=bool(i))
            for i, t in enumerate((recipe.prompt, recipe.negative_prompt))
        ]
        weights = {w.strip(" ,"): n for s in said for w, n in s.weights.items()}
        styled = {"film noir": 1.2} if "noir" in case.get("styles", ()) else {}
        if "{" not in case["prompt"]:
            wants = {w.strip(): n for w, n in (case.get("weights", {}) | styled).items()}
            assert weights == pytest.approx(wants, rel=1e-3), weights
        assert [p.weight for p in said[0].parts] == case.get("parts", [1])
        assert max(len(p.turns) for p in said[0].parts) == case.get("turns", 1)
        heard = {c.model: c for c in one.speakers.values() if isinstance(c, Lora)}
        assert {
            n: [c.weight, c.text_strength] if c.text_weight is not None else c.weight for n, c in heard.items()
        } == case.get("loras", {})
        assert len(list(loras(one))) == len(heard)
        named = {w for w, _ in how.embeddings}
        assert set(case.get("embeddings", ())) <= named and bool(named) == ("embeddings" in case)
        lengths = counted(one)
        assert max(map(len, lengths)) == case.get("chunks", 1), lengths
    shown = list(lines(resolved))
    assert shown or not case["prompt"]
    assert all(len(text) < 1_500 for _, text in shown)


def counted(found: Any) -> list[list[int]]:
    """Tokens in each chunk of each part; the tokenizer that is read from files says what the loaded one does."""
    how, reads = found.wording, found.reads
    assert isinstance(reads.speller, Loaded)
    light = Reads(spelling(None), reads.places)
    text = tags.networks(found.recipe.prompt)[0] if how.syntax == "webui" else found.recipe.prompt
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parts = [t for t, _ in sums.parts(text)] if how.syntax == "webui" else [text]
        said = [chunks(how.entries(p)[0][1], how, reads) for p in parts]
        assert said == [chunks(how.entries(p)[0][1], how, light) for p in parts]
    return said


def test_there_are_a_hundred() -> None:
    assert len(PROMPTS) >= 100 and len({str(p) for p in PROMPTS}) == len(PROMPTS)
