"""Vectors of words as word2vec, GloVe and fastText write them; as many of a file as are wanted."""

from __future__ import annotations

import gzip
import os
import struct
import zlib
from collections.abc import Container, Iterator
from os import PathLike
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from lnz.errors import FormatError
from lnz.io.files import GZIP_MAGIC
from lnz.io.limits import limits

LONGEST = 2**20
"""Bytes of a line, or of a word, of which no real file has more."""
FASTTEXT = struct.pack("<i", 793712314)
"""What a fastText model begins with, which holds more than vectors."""


class Vectors(NamedTuple):
    """Words, and a vector of each, ``float32 [W, D]``."""

    words: list[str]
    table: np.ndarray


def read_vectors(path: str | PathLike[str], wanted: Container[str] = (), most: int | None = None) -> Vectors:
    """The vectors of a file, gzipped or not, in its order: of the ``wanted`` words and of the first ``most``.

    A file is read word by word, so that memory is needed for what is kept only. Its kind is told by its contents:
    word2vec's text (fastText's ``.vec``), with a first line of the number of words and of dimensions; GloVe's, without;
    word2vec's binary. Of a word that comes twice the first vector is kept.

    Args:
        path: the file.
        wanted: words to keep wherever they are.
        most: of all words, as many from the start; ``None`` keeps all.

    Raises:
        FormatError: the file is missing, cut short or of another kind; a line with another number of dimensions, or
            something that is no finite number (the line, or the word, is named); more numbers than the limit.
    """
    found: dict[str, np.ndarray] = {}
    numbers = 0
    for k, (word, vector) in enumerate(_checked(path)):
        if word in found or not (most is None or k < most or word in wanted):
            continue
        found[word] = vector
        numbers += len(vector)
        limits().check(path, "numbers", numbers, os.path.getsize(path))
    if not found:
        raise FormatError(f"{path}: expected vectors of words, got none{' that are wanted' if most == 0 else ''}")
    return Vectors(list(found), np.stack(list(found.values())))


def _checked(path: str | PathLike[str]) -> Iterator[tuple[str, np.ndarray]]:
    try:
        with open(path, "rb") as plain:
            zipped = plain.read(2) == GZIP_MAGIC
            plain.seek(0)
            file: Any = gzip.GzipFile(fileobj=plain) if zipped else plain
            for entry in _entries(path, file):
                limits().check(path, "unpacked", file.tell(), os.path.getsize(path))
                yield entry
    except (OSError, EOFError, zlib.error, ValueError) as error:
        if isinstance(error, FormatError):
            raise
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise FormatError(f"{path}: expected a readable file of vectors, got: {reason}") from error


def _entries(path: str | PathLike[str], file: BinaryIO) -> Iterator[tuple[str, np.ndarray]]:
    first = file.readline(LONGEST)
    if first.startswith(FASTTEXT):
        raise FormatError(f"{path}: expected vectors, got a fastText model; its vectors are in the file named .vec")
    fields = first.split()
    header = len(fields) == 2 and all(field.isdigit() for field in fields)
    if not header:
        yield from _lines(path, file, first, 1, None, None)
        return
    count, dimensions = map(int, fields)
    if not 0 < dimensions <= LONGEST // 4:
        raise FormatError(f"{path}, line 1: expected a number of dimensions up to {LONGEST // 4:,}, got {dimensions}")
    start = file.readline(LONGEST)
    if _is_text(start, dimensions):
        yield from _lines(path, file, start, 2, count, dimensions)
    else:
        yield from _binary(path, file, start, count, dimensions)


def _is_text(line: bytes, dimensions: int) -> bool:
    fields = line.rstrip().split(b" ")
    if len(fields) <= dimensions:
        return False
    try:
        [float(field) for field in fields[-dimensions:]]
    except ValueError:
        return False
    return True


def _lines(
    path: str | PathLike[str], file: BinaryIO, line: bytes, number: int, count: int | None, dimensions: int | None
) -> Iterator[tuple[str, np.ndarray]]:
    """A word and its numbers a line, by single spaces; a word may hold spaces, as some of GloVe's do."""
    seen = 0
    while line:
        if len(line) >= LONGEST:
            raise FormatError(f"{path}, line {number}: expected a word and numbers, got {LONGEST:,} bytes or more")
        fields = line.rstrip(b" \r\n").split(b" ")
        if dimensions is None:
            dimensions = len(fields) - 1
        if dimensions < 1 or len(fields) <= dimensions:
            expected = f"a word and {dimensions} numbers" if dimensions >= 1 else "a word and its numbers"
            raise FormatError(f"{path}, line {number}: expected {expected}, got {len(fields)} fields")
        try:
            vector = np.array(fields[-dimensions:]).astype(np.float32)
        except ValueError as error:
            raise FormatError(f"{path}, line {number}: expected {dimensions} numbers after the word") from error
        yield _word(path, b" ".join(fields[:-dimensions]), f"line {number}"), _finite(path, vector, f"line {number}")
        seen, number, line = seen + 1, number + 1, file.readline(LONGEST)
    if count is not None and seen != count:
        raise FormatError(f"{path}: expected {count:,} words, as its first line says, got {seen:,}")


def _binary(
    path: str | PathLike[str], file: BinaryIO, start: bytes, count: int, dimensions: int
) -> Iterator[tuple[str, np.ndarray]]:
    """Per word its bytes, a space, and numbers of four bytes, little end first; then perhaps an end of line."""
    buffer, size = start, 4 * dimensions
    for k in range(count):
        while (space := buffer.find(b" ")) < 0 or len(buffer) < space + 1 + size:
            if space < 0 and len(buffer) > LONGEST:
                raise FormatError(f"{path}: expected a space after word {k + 1}, got none in {LONGEST:,} bytes")
            more = file.read(max(size, 2**16))
            if not more:
                raise FormatError(f"{path}: expected {count:,} words of {dimensions} numbers, got {k:,}: cut short")
            buffer += more
        name = buffer[:space].lstrip(b"\n")
        vector = np.frombuffer(buffer[space + 1 : space + 1 + size], "<f4")
        buffer = buffer[space + 1 + size :]
        yield _word(path, name, f"word {k + 1}"), _finite(path, vector, f"word {k + 1}")


def _word(path: str | PathLike[str], word: bytes, where: str) -> str:
    if not word:
        raise FormatError(f"{path}, {where}: expected a word, got none")
    return word.decode("utf-8", "replace")  # word2vec cuts words in the middle of a character


def _finite(path: str | PathLike[str], vector: np.ndarray, where: str) -> np.ndarray:
    if not np.isfinite(vector).all():
        raise FormatError(f"{path}, {where}: expected finite numbers, got {vector[~np.isfinite(vector)][0]}")
    return vector.astype(np.float32)
