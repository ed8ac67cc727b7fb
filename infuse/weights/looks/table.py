"""A table of tensors, as the looks ask it: where does a marker stand, and how wide is what stands there?

Whatever wraps a network puts its own name before the keys, so a marker is looked for at the end of keys. All ends of all
keys are gathered once; each question is then a look-up. Imports no torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from infuse.weights.formats import Header

SPLIT = re.compile(r"[./]")
QUANTISED = re.compile(r"\.(absmax|quant_map|quant_state\.\w+|scaled_fp8|scale_weight|weight_scale|qweight|qzeros)$")
"""What quantisers write beside a weight: its scales, and how to spell it out."""


@dataclass(frozen=True)
class Table:
    """The keys and shapes of one file or folder."""

    header: Header

    @cached_property
    def ends(self) -> dict[str, str]:
        """Every end of a key (from a dot or slash on) -> the shortest text that stands before it."""
        found: dict[str, str] = {}
        for key in self.header:
            for at in (0, *(m.end() for m in SPLIT.finditer(key))):
                end = key[at:]
                if end not in found or at < len(found[end]):
                    found[end] = key[:at]
        return found

    def before(self, *markers: str) -> str | None:
        """What stands before the first of these markers that any key ends with; None when none is there."""
        return next((self.ends[m] for m in markers if m in self.ends), None)

    def has(self, *markers: str) -> bool:
        """Do keys end with all of these?"""
        return all(m in self.ends for m in markers)

    def under(self, prefix: str, *markers: str) -> bool:
        """Are all of these there, right behind this prefix?"""
        return all(prefix + m in self.header for m in markers)

    def dim(self, key: str, axis: int) -> int | None:
        """One side of a tensor; None if it is not there, or has fewer sides."""
        entry = self.header.get(key)
        return entry.shape[axis] if entry is not None and len(entry.shape) > axis else None

    def shape(self, key: str) -> tuple[int, ...]:
        """() for a tensor that is not there."""
        entry = self.header.get(key)
        return entry.shape if entry is not None else ()

    def any(self, pattern: str) -> bool:
        """Does any key have this in it?"""
        return any(re.search(pattern, k) for k in self.header)

    def starts(self, prefixes: str | tuple[str, ...]) -> bool:
        return any(k.startswith(prefixes) for k in self.header)

    def keys(self, pattern: str) -> list[str]:
        """All keys with this in them."""
        return [k for k in self.header if re.search(pattern, k)]

    def context(self, prefix: str = "") -> int | None:
        """Input width of any cross-attention's key projection; all layouts agree on that name. Not of packed weights."""
        found = (e.shape for k, e in self.header.items() if k.startswith(prefix) and k.endswith("attn2.to_k.weight"))
        return next((s[1] for s in found if len(s) > 1 and s[1] > 1), None)

    @cached_property
    def quantised(self) -> bool:
        """Are its weights packed, with their scales beside them?"""
        return any(QUANTISED.search(k) for k in self.header)


def numbers(keys: Iterable[str], pattern: str) -> list[int]:
    """The number in each key that this pattern catches (its first group), each once, ascending."""
    return sorted({int(m[1]) for k in keys if (m := re.search(pattern, k))})
