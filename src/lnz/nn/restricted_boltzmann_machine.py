"""Restricted Boltzmann machines: visible and hidden units, joined only to each other, so that either side sums out."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch.utils.checkpoint import checkpoint

from lnz.checks import check_event_shape, check_integer
from lnz.errors import IntractableError
from lnz.inference import Chains, Sampler
from lnz.inference.base import Method
from lnz.nn.annealed_partition import AnnealedPartition, annealed_partition
from lnz.nn.block_gibbs import BlockGibbs
from lnz.nn.boltzmann_machine import BoltzmannMachine, Objective, check_objective
from lnz.objectives.contrastive_divergence import checked_sampler
from lnz.objectives.reduction import Reduction, check_reduction, reduced
from lnz.ops.conditionals.random import uniform

CHUNK = 2**14
"""Configurations of the enumerated side that are listed at a time."""


class RestrictedBoltzmannMachine(BoltzmannMachine):
    """P(v, h) ∝ exp(b·v + c·h + vᵀ W h), v and h binary (Smolensky 1986; Hinton 2002).

    Given one side, the units of the other are independent, which gives exact conditionals, block Gibbs sampling, and a
    closed form for the sum over the hidden units, the free energy: P(v) = exp(−F(v)) / Z. It is the
    :class:`BoltzmannMachine` whose edges join every visible to every hidden unit.

    Args:
        num_visible: V.
        num_hidden: H.

    Attributes:
        visible_bias: b ``[V]``.
        hidden_bias: c ``[H]``.
        weight: W ``[V, H]``, drawn with standard deviation 1 / √(V + H) at first; biases start at 0.
    """

    def __init__(self, num_visible: int, num_hidden: int) -> None:
        if num_hidden < 1:
            raise ValueError(f"num_hidden: expected a positive integer, got {num_hidden}")
        visible, hidden = np.indices((num_visible, num_hidden)).reshape(2, -1)
        edges = np.stack((visible, num_visible + hidden), -1)
        super().__init__(num_visible, num_hidden, edges)
        self.weight = nn.Parameter(self.weight.detach().reshape(num_visible, num_hidden))

    def hidden_given(self, v: Tensor) -> Tensor:
        """P(h_j = 1 | v) ``[*batch, H]``, exact, for ``v`` ``[*batch, V]``."""
        return self._hidden_fields(v).sigmoid()

    def visible_given(self, h: Tensor) -> Tensor:
        """P(v_i = 1 | h) ``[*batch, V]``, exact, for ``h`` ``[*batch, H]``."""
        check_event_shape("h", h.shape, (self.num_hidden,))
        return (self.visible_bias + h.to(self.weight.dtype) @ self.weight.T).sigmoid()

    def free_energy(self, v: Tensor) -> Tensor:
        """F(v) = −ln Σ_h exp s(v, h) = −b·v − Σ_j ln(1 + exp(c_j + vᵀ W_j)), ``[*batch]``; O(V·H) each."""
        fields = self._hidden_fields(v)
        return -(v.to(self.weight.dtype) @ self.visible_bias) - softplus(fields).sum(-1)

    def log_partition(self, max_units: int = 25) -> Tensor:
        """ln Z, exact, by enumeration of the smaller side: O(2^min(V, H) · max(V, H)) time, memory of a chunk of it.

        Differentiable. At 20 hidden and 64 visible units it takes about a second; see :meth:`annealed_partition` for
        larger ones.

        Raises:
            IntractableError: both sides have more than ``max_units`` units.
        """
        smaller = min(self.num_visible, self.num_hidden)
        if smaller > max_units:
            raise IntractableError(
                f"log_partition: 2^{smaller} configurations of the smaller side are more than max_units={max_units} "
                "allows; annealed_partition estimates ln Z",
                treewidth=smaller,
                table_bytes=2**smaller * self.weight.element_size(),
                alternatives=("annealed_partition",),
            )
        own, other, weight = self.visible_bias, self.hidden_bias, self.weight
        if self.num_hidden <= self.num_visible:
            own, other, weight = other, own, weight.T
        parts = [
            checkpoint(_log_sum, states.to(weight.dtype), own, other, weight, use_reentrant=False)
            for states in _configurations(smaller, weight.device)
        ]
        return torch.stack(parts).logsumexp(0)  # type: ignore[arg-type]

    def annealed_partition(
        self,
        steps: int = 1000,
        chains: int = 100,
        base_rate: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> AnnealedPartition:
        """An unbiased estimate of Z with its error, by annealed importance sampling in the visible units.

        Args:
            steps: of β, evenly spaced from 0 to 1.
            chains: at least 2.
            base_rate: ``[V]`` in (0, 1), the means of the independent units that chains start from: those of the data
                serve well. ``None`` is the sigmoid of the visible biases.
            generator: of the random numbers; ``None`` is torch's default one.
        """
        return annealed_partition(
            self.visible_bias, self.hidden_bias, self.weight, steps, chains, base_rate, generator=generator
        )

    def log_likelihood(self, v: Tensor, log_partition: Tensor | None = None) -> Tensor:
        """ln P(v) ``[*batch]`` in nats, for ``v`` ``[*batch, V]``.

        Args:
            v: zeros and ones.
            log_partition: ln Z where it is known already; ``None`` enumerates.
        """
        self._check_visible(v)
        return -self.free_energy(v) - (self.log_partition() if log_partition is None else log_partition)

    def log_conditionals(self, v: Tensor) -> Tensor:
        """ln P(v_i | all other visible units) ``[*batch, V]``, whose sum is the log-pseudolikelihood; O(V·H) each.

        As :meth:`lnz.MRF.log_conditionals` with the hidden units latent: the difference that flipping v_i makes to F.
        """
        fields, v = self._hidden_fields(v), v.to(self.weight.dtype)
        without = fields[..., None, :] - v[..., None] * self.weight
        gain = self.visible_bias + (softplus(without + self.weight) - softplus(without)).sum(-1)
        return -softplus(torch.where(v == 1, -gain, gain))

    def init_chains(self, n: int, v: Tensor | None = None, generator: torch.Generator | None = None) -> Chains:
        """As :meth:`BoltzmannMachine.init_chains`; where v is given, the hidden units start as a draw from P(h | v)."""
        if v is None:
            return super().init_chains(n, None, generator)
        check_integer("n", n, 1)
        v = self._starts(n, v)
        h = self.hidden_given(v).detach()
        return Chains(torch.cat((v.long(), (uniform(h.shape, h, generator) < h).long()), -1))

    def loss(
        self,
        v: Tensor,
        objective: Objective = "cd",
        *,
        steps: int = 1,
        chains: Chains | None = None,
        sampler: Sampler | None = None,
        inference: Method | None = None,
        generator: torch.Generator | None = None,
        reduction: Reduction = "mean",
    ) -> Tensor:
        """As :meth:`BoltzmannMachine.loss`, with the hidden units summed out in closed form.

        ``"cd"`` and ``"pcd"`` are F(v) − F(v̂), with v̂ where the chains are after ``steps`` sweeps: the expected
        gradient of :func:`~lnz.objectives.contrastive_divergence`, without the noise of drawn hidden units. ``"nll"``
        is exact, by :meth:`log_partition`, unless an ``inference`` method is given.
        """
        if objective == "nll" and inference is not None:
            return super().loss(
                v,
                objective,
                chains=chains,
                sampler=sampler,
                inference=inference,
                generator=generator,
                reduction=reduction,
            )
        check_objective(objective, chains, sampler, inference)
        check_reduction(reduction)
        self._check_data(v)
        if objective == "pseudolikelihood":
            return reduced(-self.log_conditionals(v).sum(-1), reduction)
        if objective == "nll":
            return reduced(-self.log_likelihood(v), reduction)
        sampler, model = checked_sampler(sampler, steps, BlockGibbs()), self.mrf().model
        rows = v.reshape(-1, self.num_visible)
        start = self.init_chains(len(rows), rows, generator) if chains is None else chains
        moved = sampler.step(model, start, steps, generator)
        reached = self.free_energy(moved.labels[:, : self.num_visible])
        if chains is None:
            reached = reached.reshape(v.shape[:-1])
        else:
            chains.become(moved)
            reached = reached.mean()
        return reduced(self.free_energy(v) - reached, reduction)

    def _hidden_fields(self, v: Tensor) -> Tensor:
        check_event_shape("v", v.shape, (self.num_visible,))
        return self.hidden_bias + v.to(self.weight.dtype) @ self.weight


def _configurations(units: int, device: torch.device) -> Iterator[Tensor]:
    """Every configuration of some units, a chunk of rows at a time, ``bool [≤ CHUNK, units]``."""
    places = torch.arange(units, device=device)
    for start in range(0, 2**units, CHUNK):
        rows = torch.arange(start, min(start + CHUNK, 2**units), device=device)
        yield (rows[:, None] >> places) & 1 == 1


def _log_sum(states: Tensor, own: Tensor, other: Tensor, weight: Tensor) -> Tensor:
    """ln of the sum of exp s over some configurations of one side and all of the other."""
    return (states @ own + softplus(other + states @ weight).sum(-1)).logsumexp(0)
