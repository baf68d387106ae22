"""Metropolis sweeps: their law on all states by every order, what they count, and what they keep."""

import math

import pytest
import torch

import lnz
from lnz.ops import backend
from lnz.ops.metropolis.op import metropolis_sweeps
from lnz.scores import Weighted, checked_model, observe
from tests.ops.test_gibbs import _assert_law, _generator, _random, _start, _states

ORDERS = ["random", "systematic", "chromatic"]


def mixed(dtype=torch.float64):
    """Two to four labels, factors of up to three nodes, a weighted table, an impossible label and a batch."""
    scopes = [[[0], [1]], [[0, 2], [1, 2]], [[0, 1, 2]], [[3, 0]]]
    graph = lnz.FactorGraph((2, 2, 3, 4), [torch.tensor(scope) for scope in scopes])
    node = _random(2, 2, 2, dtype=dtype)
    node[1, 0, 1] = -math.inf
    weighted = Weighted(_random(2, 1, seed=3, dtype=dtype).abs(), _random(4, 2, seed=4, dtype=dtype))
    entries = (node, _random(2, 3, seed=1, dtype=dtype), _random(2, 1, 2, 2, 3, seed=2, dtype=dtype), weighted)
    return checked_model(graph, entries)


@pytest.mark.parametrize("which", ["auto", "reference"])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_law(which, order, dtype):
    n = 4000 if which == "auto" else 1000
    with backend(which):
        model = mixed(dtype)
        _assert_law(model, metropolis_sweeps(model, _start(model, n), 40, _generator(), order)[0])


@pytest.mark.parametrize("order", ORDERS)
def test_as_many_proposals_are_accepted_as_the_stationary_law_says(order):
    """Of a uniform proposal at a uniform node: Σ_y P(y) mean_n mean_l min(1, P(y with y_n = l) / P(y))."""
    model = mixed()
    states = _states(model)
    score = torch.stack([model.score(y) for y in states], -1).expand(2, -1)
    law, rate = score.softmax(-1), torch.zeros(2, len(states))
    for i, y in enumerate(states):
        for node, card in enumerate(model.graph.cardinalities):
            for label in range(card):
                other = y.clone()
                other[node] = label
                gain = (model.score(other) - score[:, i]).nan_to_num(-math.inf)
                rate[:, i] += gain.exp().clamp(max=1) / card / 4
    expected = (law * rate).sum(-1)
    for which, n in (("auto", 4000), ("reference", 400)):
        with backend(which):
            labels = metropolis_sweeps(model, _start(model, n), 20, _generator(), order)[0]
            accepted = metropolis_sweeps(model, labels, 20, _generator(1), order)[1]
        share = accepted / (20 * 4)
        assert accepted.shape == (n, 2)
        assert ((share.mean(0) - expected).abs() < 5 * share.std(0) / n**0.5 + 1e-3).all()


@pytest.mark.parametrize("which", ["auto", "reference"])
@pytest.mark.parametrize("order", ORDERS)
def test_observed_nodes_stay_and_what_is_given_is_left_alone(which, order):
    model = observe(mixed(), torch.tensor([[-100, 1, -100, -100], [0, -100, -100, 3]]))
    start = _start(model, 50)
    before = start.clone()
    with backend(which):
        moved, accepted = metropolis_sweeps(model, start, 30, _generator(), order)
        again, _ = metropolis_sweeps(model, start, 30, _generator(), order)
        same, none = metropolis_sweeps(model, start, 0, _generator(), order)
    assert torch.equal(start, before)
    assert torch.equal(moved, again)
    assert (moved[:, 0, 1] == 1).all()
    assert (moved[:, 1, [0, 3]] == torch.tensor([0, 3])).all()
    assert accepted.min() > 0
    if order != "random":
        assert (accepted <= torch.tensor([30 * 3, 30 * 2])).all()  # as many as there are free nodes, each sweep
    assert torch.equal(same, start)
    assert (none == 0).all()


def test_threads_draw_the_same():
    graph = lnz.FactorGraph.grid(70, 70, 3)
    model = checked_model(graph, (_random(4900, 3), _random(3, 3, seed=1)))
    threads = torch.get_num_threads()
    drawn = []
    try:
        for count in (1, 2, 4):
            torch.set_num_threads(count)
            drawn.append(metropolis_sweeps(model, torch.zeros(1, 4900).long(), 3, _generator(), "chromatic"))
    finally:
        torch.set_num_threads(threads)
    for labels, accepted in drawn[1:]:
        assert torch.equal(labels, drawn[0][0])
        assert torch.equal(accepted, drawn[0][1])
