"""Sentences of arithmetic with their trees: what belongs to what is decided by brackets and by which sign goes first.

A sentence is a term of digits, signs and brackets, ``3 + 4 * ( 2 - 1 )``. Times and divided go before plus and minus,
equals go from left to right, brackets stand only where they are needed. Some symbols are smudged and read ``?``: what
they may have been is then for the rest of the sentence to say.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from lnz.io.dependencies import Dependencies
from lnz.io.trees import Constituent, Tree

SIGNS = {"+": 1, "-": 1, "*": 2, "/": 2}
"""How strongly each binds."""
SMUDGED = "?"
BRACKETS = {"(": "-LRB-", ")": "-RRB-"}
"""How treebanks of brackets write brackets that are words."""


@dataclass(frozen=True)
class Arithmetic:
    """How sentences of arithmetic are composed.

    Args:
        train: number of training sentences.
        val: number of validation sentences.
        shortest: signs of the shortest sentences.
        longest: signs of the longest sentences.
        smudged: share of the symbols that cannot be read.
    """

    train: int = 1000
    val: int = 300
    shortest: int = 2
    longest: int = 8
    smudged: float = 0.15

    def __post_init__(self) -> None:
        for name in ("train", "val", "shortest"):
            if getattr(self, name) < 1:
                raise ValueError(f"arithmetic.{name}: expected a positive integer, got {getattr(self, name)}")
        if self.longest < self.shortest:
            raise ValueError(f"arithmetic.longest: expected at least shortest, {self.shortest}, got {self.longest}")
        if not 0 <= self.smudged < 1:
            raise ValueError(f"arithmetic.smudged: expected a number in [0, 1), got {self.smudged}")


@dataclass
class Sentence:
    """A sentence of arithmetic with both of its trees.

    Attributes:
        symbols: as they are read.
        heads: of each symbol, the number of one from 1, or 0.
        relations: to these.
        constituents: terms (``sum``, ``product``), ``group`` where one stands in brackets, and tags of symbols.
    """

    symbols: list[str] = field(default_factory=list)
    heads: list[int] = field(default_factory=list)
    relations: list[str] = field(default_factory=list)
    constituents: list[Constituent] = field(default_factory=list)

    @property
    def dependencies(self) -> Dependencies:
        """A sign is the head of what it joins, ``left`` and ``right``; brackets hang under what they hold."""
        nothing = (None,) * len(self.symbols)
        return Dependencies(tuple(self.symbols), nothing, tuple(self.heads), tuple(self.relations))

    @property
    def tree(self) -> Tree:
        """A term holds what its sign joins; a group holds a term and its brackets."""
        return Tree(tuple(BRACKETS.get(symbol, symbol) for symbol in self.symbols), tuple(self.constituents))

    def _write(self, symbol: str, tag: str) -> int:
        """Add a symbol; returns its number, from 1."""
        self.constituents.append(Constituent(tag, len(self.symbols), len(self.symbols) + 1))
        self.symbols.append(symbol)
        self.heads.append(0)
        self.relations.append("root")
        return len(self.symbols)

    def _hang(self, word: int, head: int, relation: str) -> None:
        self.heads[word - 1], self.relations[word - 1] = head, relation

    def _open(self) -> tuple[int, int]:
        """A constituent that begins here: where it is listed, and its first symbol."""
        self.constituents.append(Constituent("", 0, 0))
        return len(self.constituents) - 1, len(self.symbols)

    def _close(self, opened: tuple[int, int], label: str) -> None:
        place, start = opened
        self.constituents[place] = Constituent(label, start, len(self.symbols))

    def _term(self, signs: int, least: int, generator: np.random.Generator) -> int:
        """Write a term of so many signs, in brackets where its own sign binds less than ``least``; returns its head."""
        if not signs:
            return self._write(str(generator.integers(10)), "digit")
        sign = str(generator.choice(list(SIGNS)))
        before = int(generator.integers(signs))
        bracketed = SIGNS[sign] < least
        group = self._open() if bracketed else None
        bracket = self._write("(", "bracket") if bracketed else 0
        term = self._open()
        left = self._term(before, SIGNS[sign], generator)
        head = self._write(sign, "sign")
        right = self._term(signs - 1 - before, SIGNS[sign] + 1, generator)
        self._close(term, "sum" if SIGNS[sign] == 1 else "product")
        self._hang(left, head, "left")
        self._hang(right, head, "right")
        if group is not None:
            self._hang(bracket, head, "bracket")
            self._hang(self._write(")", "bracket"), head, "bracket")
            self._close(group, "group")
        return head


def compose(arithmetic: Arithmetic, generator: np.random.Generator) -> Sentence:
    """One sentence, some of whose symbols cannot be read."""
    sentence = Sentence()
    sentence._term(int(generator.integers(arithmetic.shortest, arithmetic.longest + 1)), 0, generator)
    smudged = generator.random(len(sentence.symbols)) < arithmetic.smudged
    sentence.symbols = [SMUDGED if gone else symbol for symbol, gone in zip(sentence.symbols, smudged, strict=True)]
    return sentence


def sentences(arithmetic: Arithmetic, split: str, seed: int) -> list[Sentence]:
    """The sentences of a split, "train" or "val", each a function of (seed, split, index) alone."""
    count = arithmetic.train if split == "train" else arithmetic.val
    return [compose(arithmetic, np.random.default_rng([seed, split == "val", index])) for index in range(count)]
