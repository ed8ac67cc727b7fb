"""`infuse check` prints what it understood of the words, without loading anything; a picture's record keeps it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import homes
import lora_files
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

import tiny
from infuse import Recipe
from infuse.cli.app import app
from infuse.engine.engine import Engine
from infuse.engine.result import Result
from infuse.engine.understanding import lines
from infuse.errors import CapacityError, WeightsError


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of models with a LoRA below others, an embedding, and a file of styles."""
    homes.lora(tmp_path / "Lora" / "looks" / "woody.safetensors")
    (tmp_path / "embeddings").mkdir()
    save_file({"<badhands>": torch.zeros(4, 32)}, tmp_path / "embeddings" / "badhands.safetensors")
    (tmp_path / "styles.csv").write_text('name,prompt,negative_prompt\nnoir,"{prompt}, film noir",colourful\n')
    monkeypatch.setenv("INFUSE_MODELS", str(tmp_path))
    return tmp_path


def check(*words: str) -> Any:
    done = CliRunner().invoke(app, ["check", "--model", "./base", "--steps", "8", "--sampler", "Euler", *words])
    assert done.exit_code == 0, done.output
    return done


def said(stdout: str) -> list[str]:
    """The lines on the words."""
    lines = stdout.splitlines()
    first = next(
        i for i, line in enumerate(lines) if line.startswith(("words ", "prompt  ", "seed ")) and "context" not in line
    )
    return [
        " ".join(line.split()) for line in lines[first : next(i for i, x in enumerate(lines) if x.startswith("base "))]
    ]


def test_all_of_it(shelf: Path) -> None:
    prompt = "a (red:1.3) [cat:dog:0.5] <lora:woody:0.5:0.8> BREAK rain AND {snow|snow} :0.4"
    done = check(prompt, "--negative", "badhands, (ugly:1.4)", "--set", "clip_skip=2", "--set", "styles=[noir]")
    assert said(done.stdout) == [
        "words clip skip 2, where 1 is the last layer",
        "prompt 2 prompts that are added; 4 tokens in 2 chunks (3 + 1) AND 8 tokens",
        "changes on the way, weight 1",
        "evaluations 1-5: a red cat | rain",
        "evaluations 6-8: a red dog | rain",
        "snow :0.4, film noir, weight 1",
        "weights: red 1.3",
        "BREAK: 2 chunks or more, where it stands",
        "negative badhands, ugly, colourful; 8 tokens",
        "weights: ugly 1.4",
        "lora looks/woody 0.8 (text encoders 0.5): 56 modules of the UNet, rank 4",
        "embedding badhands: 4 vectors",
    ]


def test_conditions_say_their_words_too(shelf: Path) -> None:
    region = '[{"kind": "regions", "regions": [{"prompt": "a (cat:1.2)", "box": "0:0:0.5:1"}]}]'
    done = check("a room", "--set", f"conditions={region}")
    assert said(done.stdout) == ["prompt a room; 2 tokens", "0: region a cat; 2 tokens", "weights: cat 1.2"]


def test_each_picture_of_a_choice_has_words_of_its_own(shelf: Path) -> None:
    lines = said(check("a {red|blue|green|black} cube", "--count", "6").stdout)
    assert sum(line.startswith("seed ") for line in lines) == 4 and lines[-1] == "... and 2 pictures more"


def test_syntax_is_named(shelf: Path) -> None:
    assert said(check("a cat++", "--set", "syntax=compel").stdout)[:3] == [
        "words syntax compel",
        "prompt a cat; 2 tokens",
        "weights: cat 1.21",
    ]


def test_it_takes_no_torch(shelf: Path, world: Path) -> None:
    code = "import sys\nfrom infuse.cli.app import app\ntry: app(['check', 'a (red:1.2) cat badhands <lora:woody:1>', '--model', './base'])\n"
    code += "except SystemExit: pass\nassert not {'torch', 'transformers', 'diffusers'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=world)
    assert done.returncode == 0 and "badhands: 4 vectors" in done.stdout, done.stdout + done.stderr


def test_two_files_of_a_name_are_told_apart(shelf: Path) -> None:
    homes.lora(shelf / "Lora" / "others" / "woody.safetensors")
    done = CliRunner().invoke(app, ["check", "a <lora:woody:1>", "--model", "./base"])
    assert done.exit_code == 2 and "'woody' is the name of 2 files" in done.stderr.replace('"', "'")


@pytest.mark.parametrize("field", ["prompt", "negative_prompt"])
def test_too_many_chunks_are_a_letter_before_anything_is_loaded(field: str) -> None:
    engine = tiny.engine(tiny.base("sd1"))
    for text in ("a BREAK " * 40, " ".join(f"(w{i}:1.{i % 9})" for i in range(1000))):
        with pytest.raises(CapacityError, match="chunks of 75 tokens; the limit is 32") as letter:
            engine.check(Recipe(**{field: text}, width=16, height=16))
        assert letter.value.field == field


def test_a_record_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = tiny.engine(tiny.base("sd1"))
    found = engine.check(Recipe(prompt="word " * 2000 + "[a|b]", width=16, height=16, steps=500))
    assert len(json.dumps(found.plain()["words"])) < 50_000 and len(list(lines(found))) < 10


# The record ----------------------------------------------------------------------------------------------------------


def made(**asked: Any) -> Result:
    base = tiny.base("sd1")
    engine = tiny.engine(base, {})
    lows = lora_files.changes(base.base.network.unet, pattern=lora_files.ATTENDED)
    path = lora_files.save(Path("wood.safetensors").absolute(), lora_files.kohya(lows))
    conditions = [{"kind": "lora", "model": str(path), **c} for c in asked.pop("conditions", [])]
    return engine.run(Recipe(**{"width": 16, "height": 16, "steps": 4, "conditions": conditions, **asked}))


def test_the_record_and_the_webui_s_text_have_the_words_as_they_were_resolved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = made(
        prompt="a {red|blue|green} [cat|dog] AND rain :0.5",
        count=2,
        clip_skip=2,
        conditions=[{"weight": 0.7}, {"weight": 0.2, "end": 0.5}],
    )
    for i in range(2):
        record = result.record(i)
        words, prompt = record.resolved["words"], record.recipe["prompt"]
        assert "{" not in prompt  # what was chosen travels
        assert [p["weight"] for p in words["parts"]] == [1, 0.5]
        assert [end for end, _ in words["until"]["prompt"]] == [2, 3, 4]
        text, last = record.parameters.split("\n")
        assert text == f"{prompt} <lora:wood:0.7>"  # what no tag can say stays out
        assert "Clip skip: 2" in last and str(tmp_path) not in json.dumps(record.resolved) + record.parameters
        digest = next(iter(result.weights.values()))
        assert f'\\"lora:wood\\": \\"{digest[:10]}\\"' in last
    assert result.record(0).recipe["prompt"] != result.record(1).recipe["prompt"]


def test_words_alone_leave_no_trace_in_the_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "words" not in made(prompt="a red cube").record().resolved


def test_plain_brackets_are_escaped_for_the_webui(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert made(prompt=r"a (cat) \(b\)", syntax="plain").record().parameters.startswith("a \\(cat\\) \\(b\\)\n")


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "owner/name", "x"])
def test_a_stranger_s_words_name_no_files_of_this_machine(name: str) -> None:
    engine: Engine = tiny.engine(tiny.base("sd1"))
    with pytest.raises(WeightsError, match="none of the models that this recipe may use"):
        engine.check(Recipe.load({"prompt": f"a <lora:{name}:1>", "width": 16, "height": 16}, trust=False))
