"""What a density is judged by: log-likelihood, with ln Z exact and estimated, and pseudolikelihood."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lnz.inference import AnnealedImportance
from lnz.nn import BlockGibbs, BoltzmannMachine, RestrictedBoltzmannMachine

ENUMERATED = 20
"""ln Z of a restricted Boltzmann machine is enumerated up to this many units on its smaller side."""


@dataclass(frozen=True)
class LogZ:
    """ln Z by enumeration or elimination, where feasible; and by annealed importance sampling, with its error.

    ``low`` and ``high`` are ln of Z ± 3 standard errors of Z.
    """

    exact: float | None
    annealed: float
    standard_error: float
    low: float
    high: float

    @property
    def best(self) -> float:
        """The exact one, if there is one."""
        return self.annealed if self.exact is None else self.exact


def exact_log_partition(machine: BoltzmannMachine, max_units: int = ENUMERATED) -> Tensor | None:
    """ln Z, or ``None`` where it is out of reach."""
    if not isinstance(machine, RestrictedBoltzmannMachine):
        return machine.mrf().log_partition  # the machines of this task have small treewidth
    if min(machine.num_visible, machine.num_hidden) > max_units:
        return None
    return machine.log_partition(max_units)


@torch.no_grad()
def log_partition(machine: BoltzmannMachine, rates: Tensor, steps: int, chains: int, seed: int) -> LogZ:
    """ln Z both ways; annealing of an RBM starts from ``rates``, the means of the training images ``[V]``."""
    exact = exact_log_partition(machine)
    if isinstance(machine, RestrictedBoltzmannMachine):
        generator = torch.Generator().manual_seed(seed)
        found = machine.annealed_partition(steps, chains, rates, generator)
        value, error, (low, high) = found.log_partition, found.standard_error, found.interval
    else:
        p = machine.mrf(AnnealedImportance(steps, chains, BlockGibbs(), seed=seed))
        value, diagnostics = p.log_partition, p.diagnostics
        error, (low, high) = diagnostics["standard_error"], diagnostics["interval"]
    return LogZ(None if exact is None else float(exact), float(value), float(error), float(low), float(high))


@torch.no_grad()
def log_numerators(machine: BoltzmannMachine, v: Tensor) -> Tensor:
    """ln Z(v) ``[R]``: ln P(v) but for ln Z."""
    if isinstance(machine, RestrictedBoltzmannMachine):
        return -machine.free_energy(v)
    return torch.cat([machine.mrf().condition(machine.labelling(part)).log_partition for part in v.split(100)])


@torch.no_grad()
def log_pseudolikelihood(machine: BoltzmannMachine, v: Tensor) -> Tensor:
    """Σ_i ln P(v_i | all other pixels) ``[R]``.

    Where each pixel hangs on one hidden unit h alone, P(v_i | v_-i) = 1 / Σ_h P(h | v) / P(v_i | h).
    """
    if isinstance(machine, RestrictedBoltzmannMachine):
        return torch.cat([machine.log_conditionals(part).sum(-1) for part in v.split(100)])
    V = machine.num_visible
    first, second = machine.graph.scopes[1].unbind(-1)
    own = machine.weight[(second - first == V).nonzero().flatten()]
    field = machine.visible_bias[:, None] + own[:, None] * torch.arange(2)  # [V, 2], by the label of h
    total = []
    for part in v.split(100):
        posterior = machine.mrf().condition(machine.labelling(part)).node_marginals[:, V:]
        given = torch.where(part[..., None] == 1, field, -field).sigmoid()
        total.append(-(posterior / given).sum(-1).log().sum(-1))
    return torch.cat(total)


def pixelwise(rates: Tensor, v: Tensor) -> Tensor:
    """ln P(v) ``[R]`` under independent pixels of the means ``rates`` ``[V]``: the baseline."""
    return torch.where(v == 1, rates, 1 - rates).log().sum(-1)
