"""PowerPaint as it lies on the disk, in every layout of its releases, paints what the same modules paint in memory."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import disk
import numpy as np
import pytest
import strangers
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file
from torch import Tensor

import tiny
from infuse import BrushNet, PowerPaint, Recipe, WeightsError, cli_show
from infuse.engine.engine import Engine
from infuse.engine.shelf import Shelf
from infuse.weights import hub
from infuse.weights.identify import identify
from infuse.weights.library import Library
from infuse.weights.outline import outline

from . import full

State = dict[str, Tensor]
TABLE = "text_model.embeddings.token_embedding."
HOLE: Any = np.zeros((32, 32), np.uint8)
HOLE[6:26, 8:25] = 255
PICTURE: Any = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
LENT = "runwayml/stable-diffusion-inpainting"


# ── writing ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def wrapped(texts: Any, **more: Tensor) -> State:
    """The task encoder as the releases hold it: transformers 4 names, learned vectors beside the table."""
    state = {f"text_model.{k.removeprefix('text_model.')}": t for k, t in texts.model.state_dict().items()}
    table = state.pop(f"{TABLE}weight")
    state |= {f"{TABLE}wrapped.weight": table[:-30], "text_model.embeddings.position_ids": torch.arange(77)[None]}
    for n, name in enumerate(("P_ctxt", "P_shape", "P_obj")):
        state[f"{TABLE}trainable_embeddings.{name}"] = table[len(table) - 30 + 10 * n :][:10]
    return {k: t.clone() for k, t in (state | more).items()}


def stored(branch: Any) -> State:
    """A BrushNet as the releases hold it."""
    names = {k: k.removeprefix("network.") for k in branch.state_dict()}
    names |= {f"network.conv_in.{end}": f"conv_in_condition.{end}" for end in ("weight", "bias")}
    return {names[k]: t.clone() for k, t in branch.state_dict().items()}


def write(path: Path, state: Mapping[str, Tensor]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        save_file(dict(state), path)
    else:
        torch.save(dict(state), path)
    return path


def said(folder: Path, **content: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ("model_index.json" if "infuse_base" in content else "config.json")).write_text(json.dumps(content))


def below(folder: Path, channels: int = 9) -> Path:
    """The pipeline that a release leaves VAE, tokenizer and configs to. Its UNet and text encoder are other ones."""
    disk.base(folder, in_channels=channels, image_encoder=False)
    for part in ("unet", "text_encoder"):
        (weights,) = (folder / part).glob("*.safetensors")
        write(weights, {k: t * 0.5 for k, t in load_file(weights).items()})
    return folder


def v1(folder: Path, unet: str = "unet.safetensors", texts: str = "text_encoder.safetensors") -> Path:
    parts = tiny.powerpaint1()
    write(folder / "unet" / unet, parts.parts["unet"].state_dict())
    write(folder / "text_encoder" / texts, wrapped(parts.base.tasks))
    return folder


def v2(folder: Path, branch: Any, **more: Tensor) -> Path:
    """A whole release of PowerPaint 2, its base inside."""
    inside = folder / "PowerPaint_Brushnet"
    write(inside / "diffusion_pytorch_model.safetensors", stored(branch))
    write(inside / "pytorch_model.bin", wrapped(branch.tasks, **more))
    disk.base(folder / "realistic", image_encoder=False)
    return folder


def dev2(folder: Path, branch: Any) -> Path:
    write(folder / "brushnet" / "diffusion_pytorch_model.safetensors", stored(branch))
    said(folder / "brushnet", _class_name="BrushNetModel", conditioning_channels=5, attention_head_dim=8)
    branch.tasks.model.save_pretrained(folder / "text_encoder")
    added(folder / "tokenizer")
    return folder


def added(folder: Path, several: bool = False) -> None:
    """The tokenizer as the dev trainer leaves it, with thirty words more: as transformers 5 saves it, or as 4 did."""
    from infuse.weights.tokenizer import clip_tokenizer, vocabulary

    words = [f"P_{x}{'' if n == 0 else f'_{n}'}" for x in ("obj", "ctxt", "shape") for n in range(10)]
    own = clip_tokenizer()
    own.add_tokens(words)
    own.save_pretrained(folder)
    if several:
        (folder / "tokenizer.json").unlink()
        vocab, merges = vocabulary()
        (folder / "vocab.json").write_text(json.dumps(vocab))
        (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
        (folder / "added_tokens.json").write_text(json.dumps({word: 49408 + n for n, word in enumerate(words)}))


def branched(generation: str | None, seed: int = 30, **more: Any) -> Any:
    """A BrushNet whose task encoder is not the base's."""
    net = tiny.brushnet(seed=seed, generation=generation, **more)
    for p in net.tasks.model.parameters() if net.tasks else ():
        p.data = p.data * 1.1 + 0.01
    return net


# ── painting ────────────────────────────────────────────────────────────────────────────────────────────────────────


def paint(**fields: Any) -> PowerPaint:
    return PowerPaint(**{"image": PICTURE, "mask": HOLE, "task": "shape", "fit": 0.6, "paste": False, **fields})


def painted(engine: Engine, model: str | Path, condition: PowerPaint | BrushNet) -> Tensor:
    recipe = Recipe(
        model=str(model), prompt="a red cube", negative_prompt="dull", steps=2, guidance=4.0, seed=5, scheduler="DDIM",
        conditions=(condition,),
    )  # fmt: skip
    return engine.run(recipe).latents


def on_disk() -> Engine:
    return Engine(shelf=Shelf(dtype=torch.float32, device="cpu"))


def same(got: Tensor, want: Tensor) -> None:
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


def memory1(generation: str = "v1") -> Tensor:
    return painted(tiny.engine(tiny.powerpaint1(generation)), "tiny", paint())


def memory2(branch: Any, condition: PowerPaint | BrushNet | None = None) -> Tensor:
    return painted(tiny.engine(tiny.base("sd1"), {"b": branch}), "tiny", condition or paint(model="b"))


@pytest.fixture(autouse=True)
def roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place where models are looked for."""
    (tmp_path / "root").mkdir()
    monkeypatch.setenv("INFUSE_MODELS", str(tmp_path / "root"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "root"


# ── PowerPaint 1 ────────────────────────────────────────────────────────────────────────────────────────────────────

FORMS = {
    "released": ("unet.safetensors", "text_encoder.safetensors"),
    "pickles": ("unet.bin", "text_encoder.bin"),
    "named as elsewhere": ("diffusion_pytorch_model.bin", "pytorch_model.bin"),
}


@pytest.mark.parametrize("form", FORMS)
def test_v1_over_the_pipeline_that_it_was_released_over(form: str, roots: Path) -> None:
    below(roots / LENT)
    v1(roots / "ppt-v1", *FORMS[form])
    same(painted(on_disk(), "ppt-v1", paint()), memory1())


@pytest.mark.parametrize(("channels", "name"), [(9, "{}"), (4, "{}"), (9, "../lent")])
def test_v1_over_a_folder_that_it_names(channels: int, name: str, tmp_path: Path) -> None:
    """By its path, or by its way from there; another SD 1.x lends as well."""
    lent = below(tmp_path / "lent", channels)
    folder = v1(tmp_path / "ppt-v1")
    said(folder, infuse_base=name.format(lent))
    same(painted(on_disk(), folder, paint()), memory1())


def test_v1_is_known_by_its_headers(roots: Path) -> None:
    below(roots / LENT)
    v1(roots / "ppt-v1")
    library = Library()
    told = outline(library.find("ppt-v1"))
    assert (told.spec.tasks, told.spec.in_channels, told.identity.variant) == ("v1", 9, "powerpaint")
    assert told.identity.described.startswith("a base model (powerpaint)")
    assert "ppt-v1" in library.names()
    base = tiny.powerpaint1().base
    engine = on_disk()
    report = engine.check(Recipe(model="ppt-v1", prompt="x", conditions=(paint(),)))
    parts = (base.network.unet, base.vae, base.texts.models[0])
    assert report.memory == 4 * sum(p.numel() for m in parts for p in m.parameters())  # type: ignore[union-attr]
    assert not engine.shelf._bases, "a check loads nothing"
    assert report.spec.parameters == sum(p.numel() for p in base.network.unet.parameters())


def test_v1_without_the_pipeline_says_what_to_download(roots: Path) -> None:
    v1(roots / "ppt-v1")
    with pytest.raises(WeightsError, match=f"model: .*PowerPaint 1.*{LENT}.*not found.*infuse_base"):
        on_disk().check(Recipe(model="ppt-v1", prompt="x", conditions=(paint(),)))


@pytest.mark.parametrize(
    ("named", "tokenizer"), [(True, ""), (True, "in one file"), (False, "in several"), (False, "")]
)
def test_dev1_has_a_longer_table_in_another_order(named: bool, tokenizer: str, roots: Path) -> None:
    below(roots / LENT)
    parts = tiny.powerpaint1("dev1")
    parts.parts["unet"].save_pretrained(roots / "dev" / "unet")
    parts.base.tasks.model.save_pretrained(roots / "dev" / "text_encoder")  # type: ignore[union-attr]
    if named:
        said(roots / "dev", infuse_base=LENT)
    if tokenizer:
        added(roots / "dev" / "tokenizer", several=tokenizer == "in several")
    assert outline(Library().find("dev")).spec.tasks == "dev1"
    got = painted(on_disk(), "dev", paint())
    same(got, memory1("dev1"))
    assert not torch.allclose(got, memory1(), atol=1e-3)


# ── PowerPaint 2 ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("named", ["ppt-v2", "ppt-v2/PowerPaint_Brushnet"])
def test_v2_and_its_base_are_found_in_one_folder(named: str, roots: Path) -> None:
    branch = branched("v2")
    extra = {f"{TABLE}trainable_embeddings.P_abc": torch.randn(10, 32)}  # the trainer's fourth word, which says nothing
    v2(roots / "ppt-v2", branch, **extra)
    engine = on_disk()
    same(painted(engine, "ppt-v2", paint(model=named)), memory2(branch))
    found = engine.shelf.identity(named, "model", "brushnet")
    assert (found.tasks, found.sites, found.context_width) == ("v2", branch.sites, 32)
    counted = (*branch.parameters(), *branch.tasks.model.parameters())
    assert found.memory == 4 * (sum(p.numel() for p in counted) + extra[next(iter(extra))].numel())
    assert Library().names()["ppt-v2"].endswith("with a BrushNet beside it")


def test_v2_by_its_file_and_as_pickles(roots: Path) -> None:
    branch = branched("v2")
    folder = v2(roots / "ppt-v2", branch) / "PowerPaint_Brushnet"
    want = memory2(branch)
    same(painted(on_disk(), "ppt-v2", paint(model=str(folder / "diffusion_pytorch_model.safetensors"))), want)
    (folder / "diffusion_pytorch_model.safetensors").unlink()
    write(folder / "diffusion_pytorch_model.bin", stored(branch))
    same(painted(on_disk(), "ppt-v2", paint(model="ppt-v2")), want)


def test_what_v2s_encoder_leaves_out_is_the_bases_own(roots: Path) -> None:
    branch = tiny.brushnet(generation="v2")  # its encoder is the base's, with task tokens
    folder = v2(roots / "ppt-v2", branch) / "PowerPaint_Brushnet"
    learned = {k: t for k, t in wrapped(branch.tasks).items() if "trainable" in k or "layers.1." in k}
    write(folder / "pytorch_model.bin", learned)
    same(painted(on_disk(), "ppt-v2", paint(model="ppt-v2")), memory2(branch))


def test_dev2(roots: Path) -> None:
    branch = branched("dev2")
    dev2(roots / "dev", branch)
    disk.base(roots / "sd", image_encoder=False)
    want = memory2(branch)
    for name in ("dev", "dev/brushnet"):
        same(painted(on_disk(), "sd", paint(model=name)), want)
    assert on_disk().shelf.identity("dev", "model", "brushnet").tasks == "dev2"


def test_what_infuse_trains_is_written_as_released(roots: Path) -> None:
    from infuse.training.saving import save_branch

    branch = branched("v2")
    torch.nn.Module.half(branch).float()
    branch.tasks.model.half().float()
    save_branch(branch, branch.tasks, roots / "ours")
    disk.base(roots / "sd", image_encoder=False)
    same(painted(on_disk(), "sd", paint(model="ours")), memory2(branch))


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Makes the snapshot folder of a repository in the local Hub cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(
        "huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(tmp_path / "hub"), raising=False
    )

    def snapshot(repo: str) -> Path:
        root = tmp_path / "hub" / f"models--{repo.replace('/', '--')}"
        (root / "refs").mkdir(parents=True)
        (root / "refs" / "main").write_text("0" * 40)
        return root / "snapshots" / ("0" * 40)

    return snapshot


def test_releases_in_the_hub_cache(hub_cache: Callable[[str], Path]) -> None:
    below(hub_cache(LENT))
    v1(hub_cache("someone/ppt-v1"))
    branch = branched("v2")
    v2(hub_cache("someone/ppt-v2"), branch)
    same(painted(on_disk(), "someone/ppt-v1", paint()), memory1())
    same(painted(on_disk(), "someone/ppt-v2", paint(model="someone/ppt-v2")), memory2(branch))


def test_what_is_downloaded_of_a_release() -> None:
    first = ["unet/unet.safetensors", "text_encoder/text_encoder.safetensors"]
    assert set(hub.needed([".gitattributes", "README.md", "examples/a.png", *first])) == set(first)
    inside = ["PowerPaint_Brushnet/diffusion_pytorch_model.safetensors", "PowerPaint_Brushnet/pytorch_model.bin"]
    base = [
        f"realistic/{f}" for f in ("model_index.json", "unet/config.json", "unet/diffusion_pytorch_model.safetensors")
    ]
    spare = ["realistic/unet/diffusion_pytorch_model.bin", "realistic/safety_checker/model.safetensors", "a.png"]
    assert set(hub.needed([*inside, *base, *spare])) == {*inside, *base}
    assert set(hub.needed([*inside, *base], "PowerPaint_Brushnet")) == set(inside)
    dev = ["brushnet/config.json", "brushnet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"]
    assert set(hub.needed(dev)) == set(dev)


# ── BrushNet ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("order", ["rgb", "bgr"])
@pytest.mark.parametrize("form", ["folder", "file", "file beside a config"])
def test_a_plain_brushnet(form: str, order: str, roots: Path) -> None:
    branch = branched(None, attention=False)
    branch.bgr = order == "bgr" and form != "file"
    file = write(roots / "brush" / "diffusion_pytorch_model.safetensors", stored(branch))
    if form != "file":
        said(
            roots / "brush",
            _class_name="BrushNetModel",
            conditioning_channels=5,
            brushnet_conditioning_channel_order=order,
        )
    disk.base(roots / "sd", image_encoder=False)

    def fill(model: str) -> BrushNet:
        return BrushNet(model=model, image=PICTURE, mask=HOLE, weight=0.8, paste=False)

    name = "brush" if form == "folder" else str(file)
    same(painted(on_disk(), "sd", fill(name)), memory2(branch, fill("b")))
    with pytest.raises(Exception, match="BrushNet without task tokens"):
        painted(on_disk(), "sd", paint(model=name))


def test_a_neighbours_encoder_is_not_the_brushnets(roots: Path) -> None:
    """A shelf of single files: what lies there beside a BrushNet belongs to others."""
    file = write(roots / "brush.safetensors", stored(branched(None, attention=False)))
    write(roots / "model.safetensors", {k: t for k, t in wrapped(tiny.task_texts("v2")).items() if "wrapped" in k})
    found = on_disk().shelf.identity("brush", "model", "brushnet")
    assert found.tasks == "" and found.memory == sum(t.nbytes for t in load_file(file).values())


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
    shelf = Shelf(dtype=torch.float16, device="cpu")
    report = Engine(shelf=shelf).check(Recipe(model="ppt-v1", prompt="x", conditions=(paint(),)))
    assert report.spec.tasks == "v1" and report.spec.parameters == 859_535_364
    assert report.memory == 2 * (859_535_364 + 83_653_863 + 123_060_480 + 23_040)
    found = shelf.identity("ppt-v2", "model", "brushnet")
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
    cli_show.models(console, Library())
    shown = {line.split()[0]: line for line in console.export_text().splitlines() if line.strip()}
    for name, what in {
        "inpainting": "a base model (inpaint)", "ppt-v1": "a base model (powerpaint)", "brush": "a BrushNet (plain)",
        "words": "a text encoder (powerpaint)",
    }.items():  # fmt: skip
        assert what in shown[name]
    assert "a base model for" in shown["ppt-v2"] and "with a BrushNet beside it" in shown["ppt-v2"]


def digests(base: str, **fields: Any) -> Mapping[str, str]:
    return on_disk().shelf.digests(Recipe(model=base, prompt="x", conditions=(paint(**fields),)))


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
    "an encoder under other names": ("py", lambda s: {f"module.{k}": t for k, t in s.items()}, "the task encoder .* token table is missing"),
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
