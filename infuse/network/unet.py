"""A base network answers a batch: through diffusers' public arguments, the specification, or by a walk through the same modules.

The walk is taken where a branch speaks inside of the blocks, which those arguments cannot say; and, in fewer steps
(`network.fast`), wherever no gradients are wanted. `plain` forces the specification.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from jaxtyping import Float
from torch import Tensor, nn

from infuse.constants import Constants
from infuse.grids import resized
from infuse.network import attending
from infuse.network.attention import Heard, Projections, install
from infuse.network.branches import branch_answer, embedded, remembered, subset
from infuse.network.edits import Edits, listen, telling
from infuse.network.fast import Fast, settled, shared, walkable
from infuse.network.graphs import Aside, Cuda, Graphs, at_once
from infuse.network.parts import Parts
from infuse.network.spec import NetworkSpec
from infuse.network.walk import Ask, Deep, Layers, Plain, Stroll, Visitor, head, walk
from infuse.notices import note
from infuse.spoken import Batch, SpokenResidual

LARGE = 300_000_000
"""Parameters from which on a network on a CPU spends its time in products, not in Python."""


class Network:
    """One UNet2DConditionModel and what it answers. Holds no state of any job.

    `calls` counts network evaluations, `branch_calls` those of branch networks (ControlNet and its kin).
    """

    plain = False
    """Always as the modules' own forward has it."""

    def __init__(self, unet: nn.Module, spec: NetworkSpec) -> None:
        self.unet, self.spec = unet, spec
        self.calls = self.branch_calls = 0
        self._ready = False
        self.parts = Parts()
        """How what is between products is computed."""
        self.graphs: Graphs | None = None
        """Recordings of its calls, where a GPU plays them."""
        self.aside: Callable[[Callable[[], Any]], Callable[[], Any]] = at_once
        """How what branches say is computed beside the way down; what comes back waits for it."""
        self.constants = Constants()
        """What its calls have in common, while jobs are under way."""
        self._stacks: dict[Any, dict[Any, Any]] = {}
        install(unet, tuple(path for path, _ in spec.cross_layers))
        listen(unet, "unet")

    def ready(self, record: bool = False, fused: bool = False) -> None:
        """Have, once, what makes large networks fast on a CPU: a kernel for the heads of its attentions. Small ones need none.
        record: on a GPU, calls of pictures are recorded from now on. fused: and what is between products has kernels of its own."""
        if self.device.type == "cuda":
            if fused and type(self.parts) is Parts:
                self.parts = between(self.device)
            if record and self.graphs is None and not self.spec.frames:
                self.graphs, self.aside = Graphs(Cuda(self.device)), Aside(self.device)
        if self._ready or self.device.type != "cpu":
            return
        self._ready = True
        if sum(p.numel() for p in self.unet.parameters()) >= LARGE:
            heads = {m.inner_dim // m.heads for m in self.unet.modules() if isinstance(m, Attention)}
            attending.prepare(self.dtype, sorted(heads))

    @property
    def device(self) -> torch.device:
        return next(self.unet.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.unet.parameters()).dtype

    def predict(self, batch: Batch) -> Float[Tensor, "b c h w"]:
        """What the base model answers (epsilon or v), whatever the rows ask for. One call of the UNet."""
        self.calls += 1
        self.branch_calls += sum(not remembered(said, batch, "use") for said in batch.residuals)
        there = torch.cuda.device(self.device) if self.device.type == "cuda" else nullcontext()
        with there:
            if self.graphs is not None and not self.plain and not torch.is_grad_enabled():
                return self.graphs.predict(self, batch)
            return self.compute(batch)

    def compute(self, batch: Batch) -> Float[Tensor, "b c h w"]:
        """The answer itself, made anew."""
        deep = deeply(batch)
        known = deep is not None and deep.known
        residuals = self.aside(lambda: self.outermost(self.answers(batch, speaking(batch, "skips")), "skips", known))
        sites = self.outermost(self.answers(batch, speaking(batch, "inside")), "sites", known)
        heard = self.heard(batch)
        attention = heard.kwargs
        x = batch.x if batch.channels is None else torch.cat([batch.x, batch.channels], dim=1)
        visitors: list[Visitor] = [Sites(sites)] if sites is not None else []
        visitors += [Lockstep(said, batch) for said in speaking(batch, "lockstep")]
        visitors += [Norms(batch)] if any(e.norms for s in batch.shared for e in s.entries) else []
        edits, fast = self.edits(batch), self.fast
        with telling(edits):
            if visitors or fast or deep is not None:
                told, timestep = embedded(batch.embedding), batch.timestep
                layers: Layers = Plain(batch.context.values, attention)
                if fast:
                    settled(self.unet)
                    alone = edits is None and not visitors and not heard.projections and not heard.edits
                    alike = shared(batch.context, batch.same) if alone else None
                    layers = Fast(batch.context.values, heard, self.parts, alike)
                    if alike is not None:
                        x, timestep, told = x[alike.first], timestep[alike.first], alike.of(told)
                h = walk(
                    self.unet, x, timestep, layers, Ask(visitors) if visitors else Stroll(), features=batch.features,
                    residuals=residuals, embedding=told, deep=deep,
                )  # fmt: skip
                if deep is not None and not deep.known and deep.features is not None:
                    for memory, features in zip(batch.memory, deep.features, strict=True):
                        memory.deep = features.clone()
                return head(self.unet, h)[: batch.asked]
            skips = residuals()
            return self.unet(
                x,
                batch.timestep,
                encoder_hidden_states=batch.context.values,
                cross_attention_kwargs=attention,
                down_block_additional_residuals=skips and tuple(skips[:-1]),
                mid_block_additional_residual=skips and skips[-1],
                down_intrablock_additional_residuals=batch.features and list(batch.features),  # diffusers empties it
                return_dict=False,
                **embedded(batch.embedding),
            )[0][: batch.asked]

    @property
    def fast(self) -> bool:
        """Is this call computed in fewer steps?"""
        return not self.plain and not torch.is_grad_enabled() and walkable(self.unet)

    def edits(self, batch: Batch) -> Edits | None:
        """What LoRAs say to the layers in this call. Stacked factors are kept while the same networks speak to the same rows."""
        if not batch.edits:
            return None
        who = tuple((id(e.entry.network), e.rows) for e in batch.edits)
        if who not in self._stacks:
            self._stacks = {who: {}}
        frames = int(batch.x.shape[2]) if batch.x.ndim == 5 else 1
        grid = (int(batch.x.shape[-2]), int(batch.x.shape[-1]))
        return Edits(batch.edits, len(batch.x) * frames, frames, grid, self._stacks[who])

    def heard(self, batch: Batch) -> Heard:
        """What every attention is told. Hints of branches that speak there are embedded once for the call."""
        grid = (int(batch.x.shape[-2]), int(batch.x.shape[-1]))
        at = tuple(Projections(s, shown(s), grid) for s in speaking(batch, "projections"))
        merged = 0.0 if batch.shortcut is None else batch.shortcut.merged
        return Heard(batch.context, batch.decoupled, at, batch.shared, merged)

    def outermost(self, said: list[Tensor] | None, where: str, only: bool) -> list[Tensor] | None:
        """What branches say, or `only` what they say at the outermost level: at its skips (and at a middle, which is not asked); at
        its sites."""
        if said is None or not only:
            return said
        unet: Any = self.unet
        down, up = 1 + len(unet.down_blocks[0].resnets), len(unet.up_blocks[-1].resnets)
        return [*said[:down], said[-1]] if where == "skips" else [*said[:down], *said[-up:]]

    def answers(self, batch: Batch, speakers: Sequence[SpokenResidual]) -> list[Tensor] | None:
        """The sum of some branches' answers, per site; None if there are none."""
        total: list[Tensor] | None = None
        for said in speakers:
            answer = branch_answer(said, batch, self.spec.levels, None if self.plain else self.parts)
            if total is None:
                if tuple(said.where) == tuple(range(len(batch.x))):  # everybody hears it
                    total = answer
                    continue
                total = [r.new_zeros(len(batch.x), *r.shape[1:]) for r in answer]
            total = [t.index_add(0, said.rows, r) for t, r in zip(total, answer, strict=True)]
        return total


@cache
def between(device: torch.device) -> Parts:
    """How a GPU computes what is between products: by kernels of our own, where Triton is there and can build them."""
    if find_spec("triton") is None:
        return Parts()
    try:
        from infuse.network.fused import Fused, gated

        gated(torch.zeros(1, 32, dtype=torch.float16, device=device))
        return Fused()
    except Exception as error:  # no C compiler, a GPU that Triton does not know
        why = (str(error).splitlines() or [type(error).__name__])[0][:200]
        note(f"kernels for this GPU could not be built, torch's are used (it takes up to twice the time): {why}. "
             "Triton wants a C compiler, and a GPU that it knows.")  # fmt: skip
        return Parts()


def shown(said: SpokenResidual) -> Any:
    """What a branch makes of its hints, kept with them where no gradients are wanted."""
    if torch.is_grad_enabled():
        return said.branch.embedded(said.hints)  # type: ignore[operator]
    if "embedded" not in said.kept:
        said.kept["embedded"] = said.branch.embedded(said.hints)  # type: ignore[operator]
    return said.kept["embedded"]


def deeply(batch: Batch) -> Deep | None:
    """What is known of the deep features of these rows, or is to be kept of them; None: neither."""
    if batch.shortcut is None or not batch.shortcut.deep:
        return None
    known = [m.deep for m in batch.memory if m.deep is not None]
    return Deep(torch.stack(known) if batch.shortcut.deep == "use" else None)


def speaking(batch: Batch, place: str) -> list[SpokenResidual]:
    """The branches that speak at this place of the base: ControlNets at the skips, unless they say otherwise."""
    return [s for s in batch.residuals if getattr(s.branch, "place", "skips") == place]


class Sites(Stroll):
    """What BrushNets answered, at one site after another."""

    def __init__(self, answers: Sequence[Tensor]) -> None:
        self.answers = iter(answers)

    def __call__(self, h: Tensor, before: Tensor) -> Tensor:
        return next(self.answers)


class Lockstep:
    """A branch that walks beside the base (ControlNet-XS), for the rows that carry it."""

    def __init__(self, said: SpokenResidual, batch: Batch) -> None:
        self.said, self.batch, self.rows = said, batch, said.rows
        self.beside: Any = None
        self.began = False

    def _spread(self, more: Tensor | None, like: Tensor) -> Tensor | None:
        return None if more is None else torch.zeros_like(like).index_add(0, self.rows, more.to(like.dtype))

    def embedding(self, time: Tensor, emb: Tensor) -> Tensor | None:
        x, t = self.batch.x[self.rows], self.batch.timestep[self.rows]
        context = self.said.context or subset(self.batch.context, self.said.where)
        branch: Any = self.said.branch
        self.beside = branch.begin(x, t, emb[self.rows], self.said.hints, context, self.said.weights, self.said.masks)
        return self._spread(self.beside.embedding(time[self.rows], emb[self.rows]), emb)

    def first(self, h: Tensor) -> Tensor | None:
        return self._spread(self.beside.first(h[self.rows]), h)

    def __call__(self, h: Tensor, before: Tensor) -> Tensor | None:
        if not self.began:  # after the first convolution it has spoken already
            self.began = True
            return None
        return self._spread(self.beside(h[self.rows], before[self.rows]), h)


class Norms(Stroll):
    """Features of a row take over mean and spread of those of a picture that runs beside it (adaptive instance norm).

    Of several pictures, means and variances are averaged. Source: Mikubill/sd-webui-controlnet@56cec5b (reference_adain).
    """

    def __init__(self, batch: Batch) -> None:
        self.batch, self.site = batch, -1

    def __call__(self, h: Tensor, before: Tensor) -> Tensor | None:
        site, self.site = self.site, self.site + 1
        out: Tensor | None = None
        for said in self.batch.shared:
            here = [(i, e) for i, e in zip(said.shadows, said.entries, strict=True) if site in e.norms and e.share]
            if not here:
                continue
            x, them = h[said.row], torch.stack([h[i] for i, _ in here])
            mean = them.mean((2, 3), keepdim=True).mean(0)
            spread = them.var((2, 3), keepdim=True, correction=0).clamp(min=1e-6).mean(0).sqrt()
            own = x.var((1, 2), keepdim=True, correction=0).clamp(min=1e-6).sqrt()
            more = (x - x.mean((1, 2), keepdim=True)) / own * spread + mean - x
            more = more * sum(e.share * e.voice.weight for _, e in here) / len(here)
            masks = [e.voice.mask for _, e in here]
            if all(
                m is not None for m in masks
            ):  # somebody who is heard everywhere is heard outside of others' regions, too
                size = (int(x.shape[-2]), int(x.shape[-1]))
                more = more * torch.stack([resized(m, size).to(x) for m in masks if m is not None]).amax(0)
            out = torch.zeros_like(h) if out is None else out
            out[said.row] = more
        return out


def guidance_vector(scale: float, width: int) -> Float[Tensor, " e"]:
    """How a distilled network (LCM) is told a guidance scale: sinusoids of w = scale - 1, in thousandths.

    In float32, operation by operation as diffusers' LatentConsistencyModelPipeline, since 1000 w magnifies every last bit.
    """
    half = width // 2
    w = torch.tensor(scale - 1, dtype=torch.float32) * 1000.0
    step = torch.log(torch.tensor(10000.0)) / (half - 1)
    angles = w * torch.exp(torch.arange(half, dtype=torch.float32) * -step)
    return F.pad(torch.cat([angles.sin(), angles.cos()]), (0, width % 2))
