"""Expected scores against their definition, and updates in the limit of impossible scores."""

from __future__ import annotations

import itertools

import pytest
import torch

import lnz
from lnz.ops.mean_field.reference import Block, Expectation, MeanField, product
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
