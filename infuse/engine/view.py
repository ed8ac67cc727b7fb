"""Headers only, with one model as the base: all that a condition's check is given."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from infuse.engine.dressing import Dress, Dressing, dressing, state
from infuse.engine.placement import nbytes
from infuse.engine.places import BRUSHES, eyes_beside, place_of
from infuse.errors import WeightsError
from infuse.network.spec import NetworkSpec

if TYPE_CHECKING:
    from torch import nn

    from infuse.encoders.kit import Base
    from infuse.encoders.tasks import TaskTexts

VAE_WIDTH = 128
"""Of every released VAE of Stable Diffusion; checkpoints don't say it."""


KIN = {"controlnet": ("controlnet", "controlnet_union", "controlnet_xs", "control_lora", "lllite")}
"""Kind of a condition -> kinds of files that it takes, if these are several."""


@dataclass(frozen=True)
class Found:
    """What a condition's check needs to know of a weights file."""

    kind: str
    context_width: int | None
    shapes: Mapping[str, tuple[int, ...]]
    memory: int
    """Bytes once loaded."""
    tasks: str = ""
    """PowerPaint generation of a BrushNet's task encoder."""
    sites: int = 0


@dataclass(frozen=True)
class Vision:
    """An image encoder in numbers."""

    name: str
    hidden: int
    projection: int


class Store(Protocol):
    """What a view asks of a model store: nothing that loads."""

    library: Any
    dtype_name: str
    device_name: str

    def at_hand(self, model: str) -> Base | None: ...
    def own(self, name: str) -> nn.Module | None: ...
    def lent(self, name: str, part: str) -> nn.Module | None: ...
    def dtype_of(self, model: str) -> str: ...
    def identity(self, model: str, field: str, kind: str, dtype: str | None = None) -> Found: ...
    def version(self, name: str, kind: str = "") -> Hashable: ...
    def card(self, model: str) -> Mapping[str, Any]: ...
    def outline(self, model: str, base: str, spec: Any) -> Any: ...
    def layers(self, base: str) -> Mapping[str, Mapping[str, tuple[int, ...]]]: ...


@dataclass(eq=False)
class View:
    """What may be known before anything is loaded. Fulfils `conditions.base.View`."""

    store: Store
    model: str
    frames: int = 1
    """Of the clip to be made; 1 for a picture."""
    size: tuple[int, int] = (0, 0)
    """(width, height) of what is to be made, in pixels."""
    count: int = 1
    """Of pictures that the recipe makes."""
    dress: Dress = (None, None)
    """Names of the (VAE, text encoder) that the recipe has instead of the base's own."""
    _loras: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def _loaded(self) -> Base | None:
        return self.store.at_hand(self.model)

    @cached_property
    def _outline(self) -> Any:
        from infuse.weights.outline import outline

        return outline(self.store.library.find(self.model))

    @property
    def spec(self) -> NetworkSpec:
        """Raises WeightsError if there is no such base."""
        return self._loaded.spec if self._loaded else self._outline.spec

    @property
    def roots(self) -> tuple[Path, ...]:
        """The user's folders of models."""
        return self.store.library.roots

    @property
    def version(self) -> Hashable:
        """What the names of the model and of its dress stand for now."""
        return state(self.store, self.model, self.dress)

    @cached_property
    def dressing(self) -> Dressing:
        """Raises WeightsError if a VAE or text encoder does not fit this base."""
        return dressing(self)

    @property
    def dtype(self) -> str:
        """What the network computes in: float32, bfloat16 and so on."""
        return (
            str(self._loaded.network.dtype).removeprefix("torch.") if self._loaded else self.store.dtype_of(self.model)
        )

    @property
    def device(self) -> str:
        return str(self._loaded.network.device) if self._loaded else self.store.device_name

    @property
    def scheduler(self) -> Mapping[str, Any]:
        return self._loaded.scheduler if self._loaded else self._outline.scheduler_config

    @property
    def memory(self) -> int:
        """Bytes of the base once loaded, and of what it is dressed in."""
        more = self.dressing.memory
        if self._loaded:
            return nbytes(self._loaded) + more
        from infuse.weights.estimate import estimate

        return estimate(self.store.library.find(self.model).header, self.dtype) + more

    @property
    def vae_width(self) -> int:
        """Channels of the VAE's first level, at the picture's full size."""
        if self.dressing.vae is not None:
            return self.dressing.vae.width
        config = self._loaded.vae.config if self._loaded else self.store.library.find(self.model).config("vae")
        return (config.get("block_out_channels") or (VAE_WIDTH,))[0]

    def identity(self, model: str, field: str, kind: str) -> Found:
        """Kind, family and shapes of a weights file from its header. Raises WeightsError if it is of another kind."""
        return self.store.identity(model, field, kind, self.dtype)

    def lora(self, model: str) -> Any:
        """What a LoRA changes of this base (`weights.lora_outline.LoraOutline`). Raises WeightsError or RecipeError if it is of another
        kind or family."""
        if model not in self._loras:
            self._loras[model] = self.store.outline(model, self.model, self.spec)
        return self._loras[model]

    @cached_property
    def text_layers(self) -> int:
        """Of that text encoder of the base which has the fewest; 0 if none is known."""
        own = (paths for part, paths in self.store.layers(self.model).items() if part != "unet")
        counts = [len({p.split("layers.")[1].split(".")[0] for p in paths if "layers." in p}) for paths in own]
        return min((n for n in counts if n), default=0)

    def card(self, model: str) -> Mapping[str, Any]:
        """What is written beside a model: its annotator and the like."""
        return self.store.card(model)

    def shapes(self, model: str, field: str) -> Mapping[str, tuple[int, ...]]:
        """Of the tensors of a weights file of any kind."""
        own = self.store.own(model)
        if own is not None:
            return {k: tuple(t.shape) for k, t in own.state_dict().items()}
        return self.store.library.header(model, field)[0].shapes()

    def eyes(self, model: str) -> tuple[str, ...]:
        """Image encoders beside an adapter's file, where releases put them. Raises WeightsError if there is no such file."""
        return () if self.store.own(model) is not None else eyes_beside(self.store.library, model)

    def vision(self, folder: str | None) -> Vision | None:
        """The image encoder at a folder, or the base's own; None if the base has none."""
        who = repr(folder) if folder else f"the image encoder of {self.model!r}"
        if folder is None and self._loaded:
            config = getattr(self._loaded.image_encoder, "config", None)
            return Vision(who, config.hidden_size, config.projection_dim) if config else None
        config = vision_config(self.store.library, folder) if folder else self._outline.vision_config
        return Vision(who, config["hidden_size"], config["projection_dim"]) if config else None


def found_in_memory(module: nn.Module, kind: str) -> Found:
    """The same of a module that a user added. Raises WeightsError if it is of another kind."""
    state = module.save() if hasattr(module, "save") and kind == "ip_adapter" else module.state_dict()  # type: ignore[operator]
    shapes = {k: tuple(v.shape) for k, v in state.items()}
    keys = ("to_k_ip.weight", "attn2.to_k.weight")
    width = next((s[1] for k, s in shapes.items() if k.endswith(keys)), None)
    if kind == "brushnet" and not hasattr(module, "brushnet_mid_block"):
        raise WeightsError("model", f"a {type(module).__name__} is no BrushNet.")
    if kind == "controlnet" and not hasattr(module, "controlnet_cond_embedding") and _branch(module) != "lllite":
        raise WeightsError("model", f"a {type(module).__name__} is no ControlNet.")
    memory = sum(t.numel() * t.element_size() for t in state.values())
    texts: TaskTexts | None = getattr(module, "tasks", None)
    tasks = texts.generation.name if texts else ""
    kind = _branch(module) if kind == "controlnet" else kind
    return Found(kind, width, shapes, memory, tasks, getattr(module, "sites", 0))


def in_memory(module: Any) -> Any:
    """What a LoRA that a user added changes. Raises WeightsError if it is none."""
    from infuse.weights.lora_outline import LoraOutline

    if not hasattr(module, "parts") or not hasattr(module, "change"):
        raise WeightsError("model", f"a {type(module).__name__} is no LoRA.")
    changes = {part: {p: module.change(part, p).kind for p in module.paths(part)} for part in module.parts}
    return LoraOutline("", changes, words=dict.fromkeys(module.words, ()))


def _branch(module: Any) -> str:
    """Which kind of a ControlNet a module is."""
    if getattr(module, "place", "") == "projections":
        return "lllite"
    if hasattr(module, "task_embedding"):
        return "controlnet_union"
    return "controlnet_xs" if hasattr(module, "up_connections") else "controlnet"


def found_on_disk(library: Any, model: str, field: str, kind: str, dtype: str) -> Found:
    """Read from headers. Raises WeightsError if there is no such file, or it is of another kind."""
    if kind in BRUSHES:
        place = place_of(library, model, kind, field)
        brush, header = place.what, place.source.header
        width = place.source.identity.context_width
        return Found(kind, width, header.shapes(), place.size(dtype), brush.tasks, brush.sites)
    from infuse.weights.estimate import estimate
    from infuse.weights.kinds import wrong_kind
    from infuse.weights.whole import must_be_whole

    header, found = library.header(model, field)
    if found.kind not in KIN.get(kind, (kind,)):
        raise wrong_kind(field, found, kind, name=model)
    must_be_whole(found.kind, found.prefix, header, model, field)
    shapes = header.shapes()
    if kind == "gligen":
        from infuse.weights.layouts.gligen import shapes_of

        shapes = shapes_of(library.find(model, field))
    return Found(found.kind, found.context_width, shapes, estimate(header, dtype, found))


def vision_config(library: Any, folder: str) -> Mapping[str, Any]:
    """config.json of a CLIP vision model. Raises WeightsError if that is none."""
    from infuse.weights.source import read_json

    path = place_of(library, folder, "vision", "image_encoder").source.path
    config = read_json(path / "config.json", "image_encoder")
    if "image_size" not in config or "projection_dim" not in config:
        raise WeightsError(
            "image_encoder",
            f"{folder!r} is no CLIP vision model: its config.json has no image_size and projection_dim.",
        )
    return config
