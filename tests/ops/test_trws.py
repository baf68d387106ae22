"""The kernel of sequential message passing against the reference, and the flat layout it reads."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

import lnz
from lnz.ops import backend
from lnz.ops.icm.op import icm
from lnz.ops.layout import Layout
from lnz.ops.trws.cpu.sweep import sweep
from lnz.ops.trws.op import solve, whole_numbers
from tests.modes import random_model


@pytest.mark.parametrize("seed", range(12))
def test_the_kernel_equals_the_reference(seed):
    p = random_model(seed, batch=(2,) if seed % 2 else (), impossible=0.1 * (seed % 3))
    kernel = solve(p.model, 30, 1e-3)
    with backend("reference"):
        reference = solve(p.model, 30, 1e-3)
    torch.testing.assert_close(kernel.bound, reference.bound, rtol=1e-9, atol=1e-9)
    assert torch.equal(kernel.iterations, reference.iterations)
    torch.testing.assert_close(p.model.score(kernel.labels), p.model.score(reference.labels))


@pytest.mark.parametrize("seed", range(6))
def test_a_sweep_tells_the_score_of_the_labels_it_chose_and_a_bound_that_never_gets_worse(seed):
    p = random_model(seed)
    layout = Layout(p.model)
    scores = layout.scores(())
    lent, labels = np.zeros(layout.wiring.slot_at[-1]), np.zeros(p.graph.num_nodes, dtype=np.int64)
    order = np.arange(p.graph.num_nodes)
    before = np.inf
    for forward in (True, False) * 5:
        bound, score = sweep(layout.wiring, scores, order if forward else order[::-1].copy(), forward, lent, labels)
        assert score + scores.constant == pytest.approx(p.model.score(torch.from_numpy(labels)).item())
        assert bound <= before + 1e-9
        before = bound


def test_the_bound_is_that_of_what_was_lent():
    p = random_model(3)
    layout = Layout(p.model)
    scores, wiring = layout.scores(()), layout.wiring
    lent, labels = np.zeros(wiring.slot_at[-1]), np.zeros(p.graph.num_nodes, dtype=np.int64)
    bound, _ = sweep(wiring, scores, np.arange(p.graph.num_nodes), True, lent, labels)
    total = scores.nodes.copy()
    tables = 0.0
    for factor in range(len(wiring.factor_at) - 1):
        slots = range(wiring.factor_at[factor], wiring.factor_at[factor + 1])
        shape = [wiring.slot_at[s + 1] - wiring.slot_at[s] for s in slots]
        best = -np.inf
        for joint in itertools.product(*map(range, shape)):
            if len(shape) == 2:
                row = wiring.slot_table[slots[0]] + joint[1] * shape[0] + joint[0]
            else:
                row = wiring.slot_table[slots[0]] + sum(
                    x * wiring.slot_stride[s] for x, s in zip(joint, slots, strict=True)
                )
            value = scores.weights[wiring.factor_weight[factor]] * scores.tables[row]
            best = max(best, value + sum(lent[wiring.slot_at[s] + x] for x, s in zip(joint, slots, strict=True)))
        tables += best
        for s in slots:
            start = wiring.label_at[wiring.slot_node[s]]
            span = slice(start, start + wiring.slot_at[s + 1] - wiring.slot_at[s])
            total[span] -= lent[wiring.slot_at[s] : wiring.slot_at[s + 1]]
    nodes = sum(part.max() for part in np.split(total, wiring.label_at[1:-1]))
    assert bound == pytest.approx(nodes + tables)


@pytest.mark.parametrize("seed", range(8))
def test_icm_kernel_equals_the_reference(seed, generator):
    p = random_model(seed, batch=(2,) if seed % 2 else (), impossible=0.1 * (seed % 3))
    cards = torch.tensor(p.graph.cardinalities)
    start = (torch.rand(3, *p.batch_shape, p.graph.num_nodes, generator=generator) * cards).long()
    kernel = icm(p.model, start)
    with backend("reference"):
        reference = icm(p.model, start)
    assert torch.equal(kernel, reference)


def test_whole_numbers_are_recognised():
    graph = lnz.FactorGraph.pairwise(2, 2, torch.tensor([[0, 1]]))
    node = torch.tensor([[1.0, -torch.inf], [0.0, 3.0]])
    assert whole_numbers(lnz.MRF(graph, (node, torch.eye(2))).model)
    assert not whole_numbers(lnz.MRF(graph, (node, torch.eye(2) / 2)).model)
