"""A style is words with a name, which are put around a prompt or behind it; a file of them is the webui's `styles.csv`.

    name,prompt,negative_prompt
    photo,"photograph of {prompt}, 85mm",drawing

Where a style says `{prompt}`, the prompt stands; else the style follows it after a comma. Several are applied in the order in which they
are named, each to what those before it made.

Source: lllyasviel/stable-diffusion-webui-forge@dfdcbab modules/styles.py.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from infuse.errors import CapacityError, RecipeError
from infuse.media.reading import policy
from infuse.words.comments import without_comments

PLACE = "{prompt}"
HEADER = ("name", "prompt", "negative_prompt")


@dataclass(frozen=True)
class Styles:
    """named: prompt and negative prompt of each style."""

    named: Mapping[str, tuple[str, str]]

    @staticmethod
    def read(*paths: Path | str) -> Styles:
        """Of files, each as the webui writes it, the old header `name,text` too; of two styles with one name the later counts.

        Raises RecipeError (no such file, not a table of styles, or one that this recipe may not read) and CapacityError.
        """
        named: dict[str, tuple[str, str]] = {}
        for path in paths:
            named |= _read(Path(policy().located(str(path))))
        return Styles(named)

    def write(self, path: Path | str) -> None:
        """As the webui does, with a BOM, so that spreadsheets know it is UTF-8."""
        with Path(path).open("w", encoding="utf-8-sig", newline="") as file:
            writer = csv.writer(file)
            writer.writerows([HEADER, *((name, *texts) for name, texts in self.named.items())])

    def applied(self, names: Sequence[str], prompt: str, negative: str) -> tuple[str, str]:
        """(prompt, negative prompt) in these styles; comments in them are left out. Raises RecipeError for a style that there is not, which
        in the webui has no effect."""
        for name in names:
            if name not in self.named:
                near = get_close_matches(name, self.named, 1)
                instead = (
                    f"Did you mean {near[0]!r}?" if near else "Name one that a styles.csv in a folder of models has."
                )
                raise RecipeError("styles", f"there is no style {name!r}. {instead}")
            style, against = self.named[name]
            prompt, negative = _styled(prompt, style), _styled(negative, against)
        return prompt, negative

    def taken_off(self, prompt: str, negative: str) -> tuple[tuple[str, ...], str, str]:
        """(names, prompt, negative prompt): which styles these prompts are in, in order, and what they were without."""
        names: list[str] = []
        while len(names) < len(self.named):
            for name, (style, against) in self.named.items():
                found, other = _unstyled(prompt, style), _unstyled(negative, against)
                if found is not None and other is not None and (found, other) != (prompt, negative):
                    names.append(name)
                    prompt, negative = found, other
                    break
            else:
                break
        return tuple(reversed(names)), prompt, negative


def _styled(text: str, style: str) -> str:
    text, style = without_comments(text).strip(), without_comments(style).strip()
    if PLACE in style:
        return style.replace(PLACE, text)
    return ", ".join(part for part in (text, style) if part)


def _unstyled(text: str, style: str) -> str | None:
    """The text without this style; None if it is not in it."""
    text, style = text.strip(), without_comments(style).strip()
    left, place, right = style.partition(PLACE)
    if place:
        fits = len(text) >= len(left) + len(right) and text.startswith(left) and text.endswith(right)
        return text[len(left) : len(text) - len(right)] if fits else None
    return text.removesuffix(style).removesuffix(", ") if style and text.endswith(style) else None if style else text


def _read(path: Path) -> dict[str, tuple[str, str]]:
    most = policy().most_text
    try:
        with path.open("rb") as file:
            content = file.read(most + 1)
        if len(content) > most:
            raise CapacityError("", f"{path} has more than {most >> 20} MiB, the limit of a file of styles. Split it.")
        rows = list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""), skipinitialspace=True))
    except OSError as error:
        raise RecipeError("", f"{path} cannot be read ({error.strerror}). Check the path.") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise RecipeError(
            "", f"{path} is no table of styles ({error}). It should begin with {','.join(HEADER)}."
        ) from None
    if rows and "name" not in rows[0]:
        raise RecipeError("", f"{path} is no table of styles: its first line should be {','.join(HEADER)}.")
    return {
        row["name"]: (row.get("prompt") or row.get("text") or "", row.get("negative_prompt") or "")
        for row in rows
        if row["name"] and not row["name"].startswith("#")
    }
