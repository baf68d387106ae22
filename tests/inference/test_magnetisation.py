"""The 64 × 64 Ising model on a torus below, at and above the critical temperature, against Onsager's solution."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.special import ellipk
from torch import Tensor

import lnz
from lnz.inference import Chains, Gibbs, Sampler, SwendsenWang

SIDE = 64
CRITICAL = math.log(1 + math.sqrt(2)) / 2
"""The inverse temperature K = J / T at which the infinite lattice orders."""
CHAINS = 8

pytestmark = pytest.mark.slow


def torus(K: float) -> tuple[lnz.MRF, Tensor]:
    at = torch.arange(SIDE**2).reshape(SIDE, SIDE)
    edges = torch.cat([torch.stack((at, at.roll(-1, axis)), -1).reshape(-1, 2) for axis in (0, 1)])
    g = lnz.FactorGraph.pairwise(SIDE**2, 2, edges)
    return lnz.MRF(g, (torch.zeros(2), 2 * K * torch.eye(2))), edges  # 2 K [equal] is K s s′ up to a constant


def measured(
    p: lnz.MRF, edges: Tensor, sampler: Sampler, chains: Chains, sweeps: int, every: int
) -> tuple[Tensor, ...]:
    """Per chain, the mean of |m|, of m², and of the energy per site, over every so many sweeps."""
    generator = torch.Generator().manual_seed(1)
    found = []
    for _ in range(sweeps // every):
        chains = sampler.step(p.model, chains, every, generator)
        spin = 2.0 * chains.labels - 1
        m = spin.mean(-1)
        energy = -(spin[:, edges[:, 0]] * spin[:, edges[:, 1]]).sum(-1) / SIDE**2
        found.append(torch.stack((m.abs(), m**2, energy)))
    return torch.stack(found).mean(0).unbind(0)


def started(p: lnz.MRF, sampler: Sampler, K: float) -> Chains:
    """Chains near equilibrium; critical ones by clusters, where single spins would take ten thousands of sweeps."""
    ups = torch.zeros(SIDE**2, dtype=torch.int64)
    chains = sampler.init(p.model, CHAINS, labels=ups if K > CRITICAL - 0.01 else None)
    first, sweeps = (
        (SwendsenWang(), 150) if K == CRITICAL else (sampler, 80 if isinstance(sampler, SwendsenWang) else 200)
    )
    return first.step(p.model, chains, sweeps, torch.Generator().manual_seed(0))


def onsager_energy(K: float) -> float:
    """The energy per site of the infinite lattice, in units of J."""
    k = 2 * math.sinh(2 * K) / math.cosh(2 * K) ** 2
    return -(1 + 2 / math.pi * (2 * math.tanh(2 * K) ** 2 - 1) * ellipk(k**2)) / math.tanh(2 * K)


def onsager_magnetisation(K: float) -> float:
    return (1 - math.sinh(2 * K) ** -4) ** 0.125


@pytest.mark.parametrize("sampler", [SwendsenWang(), Gibbs()], ids=["SwendsenWang", "Gibbs"])
@pytest.mark.parametrize("K", [0.5, CRITICAL, 0.38], ids=["below", "at", "above"])
def test_magnetisation_and_energy(sampler: Sampler, K: float) -> None:
    p, edges = torus(K)
    sweeps, every = (100, 1) if isinstance(sampler, SwendsenWang) else (300, 5)
    m, square, energy = measured(p, edges, sampler, started(p, sampler, K), sweeps, every)
    error = energy.std() / math.sqrt(CHAINS)
    if K == CRITICAL:
        assert abs(energy.mean() + math.sqrt(2)) < 0.014 + 4 * error  # the finite torus lies lower by about 0.9 / 64
        # scaling: ⟨m²⟩ = 1.092 · L^(−1/4) on a torus (Salas & Sokal 2000)
        assert abs(square.mean() - 1.092 * SIDE**-0.25) < 4 * square.std() / math.sqrt(CHAINS)
        assert square.std() / math.sqrt(CHAINS) < 0.08
        return
    assert abs(energy.mean() - onsager_energy(K)) < 4 * error
    assert error < 0.01
    if K > CRITICAL:
        assert abs(m.mean() - onsager_magnetisation(K)) < 4 * m.std() / math.sqrt(CHAINS)
        assert m.std() / math.sqrt(CHAINS) < 0.004
    else:
        assert m.mean() < 0.12  # 0 but for the finite lattice, whose correlations reach 6 sites
