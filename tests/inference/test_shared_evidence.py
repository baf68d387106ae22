"""Gradients of the evidence of many rows by the tables that they share: no table per row."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import lnz
from lnz.inference.exact.exact import ExactSolution
from tests.suite import equal, random_scores


def network() -> tuple[lnz.BayesNet, list[Tensor]]:
    """With a loop, and tables that require gradients; in one of them, a zero."""
    cards, parents = [2, 3, 2, 2, 3], [[], [0], [0], [1, 2], [3]]
    shapes = [[cards[v] for v in (*above, node)] for node, above in enumerate(parents)]
    tables = [random_scores(tuple(shape), v).log_softmax(-1) for v, shape in enumerate(shapes)]
    tables[4][1] = torch.tensor([0.5, 0.5, 0.0]).double().log()
    leaves = [table.requires_grad_() for table in tables]
    return lnz.BayesNet(cards, parents, leaves), leaves


def rows(net: lnz.BayesNet, count: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    y = net.sample((count,), generator=generator)
    return y.masked_fill(torch.rand(y.shape, generator=generator) < 0.5, -100)


@pytest.mark.parametrize("count", [3, 40, 700])
def test_the_gradient_is_the_expected_statistics(count: int) -> None:
    """Of a weighted sum, weights of either sign; few rows are worked on one by one."""
    net, tables = network()
    y, weights = rows(net, count), random_scores((count,), 1)
    found = torch.autograd.grad((weights * net.log_prob(y)).sum(), tables)
    each = net.expected_statistics(y)
    for grad, counts in zip(found, each, strict=True):
        equal(grad, torch.einsum("r,r...->...", weights, counts))


def test_no_row_has_tables_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    net, tables = network()
    y = rows(net, 100)
    wanted = torch.autograd.grad(sum(net.log_prob(row) for row in y), tables)  # type: ignore[arg-type]

    def refused(*_: object) -> Tensor:
        raise AssertionError("a model per row")

    monkeypatch.setattr(ExactSolution, "_rows", refused)
    net, tables = network()
    for value in (net.log_prob(y), net.condition(y).log_partition, net.to_mrf().condition(y).log_partition):
        for one, two in zip(torch.autograd.grad(value.sum(), tables, retain_graph=True), wanted, strict=True):
            equal(one, two)
    loss = lnz.objectives.nll(net, y, reduction="sum")
    for one, two in zip(torch.autograd.grad(loss, tables), wanted, strict=True):
        equal(one, -two)


def test_gradients_of_gradients() -> None:
    net, tables = network()
    y = rows(net, 20)
    shapes = net.cardinalities, net.parents

    def evidence(*values: Tensor) -> Tensor:
        return lnz.BayesNet(*shapes, values, normalised=False).condition(y).log_partition

    leaves = tuple(table.detach().clamp(min=-3.0).requires_grad_() for table in tables)
    assert torch.autograd.gradcheck(evidence, leaves)
    assert torch.autograd.gradgradcheck(evidence, leaves)


def test_impossible_rows_have_no_gradient() -> None:
    net, tables = network()
    y = rows(net, 30)
    y[7, 3:] = torch.tensor([1, 2])
    value = net.log_prob(y)
    assert torch.isneginf(value).nonzero().flatten().tolist() == [7]
    found = torch.autograd.grad(value[torch.isfinite(value)].sum(), tables)
    assert all(torch.isfinite(grad).all() for grad in found)
    possible = torch.cat([y[:7], y[8:]])
    for one, two in zip(found, net.expected_statistics(possible, reduce=True), strict=True):
        equal(one, two)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtypes_stay(dtype: torch.dtype) -> None:
    net, tables = network()
    narrow = [table.detach().to(dtype).requires_grad_() for table in tables]
    value = lnz.BayesNet(net.cardinalities, net.parents, narrow).log_prob(rows(net, 50))
    assert value.dtype == dtype
    assert all(grad.dtype == dtype for grad in torch.autograd.grad(value.sum(), narrow))
