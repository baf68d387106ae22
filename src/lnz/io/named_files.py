"""Files to work on: those of a folder, or those that a list or a Parquet file names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lnz.errors import FormatError
from lnz.io.files import normalized, read_text
from lnz.io.rows import read_rows


def named_files(source: Path, folder: Callable[[Path], list[Path]], distinct: bool = True) -> list[Path]:
    """The files of a folder, as ``folder`` lists them, or those that a file names, in its order.

    That file is text (``.txt`` or ``.lst``) with a path on each line, where empty lines and lines with # are passed
    over, or Parquet with a column ``path``. Paths are relative to the file's own folder.

    Args:
        source: folder or file.
        folder: lists a folder.
        distinct: whether two files may not have one stem, which results are named by.

    Raises:
        FormatError: what ``folder`` raises; the file names nothing, a line or row is empty, or a stem comes twice.
    """
    name = source.name.lower()
    if name.endswith(".parquet") and source.is_file():
        rows = read_rows(source)
        found = [(rows.place(k), path) for k, path in enumerate(rows.cells("path"))]
    elif name.endswith((".txt", ".lst")) and source.is_file():
        lines = enumerate(read_text(source).split("\n"), 1)
        found = [(f"{source}, line {k}", line.strip()) for k, line in lines if line.strip() and line[0] != "#"]
    else:
        return folder(source)
    if not found:
        raise FormatError(f"{source}: expected the path of a file on each line, found none")
    files, stems = [], {}
    for place, path in found:
        if not path:
            raise FormatError(f"{place}: expected the path of a file, got nothing")
        files.append(source.parent / path)
        other = stems.setdefault(normalized(files[-1].stem), path)
        if distinct and len(stems) < len(files):
            raise FormatError(f"{place}: expected files of different names, got {path} after {other}")
    return files
