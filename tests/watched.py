"""Whoever reads what strangers bring is watched: how long one input took, and how much memory it ever held beside ours."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, ImageFile, PngImagePlugin

SECONDS, MIB = 5, 200
STATUS, MARKS = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@contextmanager
def watched(what: str) -> Iterator[None]:
    """Fails if what happens inside takes 5 s, or 200 MiB more than there were at its begin, though it gave them back; or if it
    moves a limit of Pillow's, which are everybody's.

    What the readers of pictures and films mutter about broken files is no letter of ours, and is not heard.
    """
    limits, held, begin = pillow(), _forgotten(), time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    took, more = time.perf_counter() - begin, (_said("VmHWM") - held) / 1024
    assert pillow() == limits, f"{what} moved a limit of Pillow's"
    assert took < SECONDS, f"{what} took {took:.1f} s"
    assert more < MIB, f"{what} held {more:.0f} MiB"


def pillow() -> tuple[object, ...]:
    """What Pillow allows in this process."""
    return (Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY,
            ImageFile.LOAD_TRUNCATED_IMAGES)  # fmt: skip


def _forgotten() -> int:
    """KiB that are held now; the most that were ever held begins anew from here (Linux only; elsewhere all are 0)."""
    try:
        MARKS.write_text("5")  # proc(5): resets the peak resident set size
    except OSError:
        return _said("VmHWM")
    return _said("VmRSS")


def _said(name: str) -> int:
    try:
        return next(int(line.split()[1]) for line in STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    except OSError:
        return 0
