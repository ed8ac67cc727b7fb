"""A VAE in strips: the same to rounding, in less memory, where and only where a whole one would not fit."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any
from weakref import finalize

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import tiny
from infuse.encoders import room
from infuse.encoders.strips import Strips
from infuse.engine import capacity
from infuse.notices import gathers

WIDTHS = (16, 32, 64, 64)


@pytest.fixture(scope="module")
def vae() -> Any:
    torch.manual_seed(0)
    made = AutoencoderKL(
        block_out_channels=WIDTHS, down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2, latent_channels=4, norm_num_groups=8,
    ).eval().double()  # fmt: skip
    for p in made.parameters():
        if p.dim() == 1:
            torch.nn.init.normal_(p)
    return made.requires_grad_(False)


@pytest.mark.parametrize("most", [1, 20_000])
@torch.no_grad()
def test_strips_say_what_the_whole_says(most: int, vae: Any) -> None:
    """Rows of one pixel, and uneven ones; odd sizes; a batch of two."""
    assert Strips.knows(vae)
    draw, strips = torch.Generator().manual_seed(1), Strips(vae, most=most)
    z = torch.randn(2, 4, 5, 7, generator=draw, dtype=torch.float64)
    want = vae.decode(z).sample
    assert (strips.decode(z) - want).abs().max() < 1e-12 * want.abs().max()
    x = torch.rand(2, 3, 40, 56, generator=draw, dtype=torch.float64)
    said, want = strips.encode(x), vae.encode(x).latent_dist
    assert (said.mean - want.mean).abs().max() < 1e-12 * want.mean.abs().max()
    assert torch.allclose(said.std, want.std, rtol=1e-12)


@torch.no_grad()
def test_in_bfloat16_they_err_as_the_whole_does(vae: Any) -> None:
    half = torch.nn.Module.to(copy.deepcopy(vae), torch.bfloat16, memory_format=torch.channels_last)  # type: ignore[call-overload]
    z = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(2)).bfloat16()
    exact = vae.decode(z.double()).sample
    whole, strips = (
        (made.double() - exact).abs().mean() for made in (half.decode(z).sample, Strips(half, most=999).decode(z))
    )
    assert strips < 1.2 * whole


class Live(TorchDispatchMode):
    """Bytes of the tensors that are alive, at their most."""

    def __init__(self) -> None:
        super().__init__()
        self.peak, self.views = 0, Counter[tuple[int, int]]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for t in tree_leaves(out):
            if isinstance(t, torch.Tensor) and not any(t is a for a in tree_leaves(args)):
                storage = t.untyped_storage()
                key = (storage.data_ptr(), storage.nbytes())
                self.views[key] += 1
                self.peak = max(self.peak, sum(n for (_, n), alive in self.views.items() if alive))
                finalize(t, self.left, key)
        return out

    def left(self, key: tuple[int, int]) -> None:
        self.views[key] -= 1


@pytest.mark.slow
@torch.no_grad()
def test_strips_hold_what_one_layer_reads_and_writes(vae: Any) -> None:
    z, x = torch.zeros(1, 4, 8, 8, dtype=torch.float64), torch.zeros(1, 3, 64, 64, dtype=torch.float64)
    unit, few = WIDTHS[0] * 64 * 64 * 8, Strips(vae, most=2**12)
    held = []
    for ask in (lambda: vae.decode(z), lambda: few.decode(z), lambda: vae.encode(x), lambda: few.encode(x)):
        with Live() as live:
            ask()
        held.append(live.peak / unit)
    assert held[0] > 5.9 and held[1] < 4.2 < room.STRIPS and held[2] > 4.9 and held[3] < 2.2


def test_a_base_decodes_in_strips_only_where_the_whole_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    base, asked = tiny.base("sd1").base, []
    z = torch.randn(1, 4, 6, 6, generator=torch.Generator().manual_seed(3)).to(base.vae.dtype)
    monkeypatch.setattr(Strips, "decode", lambda s, z, real=Strips.decode: (asked.append(s), real(s, z))[1])
    with gathers() as notes:
        whole = base.decode(z)
    assert not asked and not notes
    monkeypatch.setattr(room, "free", lambda device: 10)
    with gathers() as notes:
        strips = base.decode(z)
        base.said_of(whole.to(base.vae.dtype))
    assert len(asked) == 1 and (whole - strips).abs().max() < 1e-5
    assert ["decoded in strips" in n for n in notes] == [True, False] and "encoded in strips" in notes[1]
    assert "GiB were not free. It is the same to rounding." in notes[0]


def test_a_device_that_fills_up_meanwhile_is_asked_in_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    base = tiny.base("sd1").base
    z = torch.randn(1, 4, 6, 6, generator=torch.Generator().manual_seed(3)).to(base.vae.dtype)
    whole = base.decode(z)

    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(base.vae, "decode", full)
    with gathers() as notes:
        assert (base.decode(z) - whole).abs().max() < 1e-5
    assert len(notes) == 1


def test_whoever_set_tiles_or_brought_another_vae_is_asked_whole(vae: Any) -> None:
    tiled = copy.deepcopy(vae)
    tiled.enable_tiling()
    assert not Strips.knows(tiled) and not Strips.knows(torch.nn.Identity())


def test_a_check_counts_on_strips_where_the_whole_could_never_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    class View:
        dtype, device, vae_width, memory = "bfloat16", "cpu", 128, 10**9

    pixels = 2048 * 2048
    monkeypatch.setattr(capacity, "available", lambda device: 64 * 10**9)
    assert capacity.decoded(View, pixels) == 8 * 128 * pixels * 2
    monkeypatch.setattr(capacity, "available", lambda device: 8 * 10**9)
    assert capacity.decoded(View, pixels) == 5 * 128 * pixels * 2
