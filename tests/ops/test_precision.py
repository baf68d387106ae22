"""The precision ladder: which entries climb, and what is written back."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lnz.ops.precision import DOUBLE, LOGARITHMS, OWN, climb, rungs_above


class Given(NamedTuple):
    size: Tensor
    shared: Tensor


CALLS: list[tuple[torch.dtype, list[float]]] = []


def kernel(given: Given) -> tuple[tuple[Tensor, ...], Tensor]:
    CALLS.append((given.size.dtype, given.size.tolist()))
    limit = 10 if given.size.dtype == torch.float32 else 1000
    results = given.size.double() + given.shared, torch.full((2, len(given.size)), torch.nan, dtype=given.size.dtype)
    return results, given.size < limit


def logarithms(given: Given) -> tuple[Tensor, ...]:
    CALLS.append((given.size.dtype, given.size.tolist()))
    return (-given.size.double(),)


def test_each_entry_climbs_as_far_as_it_must() -> None:
    CALLS.clear()
    given = Given(torch.tensor([1.0, 100.0, 1e6, 2.0]), torch.ones(1))

    def double(some: Given) -> tuple[tuple[Tensor, ...], Tensor]:
        results, in_range = kernel(some)
        return results[:1], in_range

    (values, others), rung = climb(given, kernel, double, logarithms, results_at=(0, 1))
    assert rung.tolist() == [OWN, DOUBLE, LOGARITHMS, OWN]
    assert values.tolist() == [2.0, 101.0, -1e6, 3.0]
    assert torch.isnan(others).tolist() == [[True, False, False, True]] * 2  # left out by the rungs above: 0 there
    assert [
        (torch.float32, [1.0, 100.0, 1e6, 2.0]),
        (torch.float64, [100.0, 1e6]),
        (torch.float32, [1e6]),
    ] == CALLS
    assert [(level, which.tolist()) for level, which in rungs_above(rung)] == [(DOUBLE, [1]), (LOGARITHMS, [2])]


def test_nothing_is_done_twice_where_nothing_left_the_range() -> None:
    CALLS.clear()
    _, rung = climb(Given(torch.ones(3), torch.ones(1)), kernel, kernel, logarithms)
    assert rung.tolist() == [OWN] * 3
    assert len(CALLS) == 1
    assert not [*rungs_above(rung)]


def test_float64_goes_straight_to_logarithms() -> None:
    CALLS.clear()
    _, rung = climb(
        Given(torch.tensor([1e6, 1.0]).double(), torch.ones(1)), kernel, None, logarithms, results_at=(0, 1)
    )
    assert rung.tolist() == [LOGARITHMS, OWN]
    assert len(CALLS) == 2
