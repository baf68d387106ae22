"""Compiling kernels with Numba."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from numba import njit
from numba.core.compiler_lock import global_compiler_lock
from numba.core.dispatcher import Dispatcher

from lnz.ops.jit.cpu.announce import announced
from lnz.ops.jit.cpu.cache import KernelCache

if hasattr(os, "register_at_fork"):  # a child of a thread beside one that compiles would wait for it for ever
    os.register_at_fork(
        before=global_compiler_lock.acquire,
        after_in_parent=global_compiler_lock.release,
        after_in_child=global_compiler_lock.release,
    )


def kernel(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """``numba.njit``, kept on disk, without the interpreter's lock while it runs.

    Compiled functions lie in ``NUMBA_CACHE_DIR`` if that is set, else beside the sources, else (where these cannot be
    written) in the user's cache directory; see :mod:`lnz.ops.jit.store`.
    """

    def compiled(function: Callable[..., Any]) -> Any:
        dispatcher = njit(nogil=True, **options)(function)
        if isinstance(dispatcher, Dispatcher):  # NUMBA_DISABLE_JIT gives the function back
            made: Any = dispatcher
            made._cache = KernelCache(function)
            made._compiler.compile = announced(made._compiler.compile, function)
        return dispatcher

    return compiled
