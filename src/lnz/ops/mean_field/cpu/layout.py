"""A 4-neighbour grid as the mean-field kernels read it.

Neighbours differ in colour, as on a checkerboard, and the pixels of one colour in a row are every other column. Rows
are therefore stored as their even columns and then their odd ones, labels outside, so that the pixels of a colour,
each kind of their neighbours and each kind of their edges lie side by side in memory. All around is a frame of zeros:
no border needs a case of its own, since neighbours of probability 0 add nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lnz.ops.grid_scores import FULL, POTTS, WEIGHTED, node_scores, side, split_edges
from lnz.ops.mean_field.cpu.arguments import Edges, Grids
from lnz.scores import Model


def laid(values: Tensor, width: int) -> Tensor:
    """``[entries, rows, columns, *labels]`` as ``[entries, rows + 2, 2, *labels, ⌈width / 2⌉ + 2]``, framed."""
    entries, rows, _, *labels = values.shape
    out = values.new_zeros(entries, rows + 2, 2, *labels, (width + 1) // 2 + 2)
    for parity in range(2):
        part = values[:, :, parity::2].movedim(2, -1)
        out[:, 1:-1, parity, ..., 1 : 1 + part.shape[-1]] = part
    return out


def read(values: Tensor, width: int) -> Tensor:
    """``[entries, rows, width, L]`` from the layout of :func:`laid`."""
    entries, rows, _, labels, _ = values.shape
    out = values.new_empty(entries, rows - 2, width, labels)
    for parity in range(2):
        part = out[:, :, parity::2]
        part.copy_(values[:, 1:-1, parity, :, 1 : 1 + part.shape[2]].movedim(-1, 2))
    return out


@dataclass(frozen=True)
class Layout:
    """Scores in the layout of the kernels.

    Tables shared by edges are stacked as the distinct matrices T[sender, receiver] among those that lead a pixel's four
    neighbours to it: one if tables are symmetric and the same in both directions, four at most. A product with the
    stack serves all directions at once.

    Attributes:
        which: ``int64 [4, B]``: the node, horizontal, vertical and stack entry of each image.
        unary: as of :class:`~.arguments.Grids`, as is ``stack``.
        stack: see there.
        sides: of horizontal and vertical edges slots, weight and full as of :class:`~.arguments.Edges`.
        width: of the grid.
        constant: float64 ``[B]``, what those leave out.
    """

    which: Tensor
    unary: Tensor
    stack: Tensor
    sides: tuple[tuple[Tensor, Tensor, Tensor], ...]
    width: int
    constant: Tensor

    @property
    def arrays(self) -> Grids:
        across, down = (Edges(*(tensor.numpy() for tensor in side)) for side in self.sides)
        return Grids(self.which.numpy(), self.unary.numpy(), self.stack.numpy(), across, down, self.width)


def layout_for(model: Model) -> Layout:
    """O(entries as given) time and memory; compact scores stay compact."""
    grid = model.graph.grid_layout
    assert grid is not None
    node, which = node_scores(model)
    labels = node.shape[-1]
    given = [
        side(entry, rows, columns, model.batch_shape)
        for entry, rows, columns in zip(
            split_edges(model), (grid.height, grid.height - 1), (grid.width - 1, grid.width), strict=True
        )
    ]
    stack: list[Tensor] = []
    sides, constant = [], torch.zeros(len(which), dtype=torch.float64)
    for s in given:
        slots, table = [-1, -1], s.table
        weight, full = table.new_zeros(0, 0, 0, 0), table.new_zeros(0, 0, 0, 0, 0, 0)
        if s.kind == FULL:
            table = table.unflatten(1, (s.rows, s.columns))
            full = laid(table, grid.width)
        elif s.kind == POTTS:
            assert s.weight is not None
            other = table[0, 0, 0, 1]
            weight = laid(s.weight * (table[0, 0, 0, 0] - other), grid.width)
            constant += (s.weight.sum((1, 2), dtype=torch.float64) * other)[s.which]
        else:
            each = table[:, 0] if len(table) == 1 else table[s.which, 0]
            slots = [_place(stack, matrix) for matrix in (each, each.mT)]
            if s.kind == WEIGHTED:
                assert s.weight is not None
                weight = laid(s.weight, grid.width)
        sides.append((slots, weight, full))
    size = max((len(matrix) for matrix in stack), default=1)
    stacked = node.new_zeros(size, len(stack) * labels, (labels + 3) // 4 * 4)
    for place, matrix in enumerate(stack):
        stacked[:, place * labels : (place + 1) * labels, :labels] = matrix
    index = torch.stack((
        which, *(s.which for s in given), torch.arange(len(which)) if size > 1 else torch.zeros_like(which)
    ))  # fmt: skip
    placed = tuple(
        (torch.tensor([len(stack) if slot < 0 else slot for slot in slots]), weight, full)
        for slots, weight, full in sides
    )
    unary = laid(node.unflatten(1, (grid.height, grid.width)), grid.width)
    return Layout(index, unary, stacked, placed, grid.width, constant)


def _place(stack: list[Tensor], matrix: Tensor) -> int:
    """Where ``matrix [1 or B, L, L]`` is in the stack, at the end of which it is put where it is not yet."""
    for place, known in enumerate(stack):
        if known.shape == matrix.shape and torch.equal(known, matrix):
            return place
    stack.append(matrix)
    return len(stack) - 1
