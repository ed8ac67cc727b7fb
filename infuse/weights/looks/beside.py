"""What stands beside the network: ControlNets and their relatives, BrushNets, T2I-Adapters.

Most specific first: a union, an XS or a SparseCtrl has a ControlNet's keys as well. Source of the layouts: lllyasviel/ControlNet
@ ed85cd1, TencentARC/T2I-Adapter @ 16bba674, kohya-ss/sd-scripts @ 48d368fa, xyfJASON/ctrlora @ b4422b40, diffusers 0.42.1.
"""

from __future__ import annotations

from infuse.weights.kinds import Identity
from infuse.weights.looks.bases import parts
from infuse.weights.looks.table import Table, numbers

LLLITE = "lllite_unet_"


def lllite(table: Table) -> Identity | None:
    """A ControlNet-LLLite: small networks before the projections of attention, named by the LDM path of each."""
    names = {k.partition(".")[0]: None for k in table.header if k.startswith(LLLITE)}
    if not names:
        return None
    text = [table.dim(f"{n}.down.0.weight", 1) for n in names if n.endswith(("attn2_to_k", "attn2_to_v"))]
    context = next((w for w in text if w), None)
    if context is None:  # it seldom speaks where the text is read: its blocks' names and depths tell
        deep = any("transformer_blocks_1_" in n for n in names)
        wide = {table.dim(f"{n}.down.0.weight", 1) for n in names if "input_blocks_4_" in n or "input_blocks_5_" in n}
        shallow = any(f"input_blocks_{i}_1_" in n for n in names for i in (1, 2))
        context = 2048 if deep else 768 if shallow else 2048 if 640 in wide else None
    hint = next((table.dim(f"{n}.conditioning1.0.weight", 1) for n in names), None)
    rank = next((table.dim(f"{n}.down.0.weight", 0) for n in names), None)
    return Identity("lllite", "kohya", context_width=context, hint_channels=hint, rank=rank, modules=len(names))


def ctrlora(table: Table) -> Identity | None:
    """A CtrLoRA: a ControlNet without hint encoder that reads latents, or the LoRA that teaches it one kind of map."""
    layers = table.keys(r"\.lora_layer\.(down|up)\.weight$")
    if not layers or not table.starts("control_model."):
        return None
    trunk = table.any(r"^control_model\..*attn\d\.to_q\.weight$")
    context = table.context("control_model.")
    for k in layers:
        if k.endswith("attn2.to_k.lora_layer.down.weight"):
            context = table.dim(k, 1)
    rank = next((table.dim(k, 0) for k in layers if ".down." in k), None)
    return Identity("ctrlora", "ldm", "base" if trunk else "condition", "control_model.", context, rank=rank,
                    modules=sum(".down." in k for k in layers))  # fmt: skip


def sparse(table: Table) -> Identity | None:
    """A SparseCtrl: a ControlNet of clips that hears pictures at a few frames, beside a mask that says at which."""
    if table.before("down_blocks.0.motion_modules.0.temporal_transformer.norm.weight",
                    "down_blocks.0.motion_modules.0.norm.weight") is None:  # fmt: skip
        return None
    for hint in (
        "controlnet_cond_embedding.weight",
        "controlnet_cond_embedding.conv_in.weight",
        "input_hint_block.0.weight",
    ):
        if (prefix := table.before(hint)) is None:
            continue
        channels = table.dim(prefix + hint, 1)
        layout = "ldm" if hint.startswith("input") else "diffusers"
        return Identity("sparsectrl", layout, "rgb" if channels == 5 else "scribble", prefix, table.context(prefix),
                        hint_channels=channels)  # fmt: skip
    return None


def xs(table: Table) -> Identity | None:
    """A ControlNet-XS: a slim encoder that runs in step with the base, which it both reads and steers."""
    for marker, layout in (
        ("control_to_base_for_conv_in.weight", "diffusers"),
        ("enc_zero_convs_out.0.0.weight", "original"),
    ):
        if (prefix := table.before(marker)) is None:
            continue
        whole = f"{prefix}base_conv_in.weight" in table.header
        notes = ("inside of a whole UNet; only what steers is read",) * whole
        first = f"{prefix}controlnet_cond_embedding.conv_in.weight", f"{prefix}input_hint_block.0.weight"
        hint = next((c for f in first if (c := table.dim(f, 1))), None)
        return Identity("controlnet_xs", layout, "", prefix, table.context(prefix), hint_channels=hint, notes=notes)
    return None


def fuser(table: Table) -> Identity | None:
    """CoAdapter's fuser, which lets several T2I-Adapters hear each other."""
    prefix = table.before("seq_proj")
    if prefix is None or not table.under(prefix, "task_embedding", "spatial_ch_projs.0.weight"):
        return None
    return Identity("coadapter_fuser", "original", "", prefix, 768, types=table.dim(f"{prefix}task_embedding", 0))


def brushnet(table: Table) -> Identity | None:
    """A BrushNet, plain or PowerPaint's (with attention)."""
    prefix = table.before("brushnet_down_blocks.0.weight")
    if prefix is None:
        return None
    context, sites = (
        table.context(prefix),
        sum(k.startswith(f"{prefix}brushnet_down_blocks.") for k in table.header) // 2,
    )
    variant = "powerpaint" if context else "plain"
    if variant == "plain" and table.dim(f"{prefix}brushnet_mid_block.weight", 0) == 1280:
        context = {12: 768, 9: 2048}.get(sites)  # without attention no width tells; there are some for SD 1.x and SDXL
    channels = table.dim(f"{prefix}conv_in_condition.weight", 1)
    return Identity("brushnet", "diffusers", variant, prefix, context, channels)


LDM = (
    "input_hint_block.0.weight",
    "input_blocks.0.0.weight",
    "label_emb.0.0.",
    "input_blocks.8.1.transformer_blocks.9.norm3.weight",
)
DIFFUSERS = ("controlnet_cond_embedding.conv_in.weight", "conv_in.weight", "add_embedding.linear_1.",
             "down_blocks.2.attentions.1.transformer_blocks.9.norm3.weight")  # fmt: skip
"""A ControlNet's hint encoder, first convolution, vector embedding, and the deepest block of a full one for SDXL."""


def controlnet(table: Table) -> Identity | None:
    """A ControlNet, ControlNet-Union or Control-LoRA, in either layout."""
    layout, (hint, first, vector, deep) = ("ldm", LDM) if table.has(LDM[0]) else ("diffusers", DIFFUSERS)
    prefix = table.before(hint)
    if prefix is None:
        return None
    header, rank, modules = table.header, None, None
    low = table.keys(r"\.(down|lora_A\.weight|lora\.down\.weight)$")
    kind = "controlnet"
    if low or "lora_controlnet" in header:
        kind, rank = "control_lora", next((header[k].shape[0] for k in low if header[k].shape), None)
        modules = len(low) or None
    elif f"{prefix}task_embedding" in header:
        kind = "controlnet_union"
    sdxl = table.starts(f"{prefix}{vector}")
    context, variant = _context(table, prefix) or (2048 if sdxl else None), "full"
    if kind == "control_lora":
        variant = ""
        context = context or (2048 if "input_blocks.11.0.in_layers.0.weight" not in header else None)
    elif sdxl and f"{prefix}{deep}" not in header:
        variant = "mid" if table.context(prefix) else "small"
    if "difference" in header or f"{prefix}difference" in header:
        variant = "difference"
    types = table.dim(f"{prefix}task_embedding", 0)
    return Identity(kind, layout, variant, prefix, context, table.dim(prefix + first, 1), table.dim(prefix + hint, 1),
                    rank=rank, types=types, modules=modules, parts=parts(table))  # fmt: skip


def _context(table: Table, prefix: str) -> int | None:
    """By a cross-attention's key projection; of a Control-LoRA, by its low-rank half that reads the text."""
    ends = ("attn2.to_k.down", "attn2.to_k.lora_A.weight", "attn2.to_k.lora.down.weight")
    low = (
        e.shape[1] for k, e in table.header.items() if k.startswith(prefix) and k.endswith(ends) and len(e.shape) > 1
    )
    return table.context(prefix) or next(low, None)


def t2i(table: Table) -> Identity | None:
    """A T2I-Adapter: full (which begins with a convolution) or light; in the layout of TencentARC or of diffusers."""
    prefix = table.before("body.0.in_conv.weight", "body.0.block1.weight", "body.0.resnets.0.block1.weight")
    if prefix is None:
        return None
    layout = "diffusers" if table.any(r"body\.\d+\.resnets\.") else "original"
    light = f"{prefix}conv_in.weight" not in table.header
    first = table.shape(f"{prefix}body.0.in_conv.weight" if light else f"{prefix}conv_in.weight")
    width, pixels = first[0] * (4 if light else 1), first[1]  # a light one works on a quarter of its level's channels
    sdxl = pixels in (256, 768)  # pixels are unshuffled by 16 for SDXL, by 8 for SD 1.x
    context = (2048 if sdxl else 768) if width == 320 else None
    blocks = len(numbers(table.header, r"body\.(\d+)\."))
    return Identity("t2i_adapter", layout, "light" if light else "full", prefix, context,
                    hint_channels=pixels // (256 if sdxl else 64), modules=blocks)  # fmt: skip
