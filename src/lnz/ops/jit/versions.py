"""The version of an operation's kernels: a hash of every source that they are compiled from.

Numba judges by one file whether a compiled function on disk is still good, but kernels call helpers of other files and
take types that other files define. A version covers all sources of the operation, and of the operations that these
name: after an edit or upgrade no older kernel is looked at, and those of other operations stay valid.
"""

from __future__ import annotations

import hashlib
import re
from functools import cache
from pathlib import Path

OPS = Path(__file__).parents[1]
_NAMED = re.compile(rb"lnz\.ops\.(\w+)")


def operation_of(module: str) -> str:
    """The folder below :mod:`lnz.ops` that a module belongs to; that of this file for modules from elsewhere."""
    named = _NAMED.match(module.encode())
    return named.group(1).decode() if named else Path(__file__).parent.name


@cache
def version(operation: str, ops: Path = OPS) -> str | None:
    """Of the names and contents of all sources below ``ops``; ``None`` where they are not there as files."""
    digest, sources = hashlib.sha256(operation.encode()), sources_of(operation, ops)
    if not sources:
        return None
    for path in sorted(sources):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(ops).as_posix()} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:16]


def sources_of(operation: str, ops: Path = OPS) -> set[Path]:
    """The files of an operation, of those that any of its files names, and so on; the loose files beside them."""
    reached, sources = {operation}, set(ops.glob("*.py"))
    ahead = [operation]
    while ahead:
        files = set((ops / ahead.pop()).rglob("*.py"))
        sources |= files
        named = {name.decode() for path in files for name in _NAMED.findall(path.read_bytes())}
        ahead += named - reached
        reached |= named
    return sources
