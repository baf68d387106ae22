"""Vectors of words in each of the formats, and what is wrong with a file."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from lnz import io
from lnz.errors import FormatError

WORDS = ["the", "naïve", "Ada", "of"]
TABLE = np.array([[0.5, -1, 2], [3, 4e-3, 5], [6, 7, 8], [0.25, 0, 1]], np.float32)


def lines(words=WORDS, table=TABLE) -> str:
    return "".join(f"{word} {' '.join(map(str, row))}\n" for word, row in zip(words, table.tolist(), strict=True))


def binary(end: bytes = b"\n") -> bytes:
    rows = zip(WORDS, TABLE, strict=True)
    return b"4 3\n" + b"".join(word.encode() + b" " + row.astype("<f4").tobytes() + end for word, row in rows)


FILES = {
    "glove": lines().encode(),
    "word2vec": ("4 3\n" + lines()).encode(),
    "fasttext": ("4 3\n" + lines().replace("\n", " \n")).encode(),
    "binary": binary(),
    "binary without ends of lines": binary(b""),
    "windows": ("4 3\n" + lines()).replace("\n", "\r\n").encode(),
}


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("kind", FILES)
def test_reads(kind: str, zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "vectors"
    path.write_bytes(gzip.compress(FILES[kind]) if zipped else FILES[kind])
    words, table = io.read_vectors(path)
    assert words == WORDS
    np.testing.assert_array_equal(table, TABLE)
    words, table = io.read_vectors(path, wanted={"of", "never"}, most=1)
    assert words == ["the", "of"]
    np.testing.assert_array_equal(table, TABLE[[0, 3]])


def test_words_with_spaces_and_words_that_come_twice(tmp_path: Path) -> None:
    path = tmp_path / "vectors"
    path.write_text(lines(["a", ". . .", "a", "at name@domain.com"]))
    words, table = io.read_vectors(path)
    assert words == ["a", ". . .", "at name@domain.com"]
    np.testing.assert_array_equal(table, TABLE[[0, 1, 3]])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "expected vectors of words, got none"),
        (b"a 1 2\nb 1\n", "line 2: expected a word and 2 numbers, got 2 fields"),
        (b"a 1 2\nb 1 x\n", "line 2: expected 2 numbers after the word"),
        (b"2 2\na 1 2\nb 1 nan\n", "line 3: expected finite numbers, got nan"),
        (b"3 2\na 1 2\nb 1 2\n", "expected 3 words, as its first line says, got 2"),
        (b"word\n", "line 1: expected a word and its numbers, got 1 fields"),
        (b"1 0\n\n", "line 1: expected a number of dimensions up to 262,144, got 0"),
        (b"1 99999999999\n\n", "line 1: expected a number of dimensions up to 262,144, got 99999999999"),
        (struct.pack("<i", 793712314) + b"\0" * 9, "got a fastText model; its vectors are in the file named .vec"),
        (binary()[:-8], "expected 4 words of 3 numbers, got 3: cut short"),
        (b"1 2\nx " + struct.pack("<2f", 1, float("inf")), "word 1: expected finite numbers, got inf"),
        (b"a" * 2**21, r"line 1: expected a word and numbers, got 1,048,576 bytes or more"),
        (gzip.compress(binary())[:-9], "expected a readable file of vectors, got: compressed file ended"),
    ],
)
def test_bad_files(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "vectors"
    path.write_bytes(data)
    with pytest.raises(FormatError, match=message):
        io.read_vectors(path)


def test_missing_files_and_limits(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="expected a readable file of vectors, got: no such file"):
        io.read_vectors(tmp_path / "nothing")
    path = tmp_path / "vectors.gz"
    path.write_bytes(gzip.compress(lines([f"w{k}" for k in range(4)] * 3000, np.tile(TABLE, (3000, 1))).encode()))
    with io.allowing(unpacked=10, per_byte=1), pytest.raises(FormatError, match="bytes after decompression"):
        io.read_vectors(path)
