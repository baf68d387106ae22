"""Embeddings of words that start from a file of vectors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch

from lnz.errors import FormatError
from lnz.io.vectors import read_vectors
from lnz.nn import WordEncoder


class KnownWords:
    """Words in lower case, and a vector of each: the file's, or one drawn with its mean and spread.

    Args:
        words: sorted.
        table: ``[W, D]``; NaN where the file has no vector.
    """

    def __init__(self, words: Sequence[str], table: np.ndarray) -> None:
        self.words, self.table = list(words), table

    @classmethod
    def read(cls, path: Path, words: Sequence[str], most: int) -> Self:
        """The words of training sentences and the first of a file.

        Of a word that the file has in several spellings, that in lower case counts, else the first.

        Raises:
            FormatError: what :func:`lnz.io.read_vectors` raises; no vector of a training word.
        """
        if most < 0:
            raise ValueError(f"model.most_vectors: expected an integer of at least 0, got {most}")
        wanted = _Spellings(words)
        names, vectors = read_vectors(path, wanted, most)
        place: dict[str, int] = {}
        for k, name in enumerate(names):
            lower = name.lower()
            if lower == name or lower not in place:
                place[lower] = k
        if words and not any(word in place for word in words):
            raise FormatError(f"{path}: expected vectors of words such as {words[0]!r}, got none of a training word")
        known = sorted({*words, *place})
        table = np.full((len(known), vectors.shape[1]), np.nan, np.float32)
        for row, word in enumerate(known):
            if word in place:
                table[row] = vectors[place[word]]
        return cls(known, table)

    def start(self, encoder: WordEncoder) -> None:
        """Give the embeddings of an encoder, made with these words, their values."""
        table = torch.from_numpy(self.table)
        there = ~table[:, 0].isnan()
        with torch.no_grad():
            weight, rows = encoder.words.weight, table[there]
            weight.mul_(rows.std(correction=0)).add_(rows.mean(0))
            weight[1:][there] = rows


class _Spellings:
    """Words that are in a list in lower case, however they are written."""

    def __init__(self, words: Sequence[str]) -> None:
        self._words = frozenset(words)

    def __contains__(self, word: str) -> bool:
        return word.lower() in self._words
