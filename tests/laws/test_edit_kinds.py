"""Files of every kind of LoRA, as they are written, through the engine: merged is unmerged, and a row among others is a row alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import kinds
import lora_files
import lora_kinds
import loras
import pytest
import torch
from some import in_turn, some

import mix
import tiny
from infuse import Lora, Recipe, Regions, Text, WeightsError

SIDE = 16
QUICK = ("DoRA", "norm")


@cache
def base(double: bool) -> tiny.Tiny:
    return tiny.base("sd1", dtype=torch.float64 if double else torch.float32)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    folder = tmp_path_factory.mktemp("kinds")
    parts = {p: base(False).parts[p] for p in ("unet", "text_encoder")}
    return {
        kind: str(lora_files.save(folder / f"{i}.safetensors", lora_kinds.written(kind, parts, i)))
        for i, kind in enumerate(lora_kinds.KINDS)
    }


@pytest.fixture(scope="module")
def engines() -> Mapping[bool, Any]:
    return {double: tiny.engine(base(double)) for double in (False, True)}


def recipe(*conditions: Any, **fields: Any) -> Recipe:
    said = {"prompt": "a red cube", "width": SIDE, "height": SIDE, "steps": 3, "guidance": 3.0}
    return Recipe(conditions=conditions, **{**said, **fields})


def off(a: torch.Tensor, b: torch.Tensor) -> float:
    assert a.isfinite().all() and b.isfinite().all()
    return float((a - b).abs().max() / b.abs().max())


@pytest.mark.slow
@pytest.mark.parametrize("kind", some(lora_kinds.KINDS, quick=QUICK))
def test_merged_is_unmerged_in_float32(kind: str, files: Mapping[str, str], engines: Mapping[bool, Any]) -> None:
    e, said = engines[False], {"model": files[kind], "weight": 0.7}
    apart = e.run(recipe(Lora(**said))).latents
    found = off(e.run(recipe(Lora(**said, merge=True))).latents, apart)
    print(f"{found:.1e}")
    assert found < 1e-5
    assert off(e.run(recipe()).latents, apart) > 1e-3, "it changes nothing"


@pytest.mark.slow
def test_several_merged_are_several_unmerged(files: Mapping[str, str], engines: Mapping[bool, Any]) -> None:
    said = [{"model": files[k], "weight": w} for k, w in (("DoRA", 0.6), ("OFT", -0.3), ("norm", 1.0), ("diff", 0.4))]
    blocks = [{"blocks": [0.1 * i for i in range(26)]}, {}, {"blocks": [1 - 0.05 * i for i in range(26)]}, {}]
    both = [
        recipe(*(Lora(**s, **b, merge=merge) for s, b in zip(said, blocks, strict=True))) for merge in (False, True)
    ]
    apart, merged = (engines[False].run(r).latents for r in both)
    assert off(merged, apart) < 1e-5


@pytest.mark.slow
def test_some_merged_and_some_not(files: Mapping[str, str], engines: Mapping[bool, Any]) -> None:
    """Those that read the base's weight are made of its own, whoever was written into it."""
    kinds = (
        ("OFT", 0.6),
        ("DoRA", -0.3),
        ("norm", 0.7),
        ("IA3", 0.8),
        ("diff", 0.4),
        ("LoRA", 0.5),
        ("LoHa", -0.6),
        ("BOFT", 0.3),
    )
    said = [{"model": files[k], "weight": w} for k, w in kinds]
    both = [recipe(*(Lora(**s, merge=merge and i % 2 == 0) for i, s in enumerate(said))) for merge in (False, True)]
    apart, mixed = (engines[False].run(r).latents for r in both)
    assert off(mixed, apart) < 1e-5


BESIDE = [k for k in kinds.world("sd1").kinds if k != "lora"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", some(BESIDE, quick=["reference"]))
def test_merged_is_unmerged_beside_every_kind(kind: str) -> None:
    """Whoever copies, shares or reads the base's layers beside it hears it in either way."""
    there = kinds.world("sd1")
    e, other = there.engine(), there.kinds[kind]()
    both = [
        e.run(recipe(there.kinds["lora"](merge=merge), other, steps=2, scheduler="DDIM")).latents
        for merge in (False, True)
    ]
    assert off(both[1], both[0]) < 1e-9
    assert off(e.run(recipe(other, steps=2, scheduler="DDIM")).latents, both[0]) > 1e-3


@pytest.mark.parametrize(("what", "bad"), in_turn(["factor", "alpha"], [float("nan"), float("inf")]))
def test_numbers_that_are_none_are_a_letter(what: str, bad: float, tmp_path: Path, engines: Mapping[bool, Any]) -> None:
    state = lora_kinds.written("LoRA", {"unet": base(False).parts["unet"]})
    key = next(k for k in state if k.endswith("lora_up.weight" if what == "factor" else ".alpha"))
    state[key] = torch.full_like(state[key], bad)
    path = lora_files.save(tmp_path / "bad.safetensors", state)
    for merge in (False, True):
        with pytest.raises(WeightsError, match=key.split(".")[0]) as found:
            engines[False].run(recipe(Lora(model=str(path), merge=merge)))
        assert "Download it again" in found.value.message


def test_a_word_of_numbers_that_are_none_is_a_letter(tmp_path: Path, engines: Mapping[bool, Any]) -> None:
    path = lora_files.save(tmp_path / "gold.safetensors", {"<gold>": torch.full((2, 32), float("nan"))})
    with pytest.raises(WeightsError, match="no numbers"):
        engines[False].run(recipe(prompt="gold", embeddings=[str(path)]))


VOICES: tuple[Mapping[str, Any], ...] = ({}, {"start": 0.5}, {"weight": {0: 0.2, 1: 1.0}}, {"mask": mix.half(SIDE)}, {"end": 0.6, "weight": -0.4}, {"blocks": [0.08 * i for i in range(26)]})  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("turn", some(range(len(VOICES)), quick=[3]))
def test_eight_kinds_share_a_call(turn: int, files: Mapping[str, str], engines: Mapping[bool, Any]) -> None:
    """Each with a voice of its own; the eight are others in each turn."""
    names = [list(lora_kinds.KINDS)[(i + 2 * turn) % len(lora_kinds.KINDS)] for i in range(8)]
    asked = [
        recipe(Lora(**{"model": files[kind], "weight": 0.8, **VOICES[(i + turn) % len(VOICES)]}), seed=i)
        for i, kind in enumerate(names)
    ]
    e = engines[True]
    alone = [e.run(r).latents for r in asked]
    before = e.store.base("tiny").network.calls
    together = [r.latents for r in e.run_all(*asked)]
    assert e.store.base("tiny").network.calls - before == 3
    for kind, one, mine in zip(names, together, alone, strict=True):
        assert off(one, mine) < 1e-10, kind


@pytest.mark.slow
@pytest.mark.parametrize("kind", some(lora_kinds.KINDS, quick=["BOFT"]))
def test_a_region_of_everything_is_none(kind: str, files: Mapping[str, str], engines: Mapping[bool, Any]) -> None:
    """Apart from what is heard of it on no place: the time embedding, which hears as much as the region covers."""
    everywhere = torch.full((SIDE, SIDE), 255, dtype=torch.uint8).numpy()
    whole = engines[True].run(recipe(Lora(model=files[kind]))).latents
    assert off(engines[True].run(recipe(Lora(model=files[kind], mask=everywhere))).latents, whole) < 1e-9


@pytest.mark.parametrize("apart", some(["blocks", "mask"], quick=["mask"]))
def test_who_is_heard_at_a_layer_may_change_from_call_to_call(apart: str) -> None:
    """The same networks for the same rows, with other blocks or regions: what was kept of the last call is not theirs."""
    own = base(True).base
    e = tiny.engine(base(True), {"a": loras.lora(own, 1, texts=False), "b": loras.lora(own, 2, texts=False)})
    said: list[dict[str, Any]] = [{"blocks": [1.0] * 13 + [0.0] * 13}, {"blocks": [0.0] * 13 + [1.0] * 13}]
    if apart == "mask":
        said = [{"mask": mix.half(SIDE)}, {}]
    both = [
        [recipe(Lora(model=m, **s), seed=i) for i, (m, s) in enumerate((("a", one), ("a", two), ("b", {})))]
        for one, two in (said, said[::-1])
    ]
    together = [e.run_all(*asked) for asked in both]  # one after the other: runs alone have rows of their own
    for found, asked in zip(together, both, strict=True):
        for one, mine in zip(found, asked, strict=True):
            assert off(one.latents, e.run(mine).latents) < 1e-10


@pytest.mark.parametrize("merge", [False, True])
def test_the_text_encoders_may_hear_it_alone(merge: bool) -> None:
    """`<lora:name:0.7:0>`."""
    both = loras.lora(base(True).base, 6)
    there = loras.with_merged(base(True), [(both, 0.7)])
    there = replace(there, base=replace(there.base, network=base(True).base.network))
    e = tiny.engine(base(True), {"x": both})
    ours = e.run(recipe(Lora(model="x", weight=0, text_weight=0.7, merge=merge))).latents
    assert off(ours, tiny.engine(there).run(recipe()).latents) < 1e-10
    assert off(e.run(recipe()).latents, ours) > 1e-4
    assert torch.equal(e.run(recipe(prompt="<lora:x:0.7:0>a red cube")).latents, ours)


@pytest.mark.slow
def test_words_are_read_with_it_in_its_window_alone() -> None:
    """The prompt's, the negative prompt's, a Text condition's and a region's: against the base that has it in its weights, where its
    opposite is heard in the other half."""
    only = loras.lora(base(True).base, 5, only="layers.")
    others = (
        Text(prompt="wood"),
        Regions(regions=({"prompt": "a [cat:dog:0.5]", "box": "0:0:0.5:1"},)),
        Regions(way="latent", regions=({"prompt": "a cone", "mask": mix.half(SIDE)},)),
    )
    there = tiny.engine(loras.with_merged(base(True), [(only, 1.0)]), {"words": only})
    e, more = tiny.engine(base(True), {"words": only}), {"steps": 4, "negative_prompt": "dark", "scheduler": "DDIM"}
    late = e.run(recipe(Lora(model="words", start=0.5), *others, **more)).latents
    assert off(there.run(recipe(Lora(model="words", weight=-1, end=0.5), *others, **more)).latents, late) < 1e-9
    assert off(e.run(recipe(Lora(model="words"), *others, **more)).latents, late) > 1e-4
    assert off(e.run(recipe(*others, **more)).latents, late) > 1e-4


@pytest.mark.slow
def test_clips_hear_loras_of_pictures(files: Mapping[str, str]) -> None:
    """Two clips with different ones, and one without, in one call; each equals itself alone."""
    made = tiny.video(dtype=torch.float64)
    parts = {"unet": made.base.network.unet}
    folder = Path(next(iter(files.values()))).parent
    saved = [
        str(lora_files.save(folder / f"clip{i}.safetensors", lora_kinds.written(kind, parts, i)))
        for i, kind in enumerate(("LoRA", "DoRA"))
    ]
    e = tiny.engine(made)
    asked = [
        recipe(Lora(model=saved[0], weight=0.7), frames=4, seed=1, steps=2),
        recipe(Lora(model=saved[1], start=0.5, mask=mix.half(SIDE)), frames=4, seed=2, steps=2),
        recipe(frames=4, seed=3, steps=2),
    ]
    alone = [e.run(r).latents for r in asked]
    assert off(e.run(asked[0].model_copy(update={"conditions": ()})).latents, alone[0]) > 1e-3
    for one, mine in zip(e.run_all(*asked), alone, strict=True):
        assert off(one.latents, mine) < 1e-10
    merged = recipe(Lora(model=saved[0], weight=0.7, merge=True), frames=4, seed=1, steps=2)
    assert off(e.run(merged).latents, alone[0]) < 1e-9
