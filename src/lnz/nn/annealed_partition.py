"""ln Z of a restricted Boltzmann machine by annealed importance sampling on its own conditionals."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from lnz.ops.conditionals.random import uniform


@dataclass(frozen=True, eq=False)
class AnnealedPartition:
    """An estimate of ln Z, from the logarithms ``[chains]`` of weights whose mean is an unbiased estimate of Z."""

    log_weights: Tensor

    def __repr__(self) -> str:
        return (
            f"AnnealedPartition(log_partition={self.log_partition.item():.6g}, "
            f"standard_error={self.standard_error.item():.3g}, ess={self.ess.item():.3g}, "
            f"chains={len(self.log_weights)})"
        )

    @property
    def log_partition(self) -> Tensor:
        """ln of the mean weight; a little low on average, since the logarithm is concave."""
        return self.log_weights.logsumexp(0) - math.log(len(self.log_weights))

    @property
    def standard_error(self) -> Tensor:
        """Of the mean weight, relative to it: that of ln Z to first order."""
        weights = self.log_weights.softmax(0)  # their mean is 1 / chains
        return weights.std() * math.sqrt(len(weights))

    @property
    def interval(self) -> tuple[Tensor, Tensor]:
        """ln of Z ± 3 standard errors of Z; the lower end is −inf where that reaches 0."""
        spread = 3 * self.standard_error
        return (
            self.log_partition + torch.log1p(-spread.clamp(max=1.0)),
            self.log_partition + torch.log1p(spread),
        )

    @property
    def ess(self) -> Tensor:
        """The effective number of chains, 1 / Σ w² of the normalised weights."""
        return 1 / self.log_weights.softmax(0).square().sum()


@torch.no_grad()
def annealed_partition(
    visible_bias: Tensor,
    hidden_bias: Tensor,
    weight: Tensor,
    steps: int,
    chains: int,
    base_rate: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> AnnealedPartition:
    """Salakhutdinov & Murray (2008), section 4.1: from independent units to the machine, hidden units summed out.

    At β the visible units have the unnormalised probability

        exp((1 − β) a·v + β b·v) · Π_j (1 + exp(β (c_j + vᵀ W_j)))

    with a the logits of the base rates, where Z is known at β = 0. O(steps · chains · V · H) time.

    Args:
        visible_bias: b ``[V]``.
        hidden_bias: c ``[H]``.
        weight: W ``[V, H]``.
        steps: of β, evenly spaced from 0 to 1.
        chains: at least 2.
        base_rate: ``[V]`` in (0, 1); ``None`` is the sigmoid of b.
        generator: of the random numbers; ``None`` is torch's default one.

    Raises:
        ValueError: a setting out of its range.
    """
    for name, value, least in (("steps", steps, 1), ("chains", chains, 2)):
        if value < least:
            raise ValueError(f"{name}: expected an integer of at least {least}, got {value}")
    base = visible_bias if base_rate is None else base_rate.to(visible_bias).logit()
    if base.shape != visible_bias.shape or not torch.isfinite(base).all():
        raise ValueError(f"base_rate: expected {len(visible_bias)} numbers in (0, 1), got {base_rate}")

    def drawn(logits: Tensor) -> Tensor:
        return (uniform(logits.shape, logits, generator) < logits.sigmoid()).to(logits.dtype)

    log_z = softplus(base).sum() + len(hidden_bias) * math.log(2)
    v = drawn(base.expand(chains, -1))
    fields = hidden_bias + v @ weight
    log_weights = log_z.expand(chains)
    for k in range(1, steps + 1):
        before, beta = (k - 1) / steps, k / steps
        shift = v @ (visible_bias - base) / steps
        log_weights = log_weights + shift + (softplus(beta * fields) - softplus(before * fields)).sum(-1)
        h = drawn(beta * fields)
        v = drawn((1 - beta) * base + beta * (visible_bias + h @ weight.T))
        fields = hidden_bias + v @ weight
    return AnnealedPartition(log_weights)
