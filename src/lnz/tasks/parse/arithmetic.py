"""Sentences of arithmetic with their trees: what belongs to what is decided by brackets and by which sign goes first.

A sentence is a term of digits, signs and brackets, ``3 + 4 * ( 2 - 1 )``. Times and divided go before plus and minus,
equals go from left to right, brackets stand only where they are needed. Some symbols are smudged and read ``?``: what
they may have been is then for the rest of the sentence to say.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from lnz.io.dependencies import Dependencies

SIGNS = {"+": 1, "-": 1, "*": 2, "/": 2}
"""How strongly each binds."""
SMUDGED = "?"


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
class _Draft:
    """A sentence that is being written: symbols, and the head and relation of each once they are known."""

    symbols: list[str] = field(default_factory=list)
    heads: list[int] = field(default_factory=list)
    relations: list[str] = field(default_factory=list)

    def write(self, symbol: str) -> int:
        """Add a symbol; returns its number, from 1."""
        self.symbols.append(symbol)
        self.heads.append(0)
        self.relations.append("root")
        return len(self.symbols)

    def hang(self, word: int, head: int, relation: str) -> None:
        self.heads[word - 1], self.relations[word - 1] = head, relation


def compose(arithmetic: Arithmetic, generator: np.random.Generator) -> Dependencies:
    """One sentence. A sign is the head of what it joins, ``left`` and ``right``; brackets hang under what they hold."""
    draft = _Draft()
    _term(draft, int(generator.integers(arithmetic.shortest, arithmetic.longest + 1)), 0, generator)
    smudged = generator.random(len(draft.symbols)) < arithmetic.smudged
    tokens = tuple(SMUDGED if gone else symbol for symbol, gone in zip(draft.symbols, smudged, strict=True))
    return Dependencies(tokens, (None,) * len(tokens), tuple(draft.heads), tuple(draft.relations))


def _term(draft: _Draft, signs: int, least: int, generator: np.random.Generator) -> int:
    """Write a term of so many signs, in brackets where its last sign binds less than ``least``; returns its head."""
    if not signs:
        return draft.write(str(generator.integers(10)))
    sign = str(generator.choice(list(SIGNS)))
    before = int(generator.integers(signs))
    opened = draft.write("(") if SIGNS[sign] < least else None
    left = _term(draft, before, SIGNS[sign], generator)
    head = draft.write(sign)
    right = _term(draft, signs - 1 - before, SIGNS[sign] + 1, generator)
    draft.hang(left, head, "left")
    draft.hang(right, head, "right")
    if opened is not None:
        draft.hang(opened, head, "bracket")
        draft.hang(draft.write(")"), head, "bracket")
    return head


def sentences(arithmetic: Arithmetic, split: str, seed: int) -> list[Dependencies]:
    """The sentences of a split, "train" or "val", each a function of (seed, split, index) alone."""
    count = arithmetic.train if split == "train" else arithmetic.val
    return [compose(arithmetic, np.random.default_rng([seed, split == "val", index])) for index in range(count)]
