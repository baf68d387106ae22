"""Files of tagged sentences, in the CoNLL-U format or in columns, with errors that name the line."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lnz.errors import FormatError
from lnz.io.atomic import atomic_write
from lnz.io.conllu import FIELDS, paragraphs, text_lines
from lnz.io.conllu import sentences as conllu_sentences
from lnz.io.files import Source
from lnz.io.rows import read_rows

Format = Literal["conllu", "columns", "text", "parquet"]
Column = Literal["upos", "xpos", "feats", "deprel"]
DOCUMENT = "-DOCSTART-"


@dataclass(frozen=True)
class Sentence:
    """A sentence and where it stands.

    Attributes:
        tokens: its words.
        tags: one for each; ``None`` for a word that has not been tagged.
        lines: the line of the file, or the row, from 1, that each stands on.
    """

    tokens: tuple[str, ...]
    tags: tuple[str | None, ...]
    lines: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.tokens)


def format_of(path: Source) -> Format:
    """What a name stands for: CoNLL-U for ``.conllu``, text for ``.txt``, Parquet, else columns; ``.gz`` aside."""
    name = Path(path).name.lower().removesuffix(".gz")
    endings: dict[str, Format] = {".conllu": "conllu", ".txt": "text", ".parquet": "parquet"}
    return endings.get(Path(name).suffix, "columns")


def read_sentences(
    path: Source,
    *,
    kind: Format | None = None,
    column: Column = "upos",
    tag_column: int | None = -1,
    encoding: str | None = None,
) -> list[Sentence]:
    """Read tagged sentences from a file, gzipped or not.

    - ``"conllu"``: words with their ``column``; multiword tokens and empty nodes are passed over, ``_`` is no tag. The
      file ends with an empty line, as the format asks, so that one that was cut short is told.
    - ``"columns"``: a word per line, columns separated by tabs, or else by spaces, the word first; an empty line after
      each sentence. Lines of ``-DOCSTART-`` are passed over, and so are comments: lines ``# …`` before a sentence's
      first word that do not have the columns of the others, or that are comments of CoNLL-U (``# newdoc``,
      ``# sent_id = 3``). One that has the columns is the word "#" where its tag is that of other words, too.
    - ``"text"``: a sentence per line, words separated by spaces; no tags.
    - ``"parquet"``: a sentence per row, in the column ``text``, words separated by spaces; no tags.

    Args:
        path: the file.
        kind: of the file; by default, what the name says; see :func:`format_of`.
        column: of CoNLL-U.
        tag_column: of columns, from 0, or from −1 backwards; ``None`` where there are only words to be tagged.
        encoding: of the text; by default UTF-8.

    Raises:
        FormatError: the file cannot be read, is malformed or cut short, holds no sentence, or a line that may be a
            comment or a word; names the line.
    """
    path, kind = str(path), kind or format_of(path)
    if kind == "parquet":
        return list(_parquet(path))
    lines = text_lines(path, encoding)
    if kind == "conllu":
        sentences = list(_conllu(path, lines, column))
    elif kind == "columns":
        sentences = list(_columns(path, lines, tag_column))
    else:
        rows = ((number, tuple(line.split())) for number, line in enumerate(lines, 1))
        sentences = [Sentence(row, (None,) * len(row), (number,) * len(row)) for number, row in rows if row]
    if not sentences:
        raise FormatError(f"{path}: expected at least one sentence, found none")
    return sentences


def _conllu(path: str, lines: Sequence[str], column: Column) -> Iterator[Sentence]:
    if column not in FIELDS[3:]:
        raise ValueError(f"column: expected one of upos, xpos, feats, deprel, got {column!r}")
    for words in conllu_sentences(path, lines):
        yield Sentence(
            tuple(word["form"] for word in words),
            tuple(word.known(column) for word in words),
            tuple(word.line for word in words),
        )


def _columns(path: str, lines: Sequence[str], tag_column: int | None) -> Iterator[Sentence]:
    certain = [line for line in lines if line.strip() and not line.startswith(("#", DOCUMENT))]
    by_tabs = bool(certain) and "\t" in certain[0]
    width = len(_split(certain[0])) if certain else 2
    tags = {_split(line)[-1] for line in certain}
    first = next((number for number, line in enumerate(lines, 1) if certain and line == certain[0]), 0)
    if certain and tag_column is not None and (width < 2 or not -width < tag_column < width or tag_column == 0):
        wanted = f"a word and a tag in column {tag_column}"
        raise FormatError(f"{path}, line {first}: expected {wanted}, got {width} columns")
    for rows in paragraphs(lines):
        words = []
        for number, line in rows:
            fields = _split(line, by_tabs and line.startswith("#"))
            if fields[0] == DOCUMENT or (not words and _is_comment(path, number, line, fields, width, tags)):
                continue
            if len(fields) != width:
                expected = f"{width} column{'s' * (width > 1)} as in line {first}"
                raise FormatError(f"{path}, line {number}: expected {expected}, got {len(fields)}")
            if not all(field.strip() for field in fields):
                raise FormatError(f"{path}, line {number}: expected no empty column, got {line!r}")
            words.append((number, fields[0], None if tag_column is None else fields[tag_column]))
        if words:
            numbers, tokens, tags_of_words = zip(*words, strict=True)
            yield Sentence(tokens, tags_of_words, numbers)


def _parquet(path: str) -> Iterator[Sentence]:
    rows = read_rows(path)
    for row, text in enumerate(rows.cells("text")):
        words = tuple(text.split())
        if not words:
            raise FormatError(f"{rows.place(row)}: expected a sentence, got nothing")
        yield Sentence(words, (None,) * len(words), (row + 1,) * len(words))


def _split(line: str, by_tabs: bool = False) -> list[str]:
    return line.split("\t") if by_tabs or "\t" in line else line.split()


def _is_comment(path: str, number: int, line: str, fields: Sequence[str], width: int, tags: Container[str]) -> bool:
    """Whether a line before the first word of a sentence is a comment, where others have ``width`` columns."""
    if not (line.startswith("# ") or fields[0] == "#"):
        return False
    words = line.split()
    if len(fields) != width or words[1:2] in (["newdoc"], ["newpar"]) or words[2:3] == ["="]:
        return True
    if width == 1 or fields[-1] in tags or fields[-1] == "#":
        return False
    raise FormatError(
        f"{path}, line {number}: expected a comment, or the word '#' with a tag of other words, got {line!r}; columns "
        "separated by tabs tell them apart"
    )


def write_tagged(path: Source, sentences: Iterable[tuple[Sequence[str], Sequence[str]]]) -> None:
    """Write words and tags in columns: one word and its tag per line, a tab between, an empty line after a sentence."""
    with atomic_write(path) as file:
        for words, tags in sentences:
            file.writelines(f"{word}\t{tag}\n" for word, tag in zip(words, tags, strict=True))
            file.write("\n")
