"""One sweep over the nodes, whatever is done at each: independent sets, or one node of each chain's own at a time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lnz.ops.conditionals.random import integers
from lnz.ops.conditionals.reference import label_scores
from lnz.ops.conditionals.single import label_scores_of_one
from lnz.ops.conditionals.sites import Order, schedule
from lnz.scores import Model
from lnz.typing import IGNORE

Update = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""``(scores [*lead, M, L], labels [*lead, M], cardinalities, free)`` to new labels ``[*lead, M]``.

The last two arguments broadcast against the labels; where a node is not free, what is returned is not used.
"""


def sweep(model: Model, labels: Tensor, order: Order, generator: torch.Generator | None, update: Update) -> None:
    """Apply ``update`` in the given order; writes to ``labels [*lead, N]``.

    - ``"chromatic"``: one colour of a greedy colouring after the other, all nodes of a colour at once.
    - ``"systematic"``: as if node 0, 1, …, N−1 one after the other.
    - ``"random"``: N times a node drawn from all N, by each chain for itself.
    """
    cards = torch.tensor(model.graph.cardinalities, device=labels.device)
    free = _free(model, labels)
    if order == "random":
        for _ in range(model.graph.num_nodes):
            node = integers(model.graph.num_nodes, tuple(labels.shape[:-1]), labels.device, generator)[..., None]
            before, free_here = labels.gather(-1, node), free.expand_as(labels).gather(-1, node)
            scores = label_scores_of_one(model, labels, node.squeeze(-1))[..., None, :]
            labels.scatter_(-1, node, torch.where(free_here, update(scores, before, cards[node], free_here), before))
        return
    for sites in schedule(model.graph, order, labels.device):
        nodes = sites.nodes
        before, free_here = labels[..., nodes], free[..., nodes]
        drawn = update(label_scores(model, labels, sites), before, cards[nodes], free_here)
        labels[..., nodes] = torch.where(free_here, drawn, before)


def _free(model: Model, labels: Tensor) -> Tensor:
    """Which nodes are not observed, ``bool [*batch, N]`` or ``[N]``."""
    if model.observed is None:
        return torch.ones(labels.shape[-1], dtype=torch.bool, device=labels.device)
    return model.observed == IGNORE
