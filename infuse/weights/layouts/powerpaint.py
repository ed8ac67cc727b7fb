"""PowerPaint's checkpoints, as they were released: what lies where, and how their text encoders become stock ones.

v1: `unet/unet.safetensors` and `text_encoder/text_encoder.safetensors`, over stable-diffusion-inpainting. v2: a folder with
BrushNet weights and, beside them, the task encoder `pytorch_model.bin`. dev: save_pretrained folders whose token table
has 30 rows more. Plain BrushNets are loaded here as well. Headers are read without torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infuse.errors import WeightsError
from infuse.weights.formats import SUFFIXES, digest, read_header, read_tensors
from infuse.weights.identify import LEARNED, TASK_ROWS, VOCABULARY
from infuse.weights.kinds import wrong_kind
from infuse.weights.layouts.wrapped import unwrapped
from infuse.weights.source import Source, read_json, weights_of

if TYPE_CHECKING:
    import torch

    from infuse.encoders.tasks import TaskTexts
    from infuse.network.brushnet import BrushNet

Shapes = Mapping[str, tuple[int, ...]]
TABLE = "text_model.embeddings.token_embedding."
FOLDERS = ("PowerPaint_Brushnet", "brushnet")
"""Where a release keeps its BrushNet: v2, dev."""
ENCODERS = ("pytorch_model.bin", "model.safetensors", "text_encoder.safetensors", "pytorch_model.safetensors")
UNDER = ("runwayml/stable-diffusion-inpainting", "stable-diffusion-v1-5/stable-diffusion-inpainting")
"""What v1 was released as a difference to: lends its VAE, tokenizer, scheduler and configs."""
ORDER = ("P_ctxt", "P_shape", "P_obj")


def is_v1(folder: Path) -> bool:
    """UNet and text encoder in two folders, and no VAE: PowerPaint 1 as it was released, or as its dev trainer saves it."""
    two = ("unet", "text_encoder")
    here = all(any(p.suffix in SUFFIXES for p in (folder / part).glob("*")) for part in two)
    return here and not (folder / "vae").is_dir()


def is_v2(folder: Path) -> bool:
    """BrushNet and task encoder in one folder, without a config."""
    branch = any((folder / f"diffusion_pytorch_model{suffix}").is_file() for suffix in SUFFIXES)
    return branch and any((folder / name).is_file() for name in ENCODERS)


def tasks_of(source: Source) -> str:
    """Which generation's task tokens a base folder's text encoder has: v1, dev1, or "" for none.

    Raises WeightsError if it has some of them only.
    """
    if not source.is_folder or source.component("text_encoder") is None:
        return ""
    what = f'the text encoder of "{source.name}"'
    shapes = source.header.shapes("text_encoder/")
    return _generation(shapes, _words(source.component("tokenizer")), ("v1", "dev1"), what, source.field)


def _generation(shapes: Shapes, vocabulary: int, names: tuple[str, str], what: str, field: str) -> str:
    """The first name for a wrapped encoder, the second for one whose table has rows more than words; or ""."""
    learned = {k.rpartition(LEARNED)[2]: shape for k, shape in shapes.items() if LEARNED in k}
    if learned:
        lost = [name for name in ORDER if learned.get(name, (0,))[0] * len(ORDER) != TASK_ROWS]
        if lost:
            raise WeightsError(field, f"{what} is incomplete: the ten vectors of {', '.join(lost)} are missing, or are not ten. "
                                      "Download it again.")  # fmt: skip
        return names[0]
    rows = next((shape[0] for k, shape in shapes.items() if k.endswith("token_embedding.weight")), 0)
    return names[1] if rows == vocabulary + TASK_ROWS else ""


def _words(tokenizer: Path | None) -> int:
    """Entries of a tokenizer's own vocabulary, without added tokens."""
    return len(read_json(tokenizer / "vocab.json")) or VOCABULARY if tokenizer else VOCABULARY


def stock(tensors: Mapping[str, torch.Tensor], what: str, field: str) -> dict[str, torch.Tensor]:
    """A text encoder's tensors in a stock CLIP text model's names: learned blocks become the last rows of its table.

    `position_ids` and placeholders of other names (the v2 trainer's P_abc) are left out. Raises WeightsError when the
    table or a block is missing, or their widths differ.
    """
    import torch

    named = {f"text_model.{k.removeprefix('text_model.')}": t for k, t in tensors.items() if "position_ids" not in k}
    plain = {k: t for k, t in named.items() if LEARNED not in k and ".wrapped." not in k}
    if len(plain) == len(named):
        return plain
    table = named.get(f"{TABLE}wrapped.weight")
    blocks = [named.get(f"{TABLE}{LEARNED}{name}") for name in ORDER]
    if table is None or any(b is None or b.shape[1:] != table.shape[1:] for b in blocks):
        raise WeightsError(field, f"{what} is incomplete: its token table is missing, or of another width than its task tokens. "
                                  "Download it again.")  # fmt: skip
    return {**plain, f"{TABLE}weight": torch.cat([table, *(b.to(table) for b in blocks if b is not None)])}


def text_model(
    tensors: Mapping[str, torch.Tensor], config: Mapping[str, Any], dtype: Any, device: Any, what: str, field: str
) -> Any:
    """A CLIPTextModel with the task tokens in its table, from wrapped or from widened tensors.

    Raises WeightsError for missing, misshapen or left-over tensors.
    """
    from transformers import CLIPTextConfig, CLIPTextModel

    from infuse.weights.build import assemble

    tensors = stock(tensors, what, field)
    rows = len(tensors[f"{TABLE}weight"]) if f"{TABLE}weight" in tensors else VOCABULARY
    own = CLIPTextConfig(**{**config, "vocab_size": rows})
    return assemble(lambda: CLIPTextModel(own), tensors, dtype, device, what, field, outer="text_model.", strict=True)


@dataclass(frozen=True)
class Brush:
    """A BrushNet as it lies on the disk, with the task encoder beside it, if there is one."""

    source: Source
    """Of the BrushNet's own file or folder."""

    @property
    def folder(self) -> Path:
        return self.source.path if self.source.is_folder else self.source.path.parent

    @cached_property
    def _beside(self) -> tuple[Path | None, str]:
        """(task encoder, its generation): in the same folder (v2), or in `text_encoder/` beside it (dev)."""
        found = [self.folder / name for name in ENCODERS if (self.folder / name).is_file()]
        beside = self.folder.parent / "text_encoder"
        if self.folder.name in FOLDERS and beside.is_dir():
            found += weights_of(beside, self.source.field)
        words, what = _words(self.folder.parent / "tokenizer"), f'the task encoder of "{self.source.name}"'
        for path in found:
            if path not in self.source.weights[""]:
                shapes = read_header(path, self.source.field).shapes()
                if said := _generation(shapes, words, ("v2", "dev2"), what, self.source.field):
                    return path, said
        return None, ""

    @property
    def encoder(self) -> Path | None:
        return self._beside[0]

    @property
    def tasks(self) -> str:
        """v2, dev2, or "" for a BrushNet without task tokens."""
        return self._beside[1]

    @property
    def sites(self) -> int:
        """How many answers it gives."""
        shapes = self.source.header.shapes(self.source.identity.prefix)
        return sum(k.startswith("brushnet_") and k.endswith(".weight") for k in shapes)

    @cached_property
    def digest(self) -> str:
        parts = [self.source.digest, digest(self.encoder) if self.encoder else ""]
        return sha256("\n".join(parts).encode()).hexdigest()


def brush_in(source: Source) -> Brush:
    """The BrushNet that a name stands for. Raises WeightsError for another kind of file."""
    for folder in FOLDERS:
        if source.is_folder and (source.path / folder).is_dir():
            source = replace(source, path=source.path / folder)
    if source.identity.kind != "brushnet":
        raise wrong_kind(source.field, source.identity, "brushnet", name=source.name)
    return Brush(source)


def load_brushnet(brush: Brush, unet: Any, dtype: Any, device: Any) -> BrushNet:
    """Every tensor in its place (738 with attention beside SD 1.5, 322 without); what tensors cannot tell is the base's.

    Raises WeightsError for missing, misshapen or left-over tensors.
    """
    from infuse.network.attention import install
    from infuse.network.brushnet import BrushNet, config_beside
    from infuse.weights.build import assemble

    source, what = brush.source, f'the BrushNet "{brush.source.name}"'
    tensors: dict[str, Any] = {}
    for path in source.weights[""]:
        names = {k: unwrapped(k) for k in read_header(path, source.field)}
        own = {
            k: n.removeprefix(source.identity.prefix) for k, n in names.items() if n.startswith(source.identity.prefix)
        }
        tensors |= {placed(own[k]): t for k, t in read_tensors(path, own).items()}
    config = config_beside(unet.config, attention=source.identity.variant == "powerpaint")
    if "network.time_embedding.cond_proj.weight" not in tensors:  # beside an LCM, but trained beside a plain base
        config.pop("time_cond_proj_dim", None)
    said = read_json(brush.folder / "config.json", source.field)
    bgr = said.get("brushnet_conditioning_channel_order", "rgb") == "bgr"
    net = assemble(lambda: BrushNet(config, bgr=bgr), tensors, dtype, device, what, source.field, strict=True)
    install(net.network)  # the processors were made without weights
    return net.requires_grad_(False)


def placed(key: str) -> str:
    """The module's key of a stored one: the reverse of `network.brushnet.stored`."""
    return key if key.startswith("brushnet_") else f"network.{key.replace('conv_in_condition.', 'conv_in.', 1)}"


def load_tasks(brush: Brush, texts: Any, dtype: Any, device: Any) -> TaskTexts:
    """The task encoder beside a BrushNet. Tensors that its file leaves out are the base's own encoder's, as in the original."""
    from infuse.encoders.generations import GENERATIONS
    from infuse.encoders.tasks import TaskTexts

    assert brush.encoder is not None
    base, tokenizer = texts.models[0], texts.tokenizers[0]
    lent = {f"text_model.{k.removeprefix('text_model.')}": t for k, t in base.state_dict().items()}
    table = lent.pop(f"{TABLE}weight")
    if brush.tasks == "v2":
        lent[f"{TABLE}wrapped.weight"] = table
    what = f'the task encoder of "{brush.source.name}"'
    tensors = {
        f"text_model.{unwrapped(k).removeprefix('text_model.')}": t for k, t in read_tensors(brush.encoder).items()
    }
    model = text_model({**lent, **tensors}, base.config.to_dict(), dtype, device, what, brush.source.field)
    return TaskTexts(model.requires_grad_(False), tokenizer, GENERATIONS[brush.tasks])
