"""Transition matrices, written out: π T = π and detailed balance to rounding, and the samplers follow them."""

from __future__ import annotations

import itertools

import pytest
import torch
from scipy.stats import chi2
from torch import Tensor

import lnz
from lnz.inference import DiscreteLangevin, Gibbs, GibbsWithGradients, MetropolisHastings, Sampler, SwendsenWang
from lnz.inference.sampling.discrete_langevin import log_proposal
from lnz.inference.sampling.gibbs_with_gradients import changes
from lnz.inference.sampling.swendsen_wang import potts_weights
from lnz.ops.conditionals.reference import label_scores
from lnz.ops.conditionals.sites import schedule
from tests.suite import random_scores

CARDS = (2, 3, 2)


def ternary() -> lnz.MRF:
    g = lnz.FactorGraph(CARDS, [torch.tensor([[0, 1, 2]]), torch.tensor([[2, 0]]), torch.tensor([[1]])])
    return lnz.MRF(
        g, (random_scores((1, 2, 3, 2), 1, impossible=0.1), random_scores((2, 2), 2), random_scores((3,), 3))
    )


def square() -> lnz.MRF:
    weight = lnz.Weighted(random_scores((4,), 4).abs() / 2, torch.eye(2).double())
    return lnz.MRF(lnz.FactorGraph.grid(2, 2, 2), (random_scores((4, 2), 5), weight))


def states_of(p: lnz.MRF) -> tuple[Tensor, Tensor]:
    """All labellings ``[K, N]`` and their probabilities."""
    states = torch.tensor(list(itertools.product(*map(range, p.graph.cardinalities))))
    return states, p.score(states).softmax(0)


def differ(states: Tensor) -> Tensor:
    """How many nodes differ between each two states, ``[K, K]``."""
    return (states[:, None] != states).sum(-1)


def metropolis(q: Tensor, pi: Tensor) -> Tensor:
    """The matrix of proposals ``q`` accepted by Metropolis and Hastings; impossible states stay where they are."""
    forth, back = pi[:, None] * q, (pi[:, None] * q).T
    accept = torch.where(forth > 0, (back / forth.clamp(min=1e-300)).clamp(max=1.0), 0.0)
    T = (q * accept).fill_diagonal_(0.0)
    return T + torch.diag(1 - T.sum(1))


def gibbs_node(p: lnz.MRF, states: Tensor, node: int) -> Tensor:
    """The matrix that redraws one node."""
    conditional = label_scores(p.model, states)[:, node].softmax(-1)
    same = (states[:, None] == states)[..., [n for n in range(states.shape[1]) if n != node]].all(-1)
    return torch.where(same, conditional[:, states[:, node]], 0.0).nan_to_num(0.0)


def gibbs(p: lnz.MRF) -> Tensor:
    states, _ = states_of(p)
    visit = torch.stack([gibbs_node(p, states, n) for n in range(states.shape[1])]).mean(0)
    return torch.linalg.matrix_power(visit, states.shape[1])


def metropolis_hastings(p: lnz.MRF) -> Tensor:
    states, pi = states_of(p)
    cards = torch.tensor(p.graph.cardinalities).double()
    single = differ(states) == 1
    node = (states[:, None] != states).int().argmax(-1)
    q = torch.where(single, 1 / cards[node] / len(cards), 0.0)
    return torch.linalg.matrix_power(metropolis(q, pi), len(cards))


def with_gradients(p: lnz.MRF) -> Tensor:
    states, pi = states_of(p)
    q = changes(p.model, states)[1].exp()
    node = (states[:, None] != states).int().argmax(-1)
    label = states[torch.arange(len(states))[None].expand_as(node), node]
    row = torch.arange(len(states))[:, None].expand_as(node)
    q = torch.where((differ(states) == 1), q[row, node, label], 0.0)
    return metropolis(torch.where(pi[:, None] > 0, q, 0.0), pi)


def langevin(p: lnz.MRF) -> Tensor:
    states, pi = states_of(p)
    log_q = log_proposal(p.model, states, 0.7)
    q = torch.stack([log_q.gather(-1, y.expand(len(states), -1)[..., None]).squeeze(-1).sum(-1) for y in states], 1)
    return metropolis(torch.where(pi[:, None] > 0, q.exp(), 0.0), pi)


def swendsen_wang(p: lnz.MRF) -> Tensor:
    """Over all sets of open edges: the probability of the set, and of the labels given its clusters."""
    states, _ = states_of(p)
    edges, weight = potts_weights(p.model)
    fields = p.model.expanded(0)
    T = torch.zeros(len(states), len(states), dtype=torch.float64)
    for opened in itertools.product((False, True), repeat=len(edges)):
        chosen = torch.tensor(opened)
        equal = states[:, edges[:, 0]] == states[:, edges[:, 1]]
        factor = torch.where(
            chosen, torch.where(equal, 1 - (-weight).exp(), 0.0), torch.where(equal, (-weight).exp(), 1.0)
        )
        fits = equal[:, chosen].all(-1)  # every cluster has one label
        field = fields[torch.arange(states.shape[1]), states].sum(-1).masked_fill(~fits, -torch.inf)
        T += factor.prod(-1)[:, None] * field.softmax(0)
    return T


CASES = {
    "Gibbs": (Gibbs("random"), gibbs, ternary),
    "MetropolisHastings": (MetropolisHastings(), metropolis_hastings, ternary),
    "GibbsWithGradients": (GibbsWithGradients(), with_gradients, ternary),
    "DiscreteLangevin": (DiscreteLangevin(0.7), langevin, ternary),
    "SwendsenWang": (SwendsenWang(), swendsen_wang, square),
}


@pytest.mark.parametrize("case", CASES)
def test_the_matrix_is_reversible_and_keeps_the_distribution(case: str) -> None:
    _, matrix, model = CASES[case]
    p = model()
    _, pi = states_of(p)
    T = matrix(p)
    possible = pi > 0
    assert (~possible).any() or model is square
    torch.testing.assert_close(T[possible].sum(1), torch.ones(int(possible.sum())).double())
    torch.testing.assert_close(pi @ T, pi, rtol=0, atol=1e-12)
    flow = pi[:, None] * T
    torch.testing.assert_close(flow, flow.T, rtol=0, atol=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_the_sampler_follows_the_matrix(case: str, generator: torch.Generator) -> None:
    sampler, matrix, model = CASES[case]
    p = model()
    states, pi = states_of(p)
    T, n = matrix(p), 3000
    possible = (pi > 0).nonzero().flatten()
    start = states[possible].repeat_interleave(n, 0)
    after = step(sampler, p, start, generator)
    index = (after[:, None] == states).all(-1).int().argmax(-1).reshape(len(possible), n)
    counts = torch.stack([torch.bincount(row, minlength=len(states)) for row in index]).double()
    expected = n * T[possible]
    assert (counts[expected < 1e-9] == 0).all()
    kept = expected >= 5
    statistic = ((counts - expected)[kept] ** 2 / expected[kept]).sum()
    assert chi2.sf(statistic, int(kept.sum()) - len(possible)) > 1e-4


def step(sampler: Sampler, p: lnz.MRF, start: Tensor, generator: torch.Generator) -> Tensor:
    return sampler.step(p.model, sampler.init(p.model, len(start), generator, start), 1, generator).labels


@pytest.mark.parametrize("order", ["chromatic", "systematic"])
def test_scans_in_a_fixed_order_keep_the_distribution(order: str, generator: torch.Generator) -> None:
    p = ternary()
    states, pi = states_of(p)
    T = torch.eye(len(states)).double()
    for sites in schedule(p.graph, order, torch.device("cpu")):  # type: ignore[arg-type]
        for node in sites.nodes.tolist():  # no two of which share a factor, so that one after the other is at once
            T = T @ gibbs_node(p, states, node)
    torch.testing.assert_close(pi @ T, pi, rtol=0, atol=1e-12)


def test_the_systematic_order_is_that_of_one_node_after_the_other() -> None:
    g = lnz.FactorGraph.grid(3, 4, 2)
    level = torch.full((12,), -1)
    for i, sites in enumerate(schedule(g, "systematic", torch.device("cpu"))):
        level[sites.nodes] = i
    for a, b in g.scopes[1].tolist():
        assert (level[a] < level[b]) == (a < b)
    assert len(schedule(g, "chromatic", torch.device("cpu"))) == 2
    assert len(schedule(lnz.FactorGraph.grid(3, 4, 2, neighbours=8), "chromatic", torch.device("cpu"))) == 4
