"""Files of compiled kernels: written whole or not at all, read only when they are intact and trusted.

A cache is a convenience. Nothing here raises because a disk is full, read-only or damaged: what cannot be read is
compiled again, and what cannot be written is not kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import secrets
import stat
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from lnz.ops.jit.versions import OPS, version

_DIGEST = hashlib.sha256().digest_size
_logger = logging.getLogger("lnz")


class Store:
    """The files of one operation: read from any of ``folders``, written to the first that takes them."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = tuple(folders)

    def read(self, name: str) -> bytes | None:
        """The content of a file; ``None`` if there is none. A damaged one is deleted."""
        for folder in self.folders:
            path = folder / name
            with contextlib.suppress(OSError):  # not there, or not readable
                content = _read_trusted(path)
                if content is None:
                    continue
                if hashlib.sha256(content[_DIGEST:]).digest() == content[:_DIGEST]:
                    return content[_DIGEST:]
                path.unlink()
        return None

    def writable(self) -> Path | None:
        """The folder that takes files now; ``None`` if there is none."""
        for folder in self.folders:
            with contextlib.suppress(OSError):
                folder.mkdir(mode=0o755, parents=True, exist_ok=True)
                _replace(folder / ".probe", b"")
                (folder / ".probe").unlink()
                return folder
        return None

    def write(self, name: str, content: bytes) -> None:
        """Keep a file, for this user to write and for others to read at most."""
        failures = []
        for folder in self.folders:
            try:
                folder.mkdir(mode=0o755, parents=True, exist_ok=True)
                _replace(folder / name, hashlib.sha256(content).digest() + content)
                return
            except OSError as error:
                failures.append(f"{folder}: {(error.strerror or str(error)).lower()}")
        _warn_once(
            f"compiled kernels are not kept ({'; '.join(failures) or 'no folder to keep them in'}); "
            "every process compiles them anew unless NUMBA_CACHE_DIR names a folder that can be written"
        )

    def delete(self, name: str) -> None:
        for folder in self.folders:
            with contextlib.suppress(OSError):
                (folder / name).unlink()


def store_of(operation: str, chosen: str) -> Store:
    """Where an operation's kernels lie.

    In the folder ``chosen``, the setting ``NUMBA_CACHE_DIR``, if there is one. Otherwise beside the sources, where an
    image's builder or an administrator may have put them, and where the sources cannot be written, in the user's cache.
    """
    current = version(operation)
    if current is None:
        return Store(())
    roots = (Path(chosen),) if chosen else (OPS / "__pycache__", *_user_caches())
    return Store([root / f"lnz-{operation}-{current}" for root in roots])


def _user_caches() -> tuple[Path, ...]:
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return ((Path(base) if base else Path.home() / ".cache") / "lnz",)
    except RuntimeError:  # a user without a home
        return ()


def _read_trusted(path: Path) -> bytes | None:
    """The content of a file; ``None`` where somebody else could have written it: reading a kernel runs its code."""
    reason = _distrust(path.parent.stat()) or _distrust(path.stat())
    if reason is not None:
        _warn_once(f"compiled kernels in {path.parent} are not read: {reason}")
        return None
    return path.read_bytes()


def _distrust(status: os.stat_result) -> str | None:
    """Why a file or folder is not trusted; it is if only this user, root or the owner of lnz's sources may write it."""
    if not hasattr(os, "geteuid"):  # Windows keeps access lists instead
        return None
    if status.st_uid not in (os.geteuid(), 0, OPS.stat().st_uid):
        return f"it belongs to user {status.st_uid}"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"others may write to it (mode {stat.S_IMODE(status.st_mode):o})"
    return None


def _replace(path: Path, content: bytes) -> None:
    """Write a file in one step, so that no other process sees half of it."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o644)
        with open(descriptor, "wb") as file:
            file.write(content)
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


@cache
def _warn_once(message: str) -> None:
    _logger.warning(message)
