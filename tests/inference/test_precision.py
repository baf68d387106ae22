"""Approximate methods at any offset of scores, in half precision, at the ends of the range, and on empty batches."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

import lnz
from lnz.inference import (
    TRWS,
    AnnealedImportance,
    BeliefPropagation,
    DiscreteLangevin,
    Gibbs,
    GibbsWithGradients,
    GraphCuts,
    HamiltonianMonteCarlo,
    IntegerProgram,
    IteratedConditionalModes,
    MeanField,
    Method,
    MetropolisHastings,
    ParallelTempering,
    SimulatedAnnealing,
    SwendsenWang,
    TreeReweighted,
)
from lnz.objectives import nll
from lnz.scores import Model
from tests.suite import random_scores

EDGES = torch.tensor([[0, 1], [1, 2], [2, 0], [2, 3], [3, 4], [4, 0]])
GOLD = torch.tensor([[0, 1, 2, 0, 1], [2, 2, 1, 1, 0]])
SUMMING = [
    BeliefPropagation(200, 0.0, damping=0.3),
    BeliefPropagation(100, 0.0, schedule="sequential"),
    TreeReweighted(200, 0.0, damping=0.3),
    MeanField(100, 0.0),
]


def flip_one(model: Model, labels: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """A proposal of a user's own: a random label for a random node; symmetric."""
    shift = torch.randint(0, 3, labels.shape[:-1], generator=generator)[..., None]
    node = torch.randint(0, labels.shape[-1], labels.shape[:-1], generator=generator)[..., None]
    return labels.scatter(-1, node, (labels.gather(-1, node) + shift) % 3), torch.zeros(())


def answers(method: Method, node: Tensor, edge: Tensor) -> dict[str, Tensor]:
    node, edge = node.clone().requires_grad_(), edge.clone().requires_grad_()
    p = lnz.MRF(lnz.FactorGraph.pairwise(5, 3, EDGES), (node, edge), method)
    loss = nll(p, GOLD, "none")
    by_node, by_edge = torch.autograd.grad(loss.sum(), (node, edge))
    found = {"loss": loss, "entropy": p.entropy(), "nodes": p.node_marginals, "edges": p.marginals[1]}
    return {name: value.detach() for name, value in (found | {"by node": by_node, "by edge": by_edge}).items()}


@pytest.mark.parametrize("offset", [0.0, 1e4, -1e4, 1e6, -1e6])
@pytest.mark.parametrize("method", SUMMING, ids=lambda method: type(method).__name__)
def test_an_offset_changes_nothing_but_log_partition(method: Method, offset: float) -> None:
    node, edge = (random_scores((2, 5, 3), 1) + offset).float(), (random_scores((6, 3, 3), 2) / 2 - offset / 2).float()
    single, double = answers(method, node, edge), answers(method, node.double(), edge.double())
    for name, value in single.items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value.double(), double[name], rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("offset", [1e37, -1e37])
@pytest.mark.parametrize("method", SUMMING, ids=lambda method: type(method).__name__)
def test_at_the_end_of_the_range_every_labelling_is_alike(method: Method, offset: float) -> None:
    node, edge = torch.full((2, 5, 3), offset), torch.full((6, 3, 3), -offset)
    found = answers(method, node, edge)
    torch.testing.assert_close(found["entropy"], torch.full((2,), 5 * math.log(3)), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found["loss"], torch.full((2,), 5 * math.log(3)), rtol=1e-5, atol=1e-5)
    p = lnz.MRF(lnz.FactorGraph.pairwise(5, 3, EDGES), (node, edge), method)
    assert torch.isfinite(p.log_partition).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("method", SUMMING, ids=lambda method: type(method).__name__)
def test_losses_of_half_precision_are_rounded_once(method: Method, dtype: torch.dtype) -> None:
    """Confident gold: ln Z and the score are in the hundreds, what is between them is not."""
    node = random_scores((2, 5, 3), 3).scatter_add(-1, GOLD[..., None], torch.full((2, 5, 1), 100.0).double())
    node, edge = node.to(dtype), (random_scores((6, 3, 3), 4) / 2).to(dtype)
    half, double = answers(method, node, edge), answers(method, node.double(), edge.double())
    assert half["loss"].dtype == half["entropy"].dtype == dtype
    for name, value in half.items():
        torch.testing.assert_close(value.double(), double[name], rtol=2 * torch.finfo(dtype).eps, atol=1e-4)


@pytest.mark.slow  # compiles kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_losses_on_a_large_grid_with_confident_gold(dtype: torch.dtype) -> None:
    """bfloat16 gave −0.0 four times."""
    generator = torch.Generator().manual_seed(0)
    gold = torch.randint(0, 4, (4, 4096), generator=generator)
    node = torch.randn(4, 4096, 4, generator=generator).scatter_add(-1, gold[..., None], torch.full((4, 4096, 1), 8.0))
    node, edge = node.to(torch.bfloat16), torch.eye(4, dtype=torch.bfloat16) / 2
    graph = lnz.FactorGraph.grid(64, 64, 4)
    losses = nll(lnz.MRF(graph, (node.to(dtype), edge.to(dtype)), BeliefPropagation()), gold, "none")
    wanted = nll(lnz.MRF(graph, (node.double(), edge.double()), BeliefPropagation()), gold, "none")
    assert (wanted > 5).all()
    torch.testing.assert_close(losses.double(), wanted, rtol=2 * torch.finfo(dtype).eps, atol=1e-3)


SAMPLERS = [
    AnnealedImportance(steps=200),
    Gibbs(chains=64, sweeps=400),
    Gibbs("tree", chains=64, sweeps=400),
    Gibbs("systematic", chains=64, sweeps=400),
    MetropolisHastings(chains=64, sweeps=1000),
    MetropolisHastings(flip_one, chains=64, sweeps=4000),
    GibbsWithGradients(chains=64, sweeps=1500),
    DiscreteLangevin(1.0, chains=64, sweeps=1500),
    HamiltonianMonteCarlo(0.6, 3, chains=64, sweeps=400),
    ParallelTempering((1.0, 2.0), chains=64, sweeps=400),
]


@pytest.mark.parametrize("offset", [1e6, -1e6])
@pytest.mark.parametrize("method", SAMPLERS, ids=lambda method: type(method).__name__)
def test_an_offset_changes_no_estimate(method: Method, offset: float) -> None:
    """An eighth is what float32 tells apart there, and four or more scores add up around a node."""
    node, edge = (random_scores((5, 3), 1) + offset).float(), (random_scores((6, 3, 3), 2) / 2 - offset).float()
    graph = lnz.FactorGraph.pairwise(5, 3, EDGES)
    p = lnz.MRF(graph, (node, edge), method)
    truth = lnz.MRF(graph, (node.double(), edge.double()), lnz.inference.Enumeration())
    error = 5 * p.diagnostics["standard_error"]
    if isinstance(method, AnnealedImportance):
        assert error < 0.5
        assert (p.log_prob(GOLD[0]) - truth.log_prob(GOLD[0])).abs() < error
        assert (p.node_marginals - truth.node_marginals).abs().max() < 0.3
        low, high = p.diagnostics["interval"]
        assert low < truth.log_partition < high
    else:
        assert p.diagnostics["mixed"]
        assert error.max() < 0.1
        assert ((p.node_marginals - truth.node_marginals).abs() < error).all()
        start = method.init(p.model, 4000, torch.Generator().manual_seed(0)).labels  # from each node's own scores
        share = torch.nn.functional.one_hot(start, 3).double().mean(0)
        assert (share - node.double().softmax(-1)).abs().max() < 0.05


@pytest.mark.parametrize("offset", [1e6, -1e6])
@pytest.mark.parametrize(
    "method",
    [
        IteratedConditionalModes(restarts=20),
        IteratedConditionalModes(block_table=27),
        SimulatedAnnealing(),
        SimulatedAnnealing(moves="forests"),
        TRWS(),
        IntegerProgram(),
        BeliefPropagation(damping=0.3),
    ],
    ids=str,
)
def test_an_offset_changes_no_best_labelling(method: Method, offset: float) -> None:
    node, edge = (random_scores((5, 3), 1) + offset).float(), (random_scores((6, 3, 3), 2) - offset).float()
    graph = lnz.FactorGraph.pairwise(5, 3, EDGES)
    p = lnz.MRF(graph, (node, edge), method)
    truth = lnz.MRF(graph, (node.double(), edge.double()), lnz.inference.Enumeration())
    for backend in ("auto", "reference"):
        with lnz.ops.backend(backend):
            assert torch.equal(lnz.MRF(graph, (node, edge), method).argmax(), truth.argmax())
    assert torch.equal(p.argmax(), truth.argmax())
    assert p.diagnostics["score"] == truth.score(truth.argmax())
    assert p.diagnostics["bound"] >= p.diagnostics["score"]


@pytest.mark.parametrize("graph", [lnz.FactorGraph.pairwise(4, 2, EDGES[:4]), lnz.FactorGraph.grid(2, 2, 2)], ids=str)
@pytest.mark.parametrize(
    "method", [BeliefPropagation(), TreeReweighted(), MeanField(), AnnealedImportance(steps=5), Gibbs()], ids=str
)
def test_no_tangent_is_dropped(method: Method, graph: lnz.FactorGraph) -> None:
    node, edge = random_scores((4, 2), 1), random_scores((2, 2), 2)
    name = type(method).__name__

    def ask(what: str) -> Callable[[Tensor], Tensor]:
        def asked(node: Tensor) -> Tensor:
            p = lnz.MRF(graph, (node, edge), method)
            if what == "bounds":
                return lnz.bounds(p).lower
            found = getattr(p, what)
            return found[1] if what == "marginals" else found

        return asked

    wanted = {"node_marginals": name, "marginals": name, "bounds": "bounds"}
    if name != "Gibbs":
        wanted["log_partition"] = name
    for what, who in wanted.items():
        why = f"^{who} has no forward-mode derivatives; use reverse mode"
        with pytest.raises(NotImplementedError, match=why):
            torch.func.jvp(ask(what), (node,), (torch.ones_like(node),))
        with forward_ad.dual_level(), pytest.raises(NotImplementedError, match=why):
            ask(what)(forward_ad.make_dual(node, torch.ones_like(node)))


def test_a_weight_beside_an_impossible_score_has_a_gradient() -> None:
    weight = torch.tensor([1.5]).double().requires_grad_()
    table = torch.tensor([-math.inf, 0.5, 0.2]).double().requires_grad_()
    graph = lnz.FactorGraph((3,), [torch.tensor([[0]])])
    wanted = None
    for method in (lnz.inference.Enumeration(), BeliefPropagation(), TreeReweighted(), MeanField()):
        p = lnz.MRF(graph, (lnz.Weighted(weight, table),), method)
        found = torch.autograd.grad(p.entropy(), (weight, table))
        wanted = found if wanted is None else wanted
        for gradient, expected in zip(found, wanted, strict=True):
            torch.testing.assert_close(gradient, expected)
    assert wanted is not None
    assert wanted[0] != 0


ALL = [
    *SUMMING,
    BeliefPropagation(schedule="residual"),
    TreeReweighted(appearance="optimised"),
    MeanField(restarts=2),
    AnnealedImportance(steps=3),
    *(kind() for kind in (Gibbs, MetropolisHastings, GibbsWithGradients, DiscreteLangevin, HamiltonianMonteCarlo)),
    Gibbs("tree"),
    SwendsenWang(),
    ParallelTempering(),
    TRWS(),
    GraphCuts(),
    IntegerProgram(),
    IteratedConditionalModes(),
    SimulatedAnnealing(sweeps=3),
]


@pytest.mark.parametrize("method", ALL, ids=lambda method: type(method).__name__)
def test_a_batch_of_none(method: Method) -> None:
    graph = lnz.FactorGraph.pairwise(3, 2, torch.tensor([[0, 1], [1, 2], [2, 0]]))
    for scores in ((torch.zeros(0, 3, 2), torch.zeros(2, 2)), (torch.zeros(3, 2), torch.zeros(0, 3, 2, 2))):
        p = lnz.MRF(graph, scores, method)
        questions = {
            "log_partition": lambda p=p: p.log_partition,
            "entropy": lambda p=p: p.entropy(),
            "node_marginals": lambda p=p: p.node_marginals,
            "marginals": lambda p=p: p.marginals[1],
            "argmax": lambda p=p: p.argmax(),
            "sample": lambda p=p: p.sample((2,)),
        }
        answered = 0
        for ask in questions.values():
            try:
                found = ask()
            except TypeError as error:  # what a method does not answer
                if " has no " not in str(error):
                    raise
                continue
            assert 0 in found.shape
            answered += 1
        assert answered
        assert p.diagnostics
