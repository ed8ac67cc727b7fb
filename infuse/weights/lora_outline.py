"""A LoRA before a tensor is read: what it changes of this base, and every letter about one that cannot be used with it.

Imports no torch: `infuse check` and `infuse identify` read headers alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from infuse.network.spec import NetworkSpec
from infuse.weights.formats import Header
from infuse.weights.layouts.lora_names import Layers
from infuse.weights.source import Source


@dataclass(frozen=True)
class LoraOutline:
    """What can be known of a LoRA without loading it."""

    family: str
    """sd1, sd2, sdxl, or "width N"; "" when it changes nothing whose width tells the families apart."""
    changes: Mapping[str, Mapping[str, str]]
    """Part of the base (unet, text_encoder, text_encoder_2) -> path of each module that it changes -> its kind: lora, loha,
    lokr, oft, boft, ia3, glora, norm, full, each with `dora ` before it where it sets magnitudes as well."""
    ranks: tuple[int, int] | None = None
    """Smallest and largest, of the kinds that have ranks."""
    words: Mapping[str, Mapping[str, tuple[int, ...]]] = field(default_factory=dict)
    """Words bundled with it -> the shapes of their vectors by the names under which they are stored."""
    unmatched: tuple[str, ...] = ()
    """Modules of the file that this base has not, and keys that no LoRA has."""
    warnings: tuple[str, ...] = ()
    """Sentences: what of it is not heard."""

    @property
    def parts(self) -> dict[str, int]:
        """Part -> how many of its modules it changes."""
        return {part: len(paths) for part, paths in self.changes.items() if paths}


def outline(header: Header, layers: Layers, net: NetworkSpec, *, name: str, field: str = "model") -> LoraOutline:
    """What the LoRA of this header changes of a base.

    layers: of the base, `base_layers(source)` or `layers_of(unet, text_encoders)`. name, field: for letters.
    Raises WeightsError for a file of another kind, for one that is broken (half a pair of factors, rank 0, factors that do
    not fit each other), or of which more than a few modules are not in this base; RecipeError for a LoRA of another family,
    with both widths, and for one that changes a text encoder that this base lacks.
    """
    raise NotImplementedError


def base_layers(source: Source) -> dict[str, dict[str, tuple[int, ...]]]:
    """Part -> module path -> shape of its weight, from the headers of a base: a folder, a checkpoint, a video release.

    Paths are those of diffusers' UNet and of transformers' CLIPTextModel, with or without `text_model.` in front.
    Raises WeightsError for what is no base.
    """
    raise NotImplementedError


def layers_of(unet: object, text_encoders: object) -> dict[str, dict[str, tuple[int, ...]]]:
    """The same of a loaded base: its UNet, and a sequence of its text encoders' models."""
    raise NotImplementedError
