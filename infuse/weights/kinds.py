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
    "t2i_style": "a T2I style adapter", "lora": "a LoRA", "textual_inversion": "a textual inversion",
    "motion": "an AnimateDiff motion module", "gligen": "a GLIGEN model", "judge": "a tabletop judge",
    "foreign": "a model of another family", "unknown": "a file of no kind that infuse knows",
}  # fmt: skip
VIDEOS = {
    ("base", "video"): "a video base model", ("unet", "video"): "the UNet of a video base model alone",
    ("base", "videocomposer"): "a VideoComposer", ("unet", "videocomposer"): "the UNet of a VideoComposer alone",
}  # fmt: skip
"""Variants that have names of their own."""


@dataclass(frozen=True)
class Identity:
    """What a file is. Fields that do not apply to its kind are None or empty."""

    kind: str
    layout: str = ""
    """ldm, unet_sd, open_clip, diffusers, ip_adapter, kohya, peft, original: the naming scheme of the keys."""
    variant: str = ""
    """base: "", inpaint, powerpaint (inpaint with task tokens), depth, pix2pix, upscaler, unclip, refiner, video,
    videocomposer; ControlNet: full, mid, small, difference; BrushNet: plain, powerpaint (with attention); IP-Adapter:
    plain, plus, full, faceid, faceid_plus, instantid; T2I-Adapter: full, light; text encoder: "", powerpaint."""
    prefix: str = ""
    """What stands before every key of the network, to be stripped."""
    context_width: int | None = None
    in_channels: int | None = None
    hint_channels: int | None = None
    tokens: int | None = None
    """IP-Adapter: image tokens appended; textual inversion: vectors."""
    encoder_width: int | None = None
    """IP-Adapter: what the projection reads. Pooled 1024 = ViT-H, 1280 = bigG; states 1280 = ViT-H; 512 = a face."""
    cross_layers: int | None = None
    rank: int | None = None
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
        what = VIDEOS.get((self.kind, self.variant))
        what = what or KINDS.get(self.kind, self.kind) + (f" ({self.variant})" if self.variant else "")
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


ADVICE = {
    "lora": "This version of infuse applies no LoRAs; merge it into a base model first",
    "textual_inversion": "This version of infuse reads no textual inversions",
    "controlnet": "Use it in a condition of kind controlnet",
    "t2i_adapter": "Use it in a condition of kind t2i_adapter",
    "ip_adapter": "Use it in a condition of kind ip_adapter",
    "brushnet": "Use it in a condition of kind brushnet, or of kind powerpaint if its task encoder lies beside it",
    "base": "Use it as the recipe's `model`",
    "unet": "Use the whole model, with its VAE and text encoder, as the recipe's `model`",
    "parts": "Use the whole checkpoint, or the model's diffusers folder",
    "foreign": "infuse runs SD 1.x, SD 2.x and SDXL; choose a model of these",
}
