"""A base with LoRAs in its weights: each tensor is W + sum of s D, in the file's own layout and precision; all others are as they were."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import disk
import lora_files
import pytest
import torch
from lora_files import Low
from safetensors import safe_open
from safetensors.torch import load_file
from some import some

import tiny
from infuse.errors import InfuseError, InfuseWarning, RecipeError, WeightsError
from infuse.weights.base import load_base
from infuse.weights.formats import read_header
from infuse.weights.merge import SAID, merge

from . import ldm
from .test_base import checkpoint


def sums(*named: tuple[list[Low], float]) -> dict[tuple[str, str], torch.Tensor]:
    """What is added at (part, path), with `text_model.`."""
    found: dict[tuple[str, str], torch.Tensor] = {}
    for lows, weight in named:
        for low in lows:
            found[low.part, low.path] = found.get((low.part, low.path), 0) + weight * low.delta
    return found


def is_base_and(sums_: dict[tuple[str, str], torch.Tensor], before: Any, after: Any, atol: float = 2e-6) -> None:
    """Two loaded bases differ by these, and by nothing else."""
    nets = [
        ("unet", before.unet, after.unet),
        *(
            ("text_encoder" + "_2" * i, b, a)
            for i, (b, a) in enumerate(zip(before.text_encoders, after.text_encoders, strict=True))
        ),
    ]
    met = 0
    for part, one, two in nets:
        for key, w in one.state_dict().items():
            path = key.removesuffix(".weight")
            path = path if part == "unet" or path.startswith("text_") else f"text_model.{path}"
            delta = sums_.get((part, path)) if key.endswith(".weight") else None
            own = two.state_dict()[key]
            if delta is None:
                assert torch.equal(own, w), key
            else:
                met += 1
                torch.testing.assert_close(own, w + delta, atol=atol, rtol=1e-5)
    assert met == len(sums_)
    assert all(
        torch.equal(a, b)
        for a, b in zip(before.vae.state_dict().values(), after.vae.state_dict().values(), strict=True)
    )


@pytest.mark.slow
@pytest.mark.parametrize("kin", some(["sd1", "sd2", "sdxl"], quick=["sd2"]))
def test_a_checkpoint_keeps_its_layout(kin: str, tmp_path: Path) -> None:
    """OpenCLIP's queries, keys and values are one tensor, and its projection lies the other way round."""
    state, made = checkpoint(kin, extra={"model_ema.decay": torch.ones(())})
    place = ldm.save(tmp_path / "base.safetensors", state)
    one = lora_files.changes(made["unet"], made["texts"])
    two = lora_files.changes(made["unet"], made["texts"], pattern=lora_files.ATTENDED, seed=3)
    if kin == "sdxl":
        p = made["texts"][1].text_projection.weight
        one.append(
            Low("text_encoder_2", "text_projection", torch.randn(2, p.shape[1]), torch.randn(p.shape[0], 2), 2.0)
        )
    lora_files.save(tmp_path / "one.safetensors", lora_files.kohya(one, kin == "sdxl"))
    lora_files.save(
        tmp_path / "two.safetensors", lora_files.kohya(two, kin == "sdxl", lora_files.originals(made["unet"]))
    )
    seen: list[tuple[int, int]] = []
    count = merge(str(place), [(str(tmp_path / "one.safetensors"), 0.8), (str(tmp_path / "two.safetensors"), -0.5)],
                  tmp_path / "out.safetensors", lambda done, of: seen.append((done, of)))  # fmt: skip
    after = load_file(tmp_path / "out.safetensors")
    assert after.keys() == state.keys() and all(after[k].shape == t.shape for k, t in state.items())
    assert sum(not torch.equal(after[k], t) for k, t in state.items()) == count == len(seen) and seen[-1] == (
        count,
        count,
    )
    is_base_and(sums((one, 0.8), (two, -0.5)), load_base(str(place)), load_base(str(tmp_path / "out.safetensors")))
    said = json.loads(read_header(tmp_path / "out.safetensors").metadata[SAID])
    assert [(s["name"], s["weight"], len(s["sha256"])) for s in said] == [
        ("one.safetensors", 0.8, 64),
        ("two.safetensors", -0.5, 64),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("family", some(["sd1", "sdxl"], quick=["sd1"]))
def test_a_folder_stays_a_folder(family: str, tmp_path: Path) -> None:
    base = disk.base(tmp_path / "base", family)
    parts = tiny.base(family).parts
    texts = [parts[p] for p in ("text_encoder", "text_encoder_2") if p in parts]
    lows = lora_files.changes(parts["unet"], texts)
    lora_files.save(tmp_path / "one.safetensors", lora_files.peft(lows))
    (base / "unet" / "diffusion_pytorch_model.fp16.safetensors").write_bytes(
        (base / "unet" / "diffusion_pytorch_model.safetensors").read_bytes()
    )
    merge(base, [(tmp_path / "one.safetensors", 0.5)], tmp_path / "new" / "out")
    out = tmp_path / "new" / "out"
    names = {str(p.relative_to(base)) for p in base.rglob("*")} - {"unet/diffusion_pytorch_model.fp16.safetensors"}
    assert {str(p.relative_to(out)) for p in out.rglob("*")} == names, "another precision would not be merged"
    is_base_and(sums((lows, 0.5)), load_base(str(base)), load_base(str(out)))
    assert [p.name for p in out.parent.iterdir()] == ["out"]


@pytest.mark.slow
def test_sums_are_made_in_float32_and_rounded_once(tmp_path: Path) -> None:
    """Half a step of a half, twice, is a step."""
    state, made = checkpoint("sd1")
    half = {k: t.half() if t.is_floating_point() else t for k, t in state.items()}
    place = ldm.save(tmp_path / "base.safetensors", half)
    lows = lora_files.changes(made["unet"], size=0.004)
    for n in range(2):
        lora_files.save(tmp_path / f"{n}.safetensors", lora_files.kohya(lows))
    merge(place, [(tmp_path / "0.safetensors", 0.5), (tmp_path / "1.safetensors", 0.5)], tmp_path / "out.safetensors")
    names = lora_files.originals(made["unet"])
    after = load_file(tmp_path / "out.safetensors")
    for low in lows:
        key = f"model.diffusion_model.{names[low.path]}.weight"
        assert after[key].dtype == torch.float16
        assert torch.equal(after[key], (half[key].float() + 0.5 * low.delta + 0.5 * low.delta).half())


@pytest.mark.slow
def test_biases_and_norms_are_merged_and_a_new_bias_is_a_letter(tmp_path: Path) -> None:
    state, _ = checkpoint("sd1")
    place = ldm.save(tmp_path / "base.safetensors", state)
    own = {"lora_unet_conv_in.diff_b": torch.ones(64), "lora_unet_conv_in.diff": torch.full((64, 4, 3, 3), 2.0),
           "lora_unet_conv_norm_out.w_norm": torch.ones(64), "lora_unet_conv_norm_out.b_norm": torch.full((64,), 3.0)}  # fmt: skip
    lora = lora_files.save(tmp_path / "x.safetensors", own)
    assert merge(place, [(lora, 0.5)], tmp_path / "out.safetensors") == 4
    after = load_file(tmp_path / "out.safetensors")
    for key, more in (
        ("input_blocks.0.0.bias", 0.5),
        ("input_blocks.0.0.weight", 1.0),
        ("out.0.weight", 0.5),
        ("out.0.bias", 1.5),
    ):
        torch.testing.assert_close(after[f"model.diffusion_model.{key}"], state[f"model.diffusion_model.{key}"] + more)
    at = "lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q"
    lora = lora_files.save(
        tmp_path / "y.safetensors", {f"{at}.diff_b": torch.ones(64), f"{at}.diff": torch.ones(64, 64)}
    )
    with pytest.raises(
        WeightsError, match="adds a bias to down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q of the unet"
    ):
        merge(place, [(lora, 0.5)], tmp_path / "other.safetensors")


@pytest.mark.slow
def test_what_was_merged_before_stays_said(tmp_path: Path) -> None:
    state, made = checkpoint("sd1")
    base = lora_files.save(tmp_path / "base.safetensors", state, {"author": "me", "sshs_model_hash": "abc"})
    lora = lora_files.save(tmp_path / "x.safetensors", lora_files.kohya(lora_files.changes(made["unet"])))
    merge(base, [(lora, 1.0)], tmp_path / "a.safetensors")
    merge(tmp_path / "a.safetensors", [(lora, -1.0)], tmp_path / "b.safetensors")
    with safe_open(tmp_path / "b.safetensors", "pt") as f:
        said = f.metadata()
    assert said["author"] == "me" and "sshs_model_hash" not in said
    assert [one["weight"] for one in json.loads(said[SAID])] == [1.0, -1.0]


@pytest.mark.slow
def test_words_are_not_merged_and_that_is_said(tmp_path: Path) -> None:
    state, made = checkpoint("sd1")
    place = ldm.save(tmp_path / "base.safetensors", state)
    own = lora_files.kohya(lora_files.changes(made["unet"])) | {"bundle_emb.cat.clip_l": torch.ones(1, 48)}
    with pytest.warns(InfuseWarning, match=r"words that are bundled with it \(cat\) cannot be merged"):
        merge(place, [(lora_files.save(tmp_path / "x.safetensors", own), 1.0)], tmp_path / "out.safetensors")


@pytest.mark.slow
def test_what_cannot_be_merged_is_a_letter_and_leaves_nothing(tmp_path: Path) -> None:
    state, made = checkpoint("sd1")
    place = ldm.save(tmp_path / "base.safetensors", state)
    lows = lora_files.changes(made["unet"])
    lora = lora_files.save(tmp_path / "x.safetensors", lora_files.kohya(lows))
    xl = tiny.base("sdxl")
    other = lora_files.save(tmp_path / "xl.safetensors", lora_files.kohya(lora_files.changes(xl.parts["unet"]), True))
    nan = {k: t * float("nan") for k, t in lora_files.kohya(lows).items()}
    bad = lora_files.save(tmp_path / "nan.safetensors", nan)
    folder = disk.base(tmp_path / "folder", image_encoder=False)
    there = {p.name for p in tmp_path.iterdir()}
    cases: list[tuple[Any, Any, str, type[InfuseError], str, str]] = [
        (place, [(lora, 1.0)], "x.safetensors", RecipeError, "out", "is there already, and nothing is overwritten"),
        (place, [(lora, 1.0)], "new.ckpt", RecipeError, "out", "Let it end with .safetensors"),
        (folder, [(lora, 1.0)], "new.safetensors", RecipeError, "out", "Name a folder"),
        (place, [], "new.safetensors", RecipeError, "loras", "no LoRA is named"),
        (place, [(lora, 1.0), (lora, float("inf"))], "new.safetensors", RecipeError, "loras.1", "the weight inf"),
        (place, [(lora, 1.0), (other, 1.0)], "new.safetensors", RecipeError, "loras.1", "was trained for"),
        (place, [(bad, 1.0)], "new.safetensors", WeightsError, "loras.0", "NaN"),
        (place, [(place, 1.0)], "new.safetensors", WeightsError, "loras.0", "needs a LoRA"),
        (lora, [(lora, 1.0)], "new.safetensors", WeightsError, "base", "is a LoRA"),
        (place, [(tmp_path / "none.safetensors", 1.0)], "new.safetensors", WeightsError, "loras.0", "none.safetensors"),
    ]  # fmt: skip
    for base, loras, out, kind, field, words in cases:
        with pytest.raises(kind) as letter:
            merge(base, loras, tmp_path / out)
        assert letter.value.field == field and words in str(letter.value), str(letter.value)
        assert {p.name for p in tmp_path.iterdir()} == there


@pytest.mark.slow
def test_pickles_become_safetensors_under_the_names_that_folders_have(tmp_path: Path) -> None:
    base = disk.base(tmp_path / "base", image_encoder=False)
    for part, name in (("unet", "diffusion_pytorch_model"), ("text_encoder", "pytorch_model")):
        (place,) = (base / part).glob("*.safetensors")
        torch.save(load_file(place), base / part / f"{name}.bin")
        place.unlink()
    parts = tiny.base("sd1").parts
    lows = lora_files.changes(parts["unet"], [parts["text_encoder"]])
    lora = lora_files.save(tmp_path / "x.safetensors", lora_files.peft(lows))
    merge(base, [(lora, 1.0)], tmp_path / "out")
    names = {str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*model.*")}
    assert {"unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"} <= names
    is_base_and(sums((lows, 1.0)), load_base(str(base)), load_base(str(tmp_path / "out")))


@pytest.mark.slow
def test_shards_stay_shards(tmp_path: Path) -> None:
    base = disk.base(tmp_path / "base", image_encoder=False)
    parts = tiny.base("sd1").parts
    (base / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    parts["unet"].save_pretrained(base / "unet", max_shard_size="300KB")
    lows = lora_files.changes(parts["unet"])
    lora = lora_files.save(tmp_path / "x.safetensors", lora_files.kohya(lows))
    assert merge(base, [(lora, 1.0)], tmp_path / "out") == len(lows)
    assert {p.name for p in (base / "unet").iterdir()} == {p.name for p in (tmp_path / "out" / "unet").iterdir()}
    assert len(list((tmp_path / "out" / "unet").glob("*-of-*"))) > 1
    is_base_and(sums((lows, 1.0)), load_base(str(base)), load_base(str(tmp_path / "out")))
