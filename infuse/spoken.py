"""What one network call is told: the rows that ask, and everything that their ports say, as tensors of all of them.

Nothing here couples rows: tokens are padded behind a bias, adapters and branches carry the indices of the rows they speak to.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from jaxtyping import Float
from torch import Tensor, nn

from infuse.grids import on_grid
from infuse.lossy import Memory, Shortcut
from infuse.ports import Edit, Ports, Scaling, Shared


class Slots(Protocol):
    """What a batch must know of the network that will read it."""

    @property
    def channel_slots(self) -> Sequence[Any]: ...
    @property
    def embedding_slots(self) -> Mapping[str, int]: ...
    @property
    def sites(self) -> int: ...


@dataclass(frozen=True, eq=False)
class Row:
    """One evaluation of the network for one job."""

    x: Float[Tensor, "c h w"] | Float[Tensor, "c f h w"]
    """The latent as the solver scaled it; a clip has its frames beside its channels."""
    timestep: Float[Tensor, ""]
    ports: Ports
    shortcut: Shortcut | None = None
    """What the evaluation leaves out (lossy options); None: nothing."""
    memory: Memory | None = None
    """What it keeps for the next one, or has kept."""


@dataclass(frozen=True, eq=False)
class Couple:
    """Words of one row that are attended apart, each in its region, in place of the row's other words (attention couple)."""

    row: int
    tokens: tuple[slice, ...]
    """Of each; what is in none of them is attended together."""
    weights: tuple[float, ...]
    masks: tuple[Tensor | None, ...]
    """(height width); None: everywhere."""
    rests: tuple[float, ...]
    """How much of the other words is heard where each of these is."""


@dataclass(frozen=True, eq=False)
class Spoken:
    """Padded tokens of some rows, with what their attention must know."""

    values: Float[Tensor, "k n d"]
    bias: Float[Tensor, "k n"] | Float[Tensor, "k f n"] | None
    """log(weight) per token (and frame), -inf for padding; None when all are plain."""
    regions: tuple[tuple[int, slice, Tensor], ...] = ()
    """(row, its tokens, mask (height width)): these tokens are heard inside the mask only."""
    grid: tuple[int, int] = (1, 1)
    frames: int = 1
    """Of a clip: its attention sees every frame as a row of its own."""
    couples: tuple[Couple, ...] = ()
    cache: dict[Any, Any] = field(default_factory=dict)
    """Biases by number of queries; what masks say at a level; the same tokens for frames, or for some rows."""
    kept: WeakKeyDictionary[nn.Module, Any] = field(default_factory=WeakKeyDictionary)
    """Keys and values that an attention, or an adapter, has made of these tokens."""

    def once(self, key: Any, make: Callable[[], Any]) -> Any:
        """What depends on nothing but these tokens and the key."""
        if key not in self.cache:
            self.cache[key] = make()
        return self.cache[key]

    def bias_for(self, queries: int) -> Float[Tensor, "k 1 q n"] | None:
        """The additive bias for a layer with that many queries."""
        return self.once(("bias", queries), lambda: self._bias(queries))

    def _bias(self, queries: int) -> Tensor | None:
        if self.bias is None and not self.regions:
            return None
        flat = self.bias if self.bias is not None else self.values.new_zeros(self.values.shape[:2])
        flat = flat.flatten(0, 1) if flat.ndim == 3 else flat.repeat_interleave(self.frames, 0)
        if not self.regions:
            return flat[:, None, None]
        full = flat[:, None, None].repeat(1, 1, queries, 1)
        for row, tokens, mask in self.regions:
            here = slice(row * self.frames, (row + 1) * self.frames)
            full[here, 0, :, tokens] += on_grid(mask, self.grid, queries).clamp(1e-9, 1).log()[:, None].to(full)
        return full


@dataclass(frozen=True, eq=False)
class SpokenDecoupled:
    """One adapter's tokens for the rows that carry it."""

    adapter: nn.Module
    rows: Tensor
    tokens: Spoken
    weights: Float[Tensor, " k"]
    """Of each row; of each frame, once a clip's rows are unrolled."""
    layers: Float[Tensor, "k layers"] | None
    masks: tuple[Tensor | None, ...]
    frames: tuple[tuple[float, ...] | None, ...] = ()
    heard: tuple[bool, ...] | None = None
    """Of each cross-attention: does any row hear it there? None: everywhere."""
    scaling: Scaling = "v"
    edited: tuple[Tensor, Tensor] | None = None
    """(rows, factors) of those whose projections the adapter changes: each row once, however often it carries it."""


@dataclass(frozen=True, eq=False)
class SpokenResidual:
    """One branch's hints for the rows that carry it."""

    branch: nn.Module
    rows: Tensor
    hints: Float[Tensor, "k c height width"]
    weights: Float[Tensor, "k sites"]
    masks: tuple[Tensor | None, ...]
    context: Spoken | None = None
    """Tokens of the branch's own; None: it hears those of its rows."""
    frames: tuple[tuple[float, ...] | None, ...] = ()
    """Weight of each frame of a clip, for each row; None: all the same."""
    vectors: Float[Tensor, "k t"] | Float[Tensor, "k m t"] | None = None
    """Numbers for the branch's own embedding; of a branch that merges, for each of its m hints."""
    parts: Float[Tensor, "k m h w"] | None = None
    """How much each hint of a branch that merges counts, and where; 0: there is none."""
    same: tuple[int, ...] | None = None
    """For each of its rows the first one that is told and shown the same besides words."""
    where: tuple[int, ...] = ()
    """The rows once more, as numbers."""
    through: Hashable = None
    """What tells its branch, and the kind of its hints, from others of a row."""
    kept: dict[Any, Any] = field(default_factory=dict)
    """What the branch made of the hints."""


@dataclass(frozen=True, eq=False)
class SpokenShared:
    """Which rows run beside which: the pictures whose keys and values one row finds in its self-attention."""

    row: int
    shadows: tuple[int, ...]
    """Rows of the same batch."""
    entries: tuple[Shared, ...]
    grid: tuple[int, int]

    @property
    def share(self) -> float:
        """How much of the answer has heard them: the mean over all, as of the webui's style fidelities."""
        return sum(e.share for e in self.entries) / len(self.entries)


@dataclass(frozen=True, eq=False)
class SpokenEdit:
    """One LoRA for the rows that carry it (a row may carry it more than once)."""

    entry: Edit
    rows: tuple[int, ...]
    weights: tuple[float, ...]
    masks: tuple[Tensor | None, ...]
    frames: tuple[tuple[float, ...] | None, ...] = ()
    """Weight of each frame of a clip, for each row; None: all the same."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Everything one network call needs. Rows after `asked` run beside others, and nobody wants their answers."""

    x: Float[Tensor, "b c h w"]
    timestep: Float[Tensor, " b"]
    channels: Float[Tensor, "b e h w"] | None
    context: Spoken
    decoupled: tuple[SpokenDecoupled, ...]
    residuals: tuple[SpokenResidual, ...]
    embedding: dict[str, Tensor]
    features: tuple[Float[Tensor, "b c h w"], ...] | None = None
    """What T2I-Adapters add where each level of the encoder ends."""
    shared: tuple[SpokenShared, ...] = ()
    edits: tuple[SpokenEdit, ...] = ()
    asked: int | None = None
    same: tuple[int, ...] | None = None
    """For each row the first one that is told the same besides words; None: all differ, or run beside each other."""
    shortcut: Shortcut | None = None
    """What this call leaves out; None: nothing."""
    memory: tuple[Memory, ...] = ()
    """Of each row, where anything is left out."""
