"""The sheet's clips: words, arrows, depths, a first picture and a hole, each beside what comes without it."""

from __future__ import annotations

from functools import cache

import numpy as np
from PIL import Image

from infuse.conditions import AnyCondition, ControlNet, DepthVideo, IPAdapter, MaskedVideo, Motion, SingleImage
from infuse.encoders.drawn_motion import arrows_picture
from infuse.media.films import Film
from infuse.media.pictures import Picture
from infuse.recipe import Recipe
from infuse.tabletop.flow import FIRST_THING, Clip, film
from infuse.tabletop.move_paths import drawn_paths
from infuse.tabletop.moves import STAY, Move, Route
from infuse.tabletop.sheet import Panel, Row
from infuse.tabletop.stage import LOOK, Stage
from infuse.tabletop.world import Camera, Room, Scene, Thing

STILL = Scene(
    (Thing("cube", "red", "large", -0.9, 0.0, 0.5), Thing("sphere", "blue", "small", 1.25, 0.5)), Room("grey", "beige", "left"), Camera()
)  # fmt: skip
"""What the single image shows."""
GOING = {"right": Route(0.0, 1.0), "hop": Route(0.0, 0.9, hops=2, height=0.4)}
"""Ways of its cube, as they are drawn."""
HOPPING = Move(
    Scene((Thing("cone", "green", "large", -1.0, 0.1), Thing("cube", "white", "small", 0.9, -0.5, 0.4)), Room("brown", "slate", "above"), Camera()),
    (Route(0.0, 1.3, hops=2, height=0.35), STAY),
)  # fmt: skip
"""Whose depths are shown, and into whose hole another thing is painted."""


def rows(stage: Stage) -> list[Row]:
    """A row for each condition of clips."""
    return [words(stage), depth(stage), image(stage), hole(stage), together(stage)]


def words(stage: Stage) -> Row:
    """The same words and seed, alone and with an arrow."""
    prompt = "a large red cube and a small blue sphere on a grey floor, beige wall"
    told = "a large red cube moves to the right and a small blue sphere on a grey floor, beige wall"
    made = [
        Panel(_run(stage, "video-text", prompt, seed=1), f'"{prompt}"'),
        Panel(_run(stage, "video-verb", told, seed=1), f'"{told}"'),
    ]
    for name, route in GOING.items():
        drawn, shown = _way(stage, route, None, f"video-arrow-{name}")
        made += [
            shown,
            Panel(_run(stage, f"video-motion-{name}", prompt, drawn, seed=1), "first words and seed, with it"),
        ]
    return Row("Clips: text and drawn motion", "The words say what, the arrow says where it goes.", made)


def depth(stage: Stage) -> Row:
    clip = _drawn(stage, HOPPING)
    grey = _grey(clip.inverse_depth)
    given = _frames(grey)
    said = DepthVideo(film=Film.of(grey))
    prompts = (
        "a large green cone and a small white cube on a brown floor, slate wall",
        "a large yellow cone and a small purple cube on an olive floor, rose wall",
    )
    made = [Panel(_run(stage, f"video-depth-{i}", p, said, seed=3), f'"{p}"') for i, p in enumerate(prompts)]
    without = Panel(_run(stage, "video-depth-without", prompts[0], seed=3), "first words and seed, no depths")
    return Row("Clips: depth", "A film of depths says what stands where, in every frame.", [
        Panel(given, "depths", True), *made, without])  # fmt: skip


def image(stage: Stage) -> Row:
    """A picture begins to move, and an arrow says how."""
    start = stage.seen(STILL, "video-image-input")
    first, prompt = SingleImage(image=Picture.of(start)), "a large red cube and a small blue sphere"
    made = [Panel(start, "picture", True)]
    for name, route in GOING.items():
        drawn, shown = _way(stage, route, start, f"video-image-arrow-{name}")
        both = _run(stage, f"video-image-{name}", prompt, first, drawn, seed=2)
        made += [shown, Panel(both, f'"{prompt}", picture and arrow')]
    alone = Panel(_run(stage, "video-image", prompt, first, seed=2), "same words and seed, the picture alone")
    return Row("Clips: single image and motion", "A picture begins to move; the arrow says how.", [*made, alone])


def hole(stage: Stage) -> Row:
    """A thing in a film becomes another one, and goes its way."""
    clip, side = _drawn(stage, HOPPING), stage.cast.side
    masks = _grey(np.stack([_box(s == FIRST_THING, side // 12) for s in clip.segments]))
    said = MaskedVideo(film=Film.of(clip.rgb), mask=Film.of(masks))
    prompts = (
        "a large orange cone on a brown floor, slate wall",
        "a large blue sphere on a brown floor, slate wall",
    )
    made = [Panel(_run(stage, f"video-mask-{i}", p, said, seed=4), f'"{p}"') for i, p in enumerate(prompts)]
    return Row("Clips: inpainting", "Fill what is white in the mask of each frame.", [
        Panel(_frames(clip.rgb), "film", True), Panel(_frames(masks), "mask", True), *made])  # fmt: skip


def together(stage: Stage) -> Row:
    """A ControlNet and an IP-Adapter of the picture model, and depths beside them."""
    clip = _drawn(stage, HOPPING)
    grey, lines = _grey(clip.inverse_depth), _grey(clip.edges / 255)
    look, prompt = stage.seen(LOOK, "video-look"), "a large cone and a small cube"
    depths, adapter = (
        DepthVideo(film=Film.of(grey)),
        IPAdapter(model=stage.cast.adapter, image=(Picture.of(look),), weight=0.8),
    )
    edges = ControlNet(model=stage.cast.edges, image=Picture.of(lines[0]), weight=0.8)
    made = [
        Panel(_run(stage, f"video-{name}", prompt, *said, seed=3), f'"{prompt}", {what}')
        for name, said, what in (
            ("all", (depths, adapter), "depths and reference"), ("edges", (edges, adapter), "edges and reference"),
            ("no-look", (depths,), "depths alone"),
        )
    ]  # fmt: skip
    return Row("Clips: with the picture model's ControlNet and IP-Adapter", "Conditions add.", [
        Panel(_frames(grey), "depths", True), Panel(look, "reference", True),
        Panel(stage.kept(lines[0], "video-edges-input"), "edges, for all frames", True), *made,
    ])  # fmt: skip


def _run(stage: Stage, name: str, prompt: str, *conditions: AnyCondition, seed: int) -> tuple[Image.Image, ...]:
    """A clip's frames, saved as a GIF with its recipe."""
    cast = stage.cast
    recipe = Recipe(model=cast.video, prompt=prompt, conditions=conditions, seed=seed, steps=cast.clip_steps, scheduler="DPM++ 2M",
                    guidance=cast.guidance, width=cast.side, height=cast.side, frames=cast.frames)  # fmt: skip
    result = stage.engine.run(recipe)
    stage.say(result.save(stage.out / f"{name}.gif")[0])
    return result.frames[0]


def _way(stage: Stage, route: Route, on: Image.Image | None, name: str) -> tuple[Motion, Panel]:
    """The cube's way as a condition, and as a picture with its arrow."""
    side = 2 * stage.cast.side
    paths = drawn_paths(Move(STILL, (route, STAY)), stage.cast.frames)
    shown = arrows_picture(paths, on or Image.new("RGB", (side, side), (226, 224, 218)), (side, side))
    return Motion(drawn=paths), Panel(stage.kept(np.asarray(shown), name), "drawn motion", True)


def _drawn(stage: Stage, move: Move) -> Clip:
    return _filmed(move, stage.cast.frames, stage.cast.side)


@cache
def _filmed(move: Move, frames: int, side: int) -> Clip:
    return film(move, frames, (side, side))


def _frames(clip: np.ndarray) -> tuple[Image.Image, ...]:
    return tuple(Image.fromarray(f) for f in clip)


def _grey(layers: np.ndarray) -> np.ndarray:
    """(f h w) of 0 to 1, as frames (f h w 3) uint8."""
    return np.repeat((layers * 255).round().astype(np.uint8)[..., None], 3, -1)


def _box(inside: np.ndarray, room: int) -> np.ndarray:
    """True in the box around what is inside, and so far around."""
    y, x = np.nonzero(inside)
    out = np.zeros_like(inside)
    out[max(y.min() - room, 0) : y.max() + room + 1, max(x.min() - room, 0) : x.max() + 2 * room + 1] = True
    return out
