"""PowerPaint as it lies on the disk, in every layout of its releases, paints what the same modules paint in memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import disk
import pytest
import torch
from safetensors.torch import load_file

import tiny
from infuse import BrushNet, Recipe, WeightsError
from infuse.weights import hub
from infuse.weights.library import Library
from infuse.weights.outline import outline

from .powerpaint import (
    HOLE,
    LENT,
    PICTURE,
    TABLE,
    added,
    below,
    branched,
    dev2,
    memory1,
    memory2,
    on_disk,
    paint,
    painted,
    said,
    same,
    stored,
    v1,
    v2,
    wrapped,
    write,
)

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("roots")]


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
    assert not engine.store.loaded, "a check loads nothing"
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
    found = engine.store.identity(named, "model", "brushnet")
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
    assert on_disk().store.identity("dev", "model", "brushnet").tasks == "dev2"


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
    """A store of single files: what lies there beside a BrushNet belongs to others."""
    file = write(roots / "brush.safetensors", stored(branched(None, attention=False)))
    write(roots / "model.safetensors", {k: t for k, t in wrapped(tiny.task_texts("v2")).items() if "wrapped" in k})
    found = on_disk().store.identity("brush", "model", "brushnet")
    assert found.tasks == "" and found.memory == sum(t.nbytes for t in load_file(file).values())
