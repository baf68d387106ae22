"""Approximate methods at any offset of scores, in half precision, at the ends of the range, and on empty batches."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

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
from tests.suite import random_scores

EDGES = torch.tensor([[0, 1], [1, 2], [2, 0], [2, 3], [3, 4], [4, 0]])
GOLD = torch.tensor([[0, 1, 2, 0, 1], [2, 2, 1, 1, 0]])
SUMMING = [
    BeliefPropagation(200, 0.0, damping=0.3),
    BeliefPropagation(100, 0.0, schedule="sequential"),
    TreeReweighted(200, 0.0, damping=0.3),
    MeanField(100, 0.0),
]


def answers(method: Method, node: Tensor, edge: Tensor) -> dict[str, Tensor]:
    node, edge = node.clone().requires_grad_(), edge.clone().requires_grad_()
    p = lnz.MRF(lnz.FactorGraph.pairwise(5, 3, EDGES), (node, edge), method)
    loss = nll(p, GOLD, "none")
    by_node, by_edge = torch.autograd.grad(loss.sum(), (node, edge))
    found = {"loss": loss, "entropy": p.entropy(), "nodes": p.node_marginals, "edges": p.marginals[1]}
    return {name: value.detach() for name, value in (found | {"by node": by_node, "by edge": by_edge}).items()}


@pytest.mark.parametrize("offset", [0.0, 1e4, -1e4, 1e6, -1e6])
@pytest.mark.parametrize("method", SUMMING, ids=str)
def test_an_offset_changes_nothing_but_log_partition(method: Method, offset: float) -> None:
    node, edge = (random_scores((2, 5, 3), 1) + offset).float(), (random_scores((6, 3, 3), 2) / 2 - offset / 2).float()
    single, double = answers(method, node, edge), answers(method, node.double(), edge.double())
    for name, value in single.items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value.double(), double[name], rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("offset", [1e37, -1e37])
@pytest.mark.parametrize("method", SUMMING, ids=str)
def test_at_the_end_of_the_range_every_labelling_is_alike(method: Method, offset: float) -> None:
    node, edge = torch.full((2, 5, 3), offset), torch.full((6, 3, 3), -offset)
    found = answers(method, node, edge)
    torch.testing.assert_close(found["entropy"], torch.full((2,), 5 * math.log(3)), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found["loss"], torch.full((2,), 5 * math.log(3)), rtol=1e-5, atol=1e-5)
    p = lnz.MRF(lnz.FactorGraph.pairwise(5, 3, EDGES), (node, edge), method)
    assert torch.isfinite(p.log_partition).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("method", SUMMING, ids=str)
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
