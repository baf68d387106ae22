"""Mixture models with parameters: observations in, the posterior over components out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn

from lnz.checks import check_feasible
from lnz.distributions import BayesNet
from lnz.distributions.equal_rows import equal_rows
from lnz.distributions.mixture import mixture
from lnz.nn.gaussian_emission import GaussianEmission
from lnz.nn.hmm_emissions import Emission, dirichlet, draw, draw_logits, free_logits, set_logits


@dataclass(frozen=True, eq=False)
class MixtureStatistics:
    """Expected counts given the observations.

    Attributes:
        x: the observations, ``[R, …]``.
        components: P(component | x), ``[R, K]``, times the weights of the rows.
    """

    x: Tensor
    components: Tensor

    def together(self, summed: Callable[..., list[Tensor]], gathered: Callable[[Tensor], Tensor]) -> MixtureStatistics:
        """Those of all processes, whose rows are put below each other."""
        return MixtureStatistics(gathered(self.x), gathered(self.components))


class MixtureModel(nn.Module):
    """A mixture of K components of one family: Gaussians, for one, with full or diagonal covariances.

    ``forward`` gives the :func:`lnz.mixture` of observations. Train it by :func:`lnz.objectives.em`, or by gradient on
    ``-model(x).log_partition.mean()``. Components that start equal stay equal: start from :meth:`clustered` or random
    parameters. What is missing in an observation (NaN of Gaussians, −100 of symbols) is integrated out::

        model = MixtureModel(torch.zeros(3), GaussianEmission(torch.zeros(3, 2)))
        result = lnz.objectives.em(model.clustered(x), x, pseudocount=0.1)
        result.bic, model(x).marginals[0]     # [R, 3], the responsibilities

    Args:
        logits: of the weights, ``[K]``; −inf for components that never come, which holds in training too.
        components: what a hidden Markov model takes as emissions, :class:`GaussianEmission` or
            :class:`CategoricalEmission`.
    """

    def __init__(self, logits: Tensor, components: Emission) -> None:
        super().__init__()
        if logits.dim() != 1:
            raise ValueError(f"logits: expected shape [K], got {list(logits.shape)}")
        if not isinstance(components, Emission):
            raise TypeError(f"components: expected an Emission, got {type(components).__name__}")
        self.logits = nn.Parameter(logits.clone())
        self.components = components

    def forward(self, x: Tensor) -> BayesNet:
        """The posterior over the components of observations ``[R, …]``."""
        return mixture(self.logits.log_softmax(-1), self.components(x))

    if TYPE_CHECKING:
        __call__ = forward

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Observations ``[n, …]`` and the components ``int64 [n]`` that made them."""
        z = draw(self.logits.softmax(-1).expand(n, -1), generator)
        return self.components.sample(z, generator), z

    # The two steps of EM -------------------------------------------------------------------------------------------

    @torch.no_grad()
    def e_step(
        self, data: Tensor, lengths: object = None, weights: Tensor | None = None
    ) -> tuple[Tensor, MixtureStatistics]:
        """The summed log evidence of observations ``[R, …]``, and the responsibilities, both times ``weights [R]``.

        Raises:
            InfeasibleError: observations of probability 0, naming the rows.
        """
        if lengths is not None:
            raise ValueError("lengths: expected none for the rows of a mixture")
        p = self(data)
        evidence = p.log_partition
        check_feasible(evidence, "MixtureModel.e_step", "observations of probability 0")
        share = p.marginals[0]
        if weights is not None:
            evidence, share = evidence * weights, share * weights.to(share).unsqueeze(-1)
        return evidence.sum(), MixtureStatistics(data, share)

    def merged(self, data: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor] | None:
        """The different observations and how often each counts, of symbols; ``None`` of others, which rarely repeat."""
        if data.is_floating_point() or data.dim() != 1:
            return None
        rows, counts, _ = equal_rows(data.long()[:, None], weights)
        return rows[:, 0], counts

    @torch.no_grad()
    def m_step(self, statistics: MixtureStatistics, pseudocount: float = 0.0) -> Self:
        """Itself, with the parameters that maximise the expected log-joint and the log prior."""
        set_logits(self.logits, statistics.components.sum(0), pseudocount)
        self.components.maximise(statistics.x, statistics.components, pseudocount)
        return self

    def log_prior(self, pseudocount: float) -> Tensor:
        """ln of the prior density of the parameters, up to a constant; 0 where ``pseudocount`` is 0."""
        return dirichlet(self.logits, pseudocount) + self.components.log_prior(pseudocount)

    @torch.no_grad()
    def drawn(self, data: Tensor, generator: torch.Generator | None = None) -> Self:
        """Itself, with a random start for observations ``[R, …]``."""
        draw_logits(self.logits, generator)
        self.components.draw_parameters(data, generator)
        return self

    @torch.no_grad()
    def clustered(self, data: Tensor, generator: torch.Generator | None = None) -> Self:
        """Itself, with components that are clusters of observations ``[R, D]`` (k-means).

        Raises:
            TypeError: components that are not Gaussian.
        """
        if not isinstance(self.components, GaussianEmission):
            raise TypeError(f"components: expected Gaussian ones to cluster, got {type(self.components).__name__}")
        self.components.cluster(data, generator)
        return self

    def num_parameters(self) -> int:
        """Free parameters: of weights and components; −inf and frozen ones are not."""
        return free_logits(self.logits) + self.components.num_parameters()

    @staticmethod
    def num_observations(data: Tensor, lengths: object = None, weights: Tensor | None = None) -> float:
        """The number of rows, or the sum of their weights."""
        return float(len(data)) if weights is None else float(weights.sum())

    def extra_repr(self) -> str:
        return f"{len(self.logits)} components"
