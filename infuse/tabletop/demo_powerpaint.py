"""PowerPaint's part of the sheet: each of its tasks beside what went in, and two tasks in one picture."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from infuse.conditions import PowerPaint
from infuse.media.pictures import Picture
from infuse.tabletop.sheet import Panel, Row
from infuse.tabletop.stage import TABLE, Stage, drawn
from infuse.tabletop.world import Room, Scene, Thing

EMPTY = Scene((TABLE.things[1],), TABLE.room)
"""TABLE without its cube: what the shape is painted on."""
PAN = Scene(
    (Thing("sphere", "purple", "large", 0.1, 0.3),), Room("olive", "rose", "above")
)  # fmt: skip
"""What outpainting continues to both sides."""
FITS = (1.0, 0.5, 0.0)


def rows(stage: Stage) -> list[Row]:
    """A row for each task, and one for two regions."""
    return [text(stage), removal(stage), shape(stage), outpaint(stage), regions(stage)]


def text(stage: Stage) -> Row:
    picture, mask = stage.seen(TABLE, "powerpaint-text-input"), _hole(stage, 0, "powerpaint-text-mask")
    made = [
        Panel(_run(stage, f"powerpaint-text-{i}", picture, mask, prompt=p, seed=5), f'"{p}"')
        for i, p in enumerate(("a large green cone", "a large yellow cylinder", "a large orange cone"))
    ]
    return Row(
        "PowerPaint: text",
        "Paint what the words say.",
        [Panel(picture, "picture", True), Panel(mask, "mask", True), *made],
    )


def removal(stage: Stage) -> Row:
    picture = stage.seen(TABLE, "powerpaint-removal-input")
    made = []
    for i, said in ((0, "the cube's"), (1, "the sphere's")):
        mask = _hole(stage, i, f"powerpaint-removal-mask-{i}")
        gone = _run(stage, f"powerpaint-removal-{i}", picture, mask, task="removal", seed=2)
        made += [Panel(mask, f"{said} mask", True), Panel(gone, f"{said} place, empty")]
    return Row(
        "PowerPaint: removal", "No words: continue what lies around the hole.", [Panel(picture, "picture", True), *made]
    )


def shape(stage: Stage) -> Row:
    picture, mask = stage.seen(EMPTY, "powerpaint-shape-input"), _silhouette(stage, "powerpaint-shape-mask")
    prompt = "a large orange cone"
    made = [
        Panel(_run(stage, f"powerpaint-shape-{fit}", picture, mask, task="shape", fit=fit, prompt=prompt, seed=7), f'"{prompt}", fit {fit:g}')
        for fit in FITS
    ]  # fmt: skip
    return Row("PowerPaint: shape", "In the shape of the mask; at a lower fit, more and more in that of the words.", [
        Panel(picture, "picture", True), Panel(mask, "mask", True), *made])  # fmt: skip


def outpaint(stage: Stage) -> Row:
    whole = stage.seen(PAN, "powerpaint-outpaint-whole")
    side = stage.cast.side
    cut = side // 6 // 2 * 2
    middle = whole.crop((cut, 0, side - cut, side))
    made = []
    for seed in (1, 2):
        said = PowerPaint(task="outpaint", image=Picture.of(middle), left=cut, right=cut, overlap=side // 16)
        made.append(
            Panel(
                stage.run(f"powerpaint-outpaint-{seed}", "", said, model=stage.cast.inpaint, seed=seed), f"seed {seed}"
            )
        )
    shown = Image.new("RGB", (side, side), (127, 127, 127))
    shown.paste(middle, (cut, 0))
    return Row(
        "PowerPaint: outpainting",
        "Continue the picture on both sides.",
        [Panel(shown, "picture on its canvas", True), *made],
    )


def regions(stage: Stage) -> Row:
    """Two conditions, two tasks, one picture."""
    picture = stage.seen(TABLE, "powerpaint-regions-input")
    first, second = (_hole(stage, i, f"powerpaint-regions-mask-{i}") for i in (0, 1))
    prompt = "a small yellow cylinder"
    away = PowerPaint(task="removal", image=Picture.of(picture), mask=Picture.of(first), prompt="")
    there = PowerPaint(task="text", image=Picture.of(picture), mask=Picture.of(second), prompt=prompt)

    def run(name: str, *conditions: Any) -> Image.Image:
        return stage.run(name, "", *conditions, model=stage.cast.inpaint, seed=8)

    return Row("PowerPaint: two regions", "Remove here, paint there, in one call.", [
        Panel(picture, "picture", True), Panel(first, "mask of the removal", True), Panel(second, f'mask of "{prompt}"', True),
        Panel(run("powerpaint-regions", away, there), "both"),
        Panel(run("powerpaint-regions-away", away), "the removal alone"), Panel(run("powerpaint-regions-there", there), "the words alone"),
    ])  # fmt: skip


def _run(
    stage: Stage, name: str, picture: Image.Image, mask: Image.Image, seed: int, prompt: str = "", **fields: Any
) -> Image.Image:
    said = PowerPaint(image=Picture.of(picture), mask=Picture.of(mask), **fields)
    return stage.run(name, prompt, said, model=stage.cast.inpaint, seed=seed)


def _hole(stage: Stage, thing: int, name: str) -> Image.Image:
    """A box around a solid of TABLE and most of its shadow."""
    room = stage.cast.side // 16
    return stage.hole([drawn(TABLE, stage.cast.side).positions[thing].box], name, room, 2 * room)


def _silhouette(stage: Stage, name: str) -> Image.Image:
    """Where the cube of TABLE would be seen."""
    from infuse.tabletop.render import FIRST_THING

    inside = drawn(TABLE, stage.cast.side).segments == FIRST_THING
    return stage.kept(inside.astype(np.uint8) * 255, name)
