"""Labellings that local search begins at, and the scale of what it can gain."""

from __future__ import annotations

import torch
from torch import Tensor

from lnz.ops.conditionals.reference import label_scores
from lnz.scores import Model
from lnz.typing import IGNORE


def random_labellings(model: Model, n: int, generator: torch.Generator) -> Tensor:
    """n labellings drawn uniformly, ``int64 [n, *batch, N]``; observed nodes as observed."""
    cards = torch.tensor(model.graph.cardinalities, dtype=torch.float64)
    drawn = torch.rand(n, *model.batch_shape, model.graph.num_nodes, dtype=torch.float64, generator=generator)
    labels = (drawn * cards).long().to(model.device)
    return labels if model.observed is None else torch.where(model.observed == IGNORE, labels, model.observed)


def best_of(model: Model, labels: Tensor) -> Tensor:
    """Of n labellings ``[n, *batch, N]``, the best one of each batch entry."""
    best = model.precise_score(labels).argmax(0)
    return labels.gather(0, best[None, ..., None].expand(1, *labels.shape[1:])).squeeze(0)


def mean_range(model: Model, labels: Tensor) -> float:
    """Highest less lowest possible score of a node given all others, the mean over nodes and labellings."""
    scores = label_scores(model, labels)
    possible = torch.isfinite(scores)
    top = scores.masked_fill(~possible, -torch.inf).amax(-1)
    low = scores.masked_fill(~possible, torch.inf).amin(-1)
    ranges = (top - low)[possible.any(-1)]
    return max(float(ranges.mean()), 1e-12) if ranges.numel() else 1.0
