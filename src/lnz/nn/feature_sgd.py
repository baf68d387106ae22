"""Stochastic gradient for a CRF on sparse features, whose squares cost no time."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from lnz.nn.feature_chain import FeatureObjective
from lnz.nn.owlqn import Iterate
from lnz.objectives import nll

SENTENCES = 8
"""At once."""
SAMPLE, TRIALS = 1000, 12
"""Sentences, and rates, by which the first rate is chosen."""


def sgd(objective: FeatureObjective, start: Tensor, seed: int = 0) -> Iterator[Iterate]:
    """The weights after each pass over the data; the value is the objective along the way, the gradient not looked at.

    The rate of step t is 1 / (λ (t₀ + t)), λ = 2 c2 / sentences, with t₀ by trial on a sample (Bottou 2010). Weights
    are a scale times a table, so that the squares shrink all of them in one multiplication.

    Args:
        objective: with c2 above 0.
        start: ``[P]``.
        seed: of the order of sentences.
    """
    run = _Descent(objective)
    generator = torch.Generator().manual_seed(seed)
    sample = torch.randperm(run.count, generator=generator)[:SAMPLE]
    rates = [2.0 ** (k - TRIALS // 2) for k in range(TRIALS)]
    values = {}
    for rate in rates:
        run.reset(start)
        run.step = run.first_step(rate)
        run.walk(sample)
        value = run.value(sample)
        values[rate] = value if math.isfinite(value) else math.inf
    run.reset(start)
    run.step = run.first_step(min(values, key=values.__getitem__))
    while True:
        loss = run.walk(torch.randperm(run.count, generator=generator))
        weights = run.weights()
        yield Iterate(weights, loss + objective.c2 * float(weights.dot(weights)), math.inf)


class _Descent:
    """Weights that move, a few sentences at a time."""

    def __init__(self, objective: FeatureObjective) -> None:
        self.objective, self.layout = objective, objective.layout
        self.where = [(b, k) for b, block in enumerate(self.layout.blocks) for k in range(len(block.sentences))]
        self.count = len(self.where)
        self.decay = 2 * objective.c2 / max(self.count, 1)
        L = objective.num_tags
        self.allowed = torch.zeros(objective.num_features * L).index_fill_(0, objective.states, 1.0).view(-1, L)
        self.edge_allowed = torch.zeros(L * L).index_fill_(0, objective.transitions, 1.0).view(L, L)

    def first_step(self, rate: float) -> float:
        return 1 / (self.decay * rate)

    def reset(self, weights: Tensor) -> None:
        self.table, self.edges = self.objective.tables(weights)
        self.scale = 1.0

    def weights(self) -> Tensor:
        flat = (self.table.take(self.objective.states), self.edges.take(self.objective.transitions))
        return self.scale * torch.cat(flat)

    def walk(self, sentences: Tensor) -> float:
        """Take a step for each few sentences; the sum of their losses before."""
        return sum(self._step(part) for part in sentences.split(SENTENCES))

    def value(self, sentences: Tensor) -> float:
        """The objective on some sentences."""
        loss = sum(self._losses(part)[0] for part in sentences.split(64 * SENTENCES))
        weights = self.weights()
        return loss + self.objective.c2 * float(weights.dot(weights)) * len(sentences) / self.count

    def _step(self, part: Tensor) -> float:
        loss, columns, values, counts, by_score, by_edge = self._losses(part)
        rate = 1 / (self.decay * self.step) / len(part)
        self.scale *= 1 - 1 / self.step if self.step > 1 else 0.0
        if self.scale < 1e-6:  # before it underflows
            self.table *= self.scale
            self.edges *= self.scale
            self.scale = 1.0
        change = by_score.repeat_interleave(counts, 0) * self.allowed[columns]
        if values is not None:
            change *= values[:, None]
        self.table.index_add_(0, columns, change, alpha=-rate / self.scale)
        self.edges.add_(by_edge * self.edge_allowed, alpha=-rate / self.scale)
        self.step += 1
        return loss

    def _losses(self, part: Tensor) -> tuple[float, Tensor, Tensor | None, Tensor, Tensor, Tensor]:
        """The loss of some sentences; their features, values and numbers of features by position; the gradients."""
        product, starts, lengths = self.objective._to_scores, [], []
        for b, k in (self.where[n] for n in part.tolist()):
            block = self.layout.blocks[b]
            starts.append(block.first + k * block.steps)
            lengths.append(int(block.lengths[k]))
        steps = max(lengths)
        size = torch.tensor(lengths)
        inside = torch.arange(steps) < size[:, None]
        position = (torch.tensor(starts)[:, None] + torch.arange(steps))[inside]
        begin, after = product.ends[position].long(), product.ends[position + 1].long()
        counts = after - begin
        ends = torch.cat((counts.new_zeros(1), counts.cumsum(0)))
        at = torch.arange(int(ends[-1])) + (begin - ends[:-1]).repeat_interleave(counts)
        columns = product.columns[at].long()
        values = None if product.values is None else product.values[at]
        scores = functional.embedding_bag(
            columns, self.table, ends, mode="sum", per_sample_weights=values, include_last_offset=True
        )
        node = scores.new_zeros(*inside.shape, scores.shape[1]).index_put((*inside.nonzero().T,), self.scale * scores)
        labels = self.objective._labels.new_zeros(inside.shape).index_put(
            (*inside.nonzero().T,), self.objective._labels[position]
        )
        node, edge = node.requires_grad_(), (self.scale * self.edges).requires_grad_()
        loss = nll(self.objective._chain(node, edge, size), labels, "sum")
        by_node, by_edge = torch.autograd.grad(loss, (node, edge))
        return loss.item(), columns, values, counts, by_node[inside], by_edge
