"""T2I-Adapters around one tiny base."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

import tiny
from infuse import CoAdapter, Recipe, T2IAdapter, T2IStyle
from infuse.encoders.coadapter import Fuser
from infuse.encoders.t2i import T2IAdapter as Network
from infuse.encoders.t2i_kinds import Anatomy, Fusing
from infuse.encoders.t2i_style import StyleAdapter
from infuse.engine.engine import Engine

FULL, GREY = Anatomy(False, 12, (32, 64), 2), Anatomy(False, 4, (32, 64), 2)
STYLE = "style"


def adapter(numbers: Anatomy = FULL, seed: int = 3) -> Network:
    torch.manual_seed(seed)
    return tiny.randomized(Network(numbers), seed)  # type: ignore[return-value]


def style(context: int = 32, width: int = 48, seed: int = 5) -> StyleAdapter:
    torch.manual_seed(seed)
    return tiny.randomized(StyleAdapter(width, context, 8, 2), seed)  # type: ignore[return-value]


def fuser(trained: bool = True, width: int = 32) -> Fuser:
    torch.manual_seed(6)
    net = Fuser(Fusing(width, 16, (32, 64), 2)).eval().requires_grad_(False)
    return tiny.randomized(net, 6) if trained else net  # type: ignore[return-value]


@cache
def modules() -> dict[str, nn.Module]:
    return {
        "seg": adapter(), "depth": adapter(seed=4), "sketch": adapter(GREY), "style": style(), "other-style": style(64), "wide-style": style(width=40),
        "fuser": fuser(), "plain-fuser": fuser(trained=False), "wide-fuser": fuser(width=64), "edges": tiny.controlnet("sd1", 7),
        "xl": adapter(Anatomy(False, 48, (32, 64, 64), 2)), "three": adapter(Anatomy(False, 12, (32, 64, 64), 2)),
    }  # fmt: skip


@cache
def engine(dtype: torch.dtype = torch.float32) -> Engine:
    return tiny.engine(tiny.base("sd1", dtype=dtype), modules())


def photo(seed: int = 0, size: tuple[int, int] = (32, 32)) -> Image.Image:
    small = np.random.RandomState(seed).randint(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def lines(light: bool = True) -> Image.Image:
    drawn = np.zeros((32, 32, 3), np.uint8)
    drawn[::9], drawn[:, 4::11] = 255, 200
    return Image.fromarray(drawn if light else 255 - drawn)


def asked(*conditions: Any, **fields: Any) -> Recipe:
    plain = {"prompt": "a red cube", "width": 32, "height": 32, "steps": 2, "seed": 1, "guidance": 5.0}
    return Recipe(model="tiny", conditions=conditions, **{**plain, **fields})


def latents(*conditions: Any, dtype: torch.dtype = torch.float32, **fields: Any) -> Tensor:
    return engine(dtype).run(asked(*conditions, **fields)).latents


# ── laws ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def every() -> Mapping[str, Any]:
    member = {"type": "seg", "model": "seg", "image": photo()}
    return {
        "adapter": T2IAdapter(model="seg", image=photo()),
        "style": T2IStyle(model="style", image=photo()),
        "coadapter": CoAdapter(model="fuser", members=(member, {"type": STYLE, "model": "style", "image": photo(1)})),
    }  # fmt: skip
