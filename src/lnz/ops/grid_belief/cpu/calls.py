"""Calls into the kernels: scores as they read them, and which thread does what."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy

import numpy as np
import torch
from torch import Tensor

from lnz.ops.grid_belief.cpu.arguments import (
    OWN,
    ROOM,
    SHARED,
    TILE,
    Grid,
    OwnTables,
    Rule,
    SharedTables,
    Tasks,
    scratch_rows,
)
from lnz.ops.grid_belief.cpu.collect import collect
from lnz.ops.grid_belief.cpu.pairs import OwnSums, SharedSums
from lnz.ops.grid_belief.cpu.sweep import sweep
from lnz.ops.grid_belief.domains import EXP, MAX
from lnz.ops.grid_belief.prepared import Collected, Prepared, Settings, Sums, Wanted
from lnz.ops.grid_scores import FULL, TABLE, Side
from lnz.ops.jit.cpu.vectors import LANES
from lnz.ops.jit.threads import partition
from lnz.ops.jit.work import on_threads

_SHARED = 2**13  # scores of nodes from which threads share the work


class Images:
    """Some images of a model in one domain, as kernels read them; messages are ``[4, B, H, L, W]``.

    Uncut, an image never waits for another: it runs through all its iterations at once. Where there are few, they are
    cut into bands of rows; an iteration is then two rounds, the bands and the edges between them.
    """

    def __init__(self, prepared: Prepared, chosen: Tensor, domain: tuple[int, ...]) -> None:
        self.prepared, self.chosen, self.domain = prepared, chosen, domain
        height, width, labels = prepared.height, prepared.width, prepared.node.shape[-1]
        sides = prepared.sides
        logarithms = bool(domain) or prepared.rho is not None
        node = prepared.node - prepared.top[..., None]
        node = (node if logarithms else node.exp_()).reshape(-1, height, width, labels).mT.contiguous()
        alike = all(side.kind == TABLE and side.choice is None for side in sides)
        self.form = SHARED if alike and domain == EXP else OWN  # in logarithms, one kernel serves all
        first = torch.zeros_like(prepared.which)
        chosen_rho, *rho = (first,) if prepared.rho is None else prepared.rho
        which = torch.stack([w[chosen] for w in (prepared.which, sides[0].which, sides[1].which, chosen_rho)])
        edges = _tables(sides[0], domain, self.form), _tables(sides[1], domain, self.form)
        powers = tuple(r.numpy() for r in rho)
        self.grid = Grid(domain, self.form, node.numpy(), which.numpy(), edges, powers, None)
        self._divide()

    def _divide(self) -> None:
        """Who does what: in how many parts, and by which bands of rows of each image."""
        _, height, self.labels, width = self.grid.node.shape
        self.count = count = len(self.chosen)
        threads = torch.get_num_threads() if count * height * width * self.labels >= _SHARED else 1
        even = count % threads == 0 or count >= 4 * threads
        self.bands = bands = 1 if even else max(1, min(height // 4, 4 * threads))
        self.cuts = np.array([band * height // bands for band in range(bands + 1)])
        self.parts = 4 * threads if threads > 1 else 1  # of a call: some images end early, some threads begin late
        self.work = np.zeros((self.parts, scratch_rows(self.labels), ROOM), self.grid.node.dtype)

    def split(self) -> list[Images]:
        """One image at a time."""
        parts = []
        for index, chosen in enumerate(self.chosen.split(1)):
            part = copy(self)
            part.chosen, part.grid = chosen, self.grid._replace(which=self.grid.which[:, index : index + 1].copy())
            part._divide()
            parts.append(part)
        return parts

    def start(self) -> Tensor:
        """Uniform messages; what arrives across the border says nothing and never changes."""
        height, width, labels = self.prepared.height, self.prepared.width, self.labels
        even, certain = (1.0, 1.0) if not self.domain else (0.0 if self.domain == MAX else -np.log(labels), 0.0)
        messages = self.prepared.node.new_empty(4, self.count, height, labels, width).fill_(even)
        for border in (messages[0, ..., 0], messages[1, ..., -1], messages[2, :, 0], messages[3, :, -1]):
            border.fill_(certain)
        return messages

    def iterate(self, messages: Tensor, settings: Settings) -> tuple[Tensor, Tensor]:
        """Update ``messages``; iterations ``int64 [B]``, and residual ``[B]`` in their dtype."""
        limit, tolerance, damping = settings
        grid, bands = self.grid._replace(messages=messages.numpy()), self.bands
        dtype, columns = grid.messages.dtype, -(-self.prepared.width // TILE) * TILE
        rule = Rule(
            limit, float(tolerance), (float(damping), 1.0 - damping), self.prepared.floor[self.chosen].numpy(), 0
        )
        everyone = np.arange(self.count)
        iterations, residual = np.zeros((self.count, bands), np.int64), np.zeros((self.count, bands))
        if bands == 1:
            waiting = np.zeros((self.parts, 2, 1, 1, self.labels, columns), dtype)
            if limit:
                self._run(everyone, lambda tasks, part: sweep(grid, tasks, rule, waiting[part], iterations, residual))
            return torch.from_numpy(iterations[:, 0]), torch.from_numpy(residual[:, 0]).to(messages.dtype)
        waiting, active = np.zeros((2, self.count, bands, self.labels, columns), dtype), everyone
        ended = np.zeros_like(iterations)
        for _ in range(limit):
            for joins in range(2):
                once = rule._replace(limit=1, joins=joins)
                self._run(active, lambda tasks, _, rule=once: sweep(grid, tasks, rule, waiting, ended, residual))
            iterations[active] += 1
            if tolerance > 0:
                active = active[residual[active].max(1) > tolerance]
                if not len(active):
                    break
        return torch.from_numpy(iterations[:, 0]), torch.from_numpy(residual.max(1)).to(messages.dtype)

    def collect(self, messages: Tensor, grad: Tensor | None, wanted: tuple[Wanted, Wanted]) -> Collected:
        """ln Z without shifts, beliefs of nodes, and what is ``wanted`` of those of edges, times ``grad [B]``."""
        prepared, count, labels, bands = self.prepared, self.count, self.labels, self.bands
        height, width = prepared.height, prepared.width
        grid = self.grid._replace(messages=messages.numpy())
        rows, columns = np.arange(height)[:, None], np.arange(width)
        degree = (rows > 0).astype(grid.node.dtype) + (rows < height - 1) + (columns > 0) + (columns < width - 1)
        share = 1 - degree if prepared.rho is None else np.ones_like(degree)
        factor = messages.new_zeros(count) if grad is None else grad.to(messages.dtype)
        sums = [self._sums(side, want) for side, want in zip(prepared.given, wanted, strict=True)]
        arrays = _arrays(sums[0], self.form), _arrays(sums[1], self.form)
        value = torch.zeros(count, bands, 2, LANES, dtype=torch.float64)
        beliefs = messages.new_empty(count, height, labels, width)
        written = value.numpy(), beliefs.numpy(), arrays
        room = -(-width // TILE) * TILE + LANES
        above = np.zeros((self.parts, labels + 2, room), grid.node.dtype)
        self._run(
            np.arange(count), lambda tasks, part: collect(grid, tasks, above[part], share, factor.numpy(), *written)
        )
        total, impossible = value.sum((1, 3)).unbind(-1)
        total = total.masked_fill(impossible > 0, -torch.inf)
        nodes = beliefs.mT.reshape(count, height * width, labels)
        return Collected(total, nodes, tuple(Sums(counts.sum(1), weights) for counts, weights, *_ in sums))

    def _sums(self, side: Side, wanted: Wanted) -> tuple[Tensor, ...]:
        """The fields of :class:`OwnSums`."""
        new, labels = side.table.new_zeros, self.labels
        counts = new(self.count, self.bands, labels, labels) if wanted.counts else new(0, 0, 0, 0)
        weights = new(self.count, side.rows, side.columns) if wanted.weights else new(0, 0, 0)
        beliefs = new(0, 0, 0, 0, 0) if wanted.beliefs is None else wanted.beliefs
        given = new(0, 0, 0) if side.weight is None else side.weight.contiguous()
        entries = side.which[self.chosen] if len(beliefs) != 1 else torch.zeros_like(self.chosen)
        return counts, weights, beliefs, given, side.table[0, 0].contiguous(), entries

    def _run(self, images: np.ndarray, kernel: Callable[[Tasks, int], None]) -> None:
        """``kernel(tasks, part)`` on threads, for all bands of the images."""
        shares = partition(len(images) * self.bands, self.parts).shares()

        def run(part: int, first: int, last: int) -> None:
            kernel(Tasks(first, last, images, self.cuts, self.work[part]), part)

        on_threads(run, shares)


def _tables(side: Side, domain: tuple[int, ...], form: tuple[int, ...]) -> SharedTables | OwnTables:
    """One direction's edges as the kernels read them."""
    table, labels = side.table, side.table.shape[-1]
    square = table.new_zeros(1, 2, labels, (labels + 3) // 4 * 4)
    weight, full = table.new_zeros(0, 0, 0), table.new_zeros(0, 0, 0, 0, 0)
    low = high = 0.0
    if side.kind == FULL:  # one copy, the label pair before the column
        full = table.reshape(len(table), side.rows, side.columns, labels, labels).permute(0, 1, 3, 4, 2)
        full = _shifted(full.clone(memory_format=torch.contiguous_format), (2, 3), domain, side.weight)
    else:
        shifted = _shifted(table.clone(), (-2, -1), domain) if side.kind == TABLE else table
        square = table.new_zeros(len(table), *square.shape[1:])
        square[:, 0, :, :labels] = shifted[:, 0]
        square[:, 1, :, :labels] = shifted[:, 0].mT
    if form == SHARED:
        return SharedTables(square.numpy())
    choice = torch.zeros(0, 0, 0, dtype=torch.int32) if side.choice is None else side.choice
    if side.kind == TABLE and side.choice is None:  # the other direction has tables of its own
        choice = torch.arange(len(table), dtype=torch.int32)[:, None, None].expand(-1, side.rows, side.columns)
    elif side.kind not in (TABLE, FULL):
        assert side.weight is not None
        weight, finite = side.weight, table[~torch.isneginf(table)]
        if finite.numel():
            low, high = finite.min().item(), finite.max().item()
    square, weight, full, choice = (t.contiguous().numpy() for t in (square, weight, full, choice))
    return OwnTables(side.kind, square, weight, full, low, high, choice)


def _shifted(table: Tensor, labels: tuple[int, int], domain: tuple[int, ...], weight: Tensor | None = None) -> Tensor:
    """Tables, in place, with the largest of each 0, times a ``weight [entries, rows, columns]``, in a domain."""
    high = table.amax(labels, keepdim=True)
    table -= high.masked_fill(torch.isneginf(high), 0.0)
    if weight is not None:
        table *= weight[:, :, None, None]
    return table if domain else table.exp_()


def _arrays(sums: tuple[Tensor, ...], form: tuple[int, ...]) -> SharedSums | OwnSums:
    counts, weights, beliefs, given, table, entries = (t.numpy() for t in sums)
    return SharedSums(counts) if form == SHARED else OwnSums(counts, weights, beliefs, given, table, entries)
