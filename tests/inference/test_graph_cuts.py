"""Graph cuts: exact for two attracting labels, expansion within its guarantee, refusals that name the factor."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import maximum_flow

import lnz
from lnz.inference import Enumeration, GraphCuts
from lnz.inference.map.min_cut import min_cut
from tests.modes import check


def attractive(seed: int, batch: tuple[int, ...] = (), impossible: float = 0.0) -> lnz.MRF:
    drawn, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    nodes = drawn.randint(2, 8)
    pairs = [pair for pair in itertools.combinations(range(nodes), 2) if drawn.random() < 0.6]
    graph = lnz.FactorGraph.pairwise(nodes, 2, torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2))
    node = 3 * torch.randn(*batch, nodes, 2, generator=generator, dtype=torch.float64)
    edge = torch.randn(*batch, len(pairs), 2, 2, generator=generator, dtype=torch.float64)
    edge[..., 0, 1] += (edge[..., 0, 0] + edge[..., 1, 1] - edge[..., 0, 1] - edge[..., 1, 0]).clamp(max=0)
    hidden = torch.rand(edge.shape[:-2], generator=generator) < impossible
    edge[..., 0, 1] = edge[..., 0, 1].masked_fill(hidden, -torch.inf)
    return lnz.MRF(graph, (node, edge))


@pytest.mark.parametrize("seed", range(20))
def test_two_attracting_labels_are_solved(seed):
    check(attractive(seed, (2,) if seed % 3 == 0 else (), 0.3 * (seed % 2)), GraphCuts(), exact=True)


def test_observed_labels_are_kept():
    p = attractive(5)
    check(p.condition(torch.tensor([1] + [-100] * (p.graph.num_nodes - 1))), GraphCuts(), exact=True)


def potts(seed: int, labels: int) -> lnz.MRF:
    generator = torch.Generator().manual_seed(seed)
    graph = lnz.FactorGraph.grid(2, 4, labels)
    node = -3 * torch.rand(8, labels, generator=generator, dtype=torch.float64)
    weight = 2 * torch.rand(graph.num_factors[1], generator=generator, dtype=torch.float64)
    table = torch.eye(labels, dtype=torch.float64) - 1
    return lnz.MRF(graph, (node, lnz.Weighted(weight, table)), GraphCuts())


@pytest.mark.parametrize("seed", range(10))
def test_expansion_on_potts_scores_is_within_a_factor_of_two(seed):
    p = potts(seed, 4)
    best = lnz.MRF(p.graph, p.scores, Enumeration())
    energy, least = -p.score(p.argmax()), -best.score(best.argmax())
    assert least - 1e-9 <= energy <= 2 * least
    assert p.diagnostics["bound"] == torch.inf


def test_no_single_expansion_makes_it_better():
    p = potts(3, 3)
    y = p.argmax()
    for label in range(3):
        for change in itertools.product((False, True), repeat=8):
            moved = torch.where(torch.tensor(change), label, y)
            assert p.score(moved) <= p.score(y) + 1e-9


def test_a_factor_that_repels_is_named():
    graph = lnz.FactorGraph.pairwise(3, 2, torch.tensor([[0, 1], [2, 1]]))
    edge = torch.stack((torch.eye(2), -torch.eye(2)))
    with pytest.raises(ValueError, match=r"the factor of nodes \[1, 2\] has s\(0,0\) \+ s\(1,1\) <.*truncate=True"):
        lnz.MRF(graph, (torch.zeros(3, 2), edge), GraphCuts()).argmax()


@pytest.mark.parametrize("seed", range(6))
def test_truncated_moves_never_make_it_worse(seed):
    generator = torch.Generator().manual_seed(seed)
    graph = lnz.FactorGraph.grid(2, 3, 3)
    node, edge = torch.randn(6, 3, generator=generator), torch.randn(7, 3, 3, generator=generator)
    p = lnz.MRF(graph, (node.double(), edge.double()))
    optimal = check(p, GraphCuts(truncate=True))
    assert not optimal.any()
    cut = lnz.MRF(p.graph, p.scores, GraphCuts(truncate=True))
    assert p.score(cut.argmax()) >= p.score(node.argmax(-1)) - 1e-9


def test_larger_factors_are_refused():
    graph = lnz.FactorGraph((2, 2, 2), (torch.tensor([[0, 1, 2]]),))
    with pytest.raises(ValueError, match="expected factors of at most two nodes, got 3 in group 0; TRWS"):
        lnz.MRF(graph, (torch.zeros(1, 2, 2, 2),), GraphCuts()).argmax()


def test_wrong_settings():
    with pytest.raises(ValueError, match="max_rounds: expected a positive integer, got 0"):
        GraphCuts(max_rounds=0)


@pytest.mark.parametrize("seed", range(8))
def test_minimum_cuts_of_real_capacities(seed):
    drawn = np.random.default_rng(seed)
    nodes = 7
    pairs = np.array([pair for pair in itertools.permutations(range(nodes), 2) if drawn.random() < 0.5])
    capacity = drawn.exponential(size=len(pairs)) * 10.0 ** drawn.integers(-3, 4, len(pairs))
    to_sink = drawn.normal(size=nodes) * 10

    def value(beyond: np.ndarray) -> float:
        across = ~beyond[pairs[:, 0]] & beyond[pairs[:, 1]]
        return float(
            capacity[across].sum() - to_sink[beyond & (to_sink < 0)].sum() + to_sink[~beyond & (to_sink > 0)].sum()
        )

    beyond, found, gap = min_cut(pairs[:, 0], pairs[:, 1], capacity, to_sink)
    least = min(value(np.array(side)) for side in itertools.product((False, True), repeat=nodes))
    assert value(beyond) == pytest.approx(least, rel=1e-12)
    assert found == pytest.approx(least, rel=1e-12)
    assert found - gap <= least * (1 + 1e-12)


def test_whole_capacities_take_one_flow():
    tail, head = np.array([0, 1]), np.array([1, 2])
    beyond, value, gap = min_cut(tail, head, np.array([3.0, 2.0]), np.array([-4.0, 0.0, 5.0]))
    graph = coo_array((np.array([3, 2, 4, 5], dtype=np.int32), ([0, 1, 3, 2], [1, 2, 0, 4])), shape=(5, 5)).tocsr()
    assert value == maximum_flow(graph, 3, 4).flow_value
    assert gap == 0
    assert beyond.tolist() == [False, False, True]


@pytest.mark.parametrize("labels", [3, 4, 6])
def test_a_round_is_over_when_every_label_has_failed_since_the_last_gain(labels):
    """Alone the two nodes differ; only the last label, tried last, brings them together."""
    graph = lnz.FactorGraph.pairwise(2, labels, torch.tensor([[0, 1]]))
    node = torch.full((2, labels), -5.0, dtype=torch.float64)
    node[0, 0] = node[1, 1] = 0.0
    node[:, -1] = -0.1
    p = lnz.MRF(graph, (node, torch.eye(labels, dtype=torch.float64)), GraphCuts())
    assert p.argmax().tolist() == [labels - 1, labels - 1]
    assert p.diagnostics["cuts"] == 2 * labels
    one = lnz.MRF(graph, p.scores, GraphCuts(max_rounds=1))
    assert one.argmax().tolist() == [labels - 1, labels - 1]
    assert one.diagnostics["cuts"] == labels


@pytest.mark.parametrize("offset", [-1e6, 1e6])
def test_a_bound_is_never_below_the_score_that_it_bounds(offset):
    """By as much as sums of this size are rounded, and not by more."""
    p = attractive(7)
    q = lnz.MRF(p.graph, (p.scores[0] + offset, p.scores[1]), GraphCuts())
    q.argmax()
    found = q.diagnostics
    assert 0 <= found["bound"] - found["score"] <= 2e-9 * found["score"].abs()


def test_the_bound_holds_what_no_label_changes():
    """Factors of no node: a constant of all scores, and of the bound."""
    graph, _ = lnz.FactorGraph.grouped([2, 2], [[], [0], [1], [0, 1]])
    p = attractive(3)
    for constant in (5.0, -7.0):
        entries = torch.tensor([constant]).double(), torch.randn(2, 2).double(), p.scores[1][:1].double()
        q = lnz.MRF(graph, entries, GraphCuts())
        q.argmax()
        assert q.diagnostics["bound"] == pytest.approx(float(q.diagnostics["score"]))
        assert q.diagnostics["optimal"]
