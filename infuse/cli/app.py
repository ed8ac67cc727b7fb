"""The command line: everything that a Recipe can say, in words. Run `infuse --help`.

Paths of pictures and films go to stdout, all else to stderr. Exit codes: 0 done, 1 a bug, 2 a request that cannot be met (its
letter is on stderr), 130 interrupted.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Optional

import typer
from typer.core import TyperGroup

from infuse.errors import CapacityError, InfuseError, RecipeError, under

INTERRUPTED = 130
WIDE = 160
"""Columns of a table that goes into a file or a pipe."""
MODEL = "tabletop"
"""What recipes mean that name none, as in Engine."""


class Letters(TyperGroup):
    """Every InfuseError leaves as its letter and exit code 2; Ctrl-C as 130. Anything else is a bug and shows itself."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except InfuseError as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            typer.echo("interrupted", err=True)
            raise typer.Exit(INTERRUPTED) from None
        except (MemoryError, RuntimeError) as error:
            if type(error).__name__ not in ("MemoryError", "OutOfMemoryError"):
                raise
            full = CapacityError(
                "", "the memory is full. Ask for fewer or smaller pictures; `infuse check` counts the weights."
            )
            typer.echo(f"error: {full}", err=True)
            raise typer.Exit(2) from None


app = typer.Typer(
    cls=Letters, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
    help="Any combination of conditions into Stable Diffusion, in one call.",
)  # fmt: skip


@app.callback(invoke_without_command=True)
def main(version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False) -> None:
    if version:
        from infuse import __version__

        typer.echo(__version__)
        raise typer.Exit


Source = Annotated[str, typer.Argument(help="A recipe (.yaml, .json), a picture or film made by infuse, or a prompt.")]
Controls = Annotated[
    list[str],
    typer.Option(
        metavar="NAME=PICTURE[@WEIGHT]", help="A ControlNet and its hint, or a photo to make one of. Repeatable."
    ),
]
Pictures = Annotated[
    list[str], typer.Option(metavar="PICTURE[@WEIGHT]", help="A picture as a prompt (IP-Adapter). Repeatable.")
]
Init = Annotated[Optional[str], typer.Option(metavar="PICTURE[@STRENGTH]", help="Start from this picture.")]  # noqa: UP045
Hole = Annotated[
    tuple[str, str] | None,
    typer.Option(metavar="PICTURE MASK", help="Repaint what is white in the mask: two paths."),
]
Sets = Annotated[
    list[str],
    typer.Option("--set", metavar="FIELD=VALUE", help="Any other field: --set conditions.0.weight=0.5. Repeatable."),
]
Text = Optional[str]  # noqa: UP045  typer reads these at run time
Whole = Optional[int]  # noqa: UP045
Rate = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option(help="Frames per second of a clip's file; 8, or those of the film that is run again, if left out."),
]
Out = Annotated[
    Path,
    typer.Option(
        "--out", "-o",
        help="A .png file (a clip: .mp4, .gif or .webp), or a folder: then the name is the recipe's digest.",
    ),
]  # fmt: skip
Together = Annotated[
    bool,
    typer.Option(
        help="All pictures of --count in shared network calls: faster on a GPU, where the last bits then depend on --count."
    ),
]


@app.command()
def run(
    source: Source, model: Text = None, negative: Text = None, width: Whole = None, height: Whole = None, frames: Whole = None, steps: Whole = None,
    scheduler: Text = None, guidance: Optional[float] = None, seed: Whole = None, count: Whole = None,  # noqa: UP045
    control: Controls = [], ip: Pictures = [], init: Init = None, inpaint: Hole = None, sets: Sets = [],  # noqa: B006  typer copies
    out: Out = Path("out"), fps: Rate = None, together: Together = False,
    check: Annotated[bool, typer.Option("--check", help="Only show what would happen.")] = False,
) -> None:  # fmt: skip
    """Make pictures, or clips with a video model. Options win over what the recipe says."""
    from infuse.cli.recipe import Asked

    fields = {"model": model, "negative_prompt": negative, "width": width, "height": height, "frames": frames, "steps": steps,
              "scheduler": scheduler, "guidance": guidance, "seed": seed, "count": count}  # fmt: skip
    asked = Asked(source, fields, control, ip, init, inpaint, sets)
    if check:
        show_check(asked, 64 if together else 1)
        return
    for path in make(asked, out, together, fps):
        typer.echo(path)


@app.command("check")
def check_command(source: Source, model: Text = None, sets: Sets = []) -> None:  # noqa: B006
    """What a recipe would do, from headers alone: nothing is loaded."""
    from infuse.cli.recipe import Asked

    show_check(Asked(source, {"model": model}, sets=sets))


@app.command("models")
def models_command() -> None:
    """The models that need no path: those that come with infuse, and those in INFUSE_MODELS."""
    from rich.console import Console

    from infuse.cli.show import models
    from infuse.weights.library import Library

    models(Console(width=None if sys.stdout.isatty() else WIDE, soft_wrap=True), Library())


@app.command("convert")
def convert_command(
    source: Annotated[Path, typer.Argument(help="A weights file: .bin, .pt, .pth, .ckpt.")],
    out: Annotated[Path, typer.Argument(help="The .safetensors file to write.")],
) -> None:
    """A pickle to safetensors: the same tensors under the same names. No code in the file is run."""
    from infuse.weights.convert import convert

    quiet()
    typer.echo(f"{out}: {convert(source, out)} tensors", err=True)


@app.command()
def schema() -> None:
    """The JSON Schema of a recipe."""
    from infuse.recipe import Recipe

    typer.echo(json.dumps(Recipe.model_json_schema(), indent=2))


@app.command()
def demo(out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the pictures.")] = Path("demo")) -> None:
    """Every condition at work on the embedded models, each beside what comes without it."""
    quiet()
    from infuse.tabletop.demo import demo

    typer.echo(demo(out, say=lambda path: typer.echo(f"made {path}", err=True)))


@app.command()
def examples(folder: Annotated[Path, typer.Argument(help="Where to put them.")] = Path(".")) -> None:
    """Put the pictures that the documents speak of into a folder; what lies there stays as it is."""
    from infuse.tabletop.examples import examples

    for path in examples(folder):
        typer.echo(path)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True}, add_help_option=False)
def train(ctx: typer.Context) -> None:
    """Train conditions, or the embedded models from nothing."""
    try:
        from infuse.cli.train import app as training
    except ModuleNotFoundError as error:
        if error.name != "infuse.cli.train":
            raise RecipeError(
                "", f"training needs the package {error.name}. Run: pip install 'infuse[train]'"
            ) from None
        raise RecipeError("", "this build of infuse has no training commands.") from None
    typer.main.get_command(training).main(args=ctx.args, prog_name="infuse train", standalone_mode=False)


def show_check(asked: Any, most: int = 1) -> None:
    """The report of a recipe, from headers alone: no torch, no diffusers, and so no waiting for them."""
    from infuse.engine.model_store import ModelStore
    from infuse.engine.resolve import resolve

    recipe = asked.recipe()
    found = resolve(recipe, ModelStore().view(recipe.model or MODEL), most)

    from rich.console import Console  # when all is well: a letter needs no table

    from infuse.cli.show import report

    report(Console(width=None if sys.stdout.isatty() else WIDE, soft_wrap=True), found)


def make(asked: Any, out: Path, together: bool = False, fps: float | None = None) -> list[Path]:
    """Run what is asked and save it; says on stderr what it does, warns of what is odd."""
    quiet()
    from rich.console import Console

    from infuse.cli.show import progress
    from infuse.engine.engine import Engine
    from infuse.media.film_readers import FOLDER_RATE

    recipe = asked.recipe()
    rate: float = asked.record.get("fps", FOLDER_RATE) if fps is None else fps
    # One picture's rows to a call: a picture's bytes then do not depend on how many were made with it.
    engine = Engine(max_rows=64 if together else 1)
    report = engine.check(recipe)
    recipe = report.asked
    path = named(out, recipe, bool(report.spec.frames), rate)
    notes = [*report.warnings, *changed(asked, engine.store.digests(report.asked))]
    for note in notes:
        typer.echo(f"warning: {note}", err=True)
    with progress(Console(stderr=True), recipe.prompt[:40] or "no prompt") as watch:
        result = engine.run(report, watch=watch)
    for note in result.warnings[len(report.warnings) :]:
        typer.echo(f"warning: {note}", err=True)
    typer.echo(f"recipe {recipe.digest}", err=True)
    return result.save(path, rate)


def named(out: Path, recipe: Any, clip: bool, fps: float = 8) -> Path:
    """The file to be written: as named, or by the recipe's digest in a folder. Complains before long work."""
    from importlib.util import find_spec

    from infuse.media.film_writer import shown_at, writable
    from infuse.media.metadata import reachable

    if clip:
        shown_at(fps, "--fps")
    suffix = ".png" if not clip else ".mp4" if find_spec("av") else ".gif"
    path = out if out.suffix else out / f"{recipe.digest[:16]}{suffix}"
    with under("--out"):
        if clip:
            writable(path)
        elif path.suffix.lower() != ".png":
            raise RecipeError("", f"{out} is no .png, and only PNGs carry their recipe. Name a .png file or a folder.")
        else:
            reachable(path)
    return path


def changed(asked: Any, here: Mapping[str, str]) -> list[str]:
    """What a picture that is run again was made with, as far as it differs from what would be loaded now."""
    recorded = asked.record.get("weights", {})
    return [
        f"the weights of {name!r} are not those that made {asked.source} ({recorded[name][:12]} then, "
        f"{here[name][:12]} now): expect another {'film' if asked.is_film else 'picture'}."
        for name in sorted(recorded.keys() & here.keys()) if recorded[name] != here[name]
    ]  # fmt: skip


def quiet() -> None:
    """Loaders' own bars and hints stay out of our output."""
    import diffusers.utils.logging as theirs
    import transformers.utils.logging as others

    for library in (theirs, others):
        library.set_verbosity_error()
        library.disable_progress_bar()


if __name__ == "__main__":
    app()
