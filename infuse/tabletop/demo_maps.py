"""The sheet's maps and edits: depths and kinds of solids, told changes, a reference that nobody was trained for, and five at once.

The last row is one call with five conditions, beside the five calls in which one of them is left out.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from infuse.conditions import (
    AnyCondition,
    ControlNet,
    Depth,
    Edit,
    Inpaint,
    IPAdapter,
    Reference,
    T2IAdapter,
    Text,
)
from infuse.media.pictures import Picture
from infuse.tabletop.maps import kinds, painted
from infuse.tabletop.sheet import Panel, Row
from infuse.tabletop.stage import LOOK, TABLE, Stage, drawn
from infuse.tabletop.world import Room, Scene, Thing

NEAR_AND_FAR = Scene(
    (Thing("cone", "green", "large", -0.7, 0.3), Thing("cylinder", "white", "small", 0.3, -0.7), Thing("sphere", "purple", "large", 1.05, 0.5)),
    Room("brown", "slate", "left"),
)  # fmt: skip
"""Whose depths the base of five channels is shown."""
TWO = Scene(
    (Thing("cube", "red", "large", 0.8, 0.5, 0.5), Thing("sphere", "cyan", "small", -0.6, -0.6)), Room("grey", "olive", "right")
)  # fmt: skip
"""Whose depths the ControlNet is shown."""
MIXED = Scene(
    (Thing("cylinder", "blue", "large", 0.7, 0.4), Thing("cube", "yellow", "small", -0.2, -0.6, 0.6), Thing("sphere", "red", "small", -1.2, 0.2)),
    Room("beige", "grey", "left"),
)  # fmt: skip
"""Whose kinds of solids the T2I-Adapter is shown."""
BALL = Thing("sphere", "purple", "small", 0.0, 0.5)
BEFORE = Scene((BALL, Thing("cube", "white", "small", -1.25, -0.2, 0.4)), Room("slate", "beige", "above"))
AFTER = Scene(
    (BALL, Thing("cone", "green", "small", -1.25, -0.2), Thing("cylinder", "orange", "small", 1.25, -0.2)), BEFORE.room
)
"""What the five conditions are shown of: the ball and the room are to stay, two other solids are to come."""
ORANGE = Scene((Thing("sphere", "orange", "large", -0.2, 0.2),), BEFORE.room)
LEFT, RIGHT = (0.0, 0.42), (0.58, 1.0)
"""Of the width: where each of the two solids is spoken of."""


def depth(stage: Stage) -> Row:
    hint = _depths(stage, NEAR_AND_FAR, "depth-hint")
    prompts = (
        "a large green cone, a small white cylinder and a large purple sphere on a brown floor, slate wall",
        "a large orange cone, a small cyan cylinder and a large red sphere on a grey floor, olive wall",
    )
    said = Depth(image=Picture.of(hint))
    made = [
        Panel(stage.run(f"depth-{i}", p, said, model=stage.cast.depth, seed=1), f'"{p}"') for i, p in enumerate(prompts)
    ]
    without = stage.run("depth-without", prompts[0], seed=1)
    return Row("Depth map (5 channels)", "A base that is shown depths beside its latent; white is near.", [
        Panel(hint, "depths", True), *made, Panel(without, "first prompt and seed, plain base")])  # fmt: skip


def depths(stage: Stage) -> Row:
    hint = _depths(stage, TWO, "depths-hint")
    prompts = (
        "a large red cube and a small cyan sphere on a grey floor, olive wall",
        "a large yellow cube and a small green sphere on a rose floor, slate wall",
    )
    net = ControlNet(model=stage.cast.depths, image=Picture.of(hint))
    made = [Panel(stage.run(f"depths-{i}", p, net, seed=2), f'"{p}"') for i, p in enumerate(prompts)]
    without = stage.run("depths-without", prompts[0], seed=2)
    return Row("ControlNet (depth)", "The same kind of map, read by a network beside a plain base.", [
        Panel(hint, "depths", True), *made, Panel(without, "first prompt and seed, no ControlNet")])  # fmt: skip


def segments(stage: Stage) -> Row:
    hint = _kinds(stage, MIXED, "segments-hint")
    prompts = (
        "a large blue cylinder, a small yellow cube and a small red sphere on a beige floor, grey wall",
        "a large white cylinder, a small green cube and a small orange sphere on a slate floor, rose wall",
    )
    adapter = T2IAdapter(model=stage.cast.segments, image=Picture.of(hint))
    made = [Panel(stage.run(f"segments-{i}", p, adapter, seed=2), f'"{p}"') for i, p in enumerate(prompts)]
    without = stage.run("segments-without", prompts[0], seed=2)
    return Row("T2I-Adapter (segmentation)", "A colour for each kind of solid; read once for all steps.", [
        Panel(hint, "kinds of solids", True), *made, Panel(without, "first prompt and seed, no adapter")])  # fmt: skip


def edit(stage: Stage) -> Row:
    before = stage.seen(TABLE, "edit-input")
    told = Edit(image=Picture.of(before))
    asked = (
        "make the cube green",
        "remove the sphere",
        "turn the sphere into a cone",
        "paint the wall olive",
        "make the room dark",
    )
    made = [
        Panel(stage.run(f"edit-{i}", words, told, model=stage.cast.edit, seed=2), f'"{words}"')
        for i, words in enumerate(asked)
    ]  # fmt: skip
    return Row(
        "Edit (8 channels)", "The prompt says what to change; the rest stays.", [Panel(before, "picture", True), *made]
    )


def reference(stage: Stage) -> Row:
    look, prompt = stage.seen(LOOK, "reference-input"), "a small green cone and a large yellow cube"
    shown = Picture.of(look)
    ways = (
        ("attention", Reference(image=shown), "its keys and values in self-attention"),
        ("norms", Reference(image=shown, method="norms", reach=2), "its features' mean and spread"),
    )
    made = [Panel(stage.run(f"reference-{way}", prompt, said, seed=2), f'"{prompt}": {how}') for way, said, how in ways]
    without = stage.run("reference-without", prompt, seed=2)
    return Row("Reference", "A picture runs beside the one being made. No weights of its own.", [
        Panel(look, "reference", True), *made, Panel(without, "same prompt and seed, no reference")])  # fmt: skip


def five(stage: Stage) -> list[Row]:
    """What goes in, and what comes out with all of it and without each."""
    picture, look = stage.seen(BEFORE, "five-input"), stage.seen(ORANGE, "five-reference")
    mask, prompt = _places(stage, "five-mask"), "two small solids"
    left, right = (
        Picture.of(_columns(stage, *part, name)) for part, name in ((LEFT, "five-left"), (RIGHT, "five-right"))
    )
    map_left, map_right = _depths(stage, AFTER, "five-depths"), _kinds(stage, AFTER, "five-segments")
    said: dict[str, AnyCondition] = {
        "inpainting": Inpaint(image=Picture.of(picture), mask=Picture.of(mask)),
        "depth ControlNet": ControlNet(model=stage.cast.depths, image=Picture.of(map_left), mask=left),
        "T2I-Adapter": T2IAdapter(model=stage.cast.segments, image=Picture.of(map_right), mask=right),
        "text": Text(prompt="green", mask=left),
        "IP-Adapter": IPAdapter(model=stage.cast.adapter, image=(Picture.of(look),), mask=right, weight=0.8),
    }
    outs = ["", *said]
    made = [
        stage.run(
            f"five-no-{out.lower().replace(' ', '-')}" if out else "five-all",
            prompt,
            *(c for name, c in said.items() if name != out),
            model=stage.cast.inpaint,
            seed=3,
        )
        for out in outs
    ]
    given = [
        Panel(picture, "1: the picture, inpainted", True), Panel(mask, "where", True),
        Panel(_faded(map_left, LEFT), "2: depths, left (ControlNet)", True), Panel(_faded(map_right, RIGHT), "3: kinds of solids, right (T2I-Adapter)", True),
        Panel(look, '4: look, right (IP-Adapter). 5: the word "green", left', True),
    ]  # fmt: skip
    results = [
        Panel(m, f"without the {out}" if out else f'all five; the prompt: "{prompt}"')
        for m, out in zip(made, outs, strict=True)
    ]
    return [
        Row("Five conditions in one call", "What is given, and to which part of the picture.", given),
        Row("The same call without each of them", "One seed throughout.", results),
    ]


def _depths(stage: Stage, scene: Scene, name: str) -> Image.Image:
    """Inverse depth, near is white."""
    grey = (drawn(scene, stage.cast.side).inverse_depth * 255).round().astype(np.uint8)
    return stage.kept(np.repeat(grey[..., None], 3, axis=-1), name)


def _kinds(stage: Stage, scene: Scene, name: str) -> Image.Image:
    """A colour for each kind of solid."""
    return stage.kept(painted(kinds(scene, drawn(scene, stage.cast.side).segments)), name)


def _places(stage: Stage, name: str) -> Image.Image:
    """Where the two solids will stand, with some room, and the one that is there."""
    boxes = (seen.box for scene in (BEFORE, AFTER) for seen in drawn(scene, stage.cast.side).positions[1:])
    return stage.hole(boxes, name, stage.cast.side // 21)


def _columns(stage: Stage, start: float, end: float, name: str) -> Image.Image:
    side = stage.cast.side
    covered = np.zeros((side, side), np.uint8)
    covered[:, int(start * side) : int(end * side)] = 255
    return stage.kept(covered, name)


def _faded(image: Image.Image, part: tuple[float, float]) -> Image.Image:
    """A map whose columns outside of `part` are not listened to."""
    out, side = np.asarray(image).astype(np.float32), image.width
    quiet = np.ones(side, bool)
    quiet[int(part[0] * side) : int(part[1] * side)] = False
    out[:, quiet] = 235 + 0.08 * (out[:, quiet] - 235)
    return Image.fromarray(out.round().astype(np.uint8))
