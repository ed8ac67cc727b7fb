"""From a source to a base model's parts: the same record from a diffusers folder, an original checkpoint, a video release.

This file reads folders, tensor by tensor; `checkpoint` reads the single files. Neither
touches the network: what a source leaves out is an error, never a download.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.models.unets.unet_3d_condition import UNet3DConditionModel
from torch import nn

from infuse.encoders.generations import GENERATIONS
from infuse.encoders.tasks import TaskTexts
from infuse.errors import WeightsError
from infuse.network.stc import Composer
from infuse.notices import note
from infuse.weights.build import assemble
from infuse.weights.formats import read_header, read_tensors
from infuse.weights.identify import identify
from infuse.weights.kinds import Identity
from infuse.weights.layouts.composer_folder import load_composer
from infuse.weights.layouts.difference import Difference, merge
from infuse.weights.layouts.ldm_checkpoint import (
    from_checkpoint,
    image_processor,
    read_open_clip,
    read_open_clip_visual,
    read_vae,
)
from infuse.weights.layouts.powerpaint import tasks_of, text_model
from infuse.weights.layouts.unclip import load_noise
from infuse.weights.layouts.video_composer import build, read
from infuse.weights.layouts.wrapped import unwrapped
from infuse.weights.outline import VIDEO_UNET, no_folder, release_config, schedule, scheduler_of, spec_of, unet_config
from infuse.weights.parts import BaseParts, Loading, log, vae_dtype
from infuse.weights.source import Source, read_json, variant_of, weights_of
from infuse.weights.tokenizer import END, clip_tokenizer

UNETS = ("UNet2DConditionModel", VIDEO_UNET)
LIBRARIES = {"diffusers": diffusers, "transformers": transformers}


def load_base(
    source: Source | str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    prediction: str | None = None,
) -> BaseParts:
    """Load a base model: a diffusers pipeline folder, one original (LDM, SGM) checkpoint, a video release, a difference to one.

    `prediction` (epsilon, v_prediction) overrides what the model is taken to predict; SD 2.x files do not say.
    Raises WeightsError for a file of another kind, a refiner, missing parts, missing or misshapen tensors.
    """
    source = source if isinstance(source, Source) else Source(str(source), Path(source))
    identity = identify(source.header, prediction=prediction)
    if isinstance(source, Difference):
        return merge(load_base(source.base, dtype=dtype, device=device, prediction=prediction), source)
    loading = Loading(source, dtype, device, list(identity.notes))
    if source.release:
        parts = from_release(loading, identity)
    elif source.is_folder and source.component("unet"):
        parts = from_folder(loading, prediction)
    else:
        parts = from_checkpoint(loading, identity)
    for text in parts.notes:
        log.info("%s: %s", source.name, text)
    return parts


def from_folder(loading: Loading, prediction: str | None = None) -> BaseParts:
    """A diffusers pipeline folder; components that it leaves out come from its fallback, if it names one.

    Raises WeightsError when a component is missing, incomplete or of a class that infuse does not run.
    """
    source = loading.source
    tasks = tasks_of(source)
    unet = (
        _bare_unet(loading) or _added_unet(loading) or _component(loading, "unet", "UNet2DConditionModel", known=UNETS)
    )
    vae = _component(loading, "vae", "AutoencoderKL")
    encoders = [_task_encoder(loading) if tasks else _component(loading, "text_encoder", "CLIPTextModel")]
    tokenizers = [_tokenizer(loading, "tokenizer", END)]
    if source.component("text_encoder_2"):
        encoders.append(_component(loading, "text_encoder_2", "CLIPTextModelWithProjection"))
        tokenizers.append(_tokenizer(loading, "tokenizer_2", "!"))
    image = source.component("image_encoder")
    config = schedule(source, unet.config, prediction)
    factor = 2 ** (len(vae.config["block_out_channels"]) - 1)
    spec = spec_of(
        source,
        dict(unet.config),
        factor,
        config.get("prediction_type", "epsilon"),
        sum(p.numel() for p in unet.parameters()),
    )
    eye, processor = load_vision(source, loading.dtype, loading.device) if image else (None, None)
    zeros = source.index.get("force_zeros_for_empty_prompt", len(encoders) > 1)
    return BaseParts(
        source, unet, vae, encoders, tokenizers, spec, config, eye, processor, bool(zeros), tuple(loading.notes),
        TaskTexts(encoders[0], tokenizers[0], GENERATIONS[tasks]) if tasks else None,
        load_composer(source, loading.dtype, loading.device),
        load_noise(source, eye.config.projection_dim) if eye and "image_embeds" in spec.embedding_slots else None,
    )  # fmt: skip


def from_release(loading: Loading, identity: Identity) -> BaseParts:
    """VideoComposer or ModelScope's text-to-video as loose files; what they leave out is the fallback's.

    Every tensor of the UNet's file has its place (1,574 in VideoComposer's, 1,480 in ModelScope's), or it is refused.
    """
    source, dtype, device = loading.source, loading.dtype, loading.device
    release, lender = source.release, source.fallback
    assert release is not None
    release_config(source)
    lent = Loading(lender or source, dtype, device)
    made = build(read(read_tensors(release.unet), field=source.field), dtype, device, source.field)
    vae = (
        read_vae(loading, own[0], "sd2", set())
        if (own := release.find("vae"))
        else _component(lent, "vae", "AutoencoderKL")
    )
    if own := release.find("text_encoder"):
        encoder, tokenizer = read_open_clip(loading, *own, set()), clip_tokenizer("!")
    else:
        encoder, tokenizer = _component(lent, "text_encoder", "CLIPTextModel"), _tokenizer(lent, "tokenizer", "!")
    eye = processor = None
    if own := release.find("image_encoder"):
        eye = read_open_clip_visual(loading, *own)
        processor = _processor(release.folder, eye.config.image_size)
    elif lent.source.component("image_encoder"):
        eye, processor = load_vision(lent.source, dtype, device)
    if made.style is not None and eye is None:
        loading.notes.append("it has a style network, but no image encoder is with it: there can be no style")
    if made.fps is not None:
        loading.notes.append("its frame-rate embedding is not used")
    if release.spare:
        spare = ", ".join(p.name for p in release.spare)
        loading.notes.append(f"{release.unet.name} is used; name the file itself to use {spare} instead")
    composer = Composer(made.stc, made.style) if len(made.stc) or made.style is not None else None
    config, factor = dict(made.unet.config), 2 ** (len(vae.config["block_out_channels"]) - 1)
    spec = spec_of(source, config, factor, identity.prediction, sum(p.numel() for p in made.unet.parameters()))
    return BaseParts(source, made.unet, vae, [encoder], [tokenizer], spec, scheduler_of("sd2", identity, source.header), eye,
                     processor, notes=tuple(loading.notes), composer=composer)  # fmt: skip


def _bare_unet(loading: Loading) -> Any:
    """A UNet without config.json, as PowerPaint 1 was released; None if it has one."""
    source = loading.source
    folder = source.component("unet")
    if folder is None or (folder / "config.json").is_file():
        return None
    config = {k: v for k, v in unet_config(source).items() if not k.startswith("_")}
    what = f'the UNet of "{source.name}"'
    return assemble(
        lambda: UNet2DConditionModel(**config), _tensors(source, "unet"), loading.dtype, loading.device, what,
        source.field, strict=True,
    )  # fmt: skip


def _added_unet(loading: Loading) -> Any:
    """A network of clips that adds its own tensors to a UNet of pictures; None if it brings all of them."""
    source = loading.source
    if not source.lent:
        return None
    config = {k: v for k, v in source.config("unet").items() if k not in ("_class_name", "_diffusers_version")}
    make: Any = UNet3DConditionModel.from_config
    what = f'the UNet of "{source.name}", with what "{source.fallback and source.fallback.name}" lends to it,'
    return assemble(
        lambda: make(config), _tensors(source, "unet"), loading.dtype, loading.device, what,
        source.field, strict=True,
    )  # fmt: skip


def _task_encoder(loading: Loading) -> Any:
    """The text encoder of a PowerPaint 1, wrapped (release) or widened (dev)."""
    source, config = loading.source, loading.source.config("text_encoder")
    if not config:
        raise loading.error(f'"{source.name}" has no text_encoder/config.json. Download the whole folder again.')
    what = f'the text encoder of "{source.name}"'
    tensors = _tensors(source, "text_encoder")
    return text_model(tensors, config, loading.dtype, loading.device, what, source.field)


def _tensors(source: Source, part: str) -> dict[str, torch.Tensor]:
    return _unwrapped(source.weights[part])


def _unwrapped(files: list[Path]) -> dict[str, torch.Tensor]:
    return {unwrapped(k): t for path in files for k, t in read_tensors(path).items()}


def load_vision(
    source: Source | Path, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> tuple[Any, Any]:
    """(CLIP vision model with projection, its image processor): of a pipeline, or of an encoder's own folder.

    Raises WeightsError when there is none or it is broken.
    """
    source = source if isinstance(source, Source) else Source(source.name, source, field="image_encoder")
    folder = source.component("image_encoder") or source.path
    if "projection_dim" not in read_json(folder / "config.json", source.field):
        raise WeightsError(
            source.field, f'"{source.name}" is no CLIP vision model: no config.json with a projection_dim is there.'
        )
    what = f'the image encoder of "{source.name}"'
    model = load_module(transformers.CLIPVisionModelWithProjection, folder, dtype, device, what, source.field)
    return model, _processor(source.component("feature_extractor") or folder, model.config.image_size)


def processor_of(folder: Path) -> Any:
    """The image processor of a CLIP vision model's folder, without the model; None if it is no such folder."""
    side = read_json(folder / "config.json").get("image_size")
    return _processor(folder, side) if isinstance(side, int) else None


def _component(loading: Loading, part: str, usual: str, known: tuple[str, ...] = ()) -> Any:
    source = loading.source
    folder = source.component(part)
    if folder is None:
        raise loading.error(no_folder(source, part))
    said = source.index.get(part) or [None, None]
    own = source.config(part).get("_class_name") if part == "unet" else None  # the index may be a lender's
    name = str(own or said[-1] or usual)
    library = LIBRARIES.get(str(said[0])) or (transformers if hasattr(transformers, usual) else diffusers)
    cls = getattr(library, name, None)
    if cls is None or (known and name not in known):
        raise loading.error(f'the {part} of "{source.name}" is a {name}, which infuse does not run. Choose a model of SD 1.x, '
                            "SD 2.x or SDXL, or a text-to-video model of ModelScope's kind.")  # fmt: skip
    return load_module(cls, folder, loading.dtype, loading.device, f'the {part} of "{source.name}"', source.field)


def load_module(
    cls: type[Any], folder: Path, dtype: torch.dtype, device: torch.device | str, what: str, field: str
) -> Any:
    """One component folder through its class's `from_pretrained`, offline, in eval mode.

    Raises WeightsError for broken files and for missing or misshapen tensors.
    """
    files = weights_of(folder, field)
    wrapped = any(unwrapped(key) != key for path in files for key in read_header(path, field))
    config = read_json(folder / "config.json", field)
    if cls is AutoencoderKL:
        dtype = vae_dtype(dtype, bool(config.get("force_upcast", True)) and config.get("scaling_factor") == 0.13025)
    try:
        return _given(cls, config, files, dtype, device, what, field)
    except (WeightsError, OSError, ValueError, RuntimeError, TypeError, KeyError):
        if wrapped:  # saved by a trainer that had compiled or distributed it; `from_pretrained` knows no such names
            raise
    # old names and broken files: the class's own way knows the ones and has the words for the others, and takes a copy in float32.
    # Asked for half precision, both libraries change torch's default dtype while they build: that of every thread's step.
    plain: dict[str, Any] = {} if issubclass(cls, ModelMixin) else {"dtype": torch.float32}
    load: Any = cls.from_pretrained
    try:
        module, report = load(
            folder, variant=variant_of(files[0]), use_safetensors=files[0].suffix == ".safetensors", local_files_only=True,
            output_loading_info=True, **plain,
        )  # fmt: skip
    except (OSError, ValueError, RuntimeError, TypeError, KeyError) as e:
        raise WeightsError(field, f"{what} ({folder}) cannot be loaded: {_first_line(e)}") from e
    bad = [*report["missing_keys"], *(m[0] for m in report["mismatched_keys"])]
    if bad:
        raise WeightsError(field, f"{what} is incomplete: {len(bad)} tensors are missing or of another shape than its "
                                  f"config.json says (first: {bad[0]}). Download {folder.name}/ again.")  # fmt: skip
    extra = [k for k in report["unexpected_keys"] if not k.endswith("position_ids")]
    if extra:
        note(f"{what}: {len(extra)} tensors have no place in the network and are left out (first: {extra[0]})")
    return nn.Module.to(module, device=device, dtype=dtype).eval()


def _given(
    cls: type[Any], config: Mapping[str, Any], files: list[Path], dtype: torch.dtype, device: Any, what: str, field: str
) -> Any:
    """The network of a config with the tensors of its files, one by one: nothing is held twice."""
    tensors = {k: t for k, t in _unwrapped(files).items() if not k.endswith("position_ids")}
    outer = "text_model." if any(k.startswith("text_model.") for k in tensors) else ""
    return assemble(partial(_empty, cls, config), tensors, dtype, device, what, field, outer)


def _empty(cls: type[Any], config: Mapping[str, Any]) -> Any:
    """The network of a config, with weights to come."""
    make: Any = cls
    return make.from_config(config) if issubclass(cls, ModelMixin) else make(make.config_class.from_dict(config))


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:300]


def _tokenizer(loading: Loading, part: str, pad: str) -> Any:
    folder = loading.source.component(part)
    if folder is None:
        return clip_tokenizer(pad)
    return transformers.CLIPTokenizer.from_pretrained(folder, local_files_only=True)


def _processor(folder: Path, size: int) -> Any:
    """As the folder says, else CLIP's own; PIL's, whatever else is installed."""
    if (folder / "preprocessor_config.json").is_file():
        return transformers.CLIPImageProcessorPil.from_pretrained(folder, local_files_only=True)
    return image_processor(size)
