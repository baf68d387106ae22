"""mean field ≤ ln Z ≤ tree-reweighted, on graphs small enough to enumerate, converged or not."""

from __future__ import annotations

import itertools
import random
import warnings

import pytest
import torch
from torch import Tensor

import lnz
from lnz.inference import BeliefPropagation, Enumeration, MeanField, TreeReweighted
from tests.inference.test_belief_propagation import assert_same, random_forest, random_scores

MODELS_PER_GRAPH = 20


def complete(nodes: int, labels: int) -> lnz.FactorGraph:
    return lnz.FactorGraph.pairwise(nodes, labels, torch.tensor(list(itertools.combinations(range(nodes), 2))))


def cycle(nodes: int, labels: int) -> lnz.FactorGraph:
    first = torch.arange(nodes)
    return lnz.FactorGraph.pairwise(nodes, labels, torch.stack((first, (first + 1) % nodes), -1))


def mixed(cards: list[int], scopes: list[list[int]]) -> lnz.FactorGraph:
    return lnz.FactorGraph.grouped(cards, scopes)[0]


GRAPHS = {
    "grid": lnz.FactorGraph.grid(3, 3, 2),
    "diagonal grid": lnz.FactorGraph.grid(2, 4, 2, neighbours=8),
    "complete": complete(6, 2),
    "complete, 3 labels": complete(4, 3),
    "cycle": cycle(5, 3),
    "cards": mixed([2, 3, 1, 4, 2], [[0], [3], [0, 1], [1, 2], [2, 3], [3, 0], [1, 3], [3, 4]]),
    "parallel edges": mixed([2, 2, 3], [[], [0, 1], [0, 1], [1, 0], [1, 2], [2, 0]]),
    "triples": mixed([2, 2, 2, 3, 2], [[0], [1], [0, 1, 2], [1, 2, 3], [2, 3, 4], [0, 4], [3, 4]]),
    "quadruples": mixed([2] * 6, [[0, 1, 2, 3], [2, 3, 4, 5], [0, 1, 4, 5], [0, 5]]),
    "islands": mixed([2] * 7, [[0, 1], [1, 2], [2, 0], [3, 4], [5], [4, 3]]),
}


def random_model(graph: lnz.FactorGraph, seed: int, impossible: float = 0.0) -> list[Tensor]:
    """A batch of models from weak to strong; the couplings of two nodes attract, repel or do either."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.logspace(-1, 0.7, MODELS_PER_GRAPH, dtype=torch.float64)
    entries = []
    for count, labels in zip(graph.num_factors, graph.labels, strict=True):
        draw = torch.randn(MODELS_PER_GRAPH, count, *labels, generator=generator, dtype=torch.float64)
        if len(labels) == 2 and labels[0] == labels[1]:
            kind = torch.arange(MODELS_PER_GRAPH) % 3
            potts = torch.eye(labels[0], dtype=torch.float64) * torch.rand(
                MODELS_PER_GRAPH, count, 1, 1, generator=generator, dtype=torch.float64
            )
            sign = torch.tensor([1.0, -1.0, 0.0], dtype=torch.float64)[kind].reshape(-1, 1, 1, 1)
            draw = torch.where(sign == 0, draw, sign * 2 * potts)
        draw = draw * scale.reshape(-1, *(1,) * (draw.dim() - 1))
        holes = torch.rand(draw.shape, generator=generator) < impossible
        entries.append(draw.masked_fill(holes, -torch.inf) if labels else draw)
    return entries


def assert_between(lower: Tensor, exact: Tensor, upper: Tensor) -> None:
    assert not lower.isnan().any()
    assert not upper.isnan().any()
    assert (lower <= exact + 1e-9).all(), (lower - exact).max()
    assert (exact <= upper + 1e-9).all(), (exact - upper).max()


METHODS = [  # converged, not nearly, and in other ways
    (MeanField(30, 0.0), TreeReweighted(40, 0.0)),
    (MeanField(1, 0.0), TreeReweighted(1, 0.0)),
    (MeanField(3, 0.0, schedule="parallel"), TreeReweighted(4, 0.0, damping=0.5)),
    (MeanField(2, 0.0, damping=0.4), TreeReweighted(10, 0.0, appearance="optimised", steps=3)),
]


@pytest.mark.parametrize("name", GRAPHS)
def test_two_hundred_random_models(name: str) -> None:
    graph = GRAPHS[name]
    scores = random_model(graph, seed=len(name))
    exact = lnz.MRF(graph, scores, Enumeration()).log_partition
    for lower, upper in METHODS:
        below, above = (lnz.MRF(graph, scores, method).log_partition for method in (lower, upper))
        assert_between(below, exact, above)


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("impossible", [0.1, 0.4])
def test_impossible_labels(name: str, impossible: float) -> None:
    graph = GRAPHS[name]
    scores = [entry[::2] for entry in random_model(graph, seed=len(name), impossible=impossible)]
    p = lnz.MRF(graph, scores, Enumeration())
    for upper in (
        TreeReweighted(30, 0.0),
        TreeReweighted(1, 0.0),
        TreeReweighted(5, 0.0, appearance="optimised", steps=3),
    ):
        lower, above = lnz.bounds(p, lower=MeanField(30, 0.0), upper=upper)
        assert_between(lower, p.log_partition, above)
    possible = torch.isfinite(p.log_partition)
    found = torch.isfinite(lower[possible]).double()
    assert not possible.any() or found.mean() > 0.8  # a possible labelling is hard to find in general, not here


@pytest.mark.parametrize("name", GRAPHS)
def test_observed_labels(name: str) -> None:
    graph = GRAPHS[name]
    p = lnz.MRF(graph, random_model(graph, seed=1 + len(name)), Enumeration())
    generator = torch.Generator().manual_seed(0)
    cards = torch.tensor(graph.cardinalities)
    y = torch.randint(0, 1000, (MODELS_PER_GRAPH, graph.num_nodes), generator=generator) % cards
    seen = torch.rand(y.shape, generator=generator) < torch.linspace(0, 1, MODELS_PER_GRAPH)[:, None]
    q = p.condition(torch.where(seen, y, -100))
    lower, upper = lnz.bounds(q)
    assert_between(lower, q.log_partition, upper)
    assert_same(lower[-1], p.score(y)[-1])  # all is observed
    assert upper[-1] >= lower[-1] - 1e-9


def test_both_ends_are_exact_on_forests() -> None:
    for seed in range(12):
        rng = random.Random(seed)
        graph = random_forest(rng)
        p = lnz.MRF(graph, random_scores(graph, rng, impossible=0.2 * (seed % 2)), Enumeration())
        for end in lnz.bounds(p):
            assert_same(end, p.log_partition)
    graph = mixed([2, 3, 2], [[0], [1], [1], []])
    p = lnz.MRF(graph, random_scores(graph, random.Random(0)), Enumeration())
    for end in lnz.bounds(p):
        assert_same(end, p.log_partition)


def test_the_methods_are_bounds_on_forests_too() -> None:
    for seed in range(12):
        rng = random.Random(seed)
        graph = random_forest(rng)
        scores = random_scores(graph, rng, impossible=0.2 * (seed % 2))
        log_partition = lnz.MRF(graph, scores, Enumeration()).log_partition
        assert_same(lnz.MRF(graph, scores, TreeReweighted()).log_partition, log_partition)
        assert (lnz.MRF(graph, scores, MeanField(restarts=4)).log_partition <= log_partition + 1e-9).all()


def test_weak_couplings_close_the_interval() -> None:
    graph = GRAPHS["triples"]
    widths = []
    for scale in (1.0, 0.1, 0.01):
        scores = [scale * entry[6] for entry in random_model(graph, seed=0)]
        lower, upper = lnz.bounds(lnz.MRF(graph, scores))
        widths.append((upper - lower).item())
    assert widths[0] > 50 * widths[1] > 50 * 50 * widths[2]  # quadratic in the scores


def test_bounds_do_not_warn_and_belong_to_the_given_methods() -> None:
    graph = GRAPHS["complete"]
    p = lnz.MRF(graph, [entry[::4] for entry in random_model(graph, seed=3)], BeliefPropagation())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loose = lnz.bounds(p, lower=MeanField(1), upper=TreeReweighted(1))
        tight = lnz.bounds(p, upper=TreeReweighted(50, appearance="optimised", steps=5))
    assert isinstance(tight, lnz.Bounds)
    assert (tight.lower >= loose.lower - 1e-9).all()
    assert (tight.upper <= loose.upper + 1e-9).all()
    assert (tight.upper - tight.lower < loose.upper - loose.lower).all()


def test_bounds_are_differentiable() -> None:
    graph = GRAPHS["triples"]
    scores = [entry[3].requires_grad_() for entry in random_model(graph, seed=5)]
    p = lnz.MRF(graph, scores)
    for end, method in zip(lnz.bounds(p), (MeanField(restarts=4), TreeReweighted()), strict=True):
        beliefs = lnz.MRF(graph, scores, method).marginals
        for grad, belief in zip(torch.autograd.grad(end, scores), beliefs, strict=True):
            assert_same(grad, belief.detach(), atol=1e-8)


def test_bounds_need_a_factor_graph() -> None:
    with pytest.raises(TypeError, match=r"p: expected an lnz\.MRF, or p\.to_mrf\(\), got Softmax"):
        lnz.bounds(lnz.Softmax(torch.zeros(3)))  # pyright: ignore[reportArgumentType]
