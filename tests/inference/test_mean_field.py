"""Mean field: the published value, monotone ascent, products of marginals as gradients, and q off impossible labels."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

import lnz
from lnz.inference import Enumeration, MeanField
from lnz.ops.mean_field.reference import MeanField as Updates
from lnz.ops.mean_field.reference import blocks
from tests.inference.test_belief_propagation import _libdai, assert_same, frustrated, loopy
from tests.inference.test_bounds import GRAPHS, cycle, random_model

SCHEDULES = ("coordinate", "parallel")


@pytest.mark.data
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_libdai_grid(shared_data: Path, schedule: str) -> None:
    case, graph, scores = _libdai(shared_data)
    p = lnz.MRF(graph, scores, MeanField(1000, 1e-12, schedule=schedule, damping=0.1))
    assert p.log_partition.item() - case["exact_logZ"] == pytest.approx(-1.235, abs=5e-4)


def product_bound(p: lnz.MRF, q: list[Tensor]) -> Tensor:
    """E_q[s(y)] + H(q) by listing every labelling: the definition."""
    total = torch.zeros((), dtype=torch.float64)
    for y in itertools.product(*(range(len(single)) for single in q)):
        probability = torch.stack([single[label] for single, label in zip(q, y, strict=True)]).prod()
        if probability > 0:
            total = total + probability * (p.score(torch.tensor(y)) - probability.log())
    return total


@pytest.mark.parametrize("iterations", [1, 2, 50])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_value_is_the_bound_of_its_node_marginals(iterations: int, schedule: str) -> None:
    graph, scores = loopy(scale=1.5)
    p = lnz.MRF(graph, scores, MeanField(iterations, 0.0, schedule=schedule))
    q = [single[:card] for single, card in zip(p.node_marginals, graph.cardinalities, strict=True)]
    assert_same(p.log_partition, product_bound(p, q))
    for card, single in zip(graph.cardinalities, p.node_marginals, strict=True):
        assert_same(single[:card].sum(), torch.ones((), dtype=torch.float64))
        assert not single[card:].any()


@pytest.mark.parametrize("damping", [0.0, 0.3])
@pytest.mark.parametrize("name", GRAPHS)
def test_coordinate_ascent_never_lowers_the_bound(name: str, damping: float) -> None:
    graph = GRAPHS[name]
    model = lnz.MRF(graph, random_model(graph, seed=7)).model
    updates = Updates(model)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(*model.batch_shape, graph.num_nodes, graph.max_cardinality, generator=generator)
    q = updates.start(noise.double())
    before = updates.bound(q)
    for _ in range(4):
        for block in blocks(updates, False):
            q = updates.updated(q, block, damping)
            value = updates.bound(q)
            assert (value >= before - 1e-9).all()
            before = value


def test_a_colour_updated_at_once_is_its_nodes_one_by_one() -> None:
    graph, scores = loopy(scale=1.0)
    updates = Updates(lnz.MRF(graph, scores).model)
    together = blocks(updates, False)
    nodes = torch.cat([block.nodes for block in together])
    assert torch.equal(nodes.sort().values, torch.arange(graph.num_nodes))
    a = b = updates.start()
    for block in together:
        a = updates.updated(a, block)
        for node in block.nodes:
            alone = type(block)(node[None], updates.wiring.incident(node[None]))
            b = updates.updated(b, alone)
    assert_same(a, b, atol=1e-14)


@pytest.mark.parametrize("iterations", [2, 60])
def test_gradient_is_the_products_of_marginals_converged_or_not(iterations: int) -> None:
    graph, scores = loopy(batch=(3,))
    for tensor in scores:
        tensor.requires_grad_()
    p = lnz.MRF(graph, scores, MeanField(iterations, 0.0))
    grads = torch.autograd.grad(p.log_partition.sum(), scores)
    for grad, belief in zip(grads, p.marginals, strict=True):
        assert_same(grad, belief.detach(), atol=1e-13)
    q = p.node_marginals.detach()
    for grad, scope, labels in zip(grads, graph.scopes, graph.labels, strict=True):
        if len(labels) == 2:
            a, b = (q[:, nodes, :card] for nodes, card in zip(scope.T, labels, strict=True))
            assert_same(grad, a[..., :, None] * b[..., None, :], atol=1e-13)


def test_gradient_at_the_fixed_point_is_the_derivative_of_the_bound() -> None:
    graph, method = cycle(3, 2), MeanField(12, 0.0)
    generator = torch.Generator().manual_seed(0)
    node, edge = (torch.randn(3, *ls, generator=generator, dtype=torch.float64) / 4 for ls in ((2,), (2, 2)))

    def value(node: Tensor, edge: Tensor) -> Tensor:
        return lnz.MRF(graph, (node, edge), method).log_partition

    assert torch.autograd.gradcheck(value, (node.requires_grad_(), edge.requires_grad_()), atol=1e-6)
    assert torch.autograd.gradgradcheck(value, (node, edge.detach()), atol=1e-5)


def test_compact_scores_are_the_expanded_ones() -> None:
    graph = GRAPHS["grid"]
    generator = torch.Generator().manual_seed(0)
    node, table, weight = (
        torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()
        for shape in ((4, 9, 2), (2, 2), (4, 12))
    )
    method = MeanField(20, 0.0)
    for compact, full in (
        (table, table.expand(12, 2, 2)),
        (lnz.Weighted(weight, table), lnz.Weighted(weight, table).expand()),
    ):
        one, other = (lnz.MRF(graph, (node, entry), method).log_partition for entry in (compact, full))
        assert_same(one, other, atol=1e-12)
        leaves = [node, table] + ([weight] if isinstance(compact, lnz.Weighted) else [])
        grads = (torch.autograd.grad(value.sum(), leaves, retain_graph=True) for value in (one, other))
        for a, b in zip(*grads, strict=True):
            assert_same(a, b, atol=1e-12)


@pytest.mark.parametrize(("side", "colourings"), [(2, 18), (3, 246), (6, 3**36)])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_colouring_a_grid_keeps_off_impossible_labels(schedule: str, side: int, colourings: int) -> None:
    """Neighbours must differ: uniform marginals violate, so q must break the symmetry."""
    graph = lnz.FactorGraph.grid(side, side, 3)
    differ = torch.zeros(3, 3, dtype=torch.float64).fill_diagonal_(-torch.inf).requires_grad_()
    node = torch.zeros(2, side**2, 3, dtype=torch.float64)
    p = lnz.MRF(graph, (node, differ), MeanField(60, 0.0, schedule=schedule))
    assert torch.isfinite(p.log_partition).all()
    assert (p.log_partition >= 0).all()  # one colouring has probability 1 at worst: ln 1
    assert (p.log_partition < math.log(colourings)).all()
    (grad,) = torch.autograd.grad(p.log_partition.sum(), differ)
    assert not grad.isnan().any()
    assert not grad.diagonal().any()
    assert torch.isfinite(p.score(p.argmax())).all()


def test_no_possible_labelling_is_minus_infinity() -> None:
    triangle = lnz.FactorGraph.pairwise(3, 2, torch.tensor([[0, 1], [1, 2], [2, 0]]))
    differ = torch.zeros(2, 2, dtype=torch.float64).fill_diagonal_(-torch.inf).requires_grad_()
    p = lnz.MRF(triangle, (torch.zeros(3, 2, dtype=torch.float64), differ), MeanField(20, 0.0))
    assert torch.isneginf(p.log_partition)
    assert p.diagnostics["restarted"]
    assert not torch.autograd.grad(p.log_partition, differ)[0].isnan().any()
    with pytest.raises(lnz.InfeasibleError):
        p.argmax()


def test_a_bound_of_minus_infinity_shows_nothing_but_what_a_factor_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    """ln P(y) is s(y) less a bound that says nothing: it was s(y)."""
    graph = lnz.FactorGraph.pairwise(3, 2, torch.tensor([[0, 1], [1, 2], [2, 0]]))
    edge = torch.zeros(2, 3, 2, 2, dtype=torch.float64)
    edge[0] = torch.zeros(2, 2).fill_diagonal_(-torch.inf)  # two labels for a triangle of different ones
    p = lnz.MRF(graph, (torch.ones(3, 2, dtype=torch.float64), edge), MeanField(20, 0.0))
    assert p.log_partition.tolist() == pytest.approx([-math.inf, 3 + 3 * math.log(2)])
    assert p.log_prob(torch.zeros(3).long()).tolist() == pytest.approx([-math.inf, -3 * math.log(2)])  # impossible
    assert p.log_prob(torch.tensor([0, 0, -100])).tolist() == pytest.approx([-math.inf, -2 * math.log(2)])
    latent = p.log_prob(torch.tensor([0, -100, -100]))
    assert latent.isnan().tolist() == [True, False]
    assert latent[1] == pytest.approx(-math.log(2))
    for answer in (lambda: p.marginals, lambda: p.node_marginals, p.entropy):
        with pytest.raises(lnz.FailedEstimateError, match=r"MeanField found only impossible .*entries \[0\]"):
            answer()
    p = lnz.MRF(graph, (torch.tensor([[0.0, -torch.inf]] * 3), edge[0].float()), MeanField(20, 0.0))
    p = p.condition(torch.tensor([1, -100, -100]))
    assert torch.isneginf(p.log_partition)
    with pytest.raises(lnz.InfeasibleError):
        _ = p.marginals
    # a possible labelling that q does not find
    p = lnz.MRF(lnz.FactorGraph.grid(2, 2, 2), (torch.ones(4, 2).double(), edge[0, 0]), MeanField(20, 0.0))
    lost = torch.tensor(-torch.inf, dtype=torch.float64)
    monkeypatch.setattr(type(p.solution.functional), "value", lambda *_: lost)
    assert p.log_prob(torch.tensor([0, 1, 1, 0])).isnan()


def test_observed_nodes_are_clamped() -> None:
    graph, scores = loopy(scale=1.0)
    y = torch.tensor([[1, -100, 0, -100, -100], [1, 2, 0, 1, 1]])
    p = lnz.MRF(graph, scores, MeanField()).condition(y)
    q = p.node_marginals
    assert q[0, 0].tolist() == [0.0, 1.0, 0.0]
    assert q[0, 2, 0] == 1
    assert torch.equal(q[1].argmax(-1), y[1])
    assert_same(p.log_partition[1], lnz.MRF(graph, scores).score(y[1]))
    assert torch.equal(p.argmax()[1], y[1])
    assert torch.equal(p.argmax()[0, [0, 2]], y[0, [0, 2]])


def test_argmax_cannot_be_bettered_by_one_label() -> None:
    for name, graph in GRAPHS.items():
        p = lnz.MRF(graph, random_model(graph, seed=11), MeanField(50, 0.0))
        best = p.argmax()
        score = p.score(best)
        mode = p.node_marginals.argmax(-1)
        assert (score >= p.score(mode) - 1e-12).all()
        for node, card in enumerate(graph.cardinalities):
            for label in range(card):
                other = best.clone()
                other[..., node] = label
                assert (p.score(other) <= score + 1e-9).all(), name


def test_restarts_can_only_help_and_repeat() -> None:
    graph = GRAPHS["grid"]
    scores = random_model(graph, seed=2)
    one, many, again = (
        lnz.MRF(graph, scores, MeanField(300, restarts=restarts)).log_partition for restarts in (1, 6, 6)
    )
    assert (many >= one - 1e-9).all()
    assert (many > one + 0.1).any()
    assert torch.equal(many, again)
    other = lnz.MRF(graph, scores, MeanField(300, restarts=2, seed=5)).log_partition
    assert (other >= one - 1e-9).all()


def test_batch_entries_stop_on_their_own() -> None:
    graph, easy = loopy(0, scale=0.05)
    _, hard = loopy(1, scale=1.0)
    joint = lnz.MRF(graph, [torch.stack(pair) for pair in zip(easy, hard, strict=True)], MeanField())
    solo = [lnz.MRF(graph, scores, MeanField()) for scores in (easy, hard)]
    iterations = [int(p.diagnostics["iterations"]) for p in solo]
    assert iterations[0] < iterations[1]
    assert joint.diagnostics["iterations"].tolist() == iterations
    assert_same(joint.log_partition, torch.stack([p.log_partition for p in solo]), atol=1e-13)


def test_parallel_updates_may_swing_and_damping_settles_them() -> None:
    graph, scores = frustrated()
    p = lnz.MRF(graph, scores, MeanField(100, schedule="parallel"))
    with pytest.warns(lnz.ConvergenceWarning, match=r"MeanField: 1 of 1 .* try damping=0\.5, schedule='coordinate'"):
        value = p.log_partition
    assert value <= lnz.MRF(graph, scores, Enumeration()).log_partition
    settled = lnz.MRF(graph, scores, MeanField(500, schedule="parallel", damping=0.7))
    assert settled.log_partition > value
    assert settled.diagnostics["converged"]


def test_vmap_and_float32() -> None:
    graph, scores = loopy(batch=(3,))
    method = MeanField(30, 0.0)

    def value(*tensors: Tensor) -> Tensor:
        return lnz.MRF(graph, tensors, method).log_partition

    batched = value(*scores)
    assert_same(torch.vmap(value)(*scores), batched, atol=1e-13)
    slopes = torch.vmap(torch.func.grad(value))(*scores)
    assert_same(slopes, lnz.MRF(graph, scores, method).marginals[0], atol=1e-12)
    single = lnz.MRF(graph, [tensor.float() for tensor in scores], MeanField())
    assert single.log_partition.dtype == torch.float32
    torch.testing.assert_close(single.log_partition.double(), batched, atol=1e-4, rtol=1e-5)


def test_what_it_cannot_answer_and_wrong_settings() -> None:
    graph, scores = loopy()
    p = lnz.MRF(graph, scores, MeanField())
    assert not p.solution.exact
    for ask in (lambda: p.sample((2,)), lambda: p.topk(2)):
        with pytest.raises(TypeError, match="MeanField has no"):
            ask()
    for settings, message in (
        ({"max_iterations": 0}, "max_iterations: expected a positive integer, got 0"),
        ({"restarts": 1.5}, r"restarts: expected a positive integer, got 1\.5"),
        ({"tolerance": -1}, "tolerance: expected None or a number in"),
        ({"damping": 1.0}, r"damping: expected a number in \[0, 1\)"),
        ({"schedule": "random"}, "schedule: expected one of parallel, coordinate, got 'random'"),
    ):
        with pytest.raises(ValueError, match=message):
            MeanField(**settings)  # pyright: ignore[reportArgumentType]


def test_independent_nodes_are_exact() -> None:
    graph, _ = lnz.FactorGraph.grouped([2, 3, 2, 1], [[0], [1], []])
    scores = [torch.randn(2, *graph.scopes[g].shape[:1], *ls, dtype=torch.float64) for g, ls in enumerate(graph.labels)]
    p, q = (lnz.MRF(graph, scores, method) for method in (MeanField(), Enumeration()))
    assert_same(p.log_partition, q.log_partition)
    assert_same(p.node_marginals, q.node_marginals)


def test_the_tolerance_is_that_of_the_dtype_unless_it_is_given() -> None:
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-10)):
        assert MeanField().functional(dtype).tolerance == tolerance
        assert MeanField(tolerance=1e-3).functional(dtype).tolerance == 1e-3
