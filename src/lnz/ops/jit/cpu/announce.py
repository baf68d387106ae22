"""What is said, and done, while a kernel is compiled: nobody should wonder why a first call takes seconds."""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from numba.core.dispatcher import Dispatcher

_PER_BYTE, _PER_FUNCTION = 2.2e-4, 0.06  # seconds on an idle core of 2026, of bytecode: right within a factor of two
_WORTH_SAYING = 1.0  # seconds
_logger = logging.getLogger("lnz")


def announced(compiler: Callable[..., Any], function: Any) -> Callable[..., Any]:
    """``compiler``, Numba's for one function, which says what it does; the kernels that it calls are part of it."""

    @wraps(compiler)
    def announcing(*args: Any, **kwargs: Any) -> Any:
        if _Compiling.depth == 0:
            _say(function)
        with _compiling():
            return compiler(*args, **kwargs)

    return announcing


class _Compiling:
    depth = 0  # under Numba's lock, which one thread at a time holds


@contextmanager
def _compiling() -> Iterator[None]:
    """Without collecting garbage: the compiler makes a million objects, most of which stay."""
    collecting = gc.isenabled()
    gc.disable()
    _Compiling.depth += 1
    try:
        yield
    finally:
        _Compiling.depth -= 1
        if collecting:
            gc.enable()


def _say(function: Any) -> None:
    seconds = estimated_seconds(function)
    if seconds < _WORTH_SAYING:
        return
    operation = function.__module__.removeprefix("lnz.ops.").split(".")[0]
    message = (
        f"compiling {operation} kernel {function.__qualname__!r}, about {seconds:.0f} s on an idle core; "
        f"`lnz warmup {operation}` does it ahead"
    )
    if _logger.hasHandlers() or not _watched():
        _logger.info(message)
        return
    handler = logging.StreamHandler()  # nobody has set up logging, and somebody waits
    handler.setFormatter(logging.Formatter("lnz: %(message)s"))
    handler.handle(_logger.makeRecord(_logger.name, logging.INFO, __file__, 0, message, (), None))


def _watched() -> bool:
    return sys.stderr is not None and (sys.stderr.isatty() or "ipykernel" in sys.modules)


def estimated_seconds(function: Any) -> float:
    """By the bytecode of a function and of all compiled functions that it reaches."""
    ahead, seen = [function], set()
    while ahead:
        current = ahead.pop()
        if current.__code__ in seen:
            continue
        seen.add(current.__code__)
        cells = [cell.cell_contents for cell in current.__closure__ or ()]
        named = [current.__globals__.get(name) for name in current.__code__.co_names]
        ahead += [value.py_func for value in (*cells, *named) if isinstance(value, Dispatcher)]
    return sum(_PER_FUNCTION + _PER_BYTE * len(code.co_code) for code in seen)
