"""The parameters of one module, under canonical names, become its change. Which kind it is, the parameters say; one kind a module.

Source of names, shapes and scales: KohakuBlueleaf/LyCORIS@f49d30d (modules), kohya-ss/sd-scripts@48d368f (networks),
Comfy-Org/ComfyUI@a125cd8 (comfy/weight_adapter), huggingface/peft@5d602fd (tuners).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from infuse.network.lora.change import Change, exact
from infuse.network.lora.decomposed import Decomposed
from infuse.network.lora.kinds import READERS
from infuse.network.lora.low_rank import LowRank
from infuse.network.lora.module import Module
from infuse.network.lora.whole import Scattered, Sum, Whole, Widened, widened

KINDS: Mapping[str, frozenset[str]] = {
    "lora": frozenset({"lora_down.weight", "lora_up.weight", "lora_mid.weight"}),
    "loha": frozenset({"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2"}),
    "lokr": frozenset(f"lokr_{n}" for n in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")),
    "glora": frozenset(f"{n}.weight" for n in ("a1", "a2", "b1", "b2", "bm")),
    "oft": frozenset({"oft_blocks", "oft_diag"}),
    "oft2": frozenset({"oft_R.weight", "oft_R.scaled_oft"}),
    "ia3": frozenset({"weight", "on_input"}),
    "diff": frozenset({"diff"}),
    "norm": frozenset({"w_norm", "b_norm"}),
    "set": frozenset({"set_weight"}),
}
"""Which parameters make which kind."""
LENGTHS = ("lora_magnitude_vector.weight", "lora_magnitude_vector", "dora_scale")
MODIFIERS = frozenset({
    "alpha", "scale", "scalar", *LENGTHS, "rescale", "lora_up.bias", "lora_B.bias", "diff_b", "reshape_weight",
    "bias_indices", "bias_values", "bias_size",
})  # fmt: skip
UNHEARD = frozenset({"dropout", "rank_dropout", "module_dropout"})
"""Of training alone."""
PARAMETERS = frozenset[str]().union(*KINDS.values()) | MODIFIERS | UNHEARD
"""Every parameter that a module can have."""
DECOMPOSABLE = ("lora", "loha", "lokr", "diff")
MOST_WIDENED = 16
"""Input channels of a layer that may hear more than what was trained: conv_in of bases that see masks, not layers of features."""


def change(
    name: str, parameters: Mapping[str, Tensor], shape: Sequence[int], dtype: torch.dtype | None = None
) -> Change:
    """The change of one layer.

    `name`: the module's, for letters. `parameters`: under canonical suffixes, those of `PARAMETERS`. `shape`: of the layer's weight:
    (out in), (out in kh kw), (c) for a norm. `dtype`: of the matrices that are kept, as stored if None; vectors keep float32.
    WeightsError, with the module's name, where the parameters make no sense, or none for such a layer.
    """
    given = {k: v for k, v in parameters.items() if k not in UNHEARD}
    keep = dtype or next((t.dtype for t in given.values() if t.is_floating_point() and t.ndim > 1), torch.float32)
    if keep.itemsize == 1:  # float8 is a way to store, not to multiply
        keep = torch.float16
    work = torch.float64 if keep == torch.float64 else exact(*given.values())
    module = Module(name, {k: v.to(work) for k, v in given.items()}, tuple(shape), keep)
    module.check_finite()
    kind = kind_of(module, given)
    if channels := _narrower(module, kind):
        inner = _built(module.of((*module.shape[:1], channels, *module.shape[2:])), kind)
        if isinstance(inner, LowRank):
            return _finite(module, LowRank(widened(inner.A, module.shape[1]), inner.B, inner.bias, inner.kind))
        return _finite(module, Widened(inner, channels))
    return _finite(module, _built(module, kind))


def kind_of(module: Module, given: Iterable[str]) -> str:
    """Which kind these parameters are; "" if there are modifiers only."""
    names = set(given)
    if unknown := names - PARAMETERS:
        raise module.letter(f"infuse doesn't know its parameters {_listed(unknown)}.")
    found = [kind for kind, own in KINDS.items() if names & own]
    if len(found) > 1:
        said = " and ".join(f"{k} ({_listed(names & KINDS[k])})" for k in found)
        raise module.letter(
            f"has parameters of {said}, and a module is of one kind. The file is broken, or badly merged."
        )
    return found[0] if found else ""


def _built(module: Module, kind: str) -> Change:
    if kind:
        made = READERS[kind](module)
        rest = _rest(module, kind)
        if rest is not None:
            made = Sum([made, rest])
    elif "diff_b" in module and not module.norm:
        out, *others = module.shape
        made = LowRank(module.kept(module.zeros(1, *others)), module.kept(module.zeros(out, 1)), kind="bias")
    elif "diff_b" in module:
        made = Whole(module.zeros(*module.shape), kind="bias")
    else:
        raise module.letter(f"has {_listed(module.given)}, and nothing that these are about.")
    _reshaped(module)
    made = _decomposed(module, kind, made)
    made.bias = _bias(module, kind)
    if "rescale" in module and kind != "oft":
        raise module.letter("rescale belongs to OFT and BOFT, and there is none.")
    return made


def _decomposed(module: Module, kind: str, made: Change) -> Change:
    """DoRA, if there are lengths."""
    found = [n for n in LENGTHS if n in module]
    if not found:
        return made
    if len(found) > 1 or kind not in DECOMPOSABLE:
        raise module.letter(
            f"{_listed(found)} with {kind or 'no'} parameters: DoRA goes with one of {', '.join(DECOMPOSABLE)}."
        )
    m, of_peft = module[found[0]], found[0] != "dora_scale"
    rows = of_peft or m.ndim < 2 or m.shape[0] != 1 or module.shape[0] == 1
    wanted = module.shape[0 if rows else 1]
    if m.numel() != wanted:
        raise module.letter(
            f"{found[0]} has {m.numel()} lengths, and this layer {wanted} {'rows' if rows else 'columns'}."
        )
    return Decomposed(made, m.flatten(), rows, padded=not of_peft)


def _bias(module: Module, kind: str) -> Tensor | None:
    """What is added to the output, of all that says so."""
    total = None
    for name in ("lora_up.bias", "lora_B.bias", "diff_b", "b_norm"):
        if name not in module:
            continue
        b = module[name].flatten()
        if len(b) != module.shape[0]:
            raise module.letter(f"{name} has {len(b)} numbers, and this layer {module.shape[0]} channels.")
        if name.startswith("lora"):
            if kind != "lora":
                raise module.letter(f"{name} belongs to LoRA, and there is none.")
            b = b * module.scale(len(module["lora_down.weight"]))
        total = b if total is None else total + b
    return total


def _rest(module: Module, kind: str) -> Change | None:
    """The scattered rest of an extraction, of which the scale is the low rank's (it is 1 in such files)."""
    names = ("bias_indices", "bias_values", "bias_size")
    if not any(n in module for n in names):
        return None
    module.need(*names)
    if kind not in ("lora", "loha", "lokr"):
        raise module.letter("bias_indices are the rest of a low rank, and there is none.")
    at = module["bias_indices"].long() & 0xFFFF  # written as int16, although there are more columns than that knows
    rows, columns = (int(n) & 0xFFFF for n in module.vector(module["bias_size"], 2).long())
    wanted = module.shape[0], module.numel // module.shape[0]
    values = module["bias_values"].flatten()
    if (
        (rows, columns) != wanted
        or at.shape != (2, len(values))
        or (len(values) and (at.amax(1) >= at.new_tensor(wanted)).any())
    ):
        raise module.letter(
            f"its scattered rest is of a weight of {rows} x {columns}, and this layer's is {wanted[0]} x {wanted[1]}."
        )
    scale = module.scale(len(module["lora_down.weight"])) if kind == "lora" else 1.0
    return Scattered(at, values * scale, module.shape)


def _reshaped(module: Module) -> None:
    """Some files say the shape that a layer was given before: only a layer that has it can hear them."""
    if "reshape_weight" in module:
        wanted = tuple(int(n) for n in module["reshape_weight"].flatten())
        if wanted != module.whole:
            raise module.letter(
                f"was trained for a layer of {_shape(wanted)}, this base has {_shape(module.whole)} there."
            )


def _narrower(module: Module, kind: str) -> int:
    """Input channels of what was trained, if the layer is a convolution that may have more; else 0."""
    if len(module.shape) != 4 or module.shape[1] > MOST_WIDENED:
        return 0
    channels = module.channels(kind)
    return channels if 0 < channels < module.shape[1] else 0


def _finite(module: Module, made: Change) -> Change:
    if any(not t.isfinite().all() for t in made.buffers() if t.is_floating_point()):
        raise module.letter(f"its numbers are too large for {module.keep}. The file is broken; or choose float32.")
    return made


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def _shape(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
