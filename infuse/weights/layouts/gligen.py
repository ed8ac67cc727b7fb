"""A GLIGEN from whatever it comes in: a file of what it adds, its whole UNet, the original .pth, or a diffusers folder.

Of all of them only what GLIGEN adds to a base is read. The rest is a copy of the base that it was trained beside (SD 1.4).
Reads headers without torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infuse.conditions.gligen import PROJECTION, added, before, context, feature, fits, fusers, kind_of, named
from infuse.errors import WeightsError
from infuse.network.ldm_names import Block, transformer_blocks
from infuse.network.spec import NetworkSpec
from infuse.notices import note
from infuse.weights.formats import PICKLES, read_header, read_keys, read_tensors
from infuse.weights.kinds import wrong_kind
from infuse.weights.source import Source, weights_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from infuse.network.gligen import Gligen

FOLDER, FILE = "image_project", "projection_matrix"
"""Where the projection of pictures lies: beside the UNet in diffusers' folder, or beside the original file."""
TRUNK = {
    "time_embed.0.weight": "time_embedding.linear_1.weight",
    "input_blocks.1.1.norm.weight": "down_blocks.0.attentions.0.norm.weight",
    "out.0.weight": "conv_norm_out.weight",
}
"""Small tensors of a UNet, as original files call them -> as diffusers does. Every training of a base moves them."""
SAME = 1e-2
"""Of the largest number: what half precision may change."""


def load_gligen(
    source: Source | str | Path, base: Any, dtype: torch.dtype, device: torch.device | str = "cpu"
) -> Gligen:
    """`base`: the UNet that it will be heard in; its heads are those of the gated layers, which files do not tell.

    Raises WeightsError for another kind of file or another base, and for what is missing or misshapen.
    """
    from infuse.network.gligen import Gligen
    from infuse.weights.build import assemble

    source = source if isinstance(source, Source) else Source(str(source), Path(source), field="conditions.0.model")
    if source.identity.kind != "gligen":
        raise wrong_kind(source.field, source.identity, "gligen", name=source.name)
    own, spec = named(shapes_of(source)), NetworkSpec.from_unet_config(source.name, dict(base.config))
    kind, width, words, image = kind_of(own, source.name), context(own), feature(own), PROJECTION in own
    fits(own, source.name, spec)
    assert width is not None, "it has gated layers, since it fits"
    blocks = transformer_blocks(spec)
    layers = {blocks[f].path: (n, base.get_submodule(f"{blocks[f].path}.attn1").heads) for f, n in fusers(own).items()}
    tensors = {in_diffusers(name, blocks): t for name, t in read_added(source).items()}
    tensors |= {PROJECTION: read_projection(source)} if image else {}
    same_trunk(source, base)
    what = f'the GLIGEN "{source.name}"'
    return assemble(lambda: Gligen(kind, words, width, layers, image), tensors, dtype, device, what, source.field)


def shapes_of(source: Source) -> dict[str, tuple[int, ...]]:
    """Of all tensors of its files, and of the projection of pictures if it lies beside them."""
    found = source.header.shapes()
    place = projection_at(source)
    if place is None:
        return found
    if place.parent.name == FOLDER:
        return {**found, PROJECTION: next(iter(read_header(place, source.field).values())).shape}
    return {**found, PROJECTION: (feature(named(found)),) * 2}


def read_added(source: Source) -> dict[str, Tensor]:
    """What it adds to a UNet, under the file's names without what stands before them."""
    if not source.is_folder:
        names = added(source.header)
        return {names[k]: t for k, t in read_keys(source.header, names).items()}
    found: dict[str, Tensor] = {}
    for path in unet_files(source):
        names = added(read_header(path, source.field))
        found |= {names[k]: t for k, t in read_tensors(path, names).items()}
    return found


def unet_files(source: Source) -> list[Path]:
    """Of a diffusers folder: the whole pipeline's, or the UNet's own."""
    return source.weights.get("unet") or source.weights.get("", [])


def in_diffusers(name: str, blocks: Mapping[str, Block]) -> str:
    """A name of the file as diffusers has it."""
    block, fuser, leaf = name.partition(".fuser.")
    return f"{blocks[block].path}{fuser}{leaf}" if fuser else name


def projection_at(source: Source) -> Path | None:
    """The file of the projection from an image encoder's embedding to a phrase's feature, if it is there."""
    beside = source.path if source.is_folder else source.path.parent
    for folder in (beside / FOLDER, beside.parent / FOLDER) if source.is_folder else ():
        if folder.is_dir():
            return weights_of(folder, source.field)[0]
    return next((p for s in ("", *PICKLES) if (p := beside / f"{FILE}{s}").is_file()), None)


def read_projection(source: Source) -> Tensor:
    """Its weight (e e), to be multiplied from the left. Raises WeightsError if that is no matrix."""
    import torch

    place = projection_at(source)
    assert place is not None, "asked only where there is one"
    if place.parent.name == FOLDER:
        return next(iter(read_tensors(place).values()))
    try:  # a bare tensor, which the original multiplies by from the right
        found = torch.load(place, map_location="cpu", weights_only=True)
    except Exception as e:
        raise WeightsError(source.field, f"{place.name} beside {source.name!r} cannot be read as a tensor ({type(e).__name__}). Download it "
                                         "again.") from e  # fmt: skip
    if not isinstance(found, torch.Tensor) or found.ndim != 2:
        raise WeightsError(source.field, f"{place.name} beside {source.name!r} holds no matrix. Download it again.")
    return found.T.contiguous()


def same_trunk(source: Source, base: Any) -> None:
    """Say so if its file brings a UNet that is another one than the base: that is left out."""
    state = dict(base.named_parameters())
    header = source.header if not source.is_folder else read_header(unet_files(source)[0], source.field)
    front = before(header)
    for original, name in TRUNK.items():
        key = next((k for k in (front + original, front + name) if k in header), None)
        if key is None or name not in state:
            continue
        theirs = read_keys(header, [key])[key].float()
        ours = state[name].detach().to("cpu").float()
        if theirs.shape != ours.shape or (theirs - ours).abs().max() > SAME * ours.abs().max():
            note(f"{source.name}: it was trained beside another base. Only what it adds to one is heard here, as well as that goes.")  # fmt: skip
            return
