"""T2I-Adapters, style adapters and the fuser by themselves: layouts, sizes, and the same numbers as plain formulas."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import tiny
from infuse.encoders.clip_blocks import Block
from infuse.encoders.coadapter import Fuser
from infuse.encoders.t2i import T2IAdapter, features_of
from infuse.encoders.t2i_kinds import Anatomy, Fusing, anatomy, fits, fuser_of, made_for, named, places, soft, style_of
from infuse.encoders.t2i_style import StyleAdapter
from infuse.errors import RecipeError, WeightsError
from infuse.network.spec import NetworkSpec

SD15 = {
    "block_out_channels": (320, 640, 1280, 1280), "cross_attention_dim": 768, "layers_per_block": 2,
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",), "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
}  # fmt: skip
SDXL = {
    "block_out_channels": (320, 640, 1280), "cross_attention_dim": 2048, "layers_per_block": 2,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), "transformer_layers_per_block": (1, 2, 10),
}  # fmt: skip
FULL, XL = Anatomy(False, 192, (320, 640, 1280, 1280), 2), Anatomy(False, 768, (320, 640, 1280, 1280), 2)
LIGHT = Anatomy(True, 192, (320, 640, 1280, 1280), 4)


def spec(config: Mapping) -> NetworkSpec:
    return NetworkSpec.from_unet_config("x", config)


def random(numbers: Anatomy, seed: int = 0) -> T2IAdapter:
    torch.manual_seed(seed)
    return T2IAdapter(numbers).eval().requires_grad_(False)


def original(keys: Mapping[str, Tensor], layers: int, light: bool) -> dict[str, Tensor]:
    """The same tensors as TencentARC names them."""
    out = {}
    for key, tensor in keys.items():
        parts = key.removeprefix("adapter.").split(".")
        if parts[0] == "body" and light:
            parts = ["body" if p == "resnets" else p for p in parts]
        elif parts[0] == "body":
            level, inside = int(parts[1]), int(parts[3]) if parts[2] == "resnets" else 0
            rest = parts[4:] if parts[2] == "resnets" else ["down_opt" if p == "downsample" else p for p in parts[2:]]
            parts = ["body", str(level * layers + inside), *rest]
        out[".".join(parts)] = tensor
    return out


@pytest.mark.parametrize("wrap", ["", "adapter.", "module.", "_orig_mod.adapter."])
@pytest.mark.parametrize(
    "numbers",
    [
        Anatomy(False, 12, (8, 16, 16), 2),
        Anatomy(False, 4, (8, 16), 3, kernel=3),
        Anatomy(False, 12, (8, 16, 16, 16), 2, strided=frozenset({1, 2, 3})),
        Anatomy(True, 12, (8, 16, 16), 4),
    ],
)
def test_both_layouts_are_the_same_adapter(numbers: Anatomy, wrap: str) -> None:
    net = random(numbers)
    tensors = dict(net.state_dict())
    assert {k: tuple(t.shape) for k, t in tensors.items()} == numbers.shapes()
    hint, levels = torch.rand(numbers.inputs // 4, 16, 32), tuple(range(len(numbers.widths)))
    right = features_of(net, hint, levels, 2)
    foreign = {f"{wrap}{k}": t for k, t in original(tensors, numbers.layers, numbers.light).items()}
    for file in (tensors, foreign):
        read = T2IAdapter.load(file)
        assert read.anatomy == numbers
        for a, b in zip(features_of(read, hint, levels, 2), right, strict=True):
            assert torch.equal(a, b)


def test_where_features_enter() -> None:
    """SD: where a level ends. SDXL: after the first halving, at the ends of two levels, after the middle."""
    assert places(spec(SD15)) == ((320, 0), (640, 1), (1280, 2), (1280, 3))
    assert places(spec(SDXL)) == ((320, 1), (640, 1), (1280, 2), (1280, 2))
    assert fits(FULL, spec(SD15), "a") == (3, (0, 1, 2, 3)) == fits(LIGHT, spec(SD15), "a")
    assert fits(XL, spec(SDXL), "a") == (3, (1, 1, 2, 2))
    assert fits(Anatomy(False, 64, FULL.widths, 2), spec(SD15), "a")[0] == 1
    assert (
        made_for(spec(SD15)) == FULL
        and made_for(spec(SDXL)) == XL
        and made_for(spec(SD15), light=True, layers=4) == LIGHT
    )


@pytest.mark.parametrize(
    ("numbers", "config", "says"),
    [
        (FULL, SDXL, ("SD 1.x", "SDXL", "768")),
        (XL, SD15, ("SDXL", "SD 1.x", "192")),
        (Anatomy(False, 192, (320, 640, 640, 640), 2), SD15, ("320, 640, 640, 640",)),
        (Anatomy(False, 192, (320, 640, 1280), 2), SD15, ("320, 640, 1280",)),
        (Anatomy(False, 128, FULL.widths, 2), SD15, ("another shape", "128")),
    ],
)
def test_another_base_is_a_letter(numbers: Anatomy, config: Mapping, says: tuple[str, ...]) -> None:
    with pytest.raises(RecipeError) as letter:
        fits(numbers, spec(config), "pose")
    assert letter.value.field == "model" and all(word in str(letter.value) for word in ("'pose'", *says))


def test_half_of_an_adapter_is_a_letter() -> None:
    shapes = FULL.shapes()
    for broken in (
        {k: s for k, s in shapes.items() if "body.3" not in k or "block2" not in k},
        {k: s for k, s in shapes.items() if not k.endswith("body.1.in_conv.bias")},
        shapes | {"adapter.body.2.resnets.1.block1.weight": (1280, 640, 3, 3)},
        shapes | {"adapter.body.0.skep.weight": (320, 320, 1, 1)},
        {"unet.conv_out.weight": (4, 320, 3, 3)},
        {},
    ):
        with pytest.raises(WeightsError) as letter:
            anatomy(broken, "pose")
        assert letter.value.field == "model" and "'pose'" in str(letter.value)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (40, 24), (56, 120), (104, 72)])
@pytest.mark.parametrize("levels", [(0, 1, 2, 3), (1, 1, 2, 2)])
def test_features_have_the_sizes_of_the_encoder_whatever_the_canvas(
    levels: tuple[int, ...], height: int, width: int
) -> None:
    """The UNet's strided convolutions round up; so must means of 2 x 2, and a canvas of 8 x 8 folded by 16."""
    numbers = Anatomy(False, 3 * (8 << levels[0]) ** 2, (4, 8, 8, 8), 1)
    for net in (random(numbers), random(Anatomy(False, numbers.inputs, (4, 8, 8, 8), 1, strided=frozenset({1, 2, 3})))):
        net = net if levels[0] == 0 else random(numbers)
        found = features_of(net, torch.rand(3, height, width), levels, 8)
        for f, level in zip(found, levels, strict=True):
            assert f.shape[-2:] == (up(height // 8, level), up(width // 8, level))


def up(side: int, times: int) -> int:
    """What a stride of 2 with a rim of 1 leaves of a side."""
    for _ in range(times):
        side = (side + 1) // 2
    return side


def test_a_film_is_its_frames() -> None:
    net = random(Anatomy(False, 12, (8, 16), 2))
    film = torch.rand(3, 5, 16, 16)
    found = features_of(net, film, (0, 1), 2)
    for i in range(5):
        for f, one in zip(found, features_of(net, film[:, i], (0, 1), 2), strict=True):
            torch.testing.assert_close(f[:, i], one)


def test_soft_factors() -> None:
    assert soft(4) == (0.25, 0.62, 0.825, 1.0) and soft(3) == (0.25, 0.62, 0.825) and soft(5)[-2:] == (1.0, 1.0)


def test_names_of_neither_layout_stay() -> None:
    assert named(["conv_out.weight", "global_step"]) == {
        "conv_out.weight": "conv_out.weight",
        "global_step": "global_step",
    }


# ── style ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_style_adapter_from_its_file() -> None:
    torch.manual_seed(1)
    net = StyleAdapter(16, 24, 8, 3).eval().requires_grad_(False)
    for p in (net.style_embedding, net.proj):
        p.data = torch.randn(p.shape)
    read = StyleAdapter.load({f"adapter.{k}": t for k, t in net.state_dict().items()})
    states = torch.randn(2, 17, 16)
    assert torch.equal(read(states), net(states)) and net(states).shape == (2, 8, 24)
    assert style_of({k: tuple(t.shape) for k, t in net.state_dict().items()}, "a") == (8, 16, 24)
    with pytest.raises(WeightsError, match="no style adapter"):
        style_of({"proj": (16, 24)}, "a")


# ── fuser ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def fuser(seed: int = 2, trained: bool = True) -> Fuser:
    torch.manual_seed(seed)
    net = Fuser(Fusing(16, 16, (8, 12), 3)).eval().requires_grad_(False)
    return tiny.randomized(net, seed) if trained else net  # type: ignore[return-value]


def block(b: Block, x: Tensor) -> Tensor:
    """The block by its formula, one head after another."""
    h = F.layer_norm(x, x.shape[-1:], b.ln_1.weight, b.ln_1.bias)
    q, k, v = F.linear(h, b.attn.in_proj_weight, b.attn.in_proj_bias).chunk(3, -1)
    n = x.shape[-1] // 8
    heads = [
        (q[:, s] @ k[:, s].T / n**0.5).softmax(-1) @ v[:, s] for s in (slice(i * n, (i + 1) * n) for i in range(8))
    ]
    x = x + F.linear(torch.cat(heads, -1), b.attn.out_proj.weight, b.attn.out_proj.bias)
    h = F.linear(F.layer_norm(x, x.shape[-1:], b.ln_2.weight, b.ln_2.bias), b.mlp.c_fc.weight, b.mlp.c_fc.bias)
    return x + F.linear(h * (1.702 * h).sigmoid(), b.mlp.c_proj.weight, b.mlp.c_proj.bias)


def test_the_fuser_by_its_formula() -> None:
    net = fuser()
    maps = [(torch.randn(8, 4, 6), torch.randn(12, 2, 3)) for _ in range(2)]
    style = torch.randn(8, 16)
    tasks = {0: maps[0], 5: style, 6: maps[1]}
    rows: list[Tensor] = []
    for task, said in tasks.items():
        if isinstance(said, Tensor):
            rows += [*(said + net.task_embedding[task])]
            continue
        for j, f in enumerate(said):
            linear = net.spatial_feat_mapping[j][1]
            v = F.linear(F.silu(f.mean((1, 2))), linear.weight, linear.bias)
            rows.append(v + net.task_embedding[task] + net.positional_embedding[j])
    x = F.layer_norm(torch.stack(rows), (16,), net.ln_pre.weight, net.ln_pre.bias)
    for b in net.transformer_layes:
        x = block(b, x)
    x = F.layer_norm(x, (16,), net.ln_post.weight, net.ln_post.bias)
    first, words, second = x[:2], x[2:10], x[10:]
    right = [
        sum(m[j] * (1 + F.linear(own[j], p.weight, p.bias))[:, None, None] for m, own in zip(maps, (first, second), strict=True))
        for j, p in enumerate(net.spatial_ch_projs)
    ]  # fmt: skip
    found, tokens = net(list(tasks.items()))
    for a, b in zip(found, right, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(tokens, style * (1 + words @ net.seq_proj), atol=1e-5, rtol=1e-5)


def test_an_untrained_fuser_only_adds() -> None:
    maps = [(torch.randn(8, 4, 6), torch.randn(12, 2, 3)) for _ in range(2)]
    found, tokens = fuser(trained=False)([(0, maps[0]), (4, maps[1])])
    assert tokens is None
    for j in range(2):
        torch.testing.assert_close(found[j], maps[0][j] + maps[1][j])


def test_the_order_of_members_changes_nothing() -> None:
    net = fuser()
    members = [(3, (torch.randn(8, 4, 6), torch.randn(12, 2, 3))), (4, (torch.randn(8, 4, 6), torch.randn(12, 2, 3)))]
    for a, b in zip(net(members)[0], net(members[::-1])[0], strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_a_fuser_from_its_file() -> None:
    net = fuser()
    shapes = {k: tuple(t.shape) for k, t in net.state_dict().items()}
    assert fuser_of(shapes, "f") == Fusing(16, 16, (8, 12), 3)
    said = [(4, (torch.randn(8, 4, 6), torch.randn(12, 2, 3)))]
    for a, b in zip(Fuser.load(net.state_dict())(said)[0], net(said)[0], strict=True):
        assert torch.equal(a, b)
    with pytest.raises(WeightsError, match="no fuser"):
        fuser_of({k: s for k, s in shapes.items() if k != "seq_proj"}, "f")


# ── training ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_every_weight_of_an_adapter_learns() -> None:
    """From the base's answer back to each tensor, through the features that are computed once."""
    from infuse.batch import Row, collate
    from infuse.ports import Features, Ports, Tokens

    base = tiny.base("sd1").base
    net = T2IAdapter(made_for(base.spec))
    ports = Ports(
        context=(Tokens(torch.randn(7, 32)),), residuals=(Features(features_of(net, torch.rand(3, 32, 32), (0, 1), 2)),)
    )
    x = torch.randn(4, 16, 16)
    base.network.predict(collate([Row(x, torch.tensor(500.0), ports)], base.spec)).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())
