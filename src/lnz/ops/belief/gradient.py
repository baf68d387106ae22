"""The gradient of the Bethe ln Z: beliefs, gathered in the form that each group's scores were given in."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lnz.ops.belief.reference import Passing, beliefs, length, log_sum, rows
from lnz.scores import Entry, Model, Weighted


def pulled_back(model: Model, messages: Tensor, grad: Tensor) -> list[Tensor]:
    """Σ over batch entries of ``grad`` times the beliefs, each in the form its scores were given in."""
    passing = Passing(model, log_sum)
    return gathered(passing, passing.node_to_factor(messages), grad, beliefs)


def gathered(
    passing: Passing, sent: Tensor, grad: Tensor, beliefs: Callable[[Tensor, list[Tensor]], Tensor]
) -> list[Tensor]:
    """The same for any ``beliefs`` of factors, a function of a table and of what the nodes ``sent``."""
    model = passing.model
    grad = grad.to(passing.dtype)
    result: list[Tensor] = []
    for group, entry in enumerate(model.entries):
        labels = passing.wiring.labels[group]
        parts = []
        for piece, table, incoming in passing.chunks(group, sent):
            belief = beliefs(table, incoming).expand(*passing.batch, length(piece), *labels)
            belief = belief * grad.reshape(*grad.shape, *(1,) * (1 + len(labels)))
            parts.append(_pulled(entry, belief, piece, len(labels)))
        tensors = (entry.weight, entry.table) if isinstance(entry, Weighted) else (entry,)
        for index, tensor in enumerate(tensors):
            per_factor = _factor_axis(entry, index, len(labels))
            pieces = [part[index] for part in parts]
            if not pieces:
                result.append(torch.zeros_like(tensor))
            elif per_factor is None:
                result.append(torch.stack(pieces).sum(0).to(tensor.dtype))
            else:
                result.append(torch.cat(pieces, per_factor).to(tensor.dtype))
    return result


def _factor_axis(entry: Entry, index: int, arity: int) -> int | None:
    """The axis of tensor ``index`` of an entry that runs over factors, or ``None`` where all factors share it."""
    if isinstance(entry, Weighted):
        tensor, axis = (entry.weight, entry.weight.dim() - 1) if index == 0 else (entry.table, -1)
    else:
        tensor, axis = entry, entry.dim() - arity - 1
    return axis if axis >= 0 and tensor.shape[axis] != 1 else None


def _pulled(entry: Entry, belief: Tensor, piece: slice | Tensor, arity: int) -> list[Tensor]:
    """What beliefs ``[*batch, c, L1, …, Lk]`` of a chunk of factors add to the gradient of each tensor of an entry."""
    if not isinstance(entry, Weighted):
        return [_summed(belief, entry, _factor_axis(entry, 0, arity), length(piece))]
    finite = entry.table.masked_fill(torch.isneginf(entry.table), 0.0)  # beliefs are 0 there
    at_weight = (belief * finite).flatten(belief.dim() - arity).sum(-1) if arity else belief * finite
    weight = rows(Weighted(entry.weight, torch.ones_like(finite)), arity, piece)
    return [
        _summed(at_weight, entry.weight, _factor_axis(entry, 0, arity), length(piece)),
        _summed(belief * weight, entry.table, None, length(piece)),
    ]


def _summed(part: Tensor, tensor: Tensor, axis: int | None, count: int) -> Tensor:
    """``part`` summed over all that ``tensor`` broadcasts along; ``axis`` of it covers ``count`` factors only."""
    shape = list(tensor.shape)
    if axis is not None:
        shape[axis] = count
    return part.sum_to_size(torch.Size(shape))
