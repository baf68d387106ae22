"""4-neighbour grids with any labels: the scores in the order of the kernel, and in its domain."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lnz.ops.gibbs.bands import advance
from lnz.ops.gibbs.images import batch_indices, image_of, key_from
from lnz.ops.grid_belief.forms import split_edges
from lnz.scores import Entry, Model, Weighted
from lnz.typing import IGNORE

_STEP = 16  # the kernel's: rows are padded to multiples of it


def run(model: Model, labels: Tensor, sweeps: int, generator: torch.Generator | None, temperature: float) -> Tensor:
    """The labellings after ``sweeps`` sweeps; as :func:`lnz.ops.gibbs.reference.gibbs_sweeps`.

    Beside the state (one byte per node up to 127 labels, else four) there is a copy of the node scores, in the order of
    the kernel, and none of the edge scores.
    """
    from lnz.ops.gibbs.cpu.grid import sweep

    grid = model.graph.grid_layout
    assert grid is not None
    height, width = grid.height, grid.width
    key = key_from(generator).numpy().view("uint64")
    indices = batch_indices(model)
    prepared = [_prepared(model, index, temperature) for index in indices]
    state = labels.reshape(-1, height, width).to(torch.int8 if model.graph.max_cardinality < 128 else torch.int32)
    state = torch.nn.functional.pad(state, (1, 1, 1, 1), value=-1)

    def part(images: range, first: int, steps: int, low: int, high: int, up: int, down: int) -> None:
        domain, *scores = prepared[images.start % len(indices)]
        of = images.start, images.stop, images.step
        sweep(domain, state.numpy(), *scores, key, *of, first, steps, low, high, up, down)

    advance(part, len(state), len(indices), height, width, 2 * sweeps)
    return state[:, 1:-1, 1:-1].reshape(labels.shape).long()


def _prepared(model: Model, index: tuple[int, ...], temperature: float) -> tuple[Any, ...]:
    """The kernel's arguments for one batch entry: domain, free nodes, node scores, sides, inverse temperature."""
    from lnz.ops.gibbs.cpu.grid import EXP, LOG

    grid, labels = model.graph.grid_layout, model.graph.max_cardinality
    assert grid is not None
    entry = model.entries[0]
    node = entry.expand() if isinstance(entry, Weighted) else entry
    node = image_of(node.detach(), 1 if node.dim() == 1 else 2, index).reshape(-1, labels)
    node = node - node.amax(-1, keepdim=True).nan_to_num(neginf=0.0)
    sides = [_side(entry, index) for entry in split_edges(model)]
    reach = _range(node) + 2 * sum(_reach(*side) for side in sides)
    beta = 1.0 / temperature
    exponential = reach * beta < (80.0 if node.dtype == torch.float32 else 700.0)
    if exponential:
        node = (node * beta).exp_()
        sides = [
            (True, (weight * beta).exp_(), table) if equal
            else (False, weight, ((weight * table - (weight * table).amax().nan_to_num(neginf=0.0)) * beta).exp_())
            for equal, weight, table in sides
        ]  # fmt: skip
    free = torch.zeros(0, 0, dtype=torch.bool)
    if model.observed is not None:
        free = (image_of(model.observed, 1, index) == IGNORE).reshape(grid.height, grid.width)
    return (
        EXP if exponential else LOG, free.numpy(), _in_order(node, grid.height, grid.width).numpy(),
        *((equal, weight.contiguous().numpy(), table.numpy()) for equal, weight, table in sides),
        node.new_tensor([beta]).numpy(),
    )  # fmt: skip


def _in_order(node: Tensor, height: int, width: int) -> Tensor:
    """``[H or 1, 2, L, K]``: rows, columns of even or odd number, labels, K a multiple of the kernel's step."""
    labels = node.shape[-1]
    half = (width + 1) // 2
    padded = (half + _STEP - 1) // _STEP * _STEP
    if len(node) == 1:
        return node.reshape(1, 1, labels, 1).expand(1, 2, labels, padded).contiguous()
    ordered = node.new_zeros(height, 2, labels, padded)
    rows = node.reshape(height, width, labels).mT
    ordered[:, 0, :, :half] = rows[..., 0::2]
    ordered[:, 1, :, : width // 2] = rows[..., 1::2]
    return ordered


def _side(entry: Entry, index: tuple[int, ...]) -> tuple[bool, Tensor, Tensor]:
    """One direction's edges: whether labels only matter by being equal, weights ``[E or 1]``, table ``[E or 1, L, L]``.

    In the first case the weights are what equal labels gain.
    """
    if isinstance(entry, Weighted):
        table, weight = entry.table.detach()[None], image_of(entry.weight.detach(), 1, index)
    else:
        table = image_of(entry.detach(), 2 if entry.dim() == 2 else 3, index)
        table, weight = table.reshape(-1, *table.shape[-2:]), table.new_ones(1)
    if len(table) == 1 and table.shape[-1] > 1:
        equal, other = table[0, 0, 0], table[0, 0, 1]
        form = other.expand_as(table[0]).clone().fill_diagonal_(equal.item())
        if torch.isfinite(other) and torch.equal(form, table[0]):
            return True, weight * (equal - other), table
    return False, weight, table


def _range(scores: Tensor) -> float:
    """The largest difference of finite scores in one row."""
    impossible = torch.isneginf(scores)
    if not impossible.any():
        return float((scores.amax(-1) - scores.amin(-1)).amax()) if scores.numel() else 0.0
    low = scores.masked_fill(impossible, torch.inf).amin(-1)
    return float((scores.amax(-1) - low).nan_to_num(nan=0.0, posinf=0.0, neginf=0.0).clamp(min=0.0).amax())


def _reach(equal: bool, weight: Tensor, table: Tensor) -> float:
    """The largest difference that an edge makes; inf where the exponential domain has no form of its own for it."""
    if weight.numel() == 0 or table.numel() == 0:
        return 0.0
    if equal:
        return float(weight.masked_fill(torch.isneginf(weight), 0.0).abs().amax())
    if len(table) > 1 or len(weight) > 1:
        return torch.inf
    return float(weight.abs()) * _range(table.reshape(1, -1))
