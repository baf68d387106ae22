"""The 64 × 64 Ising model on a torus below, at and above the critical temperature.

Energies against Kaufman's partition function of that very torus, magnetisation against Yang's of the infinite lattice
below the critical temperature, and at it one sampler against the other.
"""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch
from torch import Tensor

import lnz
from lnz.inference import Chains, Gibbs, Sampler, SwendsenWang

SIDE = 64
CRITICAL = math.log(1 + math.sqrt(2)) / 2
"""The inverse temperature K = J / T at which the infinite lattice orders."""
CHAINS = 8

SAMPLERS: dict[str, Sampler] = {"SwendsenWang": SwendsenWang(), "Gibbs": Gibbs()}


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


def kaufman(K: Tensor, rows: int, columns: int) -> Tensor:
    """ln Z of a torus of an even number of rows and columns (Kaufman 1949), as its free fermions add up.

    Z = ½ (2 sinh 2K)^(rows · columns / 2) · (the sum of four products over the modes γ of both boundary conditions).
    """
    mode = math.pi / rows * torch.arange(2 * rows, dtype=torch.float64)
    shown = torch.cosh(2 * K) / torch.tanh(2 * K) - torch.cos(mode)
    gamma = torch.cat(((2 * K + torch.log(torch.tanh(K)))[None], torch.acosh(shown[1:])))  # the first may be negative
    half = columns / 2 * gamma
    cosh = half.abs() + torch.log1p(torch.exp(-2 * half.abs()))  # ln 2 cosh
    parts = [cosh[k::2].sum() + torch.log1p(torch.tanh(half[k::2]).prod()) for k in (0, 1)]
    return rows * columns / 2 * torch.log(2 * torch.sinh(2 * K)) + torch.logsumexp(torch.stack(parts), 0) - math.log(2)


def kaufman_energy(K: float) -> float:
    """The energy per site of the torus, in units of J."""
    at = torch.tensor(K, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(kaufman(at, SIDE, SIDE), at)
    return -slope.item() / SIDE**2


def yang_magnetisation(K: float) -> float:
    return (1 - math.sinh(2 * K) ** -4) ** 0.125


@cache
def results(name: str, K: float) -> tuple[Tensor, ...]:
    """What :func:`measured` finds; once for all tests."""
    p, edges = torus(K)
    sampler = SAMPLERS[name]
    single = 2400 if K == CRITICAL else 300  # single spins are slow there
    sweeps, every = (100, 1) if name == "SwendsenWang" else (single, 5)
    return measured(p, edges, sampler, started(p, sampler, K), sweeps, every)


def test_kaufmans_formula() -> None:
    """Against elimination on a narrow torus, in value and slope, on both sides of the critical point; as published."""
    at = torch.arange(24).reshape(4, 6)
    edges = torch.cat([torch.stack((at, at.roll(-1, axis)), -1).reshape(-1, 2) for axis in (0, 1)])
    g = lnz.FactorGraph.pairwise(24, 2, edges)
    spins = torch.tensor([[1.0, -1], [-1, 1]], dtype=torch.float64)
    for value in (0.3, CRITICAL, 0.6):
        K = torch.tensor(value, dtype=torch.float64, requires_grad=True)
        exact = lnz.MRF(g, (torch.zeros(2, dtype=torch.float64), K * spins)).log_partition
        closed = kaufman(K, 4, 6)
        torch.testing.assert_close(closed, exact, rtol=1e-12, atol=1e-9)
        torch.testing.assert_close(*(torch.autograd.grad(v, K)[0] for v in (closed, exact)), rtol=1e-9, atol=1e-9)
    published = {(4, CRITICAL): 15.521915459, (8, CRITICAL): 60.141780789, (4, 0.3): 12.785523326}
    for (side, value), ln_z in published.items():
        assert kaufman(torch.tensor(value, dtype=torch.float64), side, side).item() == pytest.approx(ln_z, abs=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("K", [0.5, CRITICAL, 0.38], ids=["below", "at", "above"])
def test_magnetisation_and_energy(name: str, K: float) -> None:
    m, _, energy = results(name, K)
    error = energy.std() / math.sqrt(CHAINS)
    assert abs(energy.mean() - kaufman_energy(K)) < 4 * error
    assert error < 0.01
    if K > CRITICAL:
        assert abs(m.mean() - yang_magnetisation(K)) < 4 * m.std() / math.sqrt(CHAINS)
        assert m.std() / math.sqrt(CHAINS) < 0.004
    elif K < CRITICAL:
        assert m.mean() < 0.12  # 0 but for the finite lattice, whose correlations reach 6 sites


@pytest.mark.slow
def test_both_samplers_agree_on_the_magnetisation_at_the_critical_point() -> None:
    squares = [results(name, CRITICAL)[1] for name in SAMPLERS]
    errors = [square.std() / math.sqrt(CHAINS) for square in squares]
    assert abs(squares[0].mean() - squares[1].mean()) < 4 * math.hypot(*errors)
    assert max(errors) < 0.08
