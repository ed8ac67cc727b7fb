"""What a weights file can be, and how letters to the user name it. How that is found out stands in `identify`."""

from __future__ import annotations

from dataclasses import dataclass

from infuse.errors import InfuseError, RecipeError, WeightsError
from infuse.network.spec import described, family_of

KINDS = {
    "base": "a base model", "unet": "a UNet alone", "parts": "a checkpoint without a UNet", "vae": "a VAE", "text_encoder": "a text encoder",
    "image_encoder": "an image encoder", "controlnet": "a ControlNet", "controlnet_union": "a ControlNet-Union",
    "controlnet_xs": "a ControlNet-XS", "control_lora": "a Control-LoRA", "lllite": "a ControlLLLite",
    "brushnet": "a BrushNet", "ip_adapter": "an IP-Adapter", "t2i_adapter": "a T2I-Adapter",
    "t2i_style": "a T2I style adapter", "coadapter_fuser": "a CoAdapter fuser", "lora": "a LoRA",
    "textual_inversion": "a textual inversion", "motion": "an AnimateDiff motion module", "gligen": "a GLIGEN",
    "sparsectrl": "a SparseCtrl", "ctrlora": "a CtrLoRA", "taesd": "a TAESD", "safety_checker": "a safety checker",
    "difference": "what is added to a base model", "upscaler": "an enlarger of pixels", "judge": "a tabletop judge", "foreign": "a model of another family",
    "unknown": "a file of no kind that infuse knows",
}  # fmt: skip
NAMED = {
    ("base", "video"): "a video base model", ("unet", "video"): "the UNet of a video base model alone",
    ("base", "videocomposer"): "a VideoComposer", ("unet", "videocomposer"): "the UNet of a VideoComposer alone",
    ("lora", "motion"): "a motion LoRA", ("taesd", "approximation"): "a latent previewer of the webui",
}  # fmt: skip
"""Variants that have names of their own."""


@dataclass(frozen=True)
class Identity:
    """What a file is. Fields that do not apply to its kind are None or empty."""

    kind: str
    layout: str = ""
    """ldm, unet_sd, open_clip, diffusers, ip_adapter, kohya, peft, comfy, webui, original: the naming scheme of the keys."""
    variant: str = ""
    """base: "", inpaint, powerpaint (inpaint with task tokens), depth, pix2pix, upscaler, latent_upscaler, unclip, lcm,
    refiner, video, videocomposer; ControlNet: full, mid, small, difference; BrushNet: plain, powerpaint (with attention);
    SparseCtrl: rgb, scribble; CtrLoRA: base, condition; IP-Adapter: plain, plus, full, faceid, faceid_plus, instantid;
    GLIGEN: text, text_image, keypoints, map, semantic; T2I-Adapter: full, light; LoRA: "" or its algebra (locon, loha,
    lokr, dora, oft, boft, ia3, glora, norm, full, joined by + where mixed), motion, faceid; motion module: v1, v2, v3,
    sdxl, hotshot_xl, animatelcm, animatelcm_i2v, pia; VAE: "", decoder; TAESD: "", encoder, decoder, approximation; text
    encoder: "", powerpaint; foreign: the family's name."""
    prefix: str = ""
    """What stands before every key of the network, to be stripped."""
    context_width: int | None = None
    in_channels: int | None = None
    hint_channels: int | None = None
    tokens: int | None = None
    """IP-Adapter and T2I style: image tokens; textual inversion: vectors."""
    encoder_width: int | None = None
    """IP-Adapter: what the projection reads. Pooled 1024 = ViT-H, 1280 = bigG; states 1280 = ViT-H; 512 = a face. unCLIP:
    width of its image embedding, 768 = ViT-L, 1024 = ViT-H. A CLIP tower: its own width."""
    cross_layers: int | None = None
    rank: int | None = None
    types: int | None = None
    """ControlNet-Union: kinds of maps it tells apart; CoAdapter's fuser: the same."""
    modules: int | None = None
    """LoRA, Control-LoRA, LLLite: modules that it changes; GLIGEN: fusers; motion: motion modules; T2I-Adapter: blocks."""
    words: tuple[str, ...] = ()
    """Textual inversion: what the file itself calls its vectors; () where only its name can."""
    frames: int | None = None
    """Motion module: the longest clip its positions reach."""
    prediction: str = ""
    """epsilon, v_prediction or edm; "" for what is no base model."""
    evidence: str = ""
    """Where `prediction` is from: override, marker, metadata, family, or assumed (loading then measures it)."""
    parts: tuple[str, ...] = ()
    """Components inside: unet, vae, text_encoder, text_encoder_2, image_encoder."""
    notes: tuple[str, ...] = ()

    @property
    def family(self) -> str:
        """sd1, sd2, sdxl, or "width N"; "" when nothing in the file has a context width."""
        return "" if self.context_width is None else family_of(self.context_width)

    @property
    def described(self) -> str:
        """How letters to the user name it: "a ControlNet for SDXL (context width 2048)"."""
        what = NAMED.get((self.kind, self.variant))
        said = self.variant if self.kind == "foreign" else self.variant.replace("_", " ")
        if said.startswith(("a ", "an ", "the ")):
            return f"{said}, of another family"
        what = what or KINDS.get(self.kind, self.kind) + (f" ({said})" if said else "")
        return what if self.context_width is None else f"{what} for {described(self.context_width)}"


def wrong_kind(field: str, found: Identity, wanted: str, *, name: str = "", base: int | None = None) -> InfuseError:
    """The letter about a file that is sound but not what this field needs; the caller raises it.

    `wanted` is a kind; `base` the context width of the recipe's base: another family makes a RecipeError naming both.
    """
    what = f'"{name}"' if name else "this file"
    if found.kind == wanted and base is not None and found.context_width not in (None, base):
        theirs, ours = described(found.context_width or 0), described(base)
        return RecipeError(field, f"{what} was trained for {theirs}, this recipe's base is {ours}. Choose {KINDS[wanted]} for "
                                  f"{ours.split(' (')[0]}, or another base.")  # fmt: skip
    return WeightsError(field, f"{what} is {found.described}, but this field needs {KINDS.get(wanted, wanted)}. "
                               f"{ADVICE.get(found.kind, 'Choose another file')}.")  # fmt: skip


RESIDUALS = "Use it in a condition of kind controlnet"
ADVICE = {
    "lora": "Use it in a condition of kind lora, or merge it into a base model (infuse merge)",
    "textual_inversion": "Name it among the recipe's `embeddings`, and write its name in the prompt",
    "motion": "This version of infuse runs no motion modules; its video models are VideoComposer and ModelScope's text-to-video",
    "sparsectrl": "This version of infuse runs no motion modules, and so no SparseCtrl",
    "ctrlora": "This version of infuse runs no CtrLoRAs; a ControlNet for the same map does its work",
    "controlnet": RESIDUALS,
    "controlnet_union": f"{RESIDUALS}, with the `type` of its map",
    "controlnet_xs": RESIDUALS,
    "control_lora": RESIDUALS,
    "lllite": RESIDUALS,
    "t2i_adapter": "Use it in a condition of kind t2i_adapter",
    "t2i_style": "Use it in a condition of kind t2i_style",
    "coadapter_fuser": "Use it in a condition of kind coadapter, with the adapters that it joins",
    "gligen": "Use it in a condition of kind gligen",
    "ip_adapter": "Use it in a condition of kind ip_adapter",
    "brushnet": "Use it in a condition of kind brushnet, or of kind powerpaint if its task encoder lies beside it",
    "base": "Use it as the recipe's `model`",
    "difference": "Use it as the recipe's `model`, with a card beside it that names its base",
    "unet": "Use the whole model, with its VAE and text encoder, as the recipe's `model`",
    "parts": "Use the whole checkpoint, or the model's diffusers folder",
    "vae": "Use it as the recipe's `vae`, beside a `model`",
    "taesd": "It is for previews: Engine(preview=...), or put it beside the model",
    "image_encoder": "Put it with its config.json into a folder, and name that as the `image_encoder` of an ip_adapter",
    "text_encoder": "Use it as the recipe's `text_encoder`, if it is a base's first one",
    "upscaler": "It enlarges finished pictures; infuse runs none of these, but the x4 upscaler of SD 2.x as a base",
    "safety_checker": "infuse runs none",
    "foreign": "infuse runs SD 1.x, SD 2.x and SDXL; choose a model of these",
}
"""What a letter says of a sound file in the wrong place, without the full stop."""
