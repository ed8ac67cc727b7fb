"""LoRAs and their relatives: what is added to a network's weights, by whatever algebra and under whichever names.

The kind is decided module by module, since a file may mix them; the base by the width of what reads the text. Source of the
suffixes: KohakuBlueleaf/LyCORIS @ f49d30d, kohya-ss/sd-scripts @ 48d368f, huggingface/peft @ 5d602fd, diffusers @ 58eb52c.
"""

from __future__ import annotations

import re

from infuse.weights.kinds import Identity
from infuse.weights.looks.others import lora_of
from infuse.weights.looks.table import Table

PARAMETERS: tuple[tuple[str, str], ...] = (
    ("loha", r"hada_(w[12]_[ab]|t[12])"),
    ("lokr", r"lokr_(w[12](_[ab])?|t2)"),
    ("oft", r"oft_(blocks|diag|R\.weight|R\.scaled_oft)|oft_R"),
    ("glora", r"[ab][12]\.weight|bm\.weight"),
    ("lora", r"lora_(down|up|mid)\.weight|lora_[AB](\.default)?(\.(weight|bias))?|(to_[qkv]|to_out)_lora\.(down|up)\.weight"
             r"|lora(_linear_layer|_layer)?\.(down|up)\.weight|lora_(down|up)"),
    ("norm", r"[wb]_norm"),
    ("full", r"diff|diff_b|set_weight"),
    ("ia3", r"on_input"),
    ("", r"alpha|scale|dora_scale|lora_magnitude_vector(\.weight|\.default)?|magnitude|rescale|bias_(indices|values|size)|reshape_weight"),
)  # fmt: skip
"""Algebra -> how its parameters end. The last row is what any of them may have beside."""
ENDS = re.compile("|".join(f"(?P<k{i}>\\.(?:{p})$)" for i, (_, p) in enumerate(PARAMETERS)))
FLAT = ("lora_", "lycoris_", "oft_unet", "oft_te")
NUMBERED = re.compile(r"^(unet|text_encoder):\d+:(up|down)$")
RESNETS = re.compile(r"resnets[._]|(in|out|emb)_layers[._]|(down|up)samplers[._]")
SDXL_ONLY = re.compile(r"transformer_blocks[._][1-9]|te2[._]|text_encoder_2|clip_g\.")
SMALL_ONLY = re.compile(
    r"(down_blocks[._]3|input_blocks[._](10|11)[._]|output_blocks[._](9|10|11)[._]|up_blocks[._]3[._])"
)


def lora(table: Table) -> Identity | None:
    """A LoRA of any algebra and naming; of another family, its name; None for what is none."""
    keys = list(table.header)
    if numbered := [k for k in keys if NUMBERED.match(k)]:
        rank = min(table.shape(next(k for k in numbered if k.endswith("down"))), default=None)
        return Identity("lora", "numbered", rank=rank, modules=sum(k.endswith("down") for k in numbered),
                        notes=("its modules are numbered, not named: only the diffusers of its time knows the order",))  # fmt: skip
    kinds = {k: PARAMETERS[int(str(m.lastgroup)[1:])][0] for k in keys if (m := ENDS.search(k))}
    own = {k: kind for k, kind in kinds.items() if kind}
    named = any(re.search(r"lora|lycoris|lokr|hada|oft|\.(diff|w_norm|on_input)$|bundle_emb", k) for k in own)
    if not own or not named or len(own) * 2 < len(keys) - sum(k.startswith("bundle_emb.") for k in keys):
        return None
    down = [k for k in own if re.search(r"(lora_down|lora_A|\.down|hada_w1_b|lokr_w2_b|lokr_w1_b)", k)]
    rank = next((s[0] for k in down if (s := table.shape(k))), None)
    modules = len({_module(k) for k in own})
    if other := lora_of(keys):
        return Identity("foreign", variant=f"a LoRA for {other}", rank=rank, modules=modules)
    variant = _variant(table, own, keys)
    notes: tuple[str, ...] = ()
    if bundled := sorted({k.split(".")[1] for k in keys if k.startswith("bundle_emb.") and k.count(".") > 1}):
        notes += (f"words are bundled with it: {', '.join(bundled[:3])}",)
    context = _context(table, own)
    if context is None and variant != "motion" and (guess := _by_names(keys)):
        context = 2048 if guess == "sdxl" else None
        notes += ("for SD 1.x or SD 2.x: it changes nothing whose width tells them apart",) * (guess == "small")
    if variant == "motion":
        context = 768  # v2's, the only ones there are
    return Identity("lora", _layout(keys), variant, context_width=context, rank=rank, modules=modules, notes=notes)


def _module(key: str) -> str:
    """The part of a key that names the module."""
    return key.partition(".")[0] if key.startswith(FLAT) else ENDS.sub("", key)


def _layout(keys: list[str]) -> str:
    if any(k.startswith(FLAT) for k in keys):
        return "kohya"
    if any(re.match(r"(ip_adapter\.)?\d+\.to_", k) for k in keys):
        return "ip_adapter"
    if any(k.startswith("diffusion_model.") for k in keys):
        return "comfy"
    return "peft" if any("lora_A" in k for k in keys) else "diffusers"


def _variant(table: Table, own: dict[str, str], keys: list[str]) -> str:
    """The algebra: "" for a plain LoRA, all of them joined by + where a file mixes them."""
    if any(".motion_modules." in k for k in keys):
        return "motion"
    if any(re.match(r"(ip_adapter\.)?\d+\.to_(q|k|v|out)_lora\.", k) for k in keys):
        return "faceid"
    found = sorted(set(own.values()) - {"norm"}) or ["norm"]
    if "oft" in found and any(len(table.shape(k)) == 4 for k in own if k.endswith("oft_blocks")):
        found[found.index("oft")] = "boft"
    if "lora" in found and any(
        RESNETS.search(k) or _is_wide(table.shape(k)) for k, kind in own.items() if kind == "lora"
    ):
        found[found.index("lora")] = "locon"
    if any(k.endswith("dora_scale") or "lora_magnitude_vector" in k for k in keys):
        found = ["dora", *(f for f in found if f != "lora")]
    return "" if found == ["lora"] else "+".join(found)


def _is_wide(shape: tuple[int, ...]) -> bool:
    """Is this of a convolution that looks beyond its own pixel?"""
    return len(shape) == 4 and max(shape[2:]) > 1


def _context(table: Table, own: dict[str, str]) -> int | None:
    """Input width of a module that reads the text: of its low-rank half, or of its two factors' product."""
    reads = [k for k in own if re.search(r"attn2[._](processor\.)?to_[kv]", k)]
    for k in reads:
        shape = table.shape(k)
        if re.search(r"(lora_down|lora_A|\.down|hada_w1_b)(\.\w+)*$", k) and len(shape) > 1:
            return shape[1]
        if k.endswith(".diff") and len(shape) > 1:
            return shape[1]
    for module in sorted({_module(k) for k in reads}):
        sides = (_factor(table, f"{module}.lokr_w1"), _factor(table, f"{module}.lokr_w2"))
        if all(sides):
            return (sides[0] or 0) * (sides[1] or 0)
    widths = {table.shape(k)[1] for k in own if _text_input(k) and len(table.shape(k)) > 1}
    return 1024 if widths == {1024} else None  # 768 is SD 1.x's, and SDXL's first; names tell those


def _factor(table: Table, name: str) -> int | None:
    """Input width of one factor of a Kronecker product, whole or decomposed."""
    return table.dim(name, 1) or table.dim(f"{name}_b", 1)


def _text_input(key: str) -> bool:
    return bool(re.search(r"(q|k|v)_proj[._]?.*(lora_down|lora_A|lora_linear_layer\.down|hada_w1_b)", key))


def _by_names(keys: list[str]) -> str:
    """sdxl, or small (SD 1.x or 2.x), by modules that only one of them has; "" if there are none."""
    if any(SDXL_ONLY.search(k) for k in keys):
        return "sdxl"
    return "small" if any(SMALL_ONLY.search(k) for k in keys) else ""
