"""Lists of file names, one per line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import TypeVar

from lnz.errors import FormatError
from lnz.io.files import Source, normalized, read_text

Named = TypeVar("Named")


def read_list(path: Source, known: Mapping[str, Named], what: str, encoding: str | None = None) -> list[Named]:
    """What is named in a list file: one file name or stem per line, folders before it do not count.

    Empty lines and lines with # are passed over; a name that comes twice counts once.

    Args:
        path: the list, gzipped or not.
        known: what there is, hashable, by name; names are compared in Unicode's composed form.
        what: the noun for messages, as "image".
        encoding: of its text; by default UTF-8.

    Raises:
        FormatError: the list cannot be read, names nothing, or what is not there; names the line.
    """
    composed = {normalized(name): value for name, value in known.items()}
    chosen: dict[Named, None] = {}
    for number, line in enumerate(read_text(path, encoding).split("\n"), 1):
        name = normalized(line.strip())
        if name not in composed and (not name or name.startswith("#")):
            continue
        file = PurePath(name)
        found = next((each for each in (name, file.name, file.stem) if each in composed), None)
        if found is None:
            raise FormatError(f"{path}, line {number}: no {what} named {line.strip()!r}")
        chosen[composed[found]] = None
    if not chosen:
        raise FormatError(f"{path}: expected one {what} name per line, found none")
    return list(chosen)
