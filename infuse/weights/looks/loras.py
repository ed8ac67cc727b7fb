"""LoRAs and their relatives: what is added to a network's weights, by whatever algebra and under whichever names.

The kind is decided module by module, since a file may mix them; the base by the width of what reads the text. Names and
shapes are those of `layouts.lora_names` and `layouts.lora_kinds`, where their sources stand.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from infuse.weights.kinds import Identity
from infuse.weights.layouts.lora_kinds import MAGNITUDES, Told, kind_of, told
from infuse.weights.layouts.lora_names import BUNDLED, FLAT, NUMBERED, Grouped, addressed, grouped
from infuse.weights.looks.others import lora_of
from infuse.weights.looks.table import Table

NAMED = re.compile(r"lora|lycoris|lokr|hada|oft|\.(diff|w_norm|on_input)$|bundle_emb")
"""In some key of every LoRA: letters a to b with a number are names of many things."""
RESNETS = re.compile(r"resnets[._]|(in|out|emb)_layers[._]|(down|up)samplers[._]")
SDXL_ONLY = re.compile(r"transformer_blocks[._][1-9]|te2[._]|text_encoder_2|clip_g\.")
SMALL_ONLY = re.compile(
    r"(down_blocks[._]3|input_blocks[._](10|11)[._]|output_blocks[._](9|10|11)[._]|up_blocks[._]3[._])"
)
READS_TEXT = re.compile(r"attn2_to_[kv]$")
FACEID = re.compile(r"(ip_adapter\.)?\d+\.to_(q|k|v|out)(_lora\.|$)")
PARTS = {"unet": "the UNet", "text_encoder": "the text encoder", "text_encoder_2": "the second text encoder"}
ELSEWHERE = "what no base of infuse has"
CALLED = {"diff": "full", "set": "full", "bias": "full", "oft2": "oft"}
"""Kind -> its name among an identity's variants, where that is another."""

Modules = Mapping[str, Told]


def lora(table: Table) -> Identity | None:
    """A LoRA of any algebra and naming; of another family, its name; None for what is none."""
    keys = list(table.header)
    if numbered := [k for k in keys if NUMBERED.match(k)]:
        rank = min(table.shape(next(k for k in numbered if k.endswith("down"))), default=None)
        return Identity("lora", "numbered", rank=rank, modules=sum(k.endswith("down") for k in numbered),
                        notes=("its modules are numbered, not named: only the diffusers of its time knows the order",))  # fmt: skip
    group = grouped(keys)
    own = sum(bool(kind_of(leaf)) for leaves in group.modules.values() for leaf in leaves)
    if not own or own * 2 < len(keys) - sum(k.startswith(BUNDLED) for k in keys) or not any(map(NAMED.search, keys)):
        return None
    shapes = {name: {leaf: table.shape(k) for leaf, k in leaves.items()} for name, leaves in group.modules.items()}
    modules = {name: one for name, leaves in shapes.items() if (one := told(leaves)).kind}
    ranks = sorted({m.rank for m in modules.values() if m.rank})
    rank = next((m.rank for m in modules.values() if m.rank is not None), None)
    if other := lora_of(keys):
        return Identity("foreign", variant=f"a LoRA for {other}", rank=rank, modules=len(modules))
    variant = _variant(table, modules, group)
    context = _context(modules)
    notes: list[str] = []
    if variant not in ("motion", "faceid"):
        notes.append(f"changes {_counted(modules)}")
    if len(ranks) > 1:
        notes.append(f"its ranks are {ranks[0]} to {ranks[-1]}")
    if group.words:
        notes.append(
            f"words are bundled with it: {', '.join(sorted(group.words)[:3])}{', ...' * (len(group.words) > 3)}"
        )
    if context is None and variant != "motion" and (guess := _by_names(keys)):
        context = 2048 if guess == "sdxl" else None
        if guess == "small":
            notes.append("for SD 1.x or SD 2.x: it changes nothing whose width tells them apart")
    notes += _wrong(modules, group)
    if variant == "motion":
        context = 768  # v2's, the only ones there are
    return Identity(
        "lora", _layout(keys), variant, context_width=context, rank=rank, modules=len(modules), notes=tuple(notes)
    )


def _counted(modules: Iterable[str]) -> str:
    """ "the UNet (192 modules) and the text encoder (72)"."""
    found = Counter(PARTS.get(addressed(name)[0], ELSEWHERE) for name in modules)
    counts = [(part, found[part]) for part in (*PARTS.values(), ELSEWHERE) if found[part]]
    said = [f"{part} ({n}{' modules' * (i == 0)})" for i, (part, n) in enumerate(counts)]
    return " and ".join(filter(None, (", ".join(said[:-1]), said[-1])))


def _wrong(modules: Modules, group: Grouped) -> list[str]:
    """What cannot be used of it, whatever the base."""
    broken = [f"{name} {m.fault}" for name, m in modules.items() if m.fault]
    notes = [f"broken: {broken[0]}" + f" ({len(broken)} modules are so)" * (len(broken) > 1)] if broken else []
    if strange := len(group.strange):
        notes.append(f"{strange} of its tensors {'are' if strange > 1 else 'is'} no LoRA's (first: {group.strange[0]})")
    return notes


def _layout(keys: list[str]) -> str:
    if any(k.startswith(FLAT) for k in keys):
        return "kohya"
    if any(re.match(r"(ip_adapter\.)?\d+\.to_", k) for k in keys):
        return "ip_adapter"
    if any(k.startswith("diffusion_model.") for k in keys):
        return "comfy"
    return "peft" if any("lora_A" in k for k in keys) else "diffusers"


def _variant(table: Table, modules: Modules, group: Grouped) -> str:
    """The algebra: "" for a plain LoRA, all of them joined by + where a file mixes them."""
    if any(".motion_modules." in name for name in modules):
        return "motion"
    if any(FACEID.match(name) for name in modules):
        return "faceid"
    found = sorted({CALLED.get(m.kind, m.kind) for m in modules.values()} - {"norm"}) or ["norm"]
    plain = [name for name, m in modules.items() if m.kind == "lora"]
    if "lora" in found and any(
        RESNETS.search(name) or any(_is_wide(table.shape(k)) for k in group.modules[name].values()) for name in plain
    ):
        found[found.index("lora")] = "locon"
    if any(leaf in leaves for leaves in group.modules.values() for leaf in MAGNITUDES):
        found = ["dora", *(f for f in found if f != "lora")]
    return "" if found == ["lora"] else "+".join(found)


def _is_wide(shape: tuple[int, ...]) -> bool:
    """Is this of a convolution that looks beyond its own pixel?"""
    return len(shape) == 4 and max(shape[2:]) > 1


def _context(modules: Modules) -> int | None:
    """Input width of a module that reads the text; of text encoders alone, what their width says."""
    named = {name: addressed(name)[1] for name, m in modules.items() if m.columns}
    for name, flat in named.items():
        if READS_TEXT.search(flat):
            return modules[name].columns
    widths = {modules[name].columns for name, flat in named.items() if re.search(r"self_attn_[qkv]_proj$", flat)}
    return 1024 if widths == {1024} else None  # 768 is SD 1.x's, and SDXL's first; names tell those


def _by_names(keys: list[str]) -> str:
    """sdxl, or small (SD 1.x or 2.x), by modules that only one of them has; "" if there are none."""
    if any(SDXL_ONLY.search(k) for k in keys):
        return "sdxl"
    return "small" if any(SMALL_ONLY.search(k) for k in keys) else ""
