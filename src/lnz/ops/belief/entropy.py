"""Entropies and cross-entropies by beliefs, as Bethe has them.

A product of beliefs Π_f b_f / Π_i b_i^(d_i − 1), with d_i factors at node i, is the distribution itself on a forest; at
a fixed point it is exp(s(y)) / Z for Bethe's Z on any graph (Wainwright, Jaakkola & Willsky 2003). No scores occur in
it, so that nothing is lost where these are huge.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lnz.ops.belief.reference import Passing, log_factor_beliefs, log_node_beliefs


def cross_entropy(mine: tuple[Passing, Tensor], other: tuple[Passing, Tensor]) -> Tensor:
    """−E_b[ln Q(y)] ``[*batch]``, float64, with b the beliefs of ``mine`` and Q the product of those of ``other``.

    Σ_f E[−ln q_f] − Σ_i (d_i − 1) E[−ln q_i]; the entropy of Bethe where both are the same. +∞ where q is 0 and b not.

    Args:
        mine: a model and its messages.
        other: those of another with the same factors.
    """
    wiring = mine[0].wiring
    number = torch.bincount(wiring.slot_node, minlength=len(wiring.valid))
    at_nodes, lost = _surprisals(log_node_beliefs(*mine), log_node_beliefs(*other), 1)
    total = -((number - 1) * at_nodes).sum(-1)
    for group, labels in enumerate(wiring.labels):
        each, more = _surprisals(log_factor_beliefs(*mine, group), log_factor_beliefs(*other, group), len(labels))
        total, lost = total + each.sum(-1), lost | more
    return total.masked_fill(lost, torch.inf)


def _surprisals(mine: Tensor, theirs: Tensor, axes: int) -> tuple[Tensor, Tensor]:
    """E[−ln q] of tables ``[*batch, n, …]`` with so many ``axes``, ``[*batch, n]``; where any is +∞, ``[*batch]``."""
    mine, theirs = torch.broadcast_tensors(mine.double(), theirs.double())
    chances = mine.exp()
    infinite = (chances > 0) & torch.isneginf(theirs)
    terms = chances * -theirs.masked_fill((chances == 0) | infinite, 0.0)
    start = terms.dim() - axes
    return (terms.flatten(start).sum(-1) if axes else terms), infinite.flatten(start - 1).any(-1)
