"""Argument checks: what they refuse, and that they stay out of the way of tracing and vmap."""

from __future__ import annotations

import pytest
import torch

from lnz import InfeasibleError
from lnz.checks import check_broadcast, check_event_shape, check_feasible, check_labels, check_scores, concrete


def test_concrete_sees_through_gradients_but_not_vmap() -> None:
    seen = []

    def look(x: torch.Tensor) -> torch.Tensor:
        seen.append(concrete(x))
        return x.sum()

    x = torch.ones(3)
    look(x)
    torch.func.grad(look)(x)
    torch.func.vmap(look)(x[None])
    torch.func.vmap(torch.func.grad(look))(x[None])
    assert seen == [True, True, False, False]


def test_scores() -> None:
    check_scores("s", torch.tensor([0.0, -torch.inf]))
    check_scores("s", torch.empty(0))
    check_scores("s", torch.tensor([torch.nan]), values=False)
    with pytest.raises(ValueError, match=r"s: 2 of 3 scores are NaN, first at \[1\]"):
        check_scores("s", torch.tensor([torch.inf, torch.nan, torch.nan]))
    with pytest.raises(ValueError, match=r"s: 1 of 2 scores are \+inf, first at \[0\].*-inf for an impossible"):
        check_scores("s", torch.tensor([torch.inf, 1.0]))
    with pytest.raises(TypeError, match="s: expected a torch.Tensor, got float"):
        check_scores("s", 1.0)


def test_labels() -> None:
    check_labels("y", torch.tensor([0, 2, -100]), 3)
    check_labels("y", torch.tensor([0, 2]), torch.tensor([1, 3]))
    with pytest.raises(ValueError, match=r"y: expected labels in \[0, 1\), or -100 for unobserved, got 2 at \[0\]"):
        check_labels("y", torch.tensor([2, 2]), torch.tensor([1, 3]))
    with pytest.raises(ValueError, match=r"y: expected labels in \[0, 3\), got -100 at \[1\]"):
        check_labels("y", torch.tensor([0, -100]), 3, unobserved=False)


def test_shapes() -> None:
    check_event_shape("y", (7, 2, 3), (2, 3))
    with pytest.raises(ValueError, match=r"y: expected shape \[\*batch, 2, 3\], got \[3\]"):
        check_event_shape("y", (3,), (2, 3))
    check_broadcast("y", (4, 1), (3,))
    with pytest.raises(ValueError, match=r"y: expected a batch shape that broadcasts with \[3\], got \[2\]"):
        check_broadcast("y", (2,), (3,))


def test_feasible() -> None:
    check_feasible(torch.zeros(2), "p")
    with pytest.raises(InfeasibleError, match="p: no labelling has a finite score$"):
        check_feasible(torch.tensor(-torch.inf), "p")
    with pytest.raises(InfeasibleError, match=r"in batch entries \[0, 1, 2, 3, 4, 5, 6, 7, …\]") as error:
        check_feasible(torch.full((3, 3), -torch.inf), "p")
    assert error.value.entries == tuple(range(9))
