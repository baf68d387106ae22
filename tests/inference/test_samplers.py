"""Every sampler through the shared suite."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lnz.inference import (
    DiscreteLangevin,
    Gibbs,
    GibbsWithGradients,
    HamiltonianMonteCarlo,
    MetropolisHastings,
    ParallelTempering,
    SwendsenWang,
)
from lnz.ops.conditionals.random import uniform
from lnz.scores import Model
from tests.sampler_suite import MODELS, SamplerSuite, draws

SETTINGS: dict[str, Any] = {"chains": 64, "warmup": 20, "sweeps": 60}


class TestGibbs(SamplerSuite):
    sampler = Gibbs(**SETTINGS)


class TestSystematicGibbs(SamplerSuite):
    sampler = Gibbs("systematic", **SETTINGS)


class TestRandomGibbs(SamplerSuite):
    sampler = Gibbs("random", **SETTINGS)
    reversible = True


class TestTreeGibbs(SamplerSuite):
    sampler = Gibbs("tree", **SETTINGS)


class TestMetropolisHastings(SamplerSuite):
    sampler = MetropolisHastings(chains=64, warmup=20, sweeps=400)
    reversible = True


class TestChromaticMetropolisHastings(SamplerSuite):
    sampler = MetropolisHastings(order="chromatic", chains=64, warmup=20, sweeps=400)


def two_at_once(model: Model, labels: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """Draws node 0 and another anew from lopsided distributions, so that the ratio of proposals matters."""
    cards = torch.tensor(model.graph.cardinalities)
    pair = torch.tensor([0, model.graph.num_nodes - 1])
    weights = torch.arange(1, int(cards.max()) + 1).double() * (torch.arange(int(cards.max())) < cards[pair, None])
    log_q = (weights / weights.sum(-1, keepdim=True)).log()
    u = uniform((*labels.shape[:-1], 2), log_q, generator)
    drawn = (u[..., None] >= log_q.exp().cumsum(-1)).sum(-1).minimum(cards[pair] - 1)

    def log_probability(y: Tensor) -> Tensor:
        return log_q[torch.arange(2), y].sum(-1)

    # half of the time a single node far from both, uniformly: symmetric
    middle = labels.clone()
    node = min(1, model.graph.num_nodes - 1)
    v = uniform((*labels.shape[:-1], 2), log_q, generator)
    rest = torch.tensor([n for n in range(model.graph.num_nodes) if n not in pair.tolist()] or [node])
    chosen = rest[(v[..., 0] * len(rest)).long()]
    fresh = (v[..., 1] * cards[chosen]).long()
    middle.scatter_(-1, chosen[..., None], fresh[..., None])
    outer = labels.clone()
    outer[..., pair] = drawn
    coin = uniform(labels.shape[:-1], log_q, generator) < 0.5
    back = log_probability(labels[..., pair]) - log_probability(drawn)
    return torch.where(coin[..., None], outer, middle), torch.where(coin, back, 0.0)


class TestMetropolisHastingsWithProposals(SamplerSuite):
    sampler = MetropolisHastings(two_at_once, chains=64, warmup=40, sweeps=1200)
    reversible = True
    mixes_within = 100


class TestGibbsWithGradients(SamplerSuite):
    sampler = GibbsWithGradients(proposals=2, chains=64, warmup=20, sweeps=600)
    reversible = True
    mixes_within = 40


class TestDiscreteLangevin(SamplerSuite):
    sampler = DiscreteLangevin(1.0, chains=64, warmup=20, sweeps=600)
    reversible = True
    mixes_within = 80


class TestHamiltonianMonteCarlo(SamplerSuite):
    sampler = HamiltonianMonteCarlo(0.6, 3, chains=64, warmup=20, sweeps=400)
    serves = frozenset(MODELS) - {"ternary", "impossible"}
    reversible = True  # as a sweep from labels alone, which draws u, moves it, and draws the labels
    draws = 2000
    mixes_within = 50


class TestSwendsenWang(SamplerSuite):
    sampler = SwendsenWang(**SETTINGS)
    serves = frozenset({"potts", "potts_observed"})
    reversible = True


class TestParallelTempering(SamplerSuite):
    sampler = ParallelTempering((1.0, 1.7, 3.0), **SETTINGS)

    def carried(self, name: str, n: int) -> dict[str, Tensor]:
        """The replicas, each from the distribution of its own temperature."""
        return {"replicas": torch.stack([draws(name, n, 5, 1.7), draws(name, n, 6, 3.0)])}
