"""Validation errors, rewritten as letters: the dotted field, what is wrong with it, what to do."""

from __future__ import annotations

import typing
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from infuse import spellings
from infuse.errors import InfuseError, RecipeError


class Strict(BaseModel):
    """A frozen model that knows its fields and no others, and complains in RecipeErrors."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", arbitrary_types_allowed=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    def __init__(self, /, **data: Any) -> None:
        try:
            super().__init__(**type(self).spelled(data))
        except ValidationError as error:
            raise letter(type(self), error) from None
        except TypeError as error:
            if "keywords must be strings" not in str(error):
                raise
            raise RecipeError(
                "", "a field's name is a word, and one here is a number or something else. Write field: value."
            ) from None

    @classmethod
    def spelled(cls, data: dict[str, Any]) -> dict[str, Any]:
        """Data under our names, whatever names others have for them. Raises RecipeError if they contradict each other."""
        return spellings.read(spelling(cls), cls.model_fields, data)


def spelling(model: type[BaseModel]) -> str:
    """Under which name `spellings` knows a model: a condition by its kind, the recipe by its own name."""
    kind = model.model_fields.get("kind")
    return str(kind.default) if kind else model.__name__.lower()


def letter(model: type[BaseModel], error: ValidationError) -> RecipeError:
    """The first complaint as a letter; how many more there are is said at its end."""
    errors = [(*_path(model, e["loc"]), e) for e in error.errors(include_url=False)]
    field = errors[0][0]
    # Of a union's members, the one that got furthest into the value is the one that was meant.
    _, owner, first = max((e for e in errors if e[0] == field), key=lambda e: len(e[2]["loc"]))
    paths = {path for path, _, _ in errors}
    # A list whose member is wrong may be too short without it: that is no mistake of its own.
    more = len({p for p in paths if p == field or not any(q.startswith(f"{p}.") for q in paths)}) - 1
    inner = first.get("ctx", {}).get("error")
    if isinstance(inner, InfuseError):  # a condition inside of a recipe has already written its letter
        field, text = inner.under(field).field, inner.message
    else:
        text = _text(first, owner)
    return RecipeError(
        field, text + (f" ({more} more field{'s' if more > 1 else ''} to mend after this one.)" if more else "")
    )


def _text(error: Any, owner: type[BaseModel] | None) -> str:
    kind, given = error["type"], error.get("input")
    if kind == "extra_forbidden":
        known = list(owner.model_fields) if owner else []
        near = spellings.suggestion(spelling(owner), known, str(error["loc"][-1])) if owner else ""
        return f"there is no such field. {f'Did you mean {near}? ' if near else ''}Fields: {', '.join(known)}."
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        tags = error["ctx"].get("expected_tags", "")
        said = (
            f"no condition is called {error['ctx']['tag']!r}"
            if kind == "union_tag_invalid"
            else "a condition needs a kind"
        )
        return f"{said}. Kinds: {tags or 'see infuse schema'}."
    if kind == "model_attributes_type":
        return f"{given!r} is no condition; write its kind and fields, as in {{kind: text, prompt: a red cube}}."
    if kind == "missing":
        return "this field is required; give it a value."
    if kind == "value_error":
        return str(error["ctx"]["error"])
    shown, said = repr(given), error["msg"][0].lower() + error["msg"][1:]
    if error["loc"][-1] == "[key]":
        said = said.replace("input", "the progress of a curve's point")
    return f"{said}." if ", not " in said else f"{said}, not {shown if len(shown) < 60 else shown[:57] + '...'}."


def _path(model: type[BaseModel], loc: Iterable[int | str]) -> tuple[str, type[BaseModel] | None]:
    """Pydantic's location without the names of union members, and the model that owns the last field."""
    parts: list[str] = []
    owner: type[BaseModel] | None = model
    steps = list(loc)
    tag: str | None = None  # of the union's member that was entered last: it stands once before the member's own fields
    for i, step in enumerate(steps):
        if isinstance(step, int):
            parts.append(str(step))
        elif step == tag:
            tag = None
        elif owner is not None and step in owner.model_fields:
            parts.append(step)
            inner = None if i + 1 == len(steps) else _member(owner.model_fields[step].annotation, steps[i + 1 :])
            kind = inner.model_fields.get("kind") if inner else None
            owner, tag = inner or owner, str(kind.default) if kind else None
        elif step.startswith("dict["):
            break  # what follows are points of a curve, not fields
        elif i + 1 == len(steps) and not _is_type_name(step) and not _is_kind(step, owner):
            parts.append(step)
    return ".".join(parts), owner


def _is_kind(step: str, owner: type[BaseModel] | None) -> bool:
    kind = owner.model_fields.get("kind") if owner else None
    return kind is not None and kind.default == step


def _is_type_name(step: str) -> bool:
    return step in ("float", "int", "str", "[key]") or "[" in step or "-" in step


def _member(annotation: Any, rest: list[int | str]) -> type[BaseModel] | None:
    """The model inside an annotation that the next location steps point to (by its `kind`, if there are several)."""
    models = list(_models(annotation))
    for step in rest:
        for m in models:
            kind = m.model_fields.get("kind")
            if kind is not None and kind.default == step:
                return m
    return models[0] if len(models) == 1 else None


def _models(annotation: Any) -> Iterable[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in typing.get_args(annotation):
        yield from _models(inner)
