"""The semirings of inference: one recursion, read in three ways.

Dynamic programmes and variable elimination only ever multiply scores along a labelling and add over labellings. With
(+, logsumexp) they compute ln Z, with (+, max) the best score, with k-max the k best.

Every ``dim`` counts from the end (negative): elements may carry axes of their own in front.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Semiring(Protocol):
    """What a recursion may do with scores; the score 0 is the unit of ``times``, −inf the zero of ``plus``."""

    def lift(self, scores: Tensor) -> Tensor:
        """Scores as elements of the semiring."""
        ...

    def times(self, a: Tensor, b: Tensor) -> Tensor:
        """The product of two elements with equally many axes, broadcast."""
        ...

    def plus(self, x: Tensor, dim: int) -> Tensor:
        """The sum over one axis, which must not be empty."""
        ...


@dataclass(frozen=True)
class Log:
    """(logsumexp, +): sums of exponentials, kept as logarithms."""

    def lift(self, scores: Tensor) -> Tensor:
        return scores

    def times(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b

    def plus(self, x: Tensor, dim: int) -> Tensor:
        empty = torch.isneginf(x).all(dim, keepdim=True)  # torch's own gradient is NaN where every term is −inf
        return x.masked_fill(empty, 0.0).logsumexp(dim).masked_fill(empty.squeeze(dim), -torch.inf)


@dataclass(frozen=True)
class Max:
    """(max, +): the score of a best labelling; its gradient is the indicator of one best labelling, also under ties."""

    def lift(self, scores: Tensor) -> Tensor:
        return scores

    def times(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b

    def plus(self, x: Tensor, dim: int) -> Tensor:
        return x.max(dim).values


@dataclass(frozen=True)
class KMax:
    """The k best scores: an element is ``[at most k, *shape]``, its first axis sorted, best first.

    The first axis grows from 1, as long as there are fewer than k labellings to choose from.
    """

    k: int

    def lift(self, scores: Tensor) -> Tensor:
        return scores.unsqueeze(0)

    def times(self, a: Tensor, b: Tensor) -> Tensor:
        if len(a) == 1 or len(b) == 1:
            return a + b  # sorted as it is
        i, j = self.ranks(len(a), len(b))
        return self._best(a[i] + b[j])

    def ranks(self, a: int, b: int) -> tuple[list[int], list[int]]:
        """The pairs of places in two sorted lists among which the k best sums are: those of (i + 1)(j + 1) ≤ k."""
        pairs = [(i, j) for i in range(min(a, self.k)) for j in range(min(b, self.k // (i + 1)))]
        return [i for i, _ in pairs], [j for _, j in pairs]

    def plus(self, x: Tensor, dim: int) -> Tensor:
        return self._best(x.movedim(dim, 1).flatten(0, 1))

    def _best(self, candidates: Tensor) -> Tensor:
        if self.k == 1:
            return candidates.max(0, keepdim=True).values
        return candidates.topk(min(self.k, len(candidates)), 0).values
