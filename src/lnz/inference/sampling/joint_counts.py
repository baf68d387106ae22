"""How often the joint labels of factors occur in a set of labellings."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lnz.scores import Model


def empty_tables(model: Model) -> list[Tensor]:
    """Zeros, per group ``[*batch, F, L1 · … · Lk]``."""
    dtype = torch.promote_types(model.dtype, torch.float32)
    return [
        torch.zeros(*model.batch_shape, factors, math.prod(labels), dtype=dtype, device=model.device)
        for factors, labels in zip(model.graph.num_factors, model.graph.labels, strict=True)
    ]


def count(tables: list[Tensor], model: Model, labels: Tensor, weights: Tensor | None = None) -> None:
    """Add to ``tables`` the joint labels of ``labels [n, *batch, N]``, each with its weight ``[n, *batch]``, or 1."""
    for table, scope, sizes in zip(tables, model.graph.scopes, model.graph.labels, strict=True):
        index = torch.zeros((*labels.shape[:-1], len(scope)), dtype=torch.int64, device=labels.device)
        for size, column in zip(sizes, scope.T.to(labels.device), strict=True):
            index = index * size + labels[..., column]
        index = index.movedim(0, -1)
        added = table.new_ones(()) if weights is None else weights.to(table.dtype).movedim(0, -1)[..., None, :]
        table.scatter_add_(-1, index, added.expand_as(index))


def shaped(tables: list[Tensor], model: Model) -> tuple[Tensor, ...]:
    """The tables as ``[*batch, F, L1, …, Lk]``, in the dtype of the model."""
    return tuple(
        table.to(model.dtype).reshape(*table.shape[:-1], *labels)
        for table, labels in zip(tables, model.graph.labels, strict=True)
    )
