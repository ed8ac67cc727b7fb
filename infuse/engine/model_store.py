"""Everything loaded, under the names recipes use. Looks at headers first, loads once, keeps while there is room.

What a name stands for is an object or a file in a state, never the name itself: whoever replaces a module or a file gets
the new one, and jobs under way keep what they have.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any
from weakref import ref

from infuse import processor
from infuse.engine import placement
from infuse.engine.dressing import lent
from infuse.engine.edits import Edits
from infuse.engine.kept import Kept, Key
from infuse.engine.placement import Device, Dtype
from infuse.engine.places import Place, place_of
from infuse.engine.versions import Versions
from infuse.engine.view import Found, View, found_in_memory, found_on_disk
from infuse.errors import WeightsError
from infuse.friends import building, prime

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from infuse.encoders.kit import Base
    from infuse.encoders.tasks import TaskTexts

LOADERS = ("infuse.weights.base", "infuse.weights.layouts.beside", "infuse.weights.layouts.powerpaint")


class ModelStore(Versions, Edits):
    """Finds, checks, loads and keeps models. `add` puts modules of your own into it, under a name for recipes.
    dtype, device: as people write them ("fp16", "cuda:1"). None: a GPU if there is one. dtype None or "auto": float16 on a GPU; on a CPU
    bfloat16 for bases of 300 million parameters and more where the processor computes in it, float32 for all others.
    memory: bytes that models may take (8 * 10**9, "8GB", "500MB"); beyond, those used longest ago leave: a GPU for the machine's memory,
    while half of what is free there holds them. None: no limit.
    offline: never ask the Hub; None asks HF_HUB_OFFLINE. Safe to use from several threads. Raises RecipeError for a dtype, device or memory that is not known or not there.
    """

    def __init__(self, dtype: Dtype = None, device: Device = None, memory: str | int | None = None,
                 offline: bool | None = None) -> None:  # fmt: skip
        self.offline = offline
        self.device_name = placement.device_name(device) or placement.best_device()
        self._said = placement.dtype_name(dtype)
        self.dtype_name = self._said or placement.usual(self.device_name)
        self._large: dict[Hashable, str] = {}
        self.memory = placement.as_bytes(memory)
        self._bases: dict[str, Base] = {}
        self._own: dict[str, nn.Module] = {}
        self._kept = Kept(placement.nbytes, self._added, self.memory, placement.free)
        if self.device_name != "cpu":
            self._kept.park, self._kept.back, self._kept.spare = self._park, self._back, lambda: processor.free() // 2

    @cached_property
    def device(self) -> torch.device:
        return placement.device_called(self.device_name)

    def dtype_of(self, model: str) -> str:
        """The dtype that this base has, or will be loaded in: what was said, or what is chosen for it by its headers."""
        if model in self._bases:
            return str(self._bases[model].network.dtype).removeprefix("torch.")
        if self._said is not None or placement.chosen(self.device_name, placement.LARGE) == self.dtype_name:
            return self.dtype_name
        place = self._place(model)
        if (version := place.version) not in self._large:
            from infuse.weights.outline import outline

            self._large[version] = placement.chosen(self.device_name, outline(place.what).spec.parameters)
        return self._large[version]

    @cached_property
    def dtype(self) -> torch.dtype:
        """Of whatever belongs to no base."""
        return placement.dtype_called(self.dtype_name)

    @cached_property
    def library(self) -> Any:
        """Names to files; made when the first name is looked up."""
        from infuse.weights.library import Library

        return Library(offline=self.offline)

    def _park(self, thing: Any) -> Any:
        """What leaves the device for want of room, in the machine's memory; None if it is to be read again."""
        from infuse.engine.parking import copied_to

        return copied_to(thing, placement.device_called("cpu"))

    def _back(self, thing: Any, key: Key) -> Any:
        from infuse.engine.parking import copied_to

        with placement.room_for("a model that waited in memory", placement.nbytes(thing), key.place[1]):
            return copied_to(thing, key.place[1])

    # ── your own ────────────────────────────────────────────────────────────────────────────────────────────────────

    def add(self, name: str, thing: Base | nn.Module) -> None:
        """A base, ControlNet or IP-Adapter that is already in memory; what had the name before leaves it."""
        from infuse.encoders.kit import Base
        from infuse.network.attention import install

        shelf: dict[str, Any] = self._bases if isinstance(thing, Base) else self._own
        if hasattr(thing, "set_attn_processor") and not hasattr(thing, "decode"):  # a VAE attends by itself
            install(thing)  # type: ignore[arg-type]
        before, shelf[name] = shelf.get(name), thing
        self._parted(before)

    def own(self, name: str) -> nn.Module | None:
        """The module that was added under this name."""
        return self._own.get(name)

    def lent(self, name: str, part: str) -> nn.Module | None:
        """A VAE or text encoder in memory: one that was added, or that of a base that was."""
        return lent(self._bases, self._own, name, part)

    def is_added(self, name: str) -> bool:
        return name in self._own or name in self._bases

    def _added(self) -> list[Any]:
        return [*list(self._bases.values()), *list(self._own.values())]

    def _parted(self, thing: Any) -> None:
        if thing is not None and all(thing is not other for other in self._added()):
            self._kept.dismiss(thing)

    # ── what is here ────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def held(self) -> int:
        """Bytes of all weights here, what was added included."""
        return self._kept.held

    @property
    def loaded(self) -> tuple[str, ...]:
        """Names of what was added or loaded."""
        return tuple(
            sorted({*self._bases, *self._own, *(n for e in (*self._kept.entries, *self._kept.parked) for n in e.names)})
        )

    @property
    def on_leave(self) -> list[Callable[[Any], None]]:
        """Called with each object that leaves (Base, module, TaskTexts, (image encoder, its processor)), under no lock."""
        return self._kept.on_leave

    def unload(self, name: str) -> int:
        """Let go of a model and of everything made from it; how many bytes that freed.

        Jobs under way keep what they use until they are done. Raises WeightsError if nothing here has this name.
        """
        before = self.held
        if name not in self.loaded:
            have = f"Loaded are: {', '.join(self.loaded)}" if self.loaded else "Nothing is loaded"
            raise WeightsError("model", f"{name!r} is not loaded, so it cannot be unloaded. {have}.")
        for thing in (self._bases.pop(name, None), self._own.pop(name, None)):
            self._parted(thing)
        self._kept.drop(lambda e: name in e.names)
        return before - self.held

    # ── before loading ──────────────────────────────────────────────────────────────────────────────────────────────

    def view(self, model: str) -> View:
        """What a check may look at when this is the base."""
        return View(self, model)

    def at_hand(self, model: str) -> Base | None:
        """This base, if that would load nothing."""
        if model in self._bases:
            return self._bases[model]
        if not any(e.key.what == "base" for e in self._kept.entries):
            return None
        dtype = placement.dtype_called(self.dtype_of(model))
        key = Key("base", self._place(model).version, (dtype, self.device))
        entry = self._kept.look(key, model)
        return entry and entry.thing

    def identity(self, model: str, field: str, kind: str, dtype: str | None = None) -> Found:
        """Kind, family and shapes of a weights file from its header, and its size in `dtype`. Raises WeightsError if it is of another
        kind."""
        if (own := self.own(model)) is not None:
            return found_in_memory(own, kind)
        return found_on_disk(self.library, model, field, kind, dtype or self.dtype_name)

    def card(self, model: str) -> Mapping[str, Any]:
        """card.json in a model's folder, or <name>.card.json beside its file: description, annotator. Empty if there is none."""
        return {} if model in self._own else self.library.find(model).card

    # ── loading ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def base(self, model: str) -> Base:
        """A base model, loaded once. Raises WeightsError, or CapacityError if its device has no room for it."""
        if model in self._bases:
            return self._bases[model]

        dtype = placement.dtype_called(self.dtype_of(model))

        def make(place: Place) -> Base:
            from infuse.encoders.kit import Base
            from infuse.encoders.text import TextEncoders
            from infuse.network.unet import Network
            from infuse.network.video import VideoNetwork
            from infuse.weights.base import load_base

            parts = load_base(place.what, dtype=dtype, device="cpu")
            network = VideoNetwork if parts.spec.frames else Network
            return Base(
                model,
                network(parts.unet.eval(), parts.spec),
                parts.vae.eval(),
                TextEncoders(parts.text_encoders, parts.tokenizers),
                parts.scheduler_config,
                parts.image_encoder,
                parts.feature_extractor,
                parts.force_zeros_for_empty_prompt,
                place.digest,
                parts.tasks,
                parts.composer,
                parts.image_noise,
            )

        return self._once("base", model, make, dtype=dtype)

    def module(
        self, model: str, build: Callable[[Mapping[str, Tensor]], nn.Module], dtype: torch.dtype, device: torch.device
    ) -> nn.Module:
        """The module that a weights file holds, as `build` makes it from the tensors."""

        def make(place: Place) -> nn.Module:
            from torch import nn

            from infuse.weights.formats import read_all
            from infuse.weights.layouts.ip_adapter import read_ip_adapter

            source = place.source  # of the right kind: the condition's check has seen its header
            found = read_ip_adapter(source)[0] if source.identity.kind == "ip_adapter" else read_all(source.weights)
            return nn.Module.to(build(found).eval().requires_grad_(False), dtype=dtype)

        return self._mine(model, dtype, device, lambda: self._once(build, model, make, "module", dtype, device))

    def beside(self, kind: str, model: str, base: Base, dtype: torch.dtype, device: torch.device) -> nn.Module:
        """What is built for this base (kind controlnet, brushnet or gligen), in any layout, ready to hear ports."""

        def make(place: Place) -> nn.Module:
            from infuse.weights.layouts.beside import built

            return built(kind, place.what, base.network.unet, dtype)

        return self._mine(model, dtype, device, lambda: self._once(kind, model, make, kind, dtype, device, base))

    def controlnet(self, model: str, base: Base, dtype: torch.dtype, device: torch.device) -> nn.Module:
        """A ControlNet of any kind."""
        return self.beside("controlnet", model, base, dtype, device)

    def brushnet(self, model: str, base: Base, dtype: torch.dtype, device: torch.device) -> nn.Module:
        """A BrushNet, plain or PowerPaint's."""
        return self.beside("brushnet", model, base, dtype, device)

    def tasks(self, model: str, base: Base, dtype: torch.dtype, device: torch.device) -> TaskTexts:
        """The task encoder beside a BrushNet."""

        def make(place: Place) -> TaskTexts:
            from infuse.weights.layouts.powerpaint import load_tasks

            return load_tasks(place.what, base.texts, dtype, "cpu")

        own = self.own(model)
        return self._once("tasks", model, make, "brushnet", dtype, device, base) if own is None else own.tasks  # type: ignore[return-value]

    def vision_model(self, folder: str, dtype: torch.dtype | None = None) -> tuple[Any, Any]:
        """(CLIP vision model, its image processor) from a folder. dtype: the base's that it looks for."""

        def make(place: Place) -> tuple[Any, Any]:
            from infuse.weights.base import load_vision

            return load_vision(place.source.path, dtype or self.dtype)

        return self._once("vision", folder, make, "vision", dtype)

    def _mine(
        self, name: str, dtype: torch.dtype, device: torch.device, otherwise: Callable[[], nn.Module]
    ) -> nn.Module:
        """A user's own module where the base is and in its dtype: itself if it is there, otherwise a copy beside it."""
        own = self.own(name)
        if own is None:
            return otherwise()
        if placement.lies_at(own, dtype, device):
            return own

        def load() -> tuple[nn.Module, str]:
            with placement.room_for(name, placement.nbytes(own), device):
                return placement.copied(own, dtype, device), ""

        return self._kept.once(Key("copy", own, (dtype, device)), name, load, lambda: placement.nbytes(own))

    def _once(
        self,
        what: Hashable,
        model: str,
        make: Callable[[Place], Any],
        kind: str = "",
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
        base: Base | None = None,
    ) -> Any:
        """What `make` builds on the CPU from the files that lie there now, on its device."""
        dtype, device = dtype or self.dtype, device or self.device
        # what is made for a network serves all that it is dressed in; task tokens are added to the text encoder itself
        beside = None if base is None else ref(base if what == "tasks" else base.origin)
        for _ in range(3):
            place = self._place(model, kind)
            key = Key(what, place.version, (dtype, device), beside)
            load, size = partial(self._load, model, kind, make, place, key, base), partial(place.size, str(dtype))
            try:
                return self._kept.once(key, model, load, size)
            except _Changed:
                continue
        raise WeightsError(
            "model", f"{model!r} changes on the disk while it is read. Wait until it is written, then try again."
        )

    def _place(self, model: str, kind: str = "") -> Place:
        return place_of(self.library, model, kind, FIELDS.get(kind, "model"))

    def _load(
        self, model: str, kind: str, make: Callable[[Place], Any], place: Place, key: Key, base: Base | None
    ) -> tuple[Any, str]:
        """(what was made, sha256 of its files), under no lock that another name needs but the one of building."""
        prime(*LOADERS)
        dtype, device = key.place
        with placement.room_for(model, place.size(str(dtype)), device):
            digest = place.digest
            with building:
                thing = make(place)
            thing = placement.settled(thing, device, base)
        placement.trim()
        if self._place(model, kind).version != key.version:
            raise _Changed
        return thing, digest


FIELDS = {"vision": "image_encoder", "vae": "vae", "text_encoder": "text_encoder", "taesd": "preview"}
"""Kind of a place -> field that names it, where that is not `model`."""


class _Changed(Exception):
    """The files were written again while they were read."""
