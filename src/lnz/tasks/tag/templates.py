"""Templates of features of the words of a sentence, hashed: what each word is described by."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from zlib import crc32

import numpy as np

from lnz.errors import FormatError


def _shape(word: str) -> str:
    kinds = ("X" if c.isupper() else "x" if c.islower() else "d" if c.isdigit() else c for c in word)
    return "".join(kinds)


ATTRIBUTES: dict[str, Callable[[str], str]] = {
    "w": str,
    "lower": str.lower,
    "shape": _shape,
    "short": lambda word: re.sub(r"(.)\1+", r"\1", _shape(word)),
    **{f"p{n}": lambda word, n=n: word[:n] for n in (1, 2, 3, 4)},
    **{f"s{n}": lambda word, n=n: word[-n:] for n in (1, 2, 3, 4)},
}
"""What a template may ask of a word: itself, in lower case, its shape (Xxdd), that without repeats, ends of it."""

DEFAULT = (
    "bias",
    *(f"w[{o}]" for o in (0,)),
    *(f"lower[{o}]" for o in (-2, -1, 0, 1, 2)),
    "lower[-1]|lower[0]",
    "lower[0]|lower[1]",
    *(f"p{n}[0]" for n in (1, 2, 3, 4)),
    *(f"s{n}[0]" for n in (1, 2, 3, 4)),
    *(f"shape[{o}]" for o in (-1, 0, 1)),
    *(f"short[{o}]" for o in (-2, -1, 0, 1, 2)),
    "short[-1]|short[0]",
    "short[0]|short[1]",
    *(f"s3[{o}]" for o in (-1, 1)),
)
_PART = re.compile(r"(\w+)\[(-?\d+)\]")
_MIX = np.uint64(0x9E3779B97F4A7C15)


class Templates:
    """Templates such as ``lower[-1]|lower[0]``, what is the case at the word before and at the word itself together.

    Args:
        texts: each of attributes at places, from the word itself; or ``bias``, which is always the case.

    Raises:
        FormatError: an unknown attribute, or a text that is no template.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = tuple(texts)
        self._names = list(ATTRIBUTES)
        self._parts = [self._parsed(text) for text in self.texts]
        self._hashed: dict[str, np.ndarray] = {}

    def _parsed(self, text: str) -> list[tuple[int, int]]:
        """Columns of attributes, and places."""
        if text == "bias":
            return []
        parts = []
        for part in text.split("|"):
            match = _PART.fullmatch(part.strip())
            if match is None or match[1] not in ATTRIBUTES:
                raise FormatError(
                    f"model.templates: expected 'bias', or {', '.join(ATTRIBUTES)} with places, such as "
                    f"'lower[-1]|lower[0]', got {text!r}"
                )
            parts.append((self._names.index(match[1]), int(match[2])))
        return parts

    def hashes(self, sentences: Sequence[Sequence[str]]) -> np.ndarray:
        """One feature per word and template, 64 bits each, ``int64 [N, templates]``; words of all sentences."""
        lengths = np.array([len(words) for words in sentences], np.int64)
        words = [self._of(word) for sentence in sentences for word in sentence]
        table = np.array(words, np.uint64).reshape(len(words), len(self._names))
        first = np.repeat(np.cumsum(lengths) - lengths, lengths)
        last = first + np.repeat(lengths, lengths) - 1
        at = np.arange(len(words))
        found = np.empty((len(words), len(self.texts)), np.uint64)
        for k, parts in enumerate(self._parts):
            mixed = np.full(len(words), crc32(self.texts[k].encode()), np.uint64)
            for column, place in parts:
                here = at + place
                value = table[here.clip(first, last), column] if words else mixed
                value = np.where(here < first, np.uint64(1 << 33), np.where(here > last, np.uint64(1 << 34), value))
                mixed = (mixed ^ value) * _MIX
                mixed ^= mixed >> np.uint64(29)
            found[:, k] = mixed
        return found.view(np.int64)

    def _of(self, word: str) -> np.ndarray:
        """A number of 32 bits per attribute."""
        found = self._hashed.get(word)
        if found is None:
            values = (attribute(word) for attribute in ATTRIBUTES.values())
            found = np.array([crc32(value.encode("utf-8", "surrogatepass")) for value in values], np.uint64)
            self._hashed[word] = found
        return found
