"""What a model store keeps of LoRAs and of words that are vectors: outlines from headers, networks, bases that have them inside."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any
from weakref import ref

from infuse.conditions.lora import Lora
from infuse.engine import placement
from infuse.engine.dressing import Dress, dressed
from infuse.engine.kept import Kept, Key
from infuse.engine.places import Place
from infuse.engine.view import in_memory
from infuse.network.blocks import temporal

if TYPE_CHECKING:
    import torch
    from torch import nn

    from infuse.encoders.embeddings import Embedding
    from infuse.encoders.kit import Base
    from infuse.network.lora import LoraNetwork
    from infuse.weights.lora_outline import Layers, LoraOutline


class Edits:
    """The part of a `ModelStore` that edits of a base are asked of."""

    library: Any
    own: Callable[[str], nn.Module | None]
    at_hand: Callable[[str], Base | None]
    version: Callable[..., Hashable]
    _place: Callable[..., Place]
    _once: Callable[..., Any]
    _mine: Callable[..., Any]
    _kept: Kept

    def outline(self, model: str, base: str, spec: Any) -> LoraOutline:
        """What a LoRA changes of a base, from headers. Raises WeightsError or RecipeError if that is nothing that can be heard."""
        from infuse.weights import lora_outline as outlines

        if (own := self.own(model)) is not None:
            return in_memory(own)
        return outlines.outline(self.library.header(model, "model")[0], self.layers(base), spec, name=model)

    def layers(self, base: str) -> Layers:
        """Those of a base and of its text encoders that LoRAs of pictures may change, by part, with their shapes; from headers."""
        from infuse.weights import lora_outline as outlines

        there = self.at_hand(base)
        found = (
            outlines.base_layers(self.library.find(base))
            if there is None
            else outlines.layers_of(there.network.unet, there.texts.models)
        )
        return {part: {p: s for p, s in paths.items() if not temporal(p)} for part, paths in found.items()}

    def lora(self, model: str, base: Base, dtype: torch.dtype, device: torch.device) -> LoraNetwork:
        """What a LoRA's file changes of this base and of its text encoders."""

        def make(place: Place) -> nn.Module:
            from infuse.weights.layouts.lora import build

            return build(place.source, base.network.unet, base.texts.models, dtype).eval().requires_grad_(False)

        found: Any = self._mine(
            model, dtype, device, lambda: self._once("lora", model, make, "lora", dtype, device, base)
        )
        return found

    def merged(self, base: Base, loras: Sequence[Lora]) -> Base:
        """A base whose network has these LoRAs in its weights; its encoders are the other's own. The base itself if there are none."""
        if not loras:
            return base
        said = tuple((self.version(c.model, "lora"), c.weight, c.factors) for c in loras)
        dtype, device = base.network.dtype, base.network.device

        def load() -> tuple[Base, str]:
            from infuse.encoders.merging import merged

            networks = [(self.lora(c.model, base, dtype, device), float(c.weight), c.factors) for c in loras]  # type: ignore[arg-type]
            with placement.room_for(loras[0].model, placement.nbytes(base.network.unet), device):
                return merged(base, networks), base.digest

        key = Key(("merged", said), None, (dtype, device), ref(base))
        return self._kept.once(key, loras[0].model, load, lambda: placement.nbytes(base.network.unet))

    def dressed(self, base: Base, dress: Dress) -> Base:
        """The base with another VAE or text encoder, by name; the network is the same one."""
        return dressed(self, base, dress)

    def embedding(self, model: str, base: Base) -> Embedding:
        """A word's vectors for this base's text encoders."""
        from infuse.weights.layouts.textual_inversion import read

        return read(self._place(model, "embedding").source)
