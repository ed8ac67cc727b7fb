"""From a # on, the rest of a prompt's line is a comment, as in the webui."""

from __future__ import annotations


def without_comments(text: str) -> str:
    """The text without them. A line that is all comment becomes an empty one. Source: lllyasviel/stable-diffusion-webui-forge@dfdcbab
    modules/processing_scripts/comments.py."""
    return "\n".join(line.partition("#")[0] for line in text.split("\n")) if "#" in text else text
