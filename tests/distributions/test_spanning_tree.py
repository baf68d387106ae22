"""SpanningTree: the shared suite, counts of trees, effective resistances, and its checks."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor

import lnz
from tests import oracles
from tests.suite import DistributionSuite, Instance, batch_shapes, equal, impossibilities, random_scores, seeds

GRAPHS = {
    "triangle with a tail": (4, [(0, 1), (1, 2), (2, 0), (2, 3)]),
    "two edges side by side": (3, [(0, 1), (1, 0), (1, 2), (2, 0)]),
    "complete": (4, [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]),
    "two components": (5, [(3, 1), (1, 4), (4, 3), (0, 2)]),
    "one edge": (2, [(1, 0)]),
}


def graph_of(num_nodes: int, edges: list[tuple[int, int]], labels: int = 2) -> lnz.FactorGraph:
    return lnz.FactorGraph.pairwise(num_nodes, labels, torch.tensor(edges, dtype=torch.int64).reshape(-1, 2))


def instance(name: str, scores: Tensor) -> Instance:
    num_nodes, edges = GRAPHS[name]
    graph = graph_of(num_nodes, edges)
    return Instance(
        (scores,),
        lambda scores: lnz.SpanningTree(graph, scores),
        lambda scores: oracles.spanning_tree(edges, num_nodes, scores),
    )


class TestSpanningTree(DistributionSuite):
    @staticmethod
    @st.composite
    def instances(draw: st.DrawFn) -> Instance:
        name, batch = draw(st.sampled_from([*GRAPHS])), draw(batch_shapes)
        shape = (*batch, len(GRAPHS[name][1]))
        return instance(name, random_scores(shape, draw(seeds), draw(impossibilities) / 2))

    @staticmethod
    def example() -> Instance:
        return instance("complete", random_scores((2, 6), 0))

    @staticmethod
    def empties() -> dict[str, Instance]:
        return {
            "batch": instance("triangle with a tail", random_scores((0, 4), 0)),
            "edges": Instance(
                (random_scores((2, 0), 0),),
                lambda scores: lnz.SpanningTree(graph_of(3, []), scores),
                lambda scores: oracles.spanning_tree([], 3, scores),
            ),
        }


def real(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def complete(n: int) -> lnz.FactorGraph:
    return graph_of(n, [(i, j) for i in range(n) for j in range(i + 1, n)])


@pytest.mark.parametrize("n", [2, 3, 5, 9, 30])
def test_cayley(n: int) -> None:
    """n^(n − 2) trees on n nodes that are all joined, each edge in a share of 2 / n of them."""
    p = lnz.SpanningTree(complete(n), torch.zeros(math.comb(n, 2), dtype=torch.float64))
    count = real((n - 2) * math.log(n))
    equal(p.log_partition, count)
    equal(p.log_count, count)
    equal(p.entropy(), count)
    equal(p.marginals, real(2 / n).expand(math.comb(n, 2)))


def test_bipartite_and_grid_counts() -> None:
    """m^(n − 1) n^(m − 1) of complete bipartite graphs; 2415 of the grid 3 × 4 (OEIS A116469)."""
    for m, n in ((1, 4), (2, 3), (4, 5)):
        graph = graph_of(m + n, [(i, m + j) for i in range(m) for j in range(n)])
        p = lnz.SpanningTree(graph, torch.zeros(m * n, dtype=torch.float64))
        equal(p.log_partition, real(math.log(m ** (n - 1) * n ** (m - 1))))
    grid = lnz.FactorGraph.grid(3, 4, 2)
    equal(lnz.SpanningTree(grid, torch.zeros(17).double()).log_partition.exp(), real(2415))


def test_resistances_in_series_and_side_by_side() -> None:
    """Weights are conductances: an edge is in the tree with its weight times the resistance between its ends."""
    weights = torch.tensor([2.0, 3.0, 5.0], dtype=torch.float64)
    p = lnz.SpanningTree(graph_of(2, [(0, 1)] * 3), weights.log())
    equal(p.marginals, weights / 10)
    p = lnz.SpanningTree(graph_of(3, [(0, 1), (1, 2), (2, 0)]), weights.log())
    around = 1 / (1 / weights[1] + 1 / weights[2])
    equal(p.marginals[0], weights[0] / (weights[0] + around))


@pytest.mark.parametrize("scale", [1.0, 300.0, 1e5])
def test_wide_scores(scale: float) -> None:
    """The best tree is Kruskal's; probabilities add up to the edges of a tree; none is above 1."""
    graph = complete(20)
    scores = scale * random_scores((3, 190), 0)
    p = lnz.SpanningTree(graph, scores)
    equal(p.marginals.sum(-1), real(19).expand(3))
    best = p.argmax()
    for y, row in zip(best.tolist(), scores, strict=True):
        group, wanted = list(range(20)), [0] * 190
        for e in row.argsort(descending=True).tolist():
            a, b = (group[node] for node in graph.scopes[1][e].tolist())
            if a != b:
                wanted[e], group = 1, [a if g == b else g for g in group]
        assert y == wanted
    drawn = p.sample((10,), torch.Generator().manual_seed(0))
    assert (drawn.sum(-1) == 19).all()
    assert (p.log_prob(best) <= 0).all()
    assert (p.log_prob(best) >= p.log_prob(drawn) - 1e-9).all()
    equal(p.score(best), p.topk(2)[1][0])


def test_known_edges_make_trees_of_what_they_join() -> None:
    """(k + 1) n^(n − k − 2) spanning trees of K_n hold a given path of k edges; none holds a cycle."""
    n = 7
    p = lnz.SpanningTree(complete(n), torch.zeros(21, dtype=torch.float64))
    edges = complete(n).scopes[1].tolist()
    for k in (1, 2, 4):
        y = torch.full((21,), -100)
        y[[edges.index([i, i + 1]) for i in range(k)]] = 1
        wanted = math.log((k + 1) * n ** (n - k - 2)) - (n - 2) * math.log(n)
        equal(p.log_prob(y), real(wanted))
    y[edges.index([0, 4])] = 1
    assert p.log_prob(y) == -torch.inf


def test_appearance_of_edges_is_that_of_trees_with_scores_of_0() -> None:
    graph = lnz.FactorGraph.grid(3, 4, 2, 8)
    method = lnz.inference.TreeReweighted(max_iterations=1)
    p = lnz.MRF(graph, [torch.zeros(2), torch.zeros(2, 2)], method)
    rho = p.diagnostics["appearance"]
    edges = len(graph.scopes[1])
    equal(rho[-edges:].double(), lnz.SpanningTree(graph, torch.zeros(edges).double()).marginals, atol=1e-6)


def test_bad_input() -> None:
    graph = complete(3)
    with pytest.raises(ValueError, match=r"edge_scores: expected shape \[\*batch, 3\], one score per edge, got \[4\]"):
        lnz.SpanningTree(graph, torch.zeros(4))
    with pytest.raises(TypeError, match="graph: expected a FactorGraph, got list"):
        lnz.SpanningTree([(0, 1)], torch.zeros(1))  # type: ignore[arg-type]
    three = lnz.FactorGraph((2, 2, 2), (torch.tensor([[0, 1, 2]]),))
    with pytest.raises(ValueError, match="graph: expected factors of up to two nodes, got 3 in group 0"):
        lnz.SpanningTree(three, torch.zeros(0))
    p = lnz.SpanningTree(graph, torch.zeros(3))
    with pytest.raises(ValueError, match="expected a full labelling"):
        p.score(torch.tensor([1, -100, 0]))
    assert p.score(torch.tensor([1, 1, 1])) == -torch.inf
    other = lnz.SpanningTree(graph_of(3, [(0, 1), (0, 2), (2, 1)]), torch.zeros(3))
    with pytest.raises(ValueError, match="spanning trees of one graph"):
        torch.distributions.kl_divergence(p, other)
