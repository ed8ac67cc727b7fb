"""What training leaves around the names of a checkpoint is taken off before anybody asks what the file holds.

`torch.compile`, data parallelism and FSDP put a module of their own into every path; some tools save the network bare
beside its VAE; Lightning's averages (EMA) lose the dots; an IP-Adapter's trainer saves its frozen UNet along. The tensors are the same, so the names can be, too. Names and
shapes only; imports no torch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from infuse.weights.formats import Header
from infuse.weights.layouts.ip_names import released_names

UNET, EMA = "model.diffusion_model.", "model_ema.diffusion_model"
WRAPPERS = re.compile(r"(^|[./])(?:(?:_orig_mod|module|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.)+")
"""Modules around modules: torch.compile, DataParallel and DeepSpeed, FSDP, activation checkpointing."""
FIRST = "input_blocks.0.0.weight"
BARE = ("input_blocks.", "middle_block.", "output_blocks.", "out.", "time_embed.", "label_emb.")
OTHERS = ("first_stage_model.", "cond_stage_model.", "conditioner.")


def plain(header: Header) -> Header:
    """The same table under the names that the original repositories give; `stored` keeps the file's own."""
    for rename in (_unwrapped, _unrooted, _under_model, _from_averages, released_names):
        names = rename(header)
        if names and len(set(names.values())) == len(names):  # two names for one place: leave both as they are
            stored = {new: header.stored.get(old, old) for old, new in names.items()}
            stored = {new: old for new, old in stored.items() if new != old}
            header = replace(header, tensors={new: header.tensors[old] for old, new in names.items()}, stored=stored)
    return header


def unwrapped(key: str) -> str:
    """A key without the modules that training wraps around others."""
    return WRAPPERS.sub(r"\1", key)


def _each(header: Header, change: Callable[[str], str]) -> dict[str, str]:
    names = {k: change(k) for k in header}
    return names if any(k != n for k, n in names.items()) else {}


def _unwrapped(header: Header) -> Mapping[str, str]:
    return _each(header, unwrapped)


def _unrooted(header: Header) -> Mapping[str, str]:
    """Everything below one more name: `state_dict.model.diffusion_model...`."""
    at = (_before(header, f"{UNET}{FIRST}"), _before(header, f"{EMA}{FIRST.replace('.', '')}"))
    root = next((r for r in at if r), "")
    return _each(header, lambda k: k.removeprefix(root)) if root and not _starts(header, OTHERS) else {}


def _under_model(header: Header) -> Mapping[str, str]:
    """A UNet without its place, beside the other parts: `input_blocks...` or `diffusion_model.input_blocks...`."""
    if _starts(header, (UNET,)) or not _starts(header, OTHERS):
        return {}
    if FIRST in header:
        return _each(header, lambda k: UNET + k if k.startswith(BARE) else k)
    return _each(header, lambda k: f"model.{k}" if k.startswith("diffusion_model.") else k)


def _from_averages(header: Header) -> Mapping[str, str]:
    """A checkpoint that kept only the averages of its UNet: `model_ema.diffusion_modelinput_blocks00weight`."""
    if _starts(header, (UNET,)) or not _starts(header, (EMA,)):
        return {}
    return _each(header, lambda k: UNET + dotted(k.removeprefix(EMA)) if k.startswith(EMA) else k)


def _before(keys: Iterable[str], marker: str) -> str:
    return min((k.removesuffix(marker) for k in keys if k.endswith(f".{marker}")), key=len, default="")


def _starts(keys: Iterable[str], starts: tuple[str, ...]) -> bool:
    return any(k.startswith(starts) for k in keys)


WORDS = re.compile(
    r"(?P<two>(?:input|output)_blocks|label_emb)(?P<at>\d*)|time_embed|cond_proj|middle_block|in_layers|out_layers|emb_layers|"
    r"skip_connection|transformer_blocks|attn[12]|to_out|to_[qkv]|norm[123]?|proj_in|proj_out|proj|ff|net|op|conv|out|weight|bias|\d+"
)
"""All words of an LDM UNet's keys. After the first three come two numbers, of which the second has one digit."""


def dotted(name: str) -> str:
    """`input_blocks101in_layers0weight` as it was before its dots were taken: `input_blocks.10.1.in_layers.0.weight`.

    A name with words of no UNet comes back as it is.
    """
    words: list[str] = []
    at = 0
    for m in WORDS.finditer(name):
        if m.start() != at:
            return name
        at = m.end()
        words += [m["two"], *filter(None, (m["at"][:-1], m["at"][-1:]))] if m["two"] else [m[0]]
    return ".".join(words) if at == len(name) else name
