"""Argument checks: what they refuse, and that they stay out of the way of tracing and vmap."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch

from lnz import InfeasibleError
from lnz.checks import (
    as_counts,
    as_labels,
    as_lengths,
    as_sample_shape,
    check_broadcast,
    check_event_shape,
    check_feasible,
    check_generator,
    check_integer,
    check_labels,
    check_number,
    check_positive,
    check_scores,
    common_dtype,
    concrete,
    numbers,
    promoted,
    working_dtype,
)
from lnz.errors import ConvergenceWarning, warn


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


def test_labels_of_any_integer_dtype() -> None:
    for dtype in (torch.uint8, torch.int32, torch.int64):
        assert as_labels("y", torch.tensor([0, 2], dtype=dtype)).tolist() == [0, 2]
        assert as_labels("y", torch.tensor([0, 2], dtype=dtype)).dtype == torch.int64
    for dtype in (torch.bool, torch.float32):
        with pytest.raises(TypeError, match=f"y: expected a torch.Tensor of integers, got {dtype}"):
            as_labels("y", torch.zeros(2, dtype=dtype))
    with pytest.raises(TypeError, match="y: expected a torch.Tensor of integers, got list"):
        as_labels("y", [0, 2])


def test_integers() -> None:
    check_integer("k", 1)
    check_integer("k", torch.tensor(3))
    check_integer("k", 0, least=0)
    for value in ("3", None):
        with pytest.raises(TypeError, match=f"k: expected a positive integer, got {value!r}"):
            check_integer("k", value)
    with pytest.raises(ValueError, match="k: expected a positive integer, got 0"):
        check_integer("k", 0)
    with pytest.raises(ValueError, match="k: expected an integer of at least 0, got -1"):
        check_integer("k", -1, least=0)


def test_numbers_above_0() -> None:
    check_positive("t", 0.5)
    check_positive("t", 2)
    for value in (0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match=f"t: expected a positive number, got {value}"):
            check_positive("t", value)
    with pytest.raises(TypeError, match="t: expected a positive number, got 'a'"):
        check_positive("t", "a")


def test_shapes_of_samples() -> None:
    assert as_sample_shape([2, 0]) == (2, 0)
    for value in (3, (1.5,), "a"):
        with pytest.raises(TypeError, match="sample_shape: expected a sequence of integers, such as"):
            as_sample_shape(value)
    with pytest.raises(ValueError, match=r"sample_shape: expected sizes of at least 0, got \(2, -1\)"):
        as_sample_shape((2, -1))


def test_counts() -> None:
    cpu = torch.device("cpu")
    assert as_counts("n", torch.tensor([[1], [2]], dtype=torch.int32), 2, cpu).tolist() == [1, 2]
    for value in (["a", "b"], None):
        with pytest.raises(TypeError, match="n: expected integers, got "):
            as_counts("n", value, 2, cpu)
    with pytest.raises(TypeError, match="n: expected integers, got dtype torch.float32"):
        as_counts("n", [1.0, 2.0], 2, cpu)
    with pytest.raises(ValueError, match="n: expected 2 numbers, one per batch entry, got 1"):
        as_counts("n", [1], 2, cpu)


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


def test_settings() -> None:
    check_integer("n", -1, None)
    check_integer("n", 3, 3)
    check_number("x", np.float32(0.5), "a number in (0, 1)", lambda x: 0 < x < 1)
    assert numbers("t", torch.tensor([1.0, 2.0])) == numbers("t", (1, np.int64(2))) == (1.0, 2.0)
    check_generator(None)
    for check, kind, message in [
        (lambda: check_integer("n", "a", None), TypeError, "n: expected an integer, got 'a'"),
        (lambda: check_integer("n", 1.5, None), ValueError, "n: expected an integer, got 1.5"),
        (lambda: check_integer("n", 0, 1), ValueError, "n: expected a positive integer, got 0"),
        (lambda: check_integer("n", 2, 4), ValueError, "n: expected an integer of at least 4, got 2"),
        (lambda: check_number("x", None), TypeError, "x: expected a number, got None"),
        (lambda: check_number("x", float("nan")), ValueError, "x: expected a number, got nan"),
        (lambda: check_number("x", 2, "a share", lambda x: x < 1), ValueError, "x: expected a share, got 2"),
        (lambda: numbers("t", 3), TypeError, "t: expected a sequence of numbers, got 3"),
        (lambda: numbers("t", ["a"]), TypeError, "t: expected a sequence of numbers"),
        (lambda: check_generator(3), TypeError, "generator: expected a torch.Generator or None, got 3"),
    ]:
        with pytest.raises(kind, match=message):
            check()


def test_warnings_point_at_the_line_outside_of_lnz_and_torch() -> None:
    as_lnz, as_torch = {"__name__": "lnz.deep", "warn": warn}, {"__name__": "torch.nn"}
    exec("def inner(): warn('slow', Category)", as_lnz)
    exec("def through(function): return function()", as_torch)
    exec("def outer(): return through(inner)", as_lnz)
    as_lnz |= {"Category": ConvergenceWarning, "through": as_torch["through"]}
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        as_lnz["outer"]()
    assert [(x.category, x.filename) for x in seen] == [(ConvergenceWarning, __file__)]


def test_lengths_are_integers_of_any_dtype_or_a_list() -> None:
    for lengths in (torch.tensor([2, 0], dtype=torch.int32), torch.tensor([2, 0]), [2, 0], (2, 0)):
        found = as_lengths(lengths, 2)
        assert found.dtype == torch.int64
        assert found.tolist() == [2, 0]
    assert as_lengths([], 3).dtype == torch.int64
    for bad in (torch.tensor([1.0]), [1.5], torch.tensor([True])):
        with pytest.raises(TypeError, match="lengths: expected integers, got dtype"):
            as_lengths(bad, 3)
    with pytest.raises(TypeError, match="lengths: expected integers, got 'ab'"):
        as_lengths("ab", 3)
    with pytest.raises(ValueError, match=r"lengths: expected values in \[0, 3\], the steps, got 4 at \[1\]"):
        as_lengths([3, 4], 3)


def test_scores_are_promoted_as_torch_promotes() -> None:
    half, brain, single = (torch.zeros(1, dtype=dtype) for dtype in (torch.float16, torch.bfloat16, torch.float32))
    assert common_dtype(half, brain) == torch.float32
    assert common_dtype(brain, None, brain) == torch.bfloat16
    assert common_dtype() == torch.get_default_dtype()
    assert [x.dtype for x in promoted(half, single, single.double())] == [torch.float64] * 3
    assert working_dtype(torch.bfloat16) == torch.float32
    assert working_dtype(torch.float64) == torch.float64
