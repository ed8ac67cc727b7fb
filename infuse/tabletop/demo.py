"""The main job on one sheet: what each condition did, beside what comes of the same seed without it.

Every picture is one call of one engine; the sheet's last row is all conditions in a single call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from infuse.conditions import AnyCondition, ControlNet, Img2Img, Inpaint, IPAdapter
from infuse.media.pictures import Picture
from infuse.recipe import Recipe
from infuse.tabletop.sheet import Panel, Row, moving, save_moving, sheet
from infuse.tabletop.world import Camera, Room, Scene, Thing

if TYPE_CHECKING:
    from infuse.engine.engine import Engine

SHEET, CLIPS = "contact_sheet.png", "clips.gif"


@dataclass(frozen=True)
class Cast:
    """Names of the models that play, their size in pixels, and how long."""

    base: str = "tabletop"
    inpaint: str = "tabletop-inpaint"
    edges: str = "edges"
    adapter: str = "ip-adapter"
    video: str = "tabletop-video"
    side: int = 128
    steps: int = 30
    frames: int = 8
    clip_steps: int = 16
    guidance: float | None = None


TABLE = Scene(
    (Thing("cube", "red", "large", -0.75, 0.2, 0.5), Thing("sphere", "blue", "small", 0.9, -0.5)), Room("grey", "beige", "left")
)  # fmt: skip
"""The picture that is painted over, and in which a hole is filled."""
TARGET = Scene(
    (Thing("cone", "green", "large", -0.75, 0.2), Thing("sphere", "blue", "small", 0.9, -0.5)), Room("grey", "beige", "left")
)  # fmt: skip
"""The same table with a cone where the cube was: its edges say what the hole is to hold."""
LAYOUT = Scene(
    (Thing("cylinder", "yellow", "large", 0.8, 0.3), Thing("cube", "purple", "small", -0.9, -0.3, 0.6)), Room("olive", "rose", "above")
)  # fmt: skip
"""The composition whose edges the ControlNet is shown."""
LOOK = Scene(
    (Thing("cone", "orange", "large", -0.5, 0.0), Thing("cylinder", "cyan", "small", 0.9, -0.4)), Room("slate", "rose", "right")
)  # fmt: skip
"""The picture that is shown to the IP-Adapter."""
COLOURS = Scene((Thing("cone", "purple", "large", -0.4, 0.1),), Room("grey", "beige", "left"))
"""What the IP-Adapter is shown where the words name no colour and the room must stay."""


def demo(
    out: Path, engine: Engine | None = None, cast: Cast | None = None, say: Callable[[Path], None] = lambda path: None
) -> Path:
    """Make every picture and the sheet in `out`; returns the sheet's path. `say` is told of each picture.

    Clips are on the sheet as four of their frames; beside it lies a GIF of their rows in which they move.
    """
    from infuse.engine.engine import Engine
    from infuse.tabletop.demo_powerpaint import rows as powerpaint
    from infuse.tabletop.demo_video import rows as video

    cast = cast or Cast()
    stage = Stage(engine or Engine(cast.base, max_rows=1), cast, out, say)
    rows = [
        stage.text(),
        stage.img2img(),
        stage.inpaint(),
        *powerpaint(stage),
        stage.controlnet(),
        stage.ip_adapter(),
        stage.combination(),
    ]
    clips = video(stage)
    path = out / SHEET
    sheet("infuse: any combination of conditions, in one call", [*rows, *clips]).save(path)
    say(save_moving(moving("infuse: the same for clips", clips), out / CLIPS))
    return path


@dataclass(frozen=True)
class Stage:
    """One engine and one folder; each method is a row of the sheet."""

    engine: Engine
    cast: Cast
    out: Path
    say: Callable[[Path], None]

    def text(self) -> Row:
        prompts = (
            "a large red cube and a small blue sphere on a grey floor, beige wall",
            "a small green cone on a brown floor, slate wall",
            "a large purple cylinder on a beige floor, rose wall",
            "a small white ball and a small yellow cone, olive floor, grey wall",
        )
        seeds = range(8, 8 + len(prompts))
        made = [self.run(f"text-{i}", p, seed=s) for i, (p, s) in enumerate(zip(prompts, seeds, strict=True))]
        return Row(
            "Text",
            "Words alone.",
            [Panel(m, f'"{p}", seed {s}') for m, p, s in zip(made, prompts, seeds, strict=True)],
        )

    def img2img(self) -> Row:
        start, prompt = (
            self.seen(TABLE, "img2img-input"),
            "a large yellow cube and a small green sphere on a grey floor, beige wall",
        )
        made = [
            Panel(
                self.run(f"img2img-{s}", prompt, Img2Img(image=Picture.of(start), strength=s), seed=0),
                f'"{prompt}", strength {s}',
            )
            for s in (0.3, 0.6, 0.8)
        ]
        return Row(
            "Start picture",
            "Repaint part of the way: the more strength, the less is left.",
            [Panel(start, "start picture", True), *made],
        )

    def inpaint(self) -> Row:
        picture, mask = self.seen(TABLE, "inpaint-input"), self.hole("inpaint-mask")
        hole = Inpaint(image=Picture.of(picture), mask=Picture.of(mask))
        prompts = ("a large green cone", "a large yellow cylinder")
        made = [
            Panel(self.run(f"inpaint-{i}", p, hole, model=self.cast.inpaint, seed=5), f'"{p}"')
            for i, p in enumerate(prompts)
        ]
        plain = self.run("inpaint-blended", prompts[0], hole, seed=5)
        return Row("Inpainting", "Fill the white part of the mask, keep the rest to the pixel.", [
            Panel(picture, "picture", True), Panel(mask, "mask", True), *made,
            Panel(plain, "the same on a plain 4-channel base, blended after each step"),
        ])  # fmt: skip

    def controlnet(self) -> Row:
        hint = self.edges(LAYOUT, "controlnet-hint")
        prompts = (
            "a large yellow cylinder and a small purple cube on an olive floor, rose wall",
            "a large white cylinder and a small red cube on a brown floor, slate wall",
        )
        net = ControlNet(model=self.cast.edges, image=Picture.of(hint))
        made = [Panel(self.run(f"controlnet-{i}", p, net, seed=7), f'"{p}"') for i, p in enumerate(prompts)]
        without = self.run("controlnet-without", prompts[0], seed=7)
        return Row("ControlNet (edges)", "The words say what, the edges say where.", [
            Panel(hint, "edges", True), *made, Panel(without, "first prompt and seed, no ControlNet")])  # fmt: skip

    def ip_adapter(self) -> Row:
        look = self.seen(LOOK, "ip-adapter-input")
        made = [
            Panel(
                self.run(
                    f"ip-adapter-{w}",
                    "",
                    IPAdapter(model=self.cast.adapter, image=(Picture.of(look),), weight=w),
                    seed=9,
                ),
                f"no words, weight {w}",
            )
            for w in (0.5, 1.0)
        ]
        without = self.run("ip-adapter-without", "", seed=9)
        return Row("IP-Adapter", "A picture as a prompt: no words, the look of the reference.", [
            Panel(look, "reference", True), *made, Panel(without, "same seed, no IP-Adapter")])  # fmt: skip

    def combination(self) -> Row:
        picture, mask = self.seen(TABLE, "all-input"), self.hole("all-mask")
        hint, look = self.edges(TARGET, "all-hint"), self.seen(COLOURS, "all-reference")
        prompt = "a large cone"
        everything: tuple[AnyCondition, ...] = (
            Inpaint(image=Picture.of(picture), mask=Picture.of(mask)), ControlNet(model=self.cast.edges, image=Picture.of(hint)),
            IPAdapter(model=self.cast.adapter, image=(Picture.of(look),), weight=0.7),
        )  # fmt: skip

        def run(name: str, conditions: Sequence[AnyCondition]) -> Image.Image:
            return self.run(name, prompt, *conditions, model=self.cast.inpaint, seed=8)

        return Row("All in one call", f'Inpainting + ControlNet + IP-Adapter, "{prompt}".', [
            Panel(picture, "picture", True), Panel(mask, "mask", True), Panel(hint, "edges", True), Panel(look, "reference", True),
            Panel(run("all", everything), "all three"), Panel(run("all-no-controlnet", everything[::2]), "same seed, no ControlNet"),
            Panel(run("all-no-ip-adapter", everything[:2]), "same seed, no IP-Adapter"),
        ])  # fmt: skip

    # ── pictures in, pictures out ───────────────────────────────────────────────────────────────────────────────────

    def run(self, name: str, prompt: str, *conditions: AnyCondition, model: str = "", seed: int = 0) -> Image.Image:
        """One picture, saved with its recipe."""
        recipe = Recipe(model=model or self.cast.base, prompt=prompt, conditions=conditions, seed=seed, steps=self.cast.steps,
                        guidance=self.cast.guidance, width=self.cast.side, height=self.cast.side)  # fmt: skip
        result = self.engine.run(recipe)
        self.say(result.save(self.out / f"{name}.png")[0])
        return result.image

    def seen(self, scene: Scene, name: str) -> Image.Image:
        """A scene as the renderer draws it."""
        return self.kept(drawn(scene, self.cast.side).rgb, name)

    def edges(self, scene: Scene, name: str) -> Image.Image:
        return self.kept(np.repeat(drawn(scene, self.cast.side).edges[..., None], 3, axis=-1), name)

    def hole(self, name: str) -> Image.Image:
        """Where the cube of TABLE stands or the cone of TARGET will, with room around."""
        covered = np.zeros((self.cast.side, self.cast.side), np.uint8)
        for scene in (TABLE, TARGET):
            left, top, right, bottom = drawn(scene, self.cast.side).positions[0].box
            room = self.cast.side // 20
            covered[max(int(top) - room, 0) : int(bottom) + room, max(int(left) - room, 0) : int(right) + room] = 255
        return self.kept(covered, name)

    def kept(self, array: np.ndarray, name: str) -> Image.Image:
        self.out.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(array)
        image.save(self.out / f"{name}.png")
        return image


def drawn(scene: Scene, side: int) -> Any:
    """The render of a scene, seen from where nothing shakes."""
    from infuse.tabletop.render import render

    return render(Scene(scene.things, scene.room, Camera()), (side, side))
