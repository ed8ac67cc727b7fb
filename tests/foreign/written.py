"""Pictures with a program's text in them."""

from __future__ import annotations

from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from infuse.media.texts import block

PAIRS = "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 123, Size: 512x768"


def saved(path: str, **said: str) -> Path:
    """A PNG with these chunks, or another format with the text as the webui places it."""
    image, info = Image.new("RGB", (16, 16)), PngInfo()
    for key, text in said.items():
        info.add_text(key, text)
    if path.endswith(".png"):
        image.save(path, pnginfo=info)
    elif path.endswith(".gif"):
        image.save(path, comment=said["parameters"].encode())
    else:
        image.save(path, exif=block({}, said["parameters"]))
    return Path(path)
