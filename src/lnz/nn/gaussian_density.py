"""ln of normal densities of many observations under K states, as products of matrices."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import linear

_NEAR = 1e4  # squared distances in variances, whose rounding in float64 is far below any that matters in a logarithm
_LARGE = 1e150  # numbers whose differences may not be numbers
_LOG_2_PI = math.log(2 * math.pi)


def diagonal(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """``[*batch, K]`` of ``x [*batch, D]``, of independent dimensions: ``mean`` and ln of deviations ``[K, D]``.

    Differences of squares about the centre of the means, in float64 and where these are near enough to each other to
    lose no digits that count; else squares of differences, ``[*batch, K, D]`` of them.
    """
    constant = (log_scale + _LOG_2_PI / 2).sum(-1)
    centre = mean.detach().mean(0)
    moved, away, precision = x - centre, mean - centre, (-2 * log_scale).exp()
    squares, powers = away.square().mul(precision).sum(-1), torch.cat((moved.square(), moved), -1)
    wide = x.dtype == torch.float64 and x.numel() > 0
    if wide and float(squares.detach().max()) < _NEAR and float(powers.detach().abs().max()) < _LARGE:
        return linear(powers, torch.cat((-0.5 * precision, away * precision), -1), -0.5 * squares - constant)
    scaled = (x.unsqueeze(-2) - mean) * (-log_scale).exp()
    return -0.5 * scaled.square().sum(-1) - constant


def diagonal_with_gaps(x: Tensor, seen: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """The same of the dimensions that are ``seen``, bool ``[*batch, D]``."""
    away = torch.where(seen, x, 0.0).unsqueeze(-2) - mean  # [*batch, K, D]
    terms = (away * (-log_scale).exp()).square() / 2 + log_scale + _LOG_2_PI / 2
    return -torch.where(seen.unsqueeze(-2), terms, 0.0).sum(-1)


def full(x: Tensor, mean: Tensor, cholesky: Tensor) -> Tensor:
    """As :func:`diagonal`, of full covariances, by their Cholesky factors ``[K, D, D]``."""
    K, D = mean.shape
    centre = mean.detach().mean(0)
    identity = torch.eye(D, dtype=cholesky.dtype, device=cholesky.device).expand(K, D, D)
    white = torch.linalg.solve_triangular(cholesky, identity, upper=False)
    shift = (white @ (mean - centre).unsqueeze(-1)).squeeze(-1)
    scaled = linear(x - centre, white.flatten(0, 1)).unflatten(-1, (K, D)) - shift
    return -0.5 * scaled.square().sum(-1) - _log_scale(cholesky)


def of_differences(away: Tensor, cholesky: Tensor) -> Tensor:
    """``[…, K]`` of ``away [..., K, D]`` from the means."""
    scaled = torch.linalg.solve_triangular(cholesky, away.unsqueeze(-1), upper=False).squeeze(-1)
    return -0.5 * scaled.square().sum(-1) - _log_scale(cholesky)


def _log_scale(cholesky: Tensor) -> Tensor:
    return cholesky.diagonal(dim1=-2, dim2=-1).log().sum(-1) + cholesky.shape[-1] * _LOG_2_PI / 2
