"""The softmax: the exponential softmax of a single node."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Self

import torch
from torch import Tensor

from lnz.checks import (
    as_labels,
    broadcast_shapes,
    check_broadcast,
    check_feasible,
    check_full,
    check_integer,
    check_labels,
    check_scores,
    check_tensor,
)
from lnz.distributions.base import StructuredDistribution
from lnz.distributions.mrf import MRF
from lnz.graphs import FactorGraph
from lnz.ops.branches import shares, surprisal
from lnz.semirings import Log
from lnz.typing import IGNORE


class Softmax(StructuredDistribution):
    """``P(y) = exp(s[y]) / Σ_l exp(s[l])``: one label per batch entry, event shape ``()``.

    ``-log_prob(y)`` is the cross-entropy and its gradient p − 1_y.

    Args:
        scores: ``[*batch, L]``; −inf where a label is impossible.
        validate_args: check the values of arguments (NaN, labels out of range), as in ``torch.distributions``.

    Raises:
        TypeError, ValueError: scores of the wrong type, shape or value.
    """

    def __init__(self, scores: Tensor, *, validate_args: bool | None = None) -> None:
        check_scores("scores", scores, values=self._validate_args if validate_args is None else validate_args)
        if scores.dim() == 0 or scores.shape[-1] == 0:
            raise ValueError(f"scores: expected shape [*batch, L] with L > 0, got {list(scores.shape)}")
        super().__init__(scores.shape[:-1], torch.Size(), validate_args)
        self._scores = scores

    @property
    def scores(self) -> Tensor:
        return self._scores

    @property
    def log_partition(self) -> Tensor:
        return self._once("log_partition", lambda: Log().plus(self._wide._scores, -1)).to(self._dtype)

    @property
    def _centred(self) -> Self:
        return self._once("centred", self._make_centred)

    def _make_centred(self) -> Self:
        scores = self._wide._scores
        top = scores.detach().amax(-1, keepdim=True)
        return self.map_scores(lambda _: scores - top.masked_fill(torch.isneginf(top), 0.0))

    @property
    def marginals(self) -> Tensor:
        """The probability of each label, ``[*batch, L]``."""
        self._require_feasible("marginals")
        return shares(self._wide._scores).to(self._dtype)

    def _cross_entropy(self, other: Softmax) -> Tensor:
        self._require_feasible("entropy")
        mine, theirs = (p._wide._scores.double() for p in (self, other))
        return surprisal(torch.zeros_like(mine), mine, theirs)

    def score(self, y: Tensor) -> Tensor:
        y = self.labelling(y)
        if self._validate_args:
            check_full("y", self._unobserved(y))
        shape = broadcast_shapes(y.shape, self.batch_shape)
        scores = self._scores.expand(*shape, self._scores.shape[-1])
        return scores.gather(-1, y.expand(shape).unsqueeze(-1)).squeeze(-1)

    def condition(self, y: Tensor) -> Self:
        y = self.labelling(y)
        labels = torch.arange(self._scores.shape[-1], device=y.device)
        excluded = (y.unsqueeze(-1) != IGNORE) & (y.unsqueeze(-1) != labels)
        return self.map_scores(lambda scores: torch.where(excluded, -torch.inf, scores))

    @property
    def num_labels(self) -> int:
        return self._scores.shape[-1]

    def label_scores(self, y: Tensor) -> Tensor:
        """The scores: there are no other labels."""
        y = self.labelling(y)
        return self._scores.expand(*broadcast_shapes(y.shape, self.batch_shape), -1)

    def with_node_scores(self, added: Tensor) -> Self:
        return self.map_scores(lambda scores: scores + added)

    def argmax(self) -> Tensor:
        if self._validate_args:
            check_feasible(self._scores.detach().amax(-1), "Softmax.argmax")
        return self._scores.argmax(-1)

    def topk(self, k: int) -> tuple[Tensor, Tensor]:
        check_integer("k", k)
        missing = max(0, k - self._scores.shape[-1])
        scores, labels = torch.nn.functional.pad(self._scores, (0, missing), value=-torch.inf).topk(k, -1)
        return labels.masked_fill(torch.isneginf(scores), IGNORE).movedim(-1, 0), scores.movedim(-1, 0)

    def _sample(self, n: int, generator: torch.Generator | None) -> Tensor:
        probabilities = shares(self._wide._scores).reshape(self.batch_shape.numel(), self._scores.shape[-1])
        if not len(probabilities):
            return torch.zeros(n, *self.batch_shape, dtype=torch.int64, device=self._scores.device)
        drawn = torch.multinomial(probabilities, n, replacement=True, generator=generator)
        return drawn.T.reshape(n, *self.batch_shape)

    def map_scores(self, function: Callable[[Tensor], Tensor]) -> Self:
        return self.__class__(function(self._scores), validate_args=self._validate_args)

    def _map_entries(self, function: Callable[[Tensor, int], Tensor]) -> Self:
        return self.map_scores(lambda scores: function(scores, 1))

    def _expanded_scores(self) -> tuple[Tensor, ...]:
        return (self._scores,)

    def _unobserved(self, y: Tensor) -> Tensor:
        return y == IGNORE

    def labelling(self, y: Tensor) -> Tensor:
        """``y`` as int64; raises unless it is labels."""
        check_tensor("y", y)
        y = as_labels("y", y)
        check_labels("y", y, self._scores.shape[-1])
        check_broadcast("y", y.shape, self.batch_shape)
        return y

    def expand(self, batch_shape: Sequence[int], _instance: object = None) -> Self:
        """The same distribution with a larger batch shape (nothing is copied)."""
        return self.map_scores(lambda scores: scores.expand(*batch_shape, scores.shape[-1]))

    def to_mrf(self) -> MRF:
        """The same model as an MRF of one node: labellings are ``[*batch, 1]`` there."""
        num_labels = self._scores.shape[-1]
        graph = FactorGraph((num_labels,), (torch.zeros(1, 1, dtype=torch.int64),))
        return MRF(graph, (self._scores.unsqueeze(-2),), validate_args=self._validate_args)

    def __repr__(self) -> str:
        return f"Softmax({self._scores.shape[-1]} labels, batch_shape={list(self.batch_shape)})"
