"""The sheet's pictures: words, a start, a hole, edges and a reference, each alone, and the last three in one call."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from infuse.conditions import AnyCondition, ControlNet, Img2Img, Inpaint, IPAdapter
from infuse.media.pictures import Picture
from infuse.tabletop.sheet import Panel, Row
from infuse.tabletop.stage import LOOK, TABLE, Stage, drawn
from infuse.tabletop.world import Room, Scene, Thing

TARGET = Scene(
    (Thing("cone", "green", "large", -0.75, 0.2), Thing("sphere", "blue", "small", 0.9, -0.5)), Room("grey", "beige", "left")
)  # fmt: skip
"""The same table with a cone where the cube was: its edges say what the hole is to hold."""
LAYOUT = Scene(
    (Thing("cylinder", "yellow", "large", 0.8, 0.3), Thing("cube", "purple", "small", -0.9, -0.3, 0.6)), Room("olive", "rose", "above")
)  # fmt: skip
"""The composition whose edges the ControlNet is shown."""
COLOURS = Scene((Thing("cone", "purple", "large", -0.4, 0.1),), Room("grey", "beige", "left"))
"""What the IP-Adapter is shown where the words name no colour and the room must stay."""


def text(stage: Stage) -> Row:
    prompts = (
        "a large red cube and a small blue sphere on a grey floor, beige wall",
        "a small green cone on a brown floor, slate wall",
        "a large purple cylinder on a beige floor, rose wall",
        "a small white ball and a small yellow cone, olive floor, grey wall",
    )
    seeds = range(8, 8 + len(prompts))
    made = [stage.run(f"text-{i}", p, seed=s) for i, (p, s) in enumerate(zip(prompts, seeds, strict=True))]
    return Row(
        "Text",
        "Words alone.",
        [Panel(m, f'"{p}", seed {s}') for m, p, s in zip(made, prompts, seeds, strict=True)],
    )


def img2img(stage: Stage) -> Row:
    start, prompt = (
        stage.seen(TABLE, "img2img-input"),
        "a large yellow cube and a small green sphere on a grey floor, beige wall",
    )
    made = [
        Panel(
            stage.run(f"img2img-{s}", prompt, Img2Img(image=Picture.of(start), strength=s), seed=0),
            f'"{prompt}", strength {s}',
        )
        for s in (0.3, 0.6, 0.8)
    ]
    return Row(
        "Start picture",
        "Repaint part of the way: the more strength, the less is left.",
        [Panel(start, "start picture", True), *made],
    )


def inpaint(stage: Stage) -> Row:
    picture, mask = stage.seen(TABLE, "inpaint-input"), _hole(stage, "inpaint-mask")
    hole = Inpaint(image=Picture.of(picture), mask=Picture.of(mask))
    prompts = ("a large green cone", "a large yellow cylinder")
    made = [
        Panel(stage.run(f"inpaint-{i}", p, hole, model=stage.cast.inpaint, seed=5), f'"{p}"')
        for i, p in enumerate(prompts)
    ]
    plain = stage.run("inpaint-blended", prompts[0], hole, seed=7)
    return Row("Inpainting", "Fill the white part of the mask, keep the rest to the pixel.", [
        Panel(picture, "picture", True), Panel(mask, "mask", True), *made,
        Panel(plain, "the same on a plain 4-channel base, blended after each step"),
    ])  # fmt: skip


def controlnet(stage: Stage) -> Row:
    hint = stage.edges(LAYOUT, "controlnet-hint")
    prompts = (
        "a large yellow cylinder and a small purple cube on an olive floor, rose wall",
        "a large white cylinder and a small red cube on a brown floor, slate wall",
    )
    net = ControlNet(model=stage.cast.edges, image=Picture.of(hint))
    made = [Panel(stage.run(f"controlnet-{i}", p, net, seed=7), f'"{p}"') for i, p in enumerate(prompts)]
    without = stage.run("controlnet-without", prompts[0], seed=7)
    return Row("ControlNet (edges)", "The words say what, the edges say where.", [
        Panel(hint, "edges", True), *made, Panel(without, "first prompt and seed, no ControlNet")])  # fmt: skip


def ip_adapter(stage: Stage) -> Row:
    look = stage.seen(LOOK, "ip-adapter-input")
    made = [
        Panel(
            stage.run(
                f"ip-adapter-{w}",
                "",
                IPAdapter(model=stage.cast.adapter, image=(Picture.of(look),), weight=w),
                seed=9,
            ),
            f"no words, weight {w}",
        )
        for w in (0.5, 1.0)
    ]
    without = stage.run("ip-adapter-without", "", seed=9)
    return Row("IP-Adapter", "A picture as a prompt: no words, the look of the reference.", [
        Panel(look, "reference", True), *made, Panel(without, "same seed, no IP-Adapter")])  # fmt: skip


def combination(stage: Stage) -> Row:
    picture, mask = stage.seen(TABLE, "all-input"), _hole(stage, "all-mask")
    hint, look = stage.edges(TARGET, "all-hint"), stage.seen(COLOURS, "all-reference")
    prompt = "a large cone"
    everything: tuple[AnyCondition, ...] = (
        Inpaint(image=Picture.of(picture), mask=Picture.of(mask)), ControlNet(model=stage.cast.edges, image=Picture.of(hint)),
        IPAdapter(model=stage.cast.adapter, image=(Picture.of(look),), weight=0.7),
    )  # fmt: skip

    def run(name: str, conditions: Sequence[AnyCondition]) -> Image.Image:
        return stage.run(name, prompt, *conditions, model=stage.cast.inpaint, seed=8)

    return Row("All in one call", f'Inpainting + ControlNet + IP-Adapter, "{prompt}".', [
        Panel(picture, "picture", True), Panel(mask, "mask", True), Panel(hint, "edges", True), Panel(look, "reference", True),
        Panel(run("all", everything), "all three"), Panel(run("all-no-controlnet", everything[::2]), "same seed, no ControlNet"),
        Panel(run("all-no-ip-adapter", everything[:2]), "same seed, no IP-Adapter"),
    ])  # fmt: skip


def _hole(stage: Stage, name: str) -> Image.Image:
    """Where the cube of TABLE stands or the cone of TARGET will, with room around."""
    boxes = (drawn(scene, stage.cast.side).positions[0].box for scene in (TABLE, TARGET))
    return stage.hole(boxes, name, stage.cast.side // 20)
