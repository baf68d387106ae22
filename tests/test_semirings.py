"""The semirings: each computes what its definition says, and the gradients that inference relies on."""

from __future__ import annotations

import pytest
import torch

from lnz.semirings import KMax, Log, Max, Semiring
from tests.suite import equal, random_scores


@pytest.mark.parametrize(("semiring", "zero"), [(Log(), -torch.inf), (Max(), -torch.inf), (KMax(3), -torch.inf)])
def test_laws(semiring: Semiring, zero: float) -> None:
    a, b, c = (semiring.lift(random_scores((4, 5), seed)) for seed in range(3))
    one = semiring.lift(torch.zeros(4, 5, dtype=torch.float64))
    equal(semiring.times(a, one), a)
    equal(semiring.times(a, b), semiring.times(b, a))
    equal(semiring.times(semiring.times(a, b), c), semiring.times(a, semiring.times(b, c)))
    # plus over one more term of weight zero changes nothing, and times distributes over plus
    padded = torch.nn.functional.pad(a, (0, 3), value=zero)
    equal(semiring.plus(padded, -1), semiring.plus(a, -1))
    factor = semiring.lift(random_scores((4, 1), 7))
    summed = semiring.plus(semiring.times(a, factor), -1)
    equal(summed, semiring.times(semiring.plus(a, -1), factor.squeeze(-1)))


def test_k_max_keeps_the_best_sums_of_pairs() -> None:
    a, b = random_scores((6, 1), 0), random_scores((1, 5), 1)
    semiring = KMax(8)
    total = semiring.times(semiring.lift(a), semiring.lift(b))
    equal(semiring.plus(semiring.plus(total, -1), -1), (a + b).flatten().topk(8).values)
    rows, columns = semiring.plus(semiring.lift(a), -2), semiring.plus(semiring.lift(b), -1)
    equal(semiring.times(rows[:, 0], columns[:, 0]), (a + b).flatten().topk(8).values)


def test_log_has_no_nan_gradient_where_nothing_is_possible() -> None:
    x = torch.tensor([[-torch.inf, -torch.inf], [-torch.inf, 1.0]], dtype=torch.float64, requires_grad=True)
    z = Log().plus(x, -1)
    equal(z, torch.tensor([-torch.inf, 1.0], dtype=torch.float64))
    (gradient,) = torch.autograd.grad(z.sum(), x, create_graph=True)
    equal(gradient, torch.tensor([[0.0, 0.0], [0.0, 1.0]], dtype=torch.float64))
    (second,) = torch.autograd.grad(gradient.sum(), x)
    equal(second, torch.zeros(2, 2, dtype=torch.float64))


def test_max_points_at_one_best_term_under_ties() -> None:
    x = torch.zeros(3, 4, requires_grad=True)
    (gradient,) = torch.autograd.grad(Max().plus(x, -1).sum(), x)
    assert gradient.sum(-1).tolist() == [1, 1, 1]
    assert set(gradient.unique().tolist()) == {0, 1}
