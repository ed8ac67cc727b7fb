"""Who is compared: an object that prepares once, and then runs requests when its turn comes. To add one, write a class.

A `Sample` has the moments between which steps lie, taken where the loop over the steps begins and after each step, so that
what a pipeline does before and after (words, pictures, decoding) does not count.
"""

from __future__ import annotations

import gc
import inspect
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import diffusers
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

import infuse
from benchmarks.asked import LOOK_WEIGHT, Request, picture
from benchmarks.networks import SCHEDULE, Sizes, World, twin
from infuse.engine.engine import Engine
from infuse.engine.model_store import ModelStore
from infuse.media.pictures import Picture


@dataclass
class Sample:
    """What one turn took. steps: seconds of each step of all requests; latents: (c h w) of each request, in float32."""

    steps: list[float]
    latents: list[Tensor] = field(default_factory=list)
    whole: float = 0.0
    """Seconds from the request to the picture."""
    processor: float = 0.0
    """Seconds of processor time in all threads, from the request to the picture: where others use the cores, there is less of
    it in a second of the clock."""

    @property
    def later(self) -> float:
        """Seconds of a step once the first is done, in which constants are made; of a lone step, that one."""
        steps = self.steps[1:] or self.steps
        return sum(steps) / len(steps)

    @property
    def total(self) -> float:
        return sum(self.steps)

    @property
    def mean(self) -> float:
        return self.total / len(self.steps)


class Contender(Protocol):
    """Anybody who can make the pictures. `side` is "infuse" or "diffusers"; ratios are made across sides."""

    name: str
    side: str
    dtype: torch.dtype
    what: str

    def prepare(self, world: World) -> None:
        """Take twins of the world's networks, in its dtype on its device. Called once, before the first turn."""
        ...

    def run(self, requests: Sequence[Request], pictures: bool = False) -> Sample:
        """Make these pictures in whatever way is best; latents alone, or pictures as well."""
        ...

    def release(self) -> None:
        """Let go of everything."""
        ...


def synchronize(device: str) -> None:
    if str(device).startswith("cuda"):
        torch.cuda.synchronize()


def noise(request: Request, world: World) -> Tensor:
    """(1 c h w): what a seed means to infuse, drawn in float32 whatever the dtype is."""
    side = world.sizes.side // world.spec.vae_factor
    generator = torch.Generator("cpu").manual_seed(request.seed)
    drawn = torch.randn((1, 4, side, side), generator=generator, dtype=torch.float32)
    return drawn.to(world.device, world.dtype)


# ── diffusers ───────────────────────────────────────────────────────────────────────────────────────────────────────────

SCHEDULERS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "DDIM": ("DDIMScheduler", {}),
    "Euler": ("EulerDiscreteScheduler", {}),
    "DPM++ 2M Karras": ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
    "UniPC": ("UniPCMultistepScheduler", {}),
}


class Diffusers:
    """The stock pipelines, one request after another, as their documentation says.

    compile: a mode of torch.compile for the UNet and the ControlNets, or "freeze" (default mode, weights as constants).
    """

    side = "diffusers"

    def __init__(self, dtype: torch.dtype, channels_last: bool = False, compile: str | None = None) -> None:
        self.dtype, self.channels_last, self.compile = dtype, channels_last, compile
        last = " channels_last" if channels_last else ""
        self.name = f"diffusers {short(dtype)}{last}{f' compile {compile}' if compile else ''}"
        self.what = f"stock pipelines, {short(dtype)}{last}, {f'torch.compile, {compile}' if compile else 'eager'}"

    def prepare(self, world: World) -> None:
        self.world = world
        self._unets: dict[tuple[int, ...], Any] = {}
        self._controls: dict[int, Any] = {}

    def release(self) -> None:
        for name in ("world", "_unets", "_controls"):
            self.__dict__.pop(name, None)
        if self.compile:
            torch._dynamo.reset()
        gc.collect()

    def _own(self, module: Any) -> Any:
        out = twin(module)
        return out.to(memory_format=torch.channels_last) if self.channels_last else out

    def _compiled(self, module: Any) -> Any:
        if not self.compile:
            return module
        mode = None if self.compile in ("default", "freeze") else self.compile
        return torch.compile(module, mode=mode, dynamic=False)

    def _context(self) -> AbstractContextManager[Any]:
        if self.compile != "freeze":
            return nullcontext()
        import torch._inductor.config as inductor

        return inductor.patch(freezing=True)

    def controlnet(self, i: int) -> Any:
        if i not in self._controls:
            self._controls[i] = self._compiled(self._own(self.world.controlnet(i)))
        return self._controls[i]

    def pipe(self, request: Request) -> Any:
        """The pipeline for a request's conditions: adapters live in a UNet of their own."""
        world = self.world
        parts: dict[str, Any] = world.parts()
        parts |= {"add_watermarker": False} if world.sizes.wide else {"safety_checker": None, "requires_safety_checker": False}  # fmt: skip
        name, arguments = SCHEDULERS[request.scheduler]
        parts["scheduler"] = getattr(diffusers, name).from_config(dict(SCHEDULE), **arguments)
        known = request.looks in self._unets
        parts["unet"] = self._unets[request.looks] if known else self._own(world.unet)
        if request.controls:
            nets = [self.controlnet(c.model) for c in request.controls]
            parts["controlnet"] = nets[0] if len(nets) == 1 else nets
        xl, control = "XL" * world.sizes.wide, "ControlNet" * bool(request.controls)
        made = getattr(diffusers, f"StableDiffusion{xl}{control}Pipeline")(**parts)
        made.set_progress_bar_config(disable=True)
        if not known:
            if request.looks:
                states = [stated(world.adapter(i)) for i in request.looks]
                made.load_ip_adapter(states, subfolder=[""] * len(states), weight_name=["x.bin"] * len(states), image_encoder_folder=None)  # fmt: skip
                made.set_ip_adapter_scale([LOOK_WEIGHT] * len(states))
            self._unets[request.looks] = made.unet = self._compiled(made.unet)
        return made

    def run(self, requests: Sequence[Request], pictures: bool = False) -> Sample:
        out = Sample([])
        for request in requests:
            one = self._one(request, pictures)
            out.steps, out.latents, out.whole = out.steps + one.steps, out.latents + one.latents, out.whole + one.whole
            out.processor += one.processor
        return out

    def _one(self, request: Request, pictures: bool) -> Sample:
        world, marks = self.world, []
        pipe = self.pipe(request)
        bar = pipe.progress_bar

        def mark(*_: Any) -> dict[str, Any]:
            if not pictures:  # a whole request is not held up between its steps
                synchronize(world.device)
            marks.append(time.perf_counter())
            if self.compile == "reduce-overhead":
                torch.compiler.cudagraph_mark_step_begin()
            return {}

        def begins(*args: Any, **kwargs: Any) -> Any:  # where the loop over the steps begins
            mark()
            return bar(*args, **kwargs)

        pipe.progress_bar = begins
        asked: dict[str, Any] = {}
        if request.controls:
            hints = [picture(10 + c.model + 100 * request.variant, world.sizes.side) for c in request.controls]
            asked = {
                "image": one_or_list(hints),
                "controlnet_conditioning_scale": one_or_list([c.weight for c in request.controls]),
                "control_guidance_start": one_or_list([c.start for c in request.controls]),
                "control_guidance_end": one_or_list([c.end for c in request.controls]),
            }
        if request.looks:
            asked["ip_adapter_image"] = one_or_list(
                [picture(20 + i + 100 * request.variant, world.sizes.side) for i in request.looks]
            )
        begin, used = time.perf_counter(), time.process_time()
        with self._context():
            made = pipe(
                prompt=request.words,
                width=world.sizes.side,
                height=world.sizes.side,
                num_inference_steps=request.steps,
                guidance_scale=request.guidance,
                latents=noise(request, world),
                output_type="pil" if pictures else "latent",
                callback_on_step_end=mark,
                **asked,
            ).images
        synchronize(world.device)
        whole = time.perf_counter() - begin
        used = time.process_time() - used
        return Sample(gaps(marks), [] if pictures else [made[0].float().cpu()], whole, used)


def one_or_list(things: Sequence[Any]) -> Any:
    return things[0] if len(things) == 1 else list(things)


def stated(adapter: Any) -> dict[str, dict[str, Tensor]]:
    """An IP-Adapter file in two parts, as diffusers reads it."""
    flat = adapter.save()
    return {
        part: {k.removeprefix(f"{part}."): t for k, t in flat.items() if k.startswith(f"{part}.")}
        for part in ("image_proj", "ip_adapter")
    }


# ── infuse ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


class Infuse:
    """An engine, all requests together. options: of `infuse.load` ("compile" and the like), those that this version knows."""

    side = "infuse"

    def __init__(self, dtype: torch.dtype, **options: Any) -> None:
        self.dtype, self.options = dtype, known(options)
        told = "".join(f" {k} {v}" for k, v in self.options.items())
        self.name = f"infuse {short(dtype)}{told}"
        self.what = f"one engine, {short(dtype)}, all requests together{told and f',{told}'}"

    def prepare(self, world: World) -> None:
        self.world = world
        store = ModelStore(dtype=world.dtype, device=world.device)
        store.add("random", world.base())
        self.engine = Engine("random", store=store, **self.options)
        as_loaded(world)
        self._brought: set[str] = set()

    def release(self) -> None:
        for name in ("world", "engine"):
            self.__dict__.pop(name, None)
        gc.collect()

    def recipe(self, request: Request) -> infuse.Recipe:
        """The request in infuse's words; what it names is brought along."""
        side, other = self.world.sizes.side, 100 * request.variant
        for name, make in [(f"control{c.model}", lambda i=c.model: self.world.controlnet(i)) for c in request.controls] + [
            (f"look{i}", lambda i=i: self.world.adapter(i)) for i in request.looks
        ]:  # fmt: skip
            if name not in self._brought:
                self.engine.store.add(name, twin(make()))
                self._brought.add(name)
        conditions = [
            infuse.ControlNet(model=f"control{c.model}", image=Picture.of(picture(10 + c.model + other, side)), weight=c.weight, start=c.start, end=c.end)
            for c in request.controls
        ]  # fmt: skip
        looks = [
            infuse.IPAdapter(model=f"look{i}", image=(Picture.of(picture(20 + i + other, side)),), weight=LOOK_WEIGHT)
            for i in request.looks
        ]
        return infuse.Recipe(
            prompt=request.words, conditions=(*conditions, *looks), scheduler=request.scheduler, steps=request.steps,
            guidance=request.guidance, seed=request.seed, width=side, height=side,
        )  # fmt: skip

    def submit(self, request: Request, watch: Callable[[Any], None] | None = None, **more: Any) -> Any:
        """A ticket. more: of `Engine.submit`, as far as this version knows it."""
        accepted = inspect.signature(self.engine.submit).parameters
        return self.engine.submit(self.recipe(request), watch, **{k: v for k, v in more.items() if k in accepted})

    def run(self, requests: Sequence[Request], pictures: bool = False) -> Sample:
        marks: list[float] = []

        def mark(_: Any) -> None:
            if not pictures:
                synchronize(self.world.device)
            marks.append(time.perf_counter())

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            begin, used = time.perf_counter(), time.process_time()
            together = {"help": True, **({"party": self.engine.costs.party()} if hasattr(self.engine, "costs") else {})}
            tickets = [self.submit(r, mark, **together) for r in requests]  # as `run_all` does
            synchronize(self.world.device)
            marks.append(time.perf_counter())
            self.engine.help(*tickets)
            results = [t.result() for t in tickets]
            synchronize(self.world.device)
            whole, used = time.perf_counter() - begin, time.process_time() - used
        return Sample(gaps(marks), [] if pictures else [r.latents[0].float().cpu() for r in results], whole, used)


def as_loaded(world: World) -> None:
    """What infuse does when it loads a large network from files; these were never in one."""
    from infuse.engine.placement import LARGE

    if world.device != "cpu" or sum(p.numel() for p in world.unet.parameters()) < LARGE:
        return
    with suppress(ImportError), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from infuse.network import attending

        heads = {m.to_q.out_features // m.heads for path, m in world.unet.named_modules() if path.endswith("attn1")}
        attending.prepare(world.dtype, sorted(heads))


def known(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those that this version's engine takes."""
    accepted = inspect.signature(Engine.__init__).parameters
    return {k: v for k, v in options.items() if k in accepted}


def gaps(marks: Sequence[float]) -> list[float]:
    return [b - a for a, b in zip(marks, marks[1:], strict=False)]


def short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def usual(device: str, sizes: Sizes) -> torch.dtype:
    """What `infuse.load` runs a base of these sizes in if nobody says a dtype."""
    from infuse.engine import placement

    with torch.device("meta"):
        parameters = sum(p.numel() for p in UNet2DConditionModel(**sizes.unet).parameters())
    return getattr(torch, placement.chosen(device.partition(":")[0], parameters))
