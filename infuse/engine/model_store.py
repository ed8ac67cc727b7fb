"""Everything loaded, under the names recipes use. Looks at headers first, loads once, keeps until told otherwise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from infuse.encoders.kit import Base
from infuse.encoders.tasks import TaskTexts
from infuse.encoders.text import TextEncoders
from infuse.errors import WeightsError
from infuse.network.attention import install
from infuse.network.spec import NetworkSpec
from infuse.network.unet import Network
from infuse.network.video import VideoNetwork
from infuse.recipe import Recipe


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


@dataclass(eq=False)
class ModelStore:
    """Finds, checks, loads and keeps models. `add` puts modules of your own on it, under a name for recipes."""

    dtype: torch.dtype | None = None
    device: str | torch.device | None = None
    _bases: dict[str, Base] = field(default_factory=dict)
    _modules: dict[tuple[Any, ...], Any] = field(default_factory=dict)
    _own: dict[str, nn.Module] = field(default_factory=dict)

    @cached_property
    def library(self) -> Any:
        """Names to files; made when the first name is looked up."""
        from infuse.weights.library import Library

        return Library()

    def add(self, name: str, thing: Base | nn.Module) -> None:
        """A base, ControlNet or IP-Adapter that is already in memory."""
        if isinstance(thing, Base):
            self._bases[name] = thing
            return
        if hasattr(thing, "set_attn_processor"):
            install(thing)
        self._own[name] = thing

    # ── before loading ──────────────────────────────────────────────────────────────────────────────────────────────

    def beside(self, model: str) -> View:
        """What a check may look at when this is the base. Raises WeightsError if there is no such base."""
        return View(self, model)

    def identity(self, model: str, field: str, kind: str) -> Found:
        """Kind, family and shapes of a weights file from its header. Raises WeightsError if it is of another kind."""
        if model in self._own:
            return _found(self._own[model], kind)
        if kind == "brushnet":
            return self._brush_found(model, field)
        from infuse.weights.estimate import estimate
        from infuse.weights.kinds import wrong_kind
        from infuse.weights.layouts.ip_adapter import released

        header, found = self.library.header(model, field)
        if found.kind != kind:
            raise wrong_kind(field, found, kind, name=model)
        shapes = {released(k): s for k, s in header.shapes().items()}
        return Found(kind, found.context_width, shapes, estimate(header, str(self._dtype()), found))

    def _dtype(self) -> torch.dtype:
        return self.dtype or (torch.float16 if self._device().type == "cuda" else torch.float32)

    def _device(self) -> torch.device:
        return torch.device(self.device or ("cuda" if torch.cuda.is_available() else "cpu"))

    # ── loading ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def base(self, model: str) -> Base:
        """A base model, loaded once."""
        if model not in self._bases:
            from infuse.weights.base import load_base

            parts = load_base(self.library.find(model, "model"), dtype=self._dtype(), device=self._device())
            network = VideoNetwork if parts.spec.frames else Network
            self._bases[model] = Base(
                model,
                network(parts.unet.eval(), parts.spec),
                parts.vae.eval(),
                TextEncoders(parts.text_encoders, parts.tokenizers),
                parts.scheduler_config,
                parts.image_encoder,
                parts.feature_extractor,
                parts.force_zeros_for_empty_prompt,
                parts.digest,
                parts.tasks,
                parts.composer,
            )
        return self._bases[model]

    def module(
        self, model: str, build: Callable[[Mapping[str, Tensor]], nn.Module], dtype: torch.dtype, device: torch.device
    ) -> nn.Module:
        """The module that a weights file holds, as `build` makes it from the tensors."""
        if model in self._own:
            return self._moved(model, dtype, device)
        return self._once(
            model,
            build,
            lambda: build(self._tensors(model)).eval().requires_grad_(False).to(device, dtype),
            device,
            dtype,
        )

    def _tensors(self, model: str) -> dict[str, Tensor]:
        from infuse.weights.formats import read_tensors
        from infuse.weights.layouts.ip_adapter import read_ip_adapter

        source = self.library.find(model)  # of the right kind: the condition's check has seen its header
        return read_ip_adapter(source)[0] if source.identity.kind == "ip_adapter" else read_tensors(source.path)

    def controlnet(self, model: str, base: Base, dtype: torch.dtype, device: torch.device) -> nn.Module:
        """A ControlNet in any layout, ready to hear ports."""
        if model in self._own:
            return self._moved(model, dtype, device)

        def load() -> nn.Module:
            from infuse.weights.layouts.controlnet import load_controlnet

            unet: Any = base.network.unet
            net: Any = load_controlnet(self.library.find(model, "model"), base=unet, dtype=dtype)
            install(net.eval().requires_grad_(False).to(device))
            return net

        return self._once(model, "controlnet", load, device, dtype)

    def brushnet(self, model: str, base: Base, dtype: torch.dtype, device: torch.device) -> nn.Module:
        """A BrushNet, plain or PowerPaint's, ready to hear ports."""
        if model in self._own:
            return self._moved(model, dtype, device)
        from infuse.weights.layouts.powerpaint import load_brushnet

        unet: Any = base.network.unet
        return self._once(
            model, "brushnet", lambda: load_brushnet(self._brush(model), unet, dtype, device), device, dtype
        )

    def tasks(self, model: str, base: Base, dtype: torch.dtype, device: torch.device) -> TaskTexts:
        """The task encoder beside a BrushNet."""
        if model in self._own:
            return self._own[model].tasks  # type: ignore[return-value]
        from infuse.weights.layouts.powerpaint import load_tasks

        return self._once(model, "tasks", lambda: load_tasks(self._brush(model), base.texts, dtype, device), base.name)

    def _brush(self, model: str, field: str = "model") -> Any:
        from infuse.weights.layouts.powerpaint import FOLDERS, brush_in

        return brush_in(self.library.part(model, FOLDERS, field))

    def _brush_found(self, model: str, field: str) -> Found:
        from infuse.weights.estimate import estimate
        from infuse.weights.formats import read_header

        brush = self._brush(model, field)
        header = brush.source.header
        memory = estimate(header, str(self._dtype()))
        memory += estimate(read_header(brush.encoder, field), str(self._dtype())) if brush.encoder else 0
        width = brush.source.identity.context_width
        return Found("brushnet", width, header.shapes(), memory, brush.tasks, brush.sites)

    def _moved(self, model: str, dtype: torch.dtype, device: torch.device) -> nn.Module:
        """A module of the user's own, on the base's device and in its dtype."""
        return nn.Module.to(self._own[model], device=device, dtype=dtype)

    def vision_model(self, folder: str) -> tuple[Any, Any]:
        """(CLIP vision model, its image processor) from a folder."""
        from infuse.weights.base import load_vision

        return self._once(
            folder, "vision", lambda: load_vision(self._vision_folder(folder), self._dtype(), self._device())
        )

    def _vision_folder(self, folder: str) -> Path:
        path = self.library.find(folder, "image_encoder").path
        return path / "image_encoder" if (path / "image_encoder").is_dir() else path

    def _vision_config(self, folder: str) -> Mapping[str, Any]:
        from infuse.weights.source import read_json

        config = read_json(self._vision_folder(folder) / "config.json", "image_encoder")
        if "image_size" not in config or "projection_dim" not in config:
            raise WeightsError(
                "image_encoder",
                f"{folder!r} is no CLIP vision model: its config.json has no image_size and projection_dim.",
            )
        return config

    def _once(self, model: str, what: Any, make: Callable[[], Any], *key: Any) -> Any:
        place = (model, what, *key)
        if place not in self._modules:
            self._modules[place] = make()
        return self._modules[place]

    def card(self, model: str) -> Mapping[str, Any]:
        """card.json beside a model: description, annotator. Empty if there is none."""
        from infuse.weights.source import read_json

        return {} if model in self._own else read_json(self.library.find(model).path / "card.json")

    def digests(self, recipe: Recipe) -> dict[str, str]:
        """sha256 of every weights file that a recipe names."""
        fields = ("model", "image_encoder", "annotator_model", "cleaner_model")
        named = {(n, c.kind) for c in recipe.conditions for f in fields if isinstance(n := getattr(c, f, None), str)}
        found: dict[str, list[str]] = {}
        for name, kind in sorted({(recipe.model, ""), *named}):
            if d := self._digest(name, kind):
                found.setdefault(name, []).append(d)
        # one name may stand for two models: PowerPaint 2 brings its base along
        return {n: d[0] if len(set(d)) == 1 else sha256("\n".join(d).encode()).hexdigest() for n, d in found.items()}

    def _digest(self, name: str, kind: str) -> str:
        if name in self._own:
            return ""
        brush = kind in ("powerpaint", "brushnet")
        if name in self._bases and not brush:
            return self._bases[name].digest
        return self._brush(name).digest if brush else self.library.find(name).digest


@dataclass(eq=False)
class View:
    """Headers only, with one model as the base: what `Condition.check` is given."""

    store: ModelStore
    model: str
    frames: int = 1
    """Of the clip to be made; 1 for a picture."""
    size: tuple[int, int] = (0, 0)
    """(width, height) of what is to be made, in pixels."""

    @cached_property
    def _loaded(self) -> Base | None:
        return self.store._bases.get(self.model)

    @cached_property
    def _outline(self) -> Any:
        from infuse.weights.outline import outline

        return outline(self.store.library.find(self.model))

    @property
    def spec(self) -> NetworkSpec:
        return self._loaded.spec if self._loaded else self._outline.spec

    @property
    def scheduler(self) -> Mapping[str, Any]:
        return self._loaded.scheduler if self._loaded else self._outline.scheduler_config

    @property
    def memory(self) -> int:
        """Bytes of the base once loaded."""
        if self._loaded:
            base = self._loaded
            small = base.composer.modules if base.composer else ()
            parts = (base.network.unet, base.vae, *base.texts.models, base.image_encoder, *small)
            return sum(p.numel() * p.element_size() for m in parts if m is not None for p in m.parameters())
        from infuse.weights.estimate import estimate

        return estimate(self.store.library.find(self.model).header, str(self.store._dtype()))

    def identity(self, model: str, field: str, kind: str) -> Found:
        return self.store.identity(model, field, kind)

    def shapes(self, model: str, field: str) -> Mapping[str, tuple[int, ...]]:
        """Of the tensors of a weights file of any kind."""
        own = self.store._own.get(model)
        if own is not None:
            return {k: tuple(t.shape) for k, t in own.state_dict().items()}
        return self.store.library.header(model, field)[0].shapes()

    def vision(self, folder: str | None) -> Vision | None:
        """The image encoder at a folder, or the base's own; None if the base has none."""
        if folder is None and self._loaded:
            config = getattr(self._loaded.image_encoder, "config", None)
            return (
                Vision(f"the image encoder of {self.model!r}", config.hidden_size, config.projection_dim)
                if config
                else None
            )
        config = self.store._vision_config(folder) if folder else self._outline.vision_config
        who = repr(folder) if folder else f"the image encoder of {self.model!r}"
        return Vision(who, config["hidden_size"], config["projection_dim"]) if config else None


def _found(module: nn.Module, kind: str) -> Found:
    state = module.save() if hasattr(module, "save") and kind == "ip_adapter" else module.state_dict()  # type: ignore[operator]
    shapes = {k: tuple(v.shape) for k, v in state.items()}
    keys = ("to_k_ip.weight", "attn2.to_k.weight")
    width = next((s[1] for k, s in shapes.items() if k.endswith(keys)), None)
    if kind == "brushnet" and not hasattr(module, "brushnet_mid_block"):
        raise WeightsError("model", f"a {type(module).__name__} is no BrushNet.")
    if kind == "controlnet" and not hasattr(module, "controlnet_cond_embedding"):
        raise WeightsError("model", f"a {type(module).__name__} is no ControlNet.")
    memory = sum(t.numel() * t.element_size() for t in state.values())
    texts: TaskTexts | None = getattr(module, "tasks", None)
    tasks = texts.generation.name if texts else ""
    return Found(kind, width, shapes, memory, tasks, getattr(module, "sites", 0))
