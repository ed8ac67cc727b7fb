"""What a caller holds while a request runs: a ticket, to be asked, awaited or cancelled; and what it gets: a result."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

from infuse.media.metadata import Record, write_png
from infuse.recipe import Recipe

log = logging.getLogger("infuse.engine")


@dataclass(frozen=True, eq=False)
class Result:
    """The finished pictures of one recipe, in the order of their seeds."""

    images: tuple[Any, ...]
    """PIL images."""
    recipe: Recipe
    latents: Any
    """(count c h w) tensor."""
    weights: Mapping[str, str] = field(default_factory=dict)
    """Model name -> sha256 of what was loaded."""
    frames: tuple[tuple[Any, ...], ...] = ()
    """PIL images of each clip, of a video network; `images` then holds each clip's first frame."""

    @property
    def image(self) -> Any:
        return self.images[0]

    def record(self, i: int = 0) -> Record:
        """The recipe that makes exactly the i-th picture, with hashes of what it was made from."""
        one = self.recipe.model_copy(update={"seed": self.recipe.seed + i, "count": 1})
        return Record.of(one, self.weights)

    def save(self, path: str | Path, fps: float = 8) -> list[Path]:
        """Write files that carry their recipe: `path`, or `path` with -0, -1, ... before the suffix for several.

        Pictures become PNGs. Clips become .mp4, .gif, .webp or, without a suffix, folders of PNG frames, shown at `fps`
        frames per second (0.02 to 1000), which their record names. Raises RecipeError if they cannot be written.
        """
        path = Path(path)
        if self.frames:
            return self._save_films(path, fps)
        several = len(self.images) > 1
        out = [path.with_stem(f"{path.stem}-{i}") if several else path for i in range(len(self.images))]
        for i, (image, to) in enumerate(zip(self.images, out, strict=True)):
            write_png(image, to, self.record(i))
        return out

    def _save_films(self, path: Path, fps: float) -> list[Path]:
        from infuse.media.film_writer import write_film

        several = len(self.frames) > 1
        out = [path.with_stem(f"{path.stem}-{i}") if several else path for i in range(len(self.frames))]
        for i, (frames, to) in enumerate(zip(self.frames, out, strict=True)):
            for note in write_film(frames, to, self.record(i), fps):
                log.warning("%s: %s", to, note)
        return out


@dataclass(eq=False)
class Ticket:
    """One submitted recipe. `progress` runs from 0 to 1; `result()` waits."""

    recipe: Recipe
    total: int
    """Solver steps of all its pictures."""
    watch: Callable[[Ticket], None] | None = None
    done: int = 0
    cancelled: bool = False
    _finished: Event = field(default_factory=Event)
    _result: Result | None = None
    _error: BaseException | None = None

    @property
    def progress(self) -> float:
        return self.done / self.total if self.total else 1.0

    @property
    def finished(self) -> bool:
        return self._finished.is_set()

    def advance(self, steps: int = 1) -> None:
        self.done += steps
        if self.watch is not None:
            self.watch(self)

    def cancel(self) -> None:
        """Leave at the next step. The pictures under way are given up."""
        self.cancelled = True

    def finish(self, result: Result | None = None, error: BaseException | None = None) -> None:
        self._result, self._error = result, error
        self._finished.set()

    def result(self, timeout: float | None = None) -> Result:
        """The result, or the error that ended the request. TimeoutError if neither comes in time."""
        if not self._finished.wait(timeout):
            raise TimeoutError("the request is still running")
        if self._error is not None:
            raise self._error
        assert self._result is not None
        return self._result
