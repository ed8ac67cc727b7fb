"""Ask the network, whatever happens: calls are pure, so a failed one is halved until the row that fails stands alone.

Running out of memory is no failure of those who asked: the call becomes narrower, and stays so for its kind.
"""

from __future__ import annotations

import gc
import traceback
from collections.abc import Hashable, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any, TypeVar
from weakref import WeakSet

import torch
from torch import Tensor

from infuse.batch import Row
from infuse.errors import CapacityError, InfuseError, RecipeError
from infuse.network.call import evaluate
from infuse.network.unet import Network

E = TypeVar("E", bound=BaseException)
COMPILE = ("auto", "off", "graphs", "max")
"""What `Engine(compile=...)` may be."""


@dataclass(eq=False)
class Asking:
    """Widths of network calls. `most`: rows (frames, of clips) at once. row_width: of every call, see `evaluate`."""

    most: int = 64
    row_width: int | None = None
    compile: str = "off"
    """"graphs": calls are recorded, and played again (`network.graphs`). "max": and what is between products has kernels of its own (`network.fused`)."""
    recorded: WeakSet[Network] = field(default_factory=WeakSet)
    narrowed: dict[Hashable, int] = field(default_factory=dict)
    """Bucket -> rows that its memory was enough for, where it was not enough for more."""

    def width(self, bucket: Hashable) -> int:
        """Rows that one call of this bucket may have."""
        return min(self.row_width or self.most, self.narrowed.get(bucket, self.most))

    def forget(self, base: Any) -> None:
        """Something has left: its place in memory may be another's, and no recording keeps it."""
        for network in list(self.recorded):
            if network.graphs is not None:
                network.graphs.clear()
        gone = id(getattr(base, "network", base))
        self.narrowed = {k: v for k, v in list(self.narrowed.items()) if not isinstance(k, tuple) or k[0] != gone}

    def prepare(self, network: Network) -> None:
        """What a network needs before its first call."""
        network.ready(self.compile in ("graphs", "max"), self.compile == "max")
        if network.graphs is not None:
            self.recorded.add(network)

    def ask(self, network: Network, bucket: Hashable, rows: Sequence[Row]) -> list[Tensor | Exception]:
        """An answer to each row, or why there is none."""
        most = self.narrowed.get(bucket)
        if most is not None and len(rows) > most:
            return [a for i in range(0, len(rows), most) for a in self.ask(network, bucket, rows[i : i + most])]
        frames = rows[0].x.shape[1] if rows and rows[0].x.ndim == 4 else 1
        limit = self.most if most is None else most * frames
        fixed = self.row_width if most is None or self.row_width is None else min(self.row_width, limit)
        try:
            return list(evaluate(network, rows, limit, fixed))
        except Exception as error:
            full, failure = out_of_memory(error), bare(error)
        if full:
            free()
        if len(rows) == 1:
            return [alone_too_large(failure) if full else failure]
        half = len(rows) // 2
        answers = self.ask(network, bucket, rows[:half]) + self.ask(network, bucket, rows[half:])
        if full and not any(isinstance(a, CapacityError) for a in answers):  # one that is too large alone explains it
            self.narrowed[bucket] = min(half, self.narrowed.get(bucket, half))
        return answers


def compiling(said: str) -> str:
    """What is done to a GPU's calls; `auto` is "max". Raises RecipeError."""
    if said not in COMPILE:
        raise RecipeError("compile", f"{said!r} is not known. Use {' or '.join(map(repr, COMPILE))}; on a CPU all are the same.")  # fmt: skip
    return "max" if said == "auto" else said


def out_of_memory(error: BaseException) -> bool:
    """Is this how Python, CUDA or torch's CPU allocator say that there is no memory?"""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and not isinstance(error, InfuseError) and "allocate memory" in said(error)
    )


def alone_too_large(error: BaseException) -> CapacityError:
    return CapacityError("", f"the memory is not enough for it, even alone ({first_line(error)}). Make it smaller, or choose a dtype of two "
                             "bytes; `infuse check` estimates the peak.")  # fmt: skip


def free() -> None:
    """Give back what nobody uses."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def bare(error: E) -> E:
    """The same error without its frames, which would keep a network call's tensors alive; they go along as a text."""
    if not isinstance(error, InfuseError) and error.__traceback__ is not None and not hasattr(error, "__notes__"):
        error.add_note("It was raised here:\n" + "".join(traceback.format_tb(error.__traceback__)))
    cause: BaseException | None = error
    while cause is not None:  # each lets go of the next, so that a circle ends
        after = cause.__cause__ or cause.__context__
        cause.__traceback__ = cause.__cause__ = cause.__context__ = None
        cause = after
    return error


def again(error: BaseException) -> BaseException:
    """A twin to be raised: the frames that it passes through are not kept with the stored one."""
    try:
        twin = copy(error)
    except Exception:
        return error.with_traceback(None)
    return twin if type(twin) is type(error) else error.with_traceback(None)


def said(error: BaseException) -> str:
    """Its message, also where somebody's own error cannot say it."""
    try:
        return str(error)
    except Exception:
        return ""


def first_line(error: BaseException) -> str:
    return (said(error).splitlines() or [type(error).__name__])[0]
