"""How long a run takes, by its multiplications: counted as torch counts them, and told as an estimate (U9, issue 15)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch.utils.flop_counter import FlopCounterMode

from infuse.engine import pace

SMALL: dict[str, Any] = {"block_out_channels": (32, 64, 96), "layers_per_block": 2, "cross_attention_dim": 64, "in_channels": 4,
                         "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D")}  # fmt: skip


def test_a_unet_is_counted_as_torch_counts_it() -> None:
    """Within a quarter; attention's own products, which torch does not count on a CPU, are few on so small a latent."""
    net = UNet2DConditionModel(
        **SMALL,
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        sample_size=8,
        attention_head_dim=8,
    )
    with torch.no_grad(), FlopCounterMode(display=False) as counted:
        net(torch.randn(1, 4, 8, 8), torch.tensor(1), torch.randn(1, 77, 64))
    assert pace.unet(SMALL, 8, 8) == pytest.approx(counted.get_total_flops(), rel=0.25)


def test_networks_that_everybody_knows() -> None:
    """Published counts of one row: SD 1.5 at 512 px 0.7 to 0.8 TFLOP, SDXL at 1024 px about 6, decoding at 512 px about 2.5."""
    sd15 = {
        "block_out_channels": (320, 640, 1280, 1280),
        "layers_per_block": 2,
        "cross_attention_dim": 768,
        "in_channels": 4,
    }
    sdxl = {"block_out_channels": (320, 640, 1280), "layers_per_block": 2, "cross_attention_dim": 2048, "in_channels": 4,
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"), "transformer_layers_per_block": [1, 2, 10]}  # fmt: skip
    assert 0.6e12 < pace.unet(sd15, 64, 64) < 0.9e12
    assert 5e12 < pace.unet(sdxl, 128, 128) < 7.5e12
    assert 1.7e12 < pace.decoding((512, 512), 128) < 3e12
    cut = {**sdxl, "transformer_layers_per_block": [[0, 0], [1, 2], [4, 4]], "layers_per_block": [2, 2, 2]}
    assert pace.unet(cut, 128, 128) < pace.unet(sdxl, 128, 128)


def test_it_is_told_in_words_and_never_to_the_second() -> None:
    assert [pace.in_words(s) for s in (0.31, 41.234, 118, 190, 9000)] == [
        "about 0.31 s",
        "about 41 s",
        "about 120 s".replace("120", "120"),
        "about 3.2 min",
        "about 2.5 h",
    ]


def test_a_device_that_nobody_knows_has_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pace.seconds(1e9, 1, "cpu", "float32") > 0  # pyright: ignore[reportOptionalOperand]
    for computes in (None, 1.8):  # numbers of two bytes are emulated, or the processor computes in them
        monkeypatch.setattr(pace.processor, "bfloat16", lambda computes=computes: computes)
        assert 0 < pace.on_cpu("float16") < pace.on_cpu()
        assert (pace.on_cpu("bfloat16") > pace.on_cpu()) is bool(computes)
    assert pace.on_gpu("cpu", "float32") > 0, "torch's own timing, here on a CPU"
