"""Expected scores against their definition, and updates in the limit of impossible scores."""

from __future__ import annotations

import itertools

import pytest
import torch

import lnz
from lnz.ops import backend
from lnz.ops.mean_field.op import MeanFieldFunctional, Schedule, solver
from lnz.ops.mean_field.reference import Block, Expectation, MeanField, product
from lnz.scores import Model, Weighted, checked_model, observe
from tests.inference.test_belief_propagation import assert_same
from tests.inference.test_bounds import GRAPHS, random_model


def random_q(graph: lnz.FactorGraph, batch: torch.Size) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    q = torch.rand(*batch, graph.num_nodes, graph.max_cardinality, generator=generator, dtype=torch.float64)
    beyond = torch.arange(graph.max_cardinality) >= torch.tensor(graph.cardinalities)[:, None]
    q = q.masked_fill(beyond, 0.0)
    return q / q.sum(-1, keepdim=True)


@pytest.mark.parametrize("violations", [False, True])
@pytest.mark.parametrize("name", GRAPHS)
def test_expected_scores_are_the_sums_over_joint_labels(name: str, violations: bool) -> None:
    graph = GRAPHS[name]
    scores = [entry[:2] for entry in random_model(graph, seed=0, impossible=0.3)]
    model = lnz.MRF(graph, scores).model
    q = random_q(graph, model.batch_shape)
    expectation = Expectation(model, violations=violations)
    got = expectation.expected(q, expectation.wiring.flooding)
    want = torch.zeros_like(q)
    for entry, scope, labels in zip(scores, graph.scopes, graph.labels, strict=True):
        if len(labels) < 2:
            continue
        for f, nodes in enumerate(scope.tolist()):
            for joint in itertools.product(*map(range, labels)):
                score = entry[(slice(None), f, *joint)]
                part = torch.isneginf(score).double() if violations else score.masked_fill(torch.isneginf(score), 0.0)
                for position, (node, label) in enumerate(zip(nodes, joint, strict=True)):
                    others = [(n, x) for k, (n, x) in enumerate(zip(nodes, joint, strict=True)) if k != position]
                    weight = torch.stack([q[:, n, x] for n, x in others]).prod(0)
                    want[:, node, label] += weight * part
    assert_same(got, want, atol=1e-11)


def test_updates_are_the_limit_of_very_low_scores() -> None:
    graph = GRAPHS["triples"]
    scores = [entry[10:] for entry in random_model(graph, seed=3, impossible=0.3)]
    scores = [entry.clamp(min=-30.0) if entry.dim() == 3 else entry for entry in scores]  # single nodes: finite
    low = [entry.masked_fill(torch.isneginf(entry), -1e9) for entry in scores]
    limit, finite = (MeanField(lnz.MRF(graph, entries).model) for entries in (scores, low))
    q = random_q(graph, limit.model.batch_shape)
    for nodes in torch.arange(graph.num_nodes).split(1):
        block = Block(nodes, limit.wiring.incident(nodes))
        assert_same(limit.updated(q, block), finite.updated(q, block), atol=1e-6)


def test_product_is_the_outer_product() -> None:
    a, b, c = (torch.rand(2, 5, size, dtype=torch.float64) for size in (2, 3, 4))
    want = torch.einsum("bfi,bfj,bfk->bfijk", a, b, c)
    assert_same(product(torch.zeros(1, 2, 3, 4, dtype=torch.float64), [a, b, c]), want, atol=1e-14)


HEIGHT, WIDTH, LABELS, BATCH = 5, 7, 3, 2
EDGES = HEIGHT * (WIDTH - 1) + (HEIGHT - 1) * WIDTH
FORMS = ["shared", "symmetric", "per image", "weighted", "weighted per image", "potts", "full", "full shared"]


def grid_model(form: str, dtype: torch.dtype = torch.float64, height: int = HEIGHT, width: int = WIDTH) -> Model:
    """Scores of a grid in one of the forms that the kernels tell apart."""
    generator = torch.Generator().manual_seed(1)
    graph = lnz.FactorGraph.grid(height, width, LABELS)
    edges = graph.num_factors[1]

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    table = random(LABELS, LABELS)
    entry = {
        "shared": lambda: table,
        "symmetric": lambda: table + table.T,
        "per image": lambda: random(BATCH, 1, LABELS, LABELS),
        "weighted": lambda: Weighted(random(BATCH, edges), table),
        "weighted per image": lambda: Weighted(random(BATCH, 1), table),
        "potts": lambda: Weighted(random(edges).abs(), torch.eye(LABELS, dtype=dtype) - 0.2),
        "full": lambda: random(BATCH, edges, LABELS, LABELS),
        "full shared": lambda: random(edges, LABELS, LABELS),
    }[form]()
    return checked_model(graph, (random(BATCH, height * width, LABELS), entry))


def serves(model: Model) -> bool:
    return not isinstance(solver(model), MeanField)


def assert_kernel_is_the_reference(model: Model, functional: MeanFieldFunctional, atol: float = 1e-12) -> None:
    assert serves(model)
    q, iterations, residual, redone = functional.state(model)
    value = functional.value(model, (q, iterations, residual, redone))
    with backend("reference"):
        assert not serves(model)
        expected = functional.state(model)
        bound = functional.value(model, (q, iterations, residual, redone))
    assert_same(q, expected[0], atol=atol)
    assert torch.equal(iterations, expected[1])
    assert_same(residual, expected[2], atol=atol)
    assert torch.equal(redone, expected[3])
    torch.testing.assert_close(value, bound, rtol=10 * atol, atol=10 * atol)


@pytest.mark.parametrize("schedule", ["parallel", "coordinate"])
@pytest.mark.parametrize("damping", [0.0, 0.3])
@pytest.mark.parametrize("form", FORMS)
def test_grid_kernel_is_the_reference(form: str, damping: float, schedule: Schedule) -> None:
    functional = MeanFieldFunctional(7, 0.0, damping, schedule, restarts=2, seed=0)
    assert_kernel_is_the_reference(grid_model(form), functional)


@pytest.mark.parametrize("form", FORMS)
def test_grid_kernel_in_float32(form: str) -> None:
    functional = MeanFieldFunctional(3, 0.0, 0.2, "coordinate", restarts=1, seed=0)
    assert_kernel_is_the_reference(grid_model(form, torch.float32), functional, atol=1e-5)


@pytest.mark.parametrize("schedule", ["parallel", "coordinate"])
def test_grid_kernel_stops_each_image_by_itself_and_keeps_observed_nodes(schedule: Schedule) -> None:
    model = grid_model("full")
    model.entries[1][1] *= 0.1  # type: ignore[index]  # one image converges long before the other
    observed = torch.full((BATCH, HEIGHT * WIDTH), -100)
    observed[0, 5], observed[1, 9] = 2, 0
    functional = MeanFieldFunctional(60, 1e-8, 0.1, schedule, restarts=1, seed=0)
    assert_kernel_is_the_reference(observe(model, observed), functional, atol=1e-10)
    q, iterations, *_ = functional.state(observe(model, observed))
    assert iterations[0] > iterations[1]
    assert q[0, 5].tolist() == [0, 0, 1]


@pytest.mark.parametrize("schedule", ["parallel", "coordinate"])
def test_threads_share_images_and_rows(schedule: Schedule) -> None:
    model = grid_model("shared", height=12, width=301)  # more pixels of a colour in a row than one tile
    one = checked_model(model.graph, (model.entries[0][:1], model.entries[1]))  # type: ignore[index]
    three = checked_model(model.graph, (model.entries[0].repeat(2, 1, 1)[:3], model.entries[1]))  # type: ignore[union-attr]
    functional = MeanFieldFunctional(3, 1e-12, 0.0, schedule, restarts=1, seed=0)
    threads = torch.get_num_threads()
    try:
        for shared in (one, model, three):
            torch.set_num_threads(1)
            assert_kernel_is_the_reference(shared, functional)
            alone = functional.state(shared)
            for count in (2, 3):
                torch.set_num_threads(count)
                for ours, expected in zip(functional.state(shared), alone, strict=True):
                    assert torch.equal(ours, expected)
    finally:
        torch.set_num_threads(threads)


def test_grid_kernel_with_directions_broadcasting_and_an_infeasible_image() -> None:
    graph = lnz.FactorGraph.grid(HEIGHT, WIDTH, LABELS, by_direction=True)
    generator = torch.Generator().manual_seed(2)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    node, across = random(3, HEIGHT * WIDTH, LABELS), random(2, 1, HEIGHT * (WIDTH - 1), LABELS, LABELS)
    functional = MeanFieldFunctional(5, 0.0, 0.0, "coordinate", restarts=1, seed=0)
    assert_kernel_is_the_reference(checked_model(graph, (node, across, random(LABELS, LABELS))), functional)
    assert functional.state(checked_model(graph, (node, across, across[0, 0, 0])))[1].shape == (2, 3)
    node[1, 4] = -torch.inf
    model = checked_model(graph, (node, random(3, 1, LABELS, LABELS), random(LABELS, LABELS)))
    assert_kernel_is_the_reference(model, functional)
    state = functional.state(model)
    assert torch.isneginf(functional.value(model, state)).tolist() == [False, True, False]


def test_other_models_are_left_to_the_reference() -> None:
    model = grid_model("shared")
    assert serves(model)
    table = model.entries[1].masked_fill(torch.eye(LABELS, dtype=torch.bool), -torch.inf)  # type: ignore[union-attr]
    assert not serves(checked_model(model.graph, (model.entries[0], table)))
    assert not serves(checked_model(model.graph, (model.entries[0].half(), table.half())))  # type: ignore[union-attr]
    diagonal = lnz.FactorGraph.grid(HEIGHT, WIDTH, LABELS, neighbours=8)
    assert not serves(checked_model(diagonal, (model.entries[0], model.entries[1])))
