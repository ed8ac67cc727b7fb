"""What the command line shows: a check's report as a table, the models, a moving bar."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from infuse.engine.pace import in_words
from infuse.engine.resolve import Resolved
from infuse.engine.understanding import lines
from infuse.errors import InfuseError


def bytes_of(n: int) -> str:
    """12_345_678 as "11.8 MiB"."""
    size = float(n)
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def report(console: Console, found: Resolved) -> None:
    """Routes, base, size, timetable, calls, memory and warnings of a recipe that has not been run."""
    recipe = found.asked
    table = Table("field", "kind", "port", "shape", "memory", "note", box=None, padding=(0, 2, 0, 0))
    for field, kind, route in found.routes:
        table.add_row(field, kind, route.port, route.shape, bytes_of(route.memory) if route.memory else "", route.note)
    console.print(table)
    for name, text in lines(found):
        console.print(Text.assemble((f"{name:<11}", "bold"), text))
    spec, (width, height) = found.spec, found.size
    what, clip = ("clip", clip_of(found)) if spec.frames else ("picture", "")
    facts = {
        "base": f"{spec.described}, {spec.parameters / 1e6:.1f} M parameters" if spec.parameters else spec.described,
        "vae": recipe.vae or "",
        "text": f"through {recipe.text_encoder}" if recipe.text_encoder else "",
        "size": f"{width} x {height} px, {clip}{recipe.count} {what}{'s' if recipe.count > 1 else ''}",
        "scheduler": f"{found.sampler} ({found.choice.cls})" + knobs(recipe),
        "steps": f"{found.choice.count(recipe.steps)}"
        + (f", the last {found.strength:g} of them" if (found.strength or 1) < 1 else ""),
        "work": f"{found.calls} network calls, {found.rows} rows"
        + (f", {found.branch_rows} rows of branch networks" if found.branch_rows else ""),
        "memory": f"{bytes_of(found.memory)} of weights, about {bytes_of(found.peak)} at the peak, {found.dtype} on {found.device}",
        "time": f"{in_words(took)} on this machine, an estimate; loading not counted"
        if (took := found.seconds)
        else "",
        "seed": ", ".join(map(str, recipe.seeds[:8])) + (f" ... {recipe.seeds[-1]}" if len(recipe.seeds) > 8 else ""),
        "recipe": recipe.digest,
    }
    for name, text in facts.items():
        if text:
            console.print(Text.assemble((f"{name:<11}", "bold"), text))
    for stretch in found.timetable.stretches:
        console.print(Text.assemble(("heard      ", "bold"), heard_in(stretch.plain())))
    for warning in found.warnings:
        console.print(Text.assemble(("warning: ", "yellow"), warning))


def knobs(recipe: Any) -> str:
    """A scheduler's options in words: ", eta 0.5, order 3"."""
    said = {} if recipe.scheduler_options is None else recipe.scheduler_options.said
    return "".join(f", {n} {list(v) if isinstance(v, tuple) else v}" for n, v in said.items())


def heard_in(stretch: Mapping[str, Any]) -> str:
    """A stretch of the timetable in words: "evaluations 1-15: prompt 1, conditions.0 0.8; 2 rows"."""

    def number(w: Any) -> str:
        return f"{w[0]:g} to {w[1]:g}" if isinstance(w, list) else f"{w:g}"

    first, last = stretch["evaluations"]
    said = ", ".join(f"{who} {number(w)}" for who, w in stretch["heard"].items())
    rows = len(stretch["terms"])
    return f"evaluations {first + 1}-{last}: {said}; {rows} row{'s' if rows > 1 else ''} each"


def clip_of(found: Resolved) -> str:
    """Frames, and how many windows of them the network looks at: "40 frames in 3 windows of 16, "."""
    own = found.spec.frames
    return f"{found.frames} frame{'s' if found.frames > 1 else ''}" + (
        f" in {len(found.windows)} windows of {own}, " if len(found.windows) > 1 else ", "
    )


def listing(library: Any) -> list[dict[str, Any]]:
    """Every name that needs no path, and what it is by its tensors, as plain data; `error` of what cannot be used."""
    from infuse.weights.usage import report as told

    found: list[dict[str, Any]] = []
    for name, description in library.names().items():
        said = {"name": name, "description": description}
        try:
            found.append({**told(library.find(name), name), **said})
        except InfuseError as error:
            found.append({**said, "error": error.message})
    return found


SHORT = ("tokens", "reads", "tower", "rank", "types of map", "frames")


def models(console: Console, library: Any) -> None:
    """A line for each name that needs no path."""
    found = listing(library)
    table = Table("name", "what it is", "", "description", box=None, padding=(0, 2, 0, 0))
    for one in found:
        what = one.get("what") or f"cannot be used: {one['error']}"
        more = [f"{k} {v}" for k, v in one.get("facts", {}).items() if k in SHORT]
        table.add_row(
            *map(
                escape, (one["name"], what, ", ".join([*more, *filter(None, [one.get("numbers")])]), one["description"])
            )
        )
    if found:
        console.print(table)
    else:
        console.print(
            "No models. Put files or folders into a folder that INFUSE_MODELS names, or use paths and Hub ids."
        )


def identified(found: Mapping[str, Any]) -> str:
    """What `infuse identify` says of one place: facts, what cannot be told, and the lines for a recipe, which come last."""
    facts = dict(found["facts"])
    size = (
        f"{found['numbers']}, " * bool(found["numbers"]) + f"{found['tensors']:,} tensors, {bytes_of(found['bytes'])}"
    )
    rows = [("what", found["what"]), *facts.items(), ("numbers", size), *(("note", n) for n in found["notes"])]
    rows += [("not told", text) for text in found["untold"]]
    rows += [("needs", found["needs"])] if found["needs"] else []
    use = found["yaml"] or found["advice"]
    lines = [f"{name:<18}{text}" for name, text in rows]
    return "\n".join([*lines, *(["", use.rstrip()] if use else [])]) + "\n"


class Rate(ProgressColumn):
    """Steps a second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f} steps/s" if task.speed else "")


@contextmanager
def progress(console: Console, text: str, count: int = 1) -> Iterator[Callable[[Any], None]]:
    """A bar over the solver steps of `count` pictures, each with a ticket of its own: yields what the engine calls after each step."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(text, total=None)
        done: dict[int, int] = {}

        def watch(ticket: Any) -> None:
            done[ticket.recipe.seed] = ticket.done
            bar.update(task, completed=sum(done.values()), total=ticket.total * count)

        yield watch
