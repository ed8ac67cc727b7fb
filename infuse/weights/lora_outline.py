"""A LoRA before a tensor is read: what it changes of this base, and every letter about one that cannot be used with it.

Imports no torch: `infuse check` and `infuse identify` read headers alone.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod

from infuse.errors import InfuseError, RecipeError, WeightsError
from infuse.network.spec import NetworkSpec, family_of
from infuse.weights.base_layers import base_layers as base_layers
from infuse.weights.base_layers import layers_of as layers_of
from infuse.weights.formats import Header
from infuse.weights.identify import identify
from infuse.weights.kinds import Identity, wrong_kind
from infuse.weights.layouts.lora_kinds import Told, told
from infuse.weights.layouts.lora_names import Grouped, Layers, Names, Shape, addressed, grouped
from infuse.weights.layouts.lora_words import words_of

FEW = 12
"""Modules that a LoRA may have beside those of the base: some trainers know layers that nobody hears. Forge's number."""
READS_TEXT = re.compile(r"attn2_to_[kv]$")
PART_NAMES = {"unet": "the UNet", "text_encoder": "the text encoder", "text_encoder_2": "the second text encoder"}
UNRUN = {
    "numbered": "numbers the modules that it changes instead of naming them, in the order of the diffusers of its time. Convert it "
                "with the trainer that made it (cloneofsimo's lora), or choose another LoRA",
    "faceid": "is the LoRA of an IP-Adapter FaceID, and of no use without it. Name the FaceID's file in a condition of kind ip_adapter",
    "motion": "moves an AnimateDiff motion module, and this version of infuse runs none. Choose a LoRA of pictures",
}  # fmt: skip
"""Layout or variant -> why it is no LoRA that changes a base."""


@dataclass(frozen=True)
class LoraOutline:
    """What can be known of a LoRA without loading it."""

    family: str
    """sd1, sd2, sdxl, or "width N"; "" when it changes nothing whose width tells the families apart."""
    changes: Mapping[str, Mapping[str, str]]
    """Part of the base (unet, text_encoder, text_encoder_2) -> path of each module that it changes -> its kind: lora, loha,
    lokr, glora, oft, boft, oft2, ia3, diff, norm, set, bias, each with `dora ` before it where it sets magnitudes as well."""
    ranks: tuple[int, int] | None = None
    """Smallest and largest, of the kinds that have ranks."""
    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Bundled words that this base hears while the LoRA is active -> the keys of their vectors, one for each text encoder."""
    keys: Mapping[str, Mapping[str, Mapping[str, str]]] = field(default_factory=dict, repr=False)
    """Part -> path -> parameter, in the names of `lora_names` -> the file's key."""
    named: Mapping[str, Mapping[str, str]] = field(default_factory=dict, repr=False)
    """Part -> path -> the module's name in the file, for letters."""
    unmatched: tuple[str, ...] = ()
    """Modules of the file that this base has not, and keys that no LoRA has."""
    warnings: tuple[str, ...] = ()
    """Sentences: what of it is not heard."""

    @property
    def parts(self) -> dict[str, int]:
        """Part -> how many of its modules it changes."""
        return {part: len(paths) for part, paths in self.changes.items() if paths}

    @property
    def described(self) -> str:
        """For a table: "192 modules of the UNet and 72 of the text encoder, rank 4 to 16"."""
        counts = [f"{n}{' modules' * (i == 0)} of {PART_NAMES[part]}" for i, (part, n) in enumerate(self.parts.items())]
        said = ", ".join(counts[:-1]) + " and " * (len(counts) > 1) + "".join(counts[-1:])
        return said + (f", {ranked(self.ranks)}" if self.ranks else "")


def ranked(ranks: tuple[int, int]) -> str:
    return f"rank {ranks[0]}" if ranks[0] == ranks[1] else f"ranks {ranks[0]} to {ranks[1]}"


@dataclass
class _Module:
    """One module of a file, and where it is in the base."""

    name: str
    told: Told
    place: tuple[str, str] | None
    keys: Mapping[str, str] = field(default_factory=dict)


def outline(header: Header, layers: Layers, net: NetworkSpec, *, name: str, field: str = "model") -> LoraOutline:
    """What the LoRA of this header changes of a base.

    layers: of the base, `base_layers(source)` or `layers_of(unet, text_encoders)`. name, field: for letters.
    Raises WeightsError for a file of another kind, for one that is broken (half a pair of factors, rank 0, factors that do
    not fit each other), or of which more than a few modules are not in this base; RecipeError for a LoRA of another family,
    with both widths, and for one that changes a text encoder that this base lacks.
    """
    group, identity = must_be_lora(header, name, field)
    modules, strange = _modules(header, group, layers)
    context = _context(modules)
    if context not in (None, net.context_width):
        raise wrong_kind(field, replace(identity, context_width=context), "lora", name=name, base=net.context_width)
    _must_have_encoders(modules, layers, net, name, field)
    for m in modules:
        if m.told.fault:
            raise _broken(modules, name, field)
    lost = [m.name for m in modules if m.place is None]
    if len(lost) > FEW or 2 * len(lost) >= max(len(modules), 1) > 0 and lost:
        raise _of_another(identity, lost, len(modules), net, name, field)
    _must_fit(modules, layers, net, name, field)
    changes: dict[str, dict[str, str]] = {}
    keys: dict[str, dict[str, Mapping[str, str]]] = {}
    named: dict[str, dict[str, str]] = {}
    for m in modules:
        if m.place is None:
            continue
        part, path = m.place
        if path in changes.setdefault(part, {}):
            raise WeightsError(field, f'"{name}" changes {path} of {PART_NAMES[part]} twice, under two names (one is {m.name}). Choose the '
                                      "file that it was merged from.")  # fmt: skip
        changes[part][path] = m.told.described
        keys.setdefault(part, {})[path] = m.keys
        named.setdefault(part, {})[path] = m.name
    words, unheard = words_of(group.words, header.shapes(), widths(layers))
    warnings = [f'"{name}": {n} left out (first: {", ".join(some[:3])})' for n, some in (
        (_some(lost, "modules", "not in this base and"), lost), (_some(strange, "tensors", "no LoRA's and"), strange)) if some]  # fmt: skip
    ranks = [m.told.rank for m in modules if m.told.rank]
    return LoraOutline(
        family=identity.family if context is None else family_of(context), changes=changes,
        ranks=(min(ranks), max(ranks)) if ranks else None, words=words, keys=keys, named=named,
        unmatched=(*lost, *strange), warnings=(*warnings, *(f'"{name}": {text}' for text in unheard)),
    )  # fmt: skip


def must_be_lora(header: Header, name: str, field: str) -> tuple[Grouped, Identity]:
    """Its keys by module, and what it is. Raises WeightsError for another kind of file and for LoRAs of no base's modules."""
    identity = identify(header)
    if identity.kind != "lora":
        raise wrong_kind(field, identity, "lora", name=name)
    for said in (identity.layout, identity.variant):
        if said in UNRUN:
            raise WeightsError(field, f'"{name}" {UNRUN[said]}.')
    return grouped(header), identity


def _modules(header: Header, group: Grouped, layers: Layers) -> tuple[list[_Module], list[str]]:
    """Modules with their places, and keys that make no change."""
    names, shapes = Names(layers), header.shapes()
    found, strange = list[_Module](), list(group.strange)
    for module, keys in group.modules.items():
        one = told({leaf: shapes[key] for leaf, key in keys.items()})
        if not one.kind:
            strange += keys.values()
        else:
            found.append(_Module(module, one, names.place(module), keys))
    return found, strange


def _context(modules: Sequence[_Module]) -> int | None:
    """Width of the text that it reads."""
    widths = Counter(m.told.columns for m in modules if m.told.columns and READS_TEXT.search(addressed(m.name)[1]))
    return widths.most_common(1)[0][0] if widths else None


def _must_have_encoders(modules: Sequence[_Module], layers: Layers, net: NetworkSpec, name: str, field: str) -> None:
    for part in ("text_encoder", "text_encoder_2"):
        own = [m.name for m in modules if addressed(m.name)[0] == part]
        if own and part not in layers:
            has = "one text encoder" if "text_encoder" in layers else "no text encoder that it could change"
            raise RecipeError(field, f'"{name}" changes {PART_NAMES[part]} ({len(own)} modules, first: {own[0]}), and {net.described}, has '
                                     f"{has}. Choose a LoRA of the base's family, or another base.")  # fmt: skip


def _broken(modules: Sequence[_Module], name: str, field: str) -> WeightsError:
    bad = [m for m in modules if m.told.fault]
    more = f" ({len(bad)} of its {len(modules)} modules are so)" if len(bad) > 1 else ""
    return WeightsError(field, f'"{name}" is broken: {bad[0].name} {bad[0].told.fault}{more}. Download it again, or choose another file.')  # fmt: skip


def _of_another(
    identity: Identity, lost: list[str], total: int, net: NetworkSpec, name: str, field: str
) -> InfuseError:
    """The letter about a LoRA whose modules are another network's."""
    if identity.context_width not in (None, net.context_width) and net.family in ("sd1", "sd2", "sdxl"):
        return wrong_kind(field, identity, "lora", name=name, base=net.context_width)
    return RecipeError(field, f'"{name}" changes {total} modules, of which {net.described}, has not {len(lost)} ({", ".join(lost[:3])}'
                              f'{", ..." * (len(lost) > 3)}): it was made for another network. Choose a LoRA of this base\'s family, or '
                              "another base.")  # fmt: skip


def _must_fit(modules: Sequence[_Module], layers: Layers, net: NetworkSpec, name: str, field: str) -> None:
    """Raises RecipeError for the first module that the base has of another size."""
    for m in modules:
        if m.place is None or m.told.rows is None:
            continue
        part, path = m.place
        shape = layers[part][path]
        rows, columns = m.told.rows, m.told.columns
        if rows == shape[0] and (columns is None or columns == prod(shape[1:]) or padded(path, shape, columns)):
            continue
        theirs = f"({rows}, {columns})" if columns is not None else f"({rows}, ...)"
        raise RecipeError(field, f'"{name}" changes {path} of {PART_NAMES[part]} as a matrix of {theirs}, and {net.described}, has it of '
                                 f"({shape[0]}, {prod(shape[1:])}): it was made for another network. Choose a LoRA of this base's "
                                 "family, or another base.")  # fmt: skip


def padded(path: str, shape: Shape, columns: int) -> bool:
    """Is this for the first convolution of a base that reads latents alone? The other channels of this one stay as they are."""
    return path == "conv_in" and len(shape) == 4 and columns < prod(shape[1:]) and columns % prod(shape[2:]) == 0


def widths(layers: Layers) -> tuple[int, ...]:
    """Of the words that each text encoder of a base reads."""
    own = (layers.get(part, {}) for part in ("text_encoder", "text_encoder_2"))
    return tuple(next((s[1] for k, s in paths.items() if k.endswith("q_proj")), 0) for paths in own if paths)


def _some(names: Sequence[str], what: str, are: str) -> str:
    return f"{len(names)} {what} are {are}" if len(names) != 1 else f"a {what.removesuffix('s')} is {are}"
