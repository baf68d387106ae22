"""The discrete Langevin proposal: every node moves at once, along the gradient of the score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lnz.checks import check_positive
from lnz.inference.sampling.acceptance import acceptance, accepted, tallied
from lnz.inference.sampling.gibbs_with_gradients import gains
from lnz.inference.sampling.sampler import Chains, Sampler, Transition
from lnz.ops.conditionals.random import categorical
from lnz.scores import Model


@dataclass(frozen=True)
class DiscreteLangevin(Sampler):
    """Discrete Langevin proposals (Zhang, Liu & Liu 2022): ``q(y′ | y) = Π_n softmax_l(½ d[n, l] − [l ≠ y_n] / α)``.

    ``d[n, l]`` is what the score gains where node n alone takes label l (see
    :class:`~lnz.inference.GibbsWithGradients`), and ``[l ≠ y_n] / α`` is ``‖x′_n − x_n‖² / 2α`` between one-hot labels.
    All nodes move at once, O(Σ_f k_f · L) per sweep of one proposal.

    Args:
        step_size: α > 0; small steps change few nodes, and are accepted often.
        adjusted: accept or reject by Metropolis and Hastings (DMALA), so that P is stationary and the chain reversible.
            Without (DULA), the stationary distribution is off by an amount that falls with the step size; proposals of
            score −inf are rejected even so.
    """

    step_size: float = 0.5
    adjusted: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("step_size", self.step_size)

    def transition(self, model: Model) -> Transition:
        def advance(chains: Chains, sweeps: int, generator: torch.Generator | None) -> Chains:
            labels = chains.labels
            log_q, score = log_proposal(model, labels, self.step_size), model.precise_score(labels)
            count = torch.zeros(labels.shape[:-1], device=labels.device)
            for _ in range(sweeps):
                proposed = categorical(log_q, generator)
                log_q_back, score_back = log_proposal(model, proposed, self.step_size), model.precise_score(proposed)
                gain = (score_back - score).to(log_q.dtype)
                ratio = gain + _sum(log_q_back, labels) - _sum(log_q, proposed)
                accept = accepted(ratio, generator) if self.adjusted else torch.isfinite(score_back)
                labels = torch.where(accept[..., None], proposed, labels)
                log_q = torch.where(accept[..., None, None], log_q_back, log_q)
                score = torch.where(accept, score_back, score)
                count += accept
            return Chains(labels, tallied(chains, count, sweeps), chains.sweeps + sweeps)

        return advance

    def report(self, chains: Chains) -> dict[str, Any]:
        return acceptance(chains)


def log_proposal(model: Model, labels: Tensor, step_size: float) -> Tensor:
    """ln of the probability that each node is proposed each label, ``[*lead, N, L]``."""
    gain = gains(model, labels)
    stays = torch.zeros_like(gain, dtype=torch.bool).scatter(-1, labels[..., None], True)
    return torch.where(stays, 0.0, gain / 2 - 1 / step_size).log_softmax(-1)


def _sum(log_q: Tensor, labels: Tensor) -> Tensor:
    return log_q.gather(-1, labels[..., None]).squeeze(-1).sum(-1)
