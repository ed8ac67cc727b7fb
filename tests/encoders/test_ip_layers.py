"""Presets of IP-Adapters are the published tables, in the files' order, and a network without such blocks is a letter."""

from __future__ import annotations

from typing import Any

import pytest
from weights import full

import tiny
from infuse.encoders.ip_layers import PRESETS, SD, XL, groups, preset, read, spread
from infuse.errors import RecipeError
from infuse.network.spec import NetworkSpec

NETS = {name: NetworkSpec.from_unet_config(name, full.CONFIGS[name] | {"block_out_channels": full.CONFIGS[name].get("block_out_channels", (320, 640, 1280, 1280)),
        "down_block_types": full.CONFIGS[name].get("down_block_types", (*["CrossAttnDownBlock2D"] * 3, "DownBlock2D")),
        "up_block_types": full.CONFIGS[name].get("up_block_types", ("UpBlock2D", *["CrossAttnUpBlock2D"] * 3))})
        for name in ("sd15", "sd21", "sdxl")}  # fmt: skip

# adapters-2.md 2.2: factors by group in the order of a call, rounded to 4 digits; a star (here: negative) is turned
EASED = {
    "sd15": {
        "ease in": "1.0000 0.9406 0.8812 0.8219 0.7625 0.7031 0.6438 0.5844 0.5250 0.4656 0.4062 0.3469 0.2875 0.2281 0.1688 0.1094",
        "ease out": "0.0500 0.1094 0.1688 0.2281 0.2875 0.3469 0.4062 0.4656 0.5250 0.5844 0.6438 0.7031 0.7625 0.8219 0.8812 0.9406",
        "ease in out": "0.0500 0.1688 0.2875 0.4062 0.5250 0.6438 0.7625 0.8812 1.0000 0.8812 0.7625 0.6438 0.5250 0.4062 0.2875 0.1688",
        "reverse in out": "1.0000 0.8812 0.7625 0.6438 0.5250 0.4062 0.2875 0.1688 0.0500 0.1688 0.2875 0.4062 0.5250 0.6438 0.7625 0.8812",
        "weak input": ".2 .2 .2 .2 .2 .2 1 1 1 1 1 1 1 1 1 1",
        "weak middle": "1 1 1 1 1 1 .2 1 1 1 1 1 1 1 1 1",
        "weak output": "1 1 1 1 1 1 1 .2 .2 .2 .2 .2 .2 .2 .2 .2",
        "strong middle": ".2 .2 .2 .2 .2 .2 1 .2 .2 .2 .2 .2 .2 .2 .2 .2",
    },
    "sdxl": {
        "ease in": "1.0000 0.9136 0.8273 0.7409 0.6545 0.5682 0.4818 0.3955 0.3091 0.2227 0.1364",
        "ease out": "0.0500 0.1364 0.2227 0.3091 0.3955 0.4818 0.5682 0.6545 0.7409 0.8273 0.9136",
        "ease in out": "0.0500 0.2227 0.3955 0.5682 0.7409 0.9136 0.9136 0.7409 0.5682 0.3955 0.2227",
        "reverse in out": "1.0000 0.8273 0.6545 0.4818 0.3091 0.1364 0.1364 0.3091 0.4818 0.6545 0.8273",
        "weak input": ".2 .2 .2 .2 1 1 1 1 1 1 1",
        "strong middle": ".2 .2 .2 .2 1 .2 .2 .2 .2 .2 .2",
    },
}  # fmt: skip
NAMED = {
    "sd15": {
        "style": "1 1 1 1 0 0 0 0 0 1 1 1 1 1 1 1",
        "composition": "0 0 0 0 .25 1 0 0 0 0 0 0 0 0 0 0",
        "strong style": "1 1 1 1 0 0 1 1 1 1 1 1 1 1 1 1",
        "style and composition": "1 1 1 1 .25 1 0 0 0 1 1 1 1 1 1 1",
        "strong style and composition": "1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1",
        "style precise": "1 1 1 1 -.25 -1 0 0 0 1 1 1 1 1 1 1",
        "composition precise": "-1 -1 -1 -1 .25 1 -.1 -.1 -.1 -1 -1 -1 -1 -1 -1 -1",
        "invokeai style": "0 0 0 0 0 0 0 1 1 1 0 0 0 0 0 0",
        "invokeai composition": "0 0 0 0 1 1 1 0 0 0 0 0 0 0 0 0",
        "layout": "0 0 0 0 1 1 1 0 0 0 0 0 0 0 0 0",
        "invokeai style strong": "1 1 1 1 0 0 0 1 1 1 1 1 1 0 0 0",
        "invokeai style precise": "0 0 0 0 -1 -1 -1 1 1 1 0 0 0 0 0 0",
        "style and layout": "0 0 0 0 1 1 1 1 1 1 0 0 0 0 0 0",
    },
    "sdxl": {
        "style": "0 0 0 0 0 0 1 0 0 0 0", "invokeai style": "0 0 0 0 0 0 1 0 0 0 0",
        "composition": "0 0 0 1 0 0 0 0 0 0 0", "layout": "0 0 0 1 0 0 0 0 0 0 0", "invokeai composition": "0 0 0 1 0 0 0 0 0 0 0",
        "strong style": "1 1 1 0 1 1 1 1 1 1 1",
        "invokeai style strong": "1 1 1 0 0 1 1 1 1 1 1",
        "style and composition": "0 0 0 1 0 0 1 0 0 0 0", "style and layout": "0 0 0 1 0 0 1 0 0 0 0",
        "strong style and composition": "1 1 1 1 1 1 1 1 1 1 1",
        "style precise": "0 0 0 -1 0 0 1 0 0 0 0", "invokeai style precise": "0 0 0 -1 0 0 1 0 0 0 0",
        "composition precise": "-.1 -.1 -.1 1 -.1 -.1 -1 -.1 -.1 -.1 -.1",
    },
}  # fmt: skip
ROWS = [(net, name, row) for tables in (EASED, NAMED) for net, table in tables.items() for name, row in table.items()]


def by_group(factors: tuple[float, ...] | None, net: NetworkSpec) -> list[float]:
    """What each group hears, in the order of a call: all of its blocks the same."""
    if factors is None:
        return [0.0] * len(groups(net))
    found: dict[str, set[float]] = {}
    for (path, _), factor in zip(net.cross_layers, factors, strict=True):
        found.setdefault(path.partition(".transformer")[0], set()).add(factor)
    return [one for g in groups(net) for one in (next(iter(found[g])) if len(found[g]) == 1 else float("nan"),)]


@pytest.mark.parametrize(("net", "name", "row"), ROWS)
def test_presets_are_the_published_tables(net: str, name: str, row: str) -> None:
    want = [float(x) for x in row.split()]
    said = spread(name, NETS[net])
    assert by_group(said.plain, NETS[net]) == pytest.approx([max(x, 0) for x in want], abs=6e-5)
    assert by_group(said.turned, NETS[net]) == pytest.approx([max(-x, 0) for x in want], abs=6e-5)


def test_every_preset_has_a_table_here() -> None:
    assert {*EASED["sd15"], *NAMED["sd15"], "linear"} == set(PRESETS)
    assert set(NAMED["sd15"]) == set(NAMED["sdxl"])


def test_factors_lie_in_the_files_order_with_the_middle_last() -> None:
    assert spread("weak middle", NETS["sd15"]).plain == (*[1.0] * 15, 0.2)
    assert spread("weak middle", NETS["sdxl"]).plain == (*[1.0] * 60, *[0.2] * 10)
    assert groups(NETS["sd15"]) == groups(NETS["sd21"]) == list(SD) and groups(NETS["sdxl"]) == list(XL)
    style = spread("style", NETS["sdxl"]).plain  # numbers 69 to 87 of the file, of 1 to 139
    assert style is not None and [2 * i + 1 for i, f in enumerate(style) if f] == list(range(69, 88, 2))


@pytest.mark.parametrize(("layers", "row"), [
    ({"up_blocks.1": 1}, "0 0 0 0 0 0 0 1 1 1 0 0 0 0 0 0"),
    ({"up_blocks.1": 1, "up_blocks.1.attentions.2": 0.5, "mid_block": 2}, "0 0 0 0 0 0 2 1 1 .5 0 0 0 0 0 0"),
    ({4: 0.25, "5": 1}, "0 0 0 0 .25 1 0 0 0 0 0 0 0 0 0 0"), ("4:.25, 5:1", "0 0 0 0 .25 1 0 0 0 0 0 0 0 0 0 0"),
    ({"down": {"block_2": [0.0, 1.0]}, "mid": 0.5, "up": {"block_1": 0.3}}, "0 0 0 0 0 1 .5 .3 .3 .3 0 0 0 0 0 0"),
    ({"down": 0.5, "up": {"block_3": [0.1, 0.2, 0.3]}}, ".5 .5 .5 .5 .5 .5 0 0 0 0 0 0 0 .1 .2 .3"),
    ({"up": {"block_3": [0.4]}}, "0 0 0 0 0 0 0 0 0 0 0 0 0 .4 .4 .4"),
])  # fmt: skip
def test_blocks_by_name_by_number_and_in_diffusers_words(layers: Any, row: str) -> None:
    assert by_group(spread(read(layers), NETS["sd15"]).plain, NETS["sd15"]) == [float(x) for x in row.split()]


@pytest.mark.parametrize(("spelling", "ours"), [
    ("style transfer (SDXL)", "style"), ("ease in-out", "ease in out"), ("Style+Composition", "style and composition"),
    ("strong_style_transfer", "strong style"), ("standard", "linear"), ("prompt is more important", "ease out"),
    ("style_strong", "invokeai style strong"), ("InstantStyle", "invokeai style"), ("composition precise", "composition precise"),
])  # fmt: skip
def test_others_names_for_presets(spelling: str, ours: str) -> None:
    assert preset(spelling) == ours == read(spelling)


def test_composition_and_boost_have_factors_of_their_own() -> None:
    net = NETS["sdxl"]
    assert by_group(spread("style and composition", net, composition=0.5).plain, net)[3] == 0.5
    assert by_group(spread("style precise", net, boost=0.7).turned, net)[3] == 0.7
    assert spread("style precise", net, boost=0).turned is None


@pytest.mark.parametrize(
    "layers",
    ["styel", {}, {"up": "x"}, {"up": {"block_1": {"a": 1}}}, [1, "x"], [True], 3, {"mid": float("nan")}, "x:y:z"],
)
def test_what_is_no_layers_is_a_letter(layers: Any) -> None:
    with pytest.raises(ValueError, match=r"preset|number|block|group|name"):
        read(layers)


@pytest.mark.parametrize(("layers", "says"), [
    ([1.0] * 70, "70 factors.*16 cross"), ({"up_blocks.0": 1}, "up_blocks.0.*Blocks: down_blocks.0.attentions.0-1"), ({"16": 1}, "no group 16.*has 16"),
    ({"down": {"block_3": 1}}, r"down.block_3"), ({"up": {"block_1": [1, 2]}}, "2 factors for 3"), ({"mid_block": [1]}, "one factor"),
    ({"mid": {"block_0": 1}}, "mid.block_0"), ({"up": [1, 2]}, "list"),
])  # fmt: skip
def test_what_the_network_has_not_is_a_letter(layers: Any, says: str) -> None:
    with pytest.raises(RecipeError, match=f"^layers: .*{says}"):
        spread(read(layers), NETS["sd15"])


@pytest.mark.slow
def test_a_network_with_other_blocks_names_them() -> None:
    net = tiny.base("sdxl").base.spec
    with pytest.raises(
        RecipeError, match=r"^layers: 'style' means blocks of SDXL, and sdxl has others: down_blocks\.0.*Name"
    ):
        spread("style", net)
    assert spread("ease in", net).plain is not None
