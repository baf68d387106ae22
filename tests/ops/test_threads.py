"""Kernels on torch's threads and on an executor's: every share once, errors, forks, other OpenMP libraries."""

import ctypes
import os
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import lnz
from lnz.ops.jit import openmp, threads
from lnz.ops.jit.cpu import kernel
from lnz.ops.jit.threads import Partition, parallel, partition

needs_openmp = pytest.mark.skipif(not openmp.parallel_region(), reason="torch has no OpenMP library that lnz can call")


class Pair(NamedTuple):
    x: np.ndarray
    y: np.ndarray


@kernel()
def add_products(first, last, pair, scale, out):
    for i in range(first, last):
        out[i] += scale * pair.x[i] * pair.y[i]


@kernel()
def refuse(first, last, which, out):
    for i in range(first, last):
        if i == which:
            raise ValueError("refused")
        out[i] = 1


@kernel()
def returns(first, last):
    return last - first


@pytest.fixture(params=[pytest.param("openmp", marks=needs_openmp), "executor"])
def two_threads(request, monkeypatch):
    monkeypatch.setattr(threads, "_team", openmp.parallel_region if request.param == "openmp" else lambda: 0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)


@given(st.integers(0, 100), st.integers(1, 20), st.integers(1, 9))
def test_shares_hold_every_item_once(count, parts, unit):
    work = partition(count, parts, unit)
    shares = work.shares()
    assert len(shares) == work.parts <= parts
    assert [i for first, last in shares for i in range(first, last)] == list(range(count))
    assert all(last > first for first, last in shares) or count == 0
    if count >= unit * parts:
        assert all(first % unit == 0 for first, _ in shares)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize(("count", "parts", "unit"), [(0, 1, 1), (1, 1, 1), (7, 3, 1), (100, 2, 4), (1000, 97, 8)])
def test_every_share_is_done_once(count, parts, unit):
    x = np.arange(float(count))
    for dtype in (np.float64, np.float32):
        out = np.ones(count, dtype)
        parallel(add_products, partition(count, parts, unit), Pair(x, x), 2, out)
        np.testing.assert_array_equal(out, (1 + 2 * x * x).astype(dtype))


def test_native_shares_are_those_of_the_partition():
    """One share at a time: the native code cuts the range as ``Partition.shares`` says."""

    @kernel()
    def mark(first, last, out):
        out[first:last] = first

    for work in (partition(103, 7, 4), partition(5, 5), partition(64, 3, 8), Partition(10, 4, 8)):
        out, expected = np.full((2, work.count), -1)
        for first, last in work.shares():
            expected[first:last] = first
        parallel(mark, work, out)
        np.testing.assert_array_equal(out, expected)


@pytest.mark.usefixtures("two_threads")
def test_the_error_of_a_share_is_raised():
    for which in (0, 50, 99):
        for _ in range(20):
            with pytest.raises(ValueError, match="refused"):
                parallel(refuse, partition(100, 100), which, np.zeros(100))
    out = np.zeros(100)
    parallel(refuse, partition(100, 100), -1, out)
    assert out.all(), "the next call finds nothing of it"


def test_a_kernel_that_returns_something_is_refused():
    with pytest.raises(TypeError, match="returns: expected a kernel that returns nothing"):
        parallel(returns, partition(4, 2))


@pytest.mark.usefixtures("two_threads")
def test_calls_of_many_python_threads_at_once():
    """OpenMP keeps a team for each of a few of them; the others share the executor."""
    x, outs = np.arange(1000.0), np.zeros((12, 1000))

    def work(out):
        for _ in range(50):
            parallel(add_products, partition(1000, 8), Pair(x, x), 1, out)

    callers = [threading.Thread(target=work, args=(out,)) for out in outs]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    np.testing.assert_array_equal(outs, np.tile(50 * x * x, (12, 1)))


def test_a_few_threads_at_a_time_keep_teams():
    callers, admitted = openmp._Callers(), []
    barrier = threading.Barrier(7)

    def call():
        admitted.append(callers.admit() and callers.admit())
        barrier.wait()

    for _ in range(2):  # the first threads have ended, and their places are free again
        admitted.clear()
        started = [threading.Thread(target=call) for _ in range(7)]
        for thread in started:
            thread.start()
        for thread in started:
            thread.join()
        assert sorted(admitted) == [False] * 3 + [True] * 4


@pytest.fixture
def calls(monkeypatch):
    """The ``team`` and ``threads`` of each launch, of which none happens."""
    seen = []
    monkeypatch.setattr(threads, "_launcher", lambda _: lambda team, number, *_: seen.append((team, number)) or 0)
    return seen


@needs_openmp
def test_as_many_threads_as_torch_has(calls, monkeypatch):
    for number in (1, 2, 5):
        monkeypatch.setattr(torch, "get_num_threads", lambda number=number: number)
        parallel(add_products, partition(8, 8))
    parallel(add_products, partition(8, 1))
    region = openmp.parallel_region()
    assert calls == [(0, 1), (region, 2), (region, 5), (0, 1)]


def test_a_forked_process_and_the_executors_threads_work_alone(calls, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(openmp._Process, "forked", True)
    parallel(add_products, partition(8, 8))
    monkeypatch.undo()
    assert calls == [(0, 1)]


def test_work_inside_the_executor_does_not_wait_for_itself(monkeypatch):
    monkeypatch.setattr(threads, "_team", lambda: 0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    x, outs = np.arange(100.0), np.zeros((8, 100))

    def task(out):
        return lambda: parallel(add_products, partition(100, 8), Pair(x, x), 1, out)

    threads.side_by_side([task(out) for out in outs])
    np.testing.assert_array_equal(outs, np.tile(x * x, (8, 1)))


@pytest.mark.usefixtures("two_threads")
def test_every_task_is_done_once_and_its_error_is_raised():
    for count in (0, 1, 2, 9):
        done = []
        threads.side_by_side([partial(done.append, k) for k in range(count)])
        assert sorted(done) == list(range(count))

    def fail():
        raise ValueError("refused")

    for place in (0, 5):
        tasks = [lambda: None] * 6
        tasks[place] = fail
        with pytest.raises(ValueError, match="refused"):
            threads.side_by_side(tasks)


@pytest.mark.usefixtures("two_threads")
def test_tasks_that_share_their_own_work_do_it_alone():
    done = []

    def outer():
        own = []
        threads.side_by_side([lambda: own.append(threading.get_ident())] * 4)
        done.append(own == [threading.get_ident()] * 4)

    threads.side_by_side([outer] * 3)
    assert done == [True] * 3


@needs_openmp
def test_torchs_library_is_found_beside_another_one():
    """scikit-learn brings one of its own."""
    pytest.importorskip("sklearn.cluster._k_means_lloyd")

    class Symbol(ctypes.Structure):
        _fields_ = (("file", ctypes.c_char_p), *((name, ctypes.c_void_p) for name in ("base", "name", "address")))

    found = Symbol()
    ctypes.CDLL(None).dladdr(ctypes.c_void_p(openmp.parallel_region.__wrapped__()), ctypes.byref(found))
    assert Path(found.file.decode()).is_relative_to(Path(torch.__file__).parent)


SCRIPT = """
import os, multiprocessing, sys
import numpy as np, torch
from lnz.ops.jit.cpu import kernel
from lnz.ops.jit.threads import parallel, partition, side_by_side

@kernel()
def count(first, last, out):
    out[first:last] += 1

def check(number=0):
    out = np.zeros(1000)
    for _ in range(20):
        parallel(count, partition(1000, 8), out)
        side_by_side([lambda share=share: count(*share, out) for share in partition(1000, 5).shares()])
    assert (out == 40).all()

torch.set_num_threads(2)
"""

FORKED = """
torch.ones(2000, 2000).exp_().sum()  # on two threads
check()
for _ in range(2):
    child = os.fork()
    if not child:
        check()
        torch.set_num_threads(1)  # torch's own operations would wait for threads of the parent
        torch.ones(2000, 2000).exp_().sum()
        check()
        grandchild = os.fork()
        if not grandchild:
            check()
            os._exit(0)
        os._exit(os.waitpid(grandchild, 0)[1] != 0)
    assert os.waitpid(child, 0)[1] == 0
    check()
with multiprocessing.get_context("fork").Pool(2) as pool:
    pool.map(check, range(4))
data = torch.utils.data.DataLoader([torch.ones(2)] * 4, num_workers=2, collate_fn=lambda batch: check(), batch_size=2)
assert list(data) == [None, None]
check()
"""

# what calls it is a callback on the threads of a parallel region
NESTED = """
import ctypes
from lnz.ops.jit import openmp
done = []
region = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _: done.append(check()))
start = ctypes.CFUNCTYPE(None, type(region), ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)(openmp.parallel_region())
check()
start(region, None, 2, 0)
assert done == [None, None], done
"""


def _run(script, **environment):
    environment = {**os.environ, "PYTHONPATH": str(Path(lnz.__file__).parents[1]), **environment}
    environment.pop("OMP_NUM_THREADS", None)
    return subprocess.run(
        [sys.executable, "-c", SCRIPT + script],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.mark.parametrize("kind", ["openmp", "executor"])
def test_children_of_a_parent_that_used_threads(kind):
    done = _run(FORKED, LNZ_THREADS=kind)
    assert done.returncode == 0, done.stderr


@needs_openmp
def test_calls_inside_a_parallel_region_work_alone():
    done = _run(NESTED)
    assert done.returncode == 0, done.stderr


def test_the_variable_chooses(monkeypatch):
    monkeypatch.setenv("LNZ_THREADS", "executor")
    assert threads._team.__wrapped__() == 0
    monkeypatch.setenv("LNZ_THREADS", "openmp")
    assert threads._team.__wrapped__() == openmp.parallel_region()
    monkeypatch.setenv("LNZ_THREADS", "many")
    with pytest.raises(ValueError, match="LNZ_THREADS: expected one of openmp, executor, got 'many'"):
        threads._team.__wrapped__()
