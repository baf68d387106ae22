"""Vectors in kernels: every operator and function against NumPy on the same sixteen numbers."""

import numpy as np
import pytest
from numba import njit

from lnz.ops.jit.cpu.math import exp, log
from lnz.ops.jit.cpu.memory import address, first_lanes, gather, load, scatter, store
from lnz.ops.jit.cpu.product import best, matmul
from lnz.ops.jit.cpu.vectors import all_lanes, astype, broadcast, max_lanes, select, sum_lanes


@njit
def _arithmetic(a, b, out):
    x, y = load(a, (0,)), load(b, (0,))
    store(x + y, out, (0, 0))
    store(x - y, out, (1, 0))
    store(x * y, out, (2, 0))
    store(select(x < y, x, y), out, (3, 0))
    store(select((x > y) | (x == y), 7, y), out, (4, 0))
    store(select(x <= 2, broadcast(a[3]), x), out, (5, 0))
    total = x * 2
    total += y
    total *= 3
    total -= x
    store(total, out, (6, 0))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int8, np.int32, np.int64, np.uint32, np.uint64])
def test_arithmetic_and_comparisons_equal_numpy(dtype):
    x, y = (np.random.default_rng(seed).integers(0, 6, 16).astype(dtype) for seed in range(2))
    out = np.empty((7, 16), dtype)
    _arithmetic(x, y, out)
    chosen = np.where(x >= y, dtype(7), y), np.where(x <= 2, x[3], x)
    expected = [x + y, x - y, x * y, np.minimum(x, y), *chosen, (x * dtype(2) + y) * dtype(3) - x]
    assert (out == np.stack(expected)).all()


@njit
def _bits(a, b, out):
    x, y = load(a, (0,)), load(b, (0,))
    store(x & y, out, (0, 0))
    store(x ^ y, out, (1, 0))
    store(x >> 3, out, (2, 0))
    store(x << 2, out, (3, 0))


@pytest.mark.parametrize("dtype", [np.int32, np.uint32, np.int64, np.uint64])
def test_bits_equal_numpy(dtype):
    info = np.iinfo(dtype)
    x, y = (np.random.default_rng(seed).integers(info.min, info.max, 16, dtype) for seed in range(2))
    out = np.empty((4, 16), dtype)
    _bits(x, y, out)
    assert (out == np.stack((x & y, x ^ y, x >> dtype(3), x << dtype(2)))).all()


@njit
def _converted(x, real, narrow, wide):
    store(astype(load(x, (0,)), np.float32), real, (0,))
    store(astype(load(x, (0,)), np.int8), narrow, (0,))
    store(astype(load(x, (0,)), np.int64), wide, (0,))


def test_conversions_equal_numpy():
    x = np.arange(-900, 700, 100, dtype=np.int32)
    real, narrow, wide = np.empty(16, np.float32), np.empty(16, np.int8), np.empty(16, np.int64)
    _converted(x, real, narrow, wide)
    assert (real == x).all()
    assert (narrow == x.astype(np.int8)).all()
    assert (wide == x).all()


@njit
def _gathered(table, index, where, out):
    store(gather(table, load(index, (0,)), load(where, (0,)) == 1, 5), out, (0,))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_gather_touches_only_what_it_is_asked_for(dtype):
    table, out = np.arange(40, dtype=dtype) / 2, np.empty(16, dtype)
    index, where = np.arange(16) * 2, (np.arange(16) % 3 > 0).astype(np.uint8)
    index[where == 0] = 2**60
    _gathered(table, index, where, out)
    assert (out == np.where(where, table[np.minimum(index, 39)], 5)).all()


@njit
def _exponential(x, out):
    store(exp(load(x, (0,))), out, (0,))


@pytest.mark.parametrize(("dtype", "error"), [(np.float32, 2e-7), (np.float64, 1e-15)])
def test_exp(dtype, error):
    x, out = np.linspace(-80, 80, 16, dtype=dtype), np.empty(16, dtype)
    x[0] = -np.inf
    _exponential(x, out)
    assert out[0] == 0
    np.testing.assert_allclose(out[1:], np.exp(x[1:].astype(np.float64)), rtol=error)


@njit
def _reals(x, logarithms, quotients, narrow, wide):
    store(log(load(x, (0,))), logarithms, (0,))
    store(1 / load(x, (0,)), quotients, (0,))
    store(astype(load(x, (0,)), np.float32), narrow, (0,))
    store(astype(load(x, (0,)), np.float64), wide, (0,))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_logarithms_quotients_and_other_precisions_equal_numpy(dtype):
    x = np.geomspace(1e-30, 1e30, 16).astype(dtype)
    logarithms, quotients, narrow, wide = *np.empty((2, 16), dtype), np.empty(16, np.float32), np.empty(16)
    _reals(x, logarithms, quotients, narrow, wide)
    np.testing.assert_allclose(logarithms, np.log(x), rtol=4 * np.finfo(dtype).eps)
    assert (quotients == 1 / x).all()
    assert (narrow == x.astype(np.float32)).all()
    assert (wide == x).all()


@njit
def _parts(x, out, n):
    values = load(x, (1, 2), n, -1)
    store(values, out, (0, 0), 16)
    store(values, out, (1, 0), n)
    return sum_lanes(values), max_lanes(values), all_lanes(values > 0), all_lanes(values < 100)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [0, 1, 7, 16])
def test_parts_of_vectors_equal_numpy(dtype, n):
    x, out = np.arange(1, 2 * (n + 2) + 1, dtype=dtype).reshape(2, n + 2), np.zeros((2, 16), dtype)
    results = _parts(x, out, n)
    wanted = np.concatenate((x[1, 2:], np.full(16 - n, -1, dtype)))
    assert (out[0] == wanted).all()
    assert (out[1] == np.where(np.arange(16) < n, wanted, 0)).all()
    assert results == (wanted.sum(), wanted.max(), n == 16, True)


@njit
def _scattered(x, index, n, out):
    places = load(index, 0)
    scatter(load(x, 0), address(out, 0), places, first_lanes(n) & (places > 0))
    store(select(first_lanes(None), load(x, 0), 0), x, 0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_scatter_touches_only_what_it_is_asked_for(dtype):
    x, index = np.arange(16, dtype=dtype) + 1, np.arange(16)[::-1].copy() * 3
    out = np.zeros(64, dtype)
    _scattered(x, index, 15, out)
    expected = np.zeros(64, dtype)
    expected[index[:15]] = x[:15]
    assert (out == expected).all()
    assert (x == np.arange(16) + 1).all()


@njit
def _products(table, x, sums, tops):
    rows, inner, n = table.shape[1], table.shape[0], x.shape[1]
    at = address(table, 0), rows
    matmul(at, (address(x, 0), n), (address(sums, 0), n), rows, inner, n)
    best(at, (address(x, 0), n), (address(tops, 0), n), rows, inner, n)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_products_take_pointers(dtype):
    generator = np.random.default_rng(0)
    table, x = generator.normal(size=(5, 12)).astype(dtype), generator.normal(size=(5, 48)).astype(dtype)
    sums, tops = np.empty((2, 12, 48), dtype)
    _products(table, x, sums, tops)
    np.testing.assert_allclose(sums, table.T @ x, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(tops, (table[:, :, None] + x[:, None]).max(0), rtol=1e-5)
