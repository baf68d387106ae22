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
from lnz.errors import ConvergenceWarning, warn
from lnz.inference.base import Method, Solution, check_reverse_mode
from lnz.inference.exact.constraints import starting_part
from lnz.inference.sampling.gibbs import Gibbs
from lnz.inference.sampling.joint_counts import count, empty_tables, shaped
from lnz.inference.sampling.sampler import Chains, Sampler
from lnz.inference.sampling.starts import shared
from lnz.scores import Model

FEW = 5
"""Fewer effective chains than this say nothing of the error of their mean."""


@dataclass(frozen=True)
class AnnealedImportance(Method):
    """Annealed importance sampling (Neal 2001; for Z of an MRF, Salakhutdinov & Murray 2008).

    Chains start as exact draws from a part of the model, whose Z is known, and take a sweep of the base sampler at each
    β on the way to the full model, in which all other scores are multiplied by β. The part is the factors of one node.
    Where others hold −inf, it is these too, all of them where elimination stays within tables of 2²⁰ entries, else a
    forest of them; and as many of the rest as close no cycle.
    The mean of the chains' weights is an unbiased estimate of Z; its logarithm, a little low on average, is
    ``log_partition``. The gradient of that is the weighted statistics of the final states, an estimate of the
    marginals, which ``marginals`` gives too. O(steps · a sweep) time, and that of elimination at the start.

    A chain that meets a −inf outside the part has weight 0. Where all have, there is no estimate: ln Z and marginals
    are NaN, which says nothing about Z. −inf is said only where the part alone has no possible labelling.

    Args:
        steps: of β, evenly spaced from 0 to 1.
        chains: per model, at least 2.
        base: whose sweeps leave the model at each β stationary.
        betas: ascending from 0 to 1, in place of even steps.
        seed: of the random numbers.

    Warns:
        ConvergenceWarning: where no chain is left, or so few that their error is not known either.
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
        self.base.plan(model)  # raises now where the base cannot serve it
        return AnnealedSolution(model, self)


@dataclass(frozen=True, eq=False)
class Weights:
    """What the chains leave behind.

    Attributes:
        labels: the final states, ``int64 [n, *batch, N]``.
        log_weights: the logarithms of their weights in the centred model, float64 ``[n, *batch]``.
        impossible: where Z = 0 is proved, ``bool [*batch]``.
        known: whether Z is, as the part to start from was the whole model.
    """

    labels: Tensor
    log_weights: Tensor
    impossible: Tensor
    known: bool

    @property
    def failed(self) -> Tensor:
        """Where every chain has weight 0, though a labelling may be possible, ``bool [*batch]``."""
        return torch.isneginf(self.log_weights).all(0) & ~self.impossible

    @property
    def log_partition(self) -> Tensor:
        """ln of their mean, ``[*batch]``."""
        return self.log_weights.logsumexp(0) - math.log(len(self.log_weights))


class AnnealedSolution(Solution):
    """What the weighted chains say; they are run when the first answer is asked for."""

    method = "AnnealedImportance"
    exact = False

    def __init__(self, model: Model, settings: AnnealedImportance) -> None:
        super().__init__(model)
        self.settings = settings

    @cached_property
    def _weights(self) -> Weights:
        check_reverse_mode(self.method, self.model)
        with torch.no_grad():
            return self._run()

    def _run(self) -> Weights:
        settings = self.settings
        generator = torch.Generator().manual_seed(settings.seed)
        start = starting_part(self.centred[0])
        labels = start.draw(settings.chains, generator)
        log_weights = start.log_partition.double().expand(labels.shape[:-1])
        for before, beta in zip(settings.ladder, settings.ladder[1:], strict=False):
            log_weights = log_weights + (beta - before) * start.rest.precise_score(labels)
            alive = torch.isfinite(log_weights)
            if not alive.all():
                labels, _ = shared(labels, alive, generator)  # a chain of weight 0 may go anywhere
            labels = settings.base.plan(start.annealed(beta))(Chains(labels), 1, generator).labels
        weights = Weights(labels, log_weights, torch.isneginf(start.log_partition), start.complete)
        self._warn_unless_known(weights)
        return weights

    def _warn_unless_known(self, found: Weights) -> None:
        failed = found.failed
        if failed.any():
            warn(
                f"AnnealedImportance: no estimate of {int(failed.sum())} of {failed.numel()} models: every chain met a "
                "score of -inf; try more chains, or Exact() or BeliefPropagation()",
                ConvergenceWarning,
            )
        effective = _effective(found.log_weights.softmax(0))
        few = (effective < min(FEW, self.settings.chains / 2)) & ~failed & ~found.impossible
        if few.any():
            warn(
                f"AnnealedImportance: {effective[few].min():.3g} effective chains of {self.settings.chains} are left "
                f"in {int(few.sum())} of {few.numel()} models, too few to know the error of ln Z; try more steps or "
                "chains",
                ConvergenceWarning,
            )

    @cached_property
    def _normalised(self) -> Tensor:
        """The weights, summing to 1 over the chains; NaN where all are 0, unless no labelling is possible."""
        found = self._weights
        return found.log_weights.softmax(0).masked_fill(found.impossible, 0.0)

    @property
    def log_partition(self) -> Tensor:
        """ln of the estimate of Z, ``[*batch]``; NaN where every chain has weight 0, −inf where that is proved."""
        return (self.centred_log_partition + self.centred[1]).to(self.model.dtype)

    @property
    def centred_log_partition(self) -> Tensor:
        found, model = self._weights, self.centred[0]
        value = found.log_partition.masked_fill(found.failed, torch.nan)
        if not torch.is_grad_enabled() or not any(tensor.requires_grad for tensor in model.tensors):
            return value
        score = model.precise_score(found.labels).masked_fill(self._normalised == 0, 0.0)
        return value + (self._normalised * (score - score.detach())).sum(0)  # 0, with the gradient

    @cached_property
    def marginals(self) -> tuple[Tensor, ...]:
        """Per group, the weighted share of final states with each joint label, ``[*batch, F, L1, …, Lk]``."""
        tables = empty_tables(self.model)
        count(tables, self.model, self._weights.labels, self._normalised)
        failed = self._weights.failed[..., None, None]
        return shaped([table.masked_fill(failed, torch.nan) for table in tables], self.model)

    @cached_property
    def node_marginals(self) -> Tensor:
        labels = self._weights.labels
        shape = (*self.model.batch_shape, labels.shape[-1], self.model.graph.max_cardinality)
        index = labels.movedim(0, -1)
        weights = self._normalised.movedim(0, -1)[..., None, :]
        found = weights.new_zeros(shape).scatter_add_(-1, index, weights.expand_as(index))
        return found.masked_fill(self._weights.failed[..., None, None], torch.nan).to(self.model.dtype)

    @property
    def diagnostics(self) -> dict[str, Any]:
        """How far to trust the estimate, each ``[*batch]``.

        - ``standard_error``: of ln Z, that of Z divided by Z (the delta method); NaN, not known, where there is no
          estimate, or all chains went one way.
        - ``interval``: ln of Z ± 3 standard errors of Z, two tensors; the lower is −inf where 3 errors reach 0, and all
          numbers where there is no estimate.
        - ``ess``: effective number of chains, 1 / Σ w² of the normalised weights; 0 where there is no estimate, and
          where no labelling is possible.
        - ``failed``: whether there is no estimate, since every chain has weight 0.
        - ``dead``: the share of chains of weight 0.
        """
        n, weights, failed = self.settings.chains, self._normalised, self._weights.failed
        # the mean weight is 1/n: std / sqrt(n), relative to that
        error = weights.std(0) * math.sqrt(n) if weights.numel() else weights.sum(0)
        if not self._weights.known:
            alike = (self._weights.labels == self._weights.labels[0]).all(-1).all(0)
            error = error.masked_fill(alike & ~self._weights.impossible, torch.nan)
        log_z = self._weights.log_partition + self.centred[1]
        low, high = log_z + torch.log1p((-3 * error).clamp(min=-1.0)), log_z + torch.log1p(3 * error)
        unknown = torch.isnan(error) | failed
        return {
            "standard_error": error,
            "interval": (low.masked_fill(unknown, -torch.inf), high.masked_fill(unknown, torch.inf)),
            "ess": _effective(weights).nan_to_num(nan=0.0).masked_fill(self._weights.impossible, 0.0),
            "failed": failed,
            "dead": torch.isneginf(self._weights.log_weights).to(weights.dtype).mean(0),
            "chains": n,
            "steps": len(self.settings.ladder) - 1,
        }


def _effective(weights: Tensor) -> Tensor:
    """1 / Σ w² of weights ``[n, *batch]`` that sum to 1."""
    return 1 / weights.square().sum(0).clamp(min=torch.finfo(weights.dtype).tiny)
