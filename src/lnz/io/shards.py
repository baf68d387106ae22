"""Shards: a folder of numbered Parquet files of rows, each written whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from lnz.errors import FormatError
from lnz.io.atomic import atomic_write

Kind = Literal["text", "bytes", "number", "integer", "texts", "integers", "intervals"]
"""Of a column; of ``intervals``, each cell is a list of :class:`~lnz.io.alignments.Interval`."""

PATTERN = "part-*.parquet"


def write_shard(folder: Path, number: int, columns: Mapping[str, Kind], rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write rows as ``part-<number>.parquet``; where it is there already, it is replaced in one step.

    Args:
        folder: exists.
        number: of the shard, from 0: rows of all shards in the order of their numbers are those of the input.
        columns: what the rows have, the same in every shard; what a row lacks is null.
        rows: plain values by column.

    Raises:
        ImportError: pyarrow is not installed.
        OSError: the folder cannot be written.
    """
    import pyarrow as pa
    from pyarrow import parquet

    types = _types(pa)
    schema = pa.schema([(name, types[kind]) for name, kind in columns.items()])
    path = folder / f"part-{number:05}.parquet"
    with atomic_write(path, "wb") as file:
        parquet.write_table(pa.Table.from_pylist([dict(row) for row in rows], schema), file)
    return path


def prepare_shards(folder: Path) -> None:
    """Make a folder for shards, where there is none.

    Raises:
        FormatError: it has shards already, which would be mixed with new ones.
        OSError: it cannot be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    clear_leftovers(folder)
    old = next(iter(sorted(folder.glob(PATTERN))), None)
    if old is not None:
        raise FormatError(f"{folder}: expected a folder without shards, found {old.name}; delete them or name another")


def begun(folder: Path, number: int) -> int:
    """Note that somebody begins a shard; how often that has been so, this time included, since it was last finished."""
    note = folder / f".part-{number:05}.begun"
    with open(note, "ab") as file:
        file.write(b".")
    return note.stat().st_size


def finished(folder: Path, number: int) -> None:
    """Note that a shard is written."""
    (folder / f".part-{number:05}.begun").unlink(missing_ok=True)


def clear_leftovers(folder: Path) -> None:
    """Delete what processes leave that are killed while they work on a shard."""
    for left in (*folder.glob(".part-*.tmp"), *folder.glob(".part-*.begun")):
        left.unlink(missing_ok=True)


def _types(pa: Any) -> dict[str, Any]:
    fields = [("start", pa.float64()), ("end", pa.float64()), ("label", pa.string())]
    interval = pa.struct([*fields, ("confidence", pa.float64()), ("acoustic", pa.float64())])
    return {
        "text": pa.string(),
        "bytes": pa.binary(),
        "number": pa.float64(),
        "integer": pa.int64(),
        "texts": pa.list_(pa.string()),
        "integers": pa.list_(pa.int64()),
        "intervals": pa.list_(interval),
    }
