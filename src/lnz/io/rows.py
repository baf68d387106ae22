"""Rows of named columns: CSV files, gzipped or not, and Parquet files. What stands in the cells is text."""

from __future__ import annotations

import csv
import io
import math
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lnz.errors import FormatError
from lnz.io.files import Source, normalized, read_bytes, read_text

PARQUET_MAGIC = b"PAR1"


@dataclass(frozen=True, eq=False)
class Column:
    """A column of R cells.

    Attributes:
        values: the different texts in it, in the order in which they come; an empty cell is ``""``.
        codes: which of them each cell holds, ``int64 [R]``.
    """

    values: tuple[str, ...]
    codes: np.ndarray


@dataclass(frozen=True, eq=False)
class Rows:
    """What a file of rows holds.

    Attributes:
        path: the file, for messages.
        columns: by name, in the order of the file; names in Unicode's composed form.
        count: R.
        lines: the line that each row ends on, ``int64 [R]``; ``None`` where the format has no lines.
    """

    path: Source
    columns: dict[str, Column]
    count: int
    lines: np.ndarray | None

    def cells(self, name: str) -> list[str]:
        """What stands in a column, row by row.

        Raises:
            FormatError: there is no column of that name.
        """
        if name not in self.columns:
            raise FormatError(f"{self.path}: expected a column {name!r}, got {', '.join(self.columns)}")
        column = self.columns[name]
        return [column.values[code] for code in column.codes.tolist()]

    def place(self, row: int) -> str:
        """Where a row stands, for messages."""
        return f"{self.path}, row {row + 1}" if self.lines is None else f"{self.path}, line {self.lines[row]}"


def read_rows(path: Source, encoding: str | None = None, delimiter: str | None = None) -> Rows:
    """Read a file of rows: Parquet by its contents or the ending ``.parquet``, CSV otherwise.

    Args:
        path: the file. The first line of a CSV file names its columns.
        encoding: of the text of a CSV file; by default UTF-8.
        delimiter: between the cells of a CSV file; by default a comma, or a tab where the name ends in ``.tsv``.

    Raises:
        FormatError: the file cannot be read, holds no row, a column without a name or two of one name, or a line with
            more or fewer cells than there are columns; names the line.
        ImportError: a Parquet file, and pyarrow is not installed.
    """
    name = str(path).lower()
    if name.endswith(".parquet"):
        return _read_parquet(path)
    try:
        with open(path, "rb") as file:
            parquet = file.read(4) == PARQUET_MAGIC
    except (OSError, ValueError):
        parquet = False  # the reader of text says what is wrong
    if parquet:
        return _read_parquet(path)
    text = read_text(path, encoding)
    lines = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=delimiter or ("\t" if ".tsv" in Path(name).suffixes else ","),
        strict=True,
    )
    return _read_csv(path, lines)


def _read_csv(path: Source, lines: Any) -> Rows:
    cells = _lines(path, lines)
    names = [normalized(name.strip()) for name in next(cells, [])]
    _check_names(path, names)
    known: list[dict[str, int]] = [{} for _ in names]
    codes = [array("q") for _ in names]
    places = array("q")
    for row in cells:
        if len(row) != len(names):
            raise FormatError(
                f"{path}, line {lines.line_num}: expected {len(names)} cells, one per column, got {len(row)}"
            )
        for cell, seen, column in zip(row, known, codes, strict=True):
            column.append(seen.setdefault(normalized(cell.strip()), len(seen)))
        places.append(lines.line_num)
    return _rows(path, names, [tuple(seen) for seen in known], [np.frombuffer(c, np.int64) for c in codes], places)


def _lines(path: Source, lines: Any) -> Iterator[list[str]]:
    """The cells of each line that has some."""
    try:
        yield from (cells for cells in lines if cells)
    except csv.Error as error:
        raise FormatError(f"{path}, line {lines.line_num}: expected comma-separated values, got: {error}") from error


def _read_parquet(path: Source) -> Rows:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise ImportError(
            f"{path}: reading Parquet needs {error.name}; install it with: pip install 'lnz[parquet]', or write the "
            "rows as CSV"
        ) from error
    data = read_bytes(path)
    try:
        table = parquet.read_table(io.BytesIO(data))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise FormatError(f"{path}: expected a Parquet file, got: {' '.join(str(error).split())[:200]}") from error
    names = [normalized(name.strip()) for name in table.column_names]
    _check_names(path, names)
    values, codes = [], []
    for name, column in zip(names, table.columns, strict=True):
        kind = column.type
        if pa.types.is_nested(kind) or pa.types.is_binary(kind):
            raise FormatError(f"{path}: expected text, numbers or truth values in column {name!r}, got {kind}")
        plain = column.cast(kind.value_type) if pa.types.is_dictionary(kind) else column
        coded = plain.combine_chunks().dictionary_encode(null_encoding="encode")
        shown = [_as_text(value) for value in coded.dictionary.to_pylist()]
        different = {text: number for number, text in enumerate(dict.fromkeys(shown))}
        values.append(tuple(different))
        renumbered = np.array([different[text] for text in shown], np.int64)
        codes.append(renumbered[np.asarray(coded.indices.to_numpy(zero_copy_only=False), np.int64)])
    return _rows(path, names, values, codes, None)


def _as_text(value: Any) -> str:
    """A cell as text: nothing as "", truth values as "true" and "false", whole numbers without a point."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return normalized(str(value).strip())


def _check_names(path: Source, names: Sequence[str]) -> None:
    if not names:
        raise FormatError(f"{path}: expected a first line with the names of the columns, got an empty file")
    for number, name in enumerate(names):
        if not name:
            raise FormatError(f"{path}: expected a name of every column, got none of column {number + 1}")
        if name in names[:number]:
            raise FormatError(f"{path}: expected columns of different names, got {name!r} twice")


def _rows(
    path: Source,
    names: Sequence[str],
    values: Sequence[tuple[str, ...]],
    codes: Sequence[np.ndarray],
    lines: array[int] | None,
) -> Rows:
    if not len(codes[0]):
        raise FormatError(f"{path}: expected at least one row below the names of the columns, got none")
    columns = {name: Column(texts, coded) for name, texts, coded in zip(names, values, codes, strict=True)}
    return Rows(path, columns, len(codes[0]), None if lines is None else np.frombuffer(lines, np.int64))


def write_csv(file: Any, names: Sequence[str], rows: Iterator[Sequence[object]] | Sequence[Sequence[object]]) -> None:
    """Write rows below the names of their columns; cells that hold commas or quotes are quoted."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(rows)
