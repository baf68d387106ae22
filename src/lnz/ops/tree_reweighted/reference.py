"""Tree-reweighted message passing and the upper bound on ln Z that holds at any messages.

With ρ_f the probability that factor f is in a random forest of factors (Wainwright, Jaakkola & Willsky 2005, §4-5)::

    φ_i(x)    = prior_i(x) + Σ_(f∋i) ρ_f m[f→i](x)
    n[i→f](x) = φ_i(x) − m[f→i](x)
    m[f→i](x) = ln Σ over x_f with x_i = x of exp(s_f(x_f) / ρ_f + Σ over the other nodes j of f of n[j→f](x_j))

which is belief propagation where ρ = 1. At *any* messages, with φ_f = s_f / ρ_f − Σ_(i∈f) m[f→i],

    s = Σ_i φ_i + Σ_f ρ_f φ_f = Σ_T P(T) (Σ_i φ_i + Σ_(f∈T) φ_f),

and ln Z is convex, so that ln Z ≤ Σ_T P(T) ln Z_T. No forest need be listed to bound that. Let b_i = exp(φ_i) / Z_i.
Summing out the leaves of T one factor at a time, each sum over the nodes of f but j is at most exp δ_f at every x_j:

    δ_f = max over j ∈ f and x_j of  ln Σ over x_f with x_j of  exp(φ_f(x_f)) Π over the other nodes i of f of b_i(x_i)
    ln Z ≤ Σ_i ln Z_i + Σ_f ρ_f δ_f

At a fixed point the sums inside depend on neither x_j nor j, every Z_T is the same product, and the value is the least
mean over T; before, it exceeds that by about as much as new messages differ from the old ones.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from lnz.ops.belief.reference import Passing, all_but_one, beliefs, length, log_sum, shifted
from lnz.ops.dispatch import Kernels
from lnz.scores import Model

KERNELS = Kernels("tree_reweighted")
KERNELS.register("cpu", "lnz.ops.tree_reweighted.exponential", devices=("cpu",), dtypes=(torch.float32, torch.float64))


class Reweighted(Passing):
    """The two halves of a message update with appearance probabilities.

    Args:
        model: the scores.
        appearance: ``[*batch', F]`` in (0, 1], one per factor of all groups in order.
    """

    def __init__(self, model: Model, appearance: Tensor) -> None:
        super().__init__(model, log_sum)
        counts = list(model.graph.num_factors)
        self.appearance = appearance.to(model.device, self.dtype).split(counts, -1)
        arities = [scope.shape[1] for scope in model.graph.scopes]
        slots = [part for part, arity in zip(self.appearance, arities, strict=True) for _ in range(arity)]
        self.at_slots = torch.cat(slots, -1).unsqueeze(-1) if slots else self.prior.new_zeros(0, 1)
        self._alike = [bool((part == part[..., :1]).all()) for part in self.appearance]

    def of(self, group: int, piece: slice | Tensor) -> Tensor:
        """The appearance probabilities of some factors, ``[*batch', c or 1]``: one number where all are alike."""
        part = self.appearance[group]
        return part[..., :1] if self._alike[group] else part[..., piece]

    def tables(self, group: int, factors: Tensor | None = None) -> Iterator[tuple[slice | Tensor, Tensor]]:
        for piece, table in super().tables(group, factors):
            rho = self.of(group, piece)
            yield piece, table / rho.reshape(*rho.shape, *(1,) * len(self.wiring.labels[group]))

    def value(self, messages: Tensor) -> Tensor:
        return upper_bound(self, messages)

    def nodes(self, tables: tuple[Tensor, ...], messages: Tensor, out: Tensor) -> Tensor:
        for table in tables:
            received = messages[..., table, :]
            total = (self.prior[..., self.wiring.slot_node[table[:, 0]], :]).unsqueeze(-2) + (
                self.at_slots[..., table, :] * received
            ).sum(-2, keepdim=True)
            # a label that any factor rules out is ruled out for good: nothing is subtracted from −inf
            sent = (total - received.masked_fill(torch.isneginf(total), 0.0)).expand(received.shape)
            out.index_copy_(-2, table.flatten(), sent.flatten(-3, -2))
        return out

    def node_sums(self, messages: Tensor) -> Tensor:
        sums = self.prior.expand(*self.batch, *self.prior.shape[-2:])
        return sums.index_add(-2, self.wiring.slot_node, messages * self.at_slots)


def reweighted(model: Model, appearance: Tensor) -> Reweighted:
    """The fastest update without gradients."""
    return (KERNELS.find("ExponentialReweighted", *model.tensors) or Reweighted)(model, appearance)


def upper_bound(passing: Reweighted, messages: Tensor) -> Tensor:
    """``Σ_i ln Z_i + Σ_f ρ_f δ_f``, ``[*batch]``: at least ln Z whatever the messages; −inf only where Z = 0."""
    sums = passing.node_sums(messages)
    at_nodes = log_sum(sums, [-1]).squeeze(-1)
    impossible = torch.isneginf(at_nodes).any(-1)
    at_nodes = at_nodes.masked_fill(torch.isneginf(at_nodes), 0.0)
    total = at_nodes.sum(-1, dtype=torch.float64)
    sent = passing.node_to_factor(messages)
    for group, labels in enumerate(passing.wiring.labels):
        for piece, table, incoming in passing.chunks(group, sent):
            excess = _excess(passing, group, piece, table, incoming, messages, sums, at_nodes) if labels else table
            impossible = impossible | torch.isneginf(excess).any(-1)
            excess = excess.masked_fill(torch.isneginf(excess), 0.0) * passing.of(group, piece)
            total = total + excess.expand(*passing.batch, length(piece)).sum(-1, dtype=torch.float64)
    return total.masked_fill(impossible, -torch.inf)


def _excess(
    passing: Reweighted,
    group: int,
    piece: slice | Tensor,
    table: Tensor,
    incoming: list[Tensor],
    messages: Tensor,
    sums: Tensor,
    at_nodes: Tensor,
) -> Tensor:
    """δ_f of some factors, ``[*batch, c]``."""
    new = all_but_one(table, incoming, tuple(range(len(incoming))), torch.add, log_sum)
    worst, inside = [], torch.zeros((), dtype=passing.dtype, device=messages.device)
    for position, incident in enumerate(incoming):
        slots = shifted(piece, passing.wiring.slice(group, position).start)
        nodes, card = passing.wiring.slot_node[slots], incident.shape[-1]
        ruled_out = torch.isneginf(sums[..., nodes, :card])
        old = messages[..., slots, :card].masked_fill(ruled_out, 0.0)
        ratio = (new[position] - old).masked_fill(ruled_out, -torch.inf)
        worst.append(ratio.amax(-1) + at_nodes[..., nodes])
        inside = inside + at_nodes[..., nodes]
    return torch.stack(worst).amax(0) - inside


def information(passing: Reweighted, messages: Tensor) -> Tensor:
    """``Σ_i H_i − H_f`` of the pseudo-marginals of each factor, ``[*batch, F]`` over all groups; 0 below two nodes."""
    sent = passing.node_to_factor(messages)
    parts = []
    for group, labels in enumerate(passing.wiring.labels):
        if len(labels) < 2:
            parts.append(sent.new_zeros(*passing.batch, passing.wiring.num_factors[group]))
            continue
        for _, table, incoming in passing.chunks(group, sent):
            belief = beliefs(table, incoming)
            axes = range(-len(labels), 0)
            singles = [belief.sum([other for other in axes if other != axis]) for axis in axes]
            joint = torch.xlogy(belief, belief).flatten(-len(labels)).sum(-1)
            parts.append(joint - sum(torch.xlogy(single, single).sum(-1) for single in singles))
    return torch.cat(parts, -1) if parts else sent.new_zeros(*passing.batch, 0)
