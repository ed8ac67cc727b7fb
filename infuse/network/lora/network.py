"""A file of the LoRA family, loaded: which layer of which model it changes, and how."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from infuse.network.lora.change import Change

Part = Literal["unet", "text_encoder", "text_encoder_2"]


class LoraNetwork(nn.Module):
    """The changes of a file, by part and module path, as the loaded model has it.

    `changes`: for each part, the change of each path. `words`: bundled embeddings: for each name one tensor (n d) per text encoder.
    """

    words: Mapping[str, tuple[Float[Tensor, "n d"], ...]]

    def __init__(
        self,
        changes: Mapping[str, Mapping[str, Change]],
        words: Mapping[str, tuple[Tensor, ...]] | None = None,
        name: str = "",
    ) -> None:
        super().__init__()
        self.name = name
        self.words = dict(words or {})
        self._changes = nn.ModuleList()
        self._at: dict[str, dict[str, int]] = {}
        for part, layers in changes.items():
            for path, change in layers.items():
                self._at.setdefault(part, {})[path] = len(self._changes)
                self._changes.append(change)

    def change(self, part: str, path: str) -> Change | None:
        """What it says about a layer, None if nothing."""
        at = self._at.get(part, {}).get(path)
        return None if at is None else self._changes[at]  # pyright: ignore[reportReturnType]

    def paths(self, part: str) -> frozenset[str]:
        """The layers of a part that it changes."""
        return frozenset(self._at.get(part, {}))

    @property
    def parts(self) -> tuple[str, ...]:
        """Of the model, of which it changes anything."""
        return tuple(self._at)
