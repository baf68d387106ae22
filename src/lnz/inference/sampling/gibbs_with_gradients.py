"""Gibbs with gradients: single changes, proposed where the score says they matter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lnz.checks import check_integer
from lnz.inference.sampling.acceptance import acceptance, accepted, tallied
from lnz.inference.sampling.sampler import Chains, Sampler, Transition
from lnz.ops.conditionals.normalised import keep_observed
from lnz.ops.conditionals.random import categorical
from lnz.ops.conditionals.reference import label_scores
from lnz.scores import Model
from lnz.typing import IGNORE


@dataclass(frozen=True)
class GibbsWithGradients(Sampler):
    """Gibbs with gradients (Grathwohl et al. 2021): propose to change one node, by ``q(n, l) ∝ exp(½ d[n, l])``.

    ``d[n, l]`` is what the score gains where node n takes label l. The paper takes it from the gradient in the one-hot
    form of the labelling; as the score of a factor graph is linear in each node's, that gradient is the exact
    difference. A Metropolis–Hastings step accepts or rejects, so that P is stationary and the chain reversible.

    Args:
        proposals: proposals per sweep. Each takes the scores of all changes, O(Σ_f k_f · L): as much as a Gibbs sweep,
            which however redraws every node.
    """

    proposals: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("proposals", self.proposals, 1)

    def transition(self, model: Model) -> Transition:
        def advance(chains: Chains, sweeps: int, generator: torch.Generator | None) -> Chains:
            labels = chains.labels
            gain, log_q = changes(model, labels)
            count = torch.zeros(labels.shape[:-1], device=labels.device)
            for _ in range(sweeps * self.proposals):
                chosen = categorical(log_q.flatten(-2), generator)[..., None]
                node, label = chosen // log_q.shape[-1], chosen % log_q.shape[-1]
                proposed = labels.scatter(-1, node, label)
                gain_back, log_q_back = changes(model, proposed)
                back = (node * log_q.shape[-1]) + labels.gather(-1, node)
                forth = log_q.flatten(-2).gather(-1, chosen)
                ratio = gain.flatten(-2).gather(-1, chosen) + log_q_back.flatten(-2).gather(-1, back) - forth
                accept = accepted(ratio, generator) & torch.isfinite(forth)  # where no change is possible, none is made
                labels = torch.where(accept, proposed, labels)
                gain = torch.where(accept[..., None], gain_back, gain)
                log_q = torch.where(accept[..., None], log_q_back, log_q)
                count += accept.squeeze(-1)
            return Chains(labels, tallied(chains, count, sweeps * self.proposals), chains.sweeps + sweeps)

        return advance

    def report(self, chains: Chains) -> dict[str, Any]:
        return acceptance(chains)


def changes(model: Model, labels: Tensor) -> tuple[Tensor, Tensor]:
    """What each change of one node gains, and the logarithm of the probability of its proposal, ``[*lead, N, L]`` both.

    The probability is 0 where there is no change, no such label, or an observed node.
    """
    gain = gains(model, labels)
    allowed = gain / 2
    allowed = allowed.scatter(-1, labels[..., None], -torch.inf)
    if model.observed is not None:
        allowed = allowed.masked_fill((model.observed != IGNORE)[..., None], -torch.inf)
    log_z = allowed.flatten(-2).logsumexp(-1)[..., None, None]
    return gain, allowed - log_z.masked_fill(torch.isneginf(log_z), 0.0)


def gains(model: Model, labels: Tensor) -> Tensor:
    """How much higher the score is where one node takes each label, ``[*lead, N, L]``; −inf at impossible ones."""
    scores = label_scores(model, labels)
    gain = (scores - scores.gather(-1, labels[..., None])).masked_fill(torch.isneginf(scores), -torch.inf)
    return keep_observed(gain, model.observed)
