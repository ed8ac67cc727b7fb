"""Video bases from the disk: diffusers folders, the loose files of two releases, infuse's own `composer/`; and their letters."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, UNet3DConditionModel
from goldens.golden import Golden
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModelWithProjection

import tiny
from infuse import ControlNet, Recipe
from infuse.encoders.kit import Base, Kit
from infuse.encoders.text import TextEncoders
from infuse.engine.engine import Engine
from infuse.engine.shelf import Shelf
from infuse.errors import WeightsError
from infuse.network.stc import Composer, STCEncoder, StyleMLP
from infuse.network.video import VideoNetwork
from infuse.weights import hub, ldm_keys
from infuse.weights.base import load_base
from infuse.weights.composer import save_composer, to_folder
from infuse.weights.library import Library
from infuse.weights.outline import outline
from infuse.weights.source import Source
from infuse.weights.tokenizer import clip_tokenizer
from infuse.weights.video_composer import VideoParts, build, read, write

from . import full, ldm

pytestmark = pytest.mark.slow  # half of the fast suite's time, for loaders that seldom change

RELEASED = {"depth": 1, "motion": 2, "sketch": 1, "single_sketch": 1, "local_image": 3, "masked": 4}
ASKED = {"prompt": "a red cube moves", "steps": 2, "width": 32, "height": 32, "frames": 3, "scheduler": "DDIM"}


@cache
def golden() -> dict[str, Tensor]:
    """A tiny VideoComposer's file: seven conditions, style and frame rate."""
    return Golden("videocomposer_unet").weights()


def text_to_video() -> dict[str, Tensor]:
    """The same without what VideoComposer adds: ModelScope's file."""
    state = {k: t for k, t in golden().items() if "embedding" not in k and not k.startswith("pre_image")}
    return state | {"input_blocks.0.0.weight": state["input_blocks.0.0.weight"][:, :4].clone()}


class OpenClipVisual(nn.Module):
    """OpenCLIP's image tower as it is written there: fused projections, the class token first, a projection at the end."""

    def __init__(self, width: int = 128, layers: int = 2, patch: int = 8, side: int = 32, out: int = 32) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, patch, patch, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(width) * 0.1)
        self.positional_embedding = nn.Parameter(torch.randn((side // patch) ** 2 + 1, width) * 0.1)
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.transformer = nn.ModuleDict({"resblocks": nn.ModuleList(Block(width) for _ in range(layers))})
        self.proj = nn.Parameter(torch.randn(width, out) * 0.1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.expand(len(x), 1, -1), x], 1) + self.positional_embedding
        x = self.ln_pre(x)
        for block in self.transformer["resblocks"]:  # type: ignore[union-attr]
            x = block(x)
        return self.ln_post(x[:, 0]) @ self.proj


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, width // 64, batch_first=True)
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(width, 2 * width), "c_proj": nn.Linear(2 * width, width)})

    def forward(self, x: Tensor) -> Tensor:
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False)[0]
        return x + self.mlp["c_proj"](nn.functional.gelu(self.mlp["c_fc"](self.ln_2(x))))


def visual() -> OpenClipVisual:
    torch.manual_seed(3)
    return tiny.randomized(OpenClipVisual(), 4)  # type: ignore[return-value]


def open_clip() -> dict[str, Tensor]:
    state = ldm.open_clip_text(ldm.tiny_text(32, "gelu"), spare_layer=True)
    return {**state, **ldm.prefixed("visual.", visual().state_dict())}


def release(folder: Path, unet: str = "non_ema_228000.pth", vae: str = "v2-1_512-ema-pruned.ckpt") -> Path:
    """VideoComposer's files as they were released, or ModelScope's."""
    folder.mkdir(parents=True)
    torch.save(golden() if unet.startswith("non_ema") else text_to_video(), folder / unet)
    whole = ldm.prefixed("first_stage_model.", ldm.ldm_vae(ldm.tiny_vae()))
    whole |= {"model.diffusion_model.input_blocks.0.0.bias": torch.zeros(99), "model_ema.decay": torch.zeros(1)}
    torch.save({"global_step": 1, "state_dict": whole}, folder / vae)
    torch.save(open_clip(), folder / "open_clip_pytorch_model.bin")
    for name in ("midas_v3_dpt_large.pth", "table5_pidinet.pth"):
        torch.save({"a": torch.zeros(2)}, folder / name)
    return folder


def engine() -> Engine:
    return Engine(shelf=Shelf(dtype=torch.float32, device="cpu"))


def by_hand(state: dict[str, Tensor], folder: Path) -> Base:
    """The same base, put together from modules in memory."""
    made, text, vae = build(read(state), torch.float32), ldm.tiny_text(32, "gelu"), ldm.tiny_vae()
    spec = outline(Source("m", folder)).spec
    composer = Composer(made.stc, made.style) if made.style else None
    return Base(
        "m",
        VideoNetwork(made.unet, spec),
        vae,
        TextEncoders([text], [clip_tokenizer("!")]),
        tiny.SCHEDULE,
        composer=composer,
    )


def same(a: nn.Module, b: nn.Module) -> None:
    left, right = a.state_dict(), b.state_dict()
    assert left.keys() == right.keys()
    assert all(torch.equal(left[k], right[k]) for k in left)


def outlined(source: Source) -> Any:
    """Headers tell what loading finds, and how much memory it takes."""
    told, parts = outline(source), load_base(source)
    assert replace(told.spec, config={}) == replace(parts.spec, config={})
    assert told.scheduler_config == parts.scheduler_config
    assert (told.vision_config is None) == (parts.image_encoder is None)
    shelf = Shelf(dtype=torch.float32, device="cpu")
    estimated = shelf.beside(str(source.path)).memory
    shelf.base(str(source.path))
    assert shelf.beside(str(source.path)).memory == estimated
    return parts


@pytest.mark.parametrize(("unet", "vae", "state", "kind"), [
    ("non_ema_228000.pth", "v2-1_512-ema-pruned.ckpt", golden, "a VideoComposer"),
    ("text2video_pytorch_model.pth", "VQGAN_autoencoder.pth", text_to_video, "a video base model"),
])  # fmt: skip
def test_a_release_runs_as_the_same_modules_in_memory(
    unet: str, vae: str, state: Any, kind: str, tmp_path: Path
) -> None:
    folder = release(tmp_path / "release", unet, vae)
    source = Library(offline=True).find(str(folder))
    assert source.identity.described.startswith(kind) and source.identity.kind == "base"
    parts = outlined(source)
    spec, composer = parts.spec, unet.startswith("non_ema")
    assert (spec.frames, spec.guidance, spec.native_size, spec.vae_factor) == (16, 9.0, 64, 2)
    assert [s.name for s in spec.channel_slots] == ["stc"] * composer
    assert spec.compositions == (
        ("depth", "motion", "sketch", "single_sketch", "canny", "local_image", "masked") if composer else ()
    )
    assert spec.style == composer == (parts.composer is not None)
    assert parts.tokenizers[0].pad_token_id == 0
    assert parts.scheduler_config == {**tiny.SCHEDULE, "_class_name": "DDIMScheduler"}
    same(parts.text_encoders[0], ldm.tiny_text(32, "gelu"))
    same(parts.vae, ldm.tiny_vae())
    made = engine()
    made.shelf.add("m", by_hand(state(), folder))
    ours, theirs = made.run_all(Recipe(model=str(folder), **ASKED), Recipe(model="m", **ASKED))
    torch.testing.assert_close(ours.latents, theirs.latents, rtol=1e-5, atol=1e-5)
    assert len(ours.frames[0]) == 3 and len(made.shelf.digests(ours.recipe)[str(folder)]) == 64
    report = made.check(Recipe(model=str(folder), prompt="x"))
    assert report.size == (64, 64) and report.frames == 16


def test_the_file_of_the_unet_may_be_named_and_any_name_will_do(tmp_path: Path) -> None:
    folder = release(tmp_path / "r")
    whole = load_base(folder)
    same(load_base(folder / "non_ema_228000.pth").unet, whole.unet)
    ldm.save(folder / "mine.safetensors", golden())
    (folder / "non_ema_228000.pth").unlink()
    for name in (folder, folder / "mine.safetensors"):
        parts = load_base(Library(offline=True).find(str(name)))
        same(parts.unet, whole.unet)
        same(parts.composer.stc, whole.composer.stc)


def test_of_two_unets_the_longer_trained_is_taken_and_said(tmp_path: Path) -> None:
    folder = release(tmp_path / "r")
    torch.save(golden(), folder / "non_ema_141000_no_watermark.pth")
    source = Source("r", folder)
    assert source.release and source.release.unet.name == "non_ema_228000.pth"
    assert any("non_ema_141000_no_watermark.pth" in note for note in load_base(source).notes)


def test_the_image_tower_says_what_open_clip_s_says(tmp_path: Path) -> None:
    eye = load_base(release(tmp_path / "r")).image_encoder
    pixels = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(eye(pixels).image_embeds, visual()(pixels), rtol=1e-5, atol=1e-6)


def lender(folder: Path, width: int = 32, eye: bool = True) -> Path:
    parts = {"vae": ldm.tiny_vae(), "text_encoder": ldm.tiny_text(width, "gelu"), "unet": ldm.tiny_unet("sd2")}
    parts |= {"tokenizer": clip_tokenizer("!")} | ({"image_encoder": tiny.vision()[0]} if eye else {})
    for name, part in parts.items():
        part.save_pretrained(folder / name)
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text('{"prediction_type": "v_prediction"}')
    (folder / "model_index.json").write_text('{"unet": ["diffusers", "UNet2DConditionModel"]}')
    return folder


@pytest.mark.parametrize("lost", [("v2-1_512-ema-pruned.ckpt",), ("open_clip_pytorch_model.bin",),
                                  ("v2-1_512-ema-pruned.ckpt", "open_clip_pytorch_model.bin")])  # fmt: skip
@pytest.mark.parametrize("by_file", [False, True])
def test_what_is_missing_may_be_lent(lost: tuple[str, ...], by_file: bool, tmp_path: Path) -> None:
    lender(tmp_path / "sd21")
    folder = release(tmp_path / "r")
    for name in lost:
        (folder / name).unlink()
    (folder / "model_index.json").write_text('{"infuse_base": "../sd21"}')
    parts = outlined(Library(offline=True).find(str(folder / "non_ema_228000.pth" if by_file else folder)))
    assert parts.spec.prediction == parts.scheduler_config["prediction_type"] == "epsilon"
    assert parts.spec.frames == 16 and parts.tokenizers[0].pad_token_id == 0
    assert (parts.image_encoder.config.hidden_size == 48) == ("open_clip_pytorch_model.bin" in lost)
    same(parts.vae, ldm.tiny_vae())
    same(parts.text_encoders[0], ldm.tiny_text(32, "gelu"))


def test_an_sd2_checkpoint_has_its_words_with_it(tmp_path: Path) -> None:
    folder = release(tmp_path / "r")
    (folder / "open_clip_pytorch_model.bin").unlink()
    whole = ldm.prefixed("first_stage_model.", ldm.ldm_vae(ldm.tiny_vae()))
    words = ldm.open_clip_text(ldm.tiny_text(32, "gelu"), spare_layer=True)
    torch.save(whole | ldm.prefixed("cond_stage_model.model.", words), folder / "v2-1_512-ema-pruned.ckpt")
    parts = outlined(Source(str(folder), folder))
    same(parts.text_encoders[0], ldm.tiny_text(32, "gelu"))
    assert parts.image_encoder is None and "there can be no style" in str(parts.notes)


def test_letters_name_the_missing_files_and_their_place(tmp_path: Path) -> None:
    folder = release(tmp_path / "r")
    (folder / "open_clip_pytorch_model.bin").unlink()
    for read_it in (load_base, outline):
        with pytest.raises(WeightsError) as letter:
            read_it(Source("composer", folder))
        assert "no text encoder" in letter.value.message and "open_clip_pytorch_model.bin" in letter.value.message
        assert str(folder) in letter.value.message and "infuse_base" in letter.value.message
    (folder / "v2-1_512-ema-pruned.ckpt").unlink()
    with pytest.raises(WeightsError, match=r"no VAE and no text encoder with it\. Put v2-1_512-ema-pruned\.ckpt"):
        engine().check(Recipe(model=str(folder / "non_ema_228000.pth")))
    lender(tmp_path / "sd15", width=48)
    (folder / "model_index.json").write_text('{"infuse_base": "../sd15"}')
    with pytest.raises(WeightsError, match="listens to words 32 wide, but the text encoder with it speaks 48"):
        engine().check(Recipe(model=str(folder)))


def test_video_bases_in_the_wrong_place(tmp_path: Path) -> None:
    folder = release(tmp_path / "r")
    base = tiny.engine(tiny.base("sd1"))
    said = {"image": tiny_picture(), "model": str(folder)}
    with pytest.raises(
        WeightsError, match="is a VideoComposer for .*needs a ControlNet. Use it as the recipe's `model`"
    ):
        base.check(Recipe(model="tiny", conditions=(ControlNet(**said),)))
    parts = read(text_to_video())
    ldm.save(tmp_path / "unet.safetensors", parts.unet)
    with pytest.raises(
        WeightsError, match="is the UNet of a video base model alone .*needs a base model. Use the whole model"
    ):
        base.check(Recipe(model=str(tmp_path / "unet.safetensors")))
    with pytest.raises(WeightsError, match="no place|incomplete|left over"):
        state = golden() | {"somebody.elses": torch.zeros(2)}
        torch.save(state, folder / "non_ema_228000.pth")
        load_base(folder)


def tiny_picture() -> Any:
    from PIL import Image

    return Image.new("RGB", (32, 32))


# ── diffusers folders ───────────────────────────────────────────────────────────────────────────────────────────────


def modelscope(folder: Path, in_channels: int = 4, **index: Any) -> Path:
    """A text-to-video folder as the Hub has it."""
    parts = tiny.video(in_channels).parts
    for name in ("unet", "vae", "text_encoder", "tokenizer"):
        parts[name].save_pretrained(folder / name)
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(tiny.SCHEDULE))
    said = {
        "_class_name": "TextToVideoSDPipeline",
        "unet": ["diffusers", "UNet3DConditionModel"],
        "infuse_family": "sd1",
    }
    (folder / "model_index.json").write_text(json.dumps({**said, **index}))
    return folder


def test_a_text_to_video_folder_runs_as_its_modules_in_memory(tmp_path: Path) -> None:
    folder = modelscope(tmp_path / "t2v", infuse_frames=4)
    source = Library(offline=True).find(str(folder))
    found = source.identity
    assert (found.kind, found.variant, found.layout, found.prediction) == ("base", "video", "diffusers", "epsilon")
    spec = outlined(source).spec
    assert (spec.frames, spec.guidance, spec.native_size) == (4, 9.0, 32)
    assert outline(Source("plain", modelscope(tmp_path / "plain"))).spec.frames == 16
    made = tiny.engine(tiny.video())
    ours, theirs = made.run_all(Recipe(model=str(folder), **ASKED), Recipe(model="tiny", **ASKED))
    torch.testing.assert_close(ours.latents, theirs.latents, rtol=1e-5, atol=1e-5)
    assert isinstance(made.shelf.base(str(folder)).network, VideoNetwork)


def test_a_video_unet_over_a_borrowed_rest(tmp_path: Path) -> None:
    lender(tmp_path / "sd21")
    tiny.video_unet().save_pretrained(tmp_path / "mine" / "unet")
    (tmp_path / "mine" / "model_index.json").write_text('{"infuse_base": "../sd21", "infuse_guidance": 6}')
    parts = outlined(Library(offline=True).find(str(tmp_path / "mine")))
    assert parts.spec.frames == 16 and parts.spec.guidance == 6 and parts.composer is None


def composer(style: int | None = 32, dim: int = 8, layers: int = 2) -> Composer:
    torch.manual_seed(8)
    stc = nn.ModuleDict({"motion": STCEncoder(2, dim, layers), "depth": STCEncoder(1, dim, layers)})
    return Composer(stc.eval(), StyleMLP(style) if style else None)


@pytest.mark.parametrize("style", [32, None])
def test_infuse_s_own_layout(style: int | None, tmp_path: Path) -> None:
    folder, ours = modelscope(tmp_path / "m", 12), composer(style)
    save_composer(folder, ours)
    config = {"conditions": {"motion": 2, "depth": 1}, "layers": 2, "dim": 8, "style": style}
    assert json.loads((folder / "composer" / "config.json").read_text()) == config
    source = Library(offline=True).find(str(folder))
    assert source.identity.variant == "videocomposer"
    parts = outlined(source)
    assert (parts.spec.compositions, parts.spec.style) == (("motion", "depth"), style is not None)
    same(parts.composer.stc, ours.stc)
    if style:
        same(parts.composer.style, ours.style)
    plain = Source("m", modelscope(tmp_path / "plain", 12)).digest
    assert plain != source.digest


def test_composer_letters(tmp_path: Path) -> None:
    folder = modelscope(tmp_path / "m", 12)
    for wrong, says in (
        (composer(dim=4), "encoders of 4 channels .* takes 8"),
        (composer(style=48), "style network of width 48"),
    ):
        save_composer(folder, wrong)
        with pytest.raises(WeightsError, match=says):
            engine().check(Recipe(model=str(folder)))
    place = save_composer(folder, composer())
    config = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps({**config, "conditions": {"depth": 1, "motion": 2, "sketch": 1}}))
    with pytest.raises(WeightsError, match="lacks the encoder of sketch"):
        outline(Source("m", folder))
    (place / "config.json").write_text(json.dumps({**config, "conditions": {"depth": 1}}))
    with pytest.raises(WeightsError, match="no place in the network"):
        load_base(folder)
    (place / "config.json").write_text("{}")
    with pytest.raises(WeightsError, match='does not say its "conditions"'):
        outline(Source("m", folder))


def test_a_release_becomes_a_folder_and_stays_the_same(tmp_path: Path) -> None:
    loose = load_base(release(tmp_path / "r"))
    root = to_folder(loose, tmp_path / "folder")
    parts = outlined(Library(offline=True).find(str(root)))
    assert replace(parts.spec, name="", config={}) == replace(loose.spec, name="", config={})
    for name in ("unet", "vae", "image_encoder"):
        same(getattr(parts, name), getattr(loose, name))
    same(parts.text_encoders[0], loose.text_encoders[0])
    same(parts.composer.stc, loose.composer.stc)
    same(parts.composer.style, loose.composer.style)
    assert parts.tokenizers[0]("a cube").input_ids == loose.tokenizers[0]("a cube").input_ids
    assert parts.tokenizers[0].pad_token_id == 0 and parts.scheduler_config == loose.scheduler_config
    with pytest.raises(WeightsError, match="makes pictures"):
        to_folder(replace(loose, spec=replace(loose.spec, frames=0)), tmp_path / "no")


def test_what_the_encoders_say_to_each_window() -> None:
    clip, ours = tiny.video(12), composer()
    spec = replace(clip.base.network.spec, compositions=ours.names, style=True)
    base = replace(
        clip.base, network=VideoNetwork(clip.base.network.unet, spec), composer=ours.to("cpu", torch.float32)
    )
    kit = Kit(base, (32, 24), None, frames=6, windows=((0, 4), (2, 6)))
    video = torch.rand(1, 6, 50, 70)
    said = kit.stc("depth", video)
    assert set(said.pieces) == {(0, 4), (2, 6)}
    with torch.no_grad():
        for (a, b), piece in said.pieces.items():
            assert piece.shape == (8, b - a, 12, 16) and not piece.requires_grad
            torch.testing.assert_close(piece, ours.stc["depth"](video[None, :, a:b], (12, 16))[0])
        assert ours.style is not None
        zeros = ours.style(torch.zeros(1, 32))
        torch.testing.assert_close(kit.style(None), zeros)
        assert kit.style(torch.ones(32)).shape == (1, 32) and not torch.equal(kit.style(torch.ones(32)), zeros)
    whole = Kit(base, (32, 24), None, frames=6).stc("motion", torch.rand(2, 6, 24, 32))
    assert [tuple(p.shape) for p in whole.pieces.values()] == [(8, 6, 12, 16)]


# ── full size, headers alone ────────────────────────────────────────────────────────────────────────────────────────


def hollow(path: Path, state: dict[str, Tensor]) -> None:
    """A file with a real header over a hole: full-size shapes that take no place on the disk."""
    table, end = {}, 0
    for key, tensor in state.items():
        table[key] = {
            "dtype": "F16",
            "shape": list(tensor.shape),
            "data_offsets": [end, end := end + 2 * prod(tensor.shape)],
        }
    head = json.dumps(table).encode()
    with path.open("wb") as f:
        f.write(struct.pack("<Q", len(head)) + head)
        f.truncate(8 + len(head) + end)


@pytest.mark.parametrize(("name", "keys", "vae"), [("non_ema_228000.pth", 1_574, "v2-1_512-ema-pruned.ckpt"),
                                                   ("text2video_pytorch_model.pth", 1_480, "VQGAN_autoencoder.pth")])  # fmt: skip
def test_full_size_releases_are_checked_by_their_headers(name: str, keys: int, vae: str, tmp_path: Path) -> None:
    composed = keys == 1_574
    with init_empty_weights():
        unet, style = UNet3DConditionModel(in_channels=12 if composed else 4), StyleMLP()
        stc = {c: dict(STCEncoder(n).state_dict()) for c, n in RELEASED.items()} if composed else {}
        eye = OpenClipVisual(1280, 32, 14, 224, 1024)
        for block in eye.transformer["resblocks"]:  # type: ignore[union-attr]
            block.mlp = nn.ModuleDict({"c_fc": nn.Linear(1280, 5120), "c_proj": nn.Linear(5120, 1280)})
        words = ldm.open_clip_text(CLIPTextModel(CLIPTextConfig(**full.VIT_H)), spare_layer=True)
        decoder = ldm.ldm_vae(AutoencoderKL(**full.VAE))
        theirs = CLIPVisionModelWithProjection(CLIPVisionConfig(
            hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=16, patch_size=14, projection_dim=1024))  # fmt: skip
    state = write(VideoParts({}, dict(unet.state_dict()), stc, dict(style.state_dict()) if composed else None))
    assert len(state) == keys
    hollow(tmp_path / name, state)
    hollow(
        tmp_path / vae,
        ldm.prefixed("first_stage_model.", decoder) | ldm.prefixed("model.diffusion_model.", unet.state_dict()),
    )
    hollow(tmp_path / "open_clip_pytorch_model.bin", {**words, **ldm.prefixed("visual.", eye.state_dict())})
    report = Engine(shelf=Shelf(dtype=torch.float16, device="cpu")).check(Recipe(model=str(tmp_path), prompt="x"))
    spec = report.spec
    assert (spec.frames, spec.guidance, spec.context_width, report.size) == (16, 9.0, 1024, (256, 256))
    assert spec.compositions == (tuple(RELEASED) if composed else ()) and spec.style == composed
    assert spec.parameters == (1_411_256_900 if composed else 1_411_233_860)
    vision = outline(Source("m", tmp_path)).vision_config
    assert vision and {k: getattr(theirs.config, k) for k in vision if k != "hidden_act"} == {
        k: v for k, v in vision.items() if k != "hidden_act"
    }
    network = 1_413_435_636 if composed else 1_411_233_860
    rest = 83_653_863 + 340_387_840 + sum(p.numel() for p in theirs.parameters())  # VAE, 23 layers of words, pictures
    assert report.memory == 2 * (network + rest)
    found = ldm_keys.open_clip_visual(eye.state_dict())
    assert (
        len(found) == len(eye.state_dict()) and len(theirs.state_dict()) == len(found) + 2 * 2 * 32
    )  # three names for one


def test_which_files_of_a_release_to_take_from_the_hub() -> None:
    files = ["README.md", "configuration.json", "VQGAN_autoencoder.pth", "open_clip_pytorch_model.bin", "samples/a.gif",
             "text2video_pytorch_model.pth"]  # fmt: skip
    assert set(hub.needed(files)) == {f for f in files if f.endswith((".pth", ".bin"))}
    files = ["non_ema_141000.pth", "non_ema_228000.pth", "midas_v3_dpt_large.pth", "v2-1_512-ema-pruned.ckpt"]
    assert hub.needed(files) == ["non_ema_228000.pth", "v2-1_512-ema-pruned.ckpt"]
    assert "composer" in hub.COMPONENTS
