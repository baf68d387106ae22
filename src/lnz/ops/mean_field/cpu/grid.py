"""Mean field of one 4-neighbour grid model by the kernels: which thread does what. Kernels release the GIL."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from lnz.ops.grid_scores import covers
from lnz.ops.jit.threads import side_by_side
from lnz.ops.mean_field.cpu.arguments import Band, Until
from lnz.ops.mean_field.cpu.layout import laid, layout_for, read
from lnz.scores import Model, Weighted

_SHARED = 2**13
"""Probabilities from which threads share the work."""


def solver(model: Model) -> GridMeanField | None:
    """For a 4-neighbour grid without −inf in the scores of edges."""
    if not covers(model):
        return None
    tables = [entry.table if isinstance(entry, Weighted) else entry for entry in model.entries[1:]]
    impossible = any(bool(torch.isneginf(table.detach()).any()) for table in tables)
    return None if impossible else GridMeanField(model)


class GridMeanField:
    """The updates and the bound for one model, as :class:`lnz.ops.mean_field.reference.MeanField` defines them."""

    def __init__(self, model: Model) -> None:
        grid = model.graph.grid_layout
        assert grid is not None
        self.height, self.width = grid.height, grid.width
        self.batch, self.labels = model.batch_shape, model.graph.max_cardinality
        self.layout = layout_for(model)
        self.count = len(self.layout.constant)
        size = self.count * self.height * self.width * self.labels
        self.threads = torch.get_num_threads() if size >= _SHARED else 1

    def start(self, noise: Tensor | None = None) -> Tensor:
        """Each node by its own scores, plus ``noise``; both ``[*batch, N, L]``."""
        unary = read(self.layout.unary, self.width).flatten(1, 2)[self.layout.which[0]]
        unary = unary.reshape(*self.batch, *unary.shape[1:])
        field = unary if noise is None else unary + noise
        return field.masked_fill(torch.isneginf(field).all(-1, keepdim=True), 0.0).softmax(-1)

    def iterated(self, q: Tensor, limit: int, tolerance: float, damping: float, parallel: bool) -> tuple[Tensor, ...]:
        """q, iterations and residual from a start, each until it changes by no more than ``tolerance``."""
        from lnz.ops.mean_field.cpu.sweep import sweep, sweep_images

        state, model = self._laid(q), self.layout.arrays
        iterations = torch.zeros(self.count, dtype=torch.int64)
        residual = torch.full((self.count,), torch.inf, dtype=torch.float64)
        until = Until(parallel, state.new_tensor(damping).numpy()[()], tolerance, limit)
        arrays = state.numpy(), iterations.numpy(), residual.numpy()

        def images(first: int, last: int) -> None:
            sweep_images(model, arrays[0], first, last, until, *arrays[1:])

        def rows(b: int, at: Tensor, to: Tensor, colours: tuple[int, int]) -> float:
            q, new = at.numpy(), to.numpy()

            def part(top: int, bottom: int) -> float:
                return sweep(model, Band(b, top, bottom, *colours), q, new, until.damping)

            return max(self._bands(part))

        if self._whole:
            side_by_side([partial(images, *pair) for pair in _cuts(self.count, self.threads)])
            return self._read(state), *self._shaped(iterations, residual.to(q.dtype))
        spare = torch.zeros_like(state[0]) if parallel else None
        for b in range(self.count):
            at, to = state[b], state[b] if spare is None else spare
            while iterations[b] < limit and not (tolerance > 0 and residual[b] <= tolerance):
                together = ((0, 2),) if parallel else ((0, 1), (1, 2))
                residual[b] = max(rows(b, at, to, colours) for colours in together)
                iterations[b] += 1
                at, to = to, at
            state[b].copy_(at)
        return self._read(state), *self._shaped(iterations, residual.to(q.dtype))

    def bound(self, q: Tensor) -> Tensor:
        """The lower bound at q, float64 ``[*batch]``, −inf where q gives an impossible label positive probability."""
        from lnz.ops.mean_field.cpu.sweep import bound

        state, model = self._laid(q).numpy(), self.layout.arrays
        total = torch.zeros(self.count, dtype=torch.float64)
        written = total.numpy()  # other threads may not write to a tensor of inference mode

        def images(first: int, last: int) -> None:
            for b in range(first, last):
                written[b] = bound(model, Band(b, 0, self.height, 0, 2), state[b])

        if self._whole:
            side_by_side([partial(images, *pair) for pair in _cuts(self.count, self.threads)])
        else:
            for b in range(self.count):
                total[b] = sum(self._bands(lambda top, end, b=b: bound(model, Band(b, top, end, 0, 2), state[b])))
        return (total + self.layout.constant).reshape(self.batch)

    @property
    def _whole(self) -> bool:
        """Whether each image is left to one thread; else all threads share each image by bands of rows."""
        return self.threads == 1 or self.count % self.threads == 0 or self.count >= 4 * self.threads

    def _bands(self, part: Callable[[int, int], float]) -> list[float]:
        """What ``part(top, bottom)`` gives for each band of rows."""
        cuts = _cuts(self.height, self.threads)
        results = [0.0] * len(cuts)

        def band(index: int) -> None:
            results[index] = part(*cuts[index])

        side_by_side([partial(band, index) for index in range(len(cuts))])
        return results

    def _shaped(self, *values: Tensor) -> tuple[Tensor, ...]:
        return tuple(value.reshape(self.batch) for value in values)

    def _laid(self, q: Tensor) -> Tensor:
        q = q.detach().expand(*self.batch, *q.shape[-2:])
        return laid(q.reshape(self.count, self.height, self.width, self.labels), self.width)

    def _read(self, state: Tensor) -> Tensor:
        return read(state, self.width).reshape(*self.batch, self.height * self.width, self.labels)


def _cuts(count: int, parts: int) -> Sequence[tuple[int, int]]:
    """``count`` things as ranges, one per thread."""
    parts = max(1, min(count, parts))
    return list(itertools.pairwise([count * k // parts for k in range(parts + 1)]))
