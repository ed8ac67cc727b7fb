"""What lies in a hole, painted over with the colours around it: far ones first, then nearer and nearer ones."""

from __future__ import annotations

from typing import Any

ROUNDS = ((256, 1), (64, 1), (16, 2), (4, 4), (2, 2), (0, 1))
"""(radius of the blur in pixels, how often it is laid on top); the last one puts back what lies in no hole."""


def filled_in(image: Any, hole: Any) -> Any:
    """An RGB PIL image with its hole (grey, of the same size; white is the hole) filled from its surroundings.

    Source: masked content "fill" of the webui (modules/masking.py of stable-diffusion-webui-forge@dfdcbab).
    """
    from PIL import Image, ImageFilter, ImageOps

    known = Image.new("RGBa", image.size)  # premultiplied: a blur of it does not mix in the colour of the hole
    known.paste(image.convert("RGBA").convert("RGBa"), mask=ImageOps.invert(hole.convert("L")))
    canvas = Image.new("RGBA", image.size)
    for radius, times in ROUNDS:
        blurred = known.filter(ImageFilter.GaussianBlur(radius)).convert("RGBA")
        for _ in range(times):
            canvas.alpha_composite(blurred)
    return canvas.convert("RGB")
