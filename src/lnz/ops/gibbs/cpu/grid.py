"""4-neighbour grids with any labels: the scores in the order of the kernel, and in its domain."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from lnz.ops.gibbs.cpu.arguments import EQUAL, EXP, LOG, TABLE, Band, Edges, Grid
from lnz.ops.gibbs.cpu.bands import advance
from lnz.ops.gibbs.cpu.checkerboard import BLOCK, by_colour, labels_of, node_blocks, state_of
from lnz.ops.gibbs.cpu.odds import Side, odds
from lnz.ops.gibbs.cpu.sweep import sweep
from lnz.ops.grid_scores import split_edges
from lnz.ops.layout import batch_indices, entry_of
from lnz.ops.philox import key_from
from lnz.scores import Entry, Model, Weighted
from lnz.typing import IGNORE


def run(model: Model, labels: Tensor, sweeps: int, generator: torch.Generator | None, temperature: float) -> Tensor:
    """The labellings after ``sweeps`` sweeps; as :func:`lnz.ops.gibbs.reference.gibbs_sweeps`.

    A label is drawn by one uniform number of 24 bits in float32, of 53 in float64. Beside the state (one byte per node
    up to 127 labels, else four) there is a copy of the node scores, in the order of the kernel, and of the edges'
    weights at either end; tables of edges are not copied.
    """
    grid = model.graph.grid_layout
    assert grid is not None
    height, width = grid.height, grid.width
    key, indices = key_from(generator), batch_indices(model)
    prepared = [_prepared(model, index, temperature) for index in indices]
    narrow = torch.int8 if model.graph.max_cardinality < 128 else torch.int32
    state = state_of(labels.reshape(-1, height, width), narrow)

    def part(band: Band) -> None:
        sweep(prepared[band.begin % len(indices)], state.numpy(), key, band)

    advance(part, len(state), len(indices), height, width, 2 * sweeps)
    return labels_of(state, width).reshape(labels.shape)


def _prepared(model: Model, index: tuple[int, ...], temperature: float) -> Grid:
    """One batch entry as the kernel takes it."""
    grid, labels = model.graph.grid_layout, model.graph.max_cardinality
    assert grid is not None
    height, width = grid.height, grid.width
    entry = model.entries[0]
    node = entry.expand() if isinstance(entry, Weighted) else entry
    node = entry_of(node.detach(), 1 if node.dim() == 1 else 2, index).reshape(-1, labels)
    sides = [_side(entry, index) for entry in split_edges(model)]
    beta = 1.0 / temperature
    binary = odds(node, sides, height, width, beta) if labels == 2 else None
    if binary is not None:
        exponential, (node, gains) = True, binary
        sides = [(True, gain, table) for gain, (_, _, table) in zip(gains, sides, strict=True)]
    else:
        node = node - node.amax(-1, keepdim=True).nan_to_num(neginf=0.0)
        exponential = _fits(node, sides, beta)
        if exponential:
            node = node.mul_(beta).exp_()
            sides = [_exponential(side, beta) for side in sides]
        if len(node) > 1:
            node = node_blocks(node.reshape(height, width, -1))
        else:
            node = node.reshape(1, 1, 1, -1, 1).expand(1, 1, 1, -1, BLOCK).contiguous()
    free = _everywhere(height, width)
    if model.observed is not None:
        free = by_colour((entry_of(model.observed, 1, index) == IGNORE).reshape(height, width).to(torch.uint8))
    across, down = (
        Edges(EQUAL if equal else TABLE, _ends(weight, height, width, across).numpy(), table.flatten().numpy())
        for across, (equal, weight, table) in zip((True, False), sides, strict=True)
    )
    domain, scale = EXP if exponential else LOG, node.new_tensor([beta]).numpy()
    return Grid(domain, free.numpy(), node.numpy(), across, down, scale, width)


@lru_cache(maxsize=8)
def _everywhere(height: int, width: int) -> Tensor:
    return by_colour(torch.ones(height, width, dtype=torch.uint8))


def _exponential(side: Side, beta: float) -> Side:
    equal, weight, table = side
    if equal:
        return True, (weight * beta).exp_(), table
    scores = weight * table
    return False, weight, ((scores - scores.amax().nan_to_num(neginf=0.0)) * beta).exp_()


def _ends(weight: Tensor, height: int, width: int, across: bool) -> Tensor:
    """One direction's weights where the kernel needs them: of the edges before and after each node."""
    if len(weight) == 1:
        return weight.expand(2, 2, 1, BLOCK).contiguous()
    both = weight.new_zeros(2, height, width)
    if across:
        both[0, :, 1:] = both[1, :, :-1] = weight.reshape(height, width - 1)
    else:
        both[0, 1:] = both[1, :-1] = weight.reshape(height - 1, width)
    return by_colour(both)


def _side(entry: Entry, index: tuple[int, ...]) -> Side:
    """One direction's edges: whether labels only matter by being equal, weights ``[E or 1]``, table ``[E or 1, L, L]``.

    In the first case the weights are what equal labels gain.
    """
    if isinstance(entry, Weighted):
        table, weight = entry.table.detach()[None], entry_of(entry.weight.detach(), 1, index)
    else:
        table = entry_of(entry.detach(), 2 if entry.dim() == 2 else 3, index)
        table, weight = table.reshape(-1, *table.shape[-2:]), table.new_ones(1)
    if len(table) == 1 and table.shape[-1] > 1:
        equal, other = table[0, 0, 0], table[0, 0, 1]
        form = other.expand_as(table[0]).clone().fill_diagonal_(equal.item())
        if torch.isfinite(other) and torch.equal(form, table[0]):
            return True, weight * (equal - other), table
    return False, weight, table


def _fits(node: Tensor, sides: list[Side], beta: float) -> bool:
    """Whether labels can be drawn in the domain of exponentials; node scores have maximum 0.

    The four edges of a node change the odds of two labels by a factor of at most e^reach. Where all of their scores are
    finite, a label whose node score underflows is less probable than e^(reach − 87) (float32) or e^(reach − 708), far
    below the resolution of a uniform number, and node scores may have any range. Where some are −inf, none that is
    possible may underflow, as it may be the only one left.
    """
    if not all(equal or max(len(weight), len(table)) == 1 for equal, weight, table in sides):
        return False  # the exponential domain has no form of its own for these
    change = 2 * beta * sum(_reach(*side) for side in sides)
    if all(bool(torch.isfinite(weight if equal else table).all()) for equal, weight, table in sides):
        return change < (600.0 if node.dtype == torch.float64 else 40.0)
    return change + beta * _range(node) < (700.0 if node.dtype == torch.float64 else 80.0)


def _range(scores: Tensor) -> float:
    """The largest difference of finite scores in one row."""
    impossible = torch.isneginf(scores)
    if not impossible.any():
        return float((scores.amax(-1) - scores.amin(-1)).amax()) if scores.numel() else 0.0
    low = scores.masked_fill(impossible, torch.inf).amin(-1)
    return float((scores.amax(-1) - low).nan_to_num(nan=0.0, posinf=0.0, neginf=0.0).clamp(min=0.0).amax())


def _reach(equal: bool, weight: Tensor, table: Tensor) -> float:
    """The largest difference that an edge makes."""
    if weight.numel() == 0 or table.numel() == 0:
        return 0.0
    if equal:
        return float(weight.masked_fill(torch.isneginf(weight), 0.0).abs().amax())
    return float(weight.abs()) * _range(table.reshape(1, -1))
