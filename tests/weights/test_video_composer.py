"""VideoComposer's file, taken apart and put together again: the released sizes, both directions, and what letters say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from accelerate import init_empty_weights
from diffusers import UNet3DConditionModel
from torch import Tensor

from infuse.errors import WeightsError
from infuse.network.stc import FpsEmbedding, STCEncoder, StyleMLP
from infuse.weights.layouts.video_composer import VideoParts, build, read, write
from infuse.weights.layouts.video_keys import identity, names, original_names

pytestmark = pytest.mark.slow  # all of it: a few seconds together, and seldom touched


GOLDEN = Path(__file__).parent.parent / "goldens" / "videocomposer_unet.json"
RELEASED = {"depth": 1, "motion": 2, "sketch": 1, "single_sketch": 1, "local_image": 3, "masked": 4}
"""Conditions in non_ema_228000.pth, and their channels."""
PARAMETERS = {
    "time_embed": 2_050_560, "pre_image_condition": 2_099_200, "depth_embedding": 11_880, "sketch_embedding": 11_880,
    "single_sketch_embedding": 11_880, "motion_embedding": 12_168, "local_image_embedding": 12_456,
    "masked_embedding": 12_744, "depth_embedding_after": 1_088, "mask_embedding_after": 1_088,
    "input_blocks": 443_249_216, "middle_block": 173_117_440, "output_blocks": 792_827_520, "out": 12_164,
}  # fmt: skip
"""Counted on the original, by the first word of the key."""


def numbers(tensors: dict[str, Tensor]) -> int:
    return sum(t.numel() for t in tensors.values())


@pytest.fixture(scope="module")
def released() -> dict[str, Tensor]:
    """The released VideoComposer's state dict, without its memory."""
    with init_empty_weights():
        unet, style = UNet3DConditionModel(in_channels=12), StyleMLP()
        stc = {c: dict(STCEncoder(n).state_dict()) for c, n in RELEASED.items()}
    return write(VideoParts({}, dict(unet.state_dict()), stc, dict(style.state_dict())))


@pytest.fixture
def small() -> dict[str, Tensor]:
    """The golden's file: two levels with attention, one without, seven conditions, style and frame rate."""
    shapes = json.loads(GOLDEN.read_text())["shapes"]
    return {k: torch.full(s, float(i)) for i, (k, s) in enumerate(shapes.items())}


def test_the_released_sizes(released: dict[str, Tensor]) -> None:
    assert (len(released), numbers(released)) == (1_574, 1_413_435_636)
    for prefix, count in PARAMETERS.items():
        assert numbers({k: t for k, t in released.items() if k.split(".")[0] == prefix}) == count, prefix
    parts = read(released)
    assert parts.config == {
        "in_channels": 12, "out_channels": 4, "block_out_channels": (320, 640, 1280, 1280), "layers_per_block": 2,
        "down_block_types": ("CrossAttnDownBlock3D",) * 3 + ("DownBlock3D",),
        "up_block_types": ("UpBlock3D",) + ("CrossAttnUpBlock3D",) * 3,
        "cross_attention_dim": 1024, "attention_head_dim": 64,
    }  # fmt: skip
    assert sum(numbers(s) for s in parts.stc.values()) == 79_536
    assert {c: s["convs.0.weight"].shape[1] for c, s in parts.stc.items()} == RELEASED


def test_modelscopes_text_to_video_is_the_same_without_the_encoders(released: dict[str, Tensor]) -> None:
    tensors = {k: t for k, t in released.items() if "embedding" not in k and "pre_image" not in k}
    tensors["input_blocks.0.0.weight"] = tensors["input_blocks.0.0.weight"][:, :4]
    assert (len(tensors), numbers(tensors)) == (1_480, 1_411_233_860)
    parts = read(tensors)
    with init_empty_weights():
        stock = UNet3DConditionModel()
    assert {k: t.shape for k, t in parts.unet.items()} == {k: t.shape for k, t in stock.state_dict().items()}
    assert (parts.stc, parts.style, parts.fps) == ({}, None, None)
    found = identity(tensors)
    assert found and (found.kind, found.layout, found.context_width) == ("text_to_video", "unet_sd", 1024)


def test_there_and_back(small: dict[str, Tensor]) -> None:
    back = write(read(small))
    assert back.keys() == small.keys()
    assert all(torch.equal(back[k], t) for k, t in small.items())


def test_names_are_each_others_inverse(released: dict[str, Tensor]) -> None:
    new = names(released)
    assert len(new) == 1_480 == len(set(new.values()))
    assert original_names(new.values()) == {n: k for k, n in new.items()}
    assert new["input_blocks.4.0.temopral_conv.conv1.2.weight"] == "down_blocks.1.temp_convs.0.conv1.2.weight"
    assert new["output_blocks.2.1.conv.weight"] == "up_blocks.0.upsamplers.0.conv.weight"
    assert new["output_blocks.5.3.conv.weight"] == "up_blocks.1.upsamplers.0.conv.weight"


def test_a_prefix_before_every_key_is_taken_off(small: dict[str, Tensor]) -> None:
    assert read({f"module.{k}": t for k, t in small.items()}).config == read(small).config


def test_the_networks_of_a_file(small: dict[str, Tensor]) -> None:
    made = build(read(small), torch.float32)
    assert set(made.stc) == {*RELEASED, "canny"}
    assert isinstance(made.style, StyleMLP) and isinstance(made.fps, FpsEmbedding)
    assert not any(p.is_meta for m in (made.unet, made.stc, made.style, made.fps) for p in m.parameters())
    assert not made.unet.training and not made.stc["depth"].training


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: f.pop("output_blocks.3.3.conv.bias"), "1 missing (output_blocks.3.3.conv.bias)"),
        (lambda f: f.pop("mask_embedding_after.layers.0.1.net.2.bias"), "1 missing (mask_embedding_after."),
        (lambda f: f.update({"pre_image.0.weight": torch.zeros(4, 12)}), "1 left over (pre_image.0.weight)"),
        (lambda f: f.update({"out.2.bias": torch.zeros(5)}), "of another shape (out.2.bias (5,) for (4,))"),
        (
            lambda f: f.update({"output_blocks.3.1.conv.bias": f["output_blocks.3.3.conv.bias"]}),
            "1 left over (output_blocks.3.1.conv.bias)",
        ),
        (
            lambda f: [f.pop(k) for k in list(f) if k.startswith("depth_embedding_after")],
            "6 left over (depth_embedding.0",
        ),
        (lambda f: f.pop("input_blocks.0.1.proj_in.weight"), "no VideoComposer"),
    ],
)
def test_every_tensor_has_its_place(small: dict[str, Tensor], change: object, said: str) -> None:
    change(small)  # type: ignore[operator]
    with pytest.raises(WeightsError) as e:
        read(small, field="model")
    assert said in e.value.message and e.value.field == "model"


def test_heads_that_do_not_fit(small: dict[str, Tensor]) -> None:
    assert read(small).config["attention_head_dim"] == 16
    assert read(small, head_dim=16).config["attention_head_dim"] == 16
    with pytest.raises(WeightsError, match="give 16"):
        read(small, head_dim=64)


def test_who_is_who(small: dict[str, Tensor]) -> None:
    found = identity(small)
    assert found and (found.kind, found.layout, found.in_channels, found.style) == (
        "video_composer",
        "unet_sd",
        12,
        True,
    )
    assert found.conditions == ("depth", "motion", "sketch", "single_sketch", "canny", "local_image", "masked")
    unet = read(small).unet
    found = identity(unet)
    assert found and (found.kind, found.layout) == ("video_composer", "diffusers")
    found = identity({**unet, "conv_in.weight": unet["conv_in.weight"][:, :4]})
    assert found and (found.kind, found.layout) == ("text_to_video", "diffusers")
    image_model = {k: t for k, t in small.items() if not k.startswith("input_blocks.0.1.")}
    assert identity(image_model) is None
