"""What a caller gets: finished pictures or clips, to be looked at or saved with all that is needed to make them again."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
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
    resolved: Mapping[str, Any] = field(default_factory=dict)
    """What the recipe left open, as it was filled, and who spoke when: `Resolved.plain`."""
    warnings: tuple[str, ...] = ()
    """What was adjusted on the way."""

    @property
    def image(self) -> Any:
        return self.images[0]

    def record(self, i: int = 0) -> Record:
        """The recipe that makes exactly the i-th picture, with hashes of what it was made from."""
        one = self.recipe.model_copy(update={"seed": self.recipe.seeds[i], "count": 1})
        return Record.of(one, self.weights, self.resolved)

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
