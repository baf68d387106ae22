"""Bytes of input files, gzipped or not, and the words in them with the place where each stands."""

from __future__ import annotations

import gzip
import itertools
import re
import zlib
from os import PathLike
from pathlib import Path
from typing import NoReturn

from lnz.errors import FormatError

GZIP_MAGIC = b"\x1f\x8b"
SPACED = re.compile(rb"(\S+)")
Source = str | PathLike[str]


def read_bytes(path: Source) -> bytes:
    """The contents of a file, decompressed where they are gzipped (told by the contents, not by the name).

    Raises:
        FormatError: there is no such file, it cannot be read, or its gzip stream is corrupt or cut short.
    """
    try:
        data = Path(path).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a name with a null byte
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise FormatError(f"{path}: expected a readable file, got: {reason}") from error
    if not data.startswith(GZIP_MAGIC):
        return data
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise FormatError(
            f"{path}: expected a complete gzip stream, got a corrupt or truncated one ({error})"
        ) from error


class Words:
    """The words of a file, read from front to back.

    Args:
        path: the file, for messages.
        data: its bytes.
        pattern: its first group is a word; what matches without that group (a comment) is passed over.
    """

    def __init__(self, path: Source, data: bytes, pattern: re.Pattern[bytes] = SPACED) -> None:
        self.path = path
        self.data = data
        self.pattern = pattern
        self.words: list[bytes] = data.split() if pattern is SPACED else list(filter(None, pattern.findall(data)))
        self.at = 0

    def __len__(self) -> int:
        """The number of words not read yet."""
        return len(self.words) - self.at

    def fail(self, expected: str, at: int | None = None) -> NoReturn:
        """Raise :class:`FormatError`: what was expected, what came, and the line and word where it stands."""
        at = self.at if at is None else at
        if at >= len(self.words):
            got = f"the end of the file after {len(self.words)} words" if self.words else "an empty file"
            raise FormatError(f"{self.path}: expected {expected}, got {got}")
        matches = (match for match in self.pattern.finditer(self.data) if match.group(1))
        start = next(itertools.islice(matches, at, None)).start()
        line = self.data.count(b"\n", 0, start) + 1
        raise FormatError(f"{self.path}, line {line}, word {at + 1}: expected {expected}, got {_shown(self.words[at])}")

    def word(self, what: str) -> bytes:
        """The next word."""
        if not len(self):
            self.fail(what)
        self.at += 1
        return self.words[self.at - 1]

    def expect(self, word: bytes) -> None:
        """Read the next word, which must be ``word``."""
        if self.word(repr(word.decode())) != word:
            self.fail(repr(word.decode()), at=self.at - 1)

    def integer(self, what: str, low: int, high: int | None = None) -> int:
        """The next word, an integer with ``low <= value < high``."""
        word = self.words[self.at] if len(self) else self.fail(what)
        # int() would also take "1_0" and "+1"; 18 digits are more than any count can mean
        if not word.isdigit() or len(word) > 18 or not low <= int(word) < (high or 10**18):
            self.fail(what)
        self.at += 1
        return int(word)

    def end(self, after: str) -> None:
        """Raise unless every word has been read."""
        if len(self):
            self.fail(f"the end of the file after {after}")


def _shown(word: bytes) -> str:
    text = word[:40].decode("utf-8", "backslashreplace")
    return f"{text!r}" + ("…" if len(word) > 40 else "")
