"""The command line: everything that a Recipe can say, in words. Run `infuse --help`.

Paths of pictures and films go to stdout, all else to stderr. Exit codes: 0 done, 1 a bug, 2 a request that cannot be met (its
letter is on stderr), 130 interrupted.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from infuse.cli.options import Request, asking
from infuse.errors import CapacityError, InfuseError, InfuseWarning, RecipeError

INTERRUPTED = 130
WIDE = 160
"""Columns of a table that goes into a file or a pipe."""
ENDLESS = 10_000
"""The same of a list, in which each model keeps its line."""


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


@app.command(cls=Request)
@asking
def run(
    asked: Any, check: Annotated[bool, typer.Option("--check", help="Only show what would happen.")] = False
) -> None:
    """Make pictures, or clips with a video model. Options win over what the recipe says."""
    if check:
        show_check(asked)
        return
    make(asked)


@app.command("check", cls=Request)
@asking
def check_command(asked: Any) -> None:
    """What a recipe would do, from headers alone: nothing is loaded. Takes every option of `run`."""
    show_check(asked)


@app.command("show")
def show_command(
    source: Annotated[
        Path, typer.Argument(help="A picture, a film or a folder of frames; of infuse or another program.")
    ],
) -> None:
    """What a picture says of its making, as YAML: the recipe, how it was resolved, versions, weights, warnings."""
    from infuse.foreign import shown_record

    typer.echo(shown_record(source), nl=False)


AS_JSON = typer.Option("--json", help="As JSON, for programs.")


@app.command("models")
def models_command(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Of the webui, ComfyUI, InvokeAI or your own; INFUSE_MODELS if left out.", show_default=False
        ),
    ] = None,
    as_json: Annotated[bool, AS_JSON] = False,
) -> None:
    """The models that need no path: those that come with infuse, and those in the folders of INFUSE_MODELS; kind and base of each."""
    from rich.console import Console

    from infuse.cli.show import listing, models
    from infuse.weights.library import Library

    absent = next((f for f in folders or () if not f.is_dir()), None)
    if absent is not None:
        raise RecipeError("", f"there is no folder {absent}. Give folders that hold models.")
    library = Library(folders or None)
    with spoken():
        if as_json:
            typer.echo(json.dumps(listing(library), indent=2, ensure_ascii=False))
        else:
            models(Console(width=None if sys.stdout.isatty() else ENDLESS, soft_wrap=True), library)


@app.command("identify")
def identify_command(
    file: Annotated[str, typer.Argument(help="A weights file, a model's folder, or a name that a recipe would say.")],
    as_json: Annotated[bool, AS_JSON] = False,
) -> None:
    """What a weights file is, for which base, and how a recipe uses it: told by its tensors, never by its name."""
    from infuse.cli.show import identified
    from infuse.weights.library import Library
    from infuse.weights.usage import report as told

    with spoken():
        found = told(Library().find(file, "file"), file)
    typer.echo(json.dumps(found, indent=2, ensure_ascii=False) if as_json else identified(found), nl=as_json)


@app.command("convert")
def convert_command(
    source: Annotated[
        Path, typer.Argument(help="A weights file (.bin, .pt, .pth, .ckpt, .safetensors), or a model's folder.")
    ],
    out: Annotated[Path, typer.Argument(help="What to write: a .safetensors file, or a new folder.")],
    dtype: Annotated[str | None, typer.Option("--dtype", help="fp16, bf16 or fp32; each part's own.")] = None,
) -> None:
    """A pickle to safetensors, a checkpoint to a diffusers folder, a folder to one checkpoint. No code in a file is run."""
    from infuse.weights.convert import convert

    quiet()
    count = convert(source, out, dtype, lambda line: typer.echo(line, err=True))
    typer.echo(f"{out}: {count} tensors", err=True)


@app.command("merge")
def merge_command(
    base: Annotated[str, typer.Argument(help="A checkpoint or a diffusers folder, by path or name.")],
    loras: Annotated[list[str], typer.Argument(help="LoRAs, each with its weight: style.safetensors@0.8.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The .safetensors file, or the folder, to write.")],
) -> None:
    """A base with LoRAs in its weights, in the layout and precision that it had. Nothing is overwritten."""
    from infuse.cli.merge import merge

    quiet()
    with spoken():
        typer.echo(f"{out}: {merge(base, loras, out)} tensors changed", err=True)


@app.command()
def schema() -> None:
    """The JSON Schema of a recipe."""
    from infuse.recipe import Recipe

    typer.echo(json.dumps(Recipe.model_json_schema(), indent=2))


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the pictures.")] = Path("demo"),
    rows: Annotated[
        str, typer.Option("--rows", help="Only these rows of the sheet, with commas; `list` names them.")
    ] = "",
) -> None:
    """Every condition at work on the embedded models, each beside what comes without it."""
    from infuse.tabletop.demo import demo, known

    names = [name for name in (r.strip() for r in rows.split(",")) if name]
    if names == ["list"]:
        return typer.echo("\n".join(known(())))
    known(names)
    quiet()
    typer.echo(demo(out, say=lambda path: typer.echo(f"made {path}", err=True), rows=names))


STORE = typer.Option("--store", help="A folder, or postgresql://user@host/name: where jobs and results lie.")
FILES = typer.Option("--files", help="Where results lie, if the store is in PostgreSQL.")


@app.command("serve")
def serve_command(
    model: Annotated[str, typer.Argument(help="What recipes run on that name no model.")] = "tabletop",
    host: Annotated[str, typer.Option("--host", help="Others than this machine's own want --key.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65535)] = 7860,
    store: Annotated[str, STORE] = "infuse-jobs",
    files: Annotated[Path | None, FILES] = None,
    key: Annotated[
        list[str] | None, typer.Option("--key", help="KEY or OWNER:KEY; several for several owners.")
    ] = None,
    hands: Annotated[int, typer.Option("--hands", min=1, max=64, help="Jobs under way at a time.")] = 4,
    memory: Annotated[
        str | None, typer.Option("--memory", help="For models, such as 8GB; those used longest ago leave.")
    ] = None,
) -> None:
    """Make pictures for programs, over HTTP, from a queue that survives whatever happens to it."""
    with serving():
        from infuse.cli.serve import serve

        serve(model, host, port, store, files, key or (), hands, memory)


@app.command("queue")
def queue_command(
    store: Annotated[str, STORE] = "infuse-jobs",
    files: Annotated[Path | None, FILES] = None,
    cancel: Annotated[list[str] | None, typer.Option("--cancel", help="A job's name.")] = None,
    retry: Annotated[list[str] | None, typer.Option("--retry", help="A job's name.")] = None,
    most: Annotated[int, typer.Option("--most", min=1, help="Jobs that are listed.")] = 20,
) -> None:
    """What is in a server's queue: the newest jobs, and how many of each state."""
    with serving():
        from infuse.cli.serve import queue

        queue(store, files, cancel or (), retry or (), most)


@contextmanager
def serving() -> Iterator[None]:
    """Whoever lacks the extra reads what to install."""
    try:
        yield
    except ImportError as error:
        if (error.name or "").split(".")[0] not in (
            "sqlalchemy",
            "fastapi",
            "uvicorn",
            "prometheus_client",
            None,
            "",
        ) and "infuse[serve]" not in str(error):
            raise
        raise RecipeError("", 'the server wants packages of its own. Run: pip install "infuse[serve]"') from None


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


def show_check(asked: Any) -> None:
    """The report of a recipe, from headers alone: no torch, no diffusers, and so no waiting for them."""
    from infuse.cli.making import checked

    with spoken():
        found = checked(asked)

    from rich.console import Console  # when all is well: a letter needs no table

    from infuse.cli.show import report

    report(Console(width=None if sys.stdout.isatty() else WIDE, soft_wrap=True), found)


def make(asked: Any) -> None:
    """Run what is asked: each picture's path to stdout as soon as it is saved; to stderr what is done, and what is odd."""
    quiet()
    from infuse.cli.making import made

    with spoken() as say:
        made(asked, say, typer.echo)


@contextmanager
def spoken() -> Iterator[Callable[[str], None]]:
    """What infuse warns of goes to stderr, each sentence once; yields what says a line there."""
    said: set[str] = set()

    def say(text: str) -> None:
        if text not in said:
            said.add(text)
            typer.echo(text, err=True)

    def show(message: Any, category: Any, *where: Any, **more: Any) -> None:
        say(f"warning: {message}") if issubclass(category, InfuseWarning) else others(message, category, *where, **more)

    with warnings.catch_warnings():
        others = warnings.showwarning
        warnings.simplefilter("always", InfuseWarning)
        warnings.showwarning = show
        yield say


def quiet() -> None:
    """Loaders' own bars and hints stay out of our output."""
    import diffusers.utils.logging as theirs
    import transformers.utils.logging as others

    for library in (theirs, others):
        library.set_verbosity_error()
        library.disable_progress_bar()


if __name__ == "__main__":
    app()
