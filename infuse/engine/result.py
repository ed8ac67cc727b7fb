"""What a caller gets: finished pictures or clips, to be looked at or saved with all that is needed to make them again."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from infuse.curves import value_at
from infuse.engine.carried import Kind, public, recorded
from infuse.engine.webui_words import hashed, in_webui_words, stem
from infuse.errors import InfuseError, RecipeError
from infuse.foreign import webui
from infuse.media.film_writer import writable, write_film
from infuse.media.metadata import Record, versions
from infuse.media.picture_writer import MOST_TEXT, room, writable_picture, write_picture
from infuse.media.pictures import Picture
from infuse.notices import note
from infuse.recipe import Recipe
from infuse.samplers import parse, spoken


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
    chosen: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    """Seed -> fields, where each picture has words of its own: what was chosen for it."""
    glimpses: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """Field -> PIL image: what an image encoder saw of a picture that is too large to travel."""
    memory: Mapping[str, int] = field(default_factory=dict, repr=False)
    """Bytes that it was made with: `weights`, `encodings` of conditions, `constants` of the network's calls. Of this run, and in no record."""

    @property
    def image(self) -> Any:
        return self.images[0]

    def record(self, i: int = 0, kind: Kind = "full", most: int = MOST_TEXT) -> Record:
        """What the i-th picture says of itself: the recipe that makes exactly it, as it was asked and as it was resolved, versions,
        hashes. kind: "hashes" names inputs by their hashes alone. most: about how many characters it may have."""
        seed = self.recipe.seeds[i]
        one = self.recipe.only((i,)).model_copy(update=dict(self.chosen.get(seed, {})))
        resolved = {**self.resolved, "seed": seed} if self.resolved else {}
        if of_each := resolved.get("words", {}).get("pictures"):
            resolved["words"] = of_each.get(str(seed), {})
        if isinstance(device := resolved.get("device"), str):
            resolved["device"] = device.partition(":")[0]
        parameters = self._parameters(resolved, i)
        facts = {"weights": self.weights, "resolved": resolved, "versions": versions(sys.modules["infuse"].__version__),
                 "warnings": self.warnings, "parameters": parameters}  # fmt: skip
        beside = 2 * len(parameters) if 4 * len(parameters) < most else 0  # UTF-16 in EXIF, where they go first
        return recorded(one, kind, most - beside, facts, self._glimpsed(one))

    def _glimpsed(self, one: Recipe) -> Mapping[str, Any]:
        """Glimpses under the fields that their pictures have in the recipe of one picture."""
        if one.conditions == self.recipe.conditions:
            return self.glimpses

        def placed(recipe: Recipe) -> dict[str, Any]:
            return {where: (where.rpartition(".")[0], p) for where, p in recipe.pictures() if isinstance(p, Picture)}

        known = {place: self.glimpses[w] for w, place in placed(self.recipe).items() if w in self.glimpses}
        return {where: known[place] for where, place in placed(one).items() if place in known}

    def _parameters(self, resolved: Mapping[str, Any], i: int) -> str:
        """The same in the webui's words."""
        recipe, size = self.recipe, self.images[i].size
        guidance = resolved.get("guidance") if recipe.guidance is None else recipe.guidance
        scale = value_at(guidance, 0.0) if guidance is not None else None
        name = recipe.scheduler or resolved.get("scheduler")
        name, schedule = spoken(parse(name, name)) if name else (None, None)
        model = public(str(recipe.model)) if recipe.model else None
        digest = self.weights.get(str(recipe.model), "")
        strength = next(
            (getattr(c, "strength", None) for c in recipe.conditions if c.strength_of_start() is not None), None
        )
        prompt, negative = in_webui_words(recipe, resolved.get("words", {}))
        return webui.written(prompt, negative, {
            "Steps": recipe.steps, "Sampler": name, "Schedule type": schedule, "CFG scale": scale if scale is None else f"{scale:g}",
            "Seed": recipe.seeds[i], "Size": f"{size[0]}x{size[1]}", "Model hash": digest[:10] or None, "Model": model and stem(model),
            "VAE": recipe.vae and stem(public(recipe.vae)), "Denoising strength": strength, "Clip skip": recipe.clip_skip,
            "Hashes": hashed(recipe, self.weights), "RNG": "CPU",
            "Emphasis": {"no_norm": "No norm", "ignore": "Ignore"}.get(recipe.emphasis), "Version": f"infuse {sys.modules['infuse'].__version__}",
        })  # fmt: skip

    def save(self, path: str | Path, fps: float = 8, record: Kind = "full") -> list[Path]:
        """Write files that carry their recipe: `path`, or `path` with -0, -1, ... before the suffix for several.

        Pictures become what the suffix says: .png, .jpg, .webp, .tiff or .avif. Clips become .mp4, .gif, .webp or, without a
        suffix, folders of PNG frames, shown at `fps` frames per second (0.02 to 1000), which their record names.
        record: "full", with inputs inside that are small; "hashes", inputs by their hashes alone; "none", pixels and
        nothing else. Raises RecipeError if they cannot be written. What did not travel is an InfuseWarning.
        """
        if record not in get_args(Kind):
            raise RecipeError("record", f"{record!r} is no kind of record. Choose full, hashes or none.")
        path, whole = Path(path), self.frames or self.images
        writable(path) if self.frames else writable_picture(path)
        out = [path.with_stem(f"{path.stem}-{i}") if len(whole) > 1 else path for i in range(len(whole))]
        for i, (made, to) in enumerate(zip(whole, out, strict=True)):
            said = self._said(i, record, to)
            notes = write_film(made, to, said, fps) if self.frames else write_picture(made, to, said)
            for text in (*(said.notes if said is not None else ()), *notes):
                note(f"{to.name}: {text}")
        return out

    def _said(self, i: int, kind: Kind, path: Path) -> Record | None:
        """The record of the i-th picture; None if none is wanted, or an input is gone whose hash nobody has asked for yet."""
        if kind == "none":
            return None
        try:
            return self.record(i, kind, room(path.suffix))
        except (InfuseError, OSError) as error:
            note(f"{path.name} carries no recipe: one of its inputs is gone ({error})")
            return None
