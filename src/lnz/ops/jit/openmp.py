"""The OpenMP library that torch runs on, as far as kernels use it: teams of the threads that torch's operations use.

After every parallel operation torch's threads wait for the next one for some milliseconds without sleeping. Kernels on
threads of their own share the cores with them; kernels on the same threads start at once.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Callable
from functools import cache

import torch

_CALLERS = 4  # threads that may keep a team of their own at a time, which OpenMP gives to each


@cache
def parallel_region() -> int:
    """The address of torch's ``GOMP_parallel``; 0 where torch has none.

    Looked up in the order in which torch's own call was bound: what is loaded for all, then what torch itself leans on.
    Other packages bring OpenMP libraries too, and theirs has other threads.
    """
    if sys.platform != "linux" or not torch.backends.openmp.is_available():
        return 0
    for library in (None, torch._C.__file__):
        try:
            return ctypes.cast(ctypes.CDLL(library).GOMP_parallel, ctypes.c_void_p).value or 0
        except (OSError, AttributeError):
            continue
    return 0


_BODY = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_REGION = ctypes.CFUNCTYPE(None, _BODY, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)  # lets the interpreter's lock go


def run(region: int, work: Callable[[], None], threads: int) -> None:
    """``work()`` on every thread of a team of so many; it must not raise."""
    _REGION(region)(_BODY(lambda _: work()), None, threads, 0)


class _Callers:
    """Which threads start teams: OpenMP keeps the threads of a team for each, for as long as that thread lives."""

    def __init__(self) -> None:
        self.places, self.own = threading.BoundedSemaphore(_CALLERS), threading.local()

    def admit(self) -> bool:
        """Whether the calling thread has, or now gets, one of the places; it is free again when the thread ends."""
        if not hasattr(self.own, "place"):
            if not self.places.acquire(blocking=False):
                return False
            self.own.place = _Place(self.places)
        return True


class _Place:
    def __init__(self, places: threading.BoundedSemaphore) -> None:
        self.places = places

    def __del__(self) -> None:
        self.places.release()


callers = _Callers()


class _Process:
    forked = False  # from one that may have had a team: its threads are not here, and starting it would wait for them


def _after_fork() -> None:
    _Process.forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def forked() -> bool:
    """Whether this process was forked after this module was imported, and has not become another program since."""
    return _Process.forked
