"""Calls into the kernels: scores as they read them, which thread does what, and what they add up.

Kernels release the interpreter's lock, so that plain threads run them side by side.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lnz.ops.belief.reference import Passing, log_sum
from lnz.ops.grid_belief.forms import (
    FULL,
    POTTS,
    TABLE,
    WEIGHTED,
    Grid,
    Part,
    Side,
    node_scores,
    side,
    split_edges,
)
from lnz.scores import Model

_SHARED = 2**13  # scores of nodes from which threads share the work


@dataclass(frozen=True)
class Prepared:
    """Scores of one model, flat over the batch; see :mod:`.forms`.

    Attributes:
        given: the scores of edges as they were given, and
        sides: as kernels read them; where messages are reweighted, over the appearance probabilities.
        rho: ``None``, or which entry each image reads of these, and they; see
            :class:`~lnz.ops.grid_belief.forms.Grid`.
        floor: ``[B]``, the least that a message says of a possible label, see
            :attr:`lnz.ops.belief.reference.Passing.reach`; −inf where messages are bounded by their tables.
    """

    node: Tensor
    which: Tensor
    top: Tensor
    reach: Tensor
    given: tuple[Side, Side]
    sides: tuple[Side, Side]
    height: int
    width: int
    floor: Tensor
    rho: tuple[Tensor, Tensor, Tensor] | None = None


def prepared_for(model: Model) -> Prepared:
    grid = model.graph.grid_layout
    assert grid is not None
    node, which = node_scores(model)
    high, low = node.amax(-1), node.amin(-1)
    if torch.isneginf(low).any():
        low = node.masked_fill(torch.isneginf(node), torch.inf).amin(-1)
    high = high.masked_fill(torch.isneginf(high), 0.0)
    across, down = split_edges(model)
    sides = (
        side(across, grid.height, grid.width - 1, model.batch_shape),
        side(down, grid.height - 1, grid.width, model.batch_shape),
    )
    reach = (high - low).clamp(min=0).amax(1).double()
    floor = message_floor(Passing(model, log_sum))
    return Prepared(node, which, high, reach, sides, sides, grid.height, grid.width, floor)


@torch.no_grad()
def message_floor(passing: Passing) -> Tensor:
    """``floor`` of :class:`Prepared`."""
    count = passing.batch.numel()
    if passing.reach is None:
        return torch.full((count,), -torch.inf, dtype=passing.dtype)
    return -passing.reach.expand(*passing.batch, 1, 1).reshape(count)


def _edges(side: Side, domain: tuple[int, ...]) -> tuple[Any, ...]:
    """One side as the kernel's ``(kind, square, weight, full, extent)``."""
    table = side.table
    labels = table.shape[-1]
    extent = table.new_zeros(2)
    weight, full = table.new_zeros(0, 0, 0), table.new_zeros(0, 0, 0, 0, 0)
    square = table.new_zeros(1, 2, labels, (labels + 3) // 4 * 4)
    if side.kind in (POTTS, WEIGHTED):
        assert side.weight is not None
        finite = table[~torch.isneginf(table)]
        if finite.numel():
            extent = torch.stack((finite.min(), finite.max()))
        square = table.new_zeros(len(table), *square.shape[1:])
        square[:, 0, :, :labels] = table[:, 0]
        weight = side.weight
    elif side.kind == TABLE:
        shifted = _shifted(table.clone(), (-2, -1), domain)
        square = table.new_zeros(len(table), *square.shape[1:])
        square[:, 0, :, :labels] = shifted[:, 0]
        square[:, 1, :, :labels] = shifted[:, 0].mT
    else:  # one copy, the label pair before the column
        full = table.reshape(len(table), side.rows, side.columns, labels, labels).permute(0, 1, 3, 4, 2)
        full = _shifted(full.clone(memory_format=torch.contiguous_format), (2, 3), domain, side.weight)
    choice = torch.zeros(0, 0, 0, dtype=torch.int32) if side.choice is None else side.choice
    return side.kind, *(t.contiguous().numpy() for t in (square, weight, full, extent, choice))


def _shifted(table: Tensor, labels: tuple[int, int], domain: tuple[int, ...], weight: Tensor | None = None) -> Tensor:
    """Tables, in place, with the largest of each 0, times a ``weight [entries, rows, columns]``, in a domain."""
    high = table.amax(labels, keepdim=True)
    table -= high.masked_fill(torch.isneginf(high), 0.0)
    if weight is not None:
        table *= weight[:, :, None, None]
    return table if domain else table.exp_()


@dataclass
class Sums:
    """What the kernel adds up over the edges of one side."""

    counts: Tensor
    weights: Tensor
    beliefs: Tensor
    given: Tensor

    def add(self, other: Sums, entries: Tensor) -> None:
        """Add those of images to those of the entries they read."""
        if self.counts.numel():
            self.counts[:, 0].index_add_(0, entries if len(self.counts) > 1 else entries * 0, other.counts.sum(1))
        if self.weights.numel():
            self.weights.index_add_(0, entries, other.weights)
        if self.beliefs.numel():
            self.beliefs += other.beliefs

    @classmethod
    def empty(cls, side: Side, images: int, bands: int, wanted: bool) -> Sums:
        labels, table = side.table.shape[-1], side.table
        counts, weights, beliefs = (images, 2 * bands, 0, 0), (images, 0, 0), (0, 0, 0, 0, 0)
        if wanted and side.kind != FULL:
            counts = (images, 2 * bands, labels, labels)
        if wanted and side.kind in (POTTS, WEIGHTED):
            weights = (images, side.rows, side.columns)
        if wanted and side.kind == FULL:
            beliefs = (len(table), side.rows, side.columns, labels, labels)
        given = table.new_zeros(0, 0, 0) if side.weight is None else side.weight.contiguous()
        return cls(table.new_zeros(counts), table.new_zeros(weights), table.new_zeros(beliefs), given)

    @classmethod
    def into(cls, beliefs: Tensor, rows: int, columns: int, bands: int) -> Sums:
        """Beliefs of one image alone, into ``[rows · columns, L, L]``, or none where that is empty."""
        labels, new = beliefs.shape[-1], beliefs.new_zeros
        full = beliefs.view(1, rows, columns, labels, labels) if beliefs.numel() else new(0, 0, 0, 0, 0)
        return cls(new(1, 2 * bands, 0, 0), new(1, 0, 0), full, new(0, 0, 0))

    @property
    def arrays(self) -> tuple[Any, ...]:
        return tuple(t.numpy() for t in (self.counts, self.weights, self.beliefs, self.given))


def run(
    prepared: Prepared,
    images: Tensor,
    domain: tuple[int, ...],
    messages: Tensor,
    limit: int,
    tolerance: float,
    damping: float,
    grad: Tensor | None,
    sums: tuple[Sums, Sums] | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, tuple[Sums, Sums]]:
    """Iterate (``limit`` may be 0) and collect: iterations, residual, ln Z without shifts, node beliefs, edge sums.

    ``sums``: what edge beliefs of a single image are added to, in entry 0; else new ones, in the form of the scores.
    """
    from lnz.ops.grid_belief.cpu.collect import collect

    count, height, labels, given = len(images), prepared.height, prepared.node.shape[-1], prepared.given
    grid, threads, cuts = arranged(prepared, images, domain, messages, alone=sums is not None)
    bands, wanted = len(cuts) - 1, grad is not None
    if sums is None:
        sums = (Sums.empty(given[0], count, bands, wanted), Sums.empty(given[1], count, bands, wanted))
    factor = messages.new_zeros(count) if grad is None else grad[images].to(messages.dtype)
    scale = tuple(torch.cat((factor[:, None], s.table[0, 0].flatten().expand(count, -1)), 1).numpy() for s in given)
    value = torch.zeros(count, bands, 2, dtype=torch.float64)
    beliefs = messages.new_empty(count, height, prepared.width, labels)
    written = (value.numpy(), beliefs.numpy(), tuple(side.arrays for side in sums))
    iterations, residual = iterated(grid, threads, cuts, limit, tolerance, damping, prepared.floor[images])
    with ThreadPoolExecutor(threads) as pool:
        each = pool.map if threads > 1 else map
        list(each(lambda share: collect(grid, *share, cuts, scale, *written), _shares(count * bands, threads)))
    total, impossible = value.sum(1).unbind(-1)
    total = total.masked_fill(impossible > 0, -torch.inf)
    return iterations, residual.to(messages.dtype), total, beliefs.flatten(1, 2), sums


def arranged(
    prepared: Prepared, images: Tensor, domain: tuple[int, ...], messages: Tensor, *, alone: bool = False
) -> tuple[Grid, int, np.ndarray]:
    """What the kernels read, how many threads, and the rows where bands for them begin and end.

    ``alone``: beliefs of edges count for entry 0.
    """
    count, labels = len(images), prepared.node.shape[-1]
    height, width, sides = prepared.height, prepared.width, prepared.sides
    threads = torch.get_num_threads() if count * height * width * labels >= _SHARED else 1
    even = count % threads == 0 or count >= 4 * threads
    bands = 1 if even else max(1, min(height // 4, 4 * threads))
    node = prepared.node - prepared.top[..., None]
    logarithms = bool(domain) or prepared.rho is not None
    node = (node if logarithms else node.exp_()).reshape(-1, height, width, labels).mT.contiguous()
    nothing, zero = node.new_zeros(0, 0, 0), torch.zeros_like(prepared.which)
    chosen, across, down = (zero, nothing, nothing) if prepared.rho is None else prepared.rho
    own = (zero, zero) if alone else tuple(s.which for s in prepared.given)
    read = (prepared.which, sides[0].which, sides[1].which, chosen, *own)
    which = torch.stack([w[images] for w in read])
    edges = (_edges(sides[0], domain), _edges(sides[1], domain))
    grid = Grid(domain, node.numpy(), which.numpy(), edges, (across.numpy(), down.numpy()), messages.numpy())
    return grid, threads, np.array([band * height // bands for band in range(bands + 1)])


def iterated(
    grid: Grid,
    threads: int,
    cuts: np.ndarray,
    limit: int,
    tolerance: float,
    damping: float,
    floor: Tensor,
) -> tuple[Tensor, Tensor]:
    """Iterate what was :func:`arranged`: messages are updated; iterations and residual."""
    settings = np.empty((len(floor), 5), grid.node.dtype)
    settings[:, :4] = 1 if grid.domain else grid.node.shape[2], damping, 1 - damping, tolerance
    settings[:, 4] = floor.numpy()
    with ThreadPoolExecutor(threads) as pool:
        each = pool.map if threads > 1 else map
        return _iterate(each, grid, settings, limit, cuts, _shares(grid.which.shape[1], threads, tolerance))


def _shares(count: int, threads: int, tolerance: float = 0.0) -> list[tuple[int, int]]:
    """``count`` tasks as ranges, one per thread, since a call is dear; four, where some tasks may end early."""
    parts = min(count, threads * (4 if tolerance > 0 else 1))
    return [(count * k // parts, count * (k + 1) // parts) for k in range(parts)]


def _iterate(
    each: Callable[..., Any],
    grid: Grid,
    settings: Any,
    limit: int,
    cuts: np.ndarray,
    shares: list[tuple[int, int]],
) -> tuple[Tensor, Tensor]:
    """Iterations and residual of each image. ``each`` maps over tasks that kernels can do side by side.

    Uncut, an image never waits for another: it runs through all its iterations at once. Cut into bands of rows, it
    takes two rounds per iteration: the bands, then the edges between them.
    """
    from lnz.ops.grid_belief.cpu.sweep import TILE, sweep

    bands, count = len(cuts) - 1, grid.which.shape[1]
    height, labels, width = grid.node.shape[1:]
    line = labels, (width + TILE - 1) // TILE * TILE
    iterations, residual = torch.zeros(count, dtype=torch.int64), torch.zeros(count, dtype=torch.float64)
    if limit == 0:
        return iterations, residual
    if bands == 1:
        results = iterations.numpy(), residual.numpy()

        def share(images: tuple[int, int]) -> None:
            lines = np.zeros((2, *line), grid.node.dtype)
            sweep(grid, Part(*images, 0, height), settings, limit, True, (lines[0], lines[1]), *results)

        list(each(share, shares))
        return iterations, residual
    waiting = np.zeros((2, count, bands, *line), grid.node.dtype)

    def part(task: tuple[int, int, int, bool]) -> float:
        b, band, joins, last = task
        rows = int(cuts[band]), int(cuts[band + 1 - joins])
        lines = waiting[0, b, band], waiting[1, b, band - joins]
        done, change = np.zeros(count, np.int64), np.zeros(count)
        sweep(grid, Part(b, b + 1, *rows), settings, 1, last, lines, done, change)
        return float(change[b])

    active = list(range(count))
    for step in range(limit):
        last = step == limit - 1
        changes = [0.0] * count
        for joins in range(2):
            tasks = [(b, band, joins, last) for b in active for band in range(joins, bands)]
            for (b, *_), change in zip(tasks, each(part, tasks), strict=True):
                changes[b] = max(changes[b], change)
        for b in active:
            iterations[b], residual[b] = step + 1, changes[b]
        active = [b for b in active if not 0 < settings[b, 3] >= changes[b]]
        if not active:
            break
    return iterations, residual
