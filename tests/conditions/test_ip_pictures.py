"""An IP-Adapter's pictures: several, one for each picture or frame, and where they are heard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny_faces
import torch
from looked import A, B, C, asked, look, sides
from torch import Tensor

import tiny
from infuse import IPAdapter, Recipe
from infuse.batch import Row, collate
from infuse.encoders.ip_combine import combined
from infuse.engine.engine import Engine
from infuse.media.pictures import Picture
from infuse.network.attention import PortedAttention
from infuse.network.spec import NetworkSpec
from infuse.ports import Ports, Tokens

# ── several pictures ────────────────────────────────────────────────────────────────────────────────────────────────

E = torch.tensor([[[1.0, -2.0]], [[3.0, 4.0]], [[0.0, 1.0]]])


@pytest.mark.parametrize(("how", "want"), [
    ("add", [4.0, 3.0]), ("subtract", [1 - 1.5, -2 - 2.5]), ("average", [4 / 3, 1.0]), ("max", [3.0, 4.0]), ("min", [0.0, -2.0]),
    ("norm average", [(1 / 10**0.5 + 3 / 10**0.5) / 3, (-2 + 4 + 1) / 21**0.5 / 3]),
])  # fmt: skip
def test_combined_as_one(how: Any, want: list[float]) -> None:
    assert combined(E, how, [1, 1, 1])[0, 0].tolist() == pytest.approx(want)
    assert torch.equal(combined(E[:1], how, [1]), E[:1])
    assert combined(E, "add", [1, 0.5, 2])[0, 0].tolist() == [2.5, 2.0]


@pytest.mark.parametrize("how", ["add", "Subtract", "average", "norm average", "max", "min"])
def test_combined_pictures_have_the_tokens_of_one(how: str, engine: Engine) -> None:
    said = sides(engine, look(image=(A, B), combine=how))
    assert len(said.on.decoupled[0].tokens) == 6 == len(said.off.decoupled[0].tokens)
    assert len(sides(engine, look(image=(A, B))).on.decoupled[0].tokens) == 12


@pytest.mark.slow
def test_apart_equals_several_conditions(exact: Engine) -> None:
    one = look(image=(A, B), combine="apart", weights=(0.5, 1.2), weight=0.8)
    two = (look(image=A, weight=0.4), look(image=B, weight=0.96))
    found, want = exact.run(asked(one)).latents, exact.run(asked(*two)).latents
    assert (found - want).abs().max() < 1e-10
    assert len(sides(exact, look(image=(A, B), combine="apart", weights=(0, 1))).on.decoupled) == 1


def test_the_negative_side_hears_a_picture(engine: Engine) -> None:
    said = sides(engine, look(negative_image=B))
    assert torch.equal(said.off.decoupled[0].tokens, sides(engine, look(image=B)).on.decoupled[0].tokens)
    assert not torch.allclose(said.off.decoupled[0].tokens, sides(engine, look()).off.decoupled[0].tokens)


# ── one for each picture or frame ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_one_for_each_picture_of_a_recipe(exact: Engine, tmp_path: Path) -> None:
    each = asked(look(image=(A, B, C), images_per="item"), count=3)
    alone = [exact.run(asked(look(image=p), seed=3 + i)).latents[0] for i, p in enumerate((A, B, C))]
    made = exact.run(each)
    for i, want in enumerate(alone):
        assert (made.latents[i] - want).abs().max() < 1e-10
    one_by_one = [r.latents[0] for r in exact.each(each)]
    assert all((a - b).abs().max() < 1e-10 for a, b in zip(alone, one_by_one, strict=True))
    paths = made.save(tmp_path / "x.png")
    again = Recipe.load(paths[1], trust=True)
    assert again.count == 1 and again.seeds == (4,) and len(again.conditions[0].image) == 1  # type: ignore[union-attr]
    assert (exact.run(again).latents[0] - alone[1]).abs().max() < 1e-10


@pytest.mark.slow
def test_one_face_for_each_picture(exact: Engine) -> None:
    people = [tiny_faces.face(i) for i in range(2)]
    made = exact.run(asked(IPAdapter(model="faceid", face=people, images_per="item"), count=2, seed=[5, 5]))
    for i, person in enumerate(people):
        alone = exact.run(asked(IPAdapter(model="faceid", face=[person]), seed=5)).latents[0]
        assert (made.latents[i] - alone).abs().max() < 1e-10


@pytest.mark.slow
def test_one_for_each_frame() -> None:
    base = tiny.video()
    spec = base.base.network.spec
    engine = tiny.engine(base, {"plus": tiny_faces.adapter("sd1", "plus", spec=spec)})

    def made(*images: Picture, **fields: Any) -> Tensor:
        return engine.run(asked(look(image=images, **fields), frames=4)).latents

    same = made(A, A, A, A, images_per="frame")
    assert (same - made(A)).abs().max() < 1e-5
    assert (made(A, A, A, B, images_per="frame") - same).abs().max() > 1e-3
    said = sides(engine, look(image=(A, B, C, A), images_per="frame", fit="pad"), frames=4)
    assert said.on.decoupled[0].tokens.shape == said.off.decoupled[0].tokens.shape == (4, 6, spec.context_width)


# ── where and how it is heard ───────────────────────────────────────────────────────────────────────────────────────


def four_levels() -> tiny.Tiny:
    """SD 1.x's blocks by their names, eight channels wide."""
    from dataclasses import replace

    from diffusers import UNet2DConditionModel

    from infuse.network.unet import Network

    torch.manual_seed(0)
    net = UNet2DConditionModel(
        sample_size=16, block_out_channels=(8, 8, 16, 16), layers_per_block=2, norm_num_groups=4, cross_attention_dim=32, attention_head_dim=2,
        down_block_types=(*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"), up_block_types=("UpBlock2D", *["CrossAttnUpBlock2D"] * 3),
    )  # fmt: skip
    still = tiny.base("sd1")
    spec = NetworkSpec.from_unet_config("sd1", net.config, vae_factor=2, family="sd1")
    return tiny.Tiny("sd1", still.parts, replace(still.base, network=Network(tiny.randomized(net, 1), spec)))


@pytest.mark.slow
def test_precise_presets_turn_the_picture_against_itself() -> None:
    """Where a preset turns it, the prompt's side hears nothing and the negative one the picture, beside its own silence elsewhere."""
    base = four_levels()
    net = base.base.network
    engine = tiny.engine(base, {"plus": tiny_faces.adapter("sd1", "plus", spec=net.spec)})
    said = sides(engine, look(layers="style precise"))
    plain, turned = said.off.decoupled
    assert said.on.decoupled[0].layers == plain.layers and sum(map(bool, plain.layers)) == 11  # type: ignore[arg-type]
    assert turned.layers == (0, 0, 0, 0, 0.25, 1, *[0] * 10) and turned.tokens is said.on.decoupled[0].tokens
    style = sides(engine, look(layers="style"))
    assert torch.equal(style.on.decoupled[0].tokens, said.on.decoupled[0].tokens) and len(style.off.decoupled) == 1
    x, t = torch.randn(4, 16, 16), torch.tensor(500.0)
    text = Ports(context=(Tokens(torch.randn(7, 32)),))

    def answer(ports: Ports) -> Tensor:
        return net.predict(collate([Row(x, t, text + ports)], net.spec))

    with torch.no_grad():
        assert torch.equal(answer(said.on), answer(style.on))
        by_hand = sides(engine, look(layers={"4": 0.25, "5": 1}))
        want = answer(style.off + by_hand.on)
        assert (answer(said.off) - want).abs().max() < 1e-5 < (answer(style.off) - want).abs().max()


@pytest.mark.slow
def test_a_preset_is_heard_as_its_factors(engine: Engine) -> None:
    n = len(engine.store.base("tiny").spec.cross_layers)
    found = engine.run(asked(look(layers="weak middle"))).latents
    assert torch.equal(found, engine.run(asked(look(layers=(*[1.0] * (n - 1), 0.2)))).latents)
    assert not torch.equal(found, engine.run(asked(look())).latents)


@pytest.mark.parametrize("scaling", ["V only", "K+V", "K+V w/ C penalty", "K+mean(V) w/ C penalty"])
def test_what_a_weight_multiplies(scaling: str, engine: Engine) -> None:
    """The table of cubiq/ComfyUI_IPAdapter_plus@9d076a3, on one attention: W is weight, factor of the layer, and C / 1280."""
    said = sides(engine, look(scaling=scaling, weight=0.7, layers={"up_blocks.1": 0.6})).on.at(0.0, 0.7)
    spec = engine.store.base("tiny").spec
    layer = next(i for i, (path, _) in enumerate(spec.cross_layers) if path.startswith("up_blocks.1"))
    batch = collate(
        [Row(torch.randn(4, 16, 16), torch.tensor(1.0), said + Ports(context=(Tokens(torch.randn(3, 32)),)))], spec
    )
    width = spec.cross_layers[layer][1]
    q = torch.randn(1, 4, 256, width // 4)
    found = PortedAttention("", layer, True).image_answer(q, batch.decoupled[0], 4)
    to_k, to_v = said.decoupled[0].adapter.layer(layer)  # type: ignore[operator]
    k, v = to_k(said.decoupled[0].tokens), to_v(said.decoupled[0].tokens)
    w, mean = 0.7 * 0.6, v.mean(0, keepdim=True)
    c = w * width / 1280

    def attended(k: Tensor, v: Tensor) -> Tensor:
        k, v = (t.unflatten(-1, (4, -1)).transpose(0, 1)[None] for t in (k, v))
        weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
        return (weights @ v).transpose(1, 2).flatten(2)

    want = {
        "V only": w * attended(k, v),
        "K+V": attended(w * k, w * v),
        "K+V w/ C penalty": attended(c * k, c * v),
        "K+mean(V) w/ C penalty": attended(c * k, (v - mean) + c * mean),
    }[scaling]
    assert torch.allclose(found, want, atol=1e-5)
