"""What is told of a file to whoever found it: its telling numbers, what its tensors cannot say, and how a recipe uses it.

A recipe's lines name pictures that stand for the reader's own (`photo.png`, `map.png`, `mask.png`). Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from infuse.errors import WeightsError
from infuse.weights.formats import Header
from infuse.weights.kinds import ADVICE, KINDS, NAMED, Identity
from infuse.weights.layouts.powerpaint import FOLDERS
from infuse.weights.lora_outline import UNRUN
from infuse.weights.source import Source, weights_of

PHOTO, MAP, MASK, FACE = "photo.png", "map.png", "mask.png", "face.npy"
INSTEAD = ("transformer", "prior", "decoder")
"""Where pipelines of other families keep the network that Stable Diffusion has in `unet/`."""
VISION = {768: "ViT-B", 1024: "ViT-L/14", 1280: "ViT-H/14", 1664: "ViT-bigG/14"}
TEXT = {
    768: "ViT-L/14, of SD 1.x and the first of SDXL",
    1024: "ViT-H/14, of SD 2.x",
    1280: "ViT-bigG/14, the second of SDXL",
}
"""CLIP's towers by their own width."""
EMBEDS = {768: "ViT-L/14", 1024: "ViT-H/14", 1280: "ViT-bigG/14"}
"""CLIP's image encoders by the width of what they are projected to."""
PRECISIONS = {
    "F16": "fp16",
    "BF16": "bf16",
    "F32": "fp32",
    "F64": "fp64",
    "F8_E4M3": "fp8 (e4m3)",
    "F8_E5M2": "fp8 (e5m2)",
}


def told(source: Source) -> Identity:
    """What a place holds: of a pipeline without a UNet, what it has instead. Raises WeightsError for what cannot be read."""
    if not source.is_folder or source.release or source.component("unet") or not source.index:
        return source.identity
    for part in INSTEAD:
        folder = source.path / part
        if folder.is_dir() and any(folder.iterdir()):
            try:
                weights_of(folder, source.field)
                found = Source(source.name, folder, field=source.field).identity
            except WeightsError:  # its index says more than nothing
                continue
            if found.kind == "foreign":
                return found
    name = str(source.index.get("_class_name", ""))
    return Identity("foreign", variant=name.removesuffix("Pipeline")) if name else source.identity


def beside(source: Source) -> Identity:
    """The same, and what the config beside the tensors adds to it."""
    found = told(source)
    config = source.config("") if source.is_folder else {}
    if found.kind.startswith("controlnet") and config.get("global_pool_conditions"):
        found = replace(
            found, notes=(*found.notes, "its config says that its answers are averaged over the picture (shuffle)")
        )
    if source.is_folder and any((source.path / name).is_dir() for name in FOLDERS):
        found = replace(found, notes=(*found.notes, BRUSH))
    return found


BRUSH = "a PowerPaint's BrushNet lies in this folder, too"


def precision(header: Header) -> str:
    """The numbers that most of a file's tensors are stored in, and what else there is: "fp16", "fp32, some fp16"."""
    sizes: dict[str, int] = {}
    for entry in header.values():
        if entry.floating:
            sizes[entry.dtype] = sizes.get(entry.dtype, 0) + entry.numel
    names = [PRECISIONS.get(d, d) for d in sorted(sizes, key=lambda d: -sizes[d])]
    return names[0] + (f", some {' and '.join(names[1:])}" if names[1:] else "") if names else ""


def facts(found: Identity) -> dict[str, str]:
    """The numbers that tell one of its kind from another, in words."""
    reads = found.encoder_width
    seen = {
        "unet": EMBEDS, "base": EMBEDS, "image_encoder": VISION, "text_encoder": TEXT, "t2i_style": VISION,
    }.get(found.kind, EMBEDS if found.variant == "plain" else VISION)  # fmt: skip
    who = "a face's vector" if reads == 512 else seen.get(reads or 0, "")
    tower = found.kind.endswith("_encoder")
    what = {
        "lora": "modules", "control_lora": "modules", "lllite": "projections", "gligen": "fusers", "motion": "motion modules",
        "t2i_adapter": "blocks", "ctrlora": "modules", "foreign": "modules",
    }.get(found.kind, "modules")  # fmt: skip
    latents = found.kind in ("vae", "taesd")
    told = {
        "layout": found.layout,
        "prefix": found.prefix,
        "latent channels" if latents else "input channels": found.in_channels,
        "hint channels": found.hint_channels,
        "tokens": found.tokens,
        "word" + "s" * (len(found.words) > 1): ", ".join(found.words),
        "tower" if tower else "reads": f"{who} (width {reads})" if who else reads and f"width {reads}",
        "cross-attentions": found.cross_layers,
        "rank": found.rank,
        "types of map": found.types,
        what: found.modules,
        "frames": found.frames,
        "predicts": f"{found.prediction} ({found.evidence})" if found.prediction else "",
        "parts": ", ".join(found.parts) if len(found.parts) > 1 else "",
    }
    return {k: str(v) for k, v in told.items() if v}


MAPS = "which kind of map it was trained with"
UNTOLD: Mapping[str, tuple[str, ...]] = {
    "controlnet": (MAPS, "whether its answers are averaged over the picture, as shuffle's are (`pool: true`)"),
    "control_lora": (MAPS,),
    "controlnet_xs": (MAPS,),
    "lllite": (MAPS,),
    "sparsectrl": (),
    "ctrlora": (MAPS,),
    "t2i_adapter": (MAPS, "whether it is a CoAdapter's member; it works alone as well"),
    "vae": ("whether it is SD 1.x's, SD 2.x's or SDXL's: they have the same tensors",),
    "taesd": ("whether it is SD 1.x's, SD 2.x's or SDXL's: they have the same tensors",),
    "textual_inversion": ("the word: in most programs, what the file is called",),
    "lora": ("its trigger words; metadata may have them",),
}
"""Kind -> what no tensor says."""


def untold(found: Identity) -> tuple[str, ...]:
    """What cannot be known from its tensors, and the field that says it where there is one."""
    more: dict[tuple[str, str], str] = {
        ("ip_adapter", "faceid_plus"): "whether it is v1 or v2: say `shortcut: true` for a v2",
        ("ip_adapter", "instantid"): "whether it is InstantID's or a FaceID \"unnorm\": both read the raw vector, InstantID's of the detector "
                                     "antelopev2, the other's of buffalo_l",
        ("ip_adapter", "plus"): "whether it was trained with faces, compositions or any picture",
        ("brushnet", "plain"): "whether it was trained with masks of things or random ones",
    }  # fmt: skip
    said = [] if found.words else list(UNTOLD.get(found.kind, ()))
    if (found.kind, found.variant) in more:
        said.append(more[found.kind, found.variant])
    if found.kind == "controlnet" and found.family == "sdxl" and found.variant == "full":
        said.append("whether it is InstantID's, which hears a face instead of the prompt")
    if found.kind in ("base", "unet") and found.variant == "pix2pix":
        said.append("whether it edits at all: Marigold (depth) on SD 2.x has the same shapes" if found.family == "sd2" else
                    "whether the picture's latents are scaled (CosXL: `scaled: true`) or not (InstructPix2Pix)")  # fmt: skip
    if found.kind == "lora" and found.rank == 128 and found.variant == "" and found.family in ("sd1", "sdxl"):
        said.append("whether it is a FaceID's own LoRA, which only works beside that adapter")
    return tuple(said)


def needs(found: Identity) -> str:
    """What must be at hand besides the file itself; "" for nothing."""
    eye = facts(found).get("reads", "").partition(" (")[0]
    seeing = "lies beside its file (image_encoder/), comes with the base, or is named as `image_encoder`"
    if found.kind == "ip_adapter" and found.variant in ("plain", "plus", "full", "faceid_plus"):
        return f"CLIP's image encoder{f' {eye}' if eye.startswith('ViT') else ''}, which {seeing}"
    if found.kind == "t2i_style":
        return f"CLIP's image encoder ViT-L/14, which {seeing}"
    return NEEDS.get((found.kind, found.variant)) or NEEDS.get((found.kind, ""), "")


NEEDS: Mapping[tuple[str, str], str] = {
    ("coadapter_fuser", ""): "the adapters that it joins, one for each member",
    (
        "brushnet",
        "powerpaint",
    ): "PowerPaint's task encoder (pytorch_model.bin) in the same folder, which is then the `model`",
    ("gligen", "text_image"): "the release's projection_matrix beside it, and CLIP's image encoder ViT-L/14",
    (
        "base",
        "depth",
    ): "MiDaS (midas_v3_dpt_large.pth) for photos; without it give a depth map, and leave `annotator` out",
}


def advice(found: Identity) -> str:
    """What to do with a file that no recipe names; "" if there is nothing to say."""
    if found.kind in ("base", "unet") and found.variant not in BASES:
        return f"This version of infuse runs no networks of this variant ({found.variant.replace('_', ' ')})."
    if found.kind == "lora" and (why := UNRUN.get(found.variant) or UNRUN.get(found.layout)):
        return f"It {why}."
    if found.kind == "gligen":
        what = {"keypoints": "the joints of people", "semantic": "semantic maps"}.get(found.variant, "maps")
        return f"This version of infuse hears boxes with words or pictures in them, not {what}."
    return f"{ADVICE[found.kind]}." if found.kind in ADVICE else ""


def recipe(found: Identity, model: str) -> dict[str, Any] | None:
    """A recipe that uses it, as plain data: ready but for the pictures' names; None for what no recipe names."""
    if found.kind == "base":
        add = BASES.get(found.variant)
        return None if add is None else {"model": model, "prompt": "what to paint", **add}
    if found.kind in DRESS and not found.variant and found.encoder_width != SECOND:
        return {found.kind: model, "prompt": "what to paint"}
    if (found.kind, found.variant) in UNUSED or found.layout == "numbered":
        return None
    make = CONDITIONS.get((found.kind, found.variant)) or CONDITIONS.get((found.kind, ""))
    lines = make(model) if make else None
    if lines is None:
        return None
    if BRUSH in found.notes:
        lines = {"kind": "powerpaint", "task": "text", "model": model, "image": PHOTO, "mask": MASK}
    return {"conditions": [lines]}


DRESS, SECOND = ("vae", "text_encoder"), 1280
"""What a recipe names instead of its base's own; width of SDXL's second text encoder, which it cannot."""


def _one(**fields: Any) -> dict[str, Any]:
    return {"conditions": [fields]}


BASES: Mapping[str, dict[str, Any]] = {
    "": {},
    "lcm": {"steps": 4},
    "inpaint": _one(kind="inpaint", image=PHOTO, mask=MASK),
    "powerpaint": _one(kind="powerpaint", task="text", image=PHOTO, mask=MASK),
    "depth": _one(kind="depth", image=PHOTO, annotator="midas"),
    "pix2pix": _one(kind="edit", image=PHOTO),
    "upscaler": _one(kind="upscale", image=PHOTO),
    "unclip": _one(kind="unclip", image=PHOTO),
    "video": {"frames": 16},
    "videocomposer": {"frames": 16},
}
"""What a base of this variant wants besides a prompt."""


def _hint(model: str, **more: Any) -> dict[str, Any]:
    return {"kind": "controlnet", "model": model, **more, "image": MAP}


def _adapter(model: str, **heard: str) -> dict[str, Any]:
    return {"kind": "ip_adapter", "model": model, **heard}


Lines = Callable[[str], dict[str, Any]]
CONDITIONS: Mapping[tuple[str, str], Lines] = {
    ("controlnet", ""): _hint,
    ("controlnet_union", ""): lambda m: _hint(m, type="canny"),
    ("controlnet_xs", ""): _hint,
    ("control_lora", ""): _hint,
    ("lllite", ""): _hint,
    ("t2i_adapter", ""): lambda m: {"kind": "t2i_adapter", "model": m, "image": MAP},
    ("t2i_style", ""): lambda m: {"kind": "t2i_style", "model": m, "image": PHOTO},
    ("coadapter_fuser", ""): lambda m: {"kind": "coadapter", "model": m,
                                        "members": [{"type": "canny", "model": "its-adapter-of-edges.pth", "image": MAP}]},
    ("ip_adapter", ""): lambda m: _adapter(m, image=PHOTO),
    ("ip_adapter", "faceid"): lambda m: _adapter(m, face=FACE),
    ("ip_adapter", "faceid_plus"): lambda m: _adapter(m, image=PHOTO, face=FACE),
    ("ip_adapter", "instantid"): lambda m: _adapter(m, face=FACE),
    ("lora", ""): lambda m: {"kind": "lora", "model": m, "weight": 0.8},
    ("gligen", "text"): lambda m: {"kind": "gligen", "model": m, "boxes": [{"box": [0.1, 0.2, 0.5, 0.9], "phrase": "a cat"}]},
    ("gligen", "text_image"): lambda m: {"kind": "gligen", "model": m,
                                         "boxes": [{"box": [0.1, 0.2, 0.5, 0.9], "phrase": "a cat", "image": PHOTO}]},
    ("brushnet", "plain"): lambda m: {"kind": "brushnet", "model": m, "image": PHOTO, "mask": MASK},
    ("brushnet", "powerpaint"): lambda m: {"kind": "powerpaint", "task": "text", "model": m, "image": PHOTO, "mask": MASK},
    ("image_encoder", ""): lambda m: _adapter("an-ip-adapter.safetensors", image=PHOTO, image_encoder=m),
}  # fmt: skip
"""(kind, variant or "" for all others) -> the lines of a condition."""


UNUSED = (("lora", "motion"), ("lora", "faceid"))
"""Variants of kinds that conditions take, which none takes."""


def lines(data: Mapping[str, Any]) -> str:
    """Plain data as YAML, a line for each field and a line for each condition."""
    import yaml

    fields = {k: v for k, v in data.items() if k != "conditions"}
    text = yaml.safe_dump(fields, sort_keys=False, allow_unicode=True) if fields else ""
    own = (
        yaml.safe_dump(c, sort_keys=False, allow_unicode=True, default_flow_style=True, width=10**6)
        for c in data.get("conditions", ())
    )
    return text + "conditions:\n" * ("conditions" in data) + "".join(f"- {line}" for line in own)


def report(source: Source, name: str = "") -> dict[str, Any]:
    """All that is told of one place, as plain data. Raises WeightsError for what cannot be read.

    `name` is what a recipe would call it; the source's own if left out.
    """
    found, header = beside(source), source.header
    alone = found.kind == "image_encoder" and not source.is_folder  # transformers wants its config.json
    use = None if alone else recipe(found, name or source.name)
    return {
        "name": name or source.name,
        "path": str(source.path),
        "kind": found.kind,
        "variant": found.variant,
        "what": found.described,
        "family": found.family,
        "context_width": found.context_width,
        "facts": facts(found),
        "numbers": precision(header),
        "tensors": len(header),
        "bytes": header.size,
        "notes": list(found.notes),
        "untold": list(untold(found)),
        "recipe": use,
        "yaml": lines(use) if use else "",
        "needs": needs(found),
        "advice": "" if use else advice(found),
    }


assert set(ADVICE) <= set(KINDS) and {k for k, _ in NAMED} <= set(KINDS)
