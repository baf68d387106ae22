"""Tokens described by dictionaries, as crfsuite's users write them, to numbers of features and what each is worth."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import sparse

Token = Mapping[str, Any] | Sequence[str]
"""``{"word": "Paris", "is_title": True, "length": 5, "around": ["in", "."]}``, or names alone."""


class FeatureNumbers:
    """The numbers of features by name.

    A text is the feature ``name:text`` worth 1; a number or truth value, the feature ``name`` worth that, 0 too; of a
    list or set, ``name:item`` worth 1 each; of a dictionary, its features with ``name:`` before them. A token may be a
    list of names worth 1.

    Args:
        names: in order of their numbers.
    """

    def __init__(self, names: Sequence[str] = ()) -> None:
        self.names = list(names)
        self._number = {name: k for k, name in enumerate(self.names)}
        self._texts: dict[tuple[str, str], int] = {}  # by name and text, which saves putting these together

    def matrix(self, sentences: Sequence[Sequence[Token]], grow: bool = False) -> sparse.csr_matrix:
        """The features of the tokens of all sentences, ``[N, F]``.

        Args:
            sentences: tokens of each.
            grow: whether new names get a number; otherwise they are left out.

        Raises:
            TypeError, ValueError: a token that is no description of this kind; names its place.
        """
        columns: list[int] = []
        values: list[float] = []
        ends = [0]
        self._texts = {}
        for s, sentence in enumerate(sentences):
            for t, token in enumerate(sentence):
                try:
                    self._add(token, columns, values, grow)
                except (TypeError, ValueError) as error:
                    raise type(error)(f"X: token {t} of sentence {s}: {error}") from error
                ends.append(len(columns))
        shape = (len(ends) - 1, len(self.names))
        found = sparse.csr_matrix((np.array(values, np.float32), np.array(columns, np.int64), np.array(ends)), shape)
        found.sum_duplicates()
        return found

    def _add(self, token: Token, columns: list[int], values: list[float], grow: bool) -> None:
        if isinstance(token, Mapping):
            for name, value in token.items():
                kind = type(value)
                if type(name) is not str:
                    raise TypeError(f"expected names that are texts, got {name!r}")
                if kind is str:  # the most by far
                    number, worth = self._texts.get((name, value)), 1.0
                    if number is None:
                        number = self._texts[name, value] = self._numbered(f"{name}:{value}", grow)
                elif kind is bool:
                    number, worth = self._numbered(name, grow), float(value)
                else:
                    for full, each in _described(name, value):
                        number = self._numbered(full, grow)
                        if number >= 0:
                            columns.append(number)
                            values.append(each)
                    continue
                if number >= 0:
                    columns.append(number)
                    values.append(worth)
        elif isinstance(token, Sequence) and not isinstance(token, str) and all(isinstance(n, str) for n in token):
            for name in token:
                number = self._numbered(name, grow)
                if number >= 0:
                    columns.append(number)
                    values.append(1.0)
        else:
            raise TypeError(f"expected a dictionary of features or a list of their names, got {token!r}")

    def _numbered(self, name: str, grow: bool) -> int:
        """The number of a name, −1 where it has none."""
        number = self._number.get(name, -1)
        if number < 0 and grow:
            number = self._number[name] = len(self.names)
            self.names.append(name)
        return number


def _described(name: Any, value: Any) -> Iterator[tuple[str, float]]:
    """The features that a name and a value say, and what each is worth."""
    if not isinstance(name, str):
        raise TypeError(f"expected names that are texts, got {name!r}")
    if isinstance(value, str):
        yield f"{name}:{value}", 1.0
    elif isinstance(value, (bool, int, float, np.number, np.bool_)):
        worth = float(value)
        if not math.isfinite(worth):
            raise ValueError(f"{name}: expected a finite number, got {worth}")
        yield name, worth
    elif isinstance(value, Mapping):
        for inner, each in value.items():
            for full, worth in _described(inner, each):
                yield f"{name}:{full}", worth
    elif isinstance(value, (list, tuple, set, frozenset)) and all(isinstance(each, str) for each in value):
        for each in value:
            yield f"{name}:{each}", 1.0
    else:
        raise TypeError(f"{name}: expected a text, a number, a truth value, texts or a dictionary, got {value!r}")
