"""PowerPaint's files before they are loaded: their sizes and names, what is shown of them, and the letters about bad ones."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import disk
import pytest
import strangers
import torch
from rich.console import Console
from safetensors.torch import load_file
from torch import Tensor

import tiny
from infuse import BrushNet, PowerPaint, Recipe, WeightsError
from infuse.cli import show
from infuse.engine.engine import Engine
from infuse.engine.model_store import ModelStore
from infuse.weights.identify import identify
from infuse.weights.library import Library

from . import full
from .powerpaint import (
    HOLE,
    LENT,
    PICTURE,
    TABLE,
    State,
    below,
    branched,
    on_disk,
    paint,
    painted,
    said,
    stored,
    v1,
    v2,
    wrapped,
    write,
)

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("roots")]


# ── at full size ────────────────────────────────────────────────────────────────────────────────────────────────────


def count(state: Mapping[str, Tensor]) -> tuple[int, int]:
    return len(state), sum(t.numel() for t in state.values())


def test_the_published_numbers() -> None:
    net = full.brushnet()
    assert count(net) == (738, 886_069_440) and len(full.brushnet(attention=False)) == 322
    assert net["conv_in_condition.weight"].shape == (320, 9, 3, 3)
    assert not any(k.startswith(("conv_in.", "conv_norm_out", "conv_out")) for k in net)
    for part, parameters in {
        "conv_in_condition.": 26_240, "time_embedding.": 2_050_560, "down_blocks.": 249_612_480, "mid_block.": 97_038_080,
        "up_blocks.": 510_795_840, "brushnet_down_blocks.": 9_840_000, "brushnet_mid_block.": 1_639_680, "brushnet_up_blocks.": 15_066_560,
    }.items():  # fmt: skip
        assert count({k: t for k, t in net.items() if k.startswith(part)})[1] == parameters, part
    assert count(full.unet("sd15-inpaint").state_dict()) == (686, 859_535_364)
    assert count(full.clip()) == (196, 123_060_480)
    assert count(full.wrapped_clip()) == (196 + 3, 123_060_480 + 23_040)


def test_the_width_of_every_site() -> None:
    net = full.brushnet()
    down = [net[f"brushnet_down_blocks.{n}.weight"].shape for n in range(12)]
    up = [net[f"brushnet_up_blocks.{n}.weight"].shape for n in range(15)]
    assert [s[0] for s in down] == [320] * 4 + [640] * 3 + [1280] * 5
    assert [s[0] for s in up] == [1280] * 8 + [640] * 4 + [320] * 3
    assert all(s == (s[0], s[0], 1, 1) for s in (*down, net["brushnet_mid_block.weight"].shape, *up))
    assert sum(k.startswith("brushnet_") for k in net) == 24 + 2 + 30


@pytest.mark.parametrize(("attention", "base", "described"), [
    (True, "sd15", "a BrushNet (powerpaint) for SD 1.x (context width 768)"),
    (False, "sd15", "a BrushNet (plain) for SD 1.x (context width 768)"),
    (False, "sdxl", "a BrushNet (plain) for SDXL (context width 2048)"),
])  # fmt: skip
def test_brushnets_are_told_apart(attention: bool, base: str, described: str) -> None:
    assert identify(full.header(full.brushnet(base, attention))).described == described
    moved = identify(full.header({f"module.{k}": t for k, t in full.brushnet(base, attention).items()}))
    assert (moved.described, moved.prefix) == (described, "module.")


def test_the_task_encoder_alone_is_named() -> None:
    assert identify(full.header(full.wrapped_clip())).described == "a text encoder (powerpaint)"
    assert identify(full.header(full.clip())).described == "a text encoder"


def test_full_releases_are_checked_by_their_headers(roots: Path) -> None:
    lent, unet = roots / LENT, full.unet("sd15-inpaint")
    vae = {
        k.removeprefix("first_stage_model."): t
        for k, t in full.checkpoint("sd15").items()
        if k.startswith("first_stage")
    }
    said(lent / "unet", **{k: v for k, v in unet.config.items() if not k.startswith("_")})
    said(lent / "vae", block_out_channels=[128, 256, 512, 512])
    said(lent / "text_encoder", **full.VIT_L)
    for path, state in {
        lent / "unet/diffusion_pytorch_model": unet.state_dict(), lent / "vae/diffusion_pytorch_model": vae,
        lent / "text_encoder/model": full.clip(), roots / "ppt-v1/unet/unet": unet.state_dict(),
        roots / "ppt-v1/text_encoder/text_encoder": full.wrapped_clip(),
        roots / "ppt-v2/PowerPaint_Brushnet/diffusion_pytorch_model": full.brushnet(),
        roots / "ppt-v2/PowerPaint_Brushnet/model": full.wrapped_clip(),
    }.items():  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
        strangers.sparse(path.with_suffix(".safetensors"), state)
    store = ModelStore(dtype=torch.float16, device="cpu")
    report = Engine(store=store).check(Recipe(model="ppt-v1", prompt="x", conditions=(paint(),)))
    assert report.spec.tasks == "v1" and report.spec.parameters == 859_535_364
    assert report.memory == 2 * (859_535_364 + 83_653_863 + 123_060_480 + 23_040)
    found = store.identity("ppt-v2", "model", "brushnet")
    assert (found.tasks, found.sites, found.context_width) == ("v2", 28, 768)
    assert found.memory == 2 * (886_069_440 + 123_060_480 + 23_040)


# ── what is shown, and what is written into pictures ────────────────────────────────────────────────────────────────


def test_the_list_of_models_names_them(roots: Path) -> None:
    below(roots / "inpainting")
    said(v1(roots / "ppt-v1"), infuse_base="inpainting")
    v2(roots / "ppt-v2", branched("v2"))
    write(roots / "brush.safetensors", stored(branched(None, attention=False)))
    write(roots / "words.bin", wrapped(tiny.task_texts("v2")))
    console = Console(width=300, record=True, file=io.StringIO())
    show.models(console, Library())
    shown = {line.split()[0]: line for line in console.export_text().splitlines() if line.strip()}
    for name, what in {
        "inpainting": "a base model (inpaint)", "ppt-v1": "a base model (powerpaint)", "brush": "a BrushNet (plain)",
        "words": "a text encoder (powerpaint)",
    }.items():  # fmt: skip
        assert what in shown[name]
    assert "a base model for" in shown["ppt-v2"] and "with a BrushNet beside it" in shown["ppt-v2"]


def digests(base: str, **fields: Any) -> Mapping[str, str]:
    return on_disk().store.digests(Recipe(model=base, prompt="x", conditions=(paint(**fields),)))


def test_pictures_name_the_content_of_both_encoders(roots: Path) -> None:
    below(roots / LENT)
    v1(roots / "ppt-v1")
    branch = branched("v2")
    v2(roots / "ppt-v2", branch)
    recipe = Recipe(model="ppt-v2/realistic", prompt="x", steps=1, conditions=(paint(model="ppt-v2"),))
    before = [digests("ppt-v1"), digests("ppt-v2/realistic", model="ppt-v2")]
    assert on_disk().run(recipe).record().weights == before[1]
    assert [len(d) for found in before for d in found.values()] == [64, 64, 64]
    branch.tasks.table[-1] += 1
    v1_words = roots / "ppt-v1" / "text_encoder" / "text_encoder.safetensors"
    write(v1_words, {k: t + 1 if k.endswith("P_obj") else t for k, t in load_file(v1_words).items()})
    write(roots / "ppt-v2" / "PowerPaint_Brushnet" / "pytorch_model.bin", wrapped(branch.tasks))
    after = [digests("ppt-v1"), digests("ppt-v2/realistic", model="ppt-v2")]
    assert after[0]["ppt-v1"] != before[0]["ppt-v1"]
    assert after[1]["ppt-v2"] != before[1]["ppt-v2"]
    assert after[1]["ppt-v2/realistic"] == before[1]["ppt-v2/realistic"]


# ── letters ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def without(end: str) -> Callable[[State], State]:
    return lambda state: {k: t for k, t in state.items() if not k.endswith(end)}


def shorter(state: State) -> State:
    return {k: t[:9].clone() if k.endswith("P_ctxt") else t for k, t in state.items()}


def stranger(state: State) -> State:
    return state | {"text_model.somebody.elses": torch.zeros(2)}


def narrow(state: State) -> State:
    return {k: t[:, :8].clone() if "trainable" in k else t for k, t in state.items()}


BENT: dict[str, tuple[str, Callable[[State], State], str]] = {
    "a UNet without one tensor": ("unet", without("mid_block.resnets.0.norm1.weight"), "the UNet .* incomplete: 1 of .*mid_block"),
    "a UNet with one too many": ("unet", stranger, r"the UNet .* 1 of .* have no place .*somebody\.elses"),
    "an encoder without a norm": ("text", without("final_layer_norm.weight"), "the text encoder .* incomplete: 1 of .*final_layer_norm"),
    "an encoder without its table": ("text", without("wrapped.weight"), "token table is missing"),
    "an encoder with one too many": ("text", stranger, r"1 of .* have no place .*somebody\.elses"),
    "without P_shape": ("text", without("P_shape"), "the ten vectors of P_shape are missing"),
    "without P_obj": ("text", without("P_obj"), "the ten vectors of P_obj are missing"),
    "nine vectors": ("text", shorter, "the ten vectors of P_ctxt .* not ten"),
    "narrow vectors": ("text", narrow, "of another width"),
}  # fmt: skip


@pytest.mark.parametrize("case", BENT)
def test_v1_is_loaded_whole_or_not_at_all(case: str, roots: Path) -> None:
    below(roots / LENT)
    v1(roots / "ppt-v1")
    part, bend, words = BENT[case]
    (path,) = (roots / "ppt-v1").glob(f"{part}*/*.safetensors")
    write(path, bend(load_file(path)))
    with pytest.raises(WeightsError, match=f"^model: .*{words}"):
        painted(on_disk(), "ppt-v1", paint())


BENT2: dict[str, tuple[str, Callable[[State], State], str]] = {
    "a BrushNet without one tensor": ("diff", without("brushnet_up_blocks.1.bias"), "the BrushNet .* incomplete: 1 of .*up_blocks.1.bias"),
    "a BrushNet with one too many": ("diff", stranger, "the BrushNet .* 1 of .* have no place .*somebody"),
    "without P_shape": ("py", without("P_shape"), "the task encoder .* the ten vectors of P_shape are missing"),
    "nine vectors": ("py", shorter, "the ten vectors of P_ctxt .* not ten"),
    "an encoder with one too many": ("py", stranger, "the task encoder .* 1 of .* have no place .*somebody"),
    "an encoder under other names": ("py", lambda s: {f"somewhere.{k}": t for k, t in s.items()}, "the task encoder .* token table is missing"),
}  # fmt: skip


@pytest.mark.parametrize("case", BENT2)
def test_v2_is_loaded_whole_or_not_at_all(case: str, roots: Path) -> None:
    branch = branched("v2")
    folder = v2(roots / "ppt-v2", branch) / "PowerPaint_Brushnet"
    part, bend, words = BENT2[case]
    (path,) = folder.glob(f"{part}*")
    write(path, bend(stored(branch) if part == "diff" else wrapped(branch.tasks)))
    with pytest.raises(WeightsError, match=f"^conditions.0.model: .*{words}"):
        painted(on_disk(), "ppt-v2", paint(model="ppt-v2"))


@pytest.mark.parametrize("name", ["diffusion_pytorch_model.safetensors", "pytorch_model.bin"])
def test_a_file_cut_short_is_refused_before_anything_is_loaded(name: str, roots: Path) -> None:
    path = v2(roots / "ppt-v2", branched("v2")) / "PowerPaint_Brushnet" / name
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(WeightsError, match=r"^conditions.0.model: .*cut short.*Download it again"):
        on_disk().check(Recipe(model="ppt-v2", prompt="x", conditions=(paint(model="ppt-v2"),)))


def test_a_pickle_with_code_is_not_opened(roots: Path) -> None:
    path = v2(roots / "ppt-v2", branched("v2")) / "PowerPaint_Brushnet" / "pytorch_model.bin"
    torch.save({f"{TABLE}trainable_embeddings.P_obj": strangers.Burglar()}, path)
    with pytest.raises(WeightsError, match=r"^conditions.0.model: .*would run code"):
        painted(on_disk(), "ppt-v2", paint(model="ppt-v2"))
    assert not Path("burgled").exists()


def test_each_in_its_place(roots: Path) -> None:
    below(roots / LENT)
    v1(roots / "ppt-v1")
    v2(roots / "ppt-v2", branched("v2"))
    disk.adapter(roots / "face.safetensors")
    cases: tuple[tuple[str, PowerPaint | BrushNet, str], ...] = (
        ("ppt-v2/PowerPaint_Brushnet", paint(), r"^model: .*a BrushNet \(powerpaint\).*condition of kind brushnet"),
        ("ppt-v2/realistic", paint(model="ppt-v1"), r"^conditions.0.model: .*a base model \(powerpaint\).*needs a BrushNet.*recipe's `model`"),
        ("ppt-v2", paint(model="ppt-v2/realistic"), r"^conditions.0.model: .*a base model.*needs a BrushNet"),
        ("ppt-v2", BrushNet(model="face", image=PICTURE, mask=HOLE), r"^conditions.0.model: .*an IP-Adapter.*kind ip_adapter"),
        ("ppt-v2", paint(), r"^conditions.0.model: .*no task tokens of PowerPaint 1"),
        ("ppt-v2", paint(model=str(roots / "ppt-v2/PowerPaint_Brushnet/pytorch_model.bin")), r"^conditions.0.model: .*a text encoder"),
    )  # fmt: skip
    for model, condition, words in cases:
        with pytest.raises(ValueError, match=words):
            on_disk().check(Recipe(model=model, prompt="x", conditions=(condition,)))
