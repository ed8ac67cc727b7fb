"""A LLLite's file: its terms find their projections by the names of original checkpoints, and say what the trainer's code says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from parity.cases import photo
from safetensors.torch import save_file
from torch import Tensor

import tiny
from infuse.conditions import ControlNet
from infuse.conditions.lllite import check
from infuse.errors import RecipeError, WeightsError
from infuse.network.ldm_names import projections, transformer_blocks
from infuse.network.spec import NetworkSpec
from infuse.recipe import Recipe
from infuse.weights.layouts.lllite import load_lllite

SDXL = {
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "layers_per_block": 2,
    "cross_attention_dim": 2048,
}
SD1 = {
    "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    "layers_per_block": 2,
    "cross_attention_dim": 768,
}


@dataclass
class View:
    size: tuple[int, int] = (64, 64)
    frames: int = 1


def term(width: int, depth: int, embedding: int = 8, inner: int = 4, seed: int = 0) -> dict[str, Tensor]:
    """A term's weights as the trainer saves them."""
    g, half = torch.Generator().manual_seed(seed), embedding // 2
    convolutions = {
        1: [(half, 3, 4), (embedding, half, 2)],
        2: [(half, 3, 4), (embedding, half, 4)],
        3: [(half, 3, 4), (half, half, 4), (embedding, half, 2)],
    }[depth]
    shapes = {f"conditioning1.{2 * i}": (a, b, k, k) for i, (a, b, k) in enumerate(convolutions)}
    shapes |= {"down.0": (inner, width), "mid.0": (inner, inner + embedding), "up.0": (width, inner)}
    made = {
        f"{k}.weight": torch.randn(s, generator=g) * (torch.tensor(s[1:]).prod() ** -0.5) for k, s in shapes.items()
    }
    return made | {f"{k}.bias": torch.randn(s[0], generator=g) * 0.1 for k, s in shapes.items()}


def written(folder: Path, terms: dict[str, dict[str, Tensor]]) -> Path:
    path = folder / "anything.safetensors"
    save_file({f"lllite_unet_{name}.{k}": t for name, own in terms.items() for k, t in own.items()}, path)
    return path


def original(x: Tensor, hint: Tensor, w: dict[str, Tensor], strides: Sequence[int]) -> Tensor:
    """y of one term, as kohya-ss/sd-scripts writes it down: E first, then what comes down, no activation after either end."""
    e = hint
    for i, stride in enumerate(strides):
        e = F.conv2d(
            e if i == 0 else e.relu(), w[f"conditioning1.{2 * i}.weight"], w[f"conditioning1.{2 * i}.bias"], stride
        )
    e = e.flatten(2).transpose(1, 2)
    down = F.linear(x, w["down.0.weight"], w["down.0.bias"]).relu()
    middle = F.linear(torch.cat([e, down], -1), w["mid.0.weight"], w["mid.0.bias"]).relu()
    return F.linear(middle, w["up.0.weight"], w["up.0.bias"])


def test_blocks_of_released_bases_by_their_original_names() -> None:
    xl = transformer_blocks(NetworkSpec.from_unet_config("xl", SDXL))
    assert xl["input_blocks.4.1.transformer_blocks.1"].path == "down_blocks.1.attentions.0.transformer_blocks.1"
    assert xl["input_blocks.8.1.transformer_blocks.9"].path == "down_blocks.2.attentions.1.transformer_blocks.9"
    assert xl["middle_block.1.transformer_blocks.9"].path == "mid_block.attentions.0.transformer_blocks.9"
    assert xl["output_blocks.2.1.transformer_blocks.0"].path == "up_blocks.0.attentions.2.transformer_blocks.0"
    assert xl["output_blocks.3.1.transformer_blocks.0"].path == "up_blocks.1.attentions.0.transformer_blocks.0"
    assert (xl["input_blocks.4.1.transformer_blocks.0"].width, xl["middle_block.1.transformer_blocks.0"].level) == (
        640,
        2,
    )
    one = transformer_blocks(NetworkSpec.from_unet_config("one", SD1))
    assert one["input_blocks.7.1.transformer_blocks.0"].path == "down_blocks.2.attentions.0.transformer_blocks.0"
    assert one["output_blocks.3.1.transformer_blocks.0"].path == "up_blocks.1.attentions.0.transformer_blocks.0"
    assert one["output_blocks.11.1.transformer_blocks.0"].path == "up_blocks.3.attentions.2.transformer_blocks.0"
    assert len({b.path for b in xl.values()}) == 70 and len({b.path for b in one.values()}) == 16


def test_blocks_agree_with_the_map_of_checkpoints() -> None:
    """Another table knows where LDM keys lie, if it is shown a whole UNet."""
    from infuse.weights.layouts import ldm_keys

    for config in (SDXL, SD1):
        blocks = transformer_blocks(NetworkSpec.from_unet_config("net", config))
        whole = [f"{b}.norm1.weight" for b in blocks if not b.startswith(("down", "mid_", "up"))]
        named = ldm_keys.trunk([*whole, "input_blocks.3.0.op.weight"])
        assert {
            k.removesuffix(".norm1.weight"): n.removesuffix(".norm1.weight") for k, n in named.items() if k in whole
        } == {b: at.path for b, at in blocks.items() if not b.startswith(("down", "mid_", "up"))}


def test_the_default_set_of_the_trainer_is_136_terms_of_sdxl() -> None:
    known = projections(NetworkSpec.from_unet_config("xl", SDXL))
    asked = [
        f"{block}_1_transformer_blocks_{d}_{p}"
        for block, n in (("input_blocks_4", 2), ("input_blocks_5", 2), ("input_blocks_7", 10), ("input_blocks_8", 10))
        for d in range(n)
        for p in ("attn1_to_q", "attn1_to_k", "attn1_to_v", "attn2_to_q")
    ] + [f"middle_block_1_transformer_blocks_{d}_{p}" for d in range(10) for p in ("attn1_to_q", "attn1_to_k", "attn1_to_v", "attn2_to_q")]  # fmt: skip
    assert len(asked) == 136 and all(name in known and not known[name].reads_text for name in asked)
    assert known["middle_block_1_transformer_blocks_9_attn2_to_k"].reads_text


TINY = {  # the tiny SD 1.x has one layer a level: input 1, 3, middle, output 0 and 1, 2 and 3
    "input_blocks_1_1_transformer_blocks_0_attn1_to_q": (32, 1),
    "input_blocks_3_1_transformer_blocks_0_attn2_to_q": (64, 2),
    "middle_block_1_transformer_blocks_0_attn1_to_v": (64, 3),
    "output_blocks_3_1_transformer_blocks_0_attn1_to_k": (32, 1),
}


def loaded(folder: Path) -> tuple[Any, dict[str, dict[str, Tensor]]]:
    weights = {name: term(width, depth, seed=i) for i, (name, (width, depth)) in enumerate(TINY.items())}
    return load_lllite(written(folder, weights), tiny.unet("sd1")), weights


@pytest.mark.parametrize(
    ("name", "path", "projection", "strides", "reduction"),
    [
        ("input_blocks_1_1_transformer_blocks_0_attn1_to_q", "down_blocks.0.attentions.0.transformer_blocks.0.attn1", "to_q", (4, 2), 8),
        ("input_blocks_3_1_transformer_blocks_0_attn2_to_q", "down_blocks.1.attentions.0.transformer_blocks.0.attn2", "to_q", (4, 4), 16),
        ("middle_block_1_transformer_blocks_0_attn1_to_v", "mid_block.attentions.0.transformer_blocks.0.attn1", "to_v", (4, 4, 2), 32),
        ("output_blocks_3_1_transformer_blocks_0_attn1_to_k", "up_blocks.1.attentions.1.transformer_blocks.0.attn1", "to_k", (4, 2), 8),
    ],
)  # fmt: skip
def test_a_term_says_what_the_trainers_code_says(
    name: str, path: str, projection: str, strides: tuple[int, ...], reduction: int, tmp_path: Path
) -> None:
    branch, weights = loaded(tmp_path)
    hint = torch.rand(2, 3, 64, 96) * 2 - 1
    grid = (64 // reduction, 96 // reduction)
    x = torch.randn(2, grid[0] * grid[1], TINY[name][0])
    found = branch.projected(path, projection, x, branch.embedded(hint), grid)
    torch.testing.assert_close(found, original(x, hint, weights[name], strides), atol=1e-5, rtol=1e-5)
    assert branch.projected(path, "to_q" if projection != "to_q" else "to_k", x, branch.embedded(hint), grid) is None


def test_what_is_rounded_down_is_laid_on_the_layers_grid(tmp_path: Path) -> None:
    """72 px are 9 places of the latent, 5 of its half; a stride of 16 makes 4 of them."""
    branch, weights = loaded(tmp_path)
    name, path = (
        "input_blocks_3_1_transformer_blocks_0_attn2_to_q",
        "down_blocks.1.attentions.0.transformer_blocks.0.attn2",
    )
    hint, x = torch.rand(1, 3, 72, 72) * 2 - 1, torch.randn(1, 25, 64)
    state = branch.embedded(hint)
    assert state[f"lllite_unet_{name}"].shape[-2:] == (4, 4)
    found = branch.projected(path, "to_q", x, state, (5, 5))
    nearest = [0, 1, 2, 2, 3]  # the middles of five places among four: 0.4, 1.2, 2, 2.8, 3.6
    e = state[f"lllite_unet_{name}"][:, :, nearest][:, :, :, nearest].flatten(2).transpose(1, 2)
    torch.testing.assert_close(found, branch.term(f"lllite_unet_{name}")(x, e))


def shapes(terms: dict[str, tuple[int, int]]) -> dict[str, tuple[int, ...]]:
    return {f"lllite_unet_{n}.{k}": tuple(t.shape) for n, (w, d) in terms.items() for k, t in term(w, d).items()}


def net(config: dict[str, Any] | None = None) -> NetworkSpec:
    return NetworkSpec.from_unet_config("tiny", config or dict(tiny.unet("sd1").config), vae_factor=2)


def test_its_route() -> None:
    route = check("edges", shapes(TINY), 123, net(), View())  # type: ignore[arg-type]
    assert (route.port, route.shape, route.memory) == ("residuals", "4 projections of attention", 123)
    assert [w for w in route.warnings if "middle_block" in w] and "1 of the 4 terms" in route.warnings[0]


@pytest.mark.parametrize(
    ("terms", "options", "field", "said"),
    [
        ({"input_blocks_7_1_transformer_blocks_9_attn1_to_q": (64, 3)}, {}, "model", "no such projection"),
        ({"input_blocks_3_1_transformer_blocks_1_attn1_to_q": (64, 2)}, {}, "model", "no such projection"),
        ({"input_blocks_1_1_transformer_blocks_0_attn1_to_q": (640, 1)}, {}, "model", "640 channels .* 32 there"),
        ({"input_blocks_1_1_transformer_blocks_0_attn2_to_k": (32, 1)}, {}, "model", "reads the text"),
        (TINY, {"sites": (1.0,) * 13}, "sites", "has no sites"),
        (TINY, {"mode": "prompt"}, "mode", "applies_to"),
    ],
)
def test_letters(terms: dict[str, tuple[int, int]], options: dict[str, Any], field: str, said: str) -> None:
    with pytest.raises((RecipeError, WeightsError), match=said) as letter:
        check("edges", shapes(terms), 0, net(), View(), **options)  # type: ignore[arg-type]
    assert letter.value.field == field


def test_a_picture_smaller_than_its_steps_is_a_letter() -> None:
    with pytest.raises(RecipeError, match="at least 32 px"):
        check("edges", shapes(TINY), 0, net(), View((24, 64)))  # type: ignore[arg-type]


def test_a_term_that_was_cut_short_is_a_letter() -> None:
    cut = {k: s for k, s in shapes(TINY).items() if not k.endswith("attn1_to_v.mid.0.bias")}
    with pytest.raises(WeightsError, match="has no mid.0.bias"):
        check("edges", cut, 0, net(), View())  # type: ignore[arg-type]


def test_a_file_of_sdxl_before_a_base_of_sd1_is_a_letter() -> None:
    xl = {"input_blocks_4_1_transformer_blocks_1_attn1_to_q": (640, 2)}
    with pytest.raises(WeightsError, match="belongs to another base"):
        check("edges", shapes(xl), 0, NetworkSpec.from_unet_config("sd15", SD1), View())  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_file_is_heard_from_a_recipe_as_the_module_is(tmp_path: Path) -> None:
    branch, weights = loaded(tmp_path)
    engine = tiny.engine(tiny.base("sd1"), {"edges": branch})
    plain = {"prompt": "a red cube", "width": 32, "height": 32, "steps": 2, "seed": 3, "scheduler": "DDIM"}

    def made(*models: str) -> Tensor:
        said = tuple(ControlNet(model=m, image=photo(10)) for m in models)
        return engine.run(Recipe(model="tiny", conditions=said, **plain)).latents

    file, module = made(str(written(tmp_path, weights))), made("edges")
    assert torch.equal(file, module) and (file - made()).abs().max() > 1e-3


@pytest.mark.slow
def test_a_sum_of_terms_is_what_several_hints_say(tmp_path: Path) -> None:
    """All read the features as they are: twice half of a hint is the hint."""
    engine = tiny.engine(tiny.base("sd1", dtype=torch.float64), {"edges": loaded(tmp_path)[0]})
    plain = {"prompt": "a red cube", "width": 32, "height": 32, "steps": 2, "seed": 3, "scheduler": "DDIM"}
    halves = (ControlNet(model="edges", image=photo(10), weight=0.5),) * 2
    a, b = (
        engine.run(Recipe(model="tiny", conditions=said, **plain)).latents
        for said in (halves, (ControlNet(model="edges", image=photo(10)),))
    )
    torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-9)
