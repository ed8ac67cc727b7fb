"""Changes of the LoRA family: what a layer answers with one is what it would answer with its weight changed; formulas of each kind."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from random import Random

import pytest
import torch
from torch import Tensor, nn

from infuse.errors import WeightsError
from infuse.network.lora import Change, change
from infuse.network.lora.reading import PARAMETERS

F64 = torch.float64


def rand(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=F64, generator=GEN) * 0.3


GEN = torch.Generator().manual_seed(17)


def linear(out: int = 24, inside: int = 16, bias: bool = True) -> nn.Linear:
    return _filled(nn.Linear(inside, out, bias, dtype=F64))


def conv(out: int = 24, inside: int = 16, k: int = 3, stride: int = 1, padding: int = 1) -> nn.Conv2d:
    return _filled(nn.Conv2d(inside, out, k, stride, padding if k > 1 else 0, dtype=F64))


def _filled(layer: nn.Module) -> nn.Module:
    for p in layer.parameters():
        p.data = rand(*p.shape) + (1 if p.ndim == 1 and isinstance(layer, (nn.LayerNorm, nn.GroupNorm)) else 0)
    return layer.requires_grad_(False)


def read(layer: nn.Module, parameters: Mapping[str, Tensor], dtype: torch.dtype | None = F64) -> Change:
    return change("layer", parameters, layer.weight.shape, dtype)


def number(v: float) -> Tensor:
    return torch.tensor(v, dtype=F64)


LORA = lambda: {"lora_down.weight": rand(4, 16), "lora_up.weight": rand(24, 4), "alpha": number(2.0)}  # noqa: E731
LOCON = lambda: {"lora_down.weight": rand(2, 16, 3, 3), "lora_up.weight": rand(24, 2, 1, 1), "alpha": number(1.0)}  # noqa: E731
LOHA = lambda r: {f"hada_w{i}_{ab}": rand(*((24, r) if ab == "a" else (r, 16))) for i in (1, 2) for ab in "ab"}  # noqa: E731
LOHA_CONV = lambda r: {f"hada_w{i}_{ab}": rand(*((24, r) if ab == "a" else (r, 144))) for i in (1, 2) for ab in "ab"}  # noqa: E731


def loha_tucker(r: int) -> dict[str, Tensor]:
    found = {f"hada_w{i}_{ab}": rand(*((r, 24) if ab == "a" else (r, 16))) for i in (1, 2) for ab in "ab"}
    return found | {"hada_t1": rand(r, r, 3, 3), "hada_t2": rand(r, r, 3, 3), "alpha": number(1.0)}


CASES = {
    "lora": (linear, LORA),
    "lora with a bias": (linear, lambda: LORA() | {"lora_up.bias": rand(24), "diff_b": rand(24)}),
    "lora and a rest": (linear, lambda: LORA() | {
        "bias_indices": torch.tensor([[0, 23, 5], [15, 2, 2]], dtype=torch.int16), "bias_values": rand(3),
        "bias_size": torch.tensor([24, 16], dtype=torch.int16),
    }),
    "locon": (conv, LOCON),
    "locon, a step of two": (lambda: conv(stride=2), LOCON),
    "locon 1x1, flat in the file": (lambda: conv(k=1), LORA),
    "linear, 1x1 in the file": (linear, lambda: {k: v[..., None, None] if v.ndim else v for k, v in LORA().items()}),
    "tucker": (conv, lambda: {
        "lora_down.weight": rand(3, 16, 1, 1), "lora_mid.weight": rand(2, 3, 3, 3), "lora_up.weight": rand(24, 2, 1, 1),
    }),
    "lora for 4 channels": (lambda: conv(24, 9), lambda: {"lora_down.weight": rand(2, 4, 3, 3), "lora_up.weight": rand(24, 2, 1, 1)}),
    "loha of rank 1": (linear, lambda: LOHA(1)),
    "loha of rank 6": (linear, lambda: LOHA(6) | {"alpha": number(3.0)}),
    "loha conv": (conv, lambda: LOHA_CONV(2) | {"alpha": number(1.0)}),
    "loha conv of rank 5": (conv, lambda: LOHA_CONV(5)),
    "loha tucker": (conv, lambda: loha_tucker(2)),
    "loha tucker of rank 5": (conv, lambda: loha_tucker(5)),
    "lokr": (linear, lambda: {"lokr_w1": rand(4, 4), "lokr_w2": rand(6, 4), "alpha": number(7.0)}),
    "lokr, w2 in two": (linear, lambda: {
        "lokr_w1": rand(4, 2), "lokr_w2_a": rand(6, 2), "lokr_w2_b": rand(2, 8), "alpha": number(1.0),
    }),
    "lokr, both in two": (linear, lambda: {
        "lokr_w1_a": rand(4, 1), "lokr_w1_b": rand(1, 4), "lokr_w2_a": rand(6, 2), "lokr_w2_b": rand(2, 4), "alpha": number(1.0),
    }),
    "lokr conv": (conv, lambda: {"lokr_w1": rand(4, 4), "lokr_w2": rand(6, 4, 3, 3)}),
    "lokr conv, w2 in two": (conv, lambda: {"lokr_w1": rand(4, 4), "lokr_w2_a": rand(6, 2), "lokr_w2_b": rand(2, 36)}),
    "lokr conv, w2 in two, 4-D": (conv, lambda: {"lokr_w1": rand(4, 4), "lokr_w2_a": rand(6, 2), "lokr_w2_b": rand(2, 4, 3, 3)}),
    "lokr tucker": (lambda: conv(stride=2), lambda: {
        "lokr_w1": rand(4, 4), "lokr_w2_a": rand(2, 6), "lokr_w2_b": rand(2, 4), "lokr_t2": rand(2, 2, 3, 3), "alpha": number(1.0),
    }),
    "lokr for 4 channels": (lambda: conv(24, 8), lambda: {"lokr_w1": rand(4, 2), "lokr_w2": rand(6, 2, 3, 3)}),
    "glora": (linear, lambda: {
        "a1.weight": rand(16, 3), "a2.weight": rand(3, 16), "b1.weight": rand(24, 3), "b2.weight": rand(3, 16), "alpha": number(1.0),
    }),
    "glora of old": (linear, lambda: {
        "a1.weight": rand(3, 16), "a2.weight": rand(16, 3), "b1.weight": rand(3, 16), "b2.weight": rand(24, 3), "alpha": number(1.0),
    }),
    "glora conv": (conv, lambda: {
        "a1.weight": rand(16, 3, 1, 1), "a2.weight": rand(3, 16, 1, 1), "b1.weight": rand(24, 3, 1, 1), "b2.weight": rand(3, 16, 3, 3),
    }),
    "dora": (linear, lambda: LORA() | {"dora_scale": rand(24, 1).abs() + 1}),
    "dora with a bias": (linear, lambda: LORA() | {"dora_scale": rand(24, 1).abs() + 1, "diff_b": rand(24)}),
    "dora by columns": (linear, lambda: LORA() | {"dora_scale": rand(1, 16).abs() + 1}),
    "dora conv": (conv, lambda: LOCON() | {"dora_scale": rand(24, 1, 1, 1).abs() + 1}),
    "dora conv by columns": (lambda: conv(stride=2), lambda: LOCON() | {"dora_scale": rand(1, 16, 1, 1).abs() + 1}),
    "dora of peft": (conv, lambda: LOCON() | {"lora_magnitude_vector": rand(1, 24, 1, 1).abs() + 1}),
    "dora for 4 channels": (lambda: conv(24, 9), lambda: {
        "lora_down.weight": rand(2, 4, 3, 3), "lora_up.weight": rand(24, 2, 1, 1), "dora_scale": rand(1, 4, 1, 1) + 1,
    }),
    "dora over loha": (conv, lambda: LOHA_CONV(5) | {"dora_scale": rand(24, 1, 1, 1).abs() + 1}),
    "dora over lokr": (linear, lambda: {"lokr_w1": rand(4, 4), "lokr_w2": rand(6, 4), "dora_scale": rand(24, 1).abs() + 1}),
    "oft": (linear, lambda: {"oft_blocks": rand(6, 4, 4), "alpha": number(0.0)}),
    "oft within bounds": (conv, lambda: {"oft_blocks": rand(6, 4, 4), "alpha": number(0.01)}),
    "oft, rescaled": (conv, lambda: {"oft_blocks": rand(6, 4, 4), "rescale": rand(24, 1, 1, 1) + 1}),
    "oft of October 2023": (linear, lambda: {"oft_diag": rand(6, 4, 4) * 0.1}),
    "oft of November 2023": (linear, lambda: {"oft_diag": rand(6, 4, 4) * 0.1 + torch.eye(4, dtype=F64)}),
    "boft": (lambda: linear(32), lambda: {"oft_blocks": rand(3, 4, 8, 8)}),
    "boft conv, rescaled": (lambda: conv(32), lambda: {"oft_blocks": rand(3, 4, 8, 8), "rescale": rand(32, 1, 1, 1) + 1}),
    "oft of peft": (linear, lambda: {"oft_R.weight": rand(4, 6)}),
    "oft of peft, shared": (linear, lambda: {"oft_R.weight": rand(1, 28)}),
    "oft of peft, conv": (conv, lambda: {"oft_R.weight": rand(36, 6)}),
    "ia3 on the input": (linear, lambda: {"weight": rand(16), "on_input": torch.tensor(1)}),
    "ia3 on the output": (linear, lambda: {"weight": rand(24), "on_input": torch.tensor(0)}),
    "ia3 conv on the input": (conv, lambda: {"weight": rand(1, 16, 1, 1), "on_input": torch.tensor(1)}),
    "ia3 conv on the output": (conv, lambda: {"weight": rand(1, 24, 1, 1), "on_input": torch.tensor(0)}),
    "diff": (linear, lambda: {"diff": rand(24, 16), "diff_b": rand(24)}),
    "diff conv": (lambda: conv(stride=2), lambda: {"diff": rand(24, 16, 3, 3)}),
    "diff for 4 channels": (lambda: conv(24, 5), lambda: {"diff": rand(24, 4, 3, 3)}),
    "a bias alone": (conv, lambda: {"diff_b": rand(24)}),
    "layer norm": (lambda: _filled(nn.LayerNorm(16, dtype=F64)), lambda: {"w_norm": rand(16), "b_norm": rand(16)}),
    "group norm": (lambda: _filled(nn.GroupNorm(4, 16, dtype=F64)), lambda: {"w_norm": rand(16), "b_norm": rand(16)}),
    "a norm's bias alone": (lambda: _filled(nn.GroupNorm(4, 16, dtype=F64)), lambda: {"b_norm": rand(16)}),
    "set": (linear, lambda: {"set_weight": rand(24, 16)}),
}  # fmt: skip


def heard_by(layer: nn.Module) -> Tensor:
    if isinstance(layer, nn.Conv2d):
        return rand(2, layer.in_channels, 8, 6)
    return rand(2, 16, 5, 4) if isinstance(layer, nn.GroupNorm) else rand(2, 7, 16)


def merged(layer: nn.Module, c: Change, s: float) -> nn.Module:
    other = copy.deepcopy(layer)
    other.weight += c.delta(layer, s)
    if c.bias is not None:
        other.bias += s * c.bias
    return other


@pytest.mark.parametrize("name", CASES)
def test_an_answer_is_that_of_the_changed_weight(name: str) -> None:
    make, parameters = CASES[name]
    layer = make()
    c = read(layer, parameters())
    x = heard_by(layer)
    for s in (-0.5, 0.3, 1.0, 2.0):
        wanted = merged(layer, c, s)(x) - layer(x)
        assert c.delta(layer, s).shape == layer.weight.shape
        assert c.delta(layer, s).dtype == F64
        torch.testing.assert_close(c.answer(layer, x, s), wanted, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(c.answer(layer, x, s, layer(x)), wanted, rtol=1e-10, atol=1e-10)
        if c.linear:
            torch.testing.assert_close(c.delta(layer, s), s * c.delta(layer), rtol=1e-10, atol=1e-12)
        if c.factors is not None:
            A, B = c.factors
            torch.testing.assert_close(c.delta(layer, s), s * (B @ A.flatten(1)).view(layer.weight.shape))
            assert A.shape[1:] == layer.weight.shape[1:]


def test_it_does_change_something() -> None:
    """Whatever kind it is: none of the cases above is about nothing."""
    for make, parameters in CASES.values():
        layer = make()
        x = heard_by(layer)
        assert read(layer, parameters()).answer(layer, x).abs().max() > 1e-3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_says_nearly_the_same(dtype: torch.dtype) -> None:
    """In its digits, and not only in those of the layer's own answer, of which a change is a small part."""
    near = 0.003 if dtype == torch.float16 else 0.015
    for name, (make, parameters) in CASES.items():
        layer, given = make(), parameters()
        x = heard_by(layer)
        wanted = read(layer, given).answer(layer, x, 0.7)
        if "November" in name:
            continue  # such a file holds the rotation itself: what it is away from 1 has lost its digits in there
        half = copy.deepcopy(layer).to(dtype)
        c = read(half, {k: v.to(dtype) if v.is_floating_point() else v for k, v in given.items()}, dtype)
        for y in (None, half(x.to(dtype))):
            got = c.answer(half, x.to(dtype), 0.7, y)
            assert got.dtype == dtype and c.delta(half, 0.7).dtype == torch.float32
            assert (got.double() - wanted).norm() < near * wanted.norm(), name


def test_what_was_kept_while_drawing_is_of_use_while_learning() -> None:
    layer, c = linear(), read(linear(), LORA() | {"dora_scale": rand(24, 1)})
    with torch.inference_mode():
        c.answer(layer, rand(2, 16))
    x = rand(2, 16).requires_grad_()
    c.answer(layer, x).sum().backward()
    assert x.grad is not None and x.grad.any()


def test_whatever_a_file_says_is_a_change_or_a_letter() -> None:
    """Parameters of one kind with one of them missing, of another shape, or another's: never anything else, and what is a change fits."""
    random = Random(3)
    heard = 0
    for make, parameters in CASES.values():
        layer = make()
        x = heard_by(layer)
        for _ in range(12):
            given = parameters()
            name = random.choice(sorted(given))
            how = random.randrange(4)
            if how == 0:
                del given[name]
            elif how == 1:
                shape = list(given[name].shape) or [1]
                shape[random.randrange(len(shape))] = random.choice((0, 1, 2, 3, 7, 32))
                given[name] = torch.ones(shape)
            elif how == 2:
                given[name] = torch.ones([random.choice((1, 2, 16)) for _ in range(random.randrange(5))])
            else:
                given[random.choice(sorted(PARAMETERS))] = given[name]
            try:
                c = read(layer, given)
            except WeightsError as e:
                assert str(e).startswith('module "layer": ')
                continue
            heard += 1
            assert c.delta(layer, 0.5).shape == layer.weight.shape
            assert c.answer(layer, x, 0.5).shape == layer(x).shape
    assert heard > 50
