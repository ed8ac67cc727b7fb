"""A base with another VAE or text encoder: it fits or there is a letter, it is used, and the network is shared."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import disk
import pytest
import torch
from safetensors.torch import save_file
from weights import ldm

import tiny
from infuse import Recipe, WeightsError
from infuse.engine.engine import Engine
from infuse.engine.model_store import ModelStore
from infuse.errors import InfuseError


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base in a folder, and parts beside it in every layout."""
    folder = tmp_path_factory.mktemp("world")
    disk.base(folder / "base", image_encoder=False)
    disk.base(folder / "other", image_encoder=False)
    other = changed(tiny.vae())
    other.save_pretrained(folder / "vae")
    state = {k: v.contiguous() for k, v in other.state_dict().items()}
    save_file(state, folder / "vae_diffusers.safetensors")
    save_file({k: v.contiguous() for k, v in ldm.ldm_vae(other).items()}, folder / "vae_ldm.safetensors")
    baked = {f"first_stage_model.{k}": v.contiguous() for k, v in ldm.ldm_vae(other).items()}
    save_file(baked, folder / "baked.safetensors")
    torch.save({"state_dict": state}, folder / "vae.pt")
    other.save_pretrained(folder / "other" / "vae")
    text = tiny.text_encoder(32, False, 77)
    text.save_pretrained(folder / "text")
    save_file(
        {
            f"text_model.{k}".replace("text_model.text_model", "text_model"): v.contiguous()
            for k, v in text.state_dict().items()
        },
        folder / "text.safetensors",
    )
    text.save_pretrained(folder / "other" / "text_encoder")
    return folder


def changed(vae: Any, seed: int = 5) -> Any:
    """The same network with other weights."""
    out, g = copy.deepcopy(vae), torch.Generator().manual_seed(seed)
    for p in out.parameters():
        p.data += 0.1 * torch.randn(p.shape, generator=g)
    return out


@pytest.fixture(scope="module")
def engine(world: Path) -> Engine:
    return Engine(str(world / "base"), store=ModelStore(dtype="float32", device="cpu"))


def ask(**fields: Any) -> Recipe:
    return Recipe(**{"prompt": "a cube", "width": 32, "height": 32, "steps": 2, "seed": 3, "guidance": 1, **fields})


PLACES = ("vae", "vae_diffusers.safetensors", "vae_ldm.safetensors", "baked.safetensors", "vae.pt", "other")


@pytest.mark.slow
@pytest.mark.parametrize("name", PLACES)
def test_a_vae_decodes_from_wherever_it_lies(engine: Engine, world: Path, name: str) -> None:
    vae = str(world / name)
    found = engine.check(ask(vae=vae))
    plain, dressed = engine.run_all(ask(), ask(vae=vae))
    assert torch.equal(plain.latents, dressed.latents) and plain.images[0].tobytes() != dressed.images[0].tobytes()
    right = changed(tiny.vae()).decode(dressed.latents / tiny.vae().config.scaling_factor).sample
    shades = ((right / 2 + 0.5).clamp(0, 1)[0].permute(1, 2, 0) * 255).round().to(torch.uint8).detach().numpy()
    assert dressed.images[0].tobytes() == shades.tobytes()
    assert set(dressed.weights) == {str(world / "base"), vae} and dressed.recipe.vae == vae
    assert found.memory > engine.check(ask()).memory and found.asked.digest != ask(model=str(world / "base")).digest


@pytest.mark.slow
@pytest.mark.parametrize("name", ("text", "text.safetensors", "other"))
def test_a_text_encoder_is_heard_from_wherever_it_lies(engine: Engine, world: Path, name: str) -> None:
    plain, dressed = engine.run_all(ask(), ask(text_encoder=str(world / name)))
    assert not torch.equal(plain.latents, dressed.latents)
    small = tiny.base("sd1")
    from dataclasses import replace

    from infuse.encoders.text import TextEncoders

    texts = TextEncoders([tiny.text_encoder(32, False, 77)], small.base.texts.tokenizers)
    right = tiny.engine(tiny.Tiny("sd1", small.parts, replace(small.base, texts=texts))).run(ask(model="tiny"))
    assert torch.allclose(right.latents, dressed.latents, atol=1e-5)


def test_a_vae_encodes_what_comes_in(engine: Engine, world: Path, tmp_path: Path) -> None:
    start = [{"kind": "img2img", "image": str(disk.picture(tmp_path / "a.png")), "strength": 0.5}]
    plain, dressed = engine.run_all(ask(conditions=start), ask(conditions=start, vae=str(world / "vae")))
    assert not torch.equal(plain.latents, dressed.latents)


def test_jobs_with_different_vaes_share_network_calls(engine: Engine, world: Path) -> None:
    alone = [engine.run(ask(vae=v, seed=i)) for i, v in enumerate((None, str(world / "vae"), str(world / "other")))]
    rows: list[int] = []
    network = engine.store.base(str(world / "base")).network
    inner = network.predict

    def counted(batch: Any, *more: Any) -> Any:
        rows.append(len(batch.x))
        return inner(batch, *more)

    network.predict = counted  # type: ignore[method-assign]
    try:
        names = (None, str(world / "vae"), str(world / "other"))
        texts = (str(world / "text"),)
        together = engine.run_all(*(ask(vae=v, seed=i) for i, v in enumerate(names)), ask(text_encoder=texts[0]))
    finally:
        del network.predict
    assert rows == [4, 4]
    for a, b in zip(alone, together, strict=False):
        assert torch.allclose(a.latents, b.latents, rtol=1e-5, atol=1e-4)  # float32, in calls of another width


@pytest.mark.slow
def test_what_is_made_for_a_network_is_made_once(world: Path, tmp_path: Path) -> None:
    engine = Engine(str(world / "base"), store=ModelStore(dtype="float32", device="cpu"))
    disk.controlnet(tmp_path / "edges")
    hint = [{"kind": "controlnet", "model": str(tmp_path / "edges"), "image": str(disk.picture(tmp_path / "m.png"))}]
    engine.run_all(ask(conditions=hint), ask(conditions=hint, vae=str(world / "vae")))
    store = engine.store
    assert sum(e.key.what == "controlnet" for e in store._kept.entries) == 1
    base, dressed = (
        store.dressed(store.base(str(world / "base")), d) for d in ((None, None), (str(world / "vae"), None))
    )
    assert dressed is store.dressed(base, (str(world / "vae"), None)) and dressed.network is base.network
    held = store.held
    assert str(world / "vae") in store.loaded and store.unload(str(world / "vae")) > 0 and store.held < held
    assert not any(e.thing is dressed for e in store._kept.entries)
    store.dressed(base, (str(world / "vae"), str(world / "text")))
    store.unload(str(world / "base"))
    assert not any(e.key.what == ("dressed", "vae") for e in store._kept.entries)


@pytest.mark.slow
def test_modules_of_ones_own(world: Path) -> None:
    small = tiny.base("sd1")
    engine = tiny.engine(small)
    engine.store.add("mine", changed(tiny.vae()))
    other = tiny.base("sd1")
    from dataclasses import replace

    engine.store.add("second", replace(other.base, vae=changed(tiny.vae())))
    a, b, c = engine.run_all(ask(), ask(vae="mine"), ask(vae="second"))
    assert a.images[0].tobytes() != b.images[0].tobytes() == c.images[0].tobytes()


# ── letters ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _vae(folder: Path, **config: Any) -> str:
    from diffusers import AutoencoderKL

    plain = {"block_out_channels": (32, 64), "down_block_types": ("DownEncoderBlock2D",) * 2, "latent_channels": 4,
             "up_block_types": ("UpDecoderBlock2D",) * 2, "norm_num_groups": 8, **config}  # fmt: skip
    AutoencoderKL(**plain).save_pretrained(folder)
    return str(folder)


def _tiny_vae(folder: Path) -> str:
    from diffusers import AutoencoderTiny

    AutoencoderTiny().save_pretrained(folder)
    return str(folder)


def _asymmetric(path: Path) -> str:
    state = {k: v.contiguous() for k, v in tiny.vae().state_dict().items()}
    save_file(state | {"decoder.condition_encoder.layers.0.weight": torch.zeros(2, 2)}, path)
    return str(path)


def _decoder(path: Path) -> str:
    state = {k: v.contiguous() for k, v in tiny.vae().state_dict().items() if "encoder" not in k and not k.startswith("quant")}  # fmt: skip
    save_file(state, path)
    return str(path)


def _lora(path: Path) -> str:
    save_file({"lora_unet_mid_block_attentions_0_proj_in.lora_down.weight": torch.zeros(4, 32),
               "lora_unet_mid_block_attentions_0_proj_in.lora_up.weight": torch.zeros(32, 4)}, path)  # fmt: skip
    return str(path)


def _text(folder: Path, width: int) -> str:
    tiny.text_encoder(width, False, 1).save_pretrained(folder)
    return str(folder)


def _few(folder: Path) -> str:
    from transformers import CLIPTextConfig, CLIPTextModel

    CLIPTextModel(CLIPTextConfig(vocab_size=100, hidden_size=32, intermediate_size=40, num_attention_heads=4, num_hidden_layers=1)).save_pretrained(folder)  # fmt: skip
    return str(folder)


BAD: list[tuple[str, Any, tuple[str, ...]]] = [
    ("vae", lambda p: _vae(p / "x", latent_channels=16), ("16 channels (the VAE of SD3 or FLUX.1)", "have 4")),
    ("vae", lambda p: _vae(p / "x", block_out_channels=(32, 32, 64), down_block_types=("DownEncoderBlock2D",) * 3,
                           up_block_types=("UpDecoderBlock2D",) * 3), ("4 pixels", "has 2")),
    ("vae", lambda p: _tiny_vae(p / "x"), ("TAESD", "preview=")),
    ("vae", lambda p: _decoder(p / "x.safetensors"), ("a decoder alone", "whole VAE")),
    ("vae", lambda p: _asymmetric(p / "x.safetensors"), ("also reads a masked picture",)),
    ("vae", lambda p: _lora(p / "x.safetensors"), ("a LoRA", "needs a VAE")),
    ("vae", lambda p: str(p / "missing.safetensors"), ("was not found",)),
    ("text_encoder", lambda p: _text(p / "x", 48), ("48 wide", "speaks 32")),
    ("text_encoder", lambda p: _few(p / "x"), ("knows 100 words", "has 49,408")),
    ("text_encoder", lambda p: _vae(p / "x"), ("a VAE", "needs a text encoder")),
    ("text_encoder", lambda p: str(p / "missing"), ("was not found",)),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("field", "make", "words"), BAD)
def test_what_does_not_fit_is_a_letter_before_loading(
    world: Path, tmp_path: Path, field: str, make: Any, words: tuple[str, ...]
) -> None:
    engine = Engine(str(world / "base"), store=ModelStore(dtype="float32", device="cpu"))
    name = make(tmp_path)
    for warm in (False, True):
        if warm:
            engine.store.base(str(world / "base"))
        with pytest.raises(InfuseError) as letter:
            engine.check(ask(**{field: name}))
        assert letter.value.field == field, letter.value
        assert all(w in letter.value.message for w in words), letter.value.message
        assert warm or not engine.store.loaded


def test_another_scaling_factor_is_used_and_warned_of(world: Path, tmp_path: Path, engine: Engine) -> None:
    other = changed(tiny.vae())
    other.register_to_config(scaling_factor=0.5)
    other.save_pretrained(tmp_path / "vae")
    with pytest.warns(match="scaling factor of 0.5"):
        made = engine.run(ask(vae=str(tmp_path / "vae")))
    right = other.decode(made.latents / 0.5).sample
    shades = ((right / 2 + 0.5).clamp(0, 1)[0].permute(1, 2, 0) * 255).round().to(torch.uint8).detach().numpy()
    assert made.images[0].tobytes() == shades.tobytes()


@pytest.mark.slow
def test_a_vae_that_fits_half_precision_stays_in_it(world: Path, tmp_path: Path) -> None:
    """As sdxl-vae-fp16-fix says in its config; the original says force_upcast, and is kept in float32."""
    for upcast, dtype in ((False, torch.float16), (True, torch.float32)):
        vae = tiny.vae()
        vae.register_to_config(scaling_factor=0.13025, force_upcast=upcast)
        vae.save_pretrained(tmp_path / f"{upcast}")
        store = ModelStore(dtype="float16", device="cpu")
        assert store.dressed(store.base(str(world / "base")), (str(tmp_path / f"{upcast}"), None)).vae.dtype == dtype


@pytest.mark.slow
def test_a_vae_that_was_replaced_on_the_disk_is_read_again(world: Path, tmp_path: Path, engine: Engine) -> None:
    changed(tiny.vae()).save_pretrained(tmp_path / "vae")
    first = engine.check(ask(vae=str(tmp_path / "vae")))
    a = engine.run(first)
    changed(tiny.vae(), 9).save_pretrained(tmp_path / "vae")
    assert engine.check(ask(vae=str(tmp_path / "vae"))).version != first.version
    assert engine.run(first).images[0].tobytes() != a.images[0].tobytes()


def test_task_tokens_keep_their_text_encoder(world: Path) -> None:
    engine = tiny.engine(tiny.powerpaint1())
    with pytest.raises(WeightsError, match="task tokens inside") as letter:
        engine.check(ask(text_encoder=str(world / "text")))
    assert letter.value.field == "text_encoder"
