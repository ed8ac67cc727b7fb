"""A globally pooled ControlNet (shuffle) says one number per channel. It is heard at every place of its sites, beside others too."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from some import in_turn, some
from torch import Tensor

import mix
import tiny
from infuse import ControlNet, Recipe
from infuse.batch import Row, collate
from infuse.network.attention import install
from infuse.network.spec import NetworkSpec
from infuse.network.walk import Plain, Stroll, walk
from infuse.ports import Ports, Residual, Tokens, Voice

pytestmark = pytest.mark.slow  # all of it: a few seconds together, and seldom touched


CLOSE = 1e-10
SIZE = 12  # latents a side: 12 and 6, so that no two sites are of one place
T = torch.tensor(500.0)


def pooled(seed: int) -> Any:
    net = tiny.controlnet("sd1", seed)
    net.register_to_config(global_pool_conditions=True)
    return net


@cache
def branches() -> dict[str, tuple[Any, Any]]:
    """name -> (as diffusers has it, as infuse hears it)"""
    found = {"shuffle": pooled(7), "plain": tiny.controlnet("sd1", 8)}
    pairs = {}
    for name, net in found.items():
        stock = tiny.cast(net, torch.float64)
        install(ours := copy.deepcopy(stock))
        pairs[name] = (stock, ours)
    return pairs


@cache
def networks() -> dict[str, tiny.Tiny]:
    return {"picture": tiny.base("sd1", dtype=torch.float64), "clip": tiny.video(dtype=torch.float64)}


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def region() -> Tensor:
    mask = torch.zeros(2 * SIZE, 2 * SIZE)
    mask[:, : SIZE // 2] = 1
    mask[: SIZE // 3] = 0.5
    return mask


X = {"picture": noise(4, SIZE, SIZE), "clip": noise(4, 4, SIZE, SIZE)}
TEXT, HINT = noise(7, 32, seed=1), noise(3, 2 * SIZE, 2 * SIZE, seed=2)
FRAMES = (1.0, 0.25, 0.0, 2.0)

Said = tuple[str, Voice]


def row(kind: str, said: Sequence[Said]) -> Row:
    heard = tuple(Residual(branches()[name][1], HINT, voice=voice) for name, voice in said)
    return Row(X[kind], T, Ports(context=(Tokens(TEXT),), residuals=heard))


@torch.no_grad()
def predicted(kind: str, *rows: Row) -> list[Tensor]:
    network = networks()[kind].base.network
    return list(network.predict(collate(rows, network.spec)))


@torch.no_grad()
def expected(kind: str, said: Sequence[Said]) -> Tensor:
    """Stock networks, stock addition: what is pooled is broadcast over its site, a region is a factor there."""
    x = X[kind][None]
    pictures = x if kind == "picture" else x[0].transpose(0, 1)
    n = len(pictures)
    of_site: dict[str, list[Tensor]] = {}
    for name, (stock, _) in branches().items():
        down, middle = stock(pictures, T, TEXT.expand(n, -1, -1), HINT.expand(n, -1, -1, -1), return_dict=False)
        of_site[name] = [*down, middle]
    total = [torch.zeros_like(r) for r in of_site["plain"]]
    for name, voice in said:
        weights = voice.weight * torch.tensor(voice.frames or (1.0,) * n, dtype=torch.float64).view(-1, 1, 1, 1)
        for i, r in enumerate(of_site[name]):
            mask = 1.0
            if voice.mask is not None:
                mask = F.interpolate(voice.mask[None, None].double(), size=total[i].shape[-2:], mode="bilinear")
            total[i] = total[i] + weights * mask * r
    return (
        networks()[kind]
        .parts["unet"](
            x, T, TEXT[None], down_block_additional_residuals=tuple(total[:-1]), mid_block_additional_residual=total[-1]
        )
        .sample[0]
    )


REGION, LEFT = region(), Voice(0.7, mask=region())
SHUFFLE, PLAIN = ("shuffle", Voice(1.3)), ("plain", Voice(0.8))
RECIPES: dict[str, tuple[Said, ...]] = {
    "alone": (SHUFFLE,),
    "first": (SHUFFLE, PLAIN),
    "last": (PLAIN, SHUFFLE),
    "in a region": (("shuffle", LEFT),),
    "both in a region": (("shuffle", LEFT), ("plain", LEFT)),
    "in a region, first": (("shuffle", LEFT), PLAIN),
    "in a region, last": (PLAIN, ("shuffle", LEFT)),
    "everywhere and in a region": (SHUFFLE, ("shuffle", LEFT)),
}


@pytest.mark.parametrize(("kind", "name"), in_turn(["picture", "clip"], list(RECIPES)))
def test_in_one_recipe_it_equals_diffusers_addition(kind: str, name: str) -> None:
    said = RECIPES[name]
    found = predicted(kind, row(kind, said))[0]
    assert float((found - expected(kind, said)).abs().max()) < CLOSE
    assert float((found - expected(kind, ())).abs().max()) > 1e-3, "and it is heard"


@pytest.mark.parametrize("kind", some(["picture", "clip"], quick=["picture"]))
def test_in_recipes_of_several_users_each_has_its_own(kind: str) -> None:
    together: list[tuple[Said, ...]] = [(SHUFFLE,), (PLAIN,), (), *RECIPES.values()]
    for order in (together, together[::-1]):
        found = predicted(kind, *(row(kind, said) for said in order))
        for answer, said in zip(found, order, strict=True):
            assert float((answer - expected(kind, said)).abs().max()) < CLOSE


def test_a_weight_for_each_frame() -> None:
    said = (("shuffle", Voice(0.7, mask=REGION, frames=FRAMES)), ("plain", Voice(1.0, frames=FRAMES[::-1])))
    assert float((predicted("clip", row("clip", said))[0] - expected("clip", said)).abs().max()) < CLOSE


def test_a_hint_for_each_frame_beside_one_for_all() -> None:
    """Two users' clips with one branch: one shows it a film, the other a picture."""
    branch = branches()["shuffle"][1]
    still, film = (
        Row(X["clip"], T, Ports(context=(Tokens(TEXT),), residuals=(Residual(branch, hint),)))
        for hint in (HINT, HINT[:, None].expand(-1, 4, -1, -1))
    )
    same = expected("clip", (("shuffle", Voice()),))
    assert all(float((a - same).abs().max()) < CLOSE for a in predicted("clip", still, film, still))


@pytest.mark.slow  # what the engine does with calls is above; the engine itself in test_engine_laws
def test_through_the_engine() -> None:
    base = networks()["picture"]
    modules = {name: stock for name, (stock, _) in branches().items()}

    def recipe(*conditions: ControlNet) -> Recipe:
        return Recipe(model="tiny", prompt="x", steps=2, scheduler="DDIM", conditions=conditions)

    shuffle = ControlNet(model="shuffle", image=mix.picture(1))
    plain = ControlNet(model="plain", image=mix.picture(2), weight=0.5)
    half = shuffle.model_copy(update={"mask": ControlNet(model="x", image=mix.picture(1), mask=mix.half()).mask})
    recipes = [
        recipe(shuffle),
        recipe(plain),
        recipe(plain, shuffle),
        recipe(shuffle, plain),
        recipe(half, plain),
        recipe(half),
    ]
    alone = [tiny.engine(base, modules).run(r).latents for r in recipes]
    together = [r.latents for r in tiny.engine(base, modules).run_all(*recipes)]
    assert max(float((a - b).abs().max()) for a, b in zip(alone, together, strict=True)) < CLOSE
    assert torch.equal(alone[2], alone[3]) and len({float(z.sum()) for z in alone}) == 5


@pytest.mark.parametrize("layers", [1, 2, (1, 2, 3), [2, 1, 1]])
@pytest.mark.parametrize("size", [(16, 16), (9, 14)])
def test_levels_are_those_of_the_network(layers: Any, size: tuple[int, int]) -> None:
    from diffusers import UNet2DConditionModel

    kinds = ("CrossAttnDownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D")
    net: Any = UNet2DConditionModel(
        block_out_channels=(8, 8, 16), layers_per_block=layers, norm_num_groups=4, down_block_types=kinds,
        up_block_types=tuple(k.replace("Down", "Up") for k in kinds[::-1]), cross_attention_dim=8, attention_head_dim=4,
    )  # fmt: skip
    sizes: list[tuple[int, ...]] = []

    class Looking(Stroll):
        def __call__(self, h: Tensor, before: Tensor) -> None:
            sizes.append(tuple(h.shape[-2:]))

    with torch.no_grad():
        walk(net, torch.randn(1, 4, *size), torch.tensor([1.0]), Plain(torch.randn(1, 5, 8), {}), Looking())
    spec = NetworkSpec.from_unet_config("x", net.config)
    halvings = [size, (-(-size[0] // 2), -(-size[1] // 2)), (-(-size[0] // 4), -(-size[1] // 4))]
    assert [halvings[level] for level in spec.levels] == sizes[: spec.sites]
    ups = sum(len(b.resnets) + len(b.upsamplers or ()) for b in net.up_blocks)
    assert spec.sites == len(sizes) - ups


def test_levels_of_the_public_families() -> None:
    common = {"cross_attention_dim": 768, "layers_per_block": 2}
    sd1 = NetworkSpec.from_unet_config("sd1", {"block_out_channels": (320, 640, 1280, 1280), **common})
    sdxl = NetworkSpec.from_unet_config("sdxl", {"block_out_channels": (320, 640, 1280), **common})
    assert sd1.levels == (0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 3) and sd1.sites == 13
    assert sdxl.levels == (0, 0, 0, 1, 1, 1, 2, 2, 2, 2) and sdxl.sites == 10
