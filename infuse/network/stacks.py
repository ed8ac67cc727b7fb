"""Low-rank changes of rows with different networks, side by side: two products for all of them, whatever their number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class Speaker:
    """One LoRA at one layer: what it changes there, and how loudly for each row that carries it."""

    change: Any
    """A `network.lora.Change`."""
    rows: tuple[int, ...]
    weights: tuple[float, ...]
    masks: tuple[Tensor | None, ...]

    @property
    def masked(self) -> bool:
        return any(m is not None for m in self.masks)

    def of_clips(self, frames: int) -> Speaker:
        """For what is said once for all frames of a clip: as loudly as they hear it on the mean."""
        firsts = range(0, len(self.rows), frames)
        weights = tuple(sum(self.weights[i : i + frames]) / frames for i in firsts)
        return Speaker(
            self.change, tuple(self.rows[i] // frames for i in firsts), weights, tuple(self.masks[i] for i in firsts)
        )


@dataclass(eq=False)
class Stack:
    """Factors of rows with different networks at one layer, filled up with zeros to one rank: made once, while the same networks
    speak to the same rows."""

    index: Tensor | None
    """Rows of the layer's input, those of one set of networks beside one another; None: all of them in their order."""
    groups: int
    down: Tensor
    """(groups r in...)."""
    up: Tensor
    """(groups out r)."""
    slots: list[list[tuple[int, int, int, int]]]
    """For each row: (from, to, speaker, which of its rows), where a network's factors stand."""
    bias: Tensor | None
    """(groups r out): what is added besides, for the first of each network's factors."""
    changes: tuple[Any, ...]
    """They stay alive, so that their ids stay theirs."""
    _scales: tuple[Any, Tensor] | None = None

    @classmethod
    def of(cls, low: Sequence[Speaker], n: int, count: int, device: Any) -> Stack:
        sets: dict[int, list[tuple[int, int]]] = {}
        for i, s in enumerate(low):
            for j, row in enumerate(s.rows):
                sets.setdefault(row, []).append((i, j))
        kinds = {row: tuple(i for i, _ in said) for row, said in sets.items()}
        distinct = list(dict.fromkeys(kinds.values()))
        rows = sorted(sets, key=lambda row: distinct.index(kinds[row]))
        if len({sum(k == kind for k in kinds.values()) for kind in distinct}) > 1:  # each row is a set of its own
            rows = sorted(sets)
            distinct = [kinds[row] for row in rows]
        pairs = [[low[i].change for i in kind] for kind in distinct]
        most = max(sum(len(c.factors[0]) for c in p) for p in pairs)
        down, up, biases = [], [], []
        for p in pairs:
            a, b = torch.cat([c.factors[0] for c in p]), torch.cat([c.factors[1] for c in p], dim=1)
            down.append(F.pad(a, (0, 0) * (a.ndim - 1) + (0, most - len(a))))
            up.append(F.pad(b, (0, most - b.shape[1])))
            more, at = b.new_zeros(most, len(b)), 0
            for c in p:
                if c.bias is not None:
                    more[at] = c.bias
                at += len(c.factors[0])
            biases.append(more)
        slots = []
        for row in rows:
            at, mine = 0, []
            for i, j in sets[row]:
                r = len(low[i].change.factors[0])
                mine.append((at, at + r, i, j))
                at += r
            slots += [mine] * n
        picked = [row * n + f for row in rows for f in range(n)]
        index = None if picked == list(range(count)) else torch.tensor(picked, device=device)
        bias = torch.stack(biases) if any(s.change.bias is not None for s in low) else None
        return cls(index, len(distinct), torch.stack(down), torch.stack(up), slots, bias, tuple(s.change for s in low))

    def scales(self, weights: Sequence[tuple[float, ...]]) -> Tensor:
        """(groups rows r): how loudly each factor is heard."""
        said = tuple(weights)
        if self._scales is None or self._scales[0] != said:
            rows = [[0.0] * self.down.shape[1] for _ in self.slots]
            for row, mine in zip(rows, self.slots, strict=True):
                for begin, end, i, j in mine:
                    row[begin:end] = [said[i][j]] * (end - begin)
            self._scales = said, self.down.new_tensor(rows).view(self.groups, -1, self.down.shape[1])
        return self._scales[1]

    def answer(self, layer: Any, x: Tensor, weights: Sequence[tuple[float, ...]], out: Tensor | None = None) -> Tensor:
        """What is added for these rows of the layer's input; with their answers so far (`out`), the sum."""
        scales = self.scales(weights)
        each = scales.shape[1]
        if isinstance(layer, nn.Conv2d):
            more = grouped_conv(layer, x.unflatten(0, (self.groups, each)), self.down, self.up, scales)
        else:
            flat = x.reshape(self.groups, -1, x.shape[-1])
            z = torch.bmm(flat, self.down.transpose(1, 2)).unflatten(1, (each, -1)) * scales[:, :, None]
            z, up = z.flatten(1, 2), self.up.transpose(1, 2)
            if out is not None:  # one pass over memory instead of two
                more = torch.baddbmm(out.reshape(self.groups, z.shape[1], -1), z.to(out.dtype), up.to(out.dtype))
                more, out = more.view(*x.shape[:-1], -1), None
            else:
                more = torch.bmm(z, up).view(*x.shape[:-1], -1)
        if self.bias is not None:
            plus = torch.bmm(scales, self.bias).flatten(0, 1)
            more = (
                more + plus.view(*plus.shape, *(1,) * (x.ndim - 2))
                if x.ndim == 4
                else more + plus.view(len(plus), *(1,) * (x.ndim - 2), -1)
            )
        return more if out is None else out + more.to(out.dtype)


def grouped_conv(layer: nn.Conv2d, x: Tensor, down: Tensor, up: Tensor, scales: Tensor) -> Tensor:
    """(groups each c h w), a convolution of its own for each group: (groups*each out h' w')."""
    groups, each = x.shape[:2]
    if down.shape[-2:] == (1, 1) and layer.stride == (1, 1) and layer.padding == (0, 0):  # a product at every place
        z = torch.matmul(down[:, None, :, :, 0, 0], x.flatten(3)) * scales[..., None]
        return torch.matmul(up[:, None], z).unflatten(-1, x.shape[-2:]).flatten(0, 1)
    beside = x.transpose(0, 1).flatten(1, 2)  # groups as groups of channels
    z = F.conv2d(beside, down.flatten(0, 1), None, layer.stride, layer.padding, layer.dilation, groups)  # type: ignore[arg-type]
    z = z.unflatten(1, (groups, -1)).transpose(0, 1) * scales[..., None, None]
    h, w = z.shape[-2:]
    out = torch.bmm(up, z.permute(0, 2, 1, 3, 4).reshape(groups, z.shape[2], -1))
    return out.view(groups, -1, each, h, w).transpose(1, 2).flatten(0, 1)
