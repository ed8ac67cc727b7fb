"""Attention that listens to ports: shared queries, text tokens behind a bias, any number of decoupled adapters, others' keys.

One processor per attention layer, installed once when a network is loaded and never changed: which adapters speak,
to which rows, how loudly and where, arrives as data through diffusers' own `cross_attention_kwargs`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from infuse.constants import indices
from infuse.grids import level, on_grid, resized
from infuse.network.attending import attend
from infuse.network.edits import NOW
from infuse.network.merging import Merging
from infuse.shares import shared_out
from infuse.spoken import Spoken, SpokenDecoupled, SpokenResidual, SpokenShared


@dataclass(frozen=True, eq=False)
class Projections:
    """What changes the inputs of attention's projections for some rows (LLLite): the hint embedded once for a network call."""

    said: SpokenResidual
    state: Any
    grid: tuple[int, int]
    """Of the latent."""

    def added(self, path: str, name: str, x: Tensor) -> Tensor | None:
        """(k n c): what is added to the inputs of its rows, weighed and masked; None if this projection is not one of its own."""
        if not self.said.branch.speaks(path, name):  # type: ignore[operator]  text, say, lies on no grid
            return None
        y = self.said.branch.projected(path, name, x, self.state, level(self.grid, x.shape[1]))  # type: ignore[operator]
        y = y * self.said.weights[:, :1, None].to(y.dtype)
        return inside(y, self.said.masks, self.grid)


@dataclass(frozen=True, eq=False)
class Heard:
    """What every attention of a network call is told, besides the tokens."""

    context: Spoken | None = None
    decoupled: tuple[SpokenDecoupled, ...] = ()
    projections: tuple[Projections, ...] = ()
    shared: tuple[SpokenShared, ...] = ()
    merged: float = 0.0
    """Share of the places of the finest level that attend as one with others (`network.merging`)."""
    edits: tuple[SpokenDecoupled, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "edits", tuple(d for d in self.decoupled if d.edited is not None))

    @property
    def kwargs(self) -> dict[str, Any]:
        """As diffusers passes it on: to the attentions, and to what stands between them (`Fuser`) if anybody speaks there."""
        fused = tuple(d for d in self.decoupled if fuses(d))
        return {"heard": self} | ({"gligen": {"objs": fused}} if fused else {})


NOBODY = Heard()


def fuses(said: SpokenDecoupled) -> bool:
    """Is this adapter asked between self- and cross-attention (GLIGEN), instead of beside the latter?"""
    return getattr(said.adapter, "place", "") == "fuser"


class PortedAttention:
    """diffusers' attention (AttnProcessor2_0 semantics) plus what the ports say.

    `path` is the attention's module path; `layer` its index among the network's cross-attentions in IP-Adapter order, or None
    for self-attention. Not `pictured`: its rows are no pictures (a video network looks along its frames), and nobody speaks
    there. Source: IP-Adapter 3.2, eq. 5; two separate softmaxes, one sum before the output projection.
    """

    def __init__(self, path: str, layer: int | None, pictured: bool) -> None:
        self.path, self.layer, self.pictured = path, layer, pictured

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        heard: Heard = NOBODY,
        **_: Any,
    ) -> Tensor:
        cross = encoder_hidden_states is not None
        source = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        q = heads(self.projected(heard, "to_q", attn.to_q, hidden_states), attn.heads)
        context, edits = heard.context if cross else None, NOW.get()
        if context is not None and self.constant(heard, attn):
            k, v = said_once(context, attn)
        else:
            k = heads(self.projected(heard, "to_k", attn.to_k, source), attn.heads)
            v = heads(self.projected(heard, "to_v", attn.to_v, source), attn.heads)
        if context is not None:
            out = words(q, k, v, context)
        elif cross or not heard.merged or (together := self.together(heard, hidden_states)) is None:
            out = merged(attend(q, k, v, None))
        else:
            out = together.apart(merged(attend(together.merged(q), together.merged(k), together.merged(v), None)))
        if cross and self.pictured and edits is not None:
            plain = out
            for said in edits.of_words(attn, self.path, source):
                rows = edits.indices(said.rows, q.device)
                own_k = k[rows] if said.k is None else k[rows] + heads(said.k.to(k), attn.heads)
                own_v = v[rows] if said.v is None else v[rows] + heads(said.v.to(v), attn.heads)
                there = (
                    merged(attend(q[rows], own_k, own_v, None))
                    if context is None
                    else words(q[rows], own_k, own_v, context, said.rows)
                )
                out = out.index_add(0, rows, inside(there - plain[rows], said.masks, edits.grid).to(out.dtype))
        if not cross:
            for said in heard.shared:
                out = self.shared_answer(out, q, k, v, said)
        elif self.layer is not None:
            for said in heard.decoupled:
                if not fuses(said) and (said.heard is None or said.heard[self.layer]):
                    out = out.index_add(0, said.rows, self.image_answer(q, said, attn.heads).to(out.dtype))
        return attn.to_out[1](self.projected(heard, "to_out", attn.to_out[0], out))

    def together(self, heard: Heard, x: Tensor) -> Merging | None:
        """Which places attend as one in this self-attention (b places c): some of the finest level; None: each by itself."""
        grid = (1, 1) if heard.context is None else heard.context.grid
        return Merging(x, grid, heard.merged) if self.pictured and x.shape[1] == grid[0] * grid[1] else None

    def constant(self, heard: Heard, attn: Any) -> bool:
        """Are keys and values of words the same in every step, so that they can be kept? Not where gradients want them, nor where
        somebody changes how they are made."""
        if torch.is_grad_enabled() or heard.edits or heard.projections:
            return False
        edits = NOW.get()
        return edits is None or not (edits.touches(attn.to_k) or edits.touches(attn.to_v))

    def projected(self, heard: Heard, name: str, linear: nn.Module, x: Tensor) -> Tensor:
        """A projection of x, with what is added to its input (LLLite) and to its output (an adapter's low-rank part)."""
        if not self.pictured:
            return linear(x)
        shown = x
        for said in heard.projections:
            rows = said.said.rows
            y = said.added(self.path, name, x[rows]) if name != "to_out" else None
            if y is not None:
                shown = shown.index_add(0, rows, y.to(x.dtype))
        out = linear(shown)
        for said in heard.edits:
            assert said.edited is not None
            rows, factors = said.edited
            change = said.adapter.edit(self.path, name, x[rows])  # type: ignore[operator]
            if change is not None:
                out = out.index_add(0, rows, (change * factors[:, None, None].to(change.dtype)).to(out.dtype))
        return out

    def image_answer(self, q: Tensor, said: SpokenDecoupled, n: int) -> Tensor:
        """(k, queries, width): what one adapter adds for the rows that carry it, weighed and masked."""
        k, v = seen_once(said, self.layer)
        weight = said.weights if said.layers is None else said.weights * said.layers[:, self.layer]
        w = weight[:, None, None].to(v.dtype)
        if said.scaling != "v":
            w = w * (v.shape[-1] / 1280 if said.scaling.endswith("c") else 1)
            k = k * w
            v = v + (w - 1) * mean_token(v, said.tokens.bias) if "mean" in said.scaling else v * w
            w = 1
        out = merged(attend(q[said.rows], heads(k, n), heads(v, n), said.tokens.bias_for(q.shape[2])))
        out = out if isinstance(w, int) else out * w
        if all(m is None for m in said.masks):
            return out
        return out * said.tokens.once(("where", q.shape[2]), lambda: whereabouts(said.masks, said.tokens.grid, out))

    def shared_answer(self, out: Tensor, q: Tensor, k: Tensor, v: Tensor, said: SpokenShared) -> Tensor:
        """All rows' answers, one of them with the keys and values of what runs beside it in the same softmax."""
        here = [(i, e) for i, e in zip(said.shadows, said.entries, strict=True) if self.path in e.blocks and e.share]
        if not here:
            return out
        row, places = slice(said.row, said.row + 1), q.shape[2]
        more_k, more_v = (torch.cat([t[row], *(t[i : i + 1] for i, _ in here)], dim=2) for t in (k, v))
        bias = None
        if any(e.voice.weight != 1 or e.voice.mask is not None for _, e in here):
            bias = q.new_zeros(1, 1, places, more_k.shape[2])
            for j, (_, e) in enumerate(here, 1):
                region = bias[..., j * places : (j + 1) * places]
                region += math.log(max(e.voice.weight, 1e-9))
                if e.voice.mask is not None:
                    region += on_grid(e.voice.mask, said.grid, places).clamp(1e-9, 1).log()[:, None].to(region)
        with_them = merged(attend(q[row], more_k, more_v, bias))
        share = sum(e.share for _, e in here) / len(here)
        answer = with_them if share == 1 else out[row] + share * (with_them - out[row])
        return torch.cat([out[: said.row], answer.to(out.dtype), out[said.row + 1 :]])


class Fuser(nn.Module):
    """Where GLIGEN speaks: after a transformer block's self-attention. It has no weights; adapters bring theirs."""

    def __init__(self, path: str, pictured: bool) -> None:
        super().__init__()
        self.path, self.pictured = path, pictured

    def forward(self, x: Tensor, objs: Sequence[SpokenDecoupled]) -> Tensor:
        """Every adapter is shown the same x (b n c); what they say is summed."""
        out = x
        for said in objs if self.pictured else ():
            more = said.adapter.fused(self.path, x[said.rows], said.tokens.values, said.weights)  # type: ignore[operator]
            out = out.index_add(0, said.rows, inside(more, said.masks, said.tokens.grid).to(out.dtype))
        return out


class Passed(nn.Module):
    """In the place of diffusers' position_net: grounding tokens were made once, when they were encoded."""

    def forward(self, objs: Any) -> Any:
        return objs


def words(q: Tensor, k: Tensor, v: Tensor, context: Spoken, rows: Sequence[int] | None = None) -> Tensor:
    """(b places c): what cross-attention hears of the words of all rows, or of these: together, and what is attended apart
    (attention couple) each by itself."""
    bias = context.bias_for(q.shape[2])
    bias = bias if rows is None or bias is None else bias[list(rows)]
    out = merged(attend(q, k, v, bias))
    for n, couple in enumerate(context.couples):
        mine = [i for i, row in enumerate(rows or range(len(q))) if row // context.frames == couple.row]
        if mine:
            i = context.once(("rows of couple", n, tuple(mine)), lambda mine=mine: indices(mine, q.device))
            more = coupled(q[i], k[i], v[i], None if bias is None else bias[i], context, n)
            out = out.index_copy(0, i, more.to(out.dtype))
    return out


def coupled(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, context: Spoken, n: int) -> Tensor:
    """sum of M_i Attn(q, T_i), and what is left of 1 for the row's other words. M_i: weights times regions, normalised where they
    overlap. Source: laksjdjf/cgem156-ComfyUI@884563c (attention couple); masks by area, on the grid that the layer has."""
    couple, places = context.couples[n], int(q.shape[2])

    def divided() -> tuple[list[Tensor], Tensor]:
        size, one = level(context.grid, places), q.new_ones(places)
        where = [one if m is None else resized(m, size, "area").flatten().to(q) for m in couple.masks]
        return shared_out(where, couple.weights, couple.rests)

    def unclaimed() -> Tensor:
        own = {i for tokens in couple.tokens for i in range(*tokens.indices(k.shape[2]))}
        return indices([i for i in range(k.shape[2]) if i not in own], k.device)

    shares, left = context.once(("shares", n, places, q.dtype), divided)
    others = context.once(("unclaimed", n), unclaimed)
    out = left[:, None] * merged(
        attend(q, k[:, :, others], v[:, :, others], None if bias is None else bias[..., others])
    )
    for share, tokens in zip(shares, couple.tokens, strict=True):
        out = out + share[:, None] * merged(attend(q, k[:, :, tokens], v[:, :, tokens], None))
    return out


def inside(said: Tensor, masks: Sequence[Tensor | None], grid: tuple[int, int]) -> Tensor:
    """(k places c) of rows, each where it is heard."""
    return said if all(m is None for m in masks) else said * whereabouts(masks, grid, said)


def whereabouts(masks: Sequence[Tensor | None], grid: tuple[int, int], like: Tensor) -> Tensor:
    """(k places 1): how loudly each row is heard at each place of (k places c)."""
    everywhere = like.new_ones(like.shape[1])
    where = [everywhere if m is None else on_grid(m, grid, like.shape[1]).to(like) for m in masks]
    return torch.stack(where)[..., None]


def said_once(context: Spoken, attn: Any) -> tuple[Tensor, Tensor]:
    """Keys and values (b heads n d) of all words in one attention, kept with the words while its weights are the same."""
    mark = marked(attn.to_k.weight, attn.to_v.weight)
    found = context.kept.get(attn)
    if found is None or found[0] != mark:
        k, v = (heads(linear(context.values), attn.heads) for linear in (attn.to_k, attn.to_v))
        if context.frames > 1:
            k, v = k.repeat_interleave(context.frames, 0), v.repeat_interleave(context.frames, 0)
        found = context.kept[attn] = (mark, k, v)
    return found[1], found[2]


def seen_once(said: SpokenDecoupled, layer: int | None) -> tuple[Tensor, Tensor]:
    """Keys and values (k m width) that an adapter has for one attention, kept with its tokens."""
    to_k, to_v = said.adapter.layer(layer)  # type: ignore[operator]
    if torch.is_grad_enabled() or not all(isinstance(m, nn.Linear) for m in (to_k, to_v)):
        return to_k(said.tokens.values), to_v(said.tokens.values)
    mark, mine = marked(to_k.weight, to_v.weight), said.tokens.kept.setdefault(said.adapter, {})
    if layer not in mine or mine[layer][0] != mark:
        mine[layer] = mark, to_k(said.tokens.values), to_v(said.tokens.values)
    return mine[layer][1], mine[layer][2]


def marked(*weights: Tensor) -> tuple[Any, ...]:
    """What changes when somebody writes into these weights, or puts others in their place."""
    return tuple((w.data_ptr(), 0 if w.is_inference() else w._version) for w in weights)


def mean_token(v: Tensor, bias: Tensor | None) -> Tensor:
    """(k 1 c): the mean of each row's own tokens; padding is none."""
    if bias is None:
        return v.mean(1, keepdim=True)
    real = (bias > -math.inf).to(v)[..., None]
    return (v * real).sum(1, keepdim=True) / real.sum(1, keepdim=True)


def heads(t: Tensor, n: int) -> Tensor:
    """(b, places, n*d) to (b, n, places, d)."""
    return t.unflatten(-1, (n, -1)).transpose(1, 2)


def merged(t: Tensor) -> Tensor:
    """The reverse of `heads`."""
    return t.transpose(1, 2).flatten(2)


def install(network: nn.Module, cross_layers: tuple[str, ...] = ()) -> None:
    """Give every attention of a diffusers network a ported processor; `cross_layers` are numbered in that order. Between the
    attentions of a transformer block stands a `Fuser`, which is asked only when somebody speaks there."""
    index = {path: i for i, path in enumerate(cross_layers)}
    blocks = {path.rpartition(".")[0] for path in cross_layers}
    paths = {name.removesuffix(".processor"): name.rpartition(".attn")[0] for name in network.attn_processors}  # type: ignore[union-attr]
    network.set_attn_processor(  # type: ignore[operator]
        {f"{path}.processor": PortedAttention(path, index.get(path), block in blocks) for path, block in paths.items()}
    )
    for path, name in paths.items():
        block = network.get_submodule(name)
        if path.endswith(".attn1") and not hasattr(block, "fuser"):
            block.fuser = Fuser(name, name in blocks)
    network.position_net = Passed()
