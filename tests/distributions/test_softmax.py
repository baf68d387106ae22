"""Softmax: the shared suite, and torch's own softmax and cross-entropy."""

from __future__ import annotations

import pytest
import torch
from hypothesis import strategies as st

import lnz
from tests import oracles
from tests.suite import DistributionSuite, Instance, batch_shapes, equal, impossibilities, random_scores, seeds


class TestSoftmax(DistributionSuite):
    @staticmethod
    @st.composite
    def instances(draw: st.DrawFn) -> Instance:
        shape = (*draw(batch_shapes), draw(st.integers(1, 5)))
        return Instance((random_scores(shape, draw(seeds), draw(impossibilities)),), lnz.Softmax, oracles.softmax)

    @staticmethod
    def example() -> Instance:
        return Instance((random_scores((2, 3), 0),), lnz.Softmax, oracles.softmax)

    @staticmethod
    def empties() -> dict[str, Instance]:
        return {"batch": Instance((random_scores((0, 3), 0),), lnz.Softmax, oracles.softmax)}


def test_is_cross_entropy_and_its_gradient_is_p_minus_y() -> None:
    scores = random_scores((4, 5), 0).requires_grad_()
    y = torch.tensor([0, 4, 2, 2])
    loss = lnz.objectives.nll(lnz.Softmax(scores), y, reduction="sum")
    equal(loss, torch.nn.functional.cross_entropy(scores, y, reduction="sum"))
    (gradient,) = torch.autograd.grad(loss, scores)
    equal(gradient, scores.softmax(-1) - torch.nn.functional.one_hot(y, 5))


def test_equals_its_mrf() -> None:
    p = lnz.Softmax(random_scores((3, 4), 1))
    q = p.to_mrf()
    equal(q.log_partition, p.log_partition)
    equal(q.marginals[0][:, 0], p.marginals)
    assert torch.equal(q.argmax()[:, 0], p.argmax())


@pytest.mark.parametrize("shape", [(), (2, 0)])
def test_needs_labels(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"scores: expected shape \[\*batch, L\] with L > 0, got"):
        lnz.Softmax(torch.zeros(shape))
