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
from PIL import Image

from infuse.tabletop.sheet import Panel, Row, sheet

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
Strip = tuple[str, str, Mapping[str, str]]
"""Title, a line, and what is shown: a file's name and the words under it."""
PAGES: Mapping[str, Sequence[Strip]] = {
    "words": [
        ("Words in their places", "The prompt, and a text in each of two regions.", {
            "alone": TABLE, "left": "region of the first text", "right": "region of the second", "first": "a yellow cone, a blue sphere",
            "swapped": "the same, swapped"})],
    "inpaint": [
        ("A start", "The more strength, the less of the picture is left.", {
            "room": "picture", **{f"start-{s}": f"{YELLOW}, strength {s}" for s in (0.5, 0.7, 0.9)}}),
        ("A hole", "What is white is filled, the rest stays to the pixel.", {
            "room": "picture", "mask": "mask", "cone": '"a large green cone"', "blended": "the same on a base of four channels",
            "looked": "no words, and an IP-Adapter with a look", "wide": "no mask, 24 pixels more on the left and on the right"})],
    "controlnet": [
        ("ControlNets", "The words say what, the map says where.", {
            "edges": "edges", "by-edges": ROSE, "depth": "depths", "by-depths": "the same by depths",
            "by-half": "depths on the left only", "alone": "the same words and seed, no ControlNet"}),
        ("A photo's own edges", "annotator: canny", {
            "room": "photo", "by-photo": '"a large white cube and a small green sphere on a brown floor, slate wall"'})],
    "t2i": [
        ("T2I-Adapter", "The words say what, the map says what kind of solid is where.", {
            "segments": "map of kinds", "rose": ROSE, "slate": SLATE, "early": "the first, weight 0.4, end 0.5",
            "alone": "the first without it"})],
    "ip-adapter": [
        ("IP-Adapter", "A picture as a prompt.", {
            "look": "look", "wordless": "no words", "depth": "depths for a ControlNet", "placed": "look and depths, no words",
            "room": "a second look", "two": "the first on the left, the second on the right", "alone": "the same words and seed, no look"})],
    "reference": [
        ("Reference", "No file: a picture runs beside the one being made.", {
            "room": "reference", "attention": f"{CONE}, attention", "norms": "norms", "both": "both",
            "alone": "the same words and seed, no reference"})],
    "bases": [
        ("depth", "A base of five channels.", {
            "depth": "depth map", "rose": ROSE, "slate": SLATE, "look": "a look", "beside": "no words, and an IP-Adapter with the look"}),
        ("edit", "A base of eight channels.", {
            "room": "picture", "green": '"make the cube green"', "removed": '"remove the sphere"', "turned": '"turn the cube into a cone"'})],
}  # fmt: skip


def made(page: str, folder: Path) -> Image.Image:
    """The page's picture: its blocks are run in the folder, and what they save is laid beside each other."""
    names: dict[str, Any] = {}
    text = (DOCS / f"{page}.md").read_text("utf-8")
    for block in re.findall(r"^```python run picture\n([\s\S]*?)^```$", text, re.M):
        exec(compile(block, page, "exec"), names)
    rows = []
    for title, line, shown in PAGES[page]:
        files = {name: next(folder.glob(f"{name}.png")) for name in shown}
        panels = [Panel(squared(Image.open(path)), shown[name], name in GIVEN) for name, path in files.items()]
        rows.append(Row(title, line, panels))
    whole = sheet(text.partition("\n")[0].removeprefix("# "), rows)
    return whole.resize((whole.width * 2 // 3, whole.height * 2 // 3), Image.Resampling.LANCZOS)


def squared(image: Image.Image) -> Image.Image:
    """On the sheet's paper, if it is no square."""
    side = max(image.size)
    paper = Image.new("RGB", (side, side), (250, 249, 246))
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
