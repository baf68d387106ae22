"""The labels that texts are spelt with: characters, or words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from lnz.errors import FormatError

Units = Literal["characters", "words"]
Unknown = Literal["error", "skip", "star"]
"""What becomes of labels that the alphabet does not have: an error; left out; or any label may stand there."""
BLANK = 0
PAUSE = " "
"""The label between words: of characters, and of words where pauses have a label."""


@dataclass(frozen=True)
class Spelling:
    """A text as the classes of a network.

    Attributes:
        labels: as written.
        classes: ``int64 [S]``, one per label. Stars, for labels that are not of the alphabet, are the two classes
            behind its own in turn, so that no two of them are equal neighbours.
        words: each word, and the first and the last (exclusive) of its labels; words of which none is left are not
            there.
    """

    labels: list[str]
    classes: Tensor
    words: list[tuple[str, int, int]]


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
        return self.spell(text, name).classes

    def spell(self, text: str, name: str, unknown: Unknown = "error") -> Spelling:
        """The classes of a text, and which of them make each word.

        Raises:
            FormatError: a label that is not of the alphabet, where that is an error, or none that is, where others are
                left out; ``name`` says whose text it is.
        """
        written = spelt(text, self.units, self.pauses)
        missing = [label for label in written if label not in self.classes]
        kept = [k for k, label in enumerate(written) if unknown == "star" or label in self.classes]
        if missing and (unknown == "error" or not kept):
            shown = " ".join(map(repr, self.labels[:40])) + (" …" if len(self.labels) > 40 else "")
            few = f"{text!r} has none" if unknown == "skip" else f"{missing[0]!r} is none"
            raise FormatError(f"{name}: {few} of the labels of the training texts: {shown}")
        labels, stars, classes = [written[k] for k in kept], 0, []
        for label in labels:
            classes.append(self.classes.get(label, len(self) + stars % 2))
            stars += label not in self.classes
        place = {k: at for at, k in enumerate(kept)}
        words = []
        for word, first, last in self.words(text):
            of = [place[k] for k in range(first, last) if k in place]
            if of:
                words.append((word, of[0], of[-1] + 1))
        return Spelling(labels, torch.tensor(classes, dtype=torch.int64), words)

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
