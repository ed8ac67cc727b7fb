"""Files as strangers bring them: real models by their headers alone (sparse, no bytes on the disk), and broken ones."""

from __future__ import annotations

import io
import json
import pickle
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import disk
import numpy as np
from PIL import Image
from weights import full, ldm


def sparse(path: Path, shapes: Mapping[str, Any]) -> Path:
    """A .safetensors file of halves with these shapes: a true header, then a hole as long as the data would be."""
    table: dict[str, Any] = {}
    at = 0
    for key, value in shapes.items():
        shape = tuple(getattr(value, "shape", value))
        size = 2 * int(np.prod(shape, dtype=np.int64))
        table[key] = {"dtype": "F16", "shape": shape, "data_offsets": [at, at := at + size]}
    head = json.dumps(table).encode()
    with path.open("wb") as f:
        f.write(struct.pack("<Q", len(head)) + head)
        f.truncate(8 + len(head) + at)
    return path


def lora(context: int) -> dict[str, tuple[int, ...]]:
    key = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    return {f"{key}.lora_down.weight": (8, context), f"{key}.lora_up.weight": (320, 8)}


def models(folder: Path) -> None:
    """Real shapes of public models."""
    plain, norm = {"proj.weight": (3072, 1024)}, {"norm.weight": (768,), "norm.bias": (768,)}
    everything = {
        "sd15": full.checkpoint("sd15"), "sd15-inpaint": full.checkpoint("sd15-inpaint"), "pix2pix": full.checkpoint("pix2pix"),
        "sdxl": full.checkpoint("sdxl"), "refiner": full.checkpoint("refiner"),
        "canny15": ldm.ldm_controlnet(full.controlnet("sd15")), "canny-xl": full.controlnet("sdxl").state_dict(),
        "ip15": full.ip_adapter(768, plain | norm), "ip-xl": full.ip_adapter(2048, {"proj.weight": (8192, 1280)}, 70),
        "ip-short": full.ip_adapter(768, plain | norm, layers=4),
        "faceid": full.ip_adapter(768, {"proj.0.weight": (1024, 512), "proj.2.weight": (3072, 1024), "norm.weight": (768,)}),
        "lora": lora(768), "flux": {"double_blocks.0.img_attn.norm.key_norm.scale": (128,)}, "odd": {"a": (1,), "b": (2,)},
        "brush15": full.brushnet(attention=False), "powerpaint2/diffusion_pytorch_model": full.brushnet(),
        "powerpaint2/model": full.wrapped_clip(), "powerpaint-nine/diffusion_pytorch_model": full.brushnet(),
        "powerpaint-nine/model": full.wrapped_clip(9),
        "vae": {k.removeprefix("first_stage_model."): v for k, v in full.checkpoint("sd15").items() if k.startswith("first_stage")},
    }  # fmt: skip
    for name, shapes in everything.items():
        (folder / name).parent.mkdir(exist_ok=True)
        sparse(folder / f"{name}.safetensors", shapes)
    for name, hidden, projection in (("vit-h", 1280, 1024), ("bigg", 1664, 1280)):
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(
            json.dumps({"hidden_size": hidden, "projection_dim": projection, "image_size": 224})
        )
    (folder / "no-eye").mkdir()
    (folder / "no-eye" / "config.json").write_text("{}")


class Burglar:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> Any:
        return (Path.touch, (Path("burgled"),))


def broken(folder: Path) -> None:
    """Files that are not what they are called."""
    sound = (folder / "ip15.safetensors").read_bytes()[:5000]
    for name, content in {
        "empty.safetensors": b"", "html.safetensors": b"<!DOCTYPE html><html>Sign in</html>" * 20, "cut.safetensors": sound,
        "lfs.safetensors": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4265380512\n",
        "burglar.ckpt": pickle.dumps({"state_dict": Burglar()}, protocol=2), "words.png": b"no picture", "empty.png": b"",
        "renamed.safetensors": pickle.dumps({"a": 1}, protocol=2), "gguf.safetensors": b"GGUF" + bytes(600),
        "list.yaml": b"- a\n- b\n", "broken.yaml": b"prompt: {", "binary.yaml": b"\xff\xfe\x00\x80", "empty.yaml": b"", "number.yaml": b"1: 2\n",
        "twice.json": b'{"prompt": "x", "prompt": "y"}', "twice.yaml": b"conditions:\n- {kind: text, weight: 1, weight: 2}\n", "broken.json": b'{"prompt": ',
        "typo.yaml": b"promt: x\n", "newer.png": with_text({"infuse": json.dumps({"recipe": {"flavour": 1}})}),
        "damaged.png": with_text({"infuse": "{"}), "foreign.png": with_text({"parameters": "a cat\nSteps: 20"}),
    }.items():  # fmt: skip
        (folder / name).write_bytes(content)
    whole = (folder / "a.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "folder").mkdir()


def with_text(text: Mapping[str, str]) -> bytes:
    from PIL.PngImagePlugin import PngInfo

    info, buffer = PngInfo(), io.BytesIO()
    for key, value in text.items():
        info.add_itxt(key, value)
    Image.new("RGB", (16, 16)).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def pictures(folder: Path) -> None:
    disk.picture(folder / "a.png", (512, 512))
    disk.picture(folder / "small.png", (256, 256))
    disk.picture(folder / "dot.png", (1, 1))
    disk.picture(folder / "odd.png", (517, 300))
    disk.mask(folder / "mask.png", (512, 512))
    disk.mask(folder / "mask256.png", (256, 256))
    Image.new("L", (512, 512)).save(folder / "black.png")
    Image.new("1", (20_000, 8)).save(folder / "wide.png")
    Image.new("1", (16_000, 16_000)).save(folder / "vast.png")


def everything(folder: Path) -> Path:
    pictures(folder)
    models(folder)
    broken(folder)
    return folder
