"""Expectations of sums over parts: kernels against recursions in plain torch, and their size."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import lnz
from lnz.ops import chain, semi_markov
from lnz.ops.chain.expectation import reference_expectation as of_chain
from lnz.ops.semi_markov.expectation import reference_expectation as of_segments
from tests import memory
from tests.suite import equal, random_scores

LENGTHS = torch.tensor([5, 3, 0, 1])
EDGES = pytest.mark.parametrize("edges", [(1, 1), (4, 1), (1, 4), (4, 4)])


def leaves(*shapes: tuple[int, ...], impossible: float = 0.1) -> tuple[Tensor, ...]:
    return tuple(random_scores(shape, i, impossible).requires_grad_() for i, shape in enumerate(shapes))


def same(actual: Tensor, wanted: Tensor, variables: tuple[Tensor, ...]) -> None:
    """Values, gradients, and derivatives of these."""
    equal(actual, wanted)
    weight = torch.linspace(-1, 2, len(actual), dtype=torch.float64)
    for a, w in zip(
        torch.autograd.grad(actual @ weight, variables, retain_graph=True),
        torch.autograd.grad(wanted @ weight, variables, retain_graph=True),
        strict=True,
    ):
        equal(a, w)
    slopes = [torch.autograd.grad(each @ weight, variables, create_graph=True) for each in (actual, wanted)]
    sums = [sum((g * g).sum() for g in each) for each in slopes]
    for a, w in zip(*(torch.autograd.grad(each, variables) for each in sums), strict=True):  # type: ignore[arg-type]
        equal(a, w)


@EDGES
@pytest.mark.parametrize("values", [None, (1, 1), (1, 4), (4, 4)])
def test_kernels_of_chains_equal_the_recursion(edges: tuple[int, int], values: tuple[int, int] | None) -> None:
    node, edge = leaves((4, 5, 3), (*edges, 3, 3))
    if values is None:
        same(chain.surprisal(node, edge, LENGTHS), of_chain(node, edge, LENGTHS), (node, edge))
        return
    u, v = leaves((4, 5, 3), (*values, 3, 3), impossible=0.0)
    actual, wanted = chain.expectation(node, edge, LENGTHS, (u, v)), of_chain(node, edge, LENGTHS, (u, v))
    same(actual, wanted, (node, edge, u, v))
    with lnz.ops.backend("reference"):
        equal(chain.expectation(node, edge, LENGTHS, (u, v)), wanted)


@EDGES
@pytest.mark.parametrize("values", [None, (1, 1), (4, 4)])
def test_kernels_of_segments_equal_the_recursion(edges: tuple[int, int], values: tuple[int, int] | None) -> None:
    segment, edge = leaves((4, 5, 2, 3), (*edges, 3, 3))
    function = None if values is None else leaves((4, 5, 2, 3), (*values, 3, 3), impossible=0.0)
    actual = semi_markov.expectation(segment, edge, LENGTHS, function)
    same(actual, of_segments(segment, edge, LENGTHS, function), (segment, edge, *(function or ())))


@memory.linux
def test_long_chains_take_memory_in_proportion_to_their_scores() -> None:
    """The marginals of pairs alone would take 6.5 GB."""
    T, L = 100_000, 64
    node, edge = (torch.randn(shape, requires_grad=True) for shape in ((1, T, L), (L, L)))
    short = lnz.LinearChain(node[:, :2], edge)
    torch.autograd.grad(short.entropy().sum() + torch.distributions.kl_divergence(short, short).sum(), (node, edge))
    before = memory.begin()
    p = lnz.LinearChain(node, edge)
    gradients = torch.autograd.grad(p.entropy().sum(), (node, edge))
    assert memory.peak() - before < 500e6  # 26 MB of scores
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert (gradients[0].sum(-1).abs() < 1e-4).all()


@pytest.mark.parametrize("scale", [1e30, 1e37])
def test_entropy_of_segmentations_at_huge_scores(scale: float) -> None:
    segment, edge = ((scale / 8 * x).float().requires_grad_() for x in leaves((4, 5, 2, 3), (3, 3), impossible=0.0))
    p = lnz.SemiMarkov(segment, edge, LENGTHS)
    equal(p.entropy(), torch.zeros(4))
    for gradient in torch.autograd.grad(p.entropy().sum(), (segment, edge)):
        equal(gradient, torch.zeros_like(gradient))
    equal(p.log_prob(p.argmax()), torch.zeros(4))
