"""A GPU's kernels between products give what torch's own steps give; here they are interpreted, on the processor."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import interpreted  # noqa: F401
import pytest
import torch
import torch.nn.functional as F
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import Tensor, nn

from infuse.network import fused
from infuse.network.edits import listen
from infuse.network.fused import Fused, bare
from infuse.network.parts import Parts

pytestmark = pytest.mark.slow
CLOSE = {torch.float32: 2e-6, torch.float16: 3e-3, torch.bfloat16: 2e-2}
"""Of the largest number: a rounding or two of the dtype."""
SIZES = [(2, 40, 6, 5), (1, 96, 8, 8), (3, 64, 17, 19), (2, 160, 1, 1), (1, 32, 72, 70)]


@pytest.fixture(autouse=True)
def _without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def near(got: Tensor, want: Tensor, scale: float = 1) -> None:
    apart = float((got.double() - want.double()).abs().max() / want.double().abs().max())
    assert got.shape == want.shape
    assert apart < CLOSE[got.dtype] * scale, apart


def drawn(size: tuple[int, ...], dtype: torch.dtype, last: bool = False) -> Tensor:
    x = (torch.randn(size) * 2 + 5).to(dtype)
    return x.to(memory_format=torch.channels_last) if last else x


@pytest.mark.parametrize("dtype", CLOSE, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("last", [False, True])
def test_group_norm(size: tuple[int, ...], dtype: torch.dtype, last: bool) -> None:
    x, c, more = drawn(size, dtype, last), size[1], torch.randn(size[:2]).to(dtype)
    norm = nn.GroupNorm(4 if c % 32 else 32, c, eps=1e-5).to(dtype)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)

    def exact(x: Tensor) -> Tensor:
        return F.group_norm(x.double(), norm.num_groups, norm.weight.double(), norm.bias.double(), norm.eps)

    want, shifted = exact(x), F.silu(exact(x.double() + more.double()[:, :, None, None]))
    got = fused.normed(x, norm, False)
    assert got.is_contiguous(memory_format=torch.channels_last)
    near(got, want)
    near(fused.normed(x, norm, True, more), shifted)


def test_a_mean_far_from_zero_costs_no_digits() -> None:
    """Squares are summed around one of the values, not around zero."""
    x = torch.randn(1, 32, 16, 16) + 1000
    near(
        fused.normed(x, nn.GroupNorm(32, 32), False), F.group_norm(x.double(), 32), 100
    )  # 1000 has seven digits itself


@pytest.mark.parametrize("dtype", CLOSE, ids=str)
@pytest.mark.parametrize("last", [False, True])
def test_sums_and_gates(dtype: torch.dtype, last: bool) -> None:
    x, other, bias = drawn((2, 72, 5, 7), dtype, last), drawn((2, 72, 5, 7), dtype), drawn((72,), dtype)
    want = x.double() + bias.double()[:, None, None] + other.double()
    near(fused.summed(x.clone(memory_format=torch.preserve_format), bias, other), want)
    near(fused.summed(x, bias, other, bias), want + bias.double()[:, None, None])
    both = torch.randn(2, 9, 264).to(dtype)
    left, right = both.double().chunk(2, -1)
    near(fused.gated(both), left * F.gelu(right))


@pytest.mark.parametrize("wider", [False, True], ids=["same width", "wider"])
@pytest.mark.parametrize("timed", [False, True], ids=["without time", "with time"])
def test_a_residual_block(wider: bool, timed: bool) -> None:
    net = ResnetBlock2D(in_channels=32, out_channels=64 if wider else 32, temb_channels=16, groups=8)
    x = torch.randn(2, 32, 9, 8)
    t = torch.randn(2, net.out_channels) if timed else None
    near(Fused().resnet(net, x.clone(), t), Parts().resnet(net, x.clone(), t), 4)


@pytest.mark.parametrize("linear", [False, True], ids=["convolutions", "linear"])
def test_a_transformer(linear: bool) -> None:
    net = Transformer2DModel(
        2, 16, in_channels=32, norm_num_groups=8, cross_attention_dim=24, use_linear_projection=linear
    )
    x, h = torch.randn(2, 35, 32), torch.randn(2, 32, 5, 7).to(memory_format=torch.channels_last)
    near(Fused().entrance(net, h), Parts().entrance(net, h), 4)
    near(Fused().exit(net, x, h), Parts().exit(net, x, h), 4)
    block: Any = net.transformer_blocks[0]
    assert isinstance(block, BasicTransformerBlock)
    near(Fused().feed(block, x), Parts().feed(block, x), 4)


def test_whoever_has_more_to_say_is_asked_itself() -> None:
    net = ResnetBlock2D(in_channels=32, out_channels=32, temb_channels=16, groups=8)
    listen(net, "unet")
    assert bare(net.conv1) and bare(net.norm1) and not bare(nn.Conv2d(2, 2, 1, bias=False))
    asked: list[str] = []
    net.conv1.register_forward_hook(lambda *_: asked.append("convolution"))
    x = torch.randn(2, 32, 4, 4)
    near(Fused().resnet(net, x, None), Parts().resnet(net, x, None), 4)
    assert asked == ["convolution"] * 2
    net.norm1.register_forward_hook(lambda *_: asked.append("norm"))
    Fused().resnet(net, x, None)
    assert asked[2:] == ["norm", "convolution"]
