"""Bytes and text of input files, gzipped or not, and the words in them with the place where each stands."""

from __future__ import annotations

import codecs
import gzip
import io
import itertools
import math
import re
import unicodedata
import zlib
from os import PathLike
from pathlib import Path
from typing import NoReturn

from lnz.errors import FormatError
from lnz.io.limits import limits

GZIP_MAGIC = b"\x1f\x8b"
MARKS = {  # UTF-32's begins with that of UTF-16
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""Byte order marks, and the encodings that they stand for."""
SPACED = re.compile(r"(\S+)")
Source = str | PathLike[str]


def read_bytes(path: Source) -> bytes:
    """The contents of a file, decompressed where they are gzipped (told by the contents, not by the name).

    Raises:
        FormatError: there is no such file, it cannot be read, its gzip stream is corrupt or cut short, or it
            decompresses to more than the limit.
    """
    try:
        data = Path(path).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a name with a null byte
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise FormatError(f"{path}: expected a readable file, got: {reason}") from error
    if not data.startswith(GZIP_MAGIC):
        return data
    allowed = max(limits().unpacked, limits().per_byte * len(data))
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            unpacked = file.read(allowed + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise FormatError(
            f"{path}: expected a complete gzip stream, got a corrupt or truncated one ({error})"
        ) from error
    limits().check(path, "unpacked", len(unpacked), len(data))
    return unpacked


def read_text(path: Source, encoding: str | None = None) -> str:
    """The text of a file, gzipped or not; see :func:`decode`.

    Raises:
        FormatError: what :func:`read_bytes` and :func:`decode` raise.
    """
    return decode(path, read_bytes(path), encoding)


def decode(path: Source, data: bytes, encoding: str | None = None) -> str:
    """Bytes as text, strictly, without their byte order mark.

    Args:
        path: the file, for messages.
        data: its bytes.
        encoding: the name of their encoding; by default UTF-8. A byte order mark goes before it.

    Raises:
        FormatError: a byte that the encoding does not have there (line and byte are named), or no such encoding.
    """
    name = next((name for mark, name in MARKS.items() if data.startswith(mark)), encoding or "utf-8")
    try:
        return data.decode(name)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        place = error.start - data.rfind(b"\n", 0, error.start)
        expected = encoding or name.removesuffix("-sig").upper()
        raise FormatError(
            f"{path}, line {line}, byte {place}: expected {expected}, got the byte 0x{data[error.start]:02x}; "
            "say which encoding it is by --encoding (--data.encoding of lnz fit), such as latin-1 or gbk"
        ) from error
    except (LookupError, ValueError) as error:
        expected = "the name of a text encoding, such as utf-8, latin-1 or gbk"
        raise FormatError(f"{path}: encoding: expected {expected}, got {name!r}") from error


def normalized(name: str) -> str:
    """A name in Unicode's composed form (NFC), in which all names are compared.

    File systems differ in the form that they keep: one "é" may be one character in a list and two in a folder.
    """
    return unicodedata.normalize("NFC", name)


class Words:
    """The words of a text, read from front to back.

    Args:
        path: the file, for messages.
        text: its text.
        pattern: its first group is a word; what matches without that group (a comment) is passed over.
    """

    def __init__(self, path: Source, text: str, pattern: re.Pattern[str] = SPACED) -> None:
        self.path = path
        self.text = text
        self.pattern = pattern
        self.words: list[str] = text.split() if pattern is SPACED else list(filter(None, pattern.findall(text)))
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
        matches = (match for match in self.pattern.finditer(self.text) if match.group(1))
        start = next(itertools.islice(matches, at, None)).start()
        line = self.text.count("\n", 0, start) + 1
        word = self.words[at]
        got = f"{word[:40]!r}" + ("…" if len(word) > 40 else "")
        raise FormatError(f"{self.path}, line {line}, word {at + 1}: expected {expected}, got {got}")

    def word(self, what: str) -> str:
        """The next word."""
        if not len(self):
            self.fail(what)
        self.at += 1
        return self.words[self.at - 1]

    def expect(self, word: str) -> None:
        """Read the next word, which must be ``word``."""
        if self.word(repr(word)) != word:
            self.fail(repr(word), at=self.at - 1)

    def integer(self, what: str, low: int, high: int | None = None) -> int:
        """The next word, an integer with ``low <= value < high``."""
        word = self.words[self.at] if len(self) else self.fail(what)
        # int() would also take "1_0", "+1" and digits of other scripts; 18 digits are more than any count can mean
        digits = word.isascii() and word.isdigit() and len(word) <= 18
        if not digits or not low <= int(word) < (high or 10**18):
            self.fail(what)
        self.at += 1
        return int(word)

    def number(self) -> float:
        """The next word, a finite number."""
        value = as_number(self.word("a number"))
        if value is None or not math.isfinite(value):
            self.fail("a number" if value is None else "a finite number", at=self.at - 1)
        return value

    def end(self, after: str) -> None:
        """Raise unless every word has been read."""
        if len(self):
            self.fail(f"the end of the file after {after}")


def as_number(word: str) -> float | None:
    """A word as a number; ``None`` where it is none (``float`` would also take "1_0" and digits of other scripts)."""
    try:
        return float(word) if word.isascii() and "_" not in word else None
    except ValueError:
        return None
