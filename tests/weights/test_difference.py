"""A base that is a difference to another: merged it is that base, and what cannot be merged is a letter before it is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from infuse.errors import InfuseError
from infuse.weights.base import load_base
from infuse.weights.formats import read_header
from infuse.weights.identify import identify
from infuse.weights.library import Library
from infuse.weights.outline import outline

from . import ldm
from .test_base import checkpoint, folder

TO_K = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
CONV, NORM, WORDS = "mid_block.resnets.0.conv1", "conv_norm_out.weight", "encoder.layers.0.self_attn.q_proj"
RANK, CHANNELS = 2, 5


def factors(weight: Tensor, module: str, seed: int, **more: Tensor) -> dict[str, Tensor]:
    """In half precision, as files are."""
    g = torch.Generator().manual_seed(seed)
    down = torch.randn(RANK, *weight.shape[1:], generator=g).half()
    up = torch.randn(len(weight), RANK, *[1] * (weight.ndim - 2), generator=g).half()
    return {f"{module}.lora_down.weight": down, f"{module}.lora_up.weight": up, **more}


def product(tensors: dict[str, Tensor], module: str) -> Tensor:
    """By the definition, one entry of the rank after the other."""
    down, up = (tensors[f"{module}.lora_{leaf}.weight"].float() for leaf in ("down", "up"))
    return torch.stack([up[:, r].reshape(-1, *[1] * (down.ndim - 1)) * down[r] for r in range(RANK)]).sum(0)


def difference(unet: Any, text: Any) -> dict[str, Tensor]:
    state, words = unet.state_dict(), text.state_dict()
    first = state["conv_in.weight"]
    wide = torch.cat([first, torch.full((len(first), CHANNELS - first.shape[1], 3, 3), 0.25)], 1)
    key = next(k for k in words if k.endswith(f"{WORDS}.weight"))
    return {
        "unet.conv_in.weight": wide.half(), f"unet.{NORM}": torch.full_like(state[NORM], 0.75).half(),
        **factors(state[f"{TO_K}.weight"], f"unet.{TO_K}", 1), **factors(state[f"{CONV}.weight"], f"unet.{CONV}", 2),
        f"unet.{CONV}.alpha": torch.tensor(1.0), **factors(words[key], f"text_encoder.{WORDS}", 3),
    }  # fmt: skip


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, dict[str, Any], dict[str, Tensor]]:
    """A folder with a base and its difference, what the base was saved from, and the tensors of the difference."""
    _, nets = checkpoint("sd1")
    folder(tmp_path / "old", nets)
    tensors = difference(nets["unet"], nets["texts"][0])
    save_file(tensors, tmp_path / "new.safetensors")
    (tmp_path / "new.card.json").write_text(json.dumps({"infuse_base": "old"}))
    return tmp_path, nets, tensors


def library(root: Path) -> Library:
    return Library([root], offline=True)


def merged(parts: Any, nets: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    was, now = nets["unet"].state_dict(), parts.unet.state_dict()
    assert torch.equal(now["conv_in.weight"], tensors["unet.conv_in.weight"].float())
    assert (now[NORM] == 0.75).all()
    torch.testing.assert_close(now[f"{TO_K}.weight"], was[f"{TO_K}.weight"] + product(tensors, f"unet.{TO_K}"))
    half = was[f"{CONV}.weight"] + product(tensors, f"unet.{CONV}") / RANK  # alpha 1
    torch.testing.assert_close(now[f"{CONV}.weight"], half)
    changed = {"conv_in.weight", NORM, f"{TO_K}.weight", f"{CONV}.weight"}
    assert all(torch.equal(now[k], v) for k, v in was.items() if k not in changed)
    text, old = parts.text_encoders[0].state_dict(), nets["texts"][0].state_dict()
    key = next(k for k in text if k.endswith(f"{WORDS}.weight"))
    there = next(k for k in old if k.endswith(f"{WORDS}.weight"))
    torch.testing.assert_close(text[key], old[there] + product(tensors, f"text_encoder.{WORDS}"))
    assert parts.unet.config["in_channels"] == parts.unet.conv_in.in_channels == CHANNELS


@pytest.mark.slow
def test_it_loads_to_its_base_with_everything_added(made: Any) -> None:
    root, nets, tensors = made
    source = library(root).find("new")
    parts = load_base(source)
    merged(parts, nets, tensors)
    assert [s.name for s in parts.spec.channel_slots] == ["depth"]
    assert parts.spec == outline(source).spec and parts.spec.name == "new"
    assert (source.identity.kind, source.identity.variant, source.identity.in_channels) == ("base", "depth", CHANNELS)
    x = torch.randn(1, CHANNELS, 8, 8)
    assert parts.unet(x, 1, torch.randn(1, 3, parts.spec.context_width)).sample.shape == (1, 4, 8, 8)


@pytest.mark.slow
def test_the_base_may_be_one_file_and_metadata_may_name_it(tmp_path: Path) -> None:
    state, nets = checkpoint("sd1")
    ldm.save(tmp_path / "old.safetensors", state)
    tensors = difference(nets["unet"], nets["texts"][0])
    (tmp_path / "release").mkdir()
    save_file(tensors, tmp_path / "release" / "any.safetensors", metadata={"infuse_base": "../old.safetensors"})
    source = library(tmp_path).find("release")
    merged(load_base(source), nets, tensors)
    assert [s.name for s in outline(source).spec.channel_slots] == ["depth"]


@pytest.mark.slow
def test_half_precision_is_rounded_once(made: Any) -> None:
    root, nets, tensors = made
    for module in (nets["unet"], nets["vae"], *nets["texts"]):
        module.half()
    folder(root / "half", nets)
    (root / "new.card.json").write_text(json.dumps({"infuse_base": "half"}))
    now = load_base(library(root).find("new"), dtype=torch.float16).unet.state_dict()[f"{TO_K}.weight"]
    was = nets["unet"].state_dict()[f"{TO_K}.weight"].float()
    assert now.dtype == torch.float16
    assert torch.equal(now, (was + product(tensors, f"unet.{TO_K}")).half())


@pytest.mark.slow
def test_its_digest_is_of_both_files(made: Any) -> None:
    root, _, tensors = made
    first = library(root).find("new").digest
    assert first != library(root).find("old").digest
    save_file({**tensors, f"unet.{NORM}": tensors[f"unet.{NORM}"] * 2}, root / "new.safetensors")
    second = library(root).find("new").digest
    unet = root / "old" / "unet" / "config.json"
    unet.write_text(unet.read_text() + "\n")
    assert len({first, second, library(root).find("new").digest}) == 3


@pytest.mark.slow
def test_the_file_alone_is_told_from_a_lora_and_from_a_unet(made: Any) -> None:
    root, nets, tensors = made
    found = identify(read_header(root / "new.safetensors"))
    assert (found.kind, found.in_channels, found.rank, found.modules) == ("difference", CHANNELS, RANK, 3)
    assert found.context_width == nets["unet"].config["cross_attention_dim"]
    lora = {k: v for k, v in tensors.items() if ".lora_" in k}
    save_file(lora, root / "lora.safetensors")
    assert identify(read_header(root / "lora.safetensors")).kind == "lora"
    save_file({f"unet.{k}": v.contiguous() for k, v in nets["unet"].state_dict().items()}, root / "unet.safetensors")
    assert identify(read_header(root / "unet.safetensors")).kind == "unet"
    save_file({"unet.conv_in.weight": tensors["unet.conv_in.weight"]}, root / "first.safetensors")
    assert identify(read_header(root / "first.safetensors")).kind == "difference"


def letter(root: Path, change: Any = None, card: dict[str, str] | None = None, name: str = "new") -> str:
    tensors = change(dict(load(root))) if change else load(root)
    save_file(tensors, root / "new.safetensors")
    if card is not None:
        (root / "new.card.json").write_text(json.dumps(card))
    with pytest.raises(InfuseError) as error:
        outline(library(root).find(name))
    assert error.value.field == "model"
    return error.value.message


def load(root: Path) -> dict[str, Tensor]:
    from infuse.weights.formats import read_tensors

    return {k: t.clone() for k, t in read_tensors(root / "new.safetensors").items()}


@pytest.mark.slow
def test_a_base_that_is_nowhere_is_a_letter(made: Any) -> None:
    root, *_ = made
    assert 'nothing says to which. Write it into new.card.json beside it: {"infuse_base"' in letter(root, card={})
    said = letter(root, card={"infuse_base": "gone"})
    assert 'added to the base model "gone"' in said and "was not found" in said
    assert "to new.safetensors itself" in letter(root, card={"infuse_base": "new.safetensors"})
    save_file({"a": torch.ones(1)}, root / "odd.safetensors")
    assert "this field needs a base model" in letter(root, card={"infuse_base": "odd.safetensors"})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "says"),
    [  # each has a base to be written: the quick suite asks for two
        pytest.param(lambda t: {**t, f"unet.{TO_K}.lora_down.weight": torch.ones(RANK, 7)}, f"changes unet.{TO_K}.weight of another base, of shape", marks=pytest.mark.slow),
        (lambda t: {**t, f"unet.{NORM}": torch.ones(3)}, f'changes unet.{NORM} of another base, of shape (3,); "'),
        pytest.param(lambda t: {**t, "unet.nowhere.weight": torch.ones(3)}, "has no such tensor", marks=pytest.mark.slow),
        pytest.param(lambda t: {**t, "unet.conv_in.weight": torch.ones(7, 5, 3, 3)}, "changes unet.conv_in.weight of another base", marks=pytest.mark.slow),
        pytest.param(lambda t: {**t, f"text_encoder.{WORDS}.lora_up.weight": torch.ones(9, RANK)}, f"changes text_encoder.{WORDS}", marks=pytest.mark.slow),
        (lambda t: {k: v for k, v in t.items() if k != f"unet.{CONV}.lora_up.weight"}, f"unet.{CONV} has one factor of two"),
    ],
)  # fmt: skip
def test_another_base_s_difference_is_a_letter_before_anything_is_loaded(made: Any, change: Any, says: str) -> None:
    root, *_ = made
    assert says in letter(root, change)
