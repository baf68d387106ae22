"""MRF: the shared suite under each inference method, on any graph for the exact ones and on forests for all."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor

import lnz
from lnz.inference import AnnealedImportance, BeliefPropagation, Enumeration, Exact, Gibbs, MeanField, TreeReweighted
from lnz.inference.base import Method
from tests import oracles
from tests.suite import (
    DistributionSuite,
    Instance,
    batch_shapes,
    equal,
    impossibilities,
    random_scores,
    seeds,
    written_out,
)


def mrf_instance(graph: lnz.FactorGraph, entries: list[Tensor | lnz.Weighted], method: Method) -> Instance:
    """The leaves are the tensors of the entries, in order."""
    leaves = [t for e in entries for t in ((e.weight, e.table) if isinstance(e, lnz.Weighted) else (e,))]

    def compose(*tensors: Tensor) -> list[Tensor | lnz.Weighted]:
        left = iter(tensors)
        return [lnz.Weighted(next(left), next(left)) if isinstance(e, lnz.Weighted) else next(left) for e in entries]

    return Instance(
        tuple(leaves),
        lambda *tensors: lnz.MRF(graph, compose(*tensors), method),
        lambda *tensors: oracles.factor_graph(
            graph.cardinalities, graph.scopes, [written_out(entry) for entry in compose(*tensors)]
        ),
        () if len(leaves) == len(entries) else tuple(unit for e in entries for unit in _units(e)),
    )


def _units(entry: Tensor | lnz.Weighted) -> tuple[float | None, ...]:
    return (None, 1.0) if isinstance(entry, lnz.Weighted) else (1.0,)


def empty_graphs(method: Method) -> dict[str, Instance]:
    """A batch of none, a group of no factors, a graph without factors or nodes."""
    graph = lnz.FactorGraph.pairwise(3, 2, torch.tensor([[0, 1], [2, 1]]))
    scores, grid = random_scores((0, 3, 2), 0), lnz.FactorGraph.grid(2, 2, 2)
    no_nodes = lnz.FactorGraph((), (torch.zeros(1, 0, dtype=torch.int64),))
    no_edges = lnz.FactorGraph((2, 2), (torch.arange(2)[:, None], torch.zeros(0, 2, dtype=torch.int64)))
    return {
        "batch": mrf_instance(graph, [scores, random_scores((2, 2), 1)], method),
        "batch of all": mrf_instance(graph, [scores, random_scores((0, 2, 2, 2), 1)], method),
        "grid": mrf_instance(grid, [random_scores((0, 4, 2), 0), random_scores((2, 2), 1)], method),
        "grid of all": mrf_instance(grid, [random_scores((0, 4, 2), 0), random_scores((0, 4, 2, 2), 1)], method),
        "nodes": mrf_instance(no_nodes, [random_scores((2, 1), 0)], method),
        "factors": mrf_instance(no_edges, [random_scores((2, 2, 2), 0), random_scores((0, 2, 2), 1)], method),
    }


def random_scopes(draw: st.DrawFn, nodes: int, forest: bool) -> list[list[int]]:
    """Scopes of up to three nodes; in a forest each joins nodes of different trees."""
    tree = list(range(nodes))
    scopes = []
    for _ in range(draw(st.integers(1, 5))):
        order = draw(st.permutations(range(nodes)))
        scope: list[int] = []
        for node in order[: draw(st.integers(1, 3))]:
            if not forest or tree[node] not in {tree[other] for other in scope}:
                scope.append(node)
        joined = {tree[node] for node in scope}
        tree = [min(joined) if t in joined else t for t in tree]
        scopes.append(scope)
    return scopes


@st.composite
def mrfs(draw: st.DrawFn, method: Method, forest: bool) -> Instance:
    cardinalities = draw(st.lists(st.integers(1, 3), min_size=1, max_size=4))
    scopes = random_scopes(draw, len(cardinalities), forest)
    graph, _ = lnz.FactorGraph.grouped(cardinalities, scopes)
    batch, seed, impossible = draw(batch_shapes), draw(seeds), draw(impossibilities)
    entries: list[Tensor | lnz.Weighted] = []
    for group, labels in enumerate(graph.labels):
        factors = graph.num_factors[group]
        form = draw(st.sampled_from(["own", "one", "shared", "weighted"]))
        if form == "shared":
            entries.append(random_scores(labels, seed + group, impossible / 2))
        elif form == "weighted":
            weight = random_scores((*draw(st.sampled_from([(), batch])), factors), seed + 50 + group).abs() + 0.1
            entries.append(lnz.Weighted(weight, random_scores(labels, seed + group, impossible / 2)))
        else:
            shape = (*draw(st.sampled_from([(), batch])), factors if form == "own" else 1, *labels)
            entries.append(random_scores(shape, seed + group, impossible / 2))
    return mrf_instance(graph, entries, method)


def small_tree(method: Method) -> Instance:
    graph = lnz.FactorGraph.pairwise(3, 2, torch.tensor([[0, 1], [2, 1]]))
    return mrf_instance(graph, [random_scores((2, 3, 2), 0), random_scores((2, 2, 2, 2), 1)], method)


def small_loop(method: Method) -> Instance:
    graph = lnz.FactorGraph.pairwise(3, 2, torch.tensor([[0, 1], [2, 1], [2, 0]]))
    return mrf_instance(graph, [random_scores((2, 3, 2), 0), random_scores((2, 3, 2, 2), 1)], method)


class TestEnumeration(DistributionSuite):
    @staticmethod
    def instances() -> st.SearchStrategy[Instance]:
        return mrfs(Enumeration(), forest=False)

    @staticmethod
    def example() -> Instance:
        return small_loop(Enumeration())

    @staticmethod
    def empties() -> dict[str, Instance]:
        return empty_graphs(Enumeration())


class TestExact(DistributionSuite):
    @staticmethod
    def instances() -> st.SearchStrategy[Instance]:
        return mrfs(Exact(), forest=False)

    @staticmethod
    def example() -> Instance:
        return small_loop(Exact())

    @staticmethod
    def empties() -> dict[str, Instance]:
        return empty_graphs(Exact())


class TestExactOnForests(DistributionSuite):
    @staticmethod
    def instances() -> st.SearchStrategy[Instance]:
        return mrfs(Exact(), forest=True)

    @staticmethod
    def example() -> Instance:
        return small_tree(Exact())

    @staticmethod
    def empties() -> dict[str, Instance]:
        return empty_graphs(Exact())


class TestBeliefPropagationOnForests(DistributionSuite):
    lacks: ClassVar[frozenset[str]] = frozenset({"topk", "sample", "forward mode"})

    @staticmethod
    def instances() -> st.SearchStrategy[Instance]:
        return mrfs(BeliefPropagation(), forest=True)

    @staticmethod
    def example() -> Instance:
        return small_tree(BeliefPropagation())

    @staticmethod
    def empties() -> dict[str, Instance]:
        return empty_graphs(BeliefPropagation())


# What is an MRF's own ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [TreeReweighted(), MeanField(), Gibbs(), AnnealedImportance()], ids=repr)
@pytest.mark.parametrize("form", ["shared", "full", "weighted"])
def test_an_empty_batch_of_grids(method: Method, form: str) -> None:
    """What only approximate methods compute has the shape of the scores, with 0 in front."""
    graph = lnz.FactorGraph.grid(2, 3, 2)
    edges = {
        "shared": random_scores((2, 2), 0),
        "full": random_scores((0, 7, 2, 2), 0),
        "weighted": lnz.Weighted(random_scores((0, 7), 0), random_scores((2, 2), 1)),
    }[form]
    node = random_scores((0, 6, 2), 2).requires_grad_()
    p = lnz.MRF(graph, (node, edges), method)
    assert [marginal.shape for marginal in p.marginals] == [(0, 6, 2), (0, 7, 2, 2)]
    assert p.node_marginals.shape == (0, 6, 2)
    if not isinstance(method, Gibbs):
        assert p.log_partition.shape == p.entropy().shape == (0,)
        (gradient,) = torch.autograd.grad(p.log_partition.sum(), node)
        assert gradient.shape == node.shape


def test_node_marginals_are_padded_to_the_largest_cardinality() -> None:
    graph, _ = lnz.FactorGraph.grouped([2, 3], [[0], [1], [0, 1]])
    p = lnz.MRF(graph, [random_scores((1, *labels), i) for i, labels in enumerate(graph.labels)], Enumeration())
    assert p.node_marginals.shape == (2, 3)
    equal(p.node_marginals.sum(-1), torch.ones(2, dtype=torch.float64))
    assert p.node_marginals[0, 2] == 0
    equal(p.node_marginals[1], p.marginals[2][0].sum(0))


def test_the_default_method_is_exact() -> None:
    graph = lnz.FactorGraph.grid(2, 2, 2)
    p = lnz.MRF(graph, (torch.zeros(4, 2), torch.zeros(2, 2)))
    assert p.inference == Exact()
    assert p.to_mrf() is p


def test_arguments_of_the_wrong_type() -> None:
    graph = lnz.FactorGraph.grid(2, 2, 2)
    scores = (torch.zeros(4, 2), torch.zeros(2, 2))
    with pytest.raises(TypeError, match="graph: expected a lnz.FactorGraph, got int"):
        lnz.MRF(3, scores)
    with pytest.raises(TypeError, match="inference: expected a method of lnz.inference, got 'exact'"):
        lnz.MRF(graph, scores, "exact")


def test_kl_needs_the_same_factors() -> None:
    scores = (torch.zeros(4, 2), torch.zeros(2, 2))
    p = lnz.MRF(lnz.FactorGraph.grid(2, 2, 2), scores)
    q = lnz.MRF(lnz.FactorGraph.grid(1, 4, 2), scores)
    with pytest.raises(ValueError, match="expected two MRFs over the same factors"):
        torch.distributions.kl_divergence(p, q)


@pytest.mark.parametrize("method", [Exact(), BeliefPropagation(), Enumeration(), lnz.inference.TreeReweighted()])
def test_kl_is_infinite_where_the_other_has_observed_what_is_not_sure(method: lnz.inference.Method) -> None:
    """One label of one node is enough; what both have observed, or what is certain in the first, rules nothing out."""
    graph = lnz.FactorGraph.pairwise(3, 2, torch.tensor([[0, 1], [1, 2]]))
    scores = (random_scores((3, 2), 0), random_scores((2, 2), 1))
    p = lnz.MRF(graph, scores, method)
    seen = torch.tensor([-100, 1, -100])
    q = p.condition(seen)
    assert torch.distributions.kl_divergence(p, q) == torch.inf
    equal(torch.distributions.kl_divergence(q, p.condition(seen)), torch.zeros((), dtype=torch.float64), atol=1e-6)
    assert torch.distributions.kl_divergence(q, p).isfinite()


def test_kl_of_equal_graphs_built_apart() -> None:
    scores = [(random_scores((4, 2), seed), random_scores((4, 2, 2), seed + 1)) for seed in (0, 5)]
    same = lnz.FactorGraph.grid(2, 2, 2)
    p, q = (lnz.MRF(same, each) for each in scores)
    apart = lnz.MRF(lnz.FactorGraph.grid(2, 2, 2), scores[1])
    equal(torch.distributions.kl_divergence(p, apart), torch.distributions.kl_divergence(p, q))
    assert torch.distributions.kl_divergence(p, apart) > 0.1
    others = [
        lnz.FactorGraph((2, 2, 2, 2), (same.scopes[0], same.scopes[1].flip(1))),
        lnz.FactorGraph((2, 2, 2, 2), (same.scopes[0], same.scopes[1].flip(0))),
    ]
    for other in others:
        with pytest.raises(ValueError, match="expected two MRFs over the same factors, got different scopes"):
            torch.distributions.kl_divergence(p, lnz.MRF(other, scores[1]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_objectives_of_half_precision_are_differences(dtype: torch.dtype) -> None:
    """Sums beyond float16's range, whose differences are small."""
    graph = lnz.FactorGraph.grid(8, 8, 2)
    p = lnz.MRF(graph, (random_scores((64, 2), 0).to(dtype) - 2000, random_scores((2, 2), 1).to(dtype)))
    exact = lnz.MRF(graph, tuple(scores.double() for scores in p.scores))
    y = exact.argmax()
    y[::7] = 1 - y[::7]
    error = lnz.metrics.hamming
    for loss in (
        lnz.objectives.nll,
        lnz.objectives.pseudolikelihood,
        lambda p, y: lnz.objectives.hinge(p, y, error),
        lambda p, y: lnz.objectives.label_adjustment(p, y, error),
    ):
        assert loss(p, y).dtype == dtype
        assert loss(p, y).item() == pytest.approx(loss(exact, y).item(), rel=torch.finfo(dtype).eps)


def test_expanded_batches_stay_expanded() -> None:
    p = lnz.MRF(lnz.FactorGraph.grid(2, 2, 2), (random_scores((4, 2), 0), random_scores((2, 2), 1))).expand((3,))
    assert p.tempered(2.0).batch_shape == (3,)
    assert p.condition(torch.tensor([0, -100, -100, -100])).batch_shape == (3,)


def test_observing_twice() -> None:
    p = small_loop(Enumeration()).p
    y = torch.full((2, 3), -100)
    y[:, 0] = 1
    z = torch.full((2, 3), -100)
    z[:, 1] = 0
    both = torch.tensor([1, 0, -100]).expand(2, 3)
    equal(p.condition(y).condition(z).log_partition, p.condition(both).log_partition)
    z[1, 0] = 0  # a contradiction in the second entry: it has no possible labelling, the first is as before
    q = p.condition(y).condition(z)
    equal(q.log_partition, p.condition(both).log_partition.masked_fill(torch.tensor([False, True]), -torch.inf))
    with pytest.raises(lnz.InfeasibleError, match=r"batch entries \[1\]"):
        q.argmax()
    bare = lnz.MRF(lnz.FactorGraph((2, 2), ()), ()).condition(torch.tensor([0, -100]))
    with pytest.raises(ValueError, match="y: expected no contradiction .* in a model without factors"):
        bare.condition(torch.tensor([1, -100]))


@pytest.mark.parametrize(
    "method",
    [
        lnz.inference.Exact(),
        lnz.inference.Enumeration(),
        lnz.inference.BeliefPropagation(),
        lnz.inference.MeanField(),
        lnz.inference.TreeReweighted(),
    ],
    ids=lambda method: type(method).__name__,
)
def test_every_method_finds_a_contradiction_impossible(method: lnz.inference.base.Method) -> None:
    graph = lnz.FactorGraph.grid(2, 2, 2)
    scores = (random_scores((2, 4, 2), 0), lnz.Weighted(torch.ones(4).double(), random_scores((2, 2), 1)))
    y, z = torch.tensor([[0, -100, -100, 1], [1, 1, -100, -100]]), torch.tensor([0, -100, 1, -100])
    p = lnz.MRF(graph, scores, method).condition(y)
    assert torch.isneginf(p.log_prob(z)).tolist() == [False, True]
    q = p.condition(z)
    assert torch.isneginf(q.log_partition).tolist() == [False, True]
    with pytest.raises(lnz.InfeasibleError, match=r"batch entries \[1\]"):
        _ = q.marginals


MODES = [
    lnz.inference.Exact(),
    lnz.inference.Enumeration(),
    lnz.inference.BeliefPropagation(30, 0.0),
    lnz.inference.MeanField(30, 0.0),
    lnz.inference.TRWS(),
    lnz.inference.IteratedConditionalModes(),
    lnz.inference.SimulatedAnnealing(sweeps=20),
    lnz.inference.IntegerProgram(),
]


@pytest.mark.parametrize("nodes", [1, 3], ids=["chain", "grid"])
@pytest.mark.parametrize("method", MODES, ids=lambda method: type(method).__name__)
def test_after_argmax_every_method_says_how_good_its_answer_is(method: lnz.inference.base.Method, nodes: int) -> None:
    graph = lnz.FactorGraph.grid(nodes, 3, 2)
    edges = graph.num_factors[1]
    scores = (random_scores((2, 3 * nodes, 2), 0).requires_grad_(), random_scores((2, edges, 2, 2), 1))
    p = lnz.MRF(graph, scores, method)
    best = lnz.MRF(graph, scores, Enumeration())
    y = p.argmax()
    said = p.diagnostics
    equal(said["score"], p.score(y).detach())
    highest = best.score(best.argmax()).detach()
    assert (said["bound"] >= highest - 1e-9).all()
    assert said["optimal"].dtype == torch.bool
    assert said["optimal"].shape == (2,)
    assert (said["score"] >= highest - 1e-9)[said["optimal"]].all()
    assert p.solution.exact <= bool(said["optimal"].all())


def test_diagnostics_are_of_the_work_that_was_done(monkeypatch: pytest.MonkeyPatch) -> None:
    searches = []
    search = lnz.inference.map.trws.TRWSSolution._find
    monkeypatch.setattr(lnz.inference.map.trws.TRWSSolution, "_find", lambda self: searches.append(1) or search(self))
    graph = lnz.FactorGraph.grid(4, 4, 3)
    p = lnz.MRF(graph, (random_scores((16, 3), 0), random_scores((24, 3, 3), 1)), lnz.inference.TRWS())
    p.argmax()
    _ = p.diagnostics
    with torch.no_grad():
        _ = p.diagnostics
    assert len(searches) == 1
    q = lnz.MRF(graph, p.scores, lnz.inference.BeliefPropagation())
    assert "score" not in q.diagnostics  # which has made beliefs, no labelling
    q.argmax()
    assert q.diagnostics["score"] == q.score(q.argmax())


@pytest.mark.parametrize("method", [Enumeration(), Exact(), BeliefPropagation()], ids=lambda it: type(it).__name__)
def test_one_function_compiles_for_graphs_of_several_sizes(method: Method) -> None:
    """Nothing that stands for a graph becomes a symbol when the next graph comes."""
    torch._dynamo.reset()

    def loss(graph: lnz.FactorGraph, node_scores: Tensor, edge_scores: Tensor) -> Tensor:
        return lnz.MRF(graph, (node_scores, edge_scores), method).log_partition

    compiled = torch.compile(loss, fullgraph=True, backend="eager")
    for height, width in ((2, 3), (3, 2), (2, 4)):
        graph = lnz.FactorGraph.grid(height, width, 2)
        scores = torch.randn(graph.num_nodes, 2), torch.randn(2, 2)
        torch.testing.assert_close(compiled(graph, *scores), loss(graph, *scores))


def test_a_model_without_nodes_has_one_labelling_of_no_labels() -> None:
    graph = lnz.FactorGraph((), (torch.zeros(1, 0, dtype=torch.int64),))
    for method in (Enumeration(), Exact()):
        p = lnz.MRF(graph, (torch.tensor([[1.5], [-2.0]]),), method)
        assert p.argmax().shape == p.sample().shape == (2, 0)
        assert p.topk(2)[0].shape == (2, 2, 0)
        assert p.log_partition.tolist() == [1.5, -2.0]
