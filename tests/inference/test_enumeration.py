"""Enumeration, the library's own oracle: what it refuses, and models at the edges of what it lists."""

from __future__ import annotations

import pytest
import torch

import lnz
from lnz.inference import Enumeration
from tests.suite import equal


def test_refuses_more_labellings_than_asked_for() -> None:
    graph = lnz.FactorGraph.grid(3, 3, 2)
    p = lnz.MRF(graph, (torch.zeros(9, 2), torch.zeros(2, 2)), Enumeration(max_table=511))
    with pytest.raises(lnz.IntractableError, match="512 labellings are more than max_table=511") as error:
        _ = p.log_partition
    assert error.value.table_bytes == 512 * 4
    assert "BeliefPropagation" in error.value.alternatives


def test_counts_independent_sets_of_a_grid() -> None:
    """The hard-core model on 3 × 3 has 63 independent sets (OEIS A006506)."""
    table = torch.tensor([[0.0, 0.0], [0.0, -torch.inf]], dtype=torch.float64)
    p = lnz.MRF(lnz.FactorGraph.grid(3, 3, 2), (torch.zeros(9, 2, dtype=torch.float64), table), Enumeration())
    equal(p.log_count.exp(), torch.tensor(63.0, dtype=torch.float64))
    equal(p.log_partition, p.log_count)
    assert p.diagnostics == {"labellings": 512}


def test_nodes_without_factors_are_uniform() -> None:
    p = lnz.MRF(
        lnz.FactorGraph((3, 2), (torch.tensor([[1]]),)), (torch.zeros(1, 2, dtype=torch.float64),), Enumeration()
    )
    equal(p.node_marginals[0], torch.full((3,), 1 / 3, dtype=torch.float64))
    equal(p.log_partition.exp(), torch.tensor(6.0, dtype=torch.float64))
