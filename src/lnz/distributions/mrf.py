"""Markov random fields: the exponential softmax over the labellings of a factor graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import Tensor
from torch.distributions import constraints

from lnz.checks import check_feasible, check_full, check_integer, concrete
from lnz.distributions.base import StructuredDistribution
from lnz.distributions.node_scores import with_node_scores
from lnz.distributions.support import Labellings
from lnz.graphs import FactorGraph
from lnz.inference import Exact
from lnz.inference.base import Method, Solution
from lnz.inference.map.mode import judged
from lnz.ops.conditionals.latent import latent_label_scores
from lnz.ops.conditionals.normalised import keep_observed
from lnz.ops.conditionals.reference import label_scores
from lnz.scores import Entry, Model, as_labelling, checked_model, clamped, observe
from lnz.typing import IGNORE, LazyTuple


class MRF(StructuredDistribution):
    """``P(y) ∝ exp Σ_α s[α, y[α]]`` over the labellings y of a :class:`~lnz.FactorGraph`.

    Args:
        graph: the wiring, N nodes.
        scores: one entry per group of factors: ``[*batch, F, L1, …, Lk]``, or ``[L1, …, Lk]`` shared by the group, or
            :class:`~lnz.Weighted`.
        inference: how ln Z, marginals and the rest are computed; ``None`` is :class:`~lnz.inference.Exact`.
        validate_args: check the values of arguments (NaN, labels out of range), as in ``torch.distributions``.

    Raises:
        TypeError, ValueError: a score entry of the wrong type, shape or value.
        IntractableError: when an answer is first asked for, where exact inference would be too large.
    """

    def __init__(
        self,
        graph: FactorGraph,
        scores: Sequence[Entry],
        inference: Method | None = None,
        *,
        validate_args: bool | None = None,
    ) -> None:
        if not isinstance(graph, FactorGraph):
            raise TypeError(f"graph: expected a lnz.FactorGraph, got {type(graph).__name__}")
        if inference is not None and not isinstance(inference, Method):
            raise TypeError(f"inference: expected a method of lnz.inference, got {inference!r}")
        validate = type(self)._validate_args if validate_args is None else validate_args
        self._init(checked_model(graph, scores, values=validate), inference or Exact(), validate)

    def _init(self, model: Model, inference: Method, validate_args: bool) -> None:
        super().__init__(model.batch_shape, torch.Size((model.graph.num_nodes,)), validate_args)
        self.model = model
        self.inference = inference

    def _with(self, model: Model) -> Self:
        new = self.__class__.__new__(self.__class__)
        new._init(model, self.inference, self._validate_args)
        return new

    @property
    def graph(self) -> FactorGraph:
        """The wiring."""
        return self.model.graph

    @property
    def scores(self) -> tuple[Entry, ...]:
        return self.model.entries

    @property
    def solution(self) -> Solution:
        """The answers of the inference method, computed as they are asked for."""
        return self._once("solution", lambda: self.inference.solve(self.model.working()))

    @property
    def _asked(self) -> Solution | None:
        """The solution that has been at work already, that of this gradient mode before that of the other."""
        mode = torch.is_grad_enabled()
        return self._cache.get(("solution", mode)) or self._cache.get(("solution", not mode))

    @property
    def diagnostics(self) -> dict[str, Any]:
        """What the inference method says about its own work: iterations, residual, converged, treewidth …

        After :meth:`argmax` also about its answer, each ``[*batch]``, scores in float64: ``score``; ``bound``, which no
        labelling's score exceeds (+inf where the method has none); and whether it is thereby proved ``optimal``.
        """
        solution = self._asked or self.solution
        answer = self._cache.get(("argmax", False))  # made without gradient
        return solution.diagnostics if answer is None else judged(solution, answer) | solution.diagnostics

    @property
    def log_partition(self) -> Tensor:
        return self.solution.log_partition.to(self._dtype)

    @property
    def marginals(self) -> tuple[Tensor, ...]:
        """Per group, the probability of each joint label of each factor, ``[*batch, F, L1, …, Lk]``."""
        marginals = self.solution.marginals  # first: a method that makes them together with ln Z makes both once
        self._require_feasible("marginals")
        if isinstance(marginals, LazyTuple):
            return LazyTuple([lambda g=g: marginals[g].to(self._dtype) for g in range(len(marginals))])
        return tuple(marginal.to(self._dtype) for marginal in marginals)

    @property
    def node_marginals(self) -> Tensor:
        """The probability of each label of each node, ``[*batch, N, L]``; 0 beyond a node's own cardinality."""
        marginals = self.solution.node_marginals  # first: a method that makes them together with ln Z makes both once
        self._require_feasible("node_marginals")
        return marginals.to(self._dtype)

    @property
    def _score_tensors(self) -> tuple[Tensor, ...]:
        return self.model.tensors

    @property
    def _centred(self) -> Self:
        return self._once("centred", lambda: self._with(self.model.centred()[0]))

    def _relative_log_partition(self, y: Tensor | None = None) -> Tensor:
        solution = self.solution if y is None else self.inference.solve(observe(self.solution.centred[0], y))
        return solution.centred_log_partition

    def _relative_score(self, y: Tensor) -> Tensor:
        return self.solution.centred[0].precise_score(self._full(y))

    @property
    def _has_conditionals(self) -> bool:
        return self.solution.exact

    def _cross_entropy(self, other: MRF) -> Tensor:
        self._require_feasible("entropy")
        return self.solution.cross_entropy(other.solution)

    def _require_feasible(self, what: str) -> None:
        if self._validate_args:
            self.solution.require_feasible(f"MRF.{what}")

    def score(self, y: Tensor) -> Tensor:
        return self.model.score(self._full(y))

    def _full(self, y: Tensor) -> Tensor:
        """``y`` as a labelling; raises unless it is a full one."""
        y = self.labelling(y)
        if self._validate_args:
            check_full("y", self._unobserved(y))
        return y

    @property
    def support(self) -> constraints.Constraint:
        """Full labellings, each label below the cardinality of its node."""
        return Labellings(torch.tensor(self.graph.cardinalities, device=self.model.device), 1)

    def labelling(self, y: Tensor) -> Tensor:
        return as_labelling("y", self.graph, y, self.batch_shape)

    def condition(self, y: Tensor) -> Self:
        return self._clamped(self.labelling(y))

    def _clamped(self, y: Tensor) -> Self:
        """:meth:`condition` on a labelling that has been checked."""
        return self._with(clamped(self.model, y))

    @property
    def num_labels(self) -> int:
        return self.graph.max_cardinality

    def label_scores(self, y: Tensor) -> Tensor:
        """The score of every label of every node given all other observed labels, ``[*batch, N, L]``.

        Up to a constant per node: their softmax is P(y_n | the rest). O(Σ_g F_g k_g L) time and memory whatever the
        treewidth, and whatever :attr:`inference`: no Z is involved. Latent (−100) nodes are summed out where no two of
        them share a factor, in O(Σ_g F_g k_g² L²).

        Raises:
            ValueError: two latent nodes in one factor.
        """
        y = self.labelling(y)
        observed = self.model.observed
        if observed is not None:
            y = torch.where(y == IGNORE, observed, y)
        if not concrete(y):  # latent nodes, which cannot be served here, must not pass unseen
            scores = label_scores(self.model, y.clamp(min=0))
            scores = scores.masked_fill((y == IGNORE).any(-1)[..., None, None], torch.nan)
        elif (y == IGNORE).any():
            scores = latent_label_scores(self.model, y)
        else:
            scores = label_scores(self.model, y)
        return keep_observed(scores, observed).to(self.model.dtype)

    def with_node_scores(self, added: Tensor) -> Self:
        return self._with(with_node_scores(self.model, added))

    def argmax(self) -> Tensor:
        with torch.no_grad():
            best = self._cache["argmax", False] = self.solution.argmax()
            if self._validate_args:  # by the score of the answer: ln Z may never have been asked for
                decoded = "" if self.solution.exact else f" that {self.solution.method} found"
                check_feasible(
                    self.model.precise_score(best), "MRF.argmax", f"no labelling{decoded} has a finite score"
                )
        return best

    def topk(self, k: int) -> tuple[Tensor, Tensor]:
        check_integer("k", k)
        labels, scores = self.solution.topk(k)
        return labels, scores.to(self._dtype)

    def _sample(self, n: int, generator: torch.Generator | None) -> Tensor:
        return (self._asked or self.solution).sample(n, generator)  # draws are made without gradient in any case

    def map_scores(self, function: Callable[[Tensor], Tensor]) -> Self:
        return self._with(self.model.map_scores(function))

    def _map_entries(self, function: Callable[[Tensor, int], Tensor]) -> Self:
        return self._with(self.model.map_entries(function))

    def _expanded_scores(self) -> tuple[Tensor, ...]:
        return tuple(self.model.expanded(group) for group in range(self.graph.num_groups))

    def _unobserved(self, y: Tensor) -> Tensor:
        return (y == IGNORE).any(-1)

    def _check_comparable(self, other: StructuredDistribution) -> None:
        if isinstance(other, MRF) and not _same_wiring(self.graph, other.graph):
            raise ValueError("expected two MRFs over the same factors, got different scopes")
        super()._check_comparable(other)

    def to_mrf(self) -> MRF:
        """Itself: every chain, tree and HMM has this too."""
        return self

    def expand(self, batch_shape: Sequence[int], _instance: object = None) -> Self:
        """The same distribution with a larger batch shape (nothing is copied)."""
        return self._with(self.model.expand(batch_shape))

    def __repr__(self) -> str:
        return f"MRF({self.graph!r}, batch_shape={list(self.batch_shape)}, inference={self.inference!r})"


def _same_wiring(a: FactorGraph, b: FactorGraph) -> bool:
    return a is b or (
        a.cardinalities == b.cardinalities
        and len(a.scopes) == len(b.scopes)
        and all(torch.equal(s, t) for s, t in zip(a.scopes, b.scopes, strict=True))
    )
