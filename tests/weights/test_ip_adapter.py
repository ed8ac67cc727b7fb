"""An IP-Adapter is the same adapter in every file it comes in: as released, and as its own trainer leaves it."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from parity.cases import photo
from safetensors.torch import save_file
from some import some

import tiny
from infuse import Recipe
from infuse.conditions import IPAdapter
from infuse.encoders.ip_adapter import Adapter
from infuse.engine.engine import Engine
from infuse.errors import WeightsError
from infuse.weights import hub
from infuse.weights.layouts.ip_adapter import read_ip_adapter
from infuse.weights.layouts.ip_names import released_names
from infuse.weights.library import Library

from . import full
from .ldm import State


@cache
def released(family: str, kind: str) -> State:
    return {k: t.detach().clone() for k, t in tiny.adapter(family, kind, 9).save().items()}


def trained(family: str, kind: str) -> State:
    """All that tutorial_train.py's module held: the UNet with its processors, the projection, and the list of processors."""
    net, file = tiny.unet(family), released(family, kind)
    out = {f"unet.{k}": t for k, t in net.state_dict().items()}
    out |= {k.replace("image_proj.", "image_proj_model."): t for k, t in file.items() if k.startswith("image_proj.")}
    for i, name in enumerate(net.attn_processors):  # self- and cross-attention take turns
        for key in ("to_k_ip.weight", "to_v_ip.weight"):
            if (tensor := file.get(f"ip_adapter.{i}.{key}")) is not None:
                out |= {f"unet.{name}.{key}": tensor, f"adapter_modules.{i}.{key}": tensor}
    return out


def without(state: State, pattern: str) -> State:
    return {k: t for k, t in state.items() if not re.search(pattern, k)}


FORMS: dict[str, tuple[str, Callable[[State], State]]] = {
    "pytorch_model.bin": ("pytorch_model.bin", lambda s: s),
    "accelerate's model.safetensors": ("model.safetensors", lambda s: without(s, r"^adapter_modules\.")),
    "one name of two, by turns": ("model.safetensors", lambda s: without(without(s, r"^adapter_modules\..*to_v"), r"processor\.to_k")),
    "numbers alone": ("model.safetensors", lambda s: without(s, r"^unet\.")),
    "distributed": ("pytorch_model.bin", lambda s: {f"module.{k}": t for k, t in s.items()}),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "family", "kind"),
    some(
        [(f, family, k) for f in FORMS for family in ("sd1", "sdxl") for k in ("plain", "plus")],
        quick=[("pytorch_model.bin", "sd1", "plus"), ("accelerate's model.safetensors", "sdxl", "plain"), ("one name of two, by turns", "sd1", "plain")],
    ),
)  # fmt: skip
def test_a_trainer_s_checkpoint_is_the_converted_file(form: str, family: str, kind: str, tmp_path: Path) -> None:
    name, change = FORMS[form]
    state = change(trained(family, kind))
    folder = tmp_path / "checkpoint-5000"
    folder.mkdir()
    if name.endswith(".bin"):
        torch.save(state, folder / name)
    else:
        save_file({k: t.clone() for k, t in state.items()}, folder / name)
    torch.save({"state": {}}, folder / "optimizer.bin")  # lies beside it
    found = Library([], offline=True).find(str(folder))
    assert found.path == folder / name and found.identity.kind == "ip_adapter"
    tensors, identity = read_ip_adapter(found)
    assert tensors.keys() == released(family, kind).keys()
    assert all(torch.equal(t, released(family, kind)[k]) for k, t in tensors.items())
    assert identity.cross_layers == len(tiny.adapter(family, kind, 9).kv) and "trainer" in identity.notes[0]
    Adapter.load(tensors)


@pytest.mark.slow
def test_it_runs_as_the_adapter_in_memory(tmp_path: Path) -> None:
    torch.save(trained("sd1", "plain"), tmp_path / "pytorch_model.bin")
    engine = tiny.engine(tiny.base("sd1"), {"mine": tiny.adapter("sd1", "plain", 9)})
    found = []
    for model in ("mine", str(tmp_path / "pytorch_model.bin")):
        look = IPAdapter(model=model, image=photo(20), weight=0.7)  # type: ignore[arg-type]
        recipe = Recipe(model="tiny", prompt="x", width=32, height=32, steps=2, seed=3, conditions=(look,))
        memory = next(r.memory for _, kind, r in engine.check(recipe).routes if kind == "ip_adapter")
        found.append((engine.run(recipe).latents, memory))
    assert torch.equal(found[0][0], found[1][0])
    assert found[0][1] == found[1][1], "the frozen UNet beside it is not counted"


@pytest.mark.parametrize("name", ["sd15", "sdxl"])
def test_numbers_follow_the_order_of_attentions(name: str) -> None:
    """Of the published sizes; of what a file lists in any order."""
    processors = list(full.unet(name).attn_processors)
    cross = {
        f"unet.{p}.to_k_ip.weight": f"ip_adapter.{i}.to_k_ip.weight" for i, p in enumerate(processors) if "attn2" in p
    }
    keys = ["image_proj_model.proj.weight", *sorted(cross)]
    assert released_names(keys) == cross | {"image_proj_model.proj.weight": "image_proj.proj.weight"}
    assert len(cross) == {"sd15": 16, "sdxl": 70}[name]
    assert released_names(["image_proj.proj.weight", "ip_adapter.1.to_k_ip.weight"]) == {}


# ── image encoders where releases put them ──────────────────────────────────────────────────────────────────────────


@pytest.fixture
def release(strange: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """h94/IP-Adapter: two families, an image encoder of each, and an SDXL adapter that wants the other's."""
    from strangers import sparse

    monkeypatch.chdir(strange)
    for folder, file, own, eye in (
        ("models", "ip-adapter_sd15", "ip15", "vit-h"),
        ("sdxl_models", "ip-adapter_sdxl", "ip-xl", "bigg"),
    ):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "image_encoder").symlink_to(strange / eye)
        (tmp_path / folder / f"{file}.safetensors").symlink_to(strange / f"{own}.safetensors")
    crossed = full.ip_adapter(2048, {"proj.weight": (8192, 1024), "norm.weight": (2048,), "norm.bias": (2048,)}, 70)
    sparse(tmp_path / "sdxl_models" / "ip-adapter_sdxl_vit-h.safetensors", crossed)
    return tmp_path


@pytest.mark.parametrize(
    ("base", "file"),
    [
        ("sd15", "models/ip-adapter_sd15"),
        ("sdxl", "sdxl_models/ip-adapter_sdxl"),
        ("sdxl", "sdxl_models/ip-adapter_sdxl_vit-h"),
    ],
)
def test_the_encoder_beside_an_adapter_is_found(base: str, file: str, release: Path) -> None:
    look = IPAdapter(model=str(release / f"{file}.safetensors"), image="a.png")  # type: ignore[arg-type]
    resolved = Engine(device="cpu").check(Recipe(model=f"{base}.safetensors", prompt="x", conditions=(look,)))
    found = resolved.speakers["conditions.0"].image_encoder  # type: ignore[attr-defined]
    wanted = "sdxl_models" if file.endswith("sdxl") else "models"
    assert found == str(release / wanted / "image_encoder")
    assert resolved.asked.conditions[0].image_encoder is None, "the record keeps what was asked"  # type: ignore[union-attr]


def test_without_a_right_one_beside_it_the_letter_stays(release: Path) -> None:
    (release / "models" / "image_encoder").unlink()
    look = IPAdapter(model=str(release / "models" / "ip-adapter_sd15.safetensors"), image="a.png")  # type: ignore[arg-type]
    with pytest.raises(WeightsError, match=r"conditions.0.image_encoder: .*brings no image encoder.*1024"):
        Engine(device="cpu").check(Recipe(model="sd15.safetensors", prompt="x", conditions=(look,)))


@pytest.mark.slow
@pytest.mark.parametrize("kind", some(["plain", "plus"], quick=["plain"]))
def test_it_sees_as_the_base_s_own_would(kind: str, tmp_path: Path) -> None:
    from dataclasses import replace

    whole = tiny.base("sd1")
    blind = replace(whole, base=replace(whole.base, image_encoder=None, feature_extractor=None))
    whole.parts["image_encoder"].save_pretrained(tmp_path / "image_encoder")
    whole.parts["feature_extractor"].save_pretrained(tmp_path / "image_encoder")
    save_file(released("sd1", kind), tmp_path / "ip.safetensors")
    recipe = Recipe(model="tiny", prompt="x", width=32, height=32, steps=2, seed=3, conditions=(
        IPAdapter(model=str(tmp_path / "ip.safetensors"), image=photo(20)),))  # type: ignore[arg-type]  # fmt: skip
    assert torch.equal(tiny.engine(blind).run(recipe).latents, tiny.engine(whole).run(recipe).latents)


def test_the_hub_brings_the_encoder_along() -> None:
    eyes = [
        f"{folder}/image_encoder/{f}"
        for folder in ("models", "sdxl_models")
        for f in ("config.json", "model.safetensors", "pytorch_model.bin")
    ]
    files = [
        "models/ip-adapter_sd15.safetensors",
        "sdxl_models/ip-adapter_sdxl.bin",
        "sdxl_models/ip-adapter_sdxl_vit-h.safetensors",
        *eyes,
    ]
    for file, folder in zip(files, ("models", "sdxl_models", "models"), strict=False):
        assert hub.needed(files, file) == [
            file,
            f"{folder}/image_encoder/config.json",
            f"{folder}/image_encoder/model.safetensors",
        ]
