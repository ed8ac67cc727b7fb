"""Bases of unusual form equal the stock pipelines, too: cut-down networks (SSD-1B) whose depths are lists."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from some import some
from torch import nn

import tiny
from infuse import Recipe
from infuse.conditions.base import Condition
from infuse.network.brushnet import BrushNet
from infuse.network.spec import NetworkSpec
from infuse.network.unet import Network
from infuse.network.walk import head, site_widths, walk
from infuse.weights.outline import outline
from infuse.weights.source import Source

from . import stock
from .cases import control, look, start
from .test_parity import TOLERANCE, difference

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' schedulers

XL: dict[str, Any] = {
    "sample_size": 16, "block_out_channels": (32, 64), "layers_per_block": 2, "norm_num_groups": 8, "cross_attention_dim": 64,
    "use_linear_projection": True, "attention_head_dim": (4, 8), "addition_embed_type": "text_time", "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 32 + 6 * 8, "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
}  # fmt: skip
BOTH = {
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
}
FORMS: Mapping[str, dict[str, Any]] = {
    "SSD-1B": {"transformer_layers_per_block": [1, [2, 1]], "reverse_transformer_layers_per_block": [[1, 2, 3], 1],
               "mid_block_type": "UNetMidBlock2D"},
    "a middle of its own depth": {**BOTH, "transformer_layers_per_block": [[1, 2], [3, 1]],
                                  "reverse_transformer_layers_per_block": [[1, 1, 2], [2, 1, 1]]},
    "no middle, layers as a list": {**BOTH, "layers_per_block": [1, 2], "transformer_layers_per_block": [2, 1],
                                    "reverse_transformer_layers_per_block": [2, 1], "mid_block_type": None},
    "a decoder of other depths": {"transformer_layers_per_block": 2, "reverse_transformer_layers_per_block": [1, 1]},
}  # fmt: skip


@cache
def unet(form: str) -> UNet2DConditionModel:
    torch.manual_seed(0)
    return tiny.randomized(UNet2DConditionModel(**XL | FORMS[form]), 1)  # type: ignore[return-value]


def base(form: str) -> tiny.Tiny:
    plain, pristine = tiny.base("sdxl"), unet(form)
    spec = NetworkSpec.from_unet_config("sdxl", pristine.config, vae_factor=2, family="sdxl")
    ours = replace(plain.base, network=Network(copy.deepcopy(pristine), spec))
    return tiny.Tiny("sdxl", plain.parts | {"unet": pristine}, ours)


def adapter(spec: NetworkSpec) -> nn.Module:
    from infuse.conditions.ip_adapter import Adapter, Plain

    torch.manual_seed(17)
    widths = [w for _, w in spec.cross_layers]
    made = Adapter("plain", Plain(24, 4, spec.context_width), len(widths), widths, spec.context_width)
    return tiny.randomized(made, 17)


def branch(form: str) -> nn.Module:
    """A ControlNet as SDXL's are, at the sites of this base."""
    net = tiny.ControlNetModel.from_unet(UNet2DConditionModel(**XL), conditioning_embedding_out_channels=(8, 16))
    return tiny.randomized(net, 7)


MIXES: Mapping[str, Callable[[], tuple[Condition, ...]]] = {
    "text": tuple,
    "image prompt": lambda: (look(),),
    "controlnet, start": lambda: (control(weight=0.8), start()),
}


def asked(*conditions: Condition, **fields: Any) -> Recipe:
    plain = {"prompt": "a red cube on a table", "width": 32, "height": 32, "steps": 4, "guidance": 6.0, "seed": 11}
    return Recipe(model="tiny", conditions=conditions, scheduler="DDIM", **{**plain, **fields})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("form", "mix"),
    some(
        [(f, m) for f in FORMS for m in MIXES if m == "text" or "list" not in f],
        quick=[("SSD-1B", "image prompt"), ("no middle, layers as a list", "text")],
    ),
)
def test_cut_down_bases_equal_the_stock_pipeline(form: str, mix: str) -> None:
    own = base(form)
    modules = {"plain": adapter(own.base.spec), "control0": branch(form)}
    recipe = asked(*MIXES[mix](), negative_prompt="blurry")
    theirs = stock.latents(own, recipe, modules)
    assert difference(tiny.engine(own, modules).run(recipe).latents, theirs) < TOLERANCE


@pytest.mark.parametrize("form", some(FORMS, quick=["SSD-1B"]))
def test_every_cross_attention_is_counted_in_order(form: str) -> None:
    net = unet(form)
    named = [n.removesuffix(".processor") for n in net.attn_processors if "attn2" in n]
    found = base(form).base.spec
    assert [path for path, _ in found.cross_layers] == named
    assert [w for _, w in found.cross_layers] == [net.get_submodule(n).to_q.out_features for n in named]
    assert len(site_widths(net)[0]) + 1 == found.sites


@pytest.mark.parametrize("form", some(FORMS, quick=[]))
def test_the_walk_visits_what_is_there(form: str) -> None:
    """Equal to the network's own forward, bit for bit; and a BrushNet stands beside it."""
    net, own = unet(form), base(form).base.network
    x, t, context = torch.randn(2, 4, 16, 16), torch.tensor([3, 500]), torch.randn(2, 5, 64)
    added: Any = {"text_embeds": torch.randn(2, 32), "time_ids": torch.ones(2, 6)}
    with torch.no_grad():
        walked = walk(own.unet, x, t, context, {}, lambda h: h, embedding={"added_cond_kwargs": added})
        assert torch.equal(head(own.unet, walked), own.unet(x, t, context, added_cond_kwargs=added).sample)
        for attention in (True, False):
            brush = BrushNet.from_unet(net, attention=attention).eval()
            answers = brush(x, t, torch.zeros(2, 5, 16, 16), context, {}, {"added_cond_kwargs": added})
            assert len(answers) == brush.sites


@pytest.mark.parametrize("form", some(FORMS, quick=["SSD-1B"]))
def test_a_folder_of_that_form_is_told_by_its_configs(form: str, tmp_path: Path) -> None:
    own = base(form)
    for part in ("unet", "vae", "text_encoder", "text_encoder_2"):
        own.parts[part].save_pretrained(tmp_path / part)
    (tmp_path / "model_index.json").write_text('{"unet": ["diffusers", "UNet2DConditionModel"]}')
    told = outline(Source("m", tmp_path)).spec
    assert told.cross_layers == own.base.spec.cross_layers and told.levels == own.base.spec.levels
