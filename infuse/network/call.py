"""How many rows share a call. At a fixed width, a row's answer is its own to the last bit, whoever the neighbours are.

A sum of floats depends on the kernel that makes it, and the kernel on shapes. So there every call has the same number of
rows, all of one structure: as many tokens, the same adapters, the same branches. The price is calls that are padded.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.overrides import TorchFunctionMode

from infuse.batch import Row, branches, collate, spoken_through
from infuse.network.graphs import rung
from infuse.network.unet import Network
from infuse.ports import Features, Tokens


def evaluate(
    network: Network, rows: Sequence[Row], most: int, row_width: int | None = None
) -> list[Float[Tensor, "c *f h w"]]:
    """The network's answer to each row, in their order. Rows are of one latent shape; a clip counts as its frames.

    Pictures share one call; clips take several if they have more than `most` frames, so that memory stays flat. With
    `row_width`, every call has that many rows, and every row the same bits as alone.
    """
    answers: dict[int, Tensor] = {}
    with SteadySiLU() if row_width else nullcontext():
        for call, width in calls(rows, most, row_width):
            asked = [rows[i] for i in call]
            if getattr(network, "graphs", None) is not None and rows[0].x.ndim == 3:
                width = rung(width)
            asked += asked[-1:] * (width - len(asked))
            answers |= zip(
                call,
                network.predict(collate(asked, network.spec, getattr(network, "constants", None), bool(row_width))),
                strict=False,
            )  # nobody asked for padding
    return [answers[i] for i in range(len(rows))]


def calls(rows: Sequence[Row], most: int, row_width: int | None) -> list[tuple[Sequence[int], int]]:
    """(indices of rows, width) of each call."""
    if not rows:
        return []
    frames = rows[0].x.shape[1] if rows[0].x.ndim == 4 else 1
    together: dict[Hashable, list[int]] = {}
    for i, row in enumerate(rows):
        together.setdefault(structure(row) if row_width else row.shortcut, []).append(i)
    width = max(1, row_width // frames) if row_width else len(rows) if frames == 1 else max(1, most // frames)
    parts = [group[i : i + width] for group in together.values() for i in range(0, len(group), width)]
    return [(part, width if row_width else len(part)) for part in parts]


def structure(row: Row) -> Hashable:
    """All of a row that decides the shapes and kernels of its call (see `collate`).

    Rows of one structure ask for one computation with other numbers: nothing is padded for the sake of one of them, and
    no bias made. Weights, and the regions of adapters and branches, are factors, 1 where there are none: they decide
    nothing. So do channels and vectors: every row has all of the network's slots.
    """
    p = row.ports
    return (
        row.shortcut,
        tuple(row.x.shape),
        spelled(p.context),
        tuple((id(e.adapter), tuple(e.tokens.shape), e.scaling) for e in p.decoupled),
        tuple((spoken_through(e), spelled(e.context)) for e in branches(p)),
        any(isinstance(e, Features) for e in p.residuals),
        tuple((id(e.network), e.blocks, e.voice.mask is not None) for e in p.edits),
        tuple(
            (e.blocks, e.norms, e.share == 1, e.share == 0, e.voice.weight != 1, e.voice.mask is not None)
            for e in p.shared
        ),
    )


def spelled(context: Sequence[Tokens]) -> Hashable:
    """Of tokens: how many, do they need a bias, and do they need one for each query."""
    voices = [t.voice for t in context]
    return (
        sum(len(t.now) for t in context),
        any(v.weight != 1 or v.frames is not None for v in voices),
        any(v.mask is not None for v in voices),
        tuple((len(t.now), t.voice.mask is not None) for t in context if t.apart is not None),
    )


class SteadySiLU(TorchFunctionMode):
    """While it is entered, SiLU on a CPU gives a number the same bits wherever in a tensor it stands.

    PyTorch's own does not: it cuts the tensor into a piece for each thread, and what is left of a piece after its last
    whole vector is computed by other code, that differs in the last bit. Its exp has no such seams; sums, products and
    quotients are exact anyway. Of all that these networks do (linear layers, convolutions, attention, norms, GELU,
    measured with 1 to 6 threads) nothing else cares where a row stands.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is F.silu and args[0].device.type == "cpu":
            x = args[0].to(torch.promote_types(args[0].dtype, torch.float32))
            return (x / (1 + torch.exp(-x))).to(args[0].dtype)
        return func(*args, **(kwargs or {}))
