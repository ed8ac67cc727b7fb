"""A LoRA's tensors become the changes that its trainer meant: each module by its own alpha, in every layout, or a letter."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import lora_files
import pytest
import torch
from lora_files import Low
from some import some
from torch import Tensor, nn

import tiny
from infuse.errors import InfuseError, InfuseWarning, WeightsError
from infuse.network.lora import LoraNetwork
from infuse.notices import gathers
from infuse.weights.layouts.lora import build

ALPHAS = (1.0, 2.0, 4.0, 0.5, 8.0)


def loaded(made: tiny.Tiny, place: Path, dtype: torch.dtype = torch.float32) -> LoraNetwork:
    return build(str(place), made.base.network.unet, made.base.texts.models, dtype)


def texts(made: tiny.Tiny) -> list[Any]:
    return [made.parts[p] for p in ("text_encoder", "text_encoder_2") if p in made.parts]


def layer(made: tiny.Tiny, part: str, path: str) -> tuple[str, nn.Module]:
    """The module of a part at a path that files say, and its own path."""
    net = made.base.network.unet if part == "unet" else made.base.texts.models[part.endswith("_2")]
    modules = dict(net.named_modules())
    own = path if path in modules else path.removeprefix("text_model.")
    return own, modules[own]


def says(made: tiny.Tiny, network: LoraNetwork, lows: list[Low]) -> None:
    """The network changes these modules, by these matrices, and no others."""
    wanted = {(low.part, layer(made, low.part, low.path)[0]): low for low in lows}
    assert {(p, path) for p in ("unet", "text_encoder", "text_encoder_2") for path in network.paths(p)} == wanted.keys()
    for (part, path), low in wanted.items():
        change = network.change(part, path)
        assert change is not None
        torch.testing.assert_close(change.delta(layer(made, part, low.path)[1]), low.delta, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("family", "layout"), some([(f, x) for f in ("sd1", "sd2", "sdxl") for x in ("kohya", "original names", "comfy", "lycoris")], quick=[("sd1", "kohya"), ("sdxl", "original names"), ("sd2", "comfy")]))  # fmt: skip
def test_every_module_has_its_own_alpha(family: str, layout: str, tmp_path: Path) -> None:
    """diffusers gives attentions the commonest one of a file."""
    made = tiny.base(family)
    unet = made.parts["unet"]
    lows = lora_files.changes(unet, texts(made) if layout != "lycoris" else (), alphas=ALPHAS)
    names = lora_files.originals(unet)
    wide = family == "sdxl"
    if layout == "comfy":
        state = lora_files.comfy(lows, names)
    else:
        state = lora_files.kohya(
            lows, wide, names if layout == "original names" else None, "lycoris" if layout == "lycoris" else "lora_unet"
        )
    says(made, loaded(made, lora_files.save(tmp_path / "x.safetensors", state)), lows)


@pytest.mark.slow
def test_a_file_may_mix_spellings(tmp_path: Path) -> None:
    """As merges of files do: each key is read by itself."""
    made = tiny.base("sdxl")
    lows = lora_files.changes(made.parts["unet"], texts(made))
    names = lora_files.originals(made.parts["unet"])
    writers = [lambda x: lora_files.kohya(x, True), lambda x: lora_files.kohya(x, True, names), lora_files.peft, lora_files.middle_aged, lambda x: lora_files.comfy(x, names)]  # fmt: skip
    state = {k: t for n, write in enumerate(writers) for k, t in write(lows[n :: len(writers)]).items()}
    says(made, loaded(made, lora_files.save(tmp_path / "x.safetensors", state)), lows)


@pytest.mark.slow
def test_half_precision_and_pickles(tmp_path: Path) -> None:
    made = tiny.base("sd1")
    lows = lora_files.changes(made.parts["unet"], alphas=(4.0,))
    half = {k: t.half() for k, t in lora_files.kohya(lows).items()}
    torch.save(half, tmp_path / "x.pt")
    network = loaded(made, tmp_path / "x.pt")
    path = lows[0].path
    change = network.change("unet", path)
    assert change is not None and change.delta(layer(made, "unet", path)[1]).dtype == torch.float32
    torch.testing.assert_close(change.delta(layer(made, "unet", path)[1]), lows[0].delta, atol=1e-3, rtol=1e-2)
    low = loaded(made, tmp_path / "x.pt", torch.float16)
    assert {b.dtype for b in low.buffers() if b.ndim > 1} == {torch.float16}


PEFT: dict[str, dict[str, Any]] = {
    "plain": {"r": 4, "lora_alpha": 8},
    "ranks and alphas of some": {"r": 4, "lora_alpha": 2, "rank_pattern": {"to_q": 2, r"mid_block.*\.to_v": 6}, "alpha_pattern": {"to_k": 3, "attn2.to_q": 5}},
    "square roots": {"r": 4, "lora_alpha": 8, "use_rslora": True, "alpha_pattern": {"to_v": 1}},
    "DoRA": {"r": 4, "lora_alpha": 2, "use_dora": True},
    "biases": {"r": 4, "lora_alpha": 2, "lora_bias": True, "target_modules": ["to_out.0", "proj_in", "ff.net.2", "time_emb_proj"]},
}  # fmt: skip


def trained(config: dict[str, Any], folder: Path) -> dict[str, Tensor]:
    """A random network of peft's own in a folder; the weights and biases that peft merges from it."""
    import peft

    targets = ["to_q", "to_k", "to_v", "to_out.0", "proj_in", "ff.net.0.proj", "conv1", "conv_in"]
    model: Any = peft.get_peft_model(tiny.unet("sd1"), peft.LoraConfig(**{"target_modules": targets, **config}))  # type: ignore[arg-type]
    for n, (name, p) in enumerate(model.named_parameters()):
        if "lora_" in name:
            noise = torch.randn(p.shape, generator=torch.Generator().manual_seed(n))
            p.data = p.data * (1 + 0.1 * noise) if "magnitude" in name else noise * 0.2
    model.save_pretrained(folder)
    return {k: t.detach().clone() for k, t in model.merge_and_unload().state_dict().items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", some(PEFT, quick=["ranks and alphas of some"]))
def test_a_folder_of_peft_is_what_peft_merges(name: str, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft's, of a config that it cannot ask the Hub for
        merged = trained(PEFT[name], tmp_path / "adapter")
    made = tiny.base("sd1")
    whole = {k: t.clone() for k, t in made.parts["unet"].state_dict().items()}
    for place in (tmp_path / "adapter", tmp_path / "adapter" / "adapter_model.safetensors"):
        network = loaded(made, place)
        assert len(network.paths("unet")) > 10
        after = {k: t.clone() for k, t in whole.items()}
        for path in network.paths("unet"):
            change: Any = network.change("unet", path)
            after[f"{path}.weight"] += change.delta(layer(made, "unet", path)[1])
            if change.bias is not None:
                after[f"{path}.bias"] += change.bias
        for key, t in merged.items():
            torch.testing.assert_close(after[key], t, atol=2e-5, rtol=1e-5, msg=lambda m, k=key: f"{k}: {m}")


@pytest.mark.slow
def test_folders_of_peft_by_part(tmp_path: Path) -> None:
    """Scripts save one folder for each network, each with its own config."""
    made = tiny.base("sd1")
    lows = lora_files.changes(made.parts["unet"], texts(made))
    for part, alpha in (("unet", 2.0), ("text_encoder", 12.0)):
        own = {
            f"base_model.model.{low.path}.lora_{x}.weight": t
            for low in lows
            if low.part == part
            for x, t in (("A", low.down), ("B", low.up))
        }
        lora_files.save(tmp_path / "all" / part / "adapter_model.safetensors", own)
        (tmp_path / "all" / part / "adapter_config.json").write_text(json.dumps({"r": 4, "lora_alpha": alpha}))
    wanted = [Low(low.part, low.path, low.down, low.up, 2.0 if low.part == "unet" else 12.0) for low in lows]
    says(made, loaded(made, tmp_path / "all"), wanted)


@pytest.mark.slow
def test_words_come_with_it(tmp_path: Path) -> None:
    made = tiny.base("sdxl")
    state = lora_files.kohya(lora_files.changes(made.parts["unet"]), True)
    cat = {"clip_l": torch.randn(2, 32), "clip_g": torch.randn(3, 32)}
    state |= {f"bundle_emb.cat.{k}": t for k, t in cat.items()} | {"bundle_emb.dog.clip_l": torch.randn(2, 32)}
    with gathers() as notes:
        network = loaded(made, lora_files.save(tmp_path / "x.safetensors", state))
    assert set(network.words) == {"cat"} and [t.shape for t in network.words["cat"]] == [(2, 32), (3, 32)]
    assert torch.equal(network.words["cat"][1], cat["clip_g"])
    assert len(notes) == 1 and 'the word "dog"' in notes[0]
    one = tiny.base("sd1")
    state = lora_files.kohya(lora_files.changes(one.parts["unet"])) | {
        "bundle_emb.cat.string_to_param.*": torch.ones(32)
    }
    assert loaded(one, lora_files.save(tmp_path / "y.safetensors", state)).words["cat"][0].shape == (1, 32)


def broken(what: str, value: float, state: dict[str, Tensor]) -> str:
    key = next(k for k in state if k.endswith(what) and "attn2_to_k" in k)
    state[key] = state[key].clone()
    state[key].view(-1)[0] = value
    return key


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("what", ["lora_up.weight", "alpha"])
def test_what_is_no_number_is_a_letter_that_names_the_module(value: float, what: str, tmp_path: Path) -> None:
    made = tiny.base("sd1")
    state = lora_files.kohya(lora_files.changes(made.parts["unet"]))
    key = broken(what, value, state)
    with pytest.raises(WeightsError) as letter:
        loaded(made, lora_files.save(tmp_path / "x.safetensors", state))
    assert letter.value.field == "model" and key.partition(".")[0] in str(letter.value) and "NaN" in str(letter.value)
    assert what in str(letter.value) and "Download it again" in str(letter.value)


def test_a_word_that_is_no_number_is_a_letter(tmp_path: Path) -> None:
    made = tiny.base("sd1")
    state = lora_files.kohya(lora_files.changes(made.parts["unet"])) | {
        "bundle_emb.cat.clip_l": torch.full((1, 32), float("nan"))
    }
    with pytest.raises(WeightsError, match='its word "cat" holds NaN'):
        loaded(made, lora_files.save(tmp_path / "x.safetensors", state))


@pytest.mark.slow
def test_alpha_0_is_heard_literally_and_said(tmp_path: Path) -> None:
    made = tiny.base("sd1")
    lows = lora_files.changes(made.parts["unet"], alphas=(0.0, 4.0))
    with pytest.warns(
        InfuseWarning, match=r"alpha is 0 in \d+ of its modules, which change nothing \(first: lora_unet_"
    ):
        network = loaded(made, lora_files.save(tmp_path / "x.safetensors", lora_files.kohya(lows)))
    says(made, network, lows)


@pytest.mark.slow
def test_the_wrong_base_is_a_letter_before_a_tensor_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infuse.weights.layouts.lora.read_keys", None)
    xl, small = tiny.base("sdxl"), tiny.base("sd1")
    for of, on in ((xl, small), (small, xl)):
        lows = lora_files.changes(of.parts["unet"], texts(of))
        place = lora_files.save(tmp_path / f"{of.family}.safetensors", lora_files.kohya(lows, of is xl))
        with pytest.raises(InfuseError, match="context width 32.*context width 64|context width 64.*context width 32"):
            loaded(on, place)
    only_words = [low for low in lora_files.changes(xl.parts["unet"], texts(xl)) if low.part == "text_encoder_2"]
    with pytest.raises(InfuseError, match="changes the second text encoder .18 modules.*has one text encoder"):
        loaded(small, lora_files.save(tmp_path / "words.safetensors", lora_files.kohya(only_words, True)))


@pytest.mark.slow
def test_metadata_that_is_broken_is_a_letter(tmp_path: Path) -> None:
    made = tiny.base("sd1")
    state = lora_files.peft(lora_files.changes(made.parts["unet"]))
    place = lora_files.save(tmp_path / "x.safetensors", state, {"lora_adapter_metadata": "{"})
    with pytest.raises(WeightsError, match='metadata "lora_adapter_metadata"'):
        loaded(made, place)
    for said in ({"unet.lora_alpha": "many"}, {"unet.lora_alpha": 1, "unet.alpha_pattern": [1]}, {"unet.lora_alpha": 1, "unet.alpha_pattern": {"x": None}},
                 {"unet.lora_alpha": float("inf")}):  # fmt: skip
        place = lora_files.save(tmp_path / "x.safetensors", state, {"lora_adapter_metadata": json.dumps(said)})
        with pytest.raises(WeightsError, match="is no alpha"):
            loaded(made, place)
    place = lora_files.save(
        tmp_path / "x.safetensors",
        state,
        {"lora_adapter_metadata": '{"unet.lora_alpha": 4, "unet.alpha_pattern": {"(": 1}}'},
    )
    assert loaded(made, place).paths("unet"), "a pattern that is none is of no module"
