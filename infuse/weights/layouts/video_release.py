"""VideoComposer and ModelScope's text-to-video were released as loose files; which one is what is known here.

A UNet (`non_ema_228000.pth`, `text2video_pytorch_model.pth`), a checkpoint of which only the VAE is used
(`v2-1_512-ema-pruned.ckpt`, `VQGAN_autoencoder.pth`), and OpenCLIP's ViT-H/14 for words and pictures
(`open_clip_pytorch_model.bin`). Reads names and headers only; imports no torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from infuse.errors import WeightsError
from infuse.weights.formats import SUFFIXES, Entry, Header, read_header
from infuse.weights.layouts import ldm_configs, ldm_keys, video_keys

UNET = re.compile(r"non_ema_(\d+).*|text2video_pytorch_model")
VAES = ("v2-1_512-ema-pruned", "VQGAN_autoencoder")
CLIP = "open_clip_pytorch_model"
ANNOTATORS = ("midas_v3_dpt_large", "sketch_simplification_gan", "table5_pidinet")
"""They lie in VideoComposer's release as well and belong to its conditions."""


@dataclass(frozen=True)
class VideoRelease:
    """The files of one release; None where one is missing."""

    unet: Path
    vae: Path | None
    clip: Path | None
    spare: tuple[Path, ...] = ()
    """Other UNets beside it, of fewer steps."""
    field: str = "model"
    """Of the recipe; what letters about a broken file name."""

    @property
    def folder(self) -> Path:
        return self.unet.parent

    def find(self, part: str) -> tuple[Header, str] | None:
        """The file that holds a component (unet, vae, text_encoder, image_encoder), and what stands before its keys."""
        marker, files = {
            "unet": ("input_blocks.0.0.weight", (self.unet,)),
            "vae": ("decoder.conv_in.weight", (self.vae,)),
            "text_encoder": ("token_embedding.weight", (self.clip, self.vae)),  # an SD 2.x checkpoint has its text encoder, too
            "image_encoder": ("visual.class_embedding", (self.clip,)),
        }[part]  # fmt: skip
        for path in files:
            header = read_header(path, self.field) if path else {}
            found = [k[: -len(marker)] for k in header if k == marker or k.endswith(f".{marker}")]
            prefix = min(found, key=len, default=None)
            if isinstance(header, Header) and prefix is not None:
                prefix += "visual." if part == "image_encoder" else ""
                if part != "text_encoder" or f"{prefix}positional_embedding" in header:
                    return header, prefix
        return None

    def names(self, part: str) -> dict[str, str]:
        """Stored key -> diffusers name of the tensors of one component that are read; {} if there are none."""
        place = self.find(part)
        if place is None:
            return {}
        header, prefix = place
        shapes = header.shapes(prefix)
        if part == "unet":
            names = {k: k for k in shapes if not k.startswith(video_keys.FPS)}  # without a use, so not kept
        elif part == "vae":
            names = ldm_keys.vae(shapes)
        elif part == "text_encoder":
            names = ldm_keys.open_clip_heard(shapes)
        else:
            names = ldm_keys.open_clip_visual(shapes)
        return {prefix + k: name for k, name in names.items()}

    def table(self, part: str) -> dict[str, Entry]:
        """The tensors of one component that are read, by stored key without what stands before it."""
        place = self.find(part)
        return {k.removeprefix(place[1]): place[0][k] for k in self.names(part)} if place else {}

    def vision_config(self) -> dict[str, int | str]:
        """Config of its image encoder; {} without one."""
        shapes = {
            name: e.shape[::-1] if k.endswith(".proj") else e.shape
            for (k, name), e in zip(
                self.names("image_encoder").items(), self.table("image_encoder").values(), strict=True
            )
        }
        return ldm_configs.vision(shapes) if shapes else {}

    def missing(self, name: str, parts: Mapping[str, str]) -> WeightsError:
        """The letter about components that neither the release nor its `infuse_base` has: part -> what it is."""
        files = [VAES[0] + ".ckpt (VideoComposer) or VQGAN_autoencoder.pth (ModelScope)"] * ("vae" in parts)
        files += [CLIP + ".bin"] * ("text_encoder" in parts)
        told = " and no ".join(parts.values())
        return WeightsError(self.field, f'"{name}" is a video UNet in its original form, but there is no {told} with it. Put '
                                   f"{', and '.join(files)}, of the same release, into {self.folder}; or write a "
                                   'model_index.json there that names an SD 2.1 folder to lend them: {"infuse_base": "path"}.')  # fmt: skip


def release_at(path: Path, field: str = "model") -> VideoRelease | None:
    """The release in a folder, or around one UNet's file; None if it is something else."""
    if path.is_file():
        return _around(path, field) if _is_unet(path) else None
    if not path.is_dir() or (path / "unet").is_dir():
        return None
    files = [p for p in path.iterdir() if p.suffix in SUFFIXES and p.is_file()]
    known = sorted((p for p in files if UNET.fullmatch(p.stem)), key=_steps)
    if not known and any(p.stem in VAES for p in files):
        others = [p for p in files if p.stem not in (*VAES, CLIP, *ANNOTATORS)]
        known = [p for p in sorted(others) if _is_unet(p)]
    return _around(known[-1], field, tuple(known[:-1])) if known else None


def _around(unet: Path, field: str, spare: tuple[Path, ...] = ()) -> VideoRelease:
    def beside(*stems: str) -> Path | None:
        return next((p for s in stems for x in SUFFIXES if (p := unet.with_name(s + x)).is_file()), None)

    return VideoRelease(unet, beside(*VAES), beside(CLIP), spare, field)


def _steps(path: Path) -> tuple[int, str]:
    m = UNET.fullmatch(path.stem)
    return int((m and m[1]) or 0), path.name


def _is_unet(path: Path) -> bool:
    try:
        found = video_keys.identity(read_header(path))
    except WeightsError:  # a broken file: whoever reads it next says so
        return False
    return found is not None and found.layout == "unet_sd"


def is_loose(path: Path) -> bool:
    """Is this the file of such a UNet, beside a model_index.json that may name who lends the rest?"""
    return path.is_file() and path.with_name("model_index.json").is_file() and _is_unet(path)


def needed(files: list[str]) -> list[str]:
    """Of a repository's files, those of such a release; [] if it is none."""
    top = [f for f in files if "/" not in f and f.endswith(SUFFIXES)]
    unets = sorted((f for f in top if UNET.fullmatch(Path(f).stem)), key=lambda f: _steps(Path(f)))
    return [unets[-1], *(f for f in top if Path(f).stem in (*VAES, CLIP))] if unets else []
