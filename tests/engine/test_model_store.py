"""What a name stands for is an object, or files in a state: never the name itself."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import disk
import pytest
import torch
from torch import nn
from weights import ldm, powerpaint

import tiny
from infuse import ControlNet, Recipe
from infuse.engine.model_store import ModelStore
from infuse.errors import WeightsError
from infuse.network.unet import Network

CPU = torch.device("cpu")
F32, F64 = torch.float32, torch.float64


def store(**options: Any) -> ModelStore:
    return ModelStore(**{"dtype": F32, "device": "cpu", **options})


def numbers(module: Any) -> list[torch.Tensor]:
    return [p.detach().clone() for p in module.parameters()]


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


# ── objects ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_a_replaced_module_is_another_one_and_the_old_one_leaves() -> None:
    ours, left = store(), []
    ours.on_leave.append(left.append)
    first, second = tiny.controlnet("sd1", 7), tiny.controlnet("sd1", 8)
    base = tiny.base("sd1").base
    ours.add("m", first)
    version = ours.version("m", "controlnet")
    wide = ours.controlnet("m", base, F64, CPU)
    ours.add("m", second)
    assert version is first and ours.version("m", "controlnet") is second
    assert ours.controlnet("m", base, F32, CPU) is second
    assert ours.controlnet("m", base, F64, CPU) is not wide
    assert [id(x) for x in left] == [id(wide), id(first)], "and what was made from it goes with it"
    ours.add("n", second)
    ours.add("m", first)
    assert len(left) == 2, "what still has another name has not left"


@pytest.mark.slow
def test_a_module_runs_in_two_dtypes_at_once() -> None:
    ours, own = store(), tiny.controlnet("sd1", 7)
    before = numbers(own)
    ours.add("m", own)
    base = tiny.base("sd1").base
    narrow, wide = ours.controlnet("m", base, F32, CPU), ours.controlnet("m", base, F64, CPU)
    assert narrow is own, "where it fits, it is used itself: no memory, and training sees it"
    assert wide is not own and all(p.dtype == F64 for p in wide.parameters())
    assert own.dtype == F32 and same(before, numbers(own)), "a job in float32 goes on"
    assert same(before, [p.float() for p in wide.parameters()])
    assert ours.controlnet("m", base, F64, CPU) is wide, "one copy per dtype and device"


@pytest.mark.slow
def test_a_copied_brushnet_shares_its_task_texts() -> None:
    ours, own = store(), tiny.brushnet(generation="v2")
    ours.add("m", own)
    base = tiny.base("sd1").base
    assert ours.brushnet("m", base, F64, CPU).tasks is own.tasks is ours.tasks("m", base, F64, CPU)


def difference(path: Path) -> tuple[Path, Any, Any]:
    """(a ControlNet stored minus its base, two bases of one name whose UNets differ)."""
    plain = ldm.tiny_unet("sd1")
    net = ldm.tiny_controlnet(plain)
    state, of_base = ldm.ldm_controlnet(net), ldm.encoder(plain)
    ldm.save(
        path, {k: v - of_base[k] if k in of_base else v for k, v in state.items()} | {"difference": torch.zeros(1)}
    )
    base = tiny.base("sd1").base
    other = ldm.tiny_unet("sd1")
    for p in other.parameters():
        p.data = p.data + 1
    bases = [replace(base, network=Network(u.requires_grad_(False), base.spec)) for u in (plain, other)]
    assert bases[0].name == bases[1].name
    return path, *bases


@pytest.mark.slow
def test_a_difference_is_added_to_the_base_in_use_not_to_its_namesake(tmp_path: Path) -> None:
    path, a, b = difference(tmp_path / "d.safetensors")
    ours = store()
    one, two = ours.controlnet(str(path), a, F32, CPU), ours.controlnet(str(path), b, F32, CPU)
    at = [m.state_dict()["down_blocks.0.resnets.0.conv1.weight"] for m in (one, two)]
    torch.testing.assert_close(at[1], at[0] + 1)
    assert ours.controlnet(str(path), a, F32, CPU) is one


@pytest.mark.slow
def test_task_texts_of_two_namesakes_are_two(tmp_path: Path) -> None:
    release = powerpaint.v2(tmp_path / "release", powerpaint.branched("v2"))
    ours, a, b = store(), tiny.base("sd1").base, tiny.base("sd1").base
    assert a.name == b.name
    texts = [ours.tasks(str(release), base, F32, CPU) for base in (a, b, a)]
    assert texts[0] is texts[2] is not texts[1]
    nets = [ours.brushnet(str(release), base, F32, CPU) for base in (a, b, a)]
    assert nets[0] is nets[2] is not nets[1]


@pytest.mark.slow
def test_what_was_made_for_a_base_does_not_keep_it(tmp_path: Path) -> None:
    import gc
    from weakref import ref

    path, a, b = difference(tmp_path / "d.safetensors")
    ours = store()
    ours.controlnet(str(path), a, F32, CPU)
    gone = ref(a)
    del a
    gc.collect()
    assert gone() is None
    one = ours.controlnet(str(path), b, F32, CPU)
    assert ours.held == sum(p.numel() * 4 for p in one.parameters()), "and it goes when its base has gone"


@pytest.mark.slow
def test_two_names_of_one_file_are_one_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk.base(tmp_path / "m", image_encoder=False)
    monkeypatch.setenv("INFUSE_MODELS", str(tmp_path))
    ours = store()
    assert ours.base("m") is ours.base(str(tmp_path / "m"))
    assert ours.loaded == tuple(sorted(("m", str(tmp_path / "m"))))


# ── files ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def controlnet(folder: Path, seed: int) -> Path:
    tiny.controlnet("sd1", seed).save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_a_file_that_was_replaced_is_loaded_anew_and_the_record_holds_what_was_used(tmp_path: Path) -> None:
    path, base, ours, left = controlnet(tmp_path / "c", 7), tiny.base("sd1").base, store(), []
    ours.on_leave.append(left.append)
    ours.add("tiny", base)
    lines = ControlNet(model=str(path), image=torch.zeros(32, 32, 3, dtype=torch.uint8).numpy())
    recipe = Recipe(model="tiny", prompt="x", conditions=(lines,))
    version, (lying,) = ours.versions(lines), ours.digests(recipe).values()
    old = ours.controlnet(str(path), base, F32, CPU)
    before = numbers(old)
    assert ours.controlnet(str(path), base, F32, CPU) is old and ours.versions(lines) == version
    assert ours.digests(recipe) == {str(path): lying}

    controlnet(path, 8)
    assert ours.versions(lines) != version
    assert ours.digests(recipe) == {str(path): lying}, "of what is loaded, not of what lies there now"
    new = ours.controlnet(str(path), base, F32, CPU)
    assert same(numbers(new), numbers(tiny.controlnet("sd1", 8))) and not same(numbers(new), before)
    assert ours.digests(recipe)[str(path)] not in ("", lying)
    assert same(numbers(old), before), "a job under way has what it began with"
    assert [id(x) for x in left] == [id(old)], "nobody can ask for it any more"


@pytest.mark.slow
def test_a_file_written_over_in_place_does_not_change_what_is_loaded(tmp_path: Path) -> None:
    """Weights are read from a mapped file; a copy over it would change them, or end the process if it is shorter."""
    path, ours = disk.base(tmp_path / "m", image_encoder=False), store()
    base = ours.base(str(path))
    for file in path.rglob("*.safetensors"):
        with file.open("r+b") as f:
            f.truncate(0)
            f.write(os.urandom(64))
    assert same(numbers(base.network.unet), numbers(tiny.unet("sd1")))


@pytest.mark.slow
def test_a_base_that_was_replaced(tmp_path: Path) -> None:
    path, ours = disk.base(tmp_path / "m", image_encoder=False), store()
    old = ours.base(str(path))
    assert ours.at_hand(str(path)) is old and ours.view(str(path)).spec is old.spec
    shutil.rmtree(path)
    disk.base(path, in_channels=9, image_encoder=False)
    assert ours.at_hand(str(path)) is None
    assert ours.view(str(path)).spec.in_channels == 9, "a check sees what a run would load"
    new = ours.base(str(path))
    assert new.spec.in_channels == 9 and new.digest != old.digest


@pytest.mark.slow
def test_a_schedule_that_was_replaced_counts_too(tmp_path: Path) -> None:
    path, ours = disk.base(tmp_path / "m", image_encoder=False), store()
    old = ours.base(str(path))
    config = path / "scheduler" / "scheduler_config.json"
    config.write_text(config.read_text().replace("epsilon", "v_prediction"))
    assert old.spec.prediction == "epsilon" and ours.base(str(path)).spec.prediction == "v_prediction"


@pytest.mark.slow
def test_what_changes_while_it_is_read_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from infuse.weights.layouts import controlnet as layout

    path, base, read = controlnet(tmp_path / "c", 7), tiny.base("sd1").base, []
    real = layout.load_controlnet

    def load(*args: Any, **options: Any) -> Any:
        found = real(*args, **options)
        if len(read) < changes:
            controlnet(path, 8 + len(read))
        read.append(1)
        return found

    monkeypatch.setattr(layout, "load_controlnet", load)
    changes, ours = 1, store()
    net = ours.controlnet(str(path), base, F32, CPU)
    assert len(read) == 2 and same(numbers(net), numbers(tiny.controlnet("sd1", 8)))
    changes = 100
    with pytest.raises(WeightsError, match="changes on the disk while it is read"):
        store().controlnet(str(path), base, F32, CPU)


@pytest.mark.slow
def test_an_image_encoder_has_a_version_too(tmp_path: Path) -> None:
    eye, prepare = tiny.vision()
    path, ours = tmp_path / "eye", store()
    eye.save_pretrained(path)
    prepare.save_pretrained(path)
    old = ours.vision_model(str(path))
    assert ours.vision_model(str(path))[0] is old[0]
    with torch.no_grad():
        eye.visual_projection.weight.add_(1)
    eye.save_pretrained(path)
    assert not torch.equal(ours.vision_model(str(path))[0].visual_projection.weight, old[0].visual_projection.weight)


def test_a_module_that_is_built_is_keyed_by_its_builder_too(tmp_path: Path) -> None:
    path, ours = disk.adapter(tmp_path / "a.safetensors"), store()

    class One(nn.Linear):
        def __init__(self, _: Any) -> None:
            super().__init__(1, 1)

    class Two(One): ...

    assert type(ours.module(str(path), One, F32, CPU)) is One
    assert type(ours.module(str(path), Two, F32, CPU)) is Two
