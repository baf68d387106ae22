"""Iterated conditional modes in plain torch: any device and dtype, all chains and models at once."""

from __future__ import annotations

import torch
from torch import Tensor

from lnz.ops.conditionals.reference import label_scores
from lnz.ops.conditionals.sites import schedule
from lnz.scores import Model
from lnz.typing import IGNORE


def icm(model: Model, labels: Tensor, max_sweeps: int) -> Tensor:
    """The labellings after every node, one after the other, took the best label given all others (Besag 1986).

    A node keeps its label unless another is better; sweeps go on until one changes nothing, or ``max_sweeps``.
    In float64; O(Σ_f k_f · L) time per sweep and chain. ``labels`` is ``int64 [n, *batch, N]``, observed entries as
    observed.
    """
    labels, model = labels.clone(), model.map_scores(lambda scores: scores.double())
    sets = schedule(model.graph, "systematic", labels.device)
    for _ in range(max_sweeps):
        before = labels.clone()
        for sites in sets:
            scores = label_scores(model, labels, sites)
            now = labels[..., sites.nodes]
            best = scores.amax(-1) > scores.gather(-1, now[..., None]).squeeze(-1)
            if model.observed is not None:
                best = best & (model.observed[..., sites.nodes] == IGNORE)
            labels[..., sites.nodes] = torch.where(best, scores.argmax(-1), now)
        if torch.equal(labels, before):
            break
    return labels
