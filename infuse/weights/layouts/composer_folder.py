"""VideoComposer in diffusers form: a text-to-video folder with a wider UNet, and `composer/` with its small networks.

`composer/config.json` says {"conditions": {"depth": 1, ...channels}, "layers": 1, "dim": 8, "style": width or null};
the tensors beside it are named `stc.<condition>.*` and `style.*`. What is told before loading is read off headers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infuse.errors import WeightsError
from infuse.weights.layouts import video_keys
from infuse.weights.source import Source

if TYPE_CHECKING:
    import torch

    from infuse.network.stc import Composer
    from infuse.weights.parts import BaseParts

FOLDER = "composer"


def told(source: Source, unet: Mapping[str, Any]) -> tuple[tuple[str, ...], bool]:
    """(conditions with an encoder, whether there is a style network) of a base, for the config of its UNet.

    Raises WeightsError if `composer/` does not belong to that UNet.
    """
    if source.release:
        found = video_keys.identity(source.header)
        return (found.conditions, found.style) if found else ((), False)
    if source.component(FOLDER) is None:
        return (), False
    config = _config(source)
    extra = unet.get("in_channels", 4) - unet.get("out_channels", 4)
    if config["dim"] != extra:
        raise WeightsError(source.field, f'"{source.name}" has condition encoders of {config["dim"]} channels in composer/, but its UNet takes '
                                         f"{extra} beside the latents. Take unet/ and composer/ from the same model.")  # fmt: skip
    if config["style"] not in (None, unet.get("cross_attention_dim")):
        raise WeightsError(source.field, f'"{source.name}" has a style network of width {config["style"]} in composer/, but its UNet listens to '
                                         f"{unet.get('cross_attention_dim')}. Take unet/ and composer/ from the same model.")  # fmt: skip
    keys = source.header.shapes(f"{FOLDER}/")
    absent = [c for c in config["conditions"] if f"stc.{c}.convs.0.weight" not in keys]
    if absent:
        raise WeightsError(source.field, f'"{source.name}" lacks the encoder of {absent[0]}, which its composer/config.json names. Download '
                                         "composer/ again.")  # fmt: skip
    return tuple(config["conditions"]), config["style"] is not None


def _config(source: Source) -> Mapping[str, Any]:
    config = {"layers": 1, "style": None, **source.config(FOLDER)}
    if not isinstance(config.get("conditions"), Mapping) or "dim" not in config:
        raise WeightsError(source.field, f'"{source.name}" has a composer/ folder whose config.json does not say its "conditions" and '
                                         '"dim". Download it again, or write it with infuse.weights.layouts.composer_folder.save_composer.')  # fmt: skip
    return config


def load_composer(source: Source, dtype: torch.dtype, device: torch.device | str) -> Composer | None:
    """The small networks in `composer/`; None without that folder.

    Raises WeightsError for missing, misshapen or left-over tensors.
    """
    if source.component(FOLDER) is None:
        return None
    from torch import nn

    from infuse.network.stc import Composer, STCEncoder, StyleMLP
    from infuse.weights.build import assemble
    from infuse.weights.formats import read_tensors

    config, tensors = _config(source), {k: t for p in source.weights[FOLDER] for k, t in read_tensors(p).items()}

    def make() -> nn.ModuleDict:
        sizes, dim, layers = config["conditions"], config["dim"], config["layers"]
        stc = nn.ModuleDict({name: STCEncoder(channels, dim, layers) for name, channels in sizes.items()})
        return nn.ModuleDict({"stc": stc, **({"style": StyleMLP(config["style"])} if config["style"] else {})})

    what = f'composer/ of "{source.name}"'
    made: Any = assemble(make, tensors, dtype, device, what, source.field, strict=True)
    made.requires_grad_(False)
    return Composer(made["stc"], getattr(made, "style", None))


def save_composer(folder: str | Path, modules: Composer) -> Path:
    """Write `composer/` into a model's folder, and answer where. What `load_composer` reads back."""
    from safetensors.torch import save_file

    place = Path(folder) / FOLDER
    place.mkdir(parents=True, exist_ok=True)
    encoders: Mapping[str, Any] = dict(modules.stc.items())
    first: Any = next(iter(encoders.values()))
    config = {
        "conditions": {name: e.convs[0].in_channels for name, e in encoders.items()},
        "layers": len(first.after.layers),
        "dim": first.convs[-1].out_channels,
        "style": None if modules.style is None else modules.style[0].in_features,
    }
    (place / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    state = {f"stc.{k}": t for k, t in modules.stc.state_dict().items()}
    state |= {f"style.{k}": t for k, t in modules.style.state_dict().items()} if modules.style is not None else {}
    tensors = {k: t.detach().cpu().clone().contiguous() for k, t in state.items()}
    save_file(tensors, str(place / "diffusion_pytorch_model.safetensors"), metadata={"format": "pt"})
    return place


def to_folder(parts: BaseParts, folder: str | Path) -> Path:
    """Write a loaded video base as a diffusers folder, with `composer/` if it has one: what `load_base` reads back.

    Raises WeightsError for a base of pictures.
    """
    root, spec = Path(folder), parts.spec
    if not spec.frames:
        raise WeightsError(
            parts.source.field, f'"{parts.source.name}" makes pictures; only video bases are written as folders.'
        )
    modules = {"unet": parts.unet, "vae": parts.vae, "text_encoder": parts.text_encoders[0], "tokenizer": parts.tokenizers[0],
               "image_encoder": parts.image_encoder, "feature_extractor": parts.feature_extractor}  # fmt: skip
    index: dict[str, Any] = {"_class_name": "TextToVideoSDPipeline", "infuse_family": spec.family, "infuse_guidance": spec.guidance,
                             "infuse_frames": spec.frames, "scheduler": ["diffusers", parts.scheduler_config["_class_name"]]}  # fmt: skip
    for name, module in modules.items():
        if module is not None:
            module.save_pretrained(root / name)
            index[name] = [type(module).__module__.partition(".")[0], type(module).__name__]
    (root / "scheduler").mkdir(exist_ok=True)
    (root / "scheduler" / "scheduler_config.json").write_text(json.dumps(dict(parts.scheduler_config), indent=1) + "\n")
    if parts.composer is not None:
        save_composer(root, parts.composer)
    (root / "model_index.json").write_text(json.dumps(index, indent=1) + "\n")
    return root
