"""What cannot be left out together with what is asked for: letters before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from infuse.conditions import Condition
from infuse.errors import RecipeError
from infuse.lossy import Lossy


def clashes(lossy: Lossy | None, active: Mapping[str, Condition], view: Any) -> None:
    """Raises RecipeError where a recipe's lossy options and its conditions, or its base, exclude each other."""
    for option in lossy.said if lossy else ():
        if option == "deep_cache" and view.spec.frames:
            raise RecipeError("lossy.deep_cache", f"{view.spec.name!r} makes clips, and only networks of pictures can be walked in part. Remove it.")  # fmt: skip
        for where, c in active.items():
            if c.kind == "reference" and option != "controlnet_every":
                raise RecipeError(f"lossy.{option}", f"{where} (reference) is heard in the attentions that it leaves out. Keep one of the two.")  # fmt: skip
            if option == "deep_cache" and c.kind == "controlnet":
                found = view.identity(c.model, f"{where}.model", "controlnet")  # type: ignore[attr-defined]
                if found.kind == "controlnet_xs":
                    raise RecipeError("lossy.deep_cache", f"{where} is a ControlNet-XS, which walks beside the whole network. Keep one of the two.")  # fmt: skip


def idle(lossy: Lossy | None, active: Mapping[str, Condition], view: Any) -> dict[str, str]:
    """Options that leave nothing out here, and why."""
    said, found = lossy.said if lossy else {}, dict[str, str]()
    if "controlnet_every" in said and not any(c.kind == "controlnet" for c in active.values()):
        found["controlnet_every"] = "no ControlNet is heard"
    if "merge_tokens" in said and not any(path.startswith("down_blocks.0.") for path, _ in view.spec.cross_layers):
        found["merge_tokens"] = f"{view.spec.name} has no attention at its finest level"
    return found
