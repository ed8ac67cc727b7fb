"""What each kind of the LoRA family does in numbers that one can follow; what is kept; and letters about modules that make no sense."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from math import sqrt

import pytest
import torch
from torch import Tensor, nn

from infuse.errors import WeightsError
from infuse.network.lora import Change, LoraNetwork, change

F64 = torch.float64


def t(*numbers: object, dtype: torch.dtype = F64) -> Tensor:
    return torch.tensor(numbers[0] if len(numbers) == 1 else numbers, dtype=dtype)


def of(weight: Tensor) -> nn.Module:
    layer: nn.Module = nn.Conv2d(1, 1, 1) if weight.ndim == 4 else nn.Linear(1, 1)
    layer.weight = nn.Parameter(weight, requires_grad=False)
    return layer


def delta(weight: Tensor, parameters: Mapping[str, Tensor], s: float = 1.0) -> Tensor:
    return change("m", parameters, weight.shape).delta(of(weight), s)


def same(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


W = t([[1, 2], [3, 4]])


def test_lora_is_up_times_down_times_alpha_over_rank() -> None:
    low = {"lora_down.weight": t([[1, 0]]), "lora_up.weight": t([[1], [2]]), "alpha": t(2)}
    same(delta(W, low, 0.5), t([[1, 0], [2, 0]]))
    same(delta(W, low | {"scale": t(0.5)}), t([[0.5, 0], [1, 0]]))  # the webui's own word for it
    same(delta(W, low | {"alpha": t(0)}), torch.zeros_like(W))
    same(delta(W, {k: v for k, v in low.items() if k != "alpha"}), t([[1, 0], [2, 0]]))


def test_loha_multiplies_entries_and_scales_once() -> None:
    ones = {"hada_w1_a": t([[1, 1], [1, 1]]), "hada_w1_b": t([[1, 0], [0, 1]])}
    two = {"hada_w2_a": t([[1, 0], [0, 1]]), "hada_w2_b": t([[5, 6], [7, 8]])}
    same(delta(W, ones | two | {"alpha": t(1)}), t([[2.5, 3], [3.5, 4]]))


def test_lokr_has_its_first_factor_outside() -> None:
    assert t([[1, 2], [3, 6]]).equal(delta(W, {"lokr_w1": t([[1, 2]]), "lokr_w2": t([[1], [3]])}))
    same(delta(W, {"lokr_w1": t([[1], [2]]), "lokr_w2": t([[1, 3]])}), t([[1, 3], [2, 6]]))
    same(delta(W, {"lokr_w1": t([[1], [2]]), "lokr_w2": t([[1, 3]]), "alpha": t(9)}), t([[1, 3], [2, 6]]))


def test_oft_turns_the_rows() -> None:
    blocks = {"oft_blocks": t([[[0, 1], [0, 0]]])}
    same(W + delta(W, blocks), torch.stack([-W[1], W[0]]))
    same(W + delta(W, blocks | {"alpha": t(0)}), torch.stack([-W[1], W[0]]))  # no bound
    bounded = W + delta(W, blocks | {"alpha": t(0.25)})  # times 2 rows: 0.5
    b = 0.5 / sqrt(2)
    R = t([[1 - b * b, 2 * b], [-2 * b, 1 - b * b]]) / (1 + b * b)
    torch.testing.assert_close(R, t([[0.7778, 0.6285], [-0.6285, 0.7778]]), rtol=0, atol=1e-4)
    same(bounded, R.T @ W)
    same(delta(W, blocks | {"alpha": t(0.25)}, 0.5), (bounded - W) / 2)


def test_oft_of_old_holds_the_rotation_or_its_difference() -> None:
    R = t([[[0.8, 0.6], [-0.6, 0.8]]])
    wanted = R[0].T @ W
    same(W + delta(W, {"oft_diag": R}), wanted)
    small = t([[[0.96, 0.28], [-0.28, 0.96]]])
    same(W + delta(W, {"oft_diag": small - torch.eye(2, dtype=F64)}), small[0].T @ W)


def test_boft_is_a_product_of_rotations() -> None:
    """With one factor: R itself, not R^T."""
    same(W + delta(W, {"oft_blocks": t([[[[0, 1], [0, 0]]]])}), torch.stack([W[1], -W[0]]))


def test_dora_has_the_length_that_was_learned() -> None:
    W = t([[3, 4]])
    none = {"lora_down.weight": torch.zeros(1, 2, dtype=F64), "lora_up.weight": torch.ones(1, 1, dtype=F64)}
    assert W.shape[0] == 1  # so that [[10]] says nothing about its axis: rows
    same(W + delta(W, none | {"dora_scale": t([[10]])}), t([[6, 8]]))
    same(W + delta(W, none | {"dora_scale": t([[10]])}, 0.5), t([[4.5, 6]]))
    W = t([[3, 4], [4, 3]])
    none["lora_up.weight"] = torch.ones(2, 1, dtype=F64)
    same(W + delta(W, none | {"dora_scale": t([[10, 1]])}), W / 5 * t([[10, 1]]))
    same(W + delta(W, none | {"dora_scale": t([[10], [1]])}), W / 5 * t([[10], [1]]))


def test_dora_takes_the_length_of_the_changed_weight() -> None:
    """ComfyUI takes the base's: then the rows wouldn't be as long as was learned."""
    low = {"lora_down.weight": t([[1, 0]]), "lora_up.weight": t([[1], [2]]), "dora_scale": t([[10], [1]])}
    same((W + delta(W, low)).norm(dim=1), t([10, 1]))


def test_dora_follows_its_layer() -> None:
    """What it keeps of a layer isn't kept when the weight is another."""
    low = {"lora_down.weight": t([[1, 0]]), "lora_up.weight": t([[1], [2]]), "dora_scale": t([[10], [1]])}
    c, layer = change("m", low, W.shape), of(W.clone())
    c.delta(layer)
    with torch.no_grad():
        layer.weight.mul_(3)
    same((layer.weight + c.delta(layer)).norm(dim=1), t([10, 1]))
    same(copy.deepcopy(c).delta(layer), c.delta(layer))


def test_ia3_is_relative() -> None:
    same(delta(W, {"weight": t([0.5, -1]), "on_input": t(1)}), t([[0.5, -2], [1.5, -4]]))
    same(W + delta(W, {"weight": t([0.5, -1]), "on_input": t(1)}), t([[1.5, 0], [4.5, 0]]))
    same(W + delta(W, {"weight": t([0.5, -1]), "on_input": t(0)}), t([[1.5, 3], [0, 0]]))


def test_glora_of_both_layouts() -> None:
    a, b = (
        {"a1.weight": t([[1], [0]]), "a2.weight": t([[0, 1]])},
        {"b1.weight": t([[1], [1]]), "b2.weight": t([[5, 0]])},
    )
    same(delta(W, a | b), t([[5, 1], [5, 3]]))
    old = {
        "a1.weight": a["a2.weight"],
        "a2.weight": a["a1.weight"],
        "b1.weight": b["b2.weight"],
        "b2.weight": b["b1.weight"],
    }
    same(delta(W, old), t([[5, 1], [5, 3]]))


def test_a_weight_is_replaced_whatever_the_strength() -> None:
    c = change("m", {"set_weight": t([[0, 1], [2, 3]])}, W.shape)
    assert not c.linear
    same(W + c.delta(of(W), 0.25), t([[0, 1], [2, 3]]))


def test_order_does_not_matter() -> None:
    """Each is computed from the layer's own weight, so two that read it add up."""
    oft = {"oft_blocks": t([[[0, 1], [0, 0]]])}
    dora = {"lora_down.weight": t([[1, 0]]), "lora_up.weight": t([[1], [2]]), "dora_scale": t([[10], [1]])}
    layer, x = of(W), t([[1, -1]])
    layer.bias = None
    one, two = change("m", oft, W.shape), change("m", dora, W.shape)
    same(layer(x) + one.answer(layer, x) + two.answer(layer, x), x @ (W + two.delta(layer) + one.delta(layer)).T)


def test_a_narrower_conv_in_is_heard_in_the_first_channels() -> None:
    low = {"lora_down.weight": torch.randn(2, 4, 3, 3), "lora_up.weight": torch.randn(8, 2, 1, 1)}
    c = change("m", low, (8, 9, 3, 3))
    A, B = c.factors
    assert A.shape == (2, 9, 3, 3) and not A[:, 4:].any() and A[:, :4].any()
    wide = c.delta(nn.Conv2d(9, 8, 3))
    narrow = change("m", low, (8, 4, 3, 3)).delta(nn.Conv2d(4, 8, 3))
    assert wide[:, :4].equal(narrow) and not wide[:, 4:].any()


def test_half_precision_keeps_what_a_small_alpha_says() -> None:
    """alpha 1 of rank 128, on factors of a thousandth: folded into one of them, it would lie where float16 has few digits."""
    down, up = torch.randn(128, 64) * 0.03, torch.randn(32, 128) * 1e-4
    low = {"lora_down.weight": down, "lora_up.weight": up, "alpha": t(1)}
    wanted = up.double() @ down.double() / 128
    layer = nn.Linear(64, 32).half()
    c = change("m", low, (32, 64), torch.float16)
    A, B = c.factors
    assert A.dtype == B.dtype == torch.float16
    error = (c.delta(layer).double() - wanted).norm() / wanted.norm()
    assert c.delta(layer).dtype == torch.float32 and error < 1e-3
    x = torch.randn(3, 64).half()
    assert c.answer(layer, x).dtype == torch.float16


def test_float8_is_read() -> None:
    if not hasattr(torch, "float8_e4m3fn"):
        pytest.skip("this torch has no float8")
    low = {
        "lora_down.weight": t([[1, 0]], dtype=torch.float32).to(torch.float8_e4m3fn),
        "lora_up.weight": torch.ones(2, 1),
    }
    assert delta(W.float(), low).equal(torch.tensor([[1.0, 0], [1, 0]]))


def test_a_network_knows_its_layers() -> None:
    one = change("m", {"diff": W}, W.shape)
    words = {"gold": (torch.ones(2, 4),)}
    net = LoraNetwork({"unet": {"a.b": one}, "text_encoder": {}}, words, "file")
    assert net.change("unet", "a.b") is one
    assert net.change("unet", "c") is net.change("text_encoder", "a.b") is net.change("text_encoder_2", "a.b") is None
    assert net.paths("unet") == {"a.b"} and net.paths("text_encoder") == frozenset() and net.parts == ("unet",)
    assert net.words["gold"][0].shape == (2, 4)
    moved = copy.deepcopy(net).half()
    kept: Change | None = moved.change("unet", "a.b")
    assert kept is not None and kept is not one and next(kept.buffers()).dtype == torch.float16


LOW = {"lora_down.weight": torch.ones(2, 16), "lora_up.weight": torch.ones(24, 2)}
LETTERS: dict[str, tuple[dict[str, Tensor], tuple[int, ...], str]] = {
    "rank 0": ({"lora_down.weight": torch.ones(0, 16), "lora_up.weight": torch.ones(24, 0)}, (24, 16), "rank 0"),
    "LoKr of rank 0": ({"lokr_w1": torch.ones(0, 4), "lokr_w2": torch.ones(6, 4)}, (24, 16), "rank 0"),
    "nan": (LOW | {"alpha": t(float("nan"))}, (24, 16), "alpha has numbers"),
    "inf": (LOW | {"lora_up.weight": torch.full((24, 2), torch.inf)}, (24, 16), "lora_up.weight has numbers"),
    "half of it": ({"lora_down.weight": torch.ones(2, 16)}, (24, 16), "no lora_up.weight"),
    "two kinds": (LOW | {"hada_w1_a": torch.ones(1, 1)}, (24, 16), "one kind"),
    "ranks": ({"lora_down.weight": torch.ones(2, 16), "lora_up.weight": torch.ones(24, 3)}, (24, 16), "don't agree"),
    "another base": (LOW, (24, 32), "24 x 32"),
    "another output": (LOW, (32, 16), "32 x 16"),
    "features are not widened": ({"lora_down.weight": torch.ones(2, 16, 3, 3), "lora_up.weight": torch.ones(24, 2)},
                                 (24, 32, 3, 3), "another base"),
    "more channels than there are": ({"lora_down.weight": torch.ones(2, 9, 3, 3), "lora_up.weight": torch.ones(24, 2)},
                                     (24, 4, 3, 3), "another base"),
    "a kernel": (LOW, (24, 16, 3, 3), "another base"),
    "a norm": (LOW, (24,), "norm"),
    "no norm": ({"w_norm": torch.ones(24)}, (24, 16), "isn't one"),
    "vectors": ({"lora_down.weight": torch.ones(16), "lora_up.weight": torch.ones(24)}, (24, 16), "no matrices"),
    "lengths": (LOW | {"dora_scale": torch.ones(23, 1)}, (24, 16), "23 lengths"),
    "lengths of a rotation": ({"oft_blocks": torch.ones(6, 4, 4), "dora_scale": torch.ones(24, 1)}, (24, 16), "DoRA goes with"),
    "lengths of nothing": ({"dora_scale": torch.ones(24, 1)}, (24, 16), "nothing that these are about"),
    "an alpha alone": ({"alpha": t(1)}, (24, 16), "nothing that these are about"),
    "nothing": ({}, (24, 16), "nothing"),
    "a strange one": (LOW | {"boft_R": torch.ones(3)}, (24, 16), "boft_R"),
    "rotations": ({"oft_blocks": torch.ones(5, 4, 4)}, (24, 16), "rotations don't fit"),
    "a butterfly too wide": ({"oft_blocks": torch.ones(4, 6, 4, 4)}, (24, 16), "one after another"),
    "a scaled OFT": ({"oft_R.weight": torch.ones(4, 6), "oft_R.scaled_oft": torch.tensor(True)}, (24, 16), "scaled OFT"),
    "a triangle": ({"oft_R.weight": torch.ones(4, 5)}, (24, 16), "rotations don't fit"),
    "a kronecker product": ({"lokr_w1": torch.ones(4, 4), "lokr_w2": torch.ones(5, 4)}, (24, 16), "factors don't fit"),
    "rescaled": (LOW | {"rescale": torch.ones(24, 1)}, (24, 16), "rescale belongs"),
    "a bias": (LOW | {"diff_b": torch.ones(23)}, (24, 16), "23 numbers"),
    "another shape": (LOW | {"reshape_weight": t([24, 32])}, (24, 16), "24 x 32"),
    "a rest": (LOW | {"bias_indices": torch.tensor([[25], [0]]), "bias_values": torch.ones(1), "bias_size": t([24, 16])},
               (24, 16), "scattered rest"),
    "alphas": (LOW | {"alpha": torch.ones(3)}, (24, 16), "alpha is a number"),
    "ia3": ({"weight": torch.ones(23), "on_input": t(0)}, (24, 16), "another base"),
    "glora": ({f"{n}.weight": torch.ones(2, 2) for n in ("a1", "a2", "b1", "b2")}, (24, 16), "doesn't fit"),
}  # fmt: skip


@pytest.mark.parametrize("name", LETTERS)
def test_what_makes_no_sense_is_a_letter(name: str) -> None:
    parameters, shape, says = LETTERS[name]
    with pytest.raises(WeightsError, match=says) as e:
        change("lora_unet_x", parameters, shape)
    assert "lora_unet_x" in str(e.value)


def test_numbers_that_half_precision_has_not_are_a_letter() -> None:
    with pytest.raises(WeightsError, match="too large for torch.float16"):
        change("m", {"diff": torch.full((2, 2), 1e6)}, (2, 2), torch.float16)
