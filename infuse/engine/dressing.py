"""A base with another VAE or text encoder: what it is told by headers, and how it is made of a base that is loaded.

The network is not touched, so that jobs on differently dressed bases still share its calls.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from weakref import ref

from infuse.engine.kept import Key
from infuse.engine.placement import nbytes
from infuse.recipe import Recipe
from infuse.weights.overrides import (
    LIKE,
    TextOutline,
    VaeOutline,
    text_fits,
    text_outline,
    text_own,
    vae_fits,
    vae_outline,
    vae_scaling,
)

if TYPE_CHECKING:
    from torch import nn

    from infuse.encoders.kit import Base

PARTS = ("vae", "text_encoder")
"""Fields of a recipe that dress its base."""
Dress = tuple[str | None, str | None]
"""Names of (VAE, text encoder); None for the base's own."""


@dataclass(frozen=True)
class Dressing:
    """What a check needs to know of the parts that a recipe names."""

    vae: VaeOutline | None = None
    text: TextOutline | None = None
    notes: tuple[str, ...] = ()

    @property
    def memory(self) -> int:
        """Bytes once loaded."""
        return sum(part.memory for part in (self.vae, self.text) if part is not None)


def dressing(view: Any) -> Dressing:
    """Headers and configs of what the view's recipe names. Raises WeightsError for what does not fit its base."""
    store, (vae, text) = view.store, view.dress
    there, notes, found_vae, found_text = store.at_hand(view.model), list[str](), None, None
    source = None if there is not None or not any(view.dress) else store.library.find(view.model)
    if vae is not None:
        module = store.lent(vae, "vae")
        found_vae = vae_outline(store.library.find(vae, "vae"), view.dtype) if module is None else _vae_of(module)
        own = there.vae.config.scaling_factor if there else vae_scaling(source, view.spec.family) if source else None
        notes += vae_fits(found_vae, view.spec, own, vae)
    if text is not None:
        module = store.lent(text, "text_encoder")
        found_text = text_outline(store.library.find(text, "text_encoder"), view.dtype) if module is None else _text_of(module)  # fmt: skip
        if there is not None:
            own = there.texts.models[0].config
            text_fits(found_text, (own.hidden_size, own.vocab_size), view.spec, text)
        elif source is not None:
            text_fits(found_text, text_own(source, view.spec), view.spec, text)
    return Dressing(found_vae, found_text, tuple(notes))


def _vae_of(module: Any) -> VaeOutline:
    config = module.config
    widths = config.block_out_channels
    return VaeOutline(config.latent_channels, 2 ** (len(widths) - 1), widths[0], config.scaling_factor, nbytes(module))


def _text_of(module: Any) -> TextOutline:
    config = module.config
    return TextOutline(config.hidden_size, config.vocab_size, "diffusers", {}, nbytes(module))


def lent(bases: dict[str, Base], own: dict[str, nn.Module], name: str, part: str) -> nn.Module | None:
    """A part of this name that is in memory: a module that was added, or that of a base that was."""
    if name in bases:
        return bases[name].vae if part == "vae" else bases[name].texts.models[0]
    return own.get(name)


def dressed(store: Any, base: Base, dress: Dress) -> Base:
    """The base with these parts instead of its own, each loaded once; the base itself if there are none.

    Raises WeightsError, or CapacityError if its device has no room for them.
    """
    for part, name in zip(PARTS, dress, strict=True):
        if name is not None:
            base = _with(store, base, part, name)
    return base


def _with(store: Any, base: Base, part: str, name: str) -> Base:
    from infuse.encoders.text import TextEncoders
    from infuse.weights.overrides import load_text_encoder, load_vae

    # what no tensor of a file says is as in the base's own
    like = dict(base.vae.config) if part == "vae" else base.texts.models[0].config.to_dict()
    what = (part, *(repr(like.get(k)) for k in LIKE))

    dtype, device = base.network.dtype, base.network.device

    def make(place: Any) -> nn.Module:
        if part == "vae":
            return load_vae(place.source, like, dtype)
        return load_text_encoder(place.source, like, dtype)

    def load() -> tuple[Base, str]:
        if part == "vae":
            return replace(base, vae=thing, of=base.origin), ""
        texts = TextEncoders([thing, *base.texts.models[1:]], base.texts.tokenizers)
        return replace(base, texts=texts, of=base.origin), ""

    thing = store.lent(name, part)
    if thing is None:
        thing = store._once(what, name, make, part, dtype, device)
    # made of both: whichever of them leaves takes this along
    key = Key(("dressed", part), thing, (dtype, device), ref(base))
    return store._kept.once(key, base.name, load, lambda: 0)


def state(store: Any, model: str, dress: Dress) -> Hashable:
    """What the names stand for now."""
    base = store.version(model)
    parts = [(part, store.version(name, part)) for part, name in zip(PARTS, dress, strict=True) if name is not None]
    return (base, *parts) if parts else base


def dress_of(recipe: Recipe) -> Dress:
    return recipe.vae, recipe.text_encoder
