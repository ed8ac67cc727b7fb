"""Bases of unusual form equal the stock pipelines, too: cut down (SSD-1B: depths are lists), or distilled (LCM: guidance is told)."""

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
from weights import ldm
from weights.test_base import checkpoint, folder

import tiny
from infuse import Recipe
from infuse.conditions.base import Condition
from infuse.network.brushnet import BrushNet
from infuse.network.spec import NetworkSpec
from infuse.network.unet import Network
from infuse.network.walk import Plain, Stroll, head, site_widths, walk
from infuse.weights.outline import outline
from infuse.weights.source import Source

from . import stock
from .cases import control, hole, look, mask, photo, start
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
    from infuse.encoders.ip_adapter import Adapter, Plain

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
    return Recipe(model="tiny", conditions=conditions, **{"scheduler": "DDIM", **plain, **fields})  # type: ignore[arg-type]


@pytest.mark.slow
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


@pytest.mark.slow
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
        walked = walk(own.unet, x, t, Plain(context, {}), Stroll(), embedding={"added_cond_kwargs": added})
        assert torch.equal(head(own.unet, walked), own.unet(x, t, context, added_cond_kwargs=added).sample)
        for attention in (True, False):
            brush = BrushNet.from_unet(net, attention=attention).eval()
            answers = brush(x, t, torch.zeros(2, 5, 16, 16), context, {}, {"added_cond_kwargs": added})
            assert len(answers) == brush.sites


@pytest.mark.slow
@pytest.mark.parametrize("form", some(FORMS, quick=["SSD-1B"]))
def test_a_folder_of_that_form_is_told_by_its_configs(form: str, tmp_path: Path) -> None:
    own = base(form)
    for part in ("unet", "vae", "text_encoder", "text_encoder_2"):
        own.parts[part].save_pretrained(tmp_path / part)
    (tmp_path / "model_index.json").write_text('{"unet": ["diffusers", "UNet2DConditionModel"]}')
    told = outline(Source("m", tmp_path)).spec
    assert told.cross_layers == own.base.spec.cross_layers and told.levels == own.base.spec.levels


# ── LCM: the guidance scale is a number that the network hears ──────────────────────────────────────────────────────


@cache
def distilled(dtype: torch.dtype = torch.float32) -> tiny.Tiny:
    """The tiny SD 1.x with a place for a guidance scale, and the scheduler that such models bring."""
    plain = tiny.base("sd1", dtype=dtype, schedule={"_class_name": "LCMScheduler", "set_alpha_to_one": True})
    torch.manual_seed(0)
    config = {k: v for k, v in plain.parts["unet"].config.items() if not k.startswith("_")}
    net = UNet2DConditionModel(**config | {"time_cond_proj_dim": 32})
    pristine = tiny.cast(tiny.randomized(net, 1), dtype)  # type: ignore[arg-type]
    spec = NetworkSpec.from_unet_config("sd1", pristine.config, vae_factor=2, family="sd1")
    ours = replace(plain.base, network=Network(copy.deepcopy(pristine), spec))
    return tiny.Tiny("sd1", plain.parts | {"unet": pristine}, ours)


def quick_step(*conditions: Condition, **fields: Any) -> Recipe:
    return asked(*conditions, **{"scheduler": "LCM", "guidance": 8.5, **fields})


LCMS: Mapping[str, Callable[[], tuple[Condition, ...]]] = {
    "text": tuple,
    "image prompt": lambda: (look(),),
    "start": lambda: (start(),),
    "hole": lambda: (hole().model_copy(update={"cells": "nearest"}),),
    "image prompt, controlnet": lambda: (
        look("plus"),
        control(),
    ),  # diffusers' img2img with ControlNets forgets the scale
}


@pytest.mark.slow
@pytest.mark.parametrize("mix", some(LCMS, quick=["image prompt, controlnet"]))
def test_an_lcm_equals_the_stock_pipelines(mix: str) -> None:
    """Those of Stable Diffusion, which fill the same embedding as LCM's own; ControlNets don't hear it."""
    own = distilled()
    modules = {"control0": tiny.controlnet("sd1", 7)} | {k: tiny.adapter("sd1", k, 17) for k in ("plain", "plus")}
    recipe = quick_step(*LCMS[mix]())
    ours = tiny.engine(own, modules).run(recipe)
    assert difference(ours.latents, stock.latents(own, recipe, modules)) < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("guidance", some([1.0, 4.0, 8.5], quick=[8.5]))
def test_an_lcm_equals_its_own_pipeline(guidance: float) -> None:
    from diffusers import LatentConsistencyModelPipeline, LCMScheduler

    own = distilled()
    scheduler = LCMScheduler.from_config(dict(own.base.scheduler))
    pipe = LatentConsistencyModelPipeline(
        **{**own.parts, "scheduler": scheduler, "safety_checker": None}, requires_safety_checker=False
    )
    pipe.set_progress_bar_config(disable=True)
    theirs = pipe("a red cube on a table", 32, 32, 4, guidance_scale=guidance, output_type="latent",
                  generator=torch.Generator("cpu").manual_seed(11)).images  # fmt: skip
    made = tiny.engine(own)
    before = own.base.network.calls
    result = made.run(quick_step(guidance=guidance, scheduler=None))
    assert difference(result.latents, theirs) < TOLERANCE
    assert made.check(quick_step(guidance=guidance)).rows == own.base.network.calls - before == 4, (
        "nothing is asked twice"
    )
    if guidance == 8.5:  # what such a network hears when the recipe names none
        assert torch.equal(made.run(quick_step(guidance=None)).latents, result.latents)


@pytest.mark.slow
def test_guidance_scales_share_a_call_and_may_be_curves() -> None:
    own = distilled(torch.float64)
    recipes = [quick_step(guidance=3.0), quick_step(guidance=9.0, seed=5), quick_step(guidance={0: 3.0, 1: 9.0})]
    alone = [tiny.engine(own).run(r).latents for r in recipes]
    together, before = tiny.engine(own), own.base.network.calls
    tickets = [together.submit(r) for r in recipes]
    found = [t.result().latents for t in tickets]
    assert own.base.network.calls - before == 4, "three scales, one call a step"
    for a, b in zip(found, alone, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)
    assert not torch.allclose(found[0], found[2])


@pytest.mark.slow
@pytest.mark.parametrize("own", [False, True])
def test_a_brushnet_beside_an_lcm(own: bool, tmp_path: Path) -> None:
    """A file that was trained beside a plain base has no place for the scale; one that was trained beside an LCM has."""
    from infuse.conditions import BrushNet as Fill
    from infuse.network.brushnet import stored

    base = distilled()
    branch = BrushNet.from_unet(base.parts["unet"] if own else tiny.unet("sd1"), attention=False)
    for conv in branch.zeros():
        torch.nn.init.normal_(conv.weight, std=0.1)
    file = ldm.save(tmp_path / "brush.safetensors", {stored(k): t for k, t in branch.state_dict().items()})
    assert any("cond_proj" in k for k in branch.state_dict()) == own
    fill = {"image": photo(2), "mask": mask(7, 5, 25, 20)}
    found = [
        tiny.engine(base, {"mine": branch}).run(quick_step(Fill(model=model, **fill))).latents  # type: ignore[arg-type]
        for model in ("mine", str(file))
    ]
    assert torch.equal(*found) and found[0].isfinite().all()


@pytest.mark.slow
def test_what_an_lcm_does_not_hear_is_said_and_its_files_bring_its_sampler(tmp_path: Path) -> None:
    made = tiny.engine(distilled())
    said = " ".join(made.check(quick_step(negative_prompt="x", guidance_rescale=0.5)).warnings)
    assert "negative_prompt: it changes nothing: this LCM" in said and "guidance_rescale" in said
    state, parts = checkpoint("sd1", time_cond_proj_dim=64)
    told = outline(Source("m", ldm.save(tmp_path / "lcm.safetensors", state)))
    assert told.spec.embeds_guidance and told.scheduler_config["_class_name"] == "LCMScheduler"
    root = folder(tmp_path / "lcm", parts)
    (root / "scheduler" / "scheduler_config.json").unlink()
    told = outline(Source("m", root))
    assert told.spec.embeds_guidance and told.scheduler_config["_class_name"] == "LCMScheduler"
