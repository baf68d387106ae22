"""Numba's compiled functions in a :class:`~lnz.ops.jit.store.Store`, one file per function and signature.

Numba's own cache keeps an index beside its data: two processes that compile at once lose entries of it, a damaged file
ends every call, and where it lies is a setting of the whole process.
"""

from __future__ import annotations

import hashlib
import pickle
import platform
import re
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import llvmlite
import numba
from numba.core import config
from numba.core.caching import _Cache
from numba.core.compiler import CompileResult
from numba.core.dispatcher import Dispatcher
from numba.core.serialize import dumps

from lnz.ops.jit.store import Store, store_of
from lnz.ops.jit.versions import operation_of


def store_for(operation: str) -> Store:
    """The store of an operation, by Numba's setting."""
    return store_of(operation, config.CACHE_DIR)  # type: ignore[attr-defined]


class KernelCache(_Cache):
    """The compiled forms of one function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function: Any = function
        self.enable()

    @cached_property
    def store(self) -> Store:
        return store_for(operation_of(self.function.__module__))

    @property
    def cache_path(self) -> str | None:
        return str(self.store.folders[0]) if self.store.folders else None

    def enable(self) -> None:
        self._enabled = True

    def disable(self) -> None:
        self._enabled = False

    def flush(self) -> None:
        """Forget every form; what is on disk is overwritten as it is compiled again."""

    def load_overload(self, sig: Any, target_context: Any) -> CompileResult | None:
        """What was compiled for a signature; ``None`` where it has to be compiled."""
        target_context.refresh()  # declares what the saved code calls
        if not self._enabled:
            return None
        key, name = self._identity(sig, target_context.codegen())
        content = self.store.read(name)
        if content is None:
            return None
        try:
            saved, parts = pickle.loads(content)  # noqa: S301  (intact, and only trusted users could write it)
            return CompileResult._rebuild(target_context, *parts) if saved == key else None
        except Exception:  # whatever the code of another environment raises while it is rebuilt
            self.store.delete(name)
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep what was compiled for a signature, unless it holds addresses of this process."""
        if not self._enabled or data.library.has_dynamic_globals or any(not lifted.can_cache for lifted in data.lifted):
            return
        key, name = self._identity(sig, data.codegen)
        self.store.write(name, dumps((key, data._reduce())))

    def _identity(self, sig: Any, codegen: Any) -> tuple[tuple[Any, ...], str]:
        """What a compiled form depends on beyond the operation's sources, and the name of its file."""
        key = (sig, codegen.magic_tuple(), self._code, numba.__version__, llvmlite.__version__)
        digest = hashlib.sha256(repr((key, platform.python_version(), platform.python_implementation())).encode())
        readable = re.sub(r"[^\w.]", "", f"{self.function.__module__.rpartition('.')[2]}.{self.function.__qualname__}")
        return key, f"{readable}-{digest.hexdigest()[:24]}.nbc"

    @cached_property
    def _code(self) -> str:
        """The function's own file and place there (an operation's version does not cover kernels from elsewhere)."""
        code, digest = self.function.__code__, hashlib.sha256()
        path = Path(code.co_filename)
        digest.update(path.read_bytes() if path.is_file() else b"")
        digest.update(code.co_code)
        for cell in self.function.__closure__ or ():
            value = cell.cell_contents
            digest.update(_place(value.py_func).encode() if isinstance(value, Dispatcher) else dumps(value))
        return f"{_place(self.function)} {digest.hexdigest()}"


def _place(function: Any) -> str:
    return f"{function.__module__}.{function.__qualname__}:{function.__code__.co_firstlineno}"
