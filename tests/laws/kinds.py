"""Every kind of condition, and every kind of file that one can bring, on tiny bases of each family: what pairs are made of."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import beside_nets
import gligens
import loras
import numpy as np
import tiny_faces
import torch
from diffusers import UNet2DConditionModel
from parity.told import EYE, normalizer
from weights.test_lllite import term, written

import tiny
from infuse.conditions import (
    BrushNet,
    CoAdapter,
    Condition,
    ControlNet,
    Depth,
    DepthVideo,
    Edit,
    Gligen,
    Img2Img,
    Inpaint,
    IPAdapter,
    Lora,
    MaskedVideo,
    Motion,
    PowerPaint,
    Reference,
    Regions,
    SingleImage,
    SingleSketch,
    Size,
    SketchVideo,
    StyleImage,
    T2IAdapter,
    T2IStyle,
    Text,
    UnCLIP,
    Upscale,
    VideoToVideo,
)
from infuse.encoders.coadapter import Fuser
from infuse.encoders.noise_augmentation import ImageNoise
from infuse.encoders.t2i import T2IAdapter as T2I
from infuse.encoders.t2i_kinds import Anatomy, Fusing
from infuse.encoders.t2i_style import StyleAdapter
from infuse.engine.engine import Engine
from infuse.media.films import Film
from infuse.network.brushnet import BrushNet as Brush
from infuse.network.ldm_names import transformer_blocks
from infuse.network.spec import NetworkSpec
from infuse.network.unet import Network
from infuse.weights.layouts.beside import load_beside
from infuse.weights.layouts.lllite import load_lllite
from mix import half, picture

SIDE = 16
Made = Callable[..., Condition]


@dataclass(frozen=True)
class World:
    """A base, the modules that conditions bring along, and every kind that it can hear: `kinds[name](**voice)`."""

    build: Callable[[], tuple[tiny.Tiny, Mapping[str, Any]]]
    """The base, and the modules: made when somebody runs it, as names are asked for at collection already."""
    kinds: Mapping[str, Made]
    own: tuple[str, ...] = ()
    """Kinds that this base alone hears; pairs of all others are walked on the plain one of its family."""
    recipe: Mapping[str, Any] | None = None

    def engine(self, **options: Any) -> Engine:
        base, modules = self.build()
        return tiny.engine(base, dict(modules), own=False, **options)


def anatomy(spec: NetworkSpec, light: bool) -> Anatomy:
    return Anatomy(light, 3 * spec.vae_factor**2, tuple(spec.widths), 1)


@cache
def modules(family: str) -> dict[str, Any]:
    """Whatever stands beside a base of two layers a block, in float64."""
    made = beside_nets.base(family)
    unet, spec, context = beside_nets.unet(family), made.base.spec, made.base.spec.context_width
    out: dict[str, Any] = {
        f"{name} net": beside_nets.control(unet, i) for i, name in enumerate(("edges", "pooled", "hollow"), 7)
    }
    out["pooled net"].register_to_config(global_pool_conditions=True)
    out["union net"] = beside_nets.union(family, like=unet)
    out["narrow net"] = beside_nets.xs(family)
    out |= {f"{kind} file": tiny_faces.adapter(family, kind, 60 + i, spec) for i, kind in enumerate(tiny_faces.KINDS)}
    for name, light in (("full t2i", False), ("light t2i", True), ("other t2i", False)):
        torch.manual_seed(80 + len(name))
        out[name] = tiny.randomized(T2I(anatomy(spec, light)), 81)
    torch.manual_seed(82)
    out["style file"] = tiny.randomized(StyleAdapter(48, context, 3, 1), 83)
    out["fuser file"] = tiny.randomized(Fuser(Fusing(context, 16, tuple(spec.widths), 1)), 84)
    with tempfile.TemporaryDirectory() as folder:
        blocks = [(name, at) for name, at in transformer_blocks(spec).items() if name != at.path]
        terms = {
            f"{name}.{p}".replace(".", "_"): term(at.width, min(at.level + 1, 3), seed=85)
            for name, at in blocks
            for p in ("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn2.to_q")
        }
        out["terms net"] = load_lllite(written(Path(folder), terms), made.base.network.unet)
        from safetensors.torch import save_file

        state = beside_nets.lora_state(beside_nets.control(unet, 11), unet)
        save_file({k: v.contiguous() for k, v in state.items()}, path := Path(folder) / "lora.safetensors")
        out["lora net"] = load_beside(path, base=unet)
    torch.manual_seed(86)
    layers = {at.path: (at.width, 4) for at in transformer_blocks(spec).values()}
    boxes: Any = tiny.randomized(gligens.Network("text", context, context, layers), 87)
    out["boxes file"] = boxes
    out["lora file"] = loras.lora(made.base, 89, 2, "blocks", bias=True)
    out["brush net"] = tiny.randomized(Brush.from_unet(unet, attention=False), 88)
    return {name: tiny.cast(net, torch.float64) for name, net in out.items()}


def ground(**voice: Any) -> dict[str, Any]:
    """One picture for all that is filled in, and for all that is begun from."""
    return {"image": picture(90, SIDE), "mask": half(SIDE), **voice}


def common(family: str) -> dict[str, Made]:
    """Kinds that any base of this family hears."""
    hint = picture(91, SIDE)

    def control(model: str, **fields: Any) -> Made:
        return lambda **voice: ControlNet(**{"model": model, "image": hint, **fields, **voice})

    def adapter(kind: str, **fields: Any) -> Made:
        return lambda **voice: IPAdapter(
            **{"model": f"{kind} file", **tiny_faces.shown(kind, picture(92)), **fields, **voice}
        )

    members = ({"type": "depth", "model": "full t2i", "image": hint}, {"type": "canny", "model": "other t2i", "image": picture(93, SIDE)})  # fmt: skip
    boxes = ({"box": (0.1, 0.2, 0.6, 0.9), "phrase": "a ball"},)
    kinds: dict[str, Made] = {
        "text": lambda **v: Text(**{"prompt": "a sphere", "weight": 0.7, **v}),
        "text on the negative side": lambda **v: Text(**{"prompt": "blurred", "applies_to": "negative", **v}),
        "lora": lambda **v: Lora(**{"model": "lora file", "weight": 0.8, **v}),
        "regions": lambda **v: Regions(**{"regions": parts(), **v}),
        "regions (latent)": lambda **v: Regions(**{"regions": parts(), "way": "latent", **v}),
        "img2img": lambda **v: Img2Img(**{"image": picture(90, SIDE), "strength": 0.7, **v}),
        "inpaint": lambda **v: Inpaint(**ground(**v)),
        "inpaint (strength 0.6)": lambda **v: Inpaint(**ground(strength=0.6, **v)),
        "brushnet": lambda **v: BrushNet(**ground(model="brush net", **v)),
        "controlnet": control("edges net"),
        "controlnet (guess mode)": control("edges net", mode="guess"),
        "controlnet (shuffle)": control("pooled net"),
        "controlnet (inpaint)": control("hollow net", hole=half(SIDE)),
        "control-lora": control("lora net"),
        "controlnet-union (depth)": control("union net", type="depth"),
        "controlnet-union (canny)": control("union net", type="canny"),
        "controlnet-xs": control("narrow net"),
        "controlnet-lllite": control("terms net"),
        "t2i-adapter": lambda **v: T2IAdapter(**{"model": "full t2i", "image": hint, **v}),
        "t2i-adapter (light)": lambda **v: T2IAdapter(**{"model": "light t2i", "image": hint, **v}),
        "t2i style": lambda **v: T2IStyle(**{"model": "style file", "image": picture(94), **v}),
        "coadapter": lambda **v: CoAdapter(**{"model": "fuser file", "members": members, **v}),
        **{f"ip-adapter ({kind})": adapter(kind) for kind in tiny_faces.KINDS},
        "gligen": lambda **v: Gligen(**{"model": "boxes file", "boxes": boxes, "end": 1.0, **v}),
        "reference": lambda **v: Reference(**{"image": picture(96, SIDE), **v}),
        "reference (norms)": lambda **v: Reference(**{"image": picture(97, SIDE), "method": "norms", **v}),
    }  # fmt: skip
    if family == "sdxl":
        kinds["size"] = lambda **v: Size(**{"original": (64, 48), **v})
        for name in ("brushnet", "gligen"):  # there are no such files
            del kinds[name]
    return kinds


def parts() -> list[dict[str, Any]]:
    return [{"prompt": "a cone", "mask": half(SIDE)}, {"prompt": "a torus", "box": (0, 0, 0.5, 1), "weight": 0.5}]


OWN: dict[str, tuple[str, dict[str, Any], dict[str, Made]]] = {
    "depth2img": ("sd1", {"in_channels": 5}, {"depth": lambda **v: Depth(**{"image": shades(), **v})}),
    "pix2pix": ("sd1", {"in_channels": 8}, {"edit": lambda **v: Edit(**{"image": picture(98, SIDE), **v})}),
    "inpainting": ("sd1", {"in_channels": 9}, {"inpaint (nine channels)": lambda **v: Inpaint(**ground(**v))}),
    "sdxl inpainting": ("sdxl", {"in_channels": 9}, {"inpaint (nine channels)": lambda **v: Inpaint(**ground(**v))}),
    "powerpaint": ("sd1", {"in_channels": 9}, {"powerpaint": lambda **v: PowerPaint(**ground(task="text", prompt="a ball", **v))}),
    "upscaler": ("sd1", {"in_channels": 7, "num_class_embeds": 400}, {"upscale": lambda **v: Upscale(**{"image": picture(99, SIDE // 2), **v})}),
    "unclip": (
        "sd1", {"class_embed_type": "projection", "projection_class_embeddings_input_dim": 2 * EYE},
        {"unclip": lambda **v: UnCLIP(**{"image": picture(99), "noise_level": 50, **v})},
    ),
}  # fmt: skip
"""Bases that hear something besides: (family, what their UNet's config has else, their own kinds)."""


def shades() -> Any:
    return np.tile(np.linspace(20, 230, SIDE, dtype=np.uint8)[:, None], (1, SIDE))


def told(family: str, config: Mapping[str, Any]) -> tiny.Tiny:
    """The base of two layers a block, whose network is told more."""
    plain = beside_nets.base(family, dtype=torch.float64)
    torch.manual_seed(60)
    plainly = {k: v for k, v in beside_nets.unet(family).config.items() if not k.startswith("_")}
    net = UNet2DConditionModel(**plainly | dict(config))
    net = tiny.cast(tiny.randomized(net, 61), torch.float64)  # type: ignore[arg-type]
    spec = NetworkSpec.from_unet_config(
        family, net.config, vae_factor=2, prediction=plain.base.spec.prediction, family=family
    )
    noise = ImageNoise(normalizer().mean[0], normalizer().std[0]) if "image_embeds" in spec.embedding_slots else None
    return replace(plain, base=replace(plain.base, network=Network(net, spec), image_noise=noise))


@cache
def world(name: str) -> World:
    if name == "videocomposer":
        return clips()
    if name in ("sd1", "sdxl"):
        return World(lambda: (beside_nets.base(name, dtype=torch.float64), modules(name)), common(name))
    family, config, own = OWN[name]
    others = {
        k: v for k, v in common(family).items() if not (k.startswith("inpaint") and config.get("in_channels") == 9)
    }
    return World(lambda: (special(name), modules(family)), {**others, **own}, tuple(own))


def special(name: str) -> tiny.Tiny:
    """A base that hears something besides."""
    family, config, _ = OWN[name]
    made = told(family, config)
    if name == "powerpaint":
        texts = tiny.task_texts("v1", dtype=torch.float64)
        network = Network(made.base.network.unet, replace(made.base.spec, tasks="v1"))
        encoders = tiny.TextEncoders([texts.model], [tiny.tokenizer()])
        made = tiny.Tiny("sd1", made.parts, replace(made.base, network=network, texts=encoders, tasks=texts))
    return made


def film(seed: int, side: int = SIDE, count: int = 4) -> Film:
    return Film.of(np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8))


def video() -> tuple[tiny.Tiny, dict[str, Any]]:
    """A VideoComposer, and what is beside it."""
    made = tiny.videocomposer(torch.float64)
    widths = [w for _, w in made.base.spec.cross_layers]
    torch.manual_seed(100)
    plain: Any = tiny.randomized(tiny.Adapter("plain", tiny.Plain(32, 4, 32), len(widths), widths, 32), 101)
    torch.manual_seed(102)
    unet = tiny.unet("sd1")
    like = UNet2DConditionModel.from_config(
        {**unet.config, "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
         "attention_head_dim": 4}
    )  # fmt: skip
    brought = {"edges net": beside_nets.control(like, 103), "plain file": plain, "full t2i": tiny.randomized(T2I(anatomy(made.base.spec, False)), 104)}  # fmt: skip
    brought["lora file"] = loras.lora(made.base, 105, 2, "attn")  # type: ignore[assignment]
    return made, {k: tiny.cast(m, torch.float64) for k, m in brought.items()}


@cache
def clips() -> World:
    """A VideoComposer."""
    kinds: dict[str, Made] = {
        "text": lambda **v: Text(**{"prompt": "a sphere", "weight": 0.7, **v}),
        "lora": lambda **v: Lora(**{"model": "lora file", "weight": 0.8, **v}),
        "controlnet (film)": lambda **v: ControlNet(**{"model": "edges net", "film": film(110), **v}),
        "t2i-adapter (film)": lambda **v: T2IAdapter(**{"model": "full t2i", "film": film(111), **v}),
        "ip-adapter (plain)": lambda **v: IPAdapter(**{"model": "plain file", "image": picture(112), **v}),
        "depth_video": lambda **v: DepthVideo(**{"film": film(113, 24), **v}),
        "sketch_video": lambda **v: SketchVideo(**{"film": film(114, 24), **v}),
        "single_sketch": lambda **v: SingleSketch(**{"image": picture(115, 24), **v}),
        "single_image": lambda **v: SingleImage(**{"image": picture(116, 24), **v}),
        "motion": lambda **v: Motion(**{"drawn": [{"from": [0.2, 0.3], "to": [0.9, 0.6]}], **v}),
        "style_image": lambda **v: StyleImage(**{"image": picture(117), **v}),
        "masked_video": lambda **v: MaskedVideo(**{"film": film(118), "mask": half(SIDE), **v}),
        "video_to_video": lambda **v: VideoToVideo(**{"film": film(119), "strength": 0.7, **v}),
    }
    return World(video, kinds, recipe={"frames": 4})


WORLDS = ("sd1", "sdxl", *OWN, "videocomposer")
