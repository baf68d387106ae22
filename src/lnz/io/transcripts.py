"""Transcripts of recordings: four forms of files that exist, matched with the audio by name."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lnz.errors import FormatError
from lnz.io.audio import AUDIO_SUFFIXES, list_audio
from lnz.io.files import normalized, read_text
from lnz.io.named_files import named_files
from lnz.io.rows import read_rows

NAME_COLUMNS = ("name", "file", "file_name", "path", "audio", "audio_filepath", "id")
TEXT_COLUMNS = ("text", "transcript", "transcription", "sentence")
_NAMED = f"one of {', '.join(NAME_COLUMNS)} and one of {', '.join(TEXT_COLUMNS)}"
LISTS = "*.trans.txt"
"""What LibriSpeech's lists of transcripts are called."""


@dataclass(frozen=True)
class Utterance:
    """A recording and its transcript."""

    audio: Path
    text: str

    @property
    def name(self) -> str:
        return self.audio.stem


def read_transcripts(source: Path, encoding: str | None = None) -> dict[str, str]:
    """Transcripts by the name of their recording, in the order of the file.

    Four forms are told by their contents: lines of a name, a tab and a text; a table with a header, of commas
    (``.csv``) or tabs, with a column called name, file, file_name, path, audio, audio_filepath or id, and one called
    text, transcript, transcription or sentence (Common Voice, Hugging Face); an object of JSON with these keys on each
    line (NeMo's manifests); lines of a name, a blank and a text (LibriSpeech's ``.trans.txt``). A name may have a
    folder and the ending of an audio file, which do not count. Names and texts are brought to Unicode's composed form
    (NFC), and texts to single blanks.

    Args:
        source: a file, or a folder: then all files ``*.trans.txt`` in it and below. They may be gzipped.
        encoding: of the text; by default UTF-8.

    Raises:
        FormatError: naming the file, and the line: it cannot be read, is empty, or has a line without a text or a name
            for the second time.
    """
    if source.is_dir():
        files = sorted(source.rglob(LISTS))
        if not files:
            raise FormatError(f"{source}: expected transcripts ({LISTS}) in it or below, found none; or name a file")
    else:
        files = [source]
    found: dict[str, str] = {}
    for file in files:
        count = 0
        for number, name, written in _entries(file, encoding):
            text = " ".join(normalized(written).split())
            recording = Path(normalized(name.strip()))
            stem = recording.stem if recording.suffix.lower() in AUDIO_SUFFIXES else recording.name
            if not stem:
                raise FormatError(f"{file}, line {number}: expected the name of a recording, got none")
            if not text:
                raise FormatError(f"{file}, line {number}: expected a text after {name.strip()!r}, got none")
            if stem in found:
                raise FormatError(f"{file}, line {number}: {stem!r} has a transcript already")
            found[stem] = text
            count += 1
        if not count:
            raise FormatError(f"{file}: expected a name and a text on each line, found none")
    return found


def pair_audio(audio: Sequence[Path], transcripts: dict[str, str], source: Path) -> list[Utterance]:
    """Each recording with its transcript, in the order of ``audio``.

    Args:
        audio: files.
        transcripts: by name, in Unicode's composed form.
        source: where they are from, for messages.

    Raises:
        FormatError: a recording without transcript or a transcript without recording; the first are named.
    """
    names = {normalized(path.stem) for path in audio}
    silent = [path for path in audio if normalized(path.stem) not in transcripts]
    if silent:
        more = f" (and {len(silent) - 1} more)" if len(silent) > 1 else ""
        raise FormatError(f"{silent[0]}: no transcript in {source}{more}")
    unheard = [name for name in transcripts if name not in names]
    if unheard:
        more = f" (and {len(unheard) - 1} more)" if len(unheard) > 1 else ""
        raise FormatError(f"{source}: no recording of {unheard[0]!r} in {audio[0].parent}{more}")
    return [Utterance(path, transcripts[normalized(path.stem)]) for path in audio]


def read_utterances(table: Path, distinct: bool = True) -> list[Utterance]:
    """The recordings and texts of a Parquet file, in its columns ``path`` and ``text``.

    Args:
        table: the file; paths are relative to its folder.
        distinct: whether two recordings may not have one name.

    Raises:
        FormatError: no such columns, or a row without a path or a text.
    """
    audio, rows, found = named_files(table, list_audio, distinct), read_rows(table), []
    for row, (path, text) in enumerate(zip(audio, rows.cells("text"), strict=True)):
        if not text:
            raise FormatError(f"{rows.place(row)}: expected a text, got nothing")
        found.append(Utterance(path, " ".join(text.split())))
    return found


def _entries(file: Path, encoding: str | None) -> Iterator[tuple[int, str, str]]:
    """Line, name and text of each entry of a file; empty lines are passed over."""
    text = read_text(file, encoding).replace("\r\n", "\n")
    lines = text.split("\n")  # splitlines would also split at U+0085 and U+2028 in a text
    first = next((line for line in lines if line.strip()), "")
    if first.lstrip().startswith("{"):
        yield from _objects(file, lines)
    elif file.suffix.lower() == ".csv":
        yield from _table(file, csv.reader(io.StringIO(text, newline=""), strict=True))
    elif "\t" in first and _columns(first.split("\t")) is not None:
        yield from _table(file, csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    else:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            parts = line.split("\t") if "\t" in first else line.split(maxsplit=1)
            if len(parts) > 2:
                raise FormatError(f"{file}, line {number}: expected a name, a tab and a text, got {len(parts)} columns")
            yield number, parts[0], parts[1] if len(parts) == 2 else ""


def _objects(file: Path, lines: Sequence[str]) -> Iterator[tuple[int, str, str]]:
    """Entries of JSON lines."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise FormatError(f"{file}, line {number}: cannot be read as a JSON object ({error})") from error
        keys = _columns(list(row)) if isinstance(row, dict) else None
        values = [] if keys is None else [list(row.values())[key] for key in keys]
        if keys is None or not all(isinstance(value, str) for value in values):
            raise FormatError(f"{file}, line {number}: expected an object with {_NAMED}, as strings, got {line[:80]!r}")
        yield number, values[0], values[1]


def _columns(header: Sequence[str]) -> tuple[int, int] | None:
    """Which columns hold names and texts, if this is a header."""
    called = [column.strip().lower() for column in header]
    name = next((called.index(column) for column in NAME_COLUMNS if column in called), None)
    text = next((called.index(column) for column in TEXT_COLUMNS if column in called), None)
    return None if name is None or text is None else (name, text)


def _table(file: Path, rows: Any) -> Iterator[tuple[int, str, str]]:
    """Entries of a ``csv.reader``, whose first row is a header."""
    columns = None
    try:
        for row in rows:
            if not any(cell.strip() for cell in row):
                continue
            if columns is None:
                columns = _columns(row)
                if columns is None:
                    raise FormatError(
                        f"{file}, line {rows.line_num}: expected a header with {_NAMED}, got {','.join(row)[:80]!r}"
                    )
            elif len(row) <= max(columns):
                raise FormatError(f"{file}, line {rows.line_num}: expected {max(columns) + 1} columns, got {len(row)}")
            else:
                yield rows.line_num, row[columns[0]], row[columns[1]]
    except csv.Error as error:
        raise FormatError(f"{file}, line {rows.line_num}: cannot be read as a table ({error})") from error
