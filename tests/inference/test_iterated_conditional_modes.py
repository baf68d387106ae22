"""Iterated conditional modes: local optima, blocks solved exactly, starts whose bound is kept."""

from __future__ import annotations

import random

import pytest
import torch

import lnz
from lnz.inference import TRWS, IteratedConditionalModes
from lnz.inference.exact.elimination import interaction_graph
from lnz.inference.map.blocks import improved, random_block
from lnz.inference.map.labellings import best_of
from tests.modes import check, random_model


@pytest.mark.parametrize("seed", range(10))
def test_no_single_change_is_better(seed):
    p = random_model(seed)
    check(p, IteratedConditionalModes(restarts=2))
    y = lnz.MRF(p.graph, p.scores, IteratedConditionalModes(seed=seed)).argmax()
    for node, card in enumerate(p.graph.cardinalities):
        for label in range(card):
            moved = y.clone()
            moved[node] = label
            assert p.score(moved) <= p.score(y) + 1e-12


@pytest.mark.parametrize("seed", range(6))
def test_a_block_of_all_nodes_is_exact(seed):
    p = random_model(seed, batch=(2,))
    method = IteratedConditionalModes(block_table=4**6)
    q = lnz.MRF(p.graph, p.scores, method)
    exact = lnz.MRF(p.graph, p.scores)
    torch.testing.assert_close(p.score(q.argmax()), p.score(exact.argmax()))
    assert q.diagnostics["blocks"] == 1


@pytest.mark.parametrize("seed", range(3))
def test_blocks_never_make_it_worse_and_keep_the_bound(seed):
    generator = torch.Generator().manual_seed(seed)
    graph = lnz.FactorGraph.grid(8, 8, 2)
    entries = tuple(
        2 * torch.randn(f, *ls, generator=generator, dtype=torch.float64)
        for f, ls in zip(graph.num_factors, graph.labels, strict=True)
    )
    observed = torch.full((64,), -100)
    observed[5] = 1
    scores = []
    for method in (TRWS(), IteratedConditionalModes(0, TRWS(), block_table=8, patience=5)):
        p = lnz.MRF(graph, entries, method).condition(observed)
        y = p.argmax()
        scores.append(p.score(y))
        assert y[5] == 1
    assert scores[1] >= scores[0]
    assert p.diagnostics["bound"] >= scores[1] - 1e-9
    exact = lnz.MRF(graph, entries).condition(observed)
    assert exact.score(exact.argmax()) <= p.diagnostics["bound"] + 1e-9
    assert scores[1] >= exact.score(exact.argmax()) - 1.0


def test_blocks_keep_within_their_tables():
    graph = lnz.FactorGraph.grid(10, 10, 3)
    neighbours = interaction_graph(100, graph.scopes[1].tolist())
    order, held = random_block(neighbours, graph.cardinalities, range(100), 81, random.Random(0))
    assert order.largest <= 81
    assert set(order.nodes) | held == set(range(100))
    assert not set(order.nodes) & held
    for node, later in zip(order.nodes, order.later, strict=True):
        assert not held & set(later)
        assert graph.cardinalities[node] * 3 ** len(later) <= 81


def test_starts_from_a_method():
    p = random_model(4)
    trws = lnz.MRF(p.graph, p.scores, TRWS())
    trws.argmax()
    q = lnz.MRF(p.graph, p.scores, IteratedConditionalModes(restarts=0, start=TRWS()))
    q.argmax()
    assert q.diagnostics["bound"] == trws.diagnostics["bound"]
    assert q.diagnostics["score"] >= trws.diagnostics["score"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"restarts": 0}, "restarts: expected a positive integer, or 0 with a start, got 0"),
        ({"block_table": 0}, "block_table: expected None or a positive integer, got 0"),
        ({"patience": 0}, "patience: expected a positive integer, got 0"),
    ],
)
def test_wrong_settings(wrong, message):
    with pytest.raises(ValueError, match=message):
        IteratedConditionalModes(**wrong)
    with pytest.raises(TypeError, match="start: expected a method"):
        IteratedConditionalModes(start=torch.zeros(3))  # type: ignore[arg-type]


@pytest.mark.parametrize("place", [0, 1, 2])
def test_the_best_start_counts_wherever_it_stands(place):
    graph = lnz.FactorGraph.pairwise(2, 2, torch.tensor([[0, 1]]))
    model = lnz.MRF(graph, (torch.zeros(2, 2), torch.tensor([[1.0, -1.0], [-1.0, 2.0]]))).model
    labels = torch.zeros(3, 2, dtype=torch.int64)
    labels[place] = 1
    assert best_of(model, labels).tolist() == [1, 1]


def test_patience_counts_blocks_that_gain_nothing():
    """At a best labelling no block gains: ``patience`` blocks are tried, and one if it is all there is."""
    p = lnz.MRF(lnz.FactorGraph.grid(4, 4, 2), (torch.zeros(16, 2).double(), torch.eye(2).double()))
    for patience in (1, 4):
        method = IteratedConditionalModes(0, TRWS(), block_table=8, patience=patience)
        q = lnz.MRF(p.graph, p.scores, method)
        q.argmax()
        assert q.diagnostics["optimal"]
        assert q.diagnostics["blocks"] == patience


def test_patience_counts_blocks_that_gain_nothing_in_any_batch_entry():
    """Beside an entry that is best already, another one goes on as it would alone."""
    graph, generator = lnz.FactorGraph.grid(4, 5, 3), torch.Generator().manual_seed(0)
    node = torch.randn(20, 3, generator=generator, dtype=torch.float64)
    p = lnz.MRF(graph, (node, torch.randn(3, 3, generator=generator, dtype=torch.float64)))
    best, start = p.argmax(), torch.zeros(20, dtype=torch.int64)
    alone, tried = improved(p.model, start, 27, 3, 0)
    labels, both = improved(p.model.expand((2,)), torch.stack((best, start)), 27, 3, 0)
    assert tried > 3
    assert both == tried
    assert torch.equal(labels, torch.stack((best, alone)))
