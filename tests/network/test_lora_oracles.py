"""The kinds of the LoRA family as those run them who train them: LyCORIS' own modules, and peft's."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from infuse.network.lora import change

pytestmark = pytest.mark.slow  # importing LyCORIS and peft takes seconds
F64 = torch.float64


def layers(out: int = 24, inside: int = 16) -> dict[str, nn.Module]:
    torch.manual_seed(3)
    return {
        "linear": nn.Linear(inside, out, dtype=F64),
        "conv": nn.Conv2d(inside, out, 3, stride=2, padding=1, dtype=F64),
        "1x1": nn.Conv2d(inside, out, 1, dtype=F64),
    }


def heard_by(layer: nn.Module, inside: int = 16) -> Tensor:
    return (
        torch.randn(2, inside, 8, 6, dtype=F64)
        if isinstance(layer, nn.Conv2d)
        else torch.randn(2, 7, inside, dtype=F64)
    )


def shuffle(module: nn.Module, spread: float = 0.3) -> None:
    """Numbers as if trained: nothing is left at zero, or at one."""
    for p in module.parameters():
        p.data = p.data.double() + spread * torch.randn(p.shape, dtype=F64)
    module.double()


LYCORIS = {
    "locon": ("locon", "LoConModule", {"lora_dim": 4, "alpha": 2}),
    "locon, rank-stabilised": ("locon", "LoConModule", {"lora_dim": 4, "alpha": 2, "rs_lora": True}),
    "locon, tucker": ("locon", "LoConModule", {"lora_dim": 3, "alpha": 2, "use_tucker": True}),
    "dora": ("locon", "LoConModule", {"lora_dim": 4, "alpha": 2, "weight_decompose": True}),
    "dora by columns": ("locon", "LoConModule", {"lora_dim": 4, "alpha": 2, "weight_decompose": True, "wd_on_out": False}),
    "loha of rank 1": ("loha", "LohaModule", {"lora_dim": 1, "alpha": 0.5}),
    "loha": ("loha", "LohaModule", {"lora_dim": 4, "alpha": 1}),
    "loha, tucker": ("loha", "LohaModule", {"lora_dim": 3, "alpha": 1, "use_tucker": True}),
    "loha, dora": ("loha", "LohaModule", {"lora_dim": 4, "alpha": 1, "weight_decompose": True}),
    "lokr": ("lokr", "LokrModule", {"lora_dim": 1, "alpha": 0.5, "factor": 4}),
    "lokr, whole": ("lokr", "LokrModule", {"lora_dim": 100, "alpha": 1}),
    "lokr, both in two": ("lokr", "LokrModule", {"lora_dim": 1, "alpha": 0.5, "decompose_both": True}),
    "lokr, tucker": ("lokr", "LokrModule", {"lora_dim": 1, "alpha": 0.5, "use_tucker": True, "factor": 2}),
    "lokr, unbalanced": ("lokr", "LokrModule", {"lora_dim": 2, "alpha": 0.5, "unbalanced_factorization": True}),
    "lokr, dora": ("lokr", "LokrModule", {"lora_dim": 1, "alpha": 0.5, "weight_decompose": True}),
    "glora": ("glora", "GLoRAModule", {"lora_dim": 3, "alpha": 1}),
    "oft": ("diag_oft", "DiagOFTModule", {"lora_dim": 4}),
    "oft, bounded": ("diag_oft", "DiagOFTModule", {"lora_dim": 4, "constraint": 0.01}),
    "oft, rescaled": ("diag_oft", "DiagOFTModule", {"lora_dim": 4, "rescaled": True}),
    "boft": ("boft", "ButterflyOFTModule", {"lora_dim": 4}),
    "boft, rescaled and bounded": ("boft", "ButterflyOFTModule", {"lora_dim": 4, "rescaled": True, "constraint": 0.02}),
    "ia3": ("ia3", "IA3Module", {}),
    "ia3 on the input": ("ia3", "IA3Module", {"train_on_input": True}),
}  # fmt: skip


@pytest.mark.parametrize("name", LYCORIS)
@pytest.mark.parametrize("on", ["linear", "conv", "1x1"])
def test_it_answers_as_lycoris_does(name: str, on: str) -> None:
    pytest.importorskip("lycoris", reason="pip install lycoris-lora")
    import importlib

    file, cls, options = LYCORIS[name]
    layer, dtype = (
        layers(32)[on].requires_grad_(False),
        torch.float32 if "oft" in name else F64,
    )  # it inverts in float32 only
    layer.to(dtype)
    x = heard_by(layer).to(dtype)
    plain = layer(x)
    for s in (1.0, 0.3, -0.5):
        if s != 1.0 and "dora" in name:
            continue  # its strength damps towards V; ours towards W
        torch.manual_seed(5)
        theirs: Any = getattr(importlib.import_module(f"lycoris.modules.{file}"), cls)("lora_x", layer, s, **options)
        shuffle(theirs)
        theirs.to(dtype).eval().apply_to()
        wanted = layer(x) - plain
        theirs.restore()
        told = theirs.custom_state_dict() or theirs.state_dict()
        stored = {k: v.detach() for k, v in told.items() if not k.startswith("org_module")}
        ours = change("x", stored, layer.weight.shape, dtype)
        assert wanted.abs().max() > 1e-3
        near = 1e-10 if dtype == F64 else 2e-6
        torch.testing.assert_close(ours.answer(layer, x, s), wanted, rtol=near, atol=near)


def peft_of(config: Any, layer: nn.Module) -> Any:
    """The layer inside of a model, with peft's adapter: numbers as if trained."""
    peft = pytest.importorskip("peft")
    torch.manual_seed(5)
    model = nn.Module()
    model.lin = copy.deepcopy(layer)  # pyright: ignore[reportAttributeAccessIssue]
    peft.inject_adapter_in_model(config, model)
    found: Any = model.lin
    for n, p in found.named_parameters():
        if "base_layer" not in n:
            p.data = p.data.double() + 0.3 * torch.randn(p.shape, dtype=F64)
    return found.double().eval()


def close_to_peft(theirs: Any, stored: dict[str, Tensor], layer: nn.Module, near: float = 1e-10) -> None:
    x = heard_by(layer)
    ours = change("x", {k: v.detach() for k, v in stored.items()}, layer.weight.shape, F64)
    with torch.no_grad():
        wanted = theirs(x) - layer(x)
    assert wanted.abs().max() > 1e-3
    torch.testing.assert_close(ours.answer(layer, x), wanted, rtol=near, atol=near)


@pytest.mark.parametrize("on", ["linear", "conv", "1x1"])
@pytest.mark.parametrize("form", ["plain", "bias", "dora"])
def test_lora_is_as_in_peft(on: str, form: str) -> None:
    peft = pytest.importorskip("peft")
    layer = layers()[on].requires_grad_(False)
    more = {"bias": {"lora_bias": True}, "dora": {"use_dora": True}}.get(form, {})
    theirs = peft_of(peft.LoraConfig(r=4, lora_alpha=2, target_modules=["lin"], **more), layer)
    stored = {
        "lora_down.weight": theirs.lora_A["default"].weight, "lora_up.weight": theirs.lora_B["default"].weight,
        "alpha": torch.tensor(2.0),
    }  # fmt: skip
    if form == "bias":
        stored["lora_up.bias"] = theirs.lora_B["default"].bias
    if form == "dora":
        stored["lora_magnitude_vector.weight"] = theirs.lora_magnitude_vector["default"].weight
    close_to_peft(theirs, stored, layer)


@pytest.mark.parametrize("on", ["linear", "conv"])
@pytest.mark.parametrize("whole", [False, True])
def test_loha_and_lokr_are_as_in_peft(on: str, whole: bool) -> None:
    peft = pytest.importorskip("peft")
    layer = layers()[on].requires_grad_(False)
    for config, kind in (
        (peft.LoHaConfig(r=4, alpha=2, target_modules=["lin"], use_effective_conv2d=whole), "hada"),
        (peft.LoKrConfig(r=20 if whole else 1, alpha=2, target_modules=["lin"], use_effective_conv2d=whole), "lokr"),
    ):
        theirs = peft_of(config, layer)
        stored = {n.removesuffix(".default"): p for n, p in theirs.named_parameters() if n.startswith(kind)}
        alpha = {"scale": torch.tensor(0.1, dtype=F64)} if whole and kind == "lokr" else {"alpha": torch.tensor(2.0)}
        close_to_peft(theirs, stored | alpha, layer)


@pytest.mark.parametrize("shared", [False, True])
def test_oft_is_as_in_peft(shared: bool) -> None:
    peft = pytest.importorskip("peft")
    for on, layer in layers().items():
        layer.requires_grad_(False)
        theirs = peft_of(peft.OFTConfig(oft_block_size=4, block_share=shared, target_modules=["lin"]), layer)
        stored = {"oft_R.weight": theirs.oft_R["default"].weight}
        if on == "conv":  # its forward pass adds patches that overlap, which is no weight at all; merged, it is one
            theirs.merge()
            theirs = theirs.base_layer
        close_to_peft(theirs, stored, layer)


def test_ia3_is_as_in_peft_but_counted_from_zero() -> None:
    peft = pytest.importorskip("peft")
    for on_input in (False, True):
        layer = nn.Linear(16, 24, bias=False, dtype=F64).requires_grad_(False)
        names = ["lin"] if on_input else []
        theirs = peft_of(peft.IA3Config(target_modules=["lin"], feedforward_modules=names), layer)
        stored = {"weight": theirs.ia3_l["default"].flatten() - 1, "on_input": torch.tensor(int(on_input))}
        close_to_peft(theirs, stored, layer)
