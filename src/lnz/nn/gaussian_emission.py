"""Gaussian emissions of a hidden Markov model, whose observations may lack numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from scipy.cluster.vq import kmeans2
from torch import Tensor, nn

from lnz.checks import check_positive, concrete
from lnz.nn import gaussian_density
from lnz.nn.hmm_emissions import Emission

_DIGITS = 1e-6  # of a sum of squares, which may be lost in a difference


class GaussianEmission(Emission):
    """A vector of D numbers with a mean and a covariance per state; observations are ``[*batch, T, D]``.

    NaN in the observations is *missing*: whole frames, or some of their dimensions. Densities are those of what is
    there, and EM takes the expectations of the rest.

    Args:
        mean: ``[K, D]``.
        covariance: ``[K, D]``, variances of independent dimensions, or ``[K, D, D]``, full covariances; ``None`` is 1
            in every dimension, independent.
        prior_variance: ψ of the prior exp(−ν/2 (ln|Σ| + tr(ψ Σ⁻¹))), whose strength ν is EM's pseudocount: as if each
            state had ν more observations of this variance. Without a pseudocount, a state that keeps a single point
            has no maximum of the likelihood, and EM says so.
    """

    def __init__(self, mean: Tensor, covariance: Tensor | None = None, prior_variance: float = 1.0) -> None:
        super().__init__()
        if mean.dim() != 2:
            raise ValueError(f"mean: expected shape [K, D], got {list(mean.shape)}")
        covariance = torch.ones_like(mean) if covariance is None else covariance
        if covariance.shape not in (mean.shape, (*mean.shape, mean.shape[1])):
            K, D = mean.shape
            raise ValueError(f"covariance: expected shape [{K}, {D}] or [{K}, {D}, {D}], got {list(covariance.shape)}")
        check_positive("prior_variance", prior_variance)
        self.prior_variance = prior_variance
        self.form: Literal["diagonal", "full"] = "diagonal" if covariance.dim() == 2 else "full"
        self.mean = nn.Parameter(mean.clone())
        self.factor = nn.Parameter(torch.zeros_like(covariance))
        """ln of the standard deviations ``[K, D]``, or the Cholesky factor ``[K, D, D]`` with ln of its diagonal."""
        self._set_covariance(covariance)

    @property
    def covariance(self) -> Tensor:
        """``[K, D]`` or ``[K, D, D]``, as it was given."""
        if self.form == "diagonal":
            return (2 * self.factor).exp()
        return self._cholesky @ self._cholesky.mT

    @property
    def _cholesky(self) -> Tensor:
        return self.factor.tril(-1) + self.factor.diagonal(dim1=-2, dim2=-1).exp().diag_embed()

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1:] != self.mean.shape[1:]:
            raise ValueError(f"x: expected shape [*batch, T, {self.mean.shape[1]}], got {list(x.shape)}")
        seen = ~x.isnan()
        complete = concrete(x) and bool(seen.all())
        if self.form == "full" and concrete(x) and not complete:
            return self._of_patterns(x, seen)
        if complete:
            if self.form == "diagonal":
                return gaussian_density.diagonal(x, self.mean, self.factor)
            return gaussian_density.full(x, self.mean, self._cholesky)
        if self.form == "diagonal":
            return gaussian_density.diagonal_with_gaps(x, seen, self.mean, self.factor)
        return gaussian_density.of_differences(torch.where(seen, x, 0.0).unsqueeze(-2) - self.mean, self._cholesky)

    def _of_patterns(self, x: Tensor, seen: Tensor) -> Tensor:
        """:meth:`forward`, for each set of dimensions that are there together."""
        rows, found = x.reshape(-1, x.shape[-1]), self.mean.new_zeros(x.shape[:-1].numel(), len(self.mean))
        for at, there in _patterns(seen.reshape(-1, x.shape[-1])):
            if len(there):
                part = self.covariance[:, there][:, :, there]
                away = rows[at][:, there].unsqueeze(-2) - self.mean[:, there]
                found = found.index_put((at,), gaussian_density.of_differences(away, torch.linalg.cholesky(part)))
        return found.reshape(*x.shape[:-1], -1)

    if TYPE_CHECKING:
        __call__ = forward

    def maximise(self, x: Tensor, weights: Tensor, pseudocount: float) -> None:
        x, weights = x.flatten(0, -2), weights.flatten(0, -2)
        total = weights.sum(0)[:, None]  # [K, 1]
        used = total > 0
        per = total.clamp(min=torch.finfo(total.dtype).tiny)
        if self.form == "diagonal" and not x.isnan().any():
            spread = self._by_products(x, weights, used, per)
        else:
            spread = self._by_states(x, weights, used, per)
        if not self.factor.requires_grad:
            return
        prior = pseudocount * self.prior_variance * torch.ones_like(self.mean)
        strength = (per + pseudocount).reshape(-1, *[1] * (spread.dim() - 1))
        found = (spread + (prior if self.form == "diagonal" else prior.diag_embed())) / strength
        keep = ~(used.flatten() | (pseudocount > 0))
        found[keep] = self.covariance[keep]
        self._set_covariance(found, pseudocount)

    def _by_products(self, x: Tensor, weights: Tensor, used: Tensor, per: Tensor) -> Tensor:
        """Set the means, and give Σ weight · (x − mean)², ``[K, D]``: of all states at once, about one centre.

        A state whose spread is little beside its distance from the centre would lose digits: its sum is made apart.
        """
        centre = x.sum(0) / max(1, len(x))
        moved = x - centre
        first, second = weights.T @ moved, weights.T @ moved.square()
        if self.mean.requires_grad:
            self.mean.data = torch.where(used, centre + first / per, self.mean.data)
        away = self.mean.detach() - centre
        spread = second - 2 * away * first + away.square() * weights.sum(0)[:, None]
        for k in (spread < _DIGITS * second).any(-1).nonzero().flatten().tolist():
            spread[k] = weights[:, k] @ (x - self.mean.detach()[k]).square()
        return spread

    def _by_states(self, x: Tensor, weights: Tensor, used: Tensor, per: Tensor) -> Tensor:
        """The same of any form, state by state, with what is missing filled in."""
        filled, spread = self._filled(x, weights)
        if self.mean.requires_grad:
            means = torch.stack([w @ each for w, each in zip(weights.T, filled, strict=True)]) / per
            self.mean.data = torch.where(used, means, self.mean.data)
        away = [each - mean for each, mean in zip(filled, self.mean.detach(), strict=True)]
        return spread + torch.stack([self._scatter(each, w) for each, w in zip(away, weights.T, strict=True)])

    def _filled(self, x: Tensor, weights: Tensor) -> tuple[Sequence[Tensor], Tensor]:
        """Observations ``[R, D]`` for each state, what is missing as that state expects it; and Σ weight · its
        covariance, of the shape of :attr:`covariance`.
        """
        seen, covariance = ~x.isnan(), self.covariance.detach()
        if seen.all():
            return [x] * len(self.mean), torch.zeros_like(covariance)
        if self.form == "diagonal":
            filled = [torch.where(seen, x, mean) for mean in self.mean.detach()]
            return filled, (weights.T @ (~seen).to(x)) * covariance
        filled, extra = [x.clone() for _ in self.mean], torch.zeros_like(covariance)
        for at, there in _patterns(seen):
            lost = torch.tensor([d for d in range(x.shape[1]) if d not in there.tolist()], device=x.device)
            if not len(lost):
                continue
            for k, (mean, table) in enumerate(zip(self.mean.detach(), covariance, strict=True)):
                gain = torch.linalg.solve(table[there][:, there], table[there][:, lost]).T  # of no seen dimension, too
                rows = mean[lost] + (x[at][:, there] - mean[there]) @ gain.T
                filled[k][at[:, None], lost] = rows
                rest = table[lost][:, lost] - gain @ table[there][:, lost]
                extra[k][lost[:, None], lost] += weights[at, k].sum() * rest
        return filled, extra

    def _scatter(self, away: Tensor, w: Tensor) -> Tensor:
        return w @ away.square() if self.form == "diagonal" else (w[:, None] * away).T @ away

    @torch.no_grad()
    def _set_covariance(self, covariance: Tensor, pseudocount: float = 0.0) -> None:
        if self.form == "diagonal":
            bad = ~((covariance > torch.finfo(covariance.dtype).tiny) & torch.isfinite(covariance)).all(-1)
            factor = 0.5 * covariance.log()
        else:
            cholesky, info = torch.linalg.cholesky_ex(covariance)
            bad = info != 0
            factor = cholesky.tril(-1) + cholesky.diagonal(dim1=-2, dim2=-1).log().diag_embed()
        if concrete(bad) and bad.any():
            raise ValueError(self._bad_covariance(int(bad.nonzero()[0]), covariance, pseudocount))
        self.factor.data = factor

    def _bad_covariance(self, state: int, covariance: Tensor, pseudocount: float) -> str:
        """What is wrong with the covariance of a state, in words."""
        if not torch.isfinite(covariance[state]).all():
            return (
                f"covariance: expected finite ones, got that of state {state} beyond the range of {covariance.dtype}: "
                "rescale the observations, or leave out those far from all others"
            )
        remedy = "a pseudocount above 0 keeps the states of EM from shrinking to a point"
        if pseudocount > 0:
            remedy = (
                f"pseudocount={pseudocount:g} with prior_variance={self.prior_variance:g} is nothing beside it: "
                "rescale the observations, leave out those far from all others, or raise prior_variance"
            )
        return f"covariance: expected positive definite ones, got that of state {state} singular; {remedy}"

    def log_prior(self, pseudocount: float) -> Tensor:
        if self.form == "diagonal":
            log_det, trace = 2 * self.factor.sum(), (-2 * self.factor).exp().sum()
        else:
            log_det = 2 * self.factor.diagonal(dim1=-2, dim2=-1).sum()
            trace = torch.cholesky_inverse(self._cholesky).diagonal(dim1=-2, dim2=-1).sum()
        return -0.5 * pseudocount * (log_det + self.prior_variance * trace)

    def sample(self, z: Tensor, generator: torch.Generator | None = None) -> Tensor:
        noise = torch.empty_like(self.mean[z]).normal_(generator=generator)
        if self.form == "diagonal":
            return self.mean[z] + self.factor.exp()[z] * noise
        return self.mean[z] + (self._cholesky[z] @ noise.unsqueeze(-1)).squeeze(-1)

    @torch.no_grad()
    def draw_parameters(self, x: Tensor, generator: torch.Generator | None = None) -> None:
        """Means at observations drawn from the data, covariances those of all the data."""
        x = _completed(x.reshape(-1, self.mean.shape[1]))
        device = x.device if generator is None else generator.device
        if self.mean.requires_grad:
            some = torch.randperm(len(x), generator=generator, device=device)[: len(self.mean)].to(x.device)
            self.mean.data = x[some.repeat(-(-len(self.mean) // len(some)))[: len(self.mean)]].to(self.mean)
        if self.factor.requires_grad:
            away = x - x.mean(0)
            spread = away.square().mean(0) if self.form == "diagonal" else away.T @ away / len(x)
            if (spread if self.form == "diagonal" else spread.diagonal()).min() > 0:
                self._set_covariance(spread.to(self.factor).expand_as(self.factor).clone())

    @torch.no_grad()
    def cluster(self, x: Tensor, generator: torch.Generator | None = None) -> None:
        """Means and covariances of the clusters of observations ``[R, D]`` (k-means, by SciPy); frozen ones stay."""
        device = x.device if generator is None else generator.device
        seed = int(torch.randint(2**31, (), generator=generator, device=device))
        K, points = len(self.mean), _completed(x).double().cpu().numpy()
        means, nearest = kmeans2(points, K, minit="++", rng=np.random.default_rng(seed))
        if self.mean.requires_grad:
            self.mean.data = torch.from_numpy(means).to(self.mean)
        if self.factor.requires_grad:
            every = (
                points.var(0) if self.form == "diagonal" else np.cov(points.T, bias=True).reshape(2 * points.shape[1:])
            )
            found = []
            for k in range(K):
                away = points[nearest == k] - means[k]
                spread = every if len(away) <= points.shape[1] else self._scatter_of(away)
                found.append(spread + 1e-3 * every)  # of a cluster that is a point, too
            self._set_covariance(torch.from_numpy(np.stack(found)).to(self.factor))

    def _scatter_of(self, away: np.ndarray) -> np.ndarray:
        return (away**2).mean(0) if self.form == "diagonal" else away.T @ away / len(away)

    def num_parameters(self) -> int:
        D = self.mean.shape[1]
        of_factor = self.factor.numel() if self.form == "diagonal" else len(self.mean) * D * (D + 1) // 2
        return self.mean.numel() * self.mean.requires_grad + of_factor * self.factor.requires_grad

    def extra_repr(self) -> str:
        return f"{self.mean.shape[0]} states, {self.mean.shape[1]} dimensions, {self.form} covariance"


def _patterns(seen: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Of rows ``bool [R, D]``: which rows are alike, and which dimensions are there in these."""
    kinds, which = seen.unique(dim=0, return_inverse=True)
    for number, kind in enumerate(kinds):
        yield (which == number).nonzero()[:, 0], kind.nonzero()[:, 0]


def _completed(x: Tensor) -> Tensor:
    """Rows ``[R, D]`` with the means of the dimensions where numbers are missing."""
    return torch.where(x.isnan(), x.nanmean(0), x)
