"""Models in which nothing is impossible, for searches that start at an impossible labelling or pass through one."""

from __future__ import annotations

import torch
from torch import Tensor

from lnz.scores import Entry, Model, Weighted


def softened(model: Model) -> Model:
    """The model in float64 with a finite score for what is impossible, below that of every possible labelling."""
    model = model.map_scores(lambda scores: scores.double())
    cost = 1 + 2 * sum(n * _reach(entry) for n, entry in zip(model.graph.num_factors, model.entries, strict=True))

    def soft(entry: Entry) -> Entry:
        if isinstance(entry, Weighted):
            return Weighted(entry.weight, _filled(entry.table, -cost / min(1.0, _least(entry.weight))))
        return _filled(entry, -cost)

    return model.with_entries(map(soft, model.entries))


def _reach(entry: Entry) -> float:
    """How far from 0 a possible score of a group can be."""
    table = entry.table if isinstance(entry, Weighted) else entry
    farthest = _filled(table, 0.0).abs().max().item() if table.numel() else 0.0
    return farthest * entry.weight.abs().max().item() if isinstance(entry, Weighted) else farthest


def _least(weight: Tensor) -> float:
    """The smallest positive weight: where a table holds −inf, none is 0."""
    return weight[weight > 0].min().item() if (weight > 0).any() else 1.0


def _filled(table: Tensor, value: float) -> Tensor:
    return table.masked_fill(torch.isneginf(table), value)
