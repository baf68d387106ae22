"""Annealed importance sampling: an unbiased estimate of Z, with its error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from lnz.caching import cached_property
from lnz.checks import check_integer, numbers
from lnz.graphs import FactorGraph
from lnz.inference.base import Method, Solution
from lnz.inference.gibbs import Gibbs
from lnz.inference.joint_counts import count, empty_tables, shaped
from lnz.inference.sampler import Chains, Sampler
from lnz.inference.starts import shared
from lnz.ops.conditionals.alone import node_scores
from lnz.ops.conditionals.random import categorical
from lnz.scores import Model, Weighted


@dataclass(frozen=True)
class AnnealedImportance(Method):
    """Annealed importance sampling (Neal 2001; for Z of an MRF, Salakhutdinov & Murray 2008).

    Chains start as exact draws from the model without its interactions (the factors of one node, whose Z is known), and
    take a sweep of the base sampler at each β on the way to the full model, in which all other scores are multiplied by
    β. The mean of their weights is an unbiased estimate of Z; its logarithm, a little low on average, is
    ``log_partition``. The gradient of that is the weighted statistics of the final states, an estimate of the
    marginals, which ``marginals`` gives too. Scores of −inf count from the first β > 0 on: chains that start where they
    forbid it have weight 0. O(steps · a sweep) time.

    Args:
        steps: of β, evenly spaced from 0 to 1.
        chains: per model, at least 2.
        base: whose sweeps leave the model at each β stationary.
        betas: ascending from 0 to 1, in place of even steps.
        seed: of the random numbers.
    """

    steps: int = 1000
    chains: int = 64
    base: Sampler = field(default_factory=Gibbs)
    betas: Sequence[float] | None = None
    seed: int = 0
    exact: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_integer("steps", self.steps, 1)
        check_integer("chains", self.chains, 2)
        check_integer("seed", self.seed, None)
        if not isinstance(self.base, Sampler):
            raise TypeError(f"base: expected a sampler, got {type(self.base).__name__}")
        if self.betas is not None:
            object.__setattr__(self, "betas", numbers("betas", self.betas))
            ascending = all(a < b for a, b in zip(self.betas, self.betas[1:], strict=False))
            if len(self.betas) < 2 or self.betas[0] != 0 or self.betas[-1] != 1 or not ascending:
                raise ValueError(f"betas: expected numbers that ascend from 0 to 1, got {self.betas}")

    @property
    def ladder(self) -> tuple[float, ...]:
        """Every β, from 0 to 1."""
        return tuple(self.betas) if self.betas is not None else tuple(k / self.steps for k in range(self.steps + 1))

    def solve(self, model: Model) -> AnnealedSolution:
        self.base.transition(model)  # raises now where the base cannot serve it
        return AnnealedSolution(model, self)


@dataclass(frozen=True, eq=False)
class Weights:
    """The final states ``int64 [n, *batch, N]``, and the logarithms of their weights ``[n, *batch]``."""

    labels: Tensor
    log_weights: Tensor


class AnnealedSolution(Solution):
    """What the weighted chains say; they are run when the first answer is asked for."""

    method = "AnnealedImportance"
    exact = False

    def __init__(self, model: Model, settings: AnnealedImportance) -> None:
        super().__init__(model)
        self.settings = settings

    @cached_property
    def _weights(self) -> Weights:
        with torch.no_grad():
            return self._run()

    def _run(self) -> Weights:
        model, settings = self.model, self.settings
        generator = torch.Generator().manual_seed(settings.seed)
        alone = node_scores(model)
        labels = categorical(alone.expand(settings.chains, *alone.shape), generator)
        log_weights = alone.logsumexp(-1).sum(-1).expand(labels.shape[:-1])
        interactions = _interactions(model)
        for before, beta in zip(settings.ladder, settings.ladder[1:], strict=False):
            log_weights = log_weights + (beta - before) * interactions.score(labels)
            alive = torch.isfinite(log_weights)
            if not alive.all():
                labels, _ = shared(labels, alive, generator)  # a chain of weight 0 may go anywhere
            labels = settings.base.transition(_at(model, beta))(Chains(labels), 1, generator).labels
        return Weights(labels, log_weights)

    @cached_property
    def _normalised(self) -> Tensor:
        """The weights, summing to 1 over the chains; 0 where all are."""
        log_weights = self._weights.log_weights
        top = log_weights.amax(0).nan_to_num(neginf=0.0)
        weights = (log_weights - top).exp()
        return weights / weights.sum(0).clamp(min=torch.finfo(weights.dtype).tiny)

    @property
    def log_partition(self) -> Tensor:
        """ln of the estimate of Z, ``[*batch]``; −inf where every chain has weight 0."""
        found = self._weights
        value = (found.log_weights.logsumexp(0) - math.log(self.settings.chains)).to(self.model.dtype)
        if not torch.is_grad_enabled() or not any(tensor.requires_grad for tensor in self.model.tensors):
            return value
        score = self.model.score(found.labels).masked_fill(self._normalised == 0, 0.0)
        return value + (self._normalised.to(score.dtype) * (score - score.detach())).sum(0)  # 0, with the gradient

    @cached_property
    def marginals(self) -> tuple[Tensor, ...]:
        """Per group, the weighted share of final states with each joint label, ``[*batch, F, L1, …, Lk]``."""
        tables = empty_tables(self.model)
        count(tables, self.model, self._weights.labels, self._normalised)
        return shaped(tables, self.model)

    @cached_property
    def node_marginals(self) -> Tensor:
        labels = self._weights.labels
        shape = (*self.model.batch_shape, labels.shape[-1], self.model.graph.max_cardinality)
        index = labels.movedim(0, -1)
        weights = self._normalised.movedim(0, -1)[..., None, :]
        return weights.new_zeros(shape).scatter_add_(-1, index, weights.expand_as(index)).to(self.model.dtype)

    @property
    def diagnostics(self) -> dict[str, Any]:
        """How far to trust the estimate, each ``[*batch]``.

        - ``standard_error``: of ln Z, that of Z divided by Z (the delta method).
        - ``interval``: ln of Z ± 3 standard errors of Z, two tensors; the lower is −inf where 3 errors reach 0.
        - ``ess``: effective number of chains, 1 / Σ w² of the normalised weights.
        - ``dead``: the share of chains of weight 0.
        """
        n, weights = self.settings.chains, self._normalised
        error = weights.std(0) * math.sqrt(n)  # the mean weight is 1/n: std / sqrt(n), relative to that
        log_z = self._weights.log_weights.logsumexp(0) - math.log(n)
        return {
            "standard_error": error,
            "interval": (log_z + torch.log1p((-3 * error).clamp(min=-1.0)), log_z + torch.log1p(3 * error)),
            "ess": weights.sum(0) / weights.square().sum(0).clamp(min=torch.finfo(weights.dtype).tiny),
            "dead": torch.isneginf(self._weights.log_weights).to(weights.dtype).mean(0),
            "chains": n,
            "steps": len(self.settings.ladder) - 1,
        }


def _interactions(model: Model) -> Model:
    """The factors that are not of one node each."""
    kept = [group for group, labels in enumerate(model.graph.labels) if len(labels) != 1]
    graph = FactorGraph(model.graph.cardinalities, [model.graph.scopes[group] for group in kept])
    return Model(graph, tuple(model.entries[group] for group in kept))


def _at(model: Model, beta: float) -> Model:
    """The model with all scores but those of one node each multiplied by β > 0."""
    if beta == 1:
        return model
    entries = tuple(
        entry
        if len(labels) == 1
        else Weighted(entry.weight, beta * entry.table)
        if isinstance(entry, Weighted)
        else beta * entry
        for entry, labels in zip(model.entries, model.graph.labels, strict=True)
    )
    return Model(model.graph, entries, model.observed)
