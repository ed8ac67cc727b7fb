"""Files of every kind are told from each other by their tensors: in any precision, wrapped, pruned, under any name."""

from __future__ import annotations

import json
import random
import re
import struct
from dataclasses import asdict
from math import prod
from pathlib import Path

import pytest
from some import some

from infuse.weights.source import Source

from . import zoo, zoo_more

CASES = zoo.CASES | zoo_more.CASES
PRECISIONS = {"F16": 2, "BF16": 2, "F32": 4}
WRAPPERS = ("", "module.", "_orig_mod.")
LARGE = re.compile(
    "SDXL|XL|refiner|XS|Union|PowerPaint|Kolors|Cascade|one file|folder|averages|BrushNet|CtrLoRA|bigG|layout|Sparse|Animate|GLIGEN|peft"
    "|SD 2|bundled|ComfyUI's|Kandinsky 3|Stable Video Diffusion, d|without its marker|whole model|upscaler|ldm|as a difference|both towers|encoder H|BOFT|PIA|Kandinsky 2|DeepFloyd"
)
SOME = ("SD 1.5, one file", "ControlNet for SD 1.5, ldm", "Union ProMax", "XS SD 1.5", "LoRA peft, SD 1.5", "GLIGEN text, ComfyUI's", "AnimateDiff sdxl, diffusers",
        "SD 2 depth, a folder", "BrushNet SDXL", "CtrLoRA condition", "SparseCtrl RGB, as released", "text encoder H")  # fmt: skip
"""Networks that take a second to build, even without memory; and those of them that the quick suite builds."""
SMALL = [c for c in CASES if not LARGE.search(c)][::4]
"""Of the others, too, the quick suite builds every fourth."""


def written(folder: Path, shapes: zoo.Shapes, dtype: str, name: str) -> Path:
    """A .safetensors file of that precision: a true header, then a hole as long as its data."""
    table, at = {}, 0
    for key, shape in shapes.items():
        table[key] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at := at + PRECISIONS[dtype] * prod(shape)]}
    head = json.dumps(table).encode()
    path = folder / name
    with path.open("wb") as f:
        f.write(struct.pack("<Q", len(head)) + head)
        f.truncate(8 + len(head) + at)
    return path


@pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning:diffusers.*")
@pytest.mark.parametrize("case", some(CASES, quick=[*SOME, *SMALL]), ids=str)
def test_every_kind_is_told(case: str, tmp_path: Path) -> None:
    what, number = CASES[case], list(CASES).index(case)
    dice = random.Random(number)
    name = "".join(dice.choices("abcdefghijklmnopqrstuvwxyz0123456789_-", k=dice.randint(3, 30))) + ".safetensors"
    shapes = zoo.shapes(what.make())
    dice.shuffle(keys := list(shapes))
    wrapper = WRAPPERS[number % 3] if not any("/" in k for k in keys) else ""
    path = written(tmp_path, {wrapper + k: shapes[k] for k in keys}, list(PRECISIONS)[number // 3 % 3], name)
    found = Source("x", path).identity
    assert {k: getattr(found, k) for k in what.want} == what.want, asdict(found)


def test_there_are_enough() -> None:
    assert len(CASES) >= 120
