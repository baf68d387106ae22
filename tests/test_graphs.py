"""Factor graphs: what they refuse, and what they say about their wiring."""

from __future__ import annotations

import math

import pytest
import torch

from lnz import FactorGraph


def test_pairwise_groups_are_nodes_and_edges() -> None:
    g = FactorGraph.pairwise(3, 2, torch.tensor([[0, 1], [1, 2]]))
    assert (g.num_nodes, g.num_groups, g.num_factors) == (3, 2, (3, 2))
    assert g.labels == ((2,), (2, 2))
    assert g.uniform_cardinality == g.max_cardinality == 2
    assert g.log_num_labellings == pytest.approx(3 * math.log(2))
    assert g.is_forest
    with pytest.raises(ValueError, match=r"edges: expected an int64 tensor of shape \[E, 2\], got torch.int64 \[3\]"):
        FactorGraph.pairwise(3, 2, torch.arange(3))


def test_grid_edges_come_in_the_documented_order() -> None:
    g = FactorGraph.grid(2, 3, 4)
    edges = [[0, 1], [1, 2], [3, 4], [4, 5], [0, 3], [1, 4], [2, 5]]
    assert g.scopes[1].tolist() == edges
    g = FactorGraph.grid(2, 2, 4, neighbours=8, by_direction=True)
    assert [s.tolist() for s in g.scopes[1:]] == [[[0, 1], [2, 3]], [[0, 2], [1, 3]], [[0, 3]], [[1, 2]]]
    with pytest.raises(ValueError, match="neighbours: expected 4 or 8, got 6"):
        FactorGraph.grid(2, 2, 2, neighbours=6)
    with pytest.raises(ValueError, match="width: expected a positive integer, got 0"):
        FactorGraph.grid(2, 0, 2)


def test_grouped_sorts_by_cardinalities() -> None:
    g, positions = FactorGraph.grouped([2, 3, 2], [[0], [0, 1], [2], [2, 1], []])
    assert g.labels == ((2,), (2, 3), ())
    assert positions == [[0, 2], [1, 3], [4]]
    with pytest.raises(ValueError, match=r"scopes\[1\]: expected nodes in \[0, 3\), got 7"):
        FactorGraph.grouped([2, 3, 2], [[0], [7]])


@pytest.mark.parametrize(
    ("cardinalities", "scopes", "error", "message"),
    [
        ([2, 0], [], ValueError, "cardinalities: expected positive integers, got 0 for node 1"),
        ([2], [[[0]]], TypeError, r"scopes\[0\]: expected an int64 tensor \[F, k\], got list"),
        ([2], [torch.zeros(1, 1)], TypeError, r"scopes\[0\]: .* got torch.float32 \[1, 1\]"),
        ([2], [torch.tensor([0])], ValueError, r"scopes\[0\]: expected shape \[F, k\], got \[1\]"),
        ([2], [torch.tensor([[0], [1]])], ValueError, r"scopes\[0\]: expected nodes in \[0, 1\), got 1 in factor 1"),
        ([2, 2], [torch.tensor([[1, 1]])], ValueError, r"expected distinct nodes in a scope, got \[1, 1\] in factor 0"),
        ([2, 3], [torch.tensor([[0], [1]])], ValueError, r"factor 0 has \[2\] and factor 1 has \[3\].*grouped sorts"),
    ],
)
def test_wiring_that_makes_no_sense(cardinalities: list, scopes: list, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        FactorGraph(cardinalities, scopes)


def test_forests() -> None:
    assert FactorGraph([2] * 4, [torch.tensor([[0, 1, 2]]), torch.tensor([[2, 3]])]).is_forest
    assert not FactorGraph.grid(2, 2, 2).is_forest
    assert not FactorGraph([2] * 2, [torch.tensor([[0, 1], [1, 0]])]).is_forest
    assert FactorGraph([2] * 2, []).is_forest
