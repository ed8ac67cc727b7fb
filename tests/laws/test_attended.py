"""GLIGEN's boxes and LLLite's hints are conditions like all others: weights, regions, windows, neighbours, clips."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from gligens import adapter
from parity.cases import mask, photo
from some import some
from torch import Tensor
from weights.test_lllite import term, written

import tiny
from infuse.batch import Row, collate
from infuse.conditions import AnyCondition, Box, ControlNet, Gligen, IPAdapter
from infuse.engine.engine import Engine
from infuse.network.gligen import Gligen as Network
from infuse.network.ldm_names import transformer_blocks
from infuse.ports import Ports, Residual, Tokens, Vector
from infuse.recipe import Recipe
from infuse.weights.layouts.lllite import load_lllite

ASKED: dict[str, Any] = {"prompt": "a red cube", "width": 32, "height": 32, "steps": 3, "seed": 3, "scheduler": "DDIM"}
LEFT = mask(0, 0, 16, 32)


def lllite(folder: Path, family: str, seed: int = 0) -> Any:
    """A LLLite for every self-attention of a tiny base, and for the queries of its cross-attentions."""
    made = tiny.video() if family == "video" else tiny.base(family)
    spec = made.base.spec
    blocks = {at.path: (name, at) for name, at in transformer_blocks(spec).items() if name != at.path}
    terms = {
        f"{name}.{p}".replace(".", "_"): term(at.width, min(at.level + 1, 3), seed=seed)
        for name, at in blocks.values()
        for p in ("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn2.to_q")
    }
    return load_lllite(written(folder, terms), made.base.network.unet)


@cache
def modules(family: str) -> dict[str, Any]:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        out = {f"edges{i}": lllite(Path(folder), family, i) for i in range(2)}
    if family == "sd1":
        out["boxes"] = adapter("text")
    if family == "video":
        out["boxes"] = grounded({at.path: (at.width, 4) for at in transformer_blocks(tiny.video().base.spec).values()})
    return out | ({} if family == "video" else {"look": tiny.adapter(family, "plain", 17)})


def grounded(layers: dict[str, tuple[int, int]]) -> Network:
    """A GLIGEN with wide open gates."""
    torch.manual_seed(70)
    net: Any = tiny.randomized(Network("text", 32, 32, layers), 71)
    for name, gate in net.named_parameters():
        if "alpha_" in name:
            gate.fill_(1.5)
    return net


@cache
def engine(family: str = "sd1", dtype: torch.dtype = torch.float32) -> Engine:
    made = tiny.video(dtype=dtype) if family == "video" else tiny.base(family, dtype=dtype)
    return tiny.engine(made, modules(family))


def boxes(**fields: Any) -> Gligen:
    said = (Box(box=(0.1, 0.2, 0.5, 0.9), phrase="a green ball"), Box(box=(0.5, 0, 1, 0.5), phrase="a cup"))
    return Gligen(**{"model": "boxes", "boxes": said, "end": 1.0, **fields})


def hint(i: int = 0, **fields: Any) -> ControlNet:
    return ControlNet(**{"model": f"edges{i}", "image": photo(10 + i), **fields})


def latents(
    *conditions: AnyCondition, family: str = "sd1", dtype: torch.dtype = torch.float32, **fields: Any
) -> Tensor:
    return engine(family, dtype).run(Recipe(model="tiny", conditions=conditions, **{**ASKED, **fields})).latents


KINDS = [(boxes, "sd1"), (hint, "sd1"), (hint, "sdxl")]


@pytest.mark.slow
@pytest.mark.parametrize(("make", "family"), some(KINDS, quick=[(boxes, "sd1")]))
def test_weight_0_is_not_there_and_every_weight_is_another_picture(make: Any, family: str) -> None:
    plain = latents(family=family)
    assert torch.equal(latents(make(weight=0), family=family), plain)
    loud, half = latents(make(), family=family), latents(make(weight=0.5), family=family)
    assert all((a - b).abs().max() > 1e-2 for a, b in ((loud, plain), (half, plain), (loud, half)))


@pytest.mark.slow
@pytest.mark.parametrize(("make", "family"), KINDS)
def test_a_region_of_everything_is_none(make: Any, family: str) -> None:
    white = mask(0, 0, 32, 32)
    torch.testing.assert_close(
        latents(make(mask=white), family=family), latents(make(), family=family), atol=1e-4, rtol=1e-4
    )
    left = latents(make(mask=LEFT), family=family)
    assert (left - latents(make(), family=family)).abs().max() > 1e-3 < (left - latents(family=family)).abs().max()


@pytest.mark.slow
@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_the_order_changes_nothing(family: str) -> None:
    """Several LLLites read the same features, and so do several GLIGENs: their sum is what is heard."""
    said = [hint(0), hint(1, weight=0.7), hint(0, image=photo(12), mask=LEFT)]
    said += [boxes(), boxes(boxes=(Box(box=(0, 0, 1, 1), phrase="snow"),), weight=0.5)] if family == "sd1" else []
    said.append(IPAdapter(model="look", image=(photo(20),), weight=0.6))
    a, b = (latents(*c, family=family, dtype=torch.float64) for c in (said, said[::-1]))
    assert (a - b).abs().max() < 1e-8 * a.abs().max()


@pytest.mark.slow
@pytest.mark.parametrize("how_many", some([2, 5], quick=[2]))
def test_alone_equals_together(how_many: int) -> None:
    each = [(boxes(),), (hint(),), (boxes(weight=0.4), hint(1, mask=LEFT)), (), (boxes(end=0.4), hint(0, start=0.5))]
    recipes = [Recipe(model="tiny", conditions=c, **{**ASKED, "seed": i}) for i, c in enumerate(each[:how_many])]
    one = engine(dtype=torch.float64)
    alone = [one.run(r).latents for r in recipes]
    together = [t.result().latents for t in [one.submit(r) for r in recipes]]
    for a, b in zip(alone, together, strict=True):
        assert (a - b).abs().max() < 1e-10 * a.abs().max()


@pytest.mark.slow
def test_windows_are_heard_in_their_steps() -> None:
    never = engine().check(Recipe(model="tiny", conditions=(boxes(end=0.3),), **ASKED))
    assert any("will not be heard" in w for w in never.warnings)  # a third of 3 steps is more than 0.3
    early, late = latents(hint(end=0.4)), latents(hint(start=0.6))
    assert (early - late).abs().max() > 1e-3


@pytest.mark.slow
def test_both_sides_hear_a_hint_and_the_silent_side_empty_boxes() -> None:
    """Guidance at which the prompt's side and the other one are told apart: a LLLite's sum is on both."""
    both, one = latents(hint(), guidance=3.0), latents(hint(applies_to="prompt"), guidance=3.0)
    assert (both - one).abs().max() > 1e-3
    both, one = latents(boxes(), guidance=3.0), latents(boxes(applies_to="prompt"), guidance=3.0)
    assert (both - one).abs().max() > 1e-3  # null tokens are heard, too: they are not absence


@pytest.mark.slow
@pytest.mark.parametrize("make", [boxes, hint])
def test_clips_hear_them_frame_by_frame(make: Any) -> None:
    plain, loud = (latents(*c, family="video", frames=4) for c in ((), (make(),)))
    assert loud.shape == plain.shape and (loud - plain).abs().max() > 1e-3


@pytest.mark.slow
def test_a_film_is_a_hint_for_every_frame(tmp_path: Path) -> None:
    from infuse import Film

    same, other = ([photo(i).image for i in frames] for frames in ((10, 10, 10, 10), (10, 10, 11, 12)))
    still = latents(hint(), family="video", frames=4)
    a, b = (latents(ControlNet(model="edges0", film=Film.of(f)), family="video", frames=4) for f in (same, other))
    torch.testing.assert_close(a, still, atol=1e-4, rtol=1e-4)
    assert (b - still).abs().max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("family", some(["sd1", "sdxl"], quick=["sd1"]))
def test_a_stock_network_whose_projections_are_hooked_says_the_same(family: str, tmp_path: Path) -> None:
    """As the trainer does it: each projection is handed x + y. Several rows, one of which has no hint, and another half of one."""
    made = tiny.base(family)
    branch, stock, net = lllite(tmp_path, family), made.parts["unet"], made.base.network
    hints = torch.rand(3, 3, 32, 32) * 2 - 1
    loud = torch.tensor([1.0, 0.0, 0.5])[:, None, None]
    state, handles = branch.embedded(hints), []

    def hooked(path: str, name: str, module: torch.nn.Module) -> None:
        def before(_: Any, args: tuple[Tensor]) -> tuple[Tensor]:
            side = round(args[0].shape[1] ** 0.5)
            return (args[0] + loud * branch.projected(path, name, args[0], state, (side, side)),)

        handles.append(module.register_forward_pre_hook(before))

    for path, name in branch.places:
        hooked(path, name, stock.get_submodule(f"{path}.{name}"))
    g = torch.Generator().manual_seed(1)
    x, words = torch.randn(3, 4, 16, 16, generator=g), torch.randn(3, 77, net.spec.context_width, generator=g)
    vectors = {k: torch.randn(3, n, generator=g) for k, n in net.spec.embedding_slots.items()}
    theirs = stock(x, 500, words, added_cond_kwargs=vectors or None).sample
    for handle in handles:
        handle.remove()

    def ports(i: int) -> Ports:
        said = Ports(context=(Tokens(words[i]),), embedding=tuple(Vector(k, v[i]) for k, v in vectors.items()))
        return said + Ports(residuals=(Residual(branch, hints[i]),)).at(0.0, float(loud[i]))

    ours = net.predict(collate([Row(x[i], torch.tensor(500), ports(i)) for i in range(3)], net.spec))
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    assert (stock(x, 500, words, added_cond_kwargs=vectors or None).sample - theirs).abs().max() > 1e-2
