"""Compiling kernels with Numba."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from numba import njit
from numba.core.compiler_lock import global_compiler_lock
from numba.core.dispatcher import Dispatcher
from numba.core.types import unliteral

from lnz.ops.jit.cpu.announce import announced
from lnz.ops.jit.cpu.cache import KernelCache
from lnz.ops.jit.cpu.linked import ForCallers, add_overload

if hasattr(os, "register_at_fork"):  # a child of a thread beside one that compiles would wait for it for ever
    os.register_at_fork(
        before=global_compiler_lock.acquire,
        after_in_parent=global_compiler_lock.release,
        after_in_child=global_compiler_lock.release,
    )


_KERNEL: dict[str, Any] = {"nogil": True, "no_cfunc_wrapper": True}
_HELPER: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, "pipeline_class": ForCallers}


def kernel(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """``numba.njit``, kept on disk, without the interpreter's lock while it runs.

    Compiled functions lie in ``NUMBA_CACHE_DIR`` if that is set, else beside the sources, else (where these cannot be
    written) in the user's cache directory; see :mod:`lnz.ops.jit.store`.
    """

    def compiled(function: Callable[..., Any]) -> Any:
        dispatcher = njit(**_KERNEL, **options)(function)
        if isinstance(dispatcher, Dispatcher):  # NUMBA_DISABLE_JIT gives the function back
            made: Any = dispatcher
            made._cache = KernelCache(function)
            made._compiler.compile = announced(made._compiler.compile, function)
            made.get_call_template = partial(_of_types, made.get_call_template)
        return dispatcher

    return compiled


def helper(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """``numba.njit`` for what compiled functions call, compiled once per types of its arguments.

    Numba's own is compiled anew for every number that a caller writes down and for a variable's first value, with what
    Python needs to call it, and optimised by itself; leaving that out takes less than half the time. Called from
    Python, it is the function itself.
    """

    def compiled(function: Callable[..., Any]) -> Any:
        dispatcher = njit(**_HELPER, **options)(function)
        if isinstance(dispatcher, Dispatcher):
            made: Any = dispatcher
            made.get_call_template = partial(_of_types, made.get_call_template)
            made.add_overload = partial(add_overload, made.overloads)
            made._compile_for_args = lambda *args, **kwargs: function
        return dispatcher

    return compiled


def _of_types(template: Callable[..., Any], args: Sequence[Any], kws: dict[str, Any]) -> Any:
    """The callee for the types of arguments, whatever literals they are."""
    return template([unliteral(kind) for kind in args], {name: unliteral(kind) for name, kind in kws.items()})
