"""What the factors of one node each say about it: the model without its interactions."""

from __future__ import annotations

import torch
from torch import Tensor

from lnz.ops.conditionals.normalised import keep_observed
from lnz.ops.conditionals.reference import label_scores
from lnz.ops.conditionals.sites import Sites, all_sites
from lnz.scores import Model


def node_scores(model: Model) -> Tensor:
    """The sum of the factors of one node each, −inf at every label but the observed one where a node is observed.

    Returns:
        ``[*batch, N, L]``, at least float32; −inf beyond a node's own cardinality.
    """
    graph, device = model.graph, model.device
    sites = all_sites(graph, device)
    alone = tuple(part for part in sites.parts if len(graph.labels[part.group]) == 1)
    nowhere = torch.zeros(graph.num_nodes, dtype=torch.int64, device=device)  # such factors look at no other node
    return keep_observed(label_scores(model, nowhere, Sites(sites.nodes, alone)), model.observed)
