"""What stock pipelines can do, as a table of recipes: single mechanisms first, then every pair and triple they have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

from infuse.conditions import AnyCondition, ControlNet, Img2Img, Inpaint, IPAdapter, Size
from infuse.media.pictures import Picture

Conditions = tuple[AnyCondition, ...]
EVERY, OLD, XL = ("sd1", "sd2", "sdxl"), ("sd1", "sd2"), ("sdxl",)
THREE = ("DDIM", "Euler a", "DPM++ 2M Karras")
OTHERS = (
    "PNDM",
    "UniPC",
    "Heun",
    "LCM",
    "DDPM",
    "LMS",
    "Euler",
    "DPM2",
    "DPM2 a",
    "DPM++ 2M SDE Karras",
    "DPM++ 2S",
    "DEIS",
    "Euler trailing",
    "TCD",
    "SA-Solver",
)


@dataclass(frozen=True)
class Case:
    """Some conditions, and the recipe's other fields. `channels` are the base network's."""

    name: str
    conditions: Callable[[], Conditions] = tuple
    fields: Mapping[str, Any] = field(default_factory=dict)
    families: tuple[str, ...] = EVERY
    schedulers: tuple[str, ...] = THREE
    channels: int = 4


@cache
def photo(seed: int, width: int = 32, height: int = 32) -> Picture:
    """Smooth colours."""
    small = np.random.RandomState(seed).randint(0, 256, (4, 4, 3), dtype=np.uint8)
    return Picture.of(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


@cache
def mask(left: int, top: int, right: int, bottom: int, width: int = 32, height: int = 32) -> Picture:
    """White inside of a rectangle."""
    out = np.zeros((height, width), dtype=np.uint8)
    out[top:bottom, left:right] = 255
    return Picture.of(out)


def control(i: int = 0, **fields: Any) -> ControlNet:
    return ControlNet(**{"model": f"control{i}", "image": photo(10 + i), **fields})


def look(kind: str = "plain", *pictures: Picture, **fields: Any) -> IPAdapter:
    return IPAdapter(**{"model": kind, "image": pictures or (photo(20),), "weight": 0.7, **fields})


def start(strength: float = 0.6) -> Img2Img:
    return Img2Img(image=photo(1), strength=strength)


def hole(strength: float = 1.0) -> Inpaint:
    return Inpaint(image=photo(2), mask=mask(7, 5, 25, 20), strength=strength, paste=False, cells="nearest")


OFF, LOUD = {"guidance": 1.0}, {"guidance": 6.0, "negative_prompt": "blurry, grey"}
LEFT, RIGHT = mask(0, 0, 18, 32), mask(12, 0, 32, 32)

CASES = [
    Case("text"),
    Case("text, negative prompt", fields=LOUD),
    Case("text, no guidance", fields=OFF),
    Case("text, other schedulers", fields=LOUD, families=("sd1",), schedulers=OTHERS),
    Case("text, wide", fields={"width": 48, "height": 24}),
    Case("text, two pictures", fields={**LOUD, "count": 2}),
    Case("text, rescaled guidance", fields={**LOUD, "guidance_rescale": 0.7}),
    Case("size", lambda: (Size(original=(40, 24), crop=(4, 2)),), families=XL),
    Case("img2img 0.3", lambda: (start(0.3),)),
    Case("img2img 0.75", lambda: (start(0.75),), LOUD),
    Case("img2img 1", lambda: (start(1.0),), OFF),
    Case("img2img, other schedulers", lambda: (start(),), LOUD, ("sd1",), OTHERS),
    Case("img2img, wide", lambda: (Img2Img(image=photo(3, 48, 24), strength=0.6),), {"width": None, "height": None}),
    Case("inpaint 4, strength 1", lambda: (hole(),), LOUD),
    Case("inpaint 4, strength 0.6", lambda: (hole(0.6),)),
    Case("inpaint 4, no guidance", lambda: (hole(0.6),), OFF),
    Case("inpaint 4, other schedulers", lambda: (hole(0.7),), families=("sd1",), schedulers=OTHERS),
    Case("inpaint 4, strength 1, other schedulers", lambda: (hole(),), families=("sd1",), schedulers=OTHERS),
    Case(
        "inpaint 4, resized",
        lambda: (
            Inpaint(
                image=photo(2, 48, 40), mask=mask(9, 7, 31, 29, 48, 40), strength=0.8, paste=False, cells="nearest"
            ),
        ),
    ),
    Case("inpaint 9, strength 1", lambda: (hole(),), LOUD, channels=9),
    Case("inpaint 9, strength 0.6", lambda: (hole(0.6),), OFF, channels=9),
    Case("inpaint 9, other schedulers", lambda: (hole(0.7),), families=("sd1",), schedulers=OTHERS, channels=9),
    Case("controlnet", lambda: (control(),), LOUD),
    Case("controlnet, no guidance", lambda: (control(weight=0.6),), OFF),
    Case("controlnet, window", lambda: (control(weight=0.8, start=0.2, end=0.7),)),
    Case("controlnet, resized", lambda: (control(image=photo(10, 40, 48)),)),
    Case("two controlnets", lambda: (control(0, weight=0.9, end=0.5), control(1, weight=0.4, start=0.3)), LOUD),
    Case("one controlnet twice", lambda: (control(0, weight=0.9), control(0, image=photo(12), weight=0.4)), LOUD),
    Case("controlnet, guess", lambda: (control(mode="guess", weight=0.8),), LOUD),
    Case("controlnet, guess, no guidance", lambda: (control(mode="guess"),), OFF),
    Case("two controlnets, guess", lambda: (control(0, mode="guess", weight=0.7), control(1, mode="guess", end=0.6))),
    Case("controlnet, pooled", lambda: (control(2),), LOUD),
    Case("controlnet, other schedulers", lambda: (control(end=0.7),), families=("sd1",), schedulers=OTHERS),
    Case("ip-adapter plain", lambda: (look(),), LOUD),
    Case("ip-adapter plus", lambda: (look("plus"),)),
    Case("ip-adapter, no guidance", lambda: (look("plus", weight=1.0),), OFF),
    Case("ip-adapter, two pictures", lambda: (look("plain", photo(20), photo(21)),)),
    Case("ip-adapter, layers", lambda: (look(layers=(1.0, 0.0, 0.5, 2.0, 0.3, 0.7, 0.1)),), families=OLD),
    Case("ip-adapter, window", lambda: (look("plus", start=0.2, end=0.7),)),
    Case("ip-adapter, mask", lambda: (look(mask=LEFT),), LOUD),
    Case(
        "ip-adapter, two masks", lambda: (look(mask=LEFT, weight=0.9), look("plain", photo(21), mask=RIGHT, weight=0.4))
    ),
    Case("ip-adapter, mask, wide", lambda: (look(mask=mask(5, 3, 30, 20, 48, 24)),), {"width": 48, "height": 24}),
    Case("two ip-adapters", lambda: (look(weight=0.5), look("plus", photo(21), weight=0.8)), LOUD),
    Case("two ip-adapters, masks", lambda: (look(mask=LEFT), look("plus", photo(21), mask=RIGHT))),
    Case("controlnet + img2img", lambda: (control(weight=0.8), start()), LOUD),
    Case(
        "two controlnets + img2img",
        lambda: (control(0, weight=0.8, end=0.8), start(0.8), control(1, weight=0.3, start=0.2)),
    ),
    Case("controlnet, guess + img2img", lambda: (control(mode="guess"), start()), LOUD),
    Case("controlnet + inpaint 4, strength 1", lambda: (control(weight=0.8), hole()), LOUD),
    Case("controlnet + inpaint 4, strength 0.6", lambda: (control(weight=0.8, start=0.2), hole(0.6))),
    Case("controlnet + inpaint 9, strength 1", lambda: (control(weight=0.8), hole()), LOUD, channels=9),
    Case("controlnet + inpaint 9, strength 0.6", lambda: (control(weight=0.8, end=0.7), hole(0.6)), channels=9),
    Case(
        "two controlnets, guess + inpaint 4",
        lambda: (control(0, mode="guess"), control(1, mode="guess", weight=0.5), hole(0.8)),
        LOUD,
    ),
    Case("ip-adapter + img2img", lambda: (look(), start()), LOUD),
    Case("ip-adapter plus + img2img", lambda: (look("plus"), start(0.9))),
    Case("ip-adapter + inpaint 4", lambda: (look(), hole(0.7)), LOUD),
    Case("ip-adapter plus + inpaint 4", lambda: (look("plus"), hole())),
    Case("ip-adapter + inpaint 9", lambda: (look("plus"), hole()), LOUD, channels=9),
    Case("ip-adapter, mask + inpaint 9", lambda: (look(mask=LEFT), hole(0.6)), channels=9),
    Case("ip-adapter + controlnet", lambda: (look(), control(weight=0.8)), LOUD),
    Case(
        "two ip-adapters + two controlnets",
        lambda: (look(), control(0, weight=0.8), control(1, weight=0.3, end=0.5), look("plus", photo(21))),
    ),
    Case("ip-adapter + controlnet, guess", lambda: (look("plus"), control(mode="guess")), LOUD),
    Case(
        "ip-adapter, masks + controlnet",
        lambda: (look(mask=LEFT), look("plain", photo(21), mask=RIGHT), control(weight=0.8)),
    ),
    Case("ip-adapter + controlnet + img2img", lambda: (look(), control(weight=0.8, end=0.7), start()), LOUD),
    Case("ip-adapter + controlnet + inpaint 4", lambda: (look("plus"), control(weight=0.8), hole(0.8)), LOUD),
    Case(
        "ip-adapter + controlnet + inpaint 9",
        lambda: (look(), control(weight=0.8, start=0.2), hole()),
        LOUD,
        channels=9,
    ),
    Case("ip-adapter + controlnet, two pictures", lambda: (look(), control(end=0.7)), {"count": 2}),
    Case(
        "two ip-adapters + two controlnets + inpaint 4",
        lambda: (
            look(mask=LEFT),
            look("plus", photo(21), mask=RIGHT),
            control(0, weight=0.8),
            control(1, weight=0.3, end=0.5),
            hole(),
        ),
    ),
    Case("rescaled guidance + img2img", lambda: (start(),), {**LOUD, "guidance_rescale": 0.7}, XL),
    Case("rescaled guidance + inpaint 4", lambda: (hole(0.8),), {**LOUD, "guidance_rescale": 0.7}, XL),
    Case(
        "rescaled guidance + controlnet + inpaint 4",
        lambda: (control(), hole(0.8)),
        {**LOUD, "guidance_rescale": 0.7},
        XL,
    ),
    Case(
        "size + ip-adapter + controlnet + img2img",
        lambda: (Size(original=(40, 24), crop=(4, 2)), look(), control(), start()),
        LOUD,
        XL,
    ),
]
