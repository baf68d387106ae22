"""A labelling from max-product messages."""

from __future__ import annotations

import torch
from torch import Tensor

from lnz.ops.belief.reference import Passing, log_max
from lnz.scores import Model


@torch.no_grad()
def decoded(model: Model, messages: Tensor) -> Tensor:
    """Nodes in breadth-first order, each the best given the labels of those before, ``int64 [*batch, N]``.

    A labelled node is clamped, and its factors tell their other nodes so before those choose: on a forest this is
    back-tracking, right under ties too; on a graph with cycles hard constraints between neighbours are honoured as far
    as a choice made earlier leaves room.
    ``messages`` are those of max-product, ``[*batch, M, L]``.
    """
    passing = Passing(model, log_max)
    messages, sent = messages.clone(), torch.empty_like(messages)
    passing.prior = passing.prior.expand(*passing.batch, *passing.prior.shape[-2:]).clone()
    labels = torch.arange(passing.wiring.max_cardinality, device=model.device)
    best = passing.prior.argmax(-1)  # final for nodes without factors
    for tables, step in passing.wiring.decoding:
        passing.send(step, messages, sent)
        for table in tables:
            nodes = passing.wiring.slot_node[table[:, 0]]
            allowed = passing.prior[..., nodes, :]
            choice = (allowed + messages[..., table, :].sum(-2)).argmax(-1)
            best[..., nodes] = choice
            passing.prior[..., nodes, :] = allowed.masked_fill(choice[..., None] != labels, -torch.inf)
    return best
