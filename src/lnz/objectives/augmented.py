"""Loss-augmented argmax: the labelling of the largest s(ŷ) + w · Err(y, ŷ).

Where the error is a sum over labels, w times its costs are node scores, and the inference method's own argmax serves:
the answer is as exact as that is. Every other error takes a search, which is deterministic and never returns less than
it starts from. With A(ŷ) = s(ŷ) + w · Err(y, ŷ) it

1. starts from the better of argmax s and gold itself;
2. replaces Err by its linearisation, what each single change would make of it, and takes the argmax of that, as long as
   this raises A;
3. climbs: of the single changes that raise A it makes as many at once, the best ones, as raise A together, until no
   single change raises it, or the number of rounds is up;
4. for errors without ``change_costs``, of which less is known, does 2 and 3 also from what argmax gives with the number
   of wrong labels in place of the error, each priced at 1, and at 1/N; and returns the best of all.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lnz.checks import broadcast_shapes
from lnz.distributions.base import StructuredDistribution
from lnz.objectives.errors import ChangeError, NodeError, TaskError, checked_values
from lnz.typing import IGNORE

_LINEARISATIONS = 3
_CLIMBS = 20


def augmented_argmax(
    p: StructuredDistribution, gold: Tensor, error: TaskError, weight: Tensor, best: Tensor | None = None
) -> Tensor:
    """A labelling of the largest s(ŷ) + weight · Err(gold, ŷ), ``int64 [*batch, N]``, on its way without gradient.

    Args:
        p: with events of labels ``[N]``.
        gold: ``int64 [*batch, N]``, −100 where nothing is judged.
        error: a task error; see the module's docstring for what kind is served how.
        weight: ``[*batch]`` or one number.
        best: ``p.argmax()`` where it is known already.
    """
    with torch.no_grad():
        if isinstance(error, NodeError):
            L = p.num_labels
            costs = checked_values(error.node_costs(gold, L), torch.Size((*gold.shape, L)), "error.node_costs")
            return _with_costs(p, costs, weight).argmax()
        return _Search(p, gold, error, weight).run(p.argmax() if best is None else best)


def judged(error: TaskError, gold: Tensor, predicted: Tensor) -> Tensor:
    """The error ``[*batch]``, of what is to be judged; raises where it is no tensor of this shape, or not finite."""
    gold, predicted = torch.broadcast_tensors(gold, predicted)
    return checked_values(error(gold, predicted.masked_fill(gold == IGNORE, IGNORE)), gold.shape[:-1])


def _with_costs(p: StructuredDistribution, costs: Tensor, weight: Tensor) -> StructuredDistribution:
    return p.with_node_scores(weight[..., None, None] * costs)


class _Search:
    """A search for the maximum of A; every method takes and returns labellings ``[*batch, N]``."""

    def __init__(self, p: StructuredDistribution, gold: Tensor, error: TaskError, weight: Tensor) -> None:
        self.batch_shape = broadcast_shapes(gold.shape[:-1], p.batch_shape, weight.shape)
        self.p, self.error, self.weight = p, error, weight
        self.gold = gold.expand(*self.batch_shape, -1)

    def run(self, best: Tensor) -> Tensor:
        best = best.expand(self.gold.shape)
        y = self.raised(self.better(best, torch.where(self.gold == IGNORE, best, self.gold)))
        if not isinstance(self.error, ChangeError):
            wrong = self.gold.unsqueeze(-1) != torch.arange(self.p.num_labels, device=self.gold.device)
            wrong = wrong & (self.gold != IGNORE).unsqueeze(-1)
            for price in (1.0, 1.0 / max(1, y.shape[-1])):
                costs = price * wrong.to(self.weight.dtype)
                y = self.better(y, self.raised(_with_costs(self.p, costs, self.weight).argmax().expand(y.shape)))
        return y

    def raised(self, y: Tensor) -> Tensor:
        """``y``, or what the linearised error and single changes make of it."""
        for _ in range(_LINEARISATIONS):
            costs = self.change_costs(y) - judged(self.error, self.gold, y)[..., None, None]
            found = self.better(y, _with_costs(self.p, costs, self.weight).argmax().expand(y.shape))
            if torch.equal(found, y):
                break
            y = found
        for _ in range(_CLIMBS):
            found = self.climb(y)
            if torch.equal(found, y):
                break
            y = found
        return y

    def value(self, y: Tensor) -> Tensor:
        """A(y), ``[*batch]``."""
        return self.p.score(y) + self.weight * judged(self.error, self.gold, y)

    def better(self, y: Tensor, other: Tensor) -> Tensor:
        """Per batch entry, the one of larger A; ``y`` where they are equal."""
        return torch.where((self.value(other) > self.value(y)).unsqueeze(-1), other, y)

    def climb(self, y: Tensor) -> Tensor:
        """Make the k best of the single changes that raise A, for the first k of N, N/2, … 1 that raises A."""
        shown = y.clamp(min=0).unsqueeze(-1)
        alone = self.p.label_scores(y) + self.weight[..., None, None] * self.change_costs(y)
        gain, label = (alone - alone.gather(-1, shown)).max(-1)  # of each node's best change; 0 is to stay
        rank = gain.argsort(-1, descending=True).argsort(-1)
        k = (gain > 0).sum(-1)
        before = self.value(y)
        chosen = y
        while True:
            made = (rank < k.unsqueeze(-1)) & (gain > 0)
            tried = torch.where(made, label, y)
            raised = self.value(tried) > before
            chosen = torch.where((raised & (k > 0)).unsqueeze(-1), tried, chosen)
            k = torch.where(raised, 0, k // 2)
            if not (k > 0).any():
                return chosen

    def change_costs(self, y: Tensor) -> Tensor:
        """The error after relabelling one node and no other, ``[*batch, N, L]``."""
        L = self.p.num_labels
        if isinstance(self.error, ChangeError):
            shown = y.masked_fill(self.gold == IGNORE, IGNORE)
            costs = self.error.change_costs(self.gold, shown, L)
            return checked_values(costs, torch.Size((*y.shape, L)), "error.change_costs")
        now = judged(self.error, self.gold, y)
        costs = now[..., None, None].expand(*y.shape, L).clone()
        for node in range(y.shape[-1]):
            for label in range(L):
                where = (self.gold[..., node] != IGNORE) & (y[..., node] != label)
                if where.any():
                    changed = y.clone()
                    changed[..., node] = label
                    costs[..., node, label] = torch.where(where, judged(self.error, self.gold, changed), now)
        return costs
