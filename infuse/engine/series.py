"""A recipe's pictures one after another: whoever makes many has each when it is done, and keeps it whatever comes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

from infuse.engine.resolve import Resolved
from infuse.engine.result import Result


class Maker(Protocol):
    """What a series asks of an engine."""

    def run_all(self, *recipes: Any, watch: Callable[[Any], None] | None = None) -> list[Result]: ...


def each(maker: Maker, resolved: Resolved, most: int, watch: Callable[[Any], None] | None) -> Iterator[Result]:
    """As many pictures side by side as fit a network call of `most` rows (frames, of clips), and then the next ones."""
    frames = min(resolved.frames, resolved.spec.frames or 1)
    wide = max(1, most // (resolved.wide * frames))
    alone = resolved.alone()
    for i in range(0, len(alone), wide):
        yield from maker.run_all(*alone[i : i + wide], watch=watch)
