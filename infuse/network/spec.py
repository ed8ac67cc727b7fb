"""What a base network is, before a single weight is read: widths, slots and sites as plain numbers.

Conditions check themselves against this, so it imports no torch and can be made from a file's header alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from infuse.errors import WeightsError

FAMILIES = {"sd1": "SD 1.x", "sd2": "SD 2.x", "sdxl": "SDXL", "tabletop": "tabletop"}
CONTEXT_FAMILY = {768: "sd1", 1024: "sd2", 2048: "sdxl"}
"""Width of the cross-attention context -> family: the one number that tells the families apart."""


@dataclass(frozen=True)
class Slot:
    """A named group of extra input channels. An exclusive slot takes one condition; others sum."""

    name: str
    channels: int
    default: float = 0.0
    exclusive: bool = True


SLOTS: Mapping[int, tuple[Slot, ...]] = {
    4: (),
    5: (Slot("depth", 1),),  # SD2-depth: [latents 4 | depth 1]
    7: (Slot("lowres", 3),),  # x4 upscaler: [latents 4 | small picture 3]
    8: (Slot("image", 4),),  # InstructPix2Pix: [latents 4 | image latents 4]
    9: (Slot("mask", 1, 1.0), Slot("masked_image", 4)),  # inpainting: [latents 4 | mask 1 | masked latents 4]
}
"""Input channels of the first convolution -> what follows the latents, in order."""


@dataclass(frozen=True)
class Want:
    """What a base was trained to be told besides its prompt."""

    base: str
    """What such a base is."""
    condition: str
    """The kind of the condition that tells it."""
    shown: str
    otherwise: str = ""
    """What it makes when nobody tells it; "" if it cannot make anything then."""


WANTS: Mapping[str, Want] = {
    "depth": Want("a depth2img model", "depth", "a depth map", "it makes a picture of no depth in particular"),
    "image": Want("an InstructPix2Pix model", "edit", "a picture to be edited", "it makes a new picture"),
    "lowres": Want("an upscaler", "upscale", "a small picture"),
    "image_embeds": Want("an unCLIP model", "unclip", "pictures to vary", "it hears the prompt alone"),
}
"""Slot of channels or of the embedding -> who fills it."""
UPSCALER = 7
"""Input channels of the x4 upscaler, whose classes are levels of noise in the small picture."""
LCM_GUIDANCE = 8.5
"""Guidance scale of diffusers' LatentConsistencyModelPipeline."""
UPSCALE_GUIDANCE, UNCLIP_GUIDANCE, XL_GUIDANCE = 9.0, 10.0, 5.0
"""Guidance scales of diffusers' StableDiffusionUpscalePipeline, StableUnCLIPImg2ImgPipeline and StableDiffusionXLPipeline."""
CLIP, CLIP_SIDE, CLIP_GUIDANCE = 16, 32, 9.0
"""Frames, latents a side and guidance scale of ModelScope's text-to-video network and of VideoComposer."""


def family_of(context_width: int) -> str:
    """Family by context width; anything that no public family has is called by its width."""
    return CONTEXT_FAMILY.get(context_width, f"width {context_width}")


def described(context_width: int) -> str:
    """How error messages name a family: "SDXL (context width 2048)"."""
    family = family_of(context_width)
    return f"{FAMILIES.get(family, 'a network of its own kind')} (context width {context_width})"


@dataclass(frozen=True)
class NetworkSpec:
    """A base network in numbers. `config` is the diffusers UNet config it was derived from."""

    name: str
    family: str
    context_width: int
    in_channels: int
    widths: tuple[int, ...]
    levels: tuple[int, ...]
    """How often the latent was halved at each site: the encoder's skip tensors, shallow to deep, and the middle block."""
    cross_layers: tuple[tuple[str, int], ...]
    """(module path, query width) of every cross-attention, in IP-Adapter order: down, up, mid."""
    native_size: int
    """Pixels per side the network was trained at."""
    vae_factor: int = 8
    latent_channels: int = 4
    prediction: str = "epsilon"
    channel_slots: tuple[Slot, ...] = ()
    embedding_slots: Mapping[str, int] = field(default_factory=dict)
    """Slot name -> width; SDXL has text_embeds (1280) and time_ids (6), unCLIP image_embeds (1536 or 2048), the x4 upscaler noise_level (1)."""
    frames: int = 0
    """Frames of a clip that the network was trained at; 0: it makes pictures."""
    tasks: str = ""
    """PowerPaint generation of the task tokens that its text encoder has: v1, dev1, or none."""
    compositions: tuple[str, ...] = ()
    """Conditions of a VideoComposer that have an encoder: depth, motion, sketch and so on."""
    style: bool = False
    """Does it have VideoComposer's style network?"""
    guidance: float = 7.5
    """The guidance scale of a recipe that names none."""
    unheard: str = ""
    """What this network is and wants to be told, if no condition can tell it yet; "" if it can run."""
    parameters: int = 0
    config: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def sites(self) -> int:
        """Where a ControlNet's answers enter: one weight each (13 for SD 1/2, 10 for SDXL)."""
        return len(self.levels)

    @property
    def described(self) -> str:
        return f"{self.name}, {described(self.context_width)}"

    @classmethod
    def from_unet_config(
        cls,
        name: str,
        config: Mapping[str, Any],
        *,
        vae_factor: int = 8,
        prediction: str = "epsilon",
        family: str | None = None,
        parameters: int = 0,
        guidance: float | None = None,
        tasks: str = "",
        frames: int | None = None,
        compositions: tuple[str, ...] = (),
        style: bool = False,
    ) -> NetworkSpec:
        """Read the config of a diffusers UNet2DConditionModel or UNet3DConditionModel (Hub layout's unet/config.json)."""
        widths = tuple(config["block_out_channels"])
        context = config["cross_attention_dim"]
        context = context[0] if isinstance(context, list | tuple) else context
        latent, channels = config.get("out_channels", 4), config.get("in_channels", 4)
        embedding: dict[str, int] = {}
        if config.get("addition_embed_type") == "text_time":
            ids = 6 * config["addition_time_embed_dim"]
            embedding = {"text_embeds": config["projection_class_embeddings_input_dim"] - ids, "time_ids": 6}
        if config.get("time_cond_proj_dim"):
            embedding["guidance"] = config["time_cond_proj_dim"]
        if config.get("class_embed_type") == "projection":
            embedding["image_embeds"] = config["projection_class_embeddings_input_dim"]
        if channels == UPSCALER and config.get("num_class_embeds"):
            embedding["noise_level"] = 1
        per = _per_block(config.get("layers_per_block", 2), len(widths))
        video = is_video(config)
        return cls(
            name=name,
            family=family or family_of(context),
            context_width=context,
            in_channels=channels,
            widths=widths,
            levels=_levels(per),
            cross_layers=_cross_layers(config, widths, per),
            native_size=(config.get("sample_size") or (CLIP_SIDE if video else 64)) * vae_factor,
            vae_factor=vae_factor,
            latent_channels=latent,
            prediction=prediction,
            channel_slots=_video_slots(channels - latent) if video else SLOTS.get(channels, ()),
            embedding_slots=embedding,
            parameters=parameters,
            config=dict(config),
            tasks=tasks if channels == 9 else "",
            frames=(frames or CLIP) if video else 0,
            compositions=compositions,
            style=style,
            guidance=guidance or _guidance(embedding, channels, video),
            unheard="" if video else _unheard(config, channels, latent),
        )

    @property
    def embeds_guidance(self) -> bool:
        """Was it distilled to hear the guidance scale as a number (LCM), instead of being asked twice?"""
        return "guidance" in self.embedding_slots


INSTEAD = "Choose a base of SD 1.x, SD 2.x or SDXL, or a depth2img, InstructPix2Pix, inpainting, unCLIP or x4 upscaling model of them."


def _unheard(config: Mapping[str, Any], channels: int, latent: int) -> str:
    """A sentence about what nobody can tell this network; "" when there is a condition for all that it listens to."""
    classes, told = config.get("num_class_embeds"), config.get("class_embed_type")
    added, hidden = config.get("addition_embed_type"), config.get("encoder_hid_dim_type")
    if told not in (None, "projection") or (classes and channels != UPSCALER):
        what, wants = "a class-conditioned model", f"a class for every picture ({told or classes})"
    elif added not in (None, "text_time") or hidden:
        what, wants = (
            "a network of another pipeline (Kandinsky, DeepFloyd IF)",
            f"an embedding of its own ({added or hidden})",
        )
    elif latent != 4 and channels != latent:
        what, wants = "a network of another pipeline", f"{channels} channels, and answers with {latent}"
    elif channels not in SLOTS and channels != latent:
        what, wants = (
            f"a network of {channels} input channels",
            f"{channels - latent} channels beside the {latent} of its latents",
        )
    else:
        return ""
    return f"it is {what}: it wants {wants}, and this version of infuse has no condition for that. {INSTEAD}"


def _guidance(embedding: Mapping[str, int], channels: int, video: bool) -> float:
    """The scale at which diffusers' own pipeline runs such a network."""
    if video:
        return CLIP_GUIDANCE
    if channels == UPSCALER:
        return UPSCALE_GUIDANCE
    known = {"guidance": LCM_GUIDANCE, "image_embeds": UNCLIP_GUIDANCE, "time_ids": XL_GUIDANCE}
    return next((scale for slot, scale in known.items() if slot in embedding), 7.5)


def is_video(config: Mapping[str, Any]) -> bool:
    """Is this the config of a UNet3DConditionModel?"""
    return any("3D" in kind for kind in config.get("down_block_types", ()))


def _video_slots(channels: int) -> tuple[Slot, ...]:
    """VideoComposer: [latents 4 | sum of what its condition encoders say 8]."""
    return (Slot("stc", channels, exclusive=False),) if channels > 0 else ()


Depth = int | Sequence[int]
"""Transformer blocks of each attention of a block: the same for all, or one by one (SSD-1B)."""


def _per_block(value: Any, n: int) -> tuple[Any, ...]:
    return (value,) * n if isinstance(value, int) else tuple(value)


def _levels(per: tuple[int, ...]) -> tuple[int, ...]:
    """conv_in; each block's layers and its downsampler, which the last block lacks; the middle block."""
    last = len(per) - 1
    down = [level for b, n in enumerate(per) for level in [b] * n + [b + 1] * (b < last)]
    return (0, *down, last)


def _cross_layers(
    config: Mapping[str, Any], widths: tuple[int, ...], per: tuple[int, ...]
) -> tuple[tuple[str, int], ...]:
    """Every cross-attention module path with its width, in the order in which IP-Adapter files number them."""
    depth = _per_block(config.get("transformer_layers_per_block", 1), len(widths))
    decoder = config.get("reverse_transformer_layers_per_block") or depth[::-1]
    down = config.get("down_block_types", ())
    up = config.get("up_block_types", ())
    found: list[tuple[str, int]] = []

    def block(path: str, layers: int, depth: Depth, width: int) -> None:
        each = (depth,) * layers if isinstance(depth, int) else tuple(depth)
        if len(each) < layers:
            raise WeightsError("model", f"the UNet's config gives {path} depths for {len(each)} layers, but it has {layers}. Add "
                                        "reverse_transformer_layers_per_block, as the model's own config.json has it.")  # fmt: skip
        for i in range(layers):
            for d in range(each[i]):
                found.append((f"{path}.attentions.{i}.transformer_blocks.{d}.attn2", width))

    for b, kind in enumerate(down):
        if "CrossAttn" in kind:
            block(f"down_blocks.{b}", per[b], depth[b], widths[b])
    for b, kind in enumerate(up):
        if "CrossAttn" in kind:
            level = len(widths) - 1 - b
            block(f"up_blocks.{b}", per[level] + 1, decoder[b], widths[level])
    if config.get("mid_block_type", "UNetMidBlock2DCrossAttn") == "UNetMidBlock2DCrossAttn":
        block("mid_block", 1, depth[-1], widths[-1])
    return tuple(found)
