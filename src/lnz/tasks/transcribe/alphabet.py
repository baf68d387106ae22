"""The labels that texts are spelt with: characters, or words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from lnz.errors import FormatError

Units = Literal["characters", "words"]
BLANK = 0
PAUSE = " "
"""The label between words: of characters, and of words where pauses have a label."""


class Alphabet:
    """Labels and their classes: blank is 0, the labels are 1, 2 … in order.

    Args:
        labels: without blank; characters (a space among them, where texts have several words), or words, which are
            whatever stands between spaces: digits, phones …
        units: which of these.
        pauses: whether a label, the space, also stands before the first word, after the last, and between words.
    """

    def __init__(self, labels: Sequence[str], units: Units, pauses: bool = False) -> None:
        if units not in get_args(Units):
            raise ValueError(f"units: expected 'characters' or 'words', got {units!r}")
        self.labels = list(labels)
        self.units: Units = units
        self.pauses = pauses
        self.classes = {label: k for k, label in enumerate(self.labels, 1)}

    def __len__(self) -> int:
        """The number of classes, blank included."""
        return 1 + len(self.labels)

    @classmethod
    def of(cls, texts: Iterable[str], units: Units, pauses: bool = False) -> Alphabet:
        """All labels of some texts, in order."""
        return cls(sorted({label for text in texts for label in spelt(text, units, pauses)}), units, pauses)

    def encode(self, text: str, name: str) -> Tensor:
        """The classes of a text, ``int64 [S]``.

        Raises:
            FormatError: a label that is not of the alphabet; ``name`` says whose text it is.
        """
        labels = spelt(text, self.units, self.pauses)
        unknown = [label for label in labels if label not in self.classes]
        if unknown:
            shown = " ".join(map(repr, self.labels[:40])) + (" …" if len(self.labels) > 40 else "")
            raise FormatError(f"{name}: {unknown[0]!r} is none of the labels of the training texts: {shown}")
        return torch.tensor([self.classes[label] for label in labels])

    def decode(self, classes: Tensor) -> str:
        """The text of classes ``int64 [S]``; −100 is passed over, and pauses are single spaces."""
        labels = [self.labels[c - 1] for c in classes.tolist() if c > BLANK]
        return " ".join((" " if self.units == "words" else "").join(labels).split())

    def words(self, text: str) -> list[tuple[str, int, int]]:
        """Each word of a text, and the first and the last (exclusive) of its labels."""
        found, at = [], int(self.pauses)
        for word in text.split():
            size = 1 if self.units == "words" else len(word)
            found.append((word, at, at + size))
            at += size + (self.pauses or self.units == "characters")  # the space after it
        return found


def spelt(text: str, units: Units, pauses: bool) -> list[str]:
    """The labels of a text."""
    if units == "characters":
        return [PAUSE, *text, PAUSE] if pauses else list(text)
    words = text.split()
    return [PAUSE, *(label for word in words for label in (word, PAUSE))] if pauses else words
