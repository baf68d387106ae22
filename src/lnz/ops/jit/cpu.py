"""Numba kernels that are compiled once per version of the sources.

Numba judges by one file whether a compiled function on disk is still good, but kernels call helpers of other files and
take types that other files define. Here the folder of the compiled functions is named by a hash of all sources of the
operation, and of the operations that these name: after an edit or upgrade nothing of before is looked at, and the
kernels of other operations need not be compiled again.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from numba import njit
from numba.core import config

_OPS = Path(__file__).parents[1]
_NAMED = re.compile(rb"lnz\.ops\.(\w+)")


def kernel(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """``numba.njit``, cached on disk, without the interpreter's lock while it runs.

    The cache lies in ``NUMBA_CACHE_DIR`` if that is set, else beside the sources, else (where these cannot be written)
    in the user's cache directory.
    """

    def compiled(function: Callable[..., Any]) -> Any:
        before = config.CACHE_DIR  # type: ignore[attr-defined]
        # read when a function is decorated; those of other packages stay where they are
        config.CACHE_DIR = str(_folder(before, _operation(function)))  # type: ignore[attr-defined]
        try:
            return njit(cache=True, nogil=True, **options)(function)
        finally:
            config.CACHE_DIR = before  # type: ignore[attr-defined]

    return compiled


def _operation(function: Callable[..., Any]) -> str:
    """The folder below :mod:`lnz.ops` that a kernel belongs to; that of this file for kernels from elsewhere."""
    named = _NAMED.match(function.__module__.encode())
    return named.group(1).decode() if named else Path(__file__).parent.name


@cache
def _folder(chosen: str, operation: str) -> Path:
    name = f"lnz-{operation}-{_version(_OPS, operation)}"
    if chosen:
        return Path(chosen) / name
    beside = _OPS / "__pycache__" / name
    if _writable(beside):
        return beside
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lnz" / name


def _version(ops: Path, operation: str) -> str:
    """A hash of the sources of an operation and of all that it leans on: of their names and contents."""
    digest = hashlib.sha256()
    for path in sorted(_sources(ops, operation)):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(ops).as_posix()} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:16]


def _sources(ops: Path, operation: str) -> set[Path]:
    """The files of an operation and of those that any of its files names, and so on; the loose files beside them."""
    reached, sources = {operation}, set(ops.glob("*.py"))
    ahead = [operation]
    while ahead:
        files = set((ops / ahead.pop()).rglob("*.py"))
        sources |= files
        named = {name.decode() for path in files for name in _NAMED.findall(path.read_bytes())}
        ahead += named - reached
        reached |= named
    return sources


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True
