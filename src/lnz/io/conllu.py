"""The CoNLL-U format, line by line: words with their columns, and files with other columns of their words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from lnz.errors import FormatError
from lnz.io.atomic import atomic_write
from lnz.io.files import Source, read_text

FIELDS = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")
"""The columns of CoNLL-U."""
UNKNOWN = "_"
"""How CoNLL-U writes what has not been annotated."""


@dataclass(frozen=True)
class Word:
    """A word of a sentence.

    Attributes:
        line: of the file, from 1.
        fields: its ten columns, as text.
    """

    line: int
    fields: Sequence[str]

    def __getitem__(self, column: str) -> str:
        return self.fields[FIELDS.index(column)]

    def known(self, column: str) -> str | None:
        """What a column says; ``None`` for an underscore."""
        value = self[column]
        return None if value == UNKNOWN else value


def text_lines(path: Source, encoding: str | None = None) -> list[str]:
    """The lines of a text, whatever ends them; U+2028 may stand in a word and ends none."""
    return [line.removesuffix("\r") for line in read_text(path, encoding).split("\n")]


def paragraphs(lines: Iterable[str]) -> Iterator[list[tuple[int, str]]]:
    """Runs of lines that are not empty, each line with its number."""
    run: list[tuple[int, str]] = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            run.append((number, line))
        elif run:
            yield run
            run = []
    if run:
        yield run


def sentences(path: Source, lines: Sequence[str]) -> Iterator[list[Word]]:
    """The words of each sentence; comments, multiword tokens and empty nodes are passed over.

    Raises:
        FormatError: a malformed line, words not numbered from 1, a sentence without words, or no empty line at the end,
            as in a file that was cut short; names ``path`` and the line.
    """
    for rows in paragraphs(lines):
        words: list[Word] = []
        for number, line in rows:
            if line.startswith("#") and not words:
                continue
            place, fields = _fields(path, number, line)
            if not isinstance(place, int):  # of a multiword token or an empty node
                continue
            if place != len(words) + 1:
                raise FormatError(f"{path}, line {number}: expected word {len(words) + 1}, got {place}")
            words.append(Word(number, fields))
        if not words:
            raise FormatError(f"{path}, line {rows[0][0]}: expected words after the comments, found none")
        yield words
    if len(lines) < 2 or lines[-1] or lines[-2].strip():
        last = next((number for number in range(len(lines), 0, -1) if lines[number - 1].strip()), 0)
        if last:
            raise FormatError(
                f"{path}, line {last}: expected an empty line after the last sentence; is the file whole?"
            )


def _fields(path: Source, number: int, line: str) -> tuple[object, list[str]]:
    """What the id of a line is, a number for a word, and its ten columns.

    The conllu package says what each ``id`` is. Its own reader of lines would also split at two spaces, which may stand
    in a word, takes lines of any number of columns, and does not say which line is wrong.
    """
    from conllu.exceptions import ParseException
    from conllu.parser import parse_id_value

    fields = line.split("\t")
    if len(fields) != len(FIELDS):
        raise FormatError(f"{path}, line {number}: expected {len(FIELDS)} columns separated by tabs, got {len(fields)}")
    try:
        place = parse_id_value(fields[0][:40])  # a longer number is none of a word
    except (ParseException, ValueError) as error:
        raise FormatError(f"{path}, line {number}: expected the number of a word, got {fields[0][:40]!r}") from error
    if not all(fields[1:]) or place is None:
        raise FormatError(f"{path}, line {number}: expected no empty column, got {line!r}")
    return place, fields


Columns = Mapping[str, Sequence[str]]
"""By name of a column, what stands in it for each word of a sentence."""


def write_conllu(path: Source, sentences_: Iterable[tuple[Sequence[str], Columns]]) -> None:
    """Write words and some of their columns; the other columns say nothing."""
    with atomic_write(path) as file:
        for words, columns in sentences_:
            for number, word in enumerate(words, 1):
                fields = [str(number), word, *[UNKNOWN] * (len(FIELDS) - 2)]
                for name, values in columns.items():
                    fields[FIELDS.index(name)] = values[number - 1]
                file.write("\t".join(fields) + "\n")
            file.write("\n")


def rewrite_conllu(source: Source, path: Source, columns: Iterable[Columns], encoding: str | None = None) -> None:
    """Write the file ``source`` with other ``columns`` of the words of each sentence, in order.

    Everything else stays as it is: comments, multiword tokens, empty nodes, the other columns.
    """
    lines = text_lines(source, encoding)
    for words, given in zip(list(sentences(source, lines)), columns, strict=True):
        for name, values in given.items():
            at = FIELDS.index(name)
            for word, value in zip(words, values, strict=True):
                fields = lines[word.line - 1].split("\t")
                fields[at] = value
                lines[word.line - 1] = "\t".join(fields)
    with atomic_write(path) as file:
        file.write("\n".join(lines))
