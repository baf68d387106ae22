"""Metropolis–Hastings: proposals, accepted with the probability that keeps P stationary."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import Tensor

from lnz.checks import check_labels, check_tensor, concrete
from lnz.inference.sampling.acceptance import acceptance, accepted, tallied
from lnz.inference.sampling.sampler import Chains, Sampler, Transition
from lnz.ops.conditionals.sites import Order
from lnz.ops.metropolis.op import metropolis_sweeps
from lnz.scores import Model

Proposal = Callable[[Model, Tensor, torch.Generator | None], tuple[Tensor, Tensor]]
"""``(model, labels, generator)`` to proposed labels and ln q(back) − ln q(forth); see :class:`MetropolisHastings`."""


@dataclass(frozen=True)
class MetropolisHastings(Sampler):
    """Metropolis–Hastings (Hastings 1970), site by site or with proposals of the user's own.

    Args:
        proposal: ``None`` proposes for one node a label drawn uniformly from all that it has (the present one too, so
            that no order is periodic), and a sweep visits the nodes as ``order`` says. Else a function
            ``(model, labels [n, *batch, N], generator) -> (proposed labels, log_ratio [n, *batch])`` with
            ``log_ratio = ln q(labels | proposed) − ln q(proposed | labels)``, called once per sweep; 0.0 will do where
            proposals are symmetric. Proposals that move an observed node have score −inf.
        order: of the sites, as for :class:`~lnz.inference.Gibbs`; ``"random"`` is reversible. Without effect on
            proposals of the user's own.
    """

    proposal: Proposal | None = None
    order: Order = "random"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.proposal is not None and not callable(self.proposal):
            raise TypeError(f"proposal: expected None or a function, got {type(self.proposal).__name__}")
        if self.order not in get_args(Order):
            raise ValueError(f"order: expected one of {', '.join(map(repr, get_args(Order)))}, got {self.order!r}")

    def transition(self, model: Model) -> Transition:
        def advance(chains: Chains, sweeps: int, generator: torch.Generator | None) -> Chains:
            if self.proposal is None:
                labels, count = metropolis_sweeps(model, chains.labels, sweeps, generator, self.order)
                proposed = sweeps * model.graph.num_nodes
            else:
                labels, proposed = chains.labels, sweeps
                count = torch.zeros(labels.shape[:-1], device=labels.device)
                for _ in range(sweeps):
                    labels, accept = _jumped(model, labels, self.proposal, generator)
                    count = count + accept
            return Chains(labels, tallied(chains, count, proposed), chains.sweeps + sweeps)

        return advance

    def report(self, chains: Chains) -> dict[str, Any]:
        return acceptance(chains)


def _jumped(
    model: Model, labels: Tensor, proposal: Proposal, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    made = proposal(model, labels, generator)
    if not isinstance(made, tuple) or len(made) != 2:
        raise TypeError(f"proposal: expected a pair (labels, log ratio), got {type(made).__name__}")
    proposed, log_ratio = made[0], torch.as_tensor(made[1], device=labels.device)
    check_tensor("proposal", proposed)
    if proposed.shape != labels.shape or proposed.dtype != torch.int64:
        raise ValueError(
            f"proposal: expected int64 labels of shape {list(labels.shape)}, "
            f"got {proposed.dtype} {list(proposed.shape)}"
        )
    if log_ratio.shape not in (labels.shape[:-1], torch.Size(())):
        raise ValueError(
            f"proposal: expected a log ratio of shape {list(labels.shape[:-1])}, got {list(log_ratio.shape)}"
        )
    cards = model.graph.uniform_cardinality or torch.tensor(model.graph.cardinalities, device=labels.device)
    check_labels("proposal", proposed, cards, unobserved=False)
    if concrete(log_ratio) and not (log_ratio < torch.inf).all():
        raise ValueError("proposal: expected log ratios below +inf, got NaN or +inf")
    gain = (model.precise_score(proposed) - model.precise_score(labels)).to(model.dtype)
    accept = accepted(gain + log_ratio, generator)
    return torch.where(accept[..., None], proposed, labels), accept
