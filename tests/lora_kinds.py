"""LoRA files of every kind that people train, in the layouts that trainers write, for the tiny networks: kohya's names, LyCORIS' parameters.

Written from the modules' shapes, not through infuse's own names or formulas.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

State = dict[str, Tensor]
R = 4


class Dice:
    """Random numbers of a seed, of a size."""

    def __init__(self, seed: int, size: float) -> None:
        self.g, self.size = torch.Generator().manual_seed(seed), size

    def __call__(self, *shape: int, size: float = 1.0) -> Tensor:
        return torch.randn(*shape, generator=self.g) * self.size * size


def _sizes(w: Tensor) -> tuple[int, int, tuple[int, ...]]:
    return w.shape[0], w.shape[1], tuple(w.shape[2:])


def lora(d: Dice, w: Tensor) -> State:
    """Of linear layers alone, as kohya's are."""
    out, inside, kernel = _sizes(w)
    if kernel not in ((), (1, 1)):
        return {}
    return {"lora_down.weight": d(R, inside, *kernel), "lora_up.weight": d(out, R, *kernel), "alpha": torch.tensor(2.0)}


def locon(d: Dice, w: Tensor) -> State:
    out, inside, kernel = _sizes(w)
    ones = (1,) * len(kernel)
    return {"lora_down.weight": d(R, inside, *kernel), "lora_up.weight": d(out, R, *ones), "alpha": torch.tensor(3.0)}


def tucker(d: Dice, w: Tensor) -> State:
    out, inside, kernel = _sizes(w)
    if kernel != (3, 3):
        return {}
    return {"lora_down.weight": d(R, inside, 1, 1), "lora_mid.weight": d(R, R, 3, 3, size=3), "lora_up.weight": d(out, R, 1, 1)}  # fmt: skip


def loha(d: Dice, w: Tensor) -> State:
    flat = w[0].numel()
    one = {f"hada_w{i}_{k}": d(*s, size=2.5) for i in (1, 2) for k, s in (("a", (len(w), 2)), ("b", (2, flat)))}
    return one | {"alpha": torch.tensor(1.0)}


def lokr(d: Dice, w: Tensor) -> State:
    out, inside, kernel = _sizes(w)
    return {"lokr_w1": d(2, 2, size=5), "lokr_w2": d(out // 2, inside // 2, *kernel)}


def lokr_in_two(d: Dice, w: Tensor) -> State:
    out, inside, kernel = _sizes(w)
    flat = inside // 2 * (kernel[0] * kernel[1] if kernel else 1)
    return {
        "lokr_w1": d(2, 2, size=5),
        "lokr_w2_a": d(out // 2, R),
        "lokr_w2_b": d(R, flat),
        "alpha": torch.tensor(2.0),
    }


def dora(d: Dice, w: Tensor) -> State:
    long = w.flatten(1).norm(dim=1) * (1 + d(len(w)))
    return locon(d, w) | {"dora_scale": long.view(-1, *(1,) * (w.ndim - 1))}


def oft(d: Dice, w: Tensor) -> State:
    return {"oft_blocks": d(len(w) // 4, 4, 4), "alpha": torch.tensor(0.01)}


def boft(d: Dice, w: Tensor) -> State:
    return {"oft_blocks": d(2, len(w) // 4, 4, 4)} if len(w) % 8 == 0 else {}


def ia3(d: Dice, w: Tensor) -> State:
    if w.ndim == 4:
        return {"weight": d(1, len(w), 1, 1), "on_input": torch.tensor(0)}
    inputs = len(w) % 3 == 0
    return {"weight": d(w.shape[1] if inputs else len(w)), "on_input": torch.tensor(int(inputs))}


def diff(d: Dice, w: Tensor) -> State:
    return {"diff": d(*w.shape, size=0.3), "diff_b": d(len(w))}


def glora(d: Dice, w: Tensor) -> State:
    out, inside, kernel = _sizes(w)
    ones = (1,) * len(kernel)
    return {"a1.weight": d(inside, R, *ones), "a2.weight": d(R, inside, *ones), "b1.weight": d(out, R, *ones), "b2.weight": d(R, inside, *kernel)}  # fmt: skip


def norm(d: Dice, w: Tensor) -> State:
    return {"w_norm": d(len(w)), "b_norm": d(len(w))}


KINDS: Mapping[str, Callable[[Dice, Tensor], State]] = {
    "LoRA": lora, "LoCon": locon, "Tucker": tucker, "LoHa": loha, "LoKr": lokr, "LoKr in two": lokr_in_two, "DoRA": dora, "OFT": oft, "BOFT": boft,
    "IA3": ia3, "diff": diff, "GLoRA": glora, "norm": norm,
}  # fmt: skip


def written(kind: str, parts: Mapping[str, nn.Module], seed: int = 0, size: float = 0.15) -> State:
    """A kohya file that changes every layer that this kind can. parts: unet, text_encoder..."""
    d, out = Dice(seed, size), State()
    heads = {"unet": "lora_unet", "text_encoder": "lora_te", "text_encoder_2": "lora_te2"}
    if "text_encoder_2" in parts:
        heads["text_encoder"] = "lora_te1"
    for part, net in parts.items():
        for path, layer in net.named_modules():
            kinds: tuple[type[Any], ...] = (nn.GroupNorm, nn.LayerNorm) if kind == "norm" else (nn.Linear, nn.Conv2d)
            if not isinstance(layer, kinds) or "temp_" in path:
                continue
            if part != "unet" and not path.startswith("text_model."):
                if "layers." not in path:
                    continue
                path = f"text_model.{path}"
            name = f"{heads[part]}_{path.replace('.', '_')}"
            weight: Tensor = layer.weight.detach().float()  # type: ignore[assignment]
            out |= {f"{name}.{k}": t for k, t in KINDS[kind](d, weight).items()}
    return out
