"""The scores of a factor graph: forms, checks, gathering, conditioning."""

from __future__ import annotations

import pytest
import torch

import lnz
from lnz.scores import Model, checked_model, observe
from tests.suite import equal, random_scores

GRAPH = lnz.FactorGraph.pairwise(3, 2, torch.tensor([[0, 1], [1, 2]]))
NODES, EDGES = random_scores((4, 3, 2), 0), random_scores((2, 2), 1)


def test_forms_agree_once_written_out() -> None:
    weight = random_scores((4, 2), 2).abs()
    compact = checked_model(GRAPH, (NODES, lnz.Weighted(weight, EDGES)))
    written = checked_model(GRAPH, (NODES, weight[..., None, None] * EDGES))
    assert compact.batch_shape == written.batch_shape == (4,)
    equal(compact.expanded(1), written.expanded(1))
    y = torch.tensor([[0, 1, 1], [1, 0, 1], [0, 0, 0], [1, 1, 1]])
    equal(compact.score(y), written.score(y))
    assert len(compact.tensors) == 3


def test_shared_tables_stay_views() -> None:
    model = checked_model(GRAPH, (NODES, EDGES))
    assert model.expanded(1).shape == (4, 2, 2, 2)
    assert model.expanded(1).untyped_storage().data_ptr() == EDGES.untyped_storage().data_ptr()


@pytest.mark.parametrize(
    ("scores", "error", "message"),
    [
        (NODES, TypeError, "scores: expected a sequence of 2 entries, one per group, got one entry"),
        ((NODES,), ValueError, "scores: expected one entry per group of factors, 2 in all, got 1"),
        ((NODES, [1.0]), TypeError, r"scores\[1\]: expected a torch.Tensor or lnz.Weighted, got list"),
        ((NODES, EDGES[:1]), ValueError, r"scores\[1\]: expected shape \[\*batch, 2, 2, 2\] or \[2, 2\], got \[1, 2\]"),
        ((NODES, lnz.Weighted(torch.ones(2), EDGES[0])), ValueError, r"scores\[1\].table: expected shape \[2, 2\]"),
        ((NODES, lnz.Weighted(torch.ones(5), EDGES)), ValueError, r"scores\[1\].weight: expected shape \[\*batch, 2\]"),
        (
            (NODES, random_scores((3, 2, 2, 2), 0)),
            ValueError,
            r"batch shapes that broadcast together, got \[\[4\], \[3\]\]",
        ),
    ],
)
def test_scores_that_make_no_sense(scores: tuple, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        checked_model(GRAPH, scores)


def test_minus_infinity_times_a_weight_must_stay_impossible() -> None:
    table = torch.tensor([[0.0, -torch.inf], [0.0, 0.0]])
    checked_model(GRAPH, (NODES, lnz.Weighted(torch.ones(2), table)))
    with pytest.raises(ValueError, match="a table with -inf needs positive weights, got 0.0"):
        checked_model(GRAPH, (NODES, lnz.Weighted(torch.zeros(2), table)))


def test_observing_clamps_and_scores_contradictions_minus_infinity() -> None:
    model = observe(Model(GRAPH, (NODES, EDGES)), torch.tensor([0, -100, -100]))
    y = torch.tensor([[0, 1, 1], [1, 1, 1], [0, 0, 0], [1, 0, 0]])
    assert torch.isneginf(model.score(y)).tolist() == [False, True, False, True]
    with pytest.raises(ValueError, match=r"y: expected shape \[\*batch, 3\], got \[4\]"):
        observe(model, torch.zeros(4, dtype=torch.int64))
