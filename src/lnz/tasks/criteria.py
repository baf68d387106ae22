"""What models learned from rows are compared by: log-likelihoods, and AIC and BIC, which charge for parameters."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from lnz.distributions import BayesNet
from lnz.tasks.observations import Observations


@dataclass(frozen=True)
class Criteria:
    """Of a model with k free parameters and n rows.

    Attributes:
        log_likelihood: ln L.
        per_row: ln L / n.
        parameters: k.
        aic: 2 k − 2 ln L (Akaike 1974).
        bic: k ln n − 2 ln L (Schwarz 1978).
    """

    log_likelihood: float
    per_row: float
    parameters: int
    aic: float
    bic: float


def criteria(log_likelihood: float, parameters: int, rows: float) -> Criteria:
    """The criteria of a model of this ln L."""
    return Criteria(
        log_likelihood,
        log_likelihood / rows,
        parameters,
        2 * parameters - 2 * log_likelihood,
        parameters * math.log(rows) - 2 * log_likelihood,
    )


def log_likelihood(net: BayesNet, rows: Observations) -> float:
    """Σ ln P(row), by the weights; −∞ where a row is impossible."""
    labels, weights = rows.distinct
    used = weights > 0
    with torch.no_grad():
        each = torch.cat([net.log_prob(part).double() for part in labels[used].split(2**14)])
    return float((each * weights[used]).sum())


def shown_number(value: float | None, digits: int) -> str:
    """A number as it is shown; nothing where there is none."""
    if value is None:
        return ""
    return f"{value:.{digits}f}" if math.isfinite(value) else "−∞" if value < 0 else "∞"
