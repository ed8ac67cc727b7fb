"""How the files of LoRAs name what they change: a key in, the module of the base and the parameter out.

Programs join a module's path with underscores (`lora_unet_down_blocks_0_...`), which no rule of strings can undo. So every
module of the base in use is joined, too, by its path in diffusers and by its path in original checkpoints, and looked up:
one dictionary for all families and programs. Each key is read by itself, since files mix spellings. Names and shapes only;
imports no torch.

Source: the layouts as kohya-ss/sd-scripts @ 48d368f, KohakuBlueleaf/LyCORIS @ f49d30d, huggingface/diffusers @ 58eb52c,
huggingface/peft @ 5d602fd, Nerogar/OneTrainer @ 23df383 and Comfy-Org/ComfyUI @ a125cd8 write or read them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache

from infuse.weights.layouts.ldm_keys import EMBEDDINGS, ENDS, MIDDLE, RESNET

Shape = tuple[int, ...]
Layers = Mapping[str, Mapping[str, Shape]]
"""Part of a base (`unet`, `text_encoder`, `text_encoder_2`) -> path of each module that has a weight -> the weight's shape."""
Place = tuple[str, str]
"""Part and path of a module in a base."""

PARTS = ("unet", "text_encoder", "text_encoder_2")
FLAT = ("lora_", "lycoris_", "oft_unet", "oft_te")
"""First words of names without dots."""
NUMBERED = re.compile(r"^(unet|text_encoder):\d+:(up|down)$")
BUNDLED = "bundle_emb."
IGNORED = frozenset(
    {"dropout", "rank_dropout", "module_dropout", "ema", "optimizer", "num_updates", "step", "epoch", "global_step"}
)
AUXILIARY = "_aux."
"""What trainers leave beside, as a word of a key or in front of it: nothing of it is heard."""

ROLES = r"(?:\.default(?:_\d+)?)?"
"""peft puts an adapter's name between the factor and `weight`."""
LEAVES: tuple[tuple[str, str], ...] = (
    (rf"lora_(?:down{ROLES}(?:\.weight)?)|lora_A{ROLES}(?:\.weight)?|lora(?:_linear_layer|_layer)?\.down\.weight", "lora_down.weight"),
    (rf"lora_(?:up{ROLES}(?:\.weight)?)|lora_B{ROLES}(?:\.weight)?|lora(?:_linear_layer|_layer)?\.up\.weight", "lora_up.weight"),
    (r"lora_mid(?:\.weight)?", "lora_mid.weight"),
    (rf"lora_(?:B{ROLES}|up)\.bias", "lora_up.bias"),
    (rf"lora_magnitude_vector{ROLES}(?:\.weight)?|magnitude", "lora_magnitude_vector.weight"),
    (rf"oft_R{ROLES}(?:\.weight)?", "oft_R.weight"),
    (rf"oft_R{ROLES}\.scaled_oft", "oft_R.scaled_oft"),
    (r"([ab][12]|bm)\.weight", ""),
    (r"hada_w[12]_[ab]|hada_t[12]|lokr_w[12](?:_[ab])?|lokr_t2|oft_blocks|oft_diag|rescale|on_input|diff|diff_b|w_norm|b_norm", ""),
    (r"set_weight|reshape_weight|alpha|scale|scalar|dora_scale|bias_indices|bias_values|bias_size|weight", ""),
)  # fmt: skip
"""How a parameter is spelled -> its name here, which is kohya's or LyCORIS'; "" where it has but one."""
LONGEST = 3
"""Words of a parameter's name, with dots between."""
PROCESSED = re.compile(r"\.(to_(?:q|k|v|out))_lora\.(down|up)\.weight$")
"""diffusers' first way: the projection's name is part of the parameter's."""

PREFIXES: tuple[tuple[str, str], ...] = (
    ("lora_unet_", "unet"), ("lora_te_", "text_encoder"), ("lora_te1_", "text_encoder"), ("lora_te2_", "text_encoder_2"),
    ("oft_unet_", "unet"), ("oft_te_", "text_encoder"), ("oft_te1_", "text_encoder"), ("oft_te2_", "text_encoder_2"),
    ("lycoris_", "unet"), ("unet.", "unet"), ("text_encoder.", "text_encoder"), ("text_encoder_2.", "text_encoder_2"),
    ("model.diffusion_model.", "unet"), ("diffusion_model.", "unet"),
    ("text_encoders.clip_l.", "text_encoder"), ("text_encoders.clip_h.", "text_encoder"), ("text_encoders.clip_g.", "text_encoder_2"),
    ("clip_l.", "text_encoder"), ("clip_h.", "text_encoder"), ("clip_g.", "text_encoder_2"),
)  # fmt: skip
FOREIGN = re.compile(r"^(lora_te3_|lora_transformer_|text_encoder_3\.|transformer\.|text_encoders\.)")
"""Parts that no base of infuse has."""
PEFT = "base_model.model."
TEXT = ("text_model_", "encoder_layers_")
OPEN_CLIP = {"attn_out_proj": "self_attn_out_proj", "mlp_c_fc": "mlp_fc1", "mlp_c_proj": "mlp_fc2", "ln_1": "layer_norm1",
             "ln_2": "layer_norm2"}  # fmt: skip


def split(key: str) -> Place | None:
    """(name of the module as the file has it, name of the parameter); None for what no LoRA has."""
    if key.startswith(FLAT):  # no dot in the module's name
        module, _, rest = key.partition(".")
        leaf = _leaf(rest)
        return (module, leaf) if leaf else None
    if "_lora." in key and (m := PROCESSED.search(key)):
        return f"{key[: m.start()]}.{m[1]}", f"lora_{m[2]}.weight"
    words = key.rsplit(".", LONGEST)
    for n in range(1, len(words)):
        if leaf := _leaf(".".join(words[n:])):
            return ".".join(words[:n]), leaf
    return None


@lru_cache(maxsize=2**14)
def _leaf(spelled: str) -> str:
    """The name of a parameter that is spelled so; "" for no parameter."""
    return next((name or spelled for pattern, name in LEAVES if re.fullmatch(pattern, spelled)), "")


@dataclass(frozen=True)
class Grouped:
    """The keys of a file, by what they are of."""

    modules: Mapping[str, Mapping[str, str]]
    """Module, as the file names it -> parameter -> key."""
    words: Mapping[str, Mapping[str, str]]
    """Bundled word -> the name of its tensor -> key."""
    strange: tuple[str, ...]
    """Keys that no LoRA has."""


def grouped(keys: Iterable[str]) -> Grouped:
    """Every key of a file in its place; what trainers leave beside is left out."""
    modules: dict[str, dict[str, str]] = {}
    words: dict[str, dict[str, str]] = {}
    strange: list[str] = []
    for key in keys:
        if key.startswith(BUNDLED):
            name, _, rest = key.removeprefix(BUNDLED).partition(".")
            words.setdefault(name, {})[rest] = key
        elif key.startswith(AUXILIARY) or not IGNORED.isdisjoint(key.split(".")):
            continue
        elif found := split(key):
            modules.setdefault(found[0], {})[found[1]] = key
        else:
            strange.append(key)
    for module, leaves in list(modules.items()):  # a weight alone is a network's own, and no change of one
        if "on_input" not in leaves and (own := leaves.pop("weight", None)):
            strange.append(own)
        if not leaves:
            del modules[module]
    return Grouped(modules, words, tuple(strange))


def addressed(module: str) -> Place:
    """(part of a base, the rest of the name with underscores), whatever base it is for; a part of no base is ""."""
    name, part = module.replace("/", ".", 1), ""
    name = name.removeprefix(PEFT)
    if FOREIGN.match(name) and not name.startswith(tuple(p for p, _ in PREFIXES)):
        return "", name
    for prefix, of in PREFIXES:
        if name.startswith(prefix):
            name, part = name.removeprefix(prefix), of
            break
    name = name.removeprefix(PEFT).replace(".processor", "")
    name = (
        re.sub(r"\.self_attn\.to_(q|k|v|out)$", r".self_attn.\1_proj", f".{name}").removeprefix(".").replace(".", "_")
    )
    if part in ("", "unet") and name.startswith(TEXT):
        part = "text_encoder"
    if part.startswith("text_encoder"):
        name = _text(name)
    return part or "unet", name


def _text(name: str) -> str:
    """One name for a text encoder's module, with or without what transformers or OpenCLIP put before it."""
    name = name.removeprefix("transformer_").removeprefix("text_model_")
    if m := re.fullmatch(r"(?:model_)?(?:transformer_)?resblocks_(\d+)_(\w+)", name):
        return f"encoder_layers_{m[1]}_{OPEN_CLIP.get(m[2], m[2])}"
    return name


class Names:
    """What the modules of one base are called by files."""

    def __init__(self, layers: Layers) -> None:
        self.layers = layers

    def place(self, module: str) -> Place | None:
        """The module of this base that a file's module is; None if there is none."""
        part, name = addressed(module)
        known = self._known.get(part, {})
        path = known.get(name) or known.get(f"{name}_0" if name.endswith("to_out") else "")
        return None if path is None else (part, path)

    @cached_property
    def _known(self) -> dict[str, dict[str, str]]:
        found: dict[str, dict[str, str]] = {}
        for part, layers in self.layers.items():
            if part == "unet":
                names = {ldm: path for path, ldm in original(layers).items()} | {path: path for path in layers}
            else:
                names = {path.removeprefix("text_model."): path for path in layers}
            found[part] = {name.replace(".", "_"): path for name, path in names.items()}
        return found


def original(paths: Iterable[str]) -> dict[str, str]:
    """Paths of a UNet's modules in diffusers -> in original checkpoints, of all that have a place there."""
    paths = list(paths)
    places = _places(paths)
    ends = {new: old for old, new in (EMBEDDINGS | ENDS).items()}
    ends |= {f"{v}_embedding.linear_{n}": f"label_emb.0.{2 * n - 2}" for v in ("add", "class") for n in (1, 2)}
    inner = {new: old for old, new in RESNET.items()}
    found: dict[str, str] = {}
    for path in paths:
        if path in ends:
            found[path] = ends[path]
        elif path in places:
            found[path] = places[path]
        elif (m := re.fullmatch(r"(.+\.(resnets|attentions)\.\d+)\.(.+)", path)) and m[1] in places:
            rest = inner.get(m[3], "") if m[2] == "resnets" else m[3]
            if rest:
                found[path] = f"{places[m[1]]}.{rest}"
    return found


def _places(paths: list[str]) -> dict[str, str]:
    """Every resnet, attention and sampler of a UNet -> where original checkpoints have it, whose blocks stand in one row."""
    counts: dict[tuple[str, str, str], set[int]] = {}
    for path in paths:
        if m := re.match(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.", path):
            counts.setdefault((m[1], m[2], m[3]), set()).add(int(m[4]))
    found = {new: f"middle_block.{old}" for old, new in MIDDLE.items()}
    for side, row, first in (("down", "input_blocks", 1), ("up", "output_blocks", 0)):
        at = first
        for block in sorted({b for s, b, _ in counts if s == side}, key=int):
            attends = counts.get((side, block, "attentions"), set())
            layers = sorted(counts.get((side, block, "resnets"), set()))
            for layer in layers:
                found[f"{side}_blocks.{block}.resnets.{layer}"] = f"{row}.{at}.0"
                found[f"{side}_blocks.{block}.attentions.{layer}"] = f"{row}.{at}.1"
                at += 1
            if (side, block, f"{side}samplers") in counts:
                if side == "down":
                    found[f"down_blocks.{block}.downsamplers.0.conv"] = f"{row}.{at}.0.op"
                    at += 1
                else:  # behind the last layer's attention, if it has one
                    found[f"up_blocks.{block}.upsamplers.0.conv"] = f"{row}.{at - 1}.{1 + bool(attends)}.conv"
    return found
