"""Clips of held-out moves, by the judge: did they go where words, arrows, depths and a first picture told them to?

Every condition is asked with and without it, under the same words and seeds: the difference is what it does.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from infuse.conditions import AnyCondition, DepthVideo, Motion, SingleImage
from infuse.engine.engine import Engine
from infuse.media.films import Film
from infuse.media.pictures import Picture
from infuse.recipe import Recipe
from infuse.tabletop import measure_clips as measure
from infuse.tabletop.captions import Prompt, canonical
from infuse.tabletop.dataset import HELD_OUT
from infuse.tabletop.flow import Clip, film
from infuse.tabletop.judge import Judge, Seen
from infuse.tabletop.move_captions import canonical_move
from infuse.tabletop.move_paths import drawn_paths
from infuse.tabletop.moves import HOLD, Move, move_at
from infuse.tabletop.world import box

MODEL = "tabletop-video"
"""The embedded video model's name in a recipe."""
OFFSET = 10_000
"""Held-out moves from here on; those before it choose checkpoints and settings."""
TOGETHER = 4
"""Clips that are made at once."""


@dataclass(frozen=True)
class Example:
    """One held-out move whose camera stands still, and its render."""

    index: int
    move: Move
    clip: Clip
    prompt: Prompt
    """The still scene in words, its solids from left to right."""

    @property
    def paths(self) -> np.ndarray:
        """(things, f, 2): where each solid of the prompt is, in 0-1 of the picture."""
        return self.clip.centres[self.order]

    @property
    def order(self) -> list[int]:
        things, camera = self.move.scene.things, self.move.scene.camera
        return sorted(range(len(things)), key=lambda i: sum(box(things[i], camera)[::2]))

    @property
    def words(self) -> str:
        """The same words, and how everything moves."""
        return canonical_move(self.move).text


def examples(count: int, frames: int) -> list[Example]:
    """The first `count` moves of the test stream in which something travels, with the camera held still."""
    out: list[Example] = []
    index = OFFSET
    while len(out) < count:
        move = replace(move_at(HELD_OUT, index), camera=HOLD)
        if drawn_paths(move, frames):
            out.append(Example(index, move, film(move, frames), canonical(move.scene)))
        index += 1
    return out


class ClipScorer:
    """Runs recipes of clips and lets the judge look at every frame. `guidance` None takes the model's own."""

    def __init__(
        self, engine: Engine, judge: Judge, count: int = 64, steps: int = 12, scheduler: str = "DPM++ 2M", frames: int = 8,
        guidance: float | None = None, tell: Callable[[str], None] = print,
    ) -> None:  # fmt: skip
        self.engine, self.judge, self.steps, self.scheduler, self.frames = engine, judge, steps, scheduler, frames
        self.guidance, self.tell = guidance, tell
        self.examples = examples(count, frames)

    def made(
        self, name: str, asked: Callable[[Example], tuple[str, Sequence[AnyCondition]]]
    ) -> Iterator[tuple[Example, np.ndarray, list[Seen]]]:
        """(example, clip (f h w 3), what the judge saw in each frame) for (prompt, conditions) of each example."""
        for start in range(0, len(self.examples), TOGETHER):
            part = self.examples[start : start + TOGETHER]
            told = [asked(e) for e in part]
            results = self.engine.run_all(*(
                Recipe(model=MODEL, prompt=p, conditions=tuple(c), frames=self.frames, seed=e.index, steps=self.steps,
                       scheduler=self.scheduler, guidance=self.guidance)
                for e, (p, c) in zip(part, told, strict=True)
            ))  # fmt: skip
            self.tell(f"{name}: {start + len(part)}/{len(self.examples)}")
            for e, result in zip(part, results, strict=True):
                clip = np.stack([np.asarray(f) for f in result.frames[0]])
                yield e, clip, self.look(clip)

    def look(self, clip: np.ndarray) -> list[Seen]:
        return self.judge.look(torch.from_numpy(clip).permute(0, 3, 1, 2).float() / 255)

    def renders(self) -> dict[str, float]:
        """What the judge says of the held-out renders themselves: the most that any model could reach."""
        seen = [(e, e.clip.rgb, self.look(e.clip.rgb)) for e in self.examples]
        return moved(seen) | deep(seen) | begun(seen)

    def words(self) -> dict[str, float]:
        """Words alone tell scene and motion; directions are right, places and lengths are the model's."""
        seen = list(self.made("words", lambda e: (e.words, ())))
        return moved(seen, placed=False) | begun(seen)

    def motion(self, on: bool) -> dict[str, float]:
        """A first picture and words without verbs; drawn paths say who goes where, or nobody says that anything moves."""

        def asked(e: Example) -> tuple[str, Sequence[AnyCondition]]:
            first = SingleImage(image=Picture.of(e.clip.rgb[0]))
            drawn = Motion(drawn=drawn_paths(e.move, self.frames))
            return e.prompt.text, [first, drawn] if on else [first]

        return moved(self.made("motion" if on else "motion without", asked))

    def drawn(self) -> dict[str, float]:
        """The same words and drawn paths, and no picture: nothing says whose path is whose, so `paired` is what counts."""
        return moved(self.made("drawn", lambda e: (e.prompt.text, [Motion(drawn=drawn_paths(e.move, self.frames))])))

    def scene(self) -> dict[str, float]:
        """Words without verbs, and nothing else: what everything above and below is compared with."""
        seen = list(self.made("scene", lambda e: (e.prompt.text, ())))
        return moved(seen) | deep(seen)

    def depth(self) -> dict[str, float]:
        """A film of depths under words without verbs."""

        def asked(e: Example) -> tuple[str, Sequence[AnyCondition]]:
            grey = np.repeat((e.clip.inverse_depth * 255).round().astype(np.uint8)[..., None], 3, -1)
            return e.prompt.text, [DepthVideo(film=Film.of(grey))]

        seen = list(self.made("depth", asked))
        return deep(seen) | moved(seen)

    def image(self) -> dict[str, float]:
        """How near the clip begins to the picture that it was given, and whether verbs beside it steer what is seen there."""
        seen = list(self.made("image", lambda e: (e.words, [SingleImage(image=Picture.of(e.clip.rgb[0]))])))
        return begun(seen) | moved(seen)


def moved(made: Any, placed: bool = True) -> dict[str, float]:
    """`trajectory`: correlation of paths; `paired`: the same, whichever solid goes each way; `error`: their mean distance, in
    0-1 of the picture; `colours` throughout.

    `placed` False: nobody was told where things begin, so distances say nothing.
    """
    correlations, paired, errors, colours = [], [], [], []
    for e, _, seen in made:
        found = measure.track(seen, e.prompt.things, e.paths[:, 0] if placed else None)
        for scores, of in ((correlations, measure.trajectory_correlation), (paired, measure.best_correlation)):
            correlation = of(found, e.paths)
            scores += [] if correlation is None else [correlation]
        errors.append(measure.trajectory_error(found, e.paths))
        colours.append(measure.colours_throughout(e.prompt, seen))
    means = {"trajectory": correlations, "paired": paired, "colours": colours}
    out = {name: float(np.mean(values)) for name, values in means.items()}
    return out | ({"error": float(np.mean(errors))} if placed else {})


def deep(made: Any) -> dict[str, float]:
    """`depth`: rank correlation of what stands out of the room."""
    return {"depth": float(np.mean([
        measure.depth_correlation(seen, e.clip.inverse_depth, measure.empty_rooms(e.move, len(seen))) for e, _, seen in made
    ]))}  # fmt: skip


def begun(made: Any) -> dict[str, float]:
    """`first_frame`: decibels between the clip's first frame and the picture; `colours` throughout."""
    both = [
        (measure.first_frame(clip, e.clip.rgb[0]), measure.colours_throughout(e.prompt, seen)) for e, clip, seen in made
    ]
    return {"first_frame": float(np.mean([b[0] for b in both])), "colours": float(np.mean([b[1] for b in both]))}


def score(scorer: ClipScorer, out: Path) -> dict[str, Any]:
    """Every experiment, written to `out` after each so that a cut-off run keeps what it has."""
    plan: dict[str, Callable[[], dict[str, float]]] = {
        "video_renders": scorer.renders, "video_words": scorer.words, "video_scene": scorer.scene,
        "video_drawn": scorer.drawn,
        "video_motion_with": lambda: scorer.motion(True), "video_motion_without": lambda: scorer.motion(False),
        "video_depth": scorer.depth, "video_image": scorer.image,
    }  # fmt: skip
    known: dict[str, Any] = json.loads(out.read_text("utf-8")) if out.is_file() else {}
    dtype = str(scorer.engine.store.base(MODEL).network.dtype).removeprefix("torch.")
    how = {"clips": len(scorer.examples), "frames": scorer.frames, "steps": scorer.steps, "dtype": dtype}
    how |= {"scheduler": scorer.scheduler, "guidance": scorer.guidance}
    for name, experiment in plan.items():
        if name not in known:
            known[name] = how | experiment()
            out.write_text(json.dumps(known, indent=1), "utf-8")
            scorer.tell(f"{name}: {known[name]}")
    return known
