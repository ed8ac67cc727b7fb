"""A contact sheet: rows of pictures and clips with a title and captions. Layout only; knows nothing of models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

TILE, GAP, EDGE = 256, 14, 28
"""Pixels: the side of a picture on the sheet, the space between two, the margin."""
PAPER, INK, SOFT, GIVEN = (250, 249, 246), (28, 28, 30), (110, 110, 116), (196, 116, 32)
CAPTION_LINES = 3


@dataclass(frozen=True)
class Panel:
    """A picture, or the frames of a clip, and what to say under it.

    `given`: an input, framed, so that nobody takes it for a result.
    """

    image: Image.Image | Sequence[Image.Image]
    caption: str
    given: bool = False

    def at(self, frame: int | None) -> Image.Image:
        """What the tile shows: of a clip, one frame, or four of them from first to last if none is named."""
        if isinstance(self.image, Image.Image):
            return self.image
        clip = self.image
        if frame is not None:
            return clip[min(frame, len(clip) - 1)]
        width, height = clip[0].size
        four = Image.new("RGB", (2 * width, 2 * height))
        for i in range(4):
            shown = clip[round(i * (len(clip) - 1) / 3)]
            four.paste(shown.convert("RGB"), (i % 2 * width, i // 2 * height))
        return four


@dataclass(frozen=True)
class Row:
    title: str
    text: str
    panels: Sequence[Panel]


def sheet(title: str, rows: Sequence[Row], frame: int | None = None) -> Image.Image:
    """All rows under each other, inputs framed in orange on the left, results beside them; clips at this frame."""
    big, medium, small = (ImageFont.load_default(size) for size in (26, 19, 13))
    line = 17
    high = 34 + TILE + 10 + CAPTION_LINES * line + 18
    width = 2 * EDGE + max(len(r.panels) for r in rows) * (TILE + GAP) - GAP
    page = Image.new("RGB", (width, EDGE + 64 + len(rows) * high), PAPER)
    draw = ImageDraw.Draw(page)
    draw.text((EDGE, EDGE), title, INK, big)
    draw.text(
        (EDGE, EDGE + 36),
        "Framed in orange: what was given. Every other picture carries its recipe inside.",
        SOFT,
        small,
    )
    for i, row in enumerate(rows):
        top = EDGE + 64 + i * high
        draw.text((EDGE, top), row.title, INK, medium)
        draw.text((EDGE + draw.textlength(row.title, medium) + 14, top + 5), row.text, SOFT, small)
        for j, panel in enumerate(row.panels):
            left = EDGE + j * (TILE + GAP)
            page.paste(panel.at(frame).convert("RGB").resize((TILE, TILE), Image.Resampling.LANCZOS), (left, top + 34))
            if panel.given:
                draw.rectangle((left - 3, top + 31, left + TILE + 2, top + 34 + TILE + 2), outline=GIVEN, width=3)
            for k, words in enumerate(wrapped(panel.caption, small, draw)[:CAPTION_LINES]):
                draw.text((left, top + 34 + TILE + 8 + k * line), words, GIVEN if panel.given else SOFT, small)
    return page


def moving(title: str, rows: Sequence[Row]) -> list[Image.Image]:
    """The sheet once for each frame of its longest clip."""
    lengths = [1 if isinstance(p.image, Image.Image) else len(p.image) for r in rows for p in r.panels]
    return [sheet(title, rows, frame) for frame in range(max(lengths))]


def save_moving(frames: Sequence[Image.Image], path: Path, milliseconds: int = 125, rest: int = 750) -> Path:
    """An endless GIF that rests on its last frame."""
    # small solids of rare colours would vanish from a palette that counts pixels alone
    frames = [f.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=1) for f in frames]
    times = [milliseconds] * (len(frames) - 1) + [rest]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=times, loop=0, optimize=True)
    return path


def wrapped(text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, draw: ImageDraw.ImageDraw) -> list[str]:
    """Lines no wider than a tile, broken between words."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and draw.textlength(longer, font) > TILE:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
