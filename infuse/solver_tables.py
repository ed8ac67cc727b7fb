"""A linear sampler is a table: each next latent is a sum of this one, the answer, and a few latents that are carried along.

Nobody writes the coefficients down. diffusers' own scheduler is run once on unit vectors in the place of latents, and its
answers are read off: input scales, and the impulse response of every output to every latent and answer before it. From
these come the fewest carried latents that say the same (a realisation of the time-varying linear system). Whatever draws
noise, clips, thresholds, or is bent in another way gives other results than its table on the vectors that are run beside,
and has no table: diffusers' scheduler runs it as before.

What is handed to a step is taken as free, so that a latent may be changed between steps (blend inpainting).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Stacked", "Table", "arguments", "run", "table"]

Array = NDArray[np.float64]
KEPT = 64
"""Tables that are remembered; one of 50 steps has about 5 kB."""
EXACT = 1e-10
"""How closely a table repeats its scheduler in float64, relative to the largest number of a step."""
NOTHING = 1e-15
"""Shares of the largest below this are rounding."""


def arguments(scheduler: Any, told: Mapping[str, Any], generator: torch.Generator) -> dict[str, Any]:
    """Of each step of a scheduler, as the stock pipelines say them: the job's randomness, eta 0, and what the recipe says."""
    accepted = inspect.signature(scheduler.step).parameters
    return {**{k: v for k, v in (("generator", generator), ("eta", 0.0)) if k in accepted}, **told}


# ── the table ───────────────────────────────────────────────────────────────────────────────────────────────────────

Sum = tuple[tuple[int, float], ...]
"""(which, how often) of latent, answer and carried ones; a term that counts once comes first."""


@dataclass(frozen=True, eq=False)
class Table:
    """A linear sampler between its first and its last timestep, n evaluations with at most k carried latents.

    In evaluation i the network is shown `scales[i] x`, and
    (next x, next carried) = updates[i] (x, answer, carried).
    """

    scales: Float[Array, " n"]
    updates: Float[Array, "n 1+k 2+k"]
    levels: Float[Array, "n 2"]
    """What a kept place is after each evaluation: so much of the known latent, so much of its noise. The last is the known."""
    positions: tuple[int | None, ...]
    """Where the scheduler stood after each evaluation, which its `add_noise` asks for."""
    sums: tuple[tuple[Sum, ...], ...] = field(init=False)
    """The same as `updates`, without zeros."""

    def __post_init__(self) -> None:
        sums = tuple(tuple(_terms(row) for row in update) for update in self.updates)
        # what nobody reads is not made: later ones never hold more than they are asked for
        widths = [max((which - 1 for row in rows for which, _ in row), default=0) for rows in sums]
        needed = [max(width, 0) for width in (*widths[1:], 0)]
        object.__setattr__(self, "sums", tuple(rows[: 1 + k] for rows, k in zip(sums, needed, strict=True)))

    def __len__(self) -> int:
        return len(self.scales)

    @property
    def carried(self) -> int:
        """Latents that are carried from one evaluation to the next, at most."""
        return self.updates.shape[1] - 1


def _terms(row: Array) -> Sum:
    found = [(int(which), float(row[which])) for which in np.flatnonzero(row)]
    return tuple(sorted(found, key=lambda term: term[1] != 1))


def _sum(terms: Sum, parts: Sequence[Tensor]) -> Tensor:
    """Never in place of a part: the network, a preview or the next step may still look at it."""
    if not terms:
        return torch.zeros_like(parts[0])
    (which, often), *rest = terms
    if often != 1:
        out = parts[which] * often
    elif not rest:
        return parts[which]
    else:
        (other, times), *rest = rest
        out = torch.add(parts[which], parts[other], alpha=times)
    for which, often in rest:
        out.add_(parts[which], alpha=often)
    return out


def run(
    table: Table, x: Float[Tensor, "c h w"], steps: Tensor, hold: Callable[[Tensor, Tensor | None], Tensor] | None, scheduler: Any
) -> Generator[tuple[Tensor, Tensor], Tensor, Tensor]:  # fmt: skip
    """`solvers.solve` by a table: in single precision at least, whatever the job's own is. scheduler: whom `hold` asks."""
    own = x.dtype
    x = x.to(torch.promote_types(own, torch.float32))
    carried: list[Tensor] = []
    rows = zip(steps, [*steps[1:], None], table.scales.tolist(), table.sums, table.positions, strict=True)
    for t, then, scale, (first, *others), position in rows:
        shown = x if scale == 1 else x * scale
        answer = yield shown.to(own), t
        parts = (x, answer.to(x), *carried)
        x, carried = _sum(first, parts), [_sum(terms, parts) for terms in others]
        if hold is not None:
            if position is not None:
                scheduler._step_index = position
            x = hold(x, then)
    return x.to(own)


# ── several jobs at once ────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, eq=False)
class Stacked:
    """Tables of several jobs, one under the other, on a device: `rows` says where each job stands, 0 being its first table's first.

    All jobs move on by the same few operations, with no number that lives on the host.
    """

    starts: tuple[int, ...]
    """The row at which each table begins."""
    scales: Float[Tensor, " rows"]
    updates: Float[Tensor, "rows 1+k 2+k"]
    levels: Float[Tensor, "rows 2"]

    @classmethod
    def of(cls, tables: Sequence[Table], device: torch.device | str, dtype: torch.dtype) -> Stacked:
        """dtype: that of the latents; the coefficients have single precision at least. Narrower tables carry zeros."""
        k = max(t.carried for t in tables)
        starts = np.cumsum([0, *(len(t) for t in tables)]).tolist()
        updates = np.zeros((starts.pop(), 1 + k, 2 + k))
        for at, t in zip(starts, tables, strict=True):
            updates[at : at + len(t), : 1 + t.carried, : 2 + t.carried] = t.updates
        wide = torch.promote_types(dtype, torch.float32)
        scales, levels = (np.concatenate([getattr(t, name) for t in tables]) for name in ("scales", "levels"))
        moved = (torch.from_numpy(a).to(device, wide) for a in (scales, updates, levels))
        return cls(tuple(starts), *moved)

    def carried(self, xs: Float[Tensor, "jobs c h w"]) -> Float[Tensor, "jobs k c h w"]:
        """What jobs carry before their first evaluation."""
        return xs.new_zeros((len(xs), self.updates.shape[1] - 1, *xs.shape[1:]), dtype=self.updates.dtype)

    def shown(self, rows: Tensor, xs: Float[Tensor, "jobs c h w"]) -> Float[Tensor, "jobs c h w"]:
        """What the network is shown in these rows of the tables."""
        return xs * _over(self.scales.index_select(0, rows), xs)

    def advance(
        self, rows: Tensor, xs: Float[Tensor, "jobs c h w"], answers: Float[Tensor, "jobs c h w"],
        carried: Float[Tensor, "jobs k c h w"],
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """(next latents, next carried). rows (jobs) of integers: where each of them stands, on the tables' device.

        2 + k operations after the look-up, whatever the samplers are. No matrix product: what TF32 or bf16 would round
        there is the picture itself.
        """
        updates = self.updates.index_select(0, rows)
        wide = updates.dtype
        out = _over(updates[:, :, 0], carried, 2) * xs.to(wide)[:, None]
        out.addcmul_(_over(updates[:, :, 1], carried, 2), answers.to(wide)[:, None])
        for k in range(carried.shape[1]):
            out.addcmul_(_over(updates[:, :, 2 + k], carried, 2), carried[:, k : k + 1])
        return out[:, 0], out[:, 1:]


def _over(values: Tensor, whole: Tensor, kept: int = 1) -> Tensor:
    """Values of the first axes, to be multiplied with something of the shape of `whole`."""
    return values.reshape(*values.shape, *(1,) * (whole.ndim - kept))


# ── reading it off ──────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class _Asked:
    """Everything a scheduler is, as something that can be looked up."""

    key: Any
    scheduler: Any = field(compare=False, repr=False)
    steps: Tensor = field(compare=False, repr=False)
    told: Mapping[str, Any] = field(compare=False, repr=False)


def table(scheduler: Any, steps: Tensor, told: Mapping[str, Any]) -> Table | None:
    """The table of a scheduler that is set to its timesteps and has not moved; None if it has none.

    steps (n): the timesteps at which the network is asked. told: arguments of each step. Nothing is drawn from anybody's
    generator, and the scheduler stays as it is.
    """
    if hasattr(scheduler, "noise_sampler_seed"):  # it makes its noise from a tree of its own, which takes long to grow
        return None
    asked = _Asked((_frozen(type(scheduler)), _frozen(vars(scheduler)), _frozen(steps), _frozen(told)), scheduler, steps, told)  # fmt: skip
    try:
        hash(asked)
    except TypeError:
        return _probed.__wrapped__(asked)
    return _probed(asked)


def _frozen(value: Any) -> Any:
    if isinstance(value, Mapping):
        return tuple((k, _frozen(v)) for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return tuple(value) if all(type(v) in (int, float, str) for v in value) else tuple(map(_frozen, value))
    if isinstance(value, Tensor):
        return _frozen(value.numpy(force=True))
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    return value


@lru_cache(KEPT)
def _probed(asked: _Asked) -> Table | None:
    try:
        return _read(deepcopy(asked.scheduler), asked.steps, asked.told)
    except Exception:  # what cannot be asked by unit vectors is asked by pictures, and says there what is wrong
        return None


def _read(scheduler: Any, steps: Tensor, told: Mapping[str, Any]) -> Table | None:
    n = len(steps)
    width = max(2 * n, 32)
    # beside the unit vectors, another picture: signed powers of two, so that a scheduler that takes latents to float32 rounds
    # nothing, half of them large, so that no bound is too high to be met
    draw = np.random.default_rng(n)
    beside: Array = np.ldexp(draw.choice([-1.0, 1.0], (2, n, width)), draw.integers(-3, 4, (2, n, width)))
    beside[..., width // 2 :] *= 2.0**27
    generator = torch.Generator("cpu").manual_seed(0)
    untouched, chosen = generator.get_state(), arguments(scheduler, told, generator)
    known, noise = torch.eye(2, dtype=torch.float64).reshape(2, 2, 1, 1, 1)
    scales, outs, levels = np.empty(n), np.empty((n, 2, width)), np.tile([1.0, 0.0], (n, 1))
    positions: list[int | None] = []
    for i, t in enumerate(steps):
        given = np.zeros((2, 2, 1, 1, width))  # new ones each time: some schedulers keep what they are given
        given[0, 0, ..., 2 * i] = given[1, 0, ..., 2 * i + 1] = 1
        given[:, 1, 0, 0] = beside[:, i]
        x, answer = torch.from_numpy(given)
        shown = scheduler.scale_model_input(x, t).double().numpy()
        scales[i] = shown[0, 0, 0, 2 * i]
        if not np.allclose(shown, given[0] * scales[i], rtol=EXACT, atol=0):
            return None
        out = scheduler.step(answer, t, x, return_dict=False, **chosen)[0]
        if out.shape != x.shape or not torch.equal(generator.get_state(), untouched):
            return None
        outs[i] = out[:, 0, 0].double().numpy()
        positions.append(getattr(scheduler, "step_index", None))
        if i + 1 < n:
            levels[i] = scheduler.add_noise(known, noise, steps[i + 1].repeat(2)).flatten().double().numpy()
    if not np.isfinite(outs).all() or not np.isfinite(scales).all():
        return None
    found = Table(scales, _realised(outs[:, 0, : 2 * n].reshape(n, n, 2), scales), levels, tuple(positions))
    return found if _repeats(found, beside, outs[:, 1]) else None


def _realised(responses: Float[Array, "n n 2"], scales: Float[Array, " n"]) -> Float[Array, "n 1+k 2+k"]:
    """The smallest updates with these responses: output i to (latent, answer) j.

    Before each evaluation, what is known is the latent, the answer and what is carried. Each is to the future what its
    column says; carried on are the fewest of them that say it all, with what the others add to the future in their terms
    (an interpolative decomposition: Cheng et al. 2005, "On the compression of low rank matrices").
    """
    n = len(responses)
    future, sizes, updates = np.zeros((n, 0)), np.ones(0), []
    for i in range(n):
        columns = np.concatenate([responses[i:, i], future], axis=1)
        # a latent is about as large as it is shown small, an answer about 1: what is large is carried rather
        sizes = np.array([1 / max(abs(scales[i]), 1e-6), 1.0, *sizes])
        sized = columns * sizes
        chosen, shares = _interpolated(sized[1:])
        rows = np.concatenate([sized[:1], shares * sizes[chosen][:, None]])
        rows[np.abs(rows) < NOTHING * np.abs(rows).max(axis=1, keepdims=True)] = 0
        updates.append(rows / sizes)
        future, sizes = columns[1:, chosen], sizes[chosen]
    k = max(len(u) for u in updates) - 1
    out = np.zeros((n, 1 + k, 2 + k))
    for i, u in enumerate(updates):
        out[i, : u.shape[0], : u.shape[1]] = u
    return out


def _interpolated(columns: Float[Array, "m all"]) -> tuple[list[int], Float[Array, "chosen all"]]:
    """(which columns, shares): columns[:, which] @ shares is all of them, but for rounding."""
    rest, chosen = columns.copy(), list[int]()
    least = 10 * NOTHING * np.linalg.norm(columns)
    while rest.size and len(chosen) < min(rest.shape):
        norms = np.einsum("ma,ma->a", rest, rest) ** 0.5
        best = int(norms.argmax())
        if norms[best] <= least:
            break
        chosen.append(best)
        direction = rest[:, best] / norms[best]
        rest -= np.outer(direction, direction @ rest)
    if not chosen:
        return [], np.zeros((0, columns.shape[1]))
    chosen.sort()
    return chosen, _solved(columns, chosen)


def _solved(columns: Float[Array, "m all"], chosen: list[int]) -> Float[Array, "chosen all"]:
    shares = np.zeros((len(chosen), columns.shape[1]))
    others = [c for c in range(columns.shape[1]) if c not in chosen]
    shares[range(len(chosen)), chosen] = 1
    if others:
        shares[:, others] = np.linalg.lstsq(columns[:, chosen], columns[:, others], rcond=None)[0]
    return shares


def _repeats(table: Table, given: Float[Array, "2 n width"], outs: Float[Array, "n width"]) -> bool:
    """Does the table do to other latents and answers what the scheduler did?"""
    half = outs.shape[1] // 2
    carried = np.zeros((table.carried, outs.shape[1]))
    for update, x, answer, out in zip(table.updates, *given, outs, strict=True):
        made, carried = np.split(update @ np.concatenate([x[None], answer[None], carried]), [1])
        for part in (slice(half), slice(half, None)):  # small ones are not measured by large ones
            if not np.abs(made[0, part] - out[part]).max() <= EXACT * np.abs(out[part]).max():
                return False
    return True
