"""What stands between products, in few passes over memory: kernels of a GPU, written in Triton.

torch's group norm wants channels first, and convolutions of half precision want them last: each norm costs two rearrangements
besides its own passes, each convolution another pass for its bias. Here group norm reads and writes channels last, with SiLU and
whatever is added per channel (the time's embedding, the bias of the convolution before it) in the same passes; a convolution's
bias and the residual are added together; a gated feed-forward's gate is one pass. Kernels know no sizes: they are built once for a
number format, some seconds in all, and kept on disk by Triton. Where a layer has more to say (a LoRA in this call, a weight of
another kind, somebody who watches), torch's own steps do it.
"""

# Triton is there where torch runs on a GPU; types in its kernels are its own
# pyright: reportMissingImports=false, reportArgumentType=false, reportIndexIssue=false

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor, nn

from infuse.network.edits import LISTENING, NOW
from infuse.network.parts import Parts

BARE = (*LISTENING, *LISTENING.values())
"""Kinds of layers whose answer is nothing but their weight and bias."""
DTYPES = (torch.float16, torch.bfloat16, torch.float32)
SPLITS = 64
"""Parts that the places of a picture are cut into, at the most, for the sums of a norm."""
PLACES = 64
"""Places that are summed in one part at least."""
WIDE = 64
"""Channels that one program of a norm reads: a multiple of what memory moves at once."""


@triton.jit(do_not_specialize=["n", "c", "per"])
def _moments(x, out, n, c, per, P: tl.constexpr, C: tl.constexpr):
    """x (b n c) -> out (b splits 2 c): mean and summed squares around it of each channel, of each part of the places."""
    b, split, splits = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    channels = tl.program_id(2) * C + tl.arange(0, C)
    within = channels < c
    begin = split * per
    end = tl.minimum(begin + per, n)
    x += b.to(tl.int64) * n * c
    first = tl.load(x + begin * c + channels, mask=within, other=0.0).to(tl.float32)
    total = tl.zeros((C,), tl.float32)
    squares = tl.zeros((C,), tl.float32)
    start = begin
    while start < end:
        places = start + tl.arange(0, P)
        here = (places < end)[:, None] & within[None, :]
        v = tl.load(x + places[:, None] * c + channels[None, :], mask=here, other=0.0).to(tl.float32)
        v = tl.where(here, v - first[None, :], 0.0)  # around one of the values, so that little is lost to rounding
        total += tl.sum(v, 0)
        squares += tl.sum(v * v, 0)
        start += P
    count = (end - begin).to(tl.float32)
    out += (b * splits + split) * 2 * c + channels
    tl.store(out, first + total / count, mask=within)
    tl.store(out + c, tl.maximum(squares - total * total / count, 0.0), mask=within)


@triton.jit(do_not_specialize=["n", "c", "per", "splits", "eps"])
def _scales(
    moments, more, weight, bias, out, n, c, per, splits, eps, HAS_MORE: tl.constexpr, S: tl.constexpr, G: tl.constexpr
):
    """moments (b splits 2 c) -> out (b 2 c): what each channel is multiplied by, and what is added. more (b c) is in x, but not in
    the moments."""
    b, group, groups = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    width = c // groups
    inside = tl.arange(0, G)
    channels = group * width + inside
    within = inside < width
    parts = tl.arange(0, S)
    count = tl.maximum(tl.minimum(n - parts * per, per), 0).to(tl.float32)
    here = (parts < splits)[:, None] & within[None, :]
    count = tl.where(parts < splits, count, 0.0)
    at = moments + (b * splits + parts[:, None]) * 2 * c + channels[None, :]
    means = tl.load(at, mask=here, other=0.0)
    squares = tl.load(at + c, mask=here, other=0.0)
    added = tl.zeros((G,), tl.float32)
    if HAS_MORE:
        added = tl.load(more + b * c + channels, mask=within, other=0.0).to(tl.float32)
        means += added[None, :]
    means = tl.where(here, means, 0.0)
    size = (n * width).to(tl.float32)
    mean = tl.sum(tl.sum(means * count[:, None], 0), 0) / size
    apart = tl.where(here, means - mean, 0.0)
    spread = tl.sum(tl.sum(squares + apart * apart * count[:, None], 0), 0) / size
    scale = tl.load(weight + channels, mask=within, other=0.0).to(tl.float32) / tl.sqrt(spread + eps)
    shift = tl.load(bias + channels, mask=within, other=0.0).to(tl.float32) + (added - mean) * scale
    out += b * 2 * c + channels
    tl.store(out, scale, mask=within)
    tl.store(out + c, shift, mask=within)


@triton.jit(do_not_specialize=["n", "c"])
def _applied(x, scales, out, n, c, SILU: tl.constexpr, P: tl.constexpr, C: tl.constexpr):
    """x (b n c) times scale, plus shift, through SiLU."""
    b = tl.program_id(1)
    places = tl.program_id(0) * P + tl.arange(0, P)
    channels = tl.program_id(2) * C + tl.arange(0, C)
    within = channels < c
    scale = tl.load(scales + b * 2 * c + channels, mask=within, other=0.0)
    shift = tl.load(scales + b * 2 * c + c + channels, mask=within, other=0.0)
    here = (places < n)[:, None] & within[None, :]
    at = b.to(tl.int64) * n * c + places[:, None] * c + channels[None, :]
    v = tl.load(x + at, mask=here, other=0.0).to(tl.float32) * scale[None, :] + shift[None, :]
    if SILU:
        v = v / (1.0 + tl.exp(-v))
    tl.store(out + at, v.to(out.dtype.element_ty), mask=here)


@triton.jit(do_not_specialize=["n", "c"])
def _summed(x, bias, second, other, n, c, HAS_SECOND: tl.constexpr, P: tl.constexpr, C: tl.constexpr):
    """x (n c) becomes x + bias + other, in place. second: another bias, of who made `other`."""
    places = tl.program_id(0) * P + tl.arange(0, P)
    channels = tl.program_id(1) * C + tl.arange(0, C)
    within = channels < c
    more = tl.load(bias + channels, mask=within, other=0.0).to(tl.float32)
    if HAS_SECOND:
        more += tl.load(second + channels, mask=within, other=0.0).to(tl.float32)
    here = (places < n)[:, None] & within[None, :]
    at = places[:, None].to(tl.int64) * c + channels[None, :]
    v = tl.load(x + at, mask=here, other=0.0).to(tl.float32) + tl.load(other + at, mask=here, other=0.0).to(tl.float32)
    tl.store(x + at, (v + more[None, :]).to(x.dtype.element_ty), mask=here)


@triton.jit(do_not_specialize=["n", "c"])
def _gated(x, out, n, c, P: tl.constexpr, C: tl.constexpr):
    """x (n 2c): its first half times GELU of its second."""
    places = tl.program_id(0) * P + tl.arange(0, P)
    channels = tl.program_id(1) * C + tl.arange(0, C)
    here = (places < n)[:, None] & (channels < c)[None, :]
    at = places[:, None].to(tl.int64) * 2 * c + channels[None, :]
    left = tl.load(x + at, mask=here, other=0.0).to(tl.float32)
    right = tl.load(x + at + c, mask=here, other=0.0).to(tl.float32)
    left *= 0.5 * right * (1.0 + tl.math.erf(right * 0.7071067811865476))
    tl.store(out + places[:, None].to(tl.int64) * c + channels[None, :], left.to(out.dtype.element_ty), mask=here)


def normed(x: Tensor, norm: nn.GroupNorm, silu: bool, more: Tensor | None = None) -> Tensor:
    """Group norm of x (b c h w) + more (b c), through SiLU if `silu`; channels last."""
    x = x.contiguous(memory_format=torch.channels_last)
    b, c, h, w = x.shape
    n = h * w
    splits = max(1, min(SPLITS, n // PLACES))
    per = -(-n // splits)
    splits = -(-n // per)  # none is empty
    wide = triton.cdiv(c, WIDE)
    moments = torch.empty((b, splits, 2, c), dtype=torch.float32, device=x.device)
    scales = torch.empty((b, 2, c), dtype=torch.float32, device=x.device)
    out = torch.empty_like(x)
    _moments[(b, splits, wide)](x, moments, n, c, per, P=32, C=WIDE)
    more_or = x if more is None else more.contiguous()
    _scales[(b, norm.num_groups)](
        moments, more_or, norm.weight, norm.bias, scales, n, c, per, splits, norm.eps,
        HAS_MORE=more is not None, S=SPLITS, G=triton.next_power_of_2(c // norm.num_groups),
    )  # fmt: skip
    _applied[(triton.cdiv(n, 32), b, wide)](x, scales, out, n, c, SILU=silu, P=32, C=WIDE)
    return out


def summed(x: Tensor, bias: Tensor, other: Tensor, second: Tensor | None = None) -> Tensor:
    """x + bias + other (+ second), of x and other (b c h w) and biases (c); channels last, written into x if that is."""
    x, other = (one.contiguous(memory_format=torch.channels_last) for one in (x, other))
    b, c, h, w = x.shape
    n = b * h * w
    grid = (triton.cdiv(n, 32), triton.cdiv(c, WIDE))
    _summed[grid](x, bias, bias if second is None else second, other, n, c, HAS_SECOND=second is not None, P=32, C=WIDE)
    return x


def gated(x: Tensor) -> Tensor:
    """The first half of x (... 2c) times GELU of its second."""
    c = x.shape[-1] // 2
    out = x.new_empty((*x.shape[:-1], c))
    n = out.numel() // c
    _gated[(triton.cdiv(n, 16), triton.cdiv(c, 128))](x, out, n, c, P=16, C=128)
    return out


class Fused(Parts):
    """`Parts` by these kernels, wherever they apply."""

    def resnet(self, module: Any, h: Tensor, t: Tensor | None) -> Tensor:
        one, two, short = module.conv1, module.conv2, module.conv_shortcut
        if not (h.dtype in DTYPES and bare(module.norm1) and bare(module.norm2)):
            return super().resnet(module, h, t)
        x = normed(h, module.norm1, True)
        if bare(one):
            x, own = convolved(one, x), one.bias.expand(len(x), -1)
            t = own if t is None else own + t
        else:
            x = one(x)
        x = normed(x, module.norm2, True, t)
        if not bare(two) or not (short is None or bare(short)):
            return two(x).add_(h if short is None else short(h))
        if short is None:
            return summed(convolved(two, x), two.bias, h)
        return summed(convolved(two, x), two.bias, convolved(short, h), short.bias)

    def entrance(self, module: Any, h: Tensor) -> Tensor:
        norm, project = module.norm, module.proj_in
        if not (h.dtype in DTYPES and bare(norm)):
            return super().entrance(module, h)
        x = normed(h, norm, False)
        if module.use_linear_projection:
            return project(x.permute(0, 2, 3, 1).flatten(1, 2))
        if bare(project):
            return F.linear(x.permute(0, 2, 3, 1).flatten(1, 2), project.weight.flatten(1), project.bias)
        return project(x).permute(0, 2, 3, 1).flatten(1, 2)

    def exit(self, module: Any, x: Tensor, h: Tensor) -> Tensor:
        project = module.proj_out
        if module.use_linear_projection or not bare(project):
            return super().exit(module, x, h)
        return (
            F.linear(x, project.weight.flatten(1), project.bias).unflatten(1, h.shape[-2:]).permute(0, 3, 1, 2).add_(h)
        )

    def feed(self, block: Any, x: Tensor) -> Tensor:
        up = block.ff.net[0].proj(block.norm3(x))
        if up.dtype not in DTYPES or not up.is_contiguous():
            return super().feed(block, x)
        return block.ff.net[2](gated(up)).add_(x)


def bare(layer: Any) -> bool:
    """Is this layer's answer, in this call, nothing but its weight and bias?"""
    now = NOW.get()
    return (
        type(layer) in BARE
        and (now is None or not now.touches(layer))
        and not (layer._forward_hooks or layer._forward_pre_hooks or "forward" in layer.__dict__)
        and layer.weight is not None
        and layer.bias is not None
    )


def convolved(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """Its answer without its bias."""
    return F.conv2d(x, layer.weight, None, layer.stride, layer.padding, layer.dilation, layer.groups)
