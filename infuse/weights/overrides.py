"""A VAE or a text encoder instead of the base's own: one part is taken out of a base, the rest of it is shared.

What it is and whether it fits is asked of headers and configs (torch-free), what it weighs is read when the base is made.
Any place will do that has the part: its own folder or file, a pipeline's folder, a whole checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from infuse.errors import WeightsError
from infuse.network.spec import FAMILIES, NetworkSpec, described
from infuse.weights.estimate import WIDTHS
from infuse.weights.formats import Header
from infuse.weights.kinds import wrong_kind
from infuse.weights.layouts import ldm_configs, ldm_keys
from infuse.weights.layouts.difference import Difference
from infuse.weights.looks.bases import VAE, VOCABULARY, has_tasks
from infuse.weights.looks.components import LATENTS
from infuse.weights.source import Source, read_json

if TYPE_CHECKING:
    import torch
    from torch import Tensor

USUAL = "AutoencoderKL"
OTHER_VAES = {
    "AutoencoderTiny": "a TAESD, a small decoder for previews. Give it to the engine (preview=), and a whole VAE here",
    "AsymmetricAutoencoderKL": "a VAE that also reads a masked picture while it decodes. Choose one that does not",
    "ConsistencyDecoderVAE": "a decoder that samples by itself. Choose a plain VAE",
}
"""Classes of diffusers that are no AutoencoderKL: what they are, and what to do."""
SCALE = 0.18215
"""diffusers' default scaling factor, which is that of SD 1.x and 2.x."""
TEXTS = (
    "cond_stage_model.transformer.",
    "conditioner.embedders.0.transformer.",
    "cond_stage_model.model.",
    "conditioner.embedders.0.model.",
)
"""Where checkpoints keep their (first) text encoder."""
EMBEDDED = "text_model.embeddings.token_embedding.weight"


@dataclass(frozen=True)
class VaeOutline:
    """A VAE in numbers."""

    channels: int
    """Of its latents."""
    factor: int
    """Pixels of a side for each place of the latent."""
    width: int
    """Channels of its first level."""
    scaling: float | None
    """What its config says; None: it has none, and that of the base's family is taken."""
    memory: int
    """Bytes once loaded."""


def part_of(source: Source, part: str) -> Source:
    """Of a pipeline's folder, the folder of one component; anything else as it is. Raises WeightsError for loose releases."""
    if isinstance(source, Difference):
        return part_of(source.base, part)
    if source.release:
        raise WeightsError(source.field, f'"{source.name}" is a release of several files. Name the file of its {part} itself.')  # fmt: skip
    folder = source.component(part) if source.is_folder and (source.path / "model_index.json").is_file() else None
    return source if folder is None else Source(source.name, folder, field=source.field)


# ── the VAE ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def vae_outline(source: Source, dtype: str) -> VaeOutline:
    """Read headers and configs of a VAE. Raises WeightsError, with the remedy, for what can neither encode nor decode."""
    source, field = part_of(source, "vae"), source.field
    config = _config(source)
    name, found = config.get("_class_name", USUAL), source.identity
    if name in OTHER_VAES or found.kind == "taesd":
        raise WeightsError(field, f'"{source.name}" is {OTHER_VAES.get(name, OTHER_VAES["AutoencoderTiny"])}.')
    if found.kind not in ("vae", "foreign") and "vae" not in found.parts:
        raise wrong_kind(field, found, "vae", name=source.name)
    if name != USUAL:
        raise WeightsError(field, f'"{source.name}" is a {name}, of another family. Choose a VAE of SD 1.x, SD 2.x or SDXL.')  # fmt: skip
    if any(".condition_encoder." in k for k in source.header):
        raise WeightsError(field, f'"{source.name}" is {OTHER_VAES["AsymmetricAutoencoderKL"]}.')
    if found.variant == "decoder":
        raise WeightsError(field, f'"{source.name}" holds a decoder alone, and pictures that come in are encoded, too. Choose the whole VAE.')  # fmt: skip
    names = vae_names(source.header)
    shapes = {new: source.header[old].shape for old, new in names.items()}
    try:
        read = ldm_configs.vae(shapes, family="")
    except (KeyError, ValueError, IndexError) as e:
        if found.kind == "foreign":
            raise wrong_kind(field, found, "vae", name=source.name) from e
        raise WeightsError(field, f'"{source.name}" is incomplete: its VAE lacks {e}. Choose the whole file.') from e
    widths = read["block_out_channels"]
    scaling = config.get("scaling_factor", SCALE if config else None)
    memory = sum(source.header[k].numel for k in names) * WIDTHS[dtype]
    return VaeOutline(read["latent_channels"], 2 ** (len(widths) - 1), widths[0], scaling, memory)


def vae_fits(found: VaeOutline, spec: NetworkSpec, own: float | None, name: str, field: str = "vae") -> list[str]:
    """What is hardly meant of a VAE beside this base. own: scaling factor of the base's own VAE.

    Raises WeightsError for latents of other channels or another size.
    """
    family = FAMILIES.get(spec.family, "this base")
    if found.channels != spec.latent_channels:
        whose = f" ({LATENTS[found.channels]})" if found.channels in LATENTS else ""
        raise WeightsError(field, f'"{name}" has latents of {found.channels} channels{whose}, and those of {family} have {spec.latent_channels}. '
                                  f"Choose a VAE for {family}.")  # fmt: skip
    if found.factor != spec.vae_factor:
        raise WeightsError(field, f'"{name}" makes {found.factor} pixels of each place of the latent, and this base has {spec.vae_factor}. Choose a '
                                  f"VAE for {family}.")  # fmt: skip
    if own is not None and found.scaling is not None and abs(found.scaling - own) > 1e-3 * own:
        return [f"{field}: its config has a scaling factor of {found.scaling:g}, and the model's own VAE has {own:g}: it was made for other latents, "
                "so colours and shapes may come out wrong."]  # fmt: skip
    return []


def load_vae(source: Source, like: Mapping[str, Any], dtype: torch.dtype) -> Any:
    """An AutoencoderKL on the CPU. like: config of the base's own, whose scaling a file without a config has."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    from infuse.weights.build import assemble
    from infuse.weights.formats import read_keys
    from infuse.weights.parts import vae_dtype

    source = part_of(source, "vae")
    names = vae_names(source.header)
    tensors = _tensors(source, names, read_keys)
    config = dict(_config(source))
    if not config:
        config = ldm_configs.vae({k: tuple(t.shape) for k, t in tensors.items()}, family="")
        same = list(like.get("block_out_channels", ())) == config["block_out_channels"]
        config |= {k: like[k] for k in LIKE if k in like and (same or k != "norm_num_groups")}
    sdxl = config.get("scaling_factor", SCALE) == ldm_configs.SCALING["sdxl"]
    dtype = vae_dtype(dtype, bool(config.get("force_upcast", True)) and sdxl)
    make: Any = AutoencoderKL.from_config
    return assemble(partial(make, config), tensors, dtype, "cpu", f'the VAE of "{source.name}"', source.field)


LIKE = ("scaling_factor", "shift_factor", "latents_mean", "latents_std", "force_upcast", "norm_num_groups", "hidden_act", "num_attention_heads")  # fmt: skip
"""What no tensor says, of a VAE and of a text encoder."""
OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""How diffusers called the VAE's attention until 0.12."""


def vae_names(header: Header) -> dict[str, str]:
    """Key of the header -> diffusers' name, of a VAE in either layout, bare or inside of a checkpoint."""
    prefix = next((p for p in (VAE, "vae.", "vae/") if any(k.startswith(f"{p}decoder.") for k in header)), "")
    keys = [k.removeprefix(prefix) for k in header if k.startswith(prefix)]
    if any(k.startswith("decoder.up_blocks.") for k in keys):
        own = ("encoder.", "decoder.", "quant_conv.", "post_quant_conv.")
        return {prefix + k: renamed(k) for k in keys if k.startswith(own)}
    return {prefix + k: new for k, new in ldm_keys.vae(keys).items()}


def renamed(key: str) -> str:
    """A VAE's key as diffusers has it now."""
    module, _, leaf = key.rpartition(".")
    stem, _, last = module.rpartition(".")
    return f"{stem}.{OLD_ATTENTION[last]}.{leaf}" if ".attentions." in module and last in OLD_ATTENTION else key


# ── the text encoder ────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class TextOutline:
    """A CLIP text tower in numbers."""

    width: int
    words: int
    """Rows of its table of words."""
    layout: str
    """diffusers or open_clip."""
    names: Mapping[str, str]
    """Key of the header -> transformers' name."""
    memory: int


def text_outline(source: Source, dtype: str) -> TextOutline:
    """Read headers and configs of a text encoder. Raises WeightsError for what is none."""
    source, field = part_of(source, "text_encoder"), source.field
    found, header = source.identity, source.header
    if found.kind != "text_encoder" and "text_encoder" not in found.parts:
        raise wrong_kind(field, found, "text_encoder", name=source.name)
    if has_tasks(header):
        raise WeightsError(field, f'"{source.name}" is a PowerPaint\'s text encoder, with task tokens that no other base has. Choose a plain one.')  # fmt: skip
    prefix = next((p for p in TEXTS if any(k.startswith(p) for k in header)), found.prefix if found.kind == "text_encoder" else "")  # fmt: skip
    shapes = header.shapes(prefix)
    layout = "open_clip" if "token_embedding.weight" in shapes else "diffusers"
    try:
        names = ldm_keys.open_clip_heard(shapes) if layout == "open_clip" else ldm_keys.clip(shapes)
        names = {k: n for k, n in names.items() if n != "text_projection.weight"}
        key = next(k for k, n in names.items() if n == EMBEDDED)
        words, width = shapes[key]
    except (KeyError, StopIteration, ValueError) as e:
        raise WeightsError(field, f'"{source.name}" is incomplete: its text encoder lacks its table of words. Choose the whole file.') from e  # fmt: skip
    memory = sum(header[prefix + k].numel for k in names) * WIDTHS[dtype]
    return TextOutline(width, words, layout, {prefix + k: n for k, n in names.items()}, memory)


def text_fits(
    found: TextOutline, own: tuple[int | None, int], spec: NetworkSpec, name: str, field: str = "text_encoder"
) -> None:
    """own: (width, words) of the base's own (first) text encoder. Raises WeightsError for others, and for bases that bring task tokens."""
    width, words = own
    if spec.tasks:
        raise WeightsError(field, "this base has task tokens inside of its own text encoder. Remove it, or choose another base.")  # fmt: skip
    if width is not None and found.width != width:
        family = FAMILIES.get(spec.family, described(spec.context_width))
        raise WeightsError(field, f'"{name}" speaks words {found.width} wide, and the (first) text encoder of {family} speaks {width}. Choose one '
                                  f"for {family}.")  # fmt: skip
    if found.words != words:
        raise WeightsError(field, f'"{name}" knows {found.words:,} words, and the tokenizer of this base has {words:,}. Choose a text encoder of its '
                                  "kind.")  # fmt: skip


def load_text_encoder(source: Source, like: Mapping[str, Any], dtype: torch.dtype) -> Any:
    """A CLIPTextModel on the CPU. like: config of the base's own, whose heads and activation a file without a config has."""
    from transformers import CLIPTextConfig, CLIPTextModel

    from infuse.weights.build import assemble
    from infuse.weights.formats import read_keys

    found, source = text_outline(source, "float32"), part_of(source, "text_encoder")
    tensors = _tensors(source, found.names, read_keys)
    said = _config(source)
    act = "gelu" if found.layout == "open_clip" or found.width == 1024 else "quick_gelu"
    if not said:
        said = ldm_configs.text({k: tuple(t.shape) for k, t in tensors.items()}, act=act)
        said |= {k: like[k] for k in LIKE if k in like}
    config = CLIPTextConfig(**{k: v for k, v in said.items() if k not in ("architectures", "dtype", "torch_dtype")})
    what = f'the text encoder of "{source.name}"'
    return assemble(lambda: CLIPTextModel(config), tensors, dtype, "cpu", what, source.field, outer="text_model.")


def text_own(source: Source, spec: NetworkSpec) -> tuple[int | None, int]:
    """(width, words) of a base's own (first) text encoder, from its headers; None if the width is not told."""
    config = source.config("text_encoder") if source.is_folder else {}
    if width := config.get("hidden_size"):
        return width, config.get("vocab_size", VOCABULARY)
    ends = tuple(f"{p}{n}" for p in TEXTS for n in (EMBEDDED, EMBEDDED.removeprefix("text_model."), "token_embedding.weight"))  # fmt: skip
    table = next((e for k, e in source.header.items() if k in ends), None)
    if table is None:
        return (None if spec.embedding_slots else spec.context_width), VOCABULARY
    return table.shape[1], table.shape[0]


def vae_scaling(source: Source, family: str) -> float | None:
    """Scaling factor of a base's own VAE, from its config or, of a checkpoint, its family."""
    config = source.config("vae") if source.is_folder else {}
    return config.get("scaling_factor", SCALE if config else ldm_configs.SCALING.get(family))


# ── both ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _config(source: Source) -> Mapping[str, Any]:
    """config.json of a component's folder; empty for a file, and for folders that are no component's."""
    return read_json(source.path / "config.json", source.field) if source.is_folder else {}


def _tensors(source: Source, names: Mapping[str, str], read_keys: Any) -> dict[str, Tensor]:
    """Tensors under their new names, from one file or all shards of a folder."""
    from infuse.weights.formats import read_tensors

    if source.is_folder:
        paths = [p for files in source.weights.values() for p in files]
        stored = {k: t for p in paths for k, t in read_tensors(p).items()}
        found = {k: stored[source.header.stored.get(k, k)] for k in names}
    else:
        found = read_keys(source.header, names)
    out: dict[str, Tensor] = {}
    for key, name in names.items():
        if "{q,k,v}" in name:
            out |= {name.replace("{q,k,v}", p): t for p, t in zip("qkv", found[key].chunk(3), strict=True)}
        else:
            out[name] = found[key]
    return out
