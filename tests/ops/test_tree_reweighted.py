"""Appearance probabilities are those of forests; messages in the exponential domain are those of the reference."""

from __future__ import annotations

import itertools
import tracemalloc

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import lnz
from lnz.inference import Enumeration, MeanField, TreeReweighted
from lnz.ops import backend
from lnz.ops.belief.gradient import gathered
from lnz.ops.belief.reference import beliefs as factors
from lnz.ops.belief.reference import factor_beliefs, node_beliefs
from lnz.ops.belief.schedule import Run, iterate
from lnz.ops.grid_belief.domains import fits_reweighted
from lnz.ops.grid_belief.prepared import Prepared, Settings
from lnz.ops.grid_belief.solve import Found, pairs, parts_of, pull_back, slots_of, solve
from lnz.ops.tree_reweighted import kernel
from lnz.ops.tree_reweighted.appearance import components, forest, packed, resistances, uniform
from lnz.ops.tree_reweighted.exponential import ExponentialReweighted
from lnz.ops.tree_reweighted.polytope import shortfall
from lnz.ops.tree_reweighted.reference import Reweighted, upper_bound
from lnz.scores import Model, checked_model, observe
from tests.inference.test_belief_propagation import assert_same
from tests.inference.test_bounds import GRAPHS, complete, cycle, mixed, random_model
from tests.ops.test_mean_field import BATCH, EDGES, FORMS, HEIGHT, LABELS, WIDTH, grid_model

PAIRWISE = [name for name, graph in GRAPHS.items() if all(scope.shape[1] <= 2 for scope in graph.scopes)]


def joining(graph: lnz.FactorGraph) -> Tensor:
    """Which factors have two nodes or more, ``bool [F]``."""
    return torch.cat([torch.full((len(scope),), scope.shape[1] > 1) for scope in graph.scopes])


def is_forest(graph: lnz.FactorGraph, kept: Tensor) -> bool:
    scopes = [nodes for scope in graph.scopes for nodes in scope.tolist()]
    chosen = [nodes for nodes, keep in zip(scopes, kept.tolist(), strict=True) if keep]
    return lnz.FactorGraph.grouped(graph.cardinalities, chosen)[0].is_forest


def all_forests(graph: lnz.FactorGraph) -> list[Tensor]:
    """The spanning trees, one per component, by trying every set of edges."""
    edges = joining(graph).nonzero().flatten().tolist()
    size = graph.num_nodes - len(components(graph).unique())
    found = []
    for chosen in itertools.combinations(edges, size):
        kept = (~joining(graph)).double()
        kept[list(chosen)] = 1.0
        if is_forest(graph, kept):
            found.append(kept)
    return found


@pytest.mark.parametrize("name", [n for n in PAIRWISE if n not in ("complete", "diagonal grid")])
def test_resistances_are_the_shares_of_all_spanning_trees(name: str) -> None:
    graph = GRAPHS[name]
    assert_same(resistances(graph), torch.stack(all_forests(graph)).mean(0), atol=1e-10)


@pytest.mark.parametrize("make", [resistances, packed], ids=["resistances", "packed"])
@pytest.mark.parametrize("name", PAIRWISE)
def test_probabilities_lie_in_the_polytope_of_spanning_trees(name: str, make) -> None:
    graph = GRAPHS[name]
    rho, edges = make(graph), joining(graph)
    assert ((rho > 0) & (rho <= 1)).all()
    assert (rho[~edges] == 1).all()
    size = graph.num_nodes - len(components(graph).unique())
    assert rho[edges].sum().item() == pytest.approx(size, abs=1e-9)
    for subset in itertools.product([False, True], repeat=graph.num_nodes):  # Edmonds: ρ(E[S]) ≤ |S| − 1
        inside = torch.tensor(subset)
        within = [inside[scope].all(-1) & (scope.shape[1] > 1) for scope in graph.scopes]
        if any(subset):
            assert rho[torch.cat(within)].sum() <= sum(subset) - 1 + 1e-9
    assert shortfall(graph, rho) < 1e-7


def test_bridges_are_in_every_forest() -> None:
    graph = mixed([2] * 7, [[0, 1], [1, 2], [2, 0], [2, 3], [3, 4], [4, 5], [5, 6], [6, 4]])
    bridges = [3, 4]
    for rho in (resistances(graph), packed(graph)):
        assert_same(rho[bridges], torch.ones(2, dtype=torch.float64), atol=1e-12)
        assert (rho[[0, 1, 2, 5, 6, 7]] < 0.9).all()


def test_forest_is_the_heaviest() -> None:
    graph = GRAPHS["cards"]
    generator = torch.Generator().manual_seed(0)
    for _ in range(10):
        weights = torch.rand(sum(graph.num_factors), generator=generator, dtype=torch.float64)
        best = max((weights * tree).sum().item() for tree in all_forests(graph))
        assert (weights * forest(graph, weights)).sum().item() == pytest.approx(best)


@pytest.mark.parametrize("name", ["triples", "quadruples"])
def test_larger_factors_are_packed_into_forests_that_use_all(name: str) -> None:
    graph = GRAPHS[name]
    weights = torch.rand(sum(graph.num_factors), generator=torch.Generator().manual_seed(0))
    assert is_forest(graph, forest(graph, weights))
    rho = uniform(graph)
    assert ((rho > 0) & (rho <= 1)).all()
    assert shortfall(graph, rho) < 0.2  # the greedy forests of the linear programme are not the heaviest here


def test_packing_of_a_large_grid_is_even() -> None:
    graph = lnz.FactorGraph.grid(40, 40, 2)
    rho = uniform(graph)[1600:]
    assert rho.sum().item() == pytest.approx(1599)
    assert 0.4 < rho.min() <= rho.max() < 0.7


def test_components() -> None:
    assert components(GRAPHS["islands"]).tolist() == [0, 0, 0, 3, 3, 5, 6]


def test_probabilities_of_no_forests_are_refused_with_reason() -> None:
    graph = complete(4, 2)
    scores = [entry[5] for entry in random_model(graph, seed=0)]
    fine = TreeReweighted(20, 0.0, appearance=torch.full((6,), 0.5))
    assert torch.isfinite(lnz.MRF(graph, scores, fine).log_partition)
    less = TreeReweighted(20, 0.0, appearance=torch.full((6,), 0.3))  # of forests that do not span: valid, looser
    assert lnz.MRF(graph, scores, less).log_partition > lnz.MRF(graph, scores, fine).log_partition
    for appearance, message in (
        (torch.full((6,), 0.6), "exceed those of every one found by at least 0.1"),
        (torch.tensor([1.0, 1.0, 0.4, 1.0, 0.1, 0.1]), "exceed those of every one found"),  # a triangle in full
        (torch.full((6,), 0.0), r"expected probabilities in \(0, 1\], got \[0, 0\]"),
        (torch.full((5,), 0.5), r"expected shape \[\*batch, 6\], .* got \[5\]"),
    ):
        with pytest.raises(ValueError, match=message):
            _ = lnz.MRF(graph, scores, TreeReweighted(20, 0.0, appearance=appearance)).log_partition


def test_probabilities_of_no_forests_would_give_no_bound() -> None:
    """What the check is for: Bethe's ρ = 1 on a frustrated cycle is below ln Z."""
    graph = cycle(3, 2)
    edge = torch.tensor([[-1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
    model = lnz.MRF(graph, (torch.zeros(2, dtype=torch.float64), -edge)).model
    exact = Enumeration().solve(model).log_partition
    for rho, valid in ((uniform(graph), True), (torch.ones(6, dtype=torch.float64), False)):
        passing = Reweighted(model, rho)
        value = upper_bound(passing, passing.initial())
        assert (value >= exact) == valid


@pytest.mark.parametrize("name", GRAPHS)
def test_exponential_domain_is_the_reference(name: str) -> None:
    graph = GRAPHS[name]
    model = lnz.MRF(graph, random_model(graph, seed=1, impossible=0.1)).model
    rho = uniform(graph)
    one, other = Reweighted(model, rho), ExponentialReweighted(model, rho)
    messages = [one.initial(), other.initial()]
    for _ in range(3):
        messages = [
            passing.send(passing.wiring.flooding, m.clone(), torch.empty_like(m))
            for passing, m in zip((one, other), messages, strict=True)
        ]
    assert_same(messages[0].exp(), messages[1].exp(), atol=1e-10)


def solved(prepared: Prepared, limit: int, tolerance: float = 0.0, damping: float = 0.0) -> Found:
    return solve(prepared, parts_of(prepared), Settings(limit, tolerance, damping))


def assert_kernel_is_the_reference(model: Model, run: Run, rho: Tensor, atol: float = 1e-12) -> None:
    """Messages, the bound (relative to its size), beliefs of nodes and edges, and the gradient in every form."""
    assert kernel.serves(model, run)
    prepared = kernel.reweighted(model, rho)
    assert run.damping is not None
    found = solved(prepared, run.max_iterations, run.tolerance, run.damping)
    value, beliefs, messages, iterations, residual = found
    batch = model.batch_shape
    value, iterations, residual = value.reshape(batch), iterations.reshape(batch), residual.reshape(batch)
    beliefs = beliefs.reshape(*batch, *beliefs.shape[1:])
    passing = Reweighted(model, rho)
    expected = iterate(passing, run)
    assert_same(slots_of(model, prepared, messages).exp(), expected.messages.exp(), atol=atol)
    assert torch.equal(iterations, expected.iterations)
    assert_same(residual, expected.residual, atol=atol)
    bound = upper_bound(passing, expected.messages)
    torch.testing.assert_close(value, bound, rtol=10 * atol, atol=10 * atol)
    assert_same(beliefs, node_beliefs(passing, expected.messages), atol=10 * atol)
    for group in range(1, model.graph.num_groups):
        ours = pairs(model, prepared, messages, group)
        assert_same(ours, factor_beliefs(passing, expected.messages, group), atol=10 * atol)
    grad = torch.linspace(1.0, -2.0, bound.numel(), dtype=model.dtype).reshape(bound.shape)
    pulled = gathered(passing, passing.node_to_factor(expected.messages), grad, factors)
    for ours, known in zip(pull_back(model, prepared, messages, grad), pulled, strict=True):
        torch.testing.assert_close(ours, known, rtol=100 * atol, atol=100 * atol)


@pytest.mark.parametrize("scale", [1.0, 300.0])  # 300: out of the range of probabilities
@pytest.mark.parametrize("damping", [0.0, 0.3])
@pytest.mark.parametrize("form", FORMS)
def test_grid_kernel_is_the_reference(form: str, damping: float, scale: float) -> None:
    model = grid_model(form).map_scores(lambda scores: scores * scale)
    assert_kernel_is_the_reference(model, Run(7, 0.0, damping, "flooding"), uniform(model.graph))


@pytest.mark.parametrize("form", FORMS)
def test_grid_kernel_in_float32(form: str) -> None:
    model = grid_model(form, torch.float32)
    assert_kernel_is_the_reference(model, Run(3, 0.0, 0.0, "flooding"), uniform(model.graph), atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_grid_kernel_with_appearance_per_image(form: str) -> None:
    generator = torch.Generator().manual_seed(3)
    rho = torch.rand(BATCH, HEIGHT * WIDTH + EDGES, generator=generator, dtype=torch.float64) * 0.5 + 0.3
    rho[:, : HEIGHT * WIDTH] = 1.0
    assert_kernel_is_the_reference(grid_model(form), Run(7, 0.0, 0.0, "flooding"), rho)


def test_grid_kernel_with_impossible_labels_observed_nodes_and_both_domains() -> None:
    model = grid_model("full")
    model.entries[0][0, 3, 1] = -torch.inf  # type: ignore[index]
    model.entries[1][1, 2, 0] = torch.tensor([0.0, -torch.inf, 1.0])  # type: ignore[index]  # image 1: in logarithms
    observed = torch.full((BATCH, HEIGHT * WIDTH), -100)
    observed[0, 5], observed[1, 9] = 2, 0
    rho = uniform(model.graph)
    assert_kernel_is_the_reference(model, Run(9, 0.0, 0.0, "flooding"), rho)
    assert_kernel_is_the_reference(observe(model, observed), Run(9, 0.0, 0.2, "flooding"), rho)


def test_grid_kernel_stops_each_image_by_itself_and_shares_rows() -> None:
    model = grid_model("weighted", height=40, width=70)
    model.entries[1].weight[1] *= 0.1  # type: ignore[union-attr]  # one image converges long before the other
    weight, table = model.entries[1].weight, model.entries[1].table  # type: ignore[union-attr]
    one = checked_model(model.graph, (model.entries[0][:1], lnz.Weighted(weight[:1], table)))  # type: ignore[index]
    rho = uniform(model.graph)
    threads = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            for shared in (one, model):
                assert_kernel_is_the_reference(shared, Run(12, 1e-4, 0.0, "flooding"), rho)
    finally:
        torch.set_num_threads(threads)
    iterations = solved(kernel.reweighted(model, rho), 12, 1e-4).iterations
    assert iterations[0] > iterations[1]


@pytest.mark.parametrize("appearance", ["packed", "per image"])
@pytest.mark.parametrize("form", ["shared", "per image", "potts"])
@pytest.mark.parametrize("scale", [1.0, 60.0])  # 60: out of the range of probabilities
def test_grid_kernel_with_a_table_per_probability(form: str, appearance: str, scale: float) -> None:
    """Few different ones, in runs that tiles cut: products with one table after the other; wider than a tile."""
    model = grid_model("shared" if form == "potts" else form, height=6, width=133)
    table = torch.eye(LABELS, dtype=torch.float64) if form == "potts" else model.entries[1]
    model = checked_model(model.graph, (model.entries[0], table * scale))  # type: ignore[operator]
    rho = packed(model.graph)
    if appearance == "per image":
        rho = torch.stack((rho, torch.where(torch.arange(len(rho)) % 50 < 20, rho * 0.9, rho)))
        rho[:, : 6 * 133] = 1.0
    prepared = kernel.reweighted(model, rho)
    assert all(s.choice is not None and len(s.table) <= kernel.MOST * len(rho) for s in prepared.sides)
    assert_kernel_is_the_reference(model, Run(5, 0.0, 0.0, "flooding"), rho)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_grid_kernel_stays_in_probabilities_whatever_the_nodes_span(dtype: torch.dtype) -> None:
    """Scores of nodes that no exponential reaches: a label is ruled out by −inf only, and the bound holds."""
    model = grid_model("shared", dtype)
    nodes = model.entries[0] * 300.0  # type: ignore[operator]
    nodes[0, 2, 1] = -torch.inf
    table = model.entries[1] * 3.0  # type: ignore[operator]
    model = checked_model(model.graph, (nodes, table))
    prepared = kernel.reweighted(model, uniform(model.graph))
    assert fits_reweighted(dtype, prepared.reach[prepared.which], *prepared.sides).all()
    single = dtype == torch.float32
    assert_kernel_is_the_reference(
        model, Run(6, 0.0, 0.0, "flooding"), uniform(model.graph), atol=2e-4 if single else 1e-11
    )


@pytest.mark.parametrize("scale", [1.0, 20.0])
@pytest.mark.parametrize("iterations", [1, 4, 50])
def test_grid_kernel_encloses_the_exact_value_in_single_precision(iterations: int, scale: float) -> None:
    graph = lnz.FactorGraph.grid(3, 4, 3)
    generator = torch.Generator().manual_seed(5)
    scores = [torch.randn(20, *shape, generator=generator) * scale for shape in ((12, 3), (17, 3, 3))]
    scores[0][3, 5, 0] = scores[1][4, 2, 1, 2] = -torch.inf
    p = lnz.MRF(graph, scores, TreeReweighted(iterations, 0.0))
    lower = lnz.MRF(graph, scores, MeanField(iterations, 0.0)).log_partition
    exact = lnz.MRF(graph, [entry.double() for entry in scores], Enumeration()).log_partition
    rounding = 1e-6 * (1 + exact.abs())
    assert (lower.double() <= exact + rounding).all()
    assert (p.log_partition.double() >= exact - rounding).all()


def test_impossible_images_are_the_reference_and_leave_the_others_alone() -> None:
    model = grid_model("per image")
    model.entries[0][0, 3] = -torch.inf  # type: ignore[index]
    prepared, passing = kernel.reweighted(model, uniform(model.graph)), Reweighted(model, uniform(model.graph))
    value, beliefs, messages, *_ = solved(prepared, 6)
    expected = iterate(passing, Run(6, 0.0, 0.0, "flooding")).messages
    assert torch.isneginf(value[0])
    assert_same(value, upper_bound(passing, expected), atol=1e-10)
    assert_same(beliefs, node_beliefs(passing, expected), atol=1e-11)
    grad = torch.ones(BATCH, dtype=torch.float64)
    pulled = gathered(passing, passing.node_to_factor(expected), grad, factors)
    for ours, known in zip(pull_back(model, prepared, messages, grad), pulled, strict=True):
        assert_same(ours, known, atol=1e-10)


def test_buffers_need_not_be_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    model = grid_model("weighted")
    clean = solved(kernel.reweighted(model, uniform(model.graph)), 5)
    new_empty = Tensor.new_empty
    monkeypatch.setattr(Tensor, "new_empty", lambda self, *a, **k: new_empty(self, *a, **k).fill_(torch.nan))
    again = solved(kernel.reweighted(model, uniform(model.graph)), 5)
    assert all(torch.equal(a, b) for a, b in zip(clean, again, strict=True))


def test_no_tables_of_edges_are_held_unless_they_are_the_answer() -> None:
    height, width, labels = 40, 40, 32
    edges = height * (width - 1) * 2
    graph = lnz.FactorGraph.grid(height, width, labels)
    node, table = (torch.randn(*shape, dtype=torch.float64) for shape in ((height * width, labels), (labels, labels)))
    p = lnz.MRF(graph, (node.requires_grad_(), table.requires_grad_()), TreeReweighted(3, 0.0))
    largest: list[int] = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            out = func(*args, **(kwargs or {}))
            outs = out if isinstance(out, tuple | list) else (out,)
            if func is not torch.ops.aten.view.default:
                largest.extend(t.numel() for t in outs if isinstance(t, Tensor))
            return out

    with Watch():
        p.log_partition.backward()
        _ = p.node_marginals
    assert max(largest) <= 4 * height * width * labels  # the messages
    largest.clear()
    tracemalloc.start()
    with Watch():
        _ = p.solution.marginals[1]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert max(largest) == edges * labels**2
    assert peak < edges * labels**2  # bytes: nothing beside the answer, which torch holds


@pytest.mark.parametrize("by_direction", [False, True])
def test_bound_and_its_gradient_do_not_depend_on_the_backend(by_direction: bool) -> None:
    graph = lnz.FactorGraph.grid(HEIGHT, WIDTH, LABELS, by_direction=by_direction)
    generator = torch.Generator().manual_seed(4)
    scores = [
        torch.randn(3, count, *labels, generator=generator, dtype=torch.float64).requires_grad_()
        for count, labels in zip(graph.num_factors, graph.labels, strict=True)
    ]
    results = []
    for name in ("auto", "reference"):
        with backend(name):  # type: ignore[arg-type]
            p = lnz.MRF(graph, scores, TreeReweighted(20, 0.0))
            value = p.log_partition
            slopes = torch.autograd.grad(value.sum(), scores, create_graph=True)
            curvature = torch.autograd.grad(slopes[0][0, 3, 1], scores, retain_graph=True)
            answers = (p.node_marginals, *p.marginals)
            derivatives = [torch.autograd.grad(a.square().sum(), scores, retain_graph=True) for a in answers]
            results.append((value, *slopes, *curvature, *answers, *(d for ds in derivatives for d in ds)))
    for ours, expected in zip(*results, strict=True):
        assert_same(ours.detach(), expected.detach(), atol=1e-10)


def test_another_backend_may_differentiate_and_answer() -> None:
    model = grid_model("shared")
    nodes = [entry.requires_grad_() for entry in model.tensors]
    p, q = (lnz.MRF(model.graph, nodes, TreeReweighted(20, 0.0)) for _ in range(2))
    value = p.log_partition.sum()
    expected = torch.autograd.grad(value, nodes, retain_graph=True)
    with backend("reference"):
        for ours, known in zip(torch.autograd.grad(value, nodes), expected, strict=True):
            assert_same(ours, known, atol=1e-9)
        pairs = p.marginals[1]
    assert_same(pairs, q.marginals[1], atol=1e-9)
