"""Kernels on several threads: those of torch where that is possible, an executor's elsewhere."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch

from lnz.ops.jit import openmp

_CHOICES = ("openmp", "executor")


class Partition(NamedTuple):
    """The range [0, ``count``) as ``parts`` shares, of about equal size and of multiples of ``unit``."""

    count: int
    parts: int
    unit: int

    def cuts(self) -> list[int]:
        """Where each share begins, and where the last one ends."""
        units = -(-self.count // self.unit)
        return [min(self.count, self.unit * (units * k // self.parts)) for k in range(self.parts + 1)]

    def shares(self) -> list[tuple[int, int]]:
        """First and last (which is no longer part of it) of each share."""
        return [*pairwise(self.cuts())]


def partition(count: int, parts: int | None = None, unit: int = 1) -> Partition:
    """``count`` items as ``parts`` shares, or as many as torch has threads; fewer if there are fewer units.

    Args:
        count: of the items.
        parts: 1 keeps the work on the calling thread; several per thread even out work of uneven size.
        unit: a share is a multiple of it, as long as every part gets one: kernels take several items at a time.
    """
    parts = torch.get_num_threads() if parts is None else parts
    unit = unit if count >= unit * parts else 1
    return Partition(count, max(1, min(parts, -(-count // unit))), unit)


def parallel(kernel: Any, work: Partition, *arguments: Any) -> None:
    """``kernel(first, last, *arguments)`` for every share of ``work``, at the same time.

    The kernel is a compiled function (:func:`lnz.ops.jit.cpu.kernel`) that returns nothing. Shares must not wait for
    each other, since one thread may have to do them all; nor write the same memory. It takes as many threads as
    ``torch.get_num_threads()`` says, none beside the caller in a forked process, and returns when all shares are done.

    ``LNZ_THREADS=executor`` leaves torch's threads alone.

    Raises:
        Exception: what one of the shares raised. The others may then be done or not.
    """
    launch = _launcher(kernel)
    threads = torch.get_num_threads() if work.parts > 1 and not openmp.forked() and not _own.inside else 1
    team = _team() if threads > 1 else 0
    if team and not openmp.callers.admit():
        team = 0
    if threads > 1 and not team:
        launch = _Executor(launch, min(threads, work.parts))
    if launch(team, threads, 0, 0, *work, arguments):  # it does not know its kernel
        launch(team, threads, 0, _address(kernel, arguments), *work, arguments)


@cache
def _launcher(kernel: Any) -> Callable[..., int]:
    from lnz.ops.jit.cpu.launch import launcher  # with Numba, which takes long to import

    return launcher(kernel)


def _address(kernel: Any, arguments: tuple[Any, ...]) -> int:
    from lnz.ops.jit.cpu.launch import address_of

    return address_of(kernel, arguments)


@cache
def _team() -> int:
    """The address that starts torch's threads; 0 where the executor does the work."""
    chosen = os.environ.get("LNZ_THREADS", _CHOICES[0])
    if chosen not in _CHOICES:
        raise ValueError(f"LNZ_THREADS: expected one of {', '.join(_CHOICES)}, got {chosen!r}")
    return openmp.parallel_region() if chosen == "openmp" else 0


class _Executor:
    """A launcher's call, made by several threads of an executor that take their shares from one counter."""

    def __init__(self, launch: Callable[..., int], threads: int) -> None:
        self.launch, self.threads = launch, threads

    def __call__(self, team: int, threads: int, _: int, link: int, *rest: Any) -> int:
        counter = np.zeros(1, np.int64)
        call = (self.launch, team, threads, counter.ctypes.data, link, *rest)
        others = [_pool(self.threads - 1, os.getpid()).submit(*call) for _ in range(self.threads - 1)]
        try:
            result = call[0](*call[1:])
        finally:
            for other in others:
                other.exception()  # waits
        for other in others:
            other.result()
        return result


class _Own(threading.local):
    inside = False  # whether this thread is one of the executor's, which would wait for itself


_own = _Own()


def _mark() -> None:
    _own.inside = True


def side_by_side(tasks: Sequence[Callable[[], None]]) -> None:
    """Run all tasks, on torch's threads or the executor's; returns, or raises what one raised, when all are done.

    For what is more than one kernel call: :func:`parallel` starts sooner. Tasks must not wait for each other, since one
    thread may have to do them all: of a forked process it does, as one of several that a task has split its own work
    into.
    """
    if len(tasks) == 1:
        tasks[0]()
        return
    errors: list[BaseException] = []
    ahead = iter(tasks)

    def work() -> None:
        outermost, _own.inside = not _own.inside, True
        try:
            for task in ahead:  # each is handed out once: the iterator is advanced under the interpreter's lock
                task()
        except BaseException as error:  # out of a native thread none may leave
            errors.append(error)
        finally:
            _own.inside = not outermost

    threads = 1 if openmp.forked() or _own.inside else min(len(tasks), torch.get_num_threads())
    team = _team() if threads > 1 else 0
    if team and openmp.callers.admit():
        openmp.run(team, work, threads)
    else:
        others = [_pool(threads - 1, os.getpid()).submit(work) for _ in range(threads - 1)]
        work()
        for other in others:
            other.result()
    if errors:
        raise errors[0]


@cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, initializer=_mark)
