"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal

from lnz.io.files import Source


@contextmanager
def atomic_write(path: Source, mode: Literal["w", "wb"] = "w") -> Iterator[IO[Any]]:
    """Open ``path`` for writing so that it is replaced in one step, and only when the block ends without an error.

    What is written goes to a temporary file in the same folder, which is flushed to the disk and then renamed. After
    an exception, a full disk or Ctrl-C, an older file of that name is still there, untouched. Since the temporary file
    is opened at once, a path that cannot be written is found on entering, before any work.

    A path that exists and is neither a file nor a folder (``/dev/stdout``, a pipe) is written directly.

    Args:
        path: the file; a symbolic link is followed.
        mode: ``"w"`` for text in UTF-8, ``"wb"`` for bytes.

    Raises:
        OSError: the file cannot be written; its ``filename`` is ``path``.
    """
    encoding = "utf-8" if mode == "w" else None
    target = Path(os.path.realpath(path))
    with _errors_name(path):
        if _is_special(target):
            with open(target, mode, encoding=encoding) as file:
                yield file
            return
        _check_replaceable(target)
        temporary = target.with_name(f".{target.name[:200]}.{secrets.token_hex(4)}.tmp")
        try:
            with open(temporary, mode.replace("w", "x"), encoding=encoding) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            if target.exists():
                temporary.chmod(stat.S_IMODE(target.stat().st_mode))
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


@contextmanager
def _errors_name(path: Source) -> Iterator[None]:
    """Let errors of the temporary file speak of the file that was asked for."""
    try:
        yield
    except OSError as error:
        if error.errno and (error.filename is None or str(error.filename).endswith(".tmp")):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def _is_special(target: Path) -> bool:
    return target.exists() and not target.is_file() and not target.is_dir()


def _check_replaceable(target: Path) -> None:
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if target.exists() and not os.access(target, os.W_OK):  # a rename would go past a read-only file
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
