"""Plain threads for kernels, which release the interpreter's lock."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache


def side_by_side(tasks: Sequence[Callable[[], None]]) -> None:
    """Run all tasks, the first of them on the calling thread; returns, or raises what one raised, when all are done.

    The threads stay from call to call (starting one takes as long as a small kernel). They are this process's own: a
    forked one, which inherits none, makes its own.
    """
    others = [_pool(len(tasks) - 1, os.getpid()).submit(task) for task in tasks[1:]]
    try:
        for task in tasks[:1]:
            task()
    finally:
        for other in others:
            other.exception()  # waits
    for other in others:
        other.result()


@cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads)
