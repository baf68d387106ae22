"""Transcripts of recordings: three forms of files that exist, matched with the audio by name."""

from __future__ import annotations

import csv
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lnz.errors import FormatError
from lnz.io.audio import AUDIO_SUFFIXES

NAME_COLUMNS = ("name", "file", "file_name", "path", "audio", "id")
TEXT_COLUMNS = ("text", "transcript", "transcription", "sentence")
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


def read_transcripts(source: Path) -> dict[str, str]:
    """Transcripts by the name of their recording, in the order of the file.

    Three forms are told by their contents: lines of a name, a tab and a text; a table with a header, of commas
    (``.csv``) or tabs, with a column called name, file, file_name, path, audio or id, and one called text, transcript,
    transcription or sentence (Common Voice, Hugging Face); lines of a name, a blank and a text (LibriSpeech's
    ``.trans.txt``). A name may have a folder and the ending of an audio file, which do not count. Texts are brought to
    Unicode's composed form (NFC) and single blanks.

    Args:
        source: a file, or a folder: then all files ``*.trans.txt`` in it and below.

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
        for number, name, written in _entries(file):
            text = " ".join(unicodedata.normalize("NFC", written).split())
            recording = Path(name.strip())
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
        transcripts: by name.
        source: where they are from, for messages.

    Raises:
        FormatError: a recording without transcript or a transcript without recording; the first are named.
    """
    names = {path.stem for path in audio}
    silent = [path for path in audio if path.stem not in transcripts]
    if silent:
        more = f" (and {len(silent) - 1} more)" if len(silent) > 1 else ""
        raise FormatError(f"{silent[0]}: no transcript in {source}{more}")
    unheard = [name for name in transcripts if name not in names]
    if unheard:
        more = f" (and {len(unheard) - 1} more)" if len(unheard) > 1 else ""
        raise FormatError(f"{source}: no recording of {unheard[0]!r} in {audio[0].parent}{more}")
    return [Utterance(path, transcripts[path.stem]) for path in audio]


def _entries(file: Path) -> Iterator[tuple[int, str, str]]:
    """Line, name and text of each entry of a file; empty lines are passed over."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise FormatError(f"{file}: cannot be read as transcripts ({reason.lower()})") from error
    comma = file.suffix.lower() == ".csv"
    first = next((line for line in lines if line.strip()), "")
    if comma or "\t" in first:
        columns = _columns(next(csv.reader([first])) if comma else first.split("\t"))
        if columns is not None or comma:
            yield from _table(file, lines, comma, columns)
            return
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        parts = line.split("\t") if "\t" in first else line.split(maxsplit=1)
        if len(parts) > 2:
            raise FormatError(f"{file}, line {number}: expected a name, a tab and a text, got {len(parts)} columns")
        yield number, parts[0], parts[1] if len(parts) == 2 else ""


def _columns(header: Sequence[str]) -> tuple[int, int] | None:
    """Which columns hold names and texts, if this is a header."""
    called = [column.strip().lower() for column in header]
    name = next((called.index(column) for column in NAME_COLUMNS if column in called), None)
    text = next((called.index(column) for column in TEXT_COLUMNS if column in called), None)
    return None if name is None or text is None else (name, text)


def _table(
    file: Path, lines: Sequence[str], comma: bool, columns: tuple[int, int] | None
) -> Iterator[tuple[int, str, str]]:
    if columns is None:
        raise FormatError(
            f"{file}, line 1: expected a header with one of {', '.join(NAME_COLUMNS)} and one of "
            f"{', '.join(TEXT_COLUMNS)}, got {lines[0] if lines else ''!r}"
        )
    reader = csv.reader(lines) if comma else csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    header = True
    for row in reader:
        if not any(cell.strip() for cell in row):
            continue
        if header:
            header = False
            continue
        if len(row) <= max(columns):
            raise FormatError(f"{file}, line {reader.line_num}: expected {max(columns) + 1} columns, got {len(row)}")
        yield reader.line_num, row[columns[0]], row[columns[1]]
