"""What a distribution asks of an op over dependency trees."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lnz.ops.arcs.records import Arcs, Drawn, Pass, Ranked, TopK, Trees, Uniform
from lnz.ops.scaffold import Differentiable, Operator


class TreeOp(NamedTuple):
    """The operators of one kind of trees.

    Attributes:
        trees: ln Z and arc marginals, differentiable.
        best: best trees.
        topk: the k best ones.
        sample: independent ones.
    """

    trees: Differentiable[Arcs, Pass]
    best: Operator[Arcs, Trees]
    topk: Operator[TopK, Ranked]
    sample: Operator[Uniform, Drawn]

    def surprisal_of_best(self, scores: Tensor, given: Arcs, done: Pass) -> tuple[Tensor, Tensor]:
        """A best tree of labelled arcs ``[B, N + 1, N + 1, R]``, and −ln P of it ``[B]``, whatever the range of scores.

        The tree comes as places in the rows ``[N + 1, R]`` of scores, ``[B, N + 1]``. −ln P is a sum of logarithms of
        conditionals, of each head given those before it and of its label, none of which is negative; differentiable.
        ``given`` are the scores summed over labels, ``done`` their pass. O(N) passes.
        """
        R = scores.shape[-1]
        words = torch.arange(scores.shape[1], device=scores.device)
        inside = (words > 0) & (words <= given.lengths[:, None])
        with torch.no_grad():
            tops, labels = scores.max(-1)
            heads = self.best(given._replace(scores=tops)).heads.clamp(min=0)
            places = heads * R + labels.gather(2, heads.unsqueeze(-1)).squeeze(-1)
            log_p = torch.zeros_like(tops[:, 0, 0])
            if R > 1:
                own = (scores - given.scores.unsqueeze(-1)).flatten(2).gather(2, places.unsqueeze(-1)).squeeze(-1)
                log_p = torch.where(inside, own, 0.0).sum(1)
            left = given.scores
            for word in range(1, scores.shape[1]):
                marginals = self.trees.solve(given._replace(scores=left)).marginals[:, word]
                own = marginals.gather(1, heads[:, word, None])[:, 0].log()
                log_p = log_p + torch.where(inside[:, word], own, 0.0)
                others = (words != heads[:, word, None]) & inside[:, word, None]
                row = left[:, word].masked_fill(others, -torch.inf)
                left = left.index_copy(1, words[word : word + 1], row[:, None])
        score = torch.where(inside, scores.flatten(2).gather(2, places.unsqueeze(-1)).squeeze(-1), 0.0).sum(1)
        difference = self.trees.value(given, done) - score  # whose derivatives are right, not its digits
        difference = torch.where(torch.isfinite(difference), difference, 0.0)
        return places, (difference - difference.detach()) - log_p
