"""What `run` and `check` do with a request: look at it, make its pictures one by one, save each when it is done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infuse.errors import RecipeError, under

if TYPE_CHECKING:
    from infuse.cli.recipe import Asked
    from infuse.engine.resolve import Resolved
    from infuse.recipe import Recipe

MODEL = "tabletop"
"""What recipes mean that name none, as in Engine."""
MOST = 64
"""Rows of a network call with --together; without it one picture's, so that its bytes do not depend on the others."""


def checked(asked: Asked) -> Resolved:
    """From headers alone: no torch, no diffusers, and so no waiting for them."""
    from infuse.engine.model_store import ModelStore
    from infuse.engine.places import admitted
    from infuse.engine.resolve import resolve

    recipe = asked.recipe()
    with asked.as_typed():
        store = ModelStore(**vars(asked.machine))
        recipe = admitted(store, recipe)
        found = resolve(recipe, store.view(recipe.model or MODEL), MOST if asked.written.together else 1)
        places(asked, found.asked, bool(found.spec.frames))
    return found


def made(asked: Asked, say: Callable[[str], None], show: Callable[[Path], None]) -> None:
    """Run what is asked. `show` is called with the path of each picture as soon as it is saved, `say` puts a line on stderr."""
    from rich.console import Console

    from infuse.cli.show import progress
    from infuse.engine.engine import Engine
    from infuse.engine.model_store import ModelStore

    recipe = asked.recipe()
    with asked.as_typed():
        engine = Engine(store=ModelStore(**vars(asked.machine)), max_rows=MOST if asked.written.together else 1)
        report = engine.check(recipe)
        out = places(asked, report.asked, bool(report.spec.frames))
        for note in changed(asked, engine.store.digests(report.asked)):
            say(f"warning: {note}")
    if recipe.seed != report.asked.seed:
        say(f"seed {report.asked.seed}")
    say(f"recipe {report.asked.digest}")
    done = 0
    try:
        with (
            asked.as_typed(),
            progress(Console(stderr=True), recipe.prompt[:40] or "no prompt", report.asked.count) as watch,
        ):
            for result, path in zip(engine.each(report, watch), out, strict=True):
                for note in result.warnings:
                    say(f"warning: {note}")
                with undisturbed():
                    for saved in result.save(path, rate(asked), asked.written.record):
                        show(saved)
                    done += 1
    except KeyboardInterrupt:
        if left := rest(report.asked, done, out[0].suffix if asked.written.out.suffix else None):
            say(f"interrupted: {done} of {len(out)} are done. For the rest run the same with {left}")
        raise


@contextmanager
def undisturbed() -> Iterator[None]:
    """An interruption waits until what is inside is done: a picture is saved, told and counted, or none of it."""
    heard = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # else somebody has other plans for it
    if not heard or threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        raise KeyboardInterrupt


def rest(recipe: Recipe, done: int, suffix: str | None) -> str:
    """Options that make what is left; "" if there is nothing to go on with. `suffix`: of a file that was named."""
    seeds = recipe.seeds[done:]
    if not seeds or recipe.count == 1:
        return ""
    row = seeds == tuple(range(seeds[0], seeds[0] + len(seeds)))
    which = f"--seed {seeds[0]} --count {len(seeds)}" if row else f"--seed {','.join(map(str, seeds))}"
    return which + (f" -o rest{suffix}" if suffix is not None else "")


def rate(asked: Asked) -> float:
    """Frames per second of a clip's file."""
    from infuse.media.film_readers import FOLDER_RATE

    said = asked.written.fps
    return asked.record.get("fps", FOLDER_RATE) if said is None else said


def places(asked: Asked, recipe: Recipe, clip: bool) -> list[Path]:
    """The file of each picture: as named, or by the recipe's digest in a folder. Complains before long work."""
    from importlib.util import find_spec

    from infuse.media.film_writer import shown_at, writable
    from infuse.media.picture_writer import writable_picture

    out = asked.written.out
    if clip:
        shown_at(rate(asked), asked.typed.get("fps", "--fps"))
    elif asked.written.fps is not None:
        raise RecipeError(
            asked.typed.get("fps", "--fps"), "a picture has no frame rate. Remove it, or choose a video base."
        )
    suffix = ".png" if not clip else ".mp4" if find_spec("av") else ".gif"
    path = out if out.suffix else out / f"{recipe.digest[:16]}{suffix}"
    each = [path] if recipe.count == 1 else [path.with_stem(f"{path.stem}-{i}") for i in range(recipe.count)]
    with under(asked.typed.get("out", "--out")):
        for one in (each[0], each[-1]):
            (writable if clip else writable_picture)(one)
    return each


def changed(asked: Asked, here: Mapping[str, str]) -> list[str]:
    """What a picture that is run again was made with, as far as it differs from what would be loaded now."""
    recorded: Mapping[str, Any] = asked.record.get("weights", {})
    return [
        f"the weights of {name!r} are not those that made {asked.source} ({str(recorded[name])[:12]} then, "
        f"{here[name][:12]} now): expect another {'film' if asked.is_film else 'picture'}."
        for name in sorted(recorded.keys() & here.keys()) if recorded[name] != here[name]
    ]  # fmt: skip
