r"""A plain prompt is words. A backslash before a bracket says that it is meant as it stands, in every syntax, and is not painted."""

from __future__ import annotations

import re

ESCAPED = re.compile(r"\\([()\[\]{}<>])")


def words(prompt: str) -> str:
    r"""The prompt as it is read: `\(` is a bracket."""
    return ESCAPED.sub(r"\1", prompt)
