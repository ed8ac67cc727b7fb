"""Strength by block: which of a network's modules stands in which slot, and what lists and presets say."""

from __future__ import annotations

import subprocess
import sys
from math import nan

import pytest

from infuse.errors import RecipeError
from infuse.network.blocks import NAMES, PRESETS, blocks, slot
from infuse.notices import gathers


def named(numbers: tuple[float, ...]) -> dict[str, float]:
    assert len(numbers) == 26
    return {n: v for n, v in zip(NAMES, numbers, strict=True) if v}


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("conv_in", "IN00"),
        ("down_blocks.0.resnets.0.conv1", "IN01"),
        ("down_blocks.0.attentions.1.transformer_blocks.0.attn1.to_q", "IN02"),
        ("down_blocks.0.downsamplers.0.conv", "IN03"),
        ("down_blocks.1.attentions.0.proj_in", "IN04"),
        ("down_blocks.2.attentions.1.transformer_blocks.9.ff.net.2", "IN08"),
        ("down_blocks.3.resnets.1.time_emb_proj", "IN11"),
        ("mid_block.attentions.0.proj_in", "M00"),
        ("mid_block.resnets.1.conv2", "M00"),
        ("up_blocks.0.resnets.0.conv1", "OUT00"),
        ("up_blocks.0.upsamplers.0.conv", "OUT02"),
        ("up_blocks.1.attentions.0.proj_out", "OUT03"),
        ("up_blocks.3.attentions.2.proj_out", "OUT11"),
    ],
)
def test_a_module_has_a_slot(path: str, name: str) -> None:
    at = slot(path)
    assert at is not None and NAMES[at] == name


@pytest.mark.parametrize("path", ["time_embedding.linear_1", "conv_out", "conv_norm_out", "add_embedding.linear_1"])
def test_what_is_in_no_block_has_none(path: str) -> None:
    assert slot(path) is None


def test_slots_are_those_of_original_checkpoints() -> None:
    """The base itself says which block of an original checkpoint a transformer block is."""
    from infuse.network.ldm_names import transformer_blocks
    from infuse.network.spec import NetworkSpec

    sizes = {"sd1": ((320, 640, 1280, 1280), 768), "sdxl": ((320, 640, 1280), 2048)}
    for family, (widths, context) in sizes.items():
        kinds = (
            ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"]
            if family == "sd1"
            else ["DownBlock2D"] + ["CrossAttnDownBlock2D"] * 2
        )
        config = {
            "block_out_channels": widths, "cross_attention_dim": context, "down_block_types": kinds, "in_channels": 4, "out_channels": 4,
            "up_block_types": [k.replace("Down", "Up") for k in reversed(kinds)], "layers_per_block": 2, "attention_head_dim": 8,
            "transformer_layers_per_block": 1, "mid_block_type": "UNetMidBlock2DCrossAttn",
        }  # fmt: skip
        net = NetworkSpec.from_unet_config(family, config)
        found = transformer_blocks(net)
        originals = {b.path: k for k, b in found.items() if k != b.path}
        assert len(originals) == len(found) // 2 > 5
        for path, original in originals.items():
            place, n = original.split(".")[:2]
            wanted = {"input_blocks": f"IN{int(n):02}", "output_blocks": f"OUT{int(n):02}", "middle_block": "M00"}[
                place
            ]
            assert NAMES[slot(path) or 0] == wanted


def test_lists_name_blocks() -> None:
    ones = named(blocks([1] * 17))
    assert list(ones) == [
        "BASE",
        "IN01",
        "IN02",
        "IN04",
        "IN05",
        "IN07",
        "IN08",
        "M00",
        "OUT03",
        "OUT04",
        "OUT05",
        "OUT06",
        "OUT07",
        "OUT08",
        "OUT09",
        "OUT10",
        "OUT11",
    ]
    assert list(named(blocks([1] * 12))) == [
        "BASE",
        "IN04",
        "IN05",
        "IN07",
        "IN08",
        "M00",
        "OUT00",
        "OUT01",
        "OUT02",
        "OUT03",
        "OUT04",
        "OUT05",
    ]
    assert list(named(blocks([1] * 20)))[10:12] == ["M00", "OUT00"]
    assert blocks(list(range(26))) == tuple(range(26))
    assert blocks(",".join(["0.5"] * 26)) == (0.5,) * 26


def test_presets_are_the_extensions() -> None:
    assert all(len(p) == 17 for p in PRESETS.values())
    assert named(blocks("MIDD")).keys() == {"BASE", "IN05", "IN07", "IN08", "M00", "OUT03", "OUT04", "OUT05", "OUT06"}
    assert named(blocks("outs")).keys() == {"BASE", "OUT07", "OUT08", "OUT09", "OUT10", "OUT11"}
    assert named(blocks("INS")).keys() == {"BASE", "IN01", "IN02", "IN04"}
    assert named(blocks("IND")).keys() == {"BASE", "IN05", "IN07", "IN08"}
    assert named(blocks("OUTD")).keys() == {"BASE", "OUT03", "OUT04", "OUT05", "OUT06"}
    assert set(named(blocks("ALL0.5")).values()) == {0.5} and not named(blocks("NONE"))
    assert len(named(blocks("INALL"))) == 7 and len(named(blocks("OUTALL"))) == 10


def test_x_is_what_it_is_said_to_be() -> None:
    assert blocks("X,x+0.25,X-1" + ",0" * 14, x=0.5)[:3] == (0.5, 0.0, 0.75)
    with pytest.raises(RecipeError, match="needs the value of X"):
        blocks("X" + ",0" * 16)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("1,2,3", "3 numbers; lists have 12"),
        ([], "0 numbers"),
        ("MIDDLE", "no preset. There are NONE, ALL"),
        ("", "no preset"),
        ("1,R" + ",0" * 15, "random number"),
        ("1,U" + ",0" * 15, "Write the number"),
        ("1,a" + ",0" * 15, '"a" is no number'),
        ([1.0, nan, *([0.0] * 15)], "no number"),
        ("1,1e999" + ",0" * 15, "no number"),
        ("1,,1" + ",0" * 14, '"" is no number'),
        ("X+" + ",0" * 16, "no number"),
    ],
)
def test_anything_else_is_a_letter(given: str, says: str) -> None:
    with pytest.raises(RecipeError, match=says.replace("(", r"\(")):
        blocks(given, x=1.0)


def test_what_a_list_leaves_out_is_said() -> None:
    with gathers() as notes:
        blocks("OUTALL", "sdxl")
    assert "the preset OUTALL" in notes[0] and "OUT09, OUT10, OUT11" in notes[0] and "doesn't have" in notes[0]
    assert "doesn't name OUT00, OUT01, OUT02: the network is silent there" in notes[1]
    with gathers() as notes:
        blocks("OUTALL", "sd1", "lora")
        blocks([1] * 12, "sdxl", "lora")
        blocks([1] * 26, "sd1", "locon")
        blocks("NONE", "sd1", "locon")
    assert not notes
    with gathers() as notes:
        blocks([1] * 17, "sd1", "locon")
    assert "IN00" in notes[0] and "silent" in notes[0]


def test_it_imports_no_torch() -> None:
    code = "import sys, infuse.network.blocks; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
