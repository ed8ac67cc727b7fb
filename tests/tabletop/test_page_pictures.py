"""Beside each condition's example stands what it makes: the blocks marked `picture` on a page, run on the embedded models.

WRITE_PICTURES=1 lays the pictures anew: `WRITE_PICTURES=1 pytest tests/tabletop/test_page_pictures.py -k words`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from infuse.tabletop.sheet import GIVEN as ORANGE
from infuse.tabletop.sheet import INK, PAPER, SOFT

DOCS = Path(__file__).parents[2] / "docs"
ALIKE = 3.0
"""Mean difference, of 255, that another machine's arithmetic may make."""
GIVEN = ("room", "look", "mask", "left", "right", "edges", "depth", "segments")
"""What `infuse.examples()` puts there, and no result."""
CONE, TABLE, ROSE = (
    '"a large purple cone"',
    '"two solids on a grey floor, beige wall"',
    '"a large purple cone and a small white sphere…"',
)
SLATE, YELLOW = '"a large green cone and a small red sphere…"', '"a large yellow cube and a small green sphere…"'
TILE, GAP, LINE = 168, 10, 17
Strip = tuple[str, str, Mapping[str, str]]
"""Title, a line, and what is shown: a file's name and the words under it."""
PAGES: Mapping[str, Sequence[Strip]] = {
    "words": [
        ("Words in their places", "framed: given", {
            "left": "region of the first text", "right": "region of the second", "alone": "the prompt alone: two solids",
            "first": "a large yellow cone, a small blue sphere", "swapped": "the same, swapped"})],
    "lora": [
        ("A LoRA of wooden solids", ROSE, {
            "without": "without it", "half": "weight 0.5", "whole": "weight 1", "left-half": "in the left half only",
            "tag": "a <gold> cube, <lora:wood:0.5>"})],
    "prompts": [
        ("Regions", "a large yellow cone; a small blue sphere", {
            "alone": "the prompt alone: two solids", "attention": "way: attention", "latent": "way: latent"})],
    "inpaint": [
        ("A start", "the more strength, the less of the picture is left", {
            "room": "picture", **{f"start-{s}": f"yellow cube, green sphere; strength {s}" for s in (0.5, 0.7, 0.9)}}),
        ("A hole", "what is white is filled", {
            "mask": "mask", "cone": '"a large green cone"', "blended": "the same, on a base of four channels",
            "looked": "no words; an IP-Adapter with a look", "wide": "no mask; 24 pixels more on the left and the right"})],
    "controlnet": [
        ("Maps", '"a large purple cone and a small white sphere on an olive floor, rose wall"', {
            "edges": "edges", "by-edges": "by the edges", "depth": "depths", "by-depths": "by the depths",
            "by-half": "by the depths, on the left only"}),
        ("A photo", "its edges are drawn by an annotator", {
            "room": "photo", "by-photo": '"a large white cube and a small green sphere…"', "alone": "the first words and seed without a ControlNet"})],
    "t2i": [
        ("A map of kinds", "cone, sphere, floor, wall", {
            "segments": "map", "rose": '"a large purple cone and a small white sphere…"', "slate": '"a large green cone and a small red sphere…"',
            "early": "the first; weight 0.4, end 0.5", "alone": "the first without it"})],
    "ip-adapter": [
        ("A picture as a prompt", "framed: given", {
            "look": "look", "wordless": "no words", "depth": "depths for a ControlNet", "placed": "no words, look and depths"}),
        ("Two of them", "each in a region", {
            "look": "for the left", "room": "for the right", "two": '"a picture of a table", both', "alone": "without them"})],
    "reference": [
        ("A reference", '"a large purple cone"', {
            "room": "reference", "attention": "attention", "norms": "norms", "both": "both", "alone": "without it"})],
    "bases": [
        ("depth", "a base of five channels", {
            "depth": "depth map", "rose": '"a large purple cone and a small white sphere…"', "slate": '"a large green cone and a small red sphere…"',
            "look": "look", "beside": "no words; an IP-Adapter with the look"}),
        ("edit", "a base of eight channels", {
            "room": "picture", "green": '"make the cube green"', "removed": '"remove the sphere"', "turned": '"turn the cube into a cone"'})],
}  # fmt: skip


def made(page: str, folder: Path) -> Image.Image:
    """The page's picture: its blocks are run in the folder, and what they save is laid beside each other."""
    names: dict[str, Any] = {}
    text = (DOCS / f"{page}.md").read_text("utf-8")
    for block in re.findall(r"^```python run picture\n([\s\S]*?)^```$", text, re.M):
        exec(compile(block, page, "exec"), names)
    return laid(
        [
            (title, line, [(squared(Image.open(next(folder.glob(f"{n}.png")))), said, n in GIVEN) for n, said in shown.items()])
            for title, line, shown in PAGES[page]
        ]
    )  # fmt: skip


def laid(rows: Sequence[tuple[str, str, Sequence[tuple[Image.Image, str, bool]]]]) -> Image.Image:
    """Rows of (picture, words under it, whether it was given), as wide as a page shows them, so that the words can be read."""
    big, small = (ImageFont.load_default(size) for size in (17, 14))
    high = 34 + TILE + 8 + 3 * LINE + 12
    wide = GAP + max(len(panels) for _, _, panels in rows) * (TILE + GAP)
    page = Image.new("RGB", (wide, high * len(rows)), PAPER)
    draw = ImageDraw.Draw(page)
    for i, (title, line, panels) in enumerate(rows):
        top = i * high
        draw.text((GAP, top + 8), title, INK, big)
        draw.text((GAP + draw.textlength(title, big) + 12, top + 10), line, SOFT, small)
        for j, (image, said, given) in enumerate(panels):
            left = GAP + j * (TILE + GAP)
            page.paste(image.resize((TILE, TILE), Image.Resampling.LANCZOS), (left, top + 34))
            if given:
                draw.rectangle((left - 2, top + 32, left + TILE + 1, top + 35 + TILE), outline=ORANGE, width=2)
            words = [""]
            for word in said.split():
                longer = f"{words[-1]} {word}".strip()
                words = [*words[:-1], longer] if draw.textlength(longer, small) <= TILE else [*words, word]
            assert len(words) <= 3, f"too long to be read: {said}"
            for k, text in enumerate(words):
                draw.text((left, top + 34 + TILE + 6 + k * LINE), text, ORANGE if given else SOFT, small)
    return page


def squared(image: Image.Image) -> Image.Image:
    """On the sheet's paper, if it is no square."""
    side = max(image.size)
    paper = Image.new("RGB", (side, side), PAPER)
    paper.paste(image.convert("RGB"), ((side - image.width) // 2, (side - image.height) // 2))
    return paper


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_a_page_shows_what_its_example_makes(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    new, path = made(page, tmp_path), DOCS / "images" / f"{page}.jpg"
    if os.environ.get("WRITE_PICTURES"):
        new.save(path, quality=88, subsampling=0, optimize=True)
    with Image.open(path) as shown:
        assert shown.size == new.size
        difference = np.abs(np.asarray(shown.convert("RGB"), float) - np.asarray(new, float)).mean()
    assert difference < ALIKE, f"docs/images/{page}.jpg differs by {difference:.1f} of 255; is it of older weights?"


def test_every_picture_that_is_promised_is_on_its_page() -> None:
    for page in DOCS.glob("*.md"):
        text = page.read_text("utf-8")
        marked = "```python run picture" in text
        assert marked == (page.stem in PAGES), f"{page.name}: PAGES says what of it is shown"
        assert not marked or f"](images/{page.stem}.jpg)" in text, page.name
