"""Constituency trees as bracketed text, as treebanks have them: ``(S (NP (DT the) (NN cat)) (VP (VBD sat)))``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from lnz.errors import FormatError
from lnz.io.atomic import atomic_write
from lnz.io.files import Source, read_text

_TOKEN = re.compile(r"[()]|[^\s()]+")
_ATOM = re.compile(r"[^\s()]+")


class Constituent(NamedTuple):
    """Words ``start … stop − 1`` and what they are; tags of words are constituents of one word."""

    label: str
    start: int
    stop: int


@dataclass(frozen=True)
class Tree:
    """A tree over words, of any arity; constituents of the same words are a unary chain.

    It is kept flat, so that trees of any depth compare, copy and print.

    Attributes:
        words: at least one. Brackets are no words; treebanks write ``-LRB-`` and ``-RRB-``.
        constituents: each before those inside it, from left to right; the first one is the whole. A label may be empty,
            as the outermost of the Penn Treebank is.

    Raises:
        ValueError: no words, or constituents that are not those of one tree.
    """

    words: tuple[str, ...]
    constituents: tuple[Constituent, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "words", tuple(self.words))
        object.__setattr__(self, "constituents", tuple(Constituent(*each) for each in self.constituents))
        if not self.words:
            raise ValueError("words: expected at least one, got none")
        for word in self.words:
            if not _ATOM.fullmatch(word):
                raise ValueError(f"words: expected no spaces and brackets in a word, got {word!r}")
        if not self.constituents or self.constituents[0][1:] != (0, len(self.words)):
            got = self.constituents[:1] or "none"
            raise ValueError(f"constituents: expected the whole, 0 … {len(self.words)}, first, got {got}")
        self._check_nesting()

    def _check_nesting(self) -> None:
        open_: list[Constituent] = []
        after = (*self.constituents[1:], None)
        for each, following in zip(self.constituents, after, strict=True):
            label, start, stop = each
            while open_ and open_[-1].stop <= start:
                open_.pop()
            inside = not open_ or (open_[-1].start <= start and stop <= open_[-1].stop)
            if not (0 <= start < stop <= len(self.words) and inside and (open_ or each is self.constituents[0])):
                raise ValueError(f"constituents: expected each inside the one that it belongs to, got {tuple(each)}")
            if following is not None and following.start < start:
                raise ValueError(f"constituents: expected them from left to right, got {tuple(following)} late")
            if label and not _ATOM.fullmatch(label):
                raise ValueError(f"constituents: expected no spaces and brackets in a label, got {label!r}")
            if not label and (following is None or following.start != start or following.stop > stop):
                raise ValueError(f"constituents: expected a label of what begins with a word, got {tuple(each)}")
            open_.append(each)

    def __str__(self) -> str:
        """In brackets, on one line."""
        pieces = []
        ends = [0] * (len(self.words) + 1)
        begun: list[list[str]] = [[] for _ in self.words]
        for label, start, stop in self.constituents:
            begun[start].append(f"({label}")
            ends[stop] += 1
        for i, word in enumerate(self.words):
            pieces.append(" ".join([*begun[i], word]) + ")" * ends[i + 1])
        return " ".join(pieces)


def read_trees(path: Source, encoding: str | None = None) -> list[Tree]:
    """Read bracketed trees from a file, gzipped or not; they may go over several lines.

    Nothing is taken away: traces (``-NONE-``) are words, functions (``NP-SBJ``) are parts of labels. O(size) time, and
    no limit of depth.

    Args:
        path: the file.
        encoding: of its text; by default UTF-8.

    Raises:
        FormatError: the file cannot be read, holds no tree, an empty constituent, or brackets that do not match; names
            the line.
    """
    trees = list(parse_trees(read_text(path, encoding), path))
    if not trees:
        raise FormatError(f"{path}: expected at least one tree, found none")
    return trees


def parse_trees(text: str, path: Source = "text") -> Iterator[Tree]:
    """The trees of a text, which may have none; ``path`` is what errors call it. Raises as :func:`read_trees`."""
    words: list[str] = []
    found: list[Constituent | None] = []
    open_: list[tuple[int, str | None, int, int]] = []  # place, label, first word and line of what is not closed yet
    for token, line in _tokens(text):
        if token == "(":
            if open_:
                open_[-1] = _labelled(open_[-1], "")
            open_.append((len(found), None, len(words), line))
            found.append(None)
        elif not open_:
            raise FormatError(f"{path}, line {line}: expected '(' or the end of the file, got {token[:40]!r}")
        elif token == ")":
            place, label, start, opened = open_.pop()
            if start == len(words):
                shown = f"({label or ''})"
                raise FormatError(
                    f"{path}, line {line}: expected words in the brackets that line {opened} opens, got {shown[:40]!r}"
                )
            found[place] = Constituent(label or "", start, len(words))
            if not open_:
                yield Tree(tuple(words), tuple(each for each in found if each is not None))
                words, found = [], []
        elif open_[-1][1] is None:
            open_[-1] = _labelled(open_[-1], token)
        else:
            words.append(token)
    if open_:
        raise FormatError(
            f"{path}: expected ')' for the bracket that line {open_[-1][3]} opens, found the end of the file"
        )


def _labelled(entry: tuple[int, str | None, int, int], label: str) -> tuple[int, str | None, int, int]:
    place, known, start, line = entry
    return place, label if known is None else known, start, line


def _tokens(text: str) -> Iterator[tuple[str, int]]:
    """Brackets and words, with their lines from 1."""
    line, at = 1, 0
    for match in _TOKEN.finditer(text):
        line += text.count("\n", at, match.start())
        at = match.start()
        yield match[0], line


def write_trees(path: Source, trees: Iterable[Tree]) -> None:
    """Write trees, one on each line, at once or not at all."""
    with atomic_write(path) as file:
        file.writelines(f"{tree}\n" for tree in trees)
