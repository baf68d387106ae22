"""Joint draws of forests: the kernel and the reference leave the distribution as it is, and mix within a forest."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import chi2

import lnz
from lnz.ops import backend
from lnz.ops.tree_gibbs.blocks import forest, planned
from lnz.ops.tree_gibbs.op import forest_moves, tree_sweeps
from tests.modes import random_model

CHAINS = 2000


def fits(p: lnz.MRF, labels: torch.Tensor, temperature: float = 1.0) -> bool:
    """Whether joint labels are distributed as under ``p`` (chi-square, at a level of 1e-4); none is impossible."""
    cards = torch.tensor(p.graph.cardinalities)
    strides = torch.tensor([math.prod(p.graph.cardinalities[n + 1 :]) for n in range(len(cards))])
    every = torch.arange(int(cards.prod()))[:, None] // strides % cards
    expected = (p.score(every) / temperature).softmax(0) * len(labels)
    counts = torch.bincount((labels * strides).sum(-1), minlength=len(every)).double()
    assert counts[expected == 0].sum() == 0
    order = expected.argsort(descending=True)
    bins = (expected[order].cumsum(0) / 20).long().minimum((expected.sum() / 20).long() - 1)  # of at least some 20
    e, c = (torch.zeros(int(bins.max()) + 1).double().index_add_(0, bins, v[order]) for v in (expected, counts))
    e, c = e[e > 0], c[e > 0]
    return len(e) == 1 or float(chi2.sf(float(((c - e) ** 2 / e).sum()), len(e) - 1)) > 1e-4


@pytest.mark.parametrize("name", ["auto", "reference"])
@pytest.mark.parametrize("seed", [0, 2, 3, 4])
def test_moves_keep_the_distribution(seed, name):
    p = random_model(seed, impossible=0.06 * (seed > 2))
    generator = torch.Generator().manual_seed(seed)
    exact = p.sample((CHAINS,), generator)
    assert fits(p, exact)
    with backend(name):
        assert fits(p, forest_moves(p.model, exact, [1.0] * 3, generator))
        assert fits(p, tree_sweeps(p.model, exact, 2, generator))


@pytest.mark.parametrize("name", ["auto", "reference"])
def test_a_graph_that_is_a_forest_is_drawn_at_once(name):
    """Whatever the labels before, and at any temperature; two factors join the same nodes, and one takes three."""
    graph, _ = lnz.FactorGraph.grouped([3, 2, 3, 2], [[0, 1], [1, 0], [1, 2], [0], [2, 3]])
    generator = torch.Generator().manual_seed(3)
    entries = [
        torch.randn(f, *ls, generator=generator, dtype=torch.float64)
        for f, ls in zip(graph.num_factors, graph.labels, strict=True)
    ]
    p = lnz.MRF(graph, entries)
    start = torch.zeros(CHAINS, 4, dtype=torch.int64)
    with backend(name):
        assert fits(p, forest_moves(p.model, start, [1.0], generator))
        assert fits(p, forest_moves(p.model, start, [0.5], generator), 0.5)
        assert fits(p, tree_sweeps(p.model, start, 1, generator))


def test_observed_labels_and_batch_entries_keep_apart():
    p = random_model(1, batch=(2,))
    observed = torch.full((2, p.graph.num_nodes), -100)
    observed[0, 0], observed[1, 1] = p.graph.cardinalities[0] - 1, 0
    q = p.condition(observed)
    generator = torch.Generator().manual_seed(0)
    start = q.sample((CHAINS,), generator)
    moved = forest_moves(q.model, start, [1.0] * 2, generator)
    assert (moved[:, 0, 0] == observed[0, 0]).all()
    assert (moved[:, 1, 1] == observed[1, 1]).all()
    for entry in range(2):
        one = lnz.MRF(p.graph, [s[entry] if s.dim() > len(ls) + 1 else s for s, ls in _entries(p)])
        assert fits(one.condition(observed[entry]), moved[:, entry])


def _entries(p: lnz.MRF):
    return [
        (s.expand() if isinstance(s, lnz.Weighted) else s, ls) for s, ls in zip(p.scores, p.graph.labels, strict=True)
    ]


def test_a_random_forest_of_a_grid_holds_most_nodes():
    graph = lnz.FactorGraph.grid(20, 20, 2)
    order = torch.randperm(400, generator=torch.Generator().manual_seed(0)).tolist()
    nodes, rest = forest(graph, order)
    assert sorted(nodes + rest) == list(range(400))
    assert 0.6 < len(nodes) / 400 < 0.7
    planned(graph, nodes, torch.device("cpu"))  # refuses what is no forest
