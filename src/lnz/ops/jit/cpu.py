"""Numba kernels that are compiled once per version of the sources.

Numba judges by one file whether a compiled function on disk is still good, but kernels call helpers of other files and
take types that other files define. Here the folder of the compiled functions is named by a hash of all sources of
:mod:`lnz.ops`: after any edit or upgrade nothing of before is looked at.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from numba import njit
from numba.core import config

_OPS = Path(__file__).parents[1]


def kernel(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """``numba.njit``, cached on disk, without the interpreter's lock while it runs.

    The cache lies in ``NUMBA_CACHE_DIR`` if that is set, else beside the sources, else (where these cannot be written)
    in the user's cache directory.
    """

    def compiled(function: Callable[..., Any]) -> Any:
        before = config.CACHE_DIR  # type: ignore[attr-defined]
        # read when a function is decorated; those of other packages stay where they are
        config.CACHE_DIR = str(_folder(before))  # type: ignore[attr-defined]
        try:
            return njit(cache=True, nogil=True, **options)(function)
        finally:
            config.CACHE_DIR = before  # type: ignore[attr-defined]

    return compiled


@cache
def _folder(chosen: str) -> Path:
    name = f"lnz-{_version(_OPS)}"
    if chosen:
        return Path(chosen) / name
    beside = _OPS / "__pycache__" / name
    if _writable(beside):
        return beside
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lnz" / name


def _version(sources: Path) -> str:
    """A hash of all sources below a folder: of their names and contents."""
    digest = hashlib.sha256()
    for path in sorted(sources.rglob("*.py")):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(sources).as_posix()} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:16]


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True
