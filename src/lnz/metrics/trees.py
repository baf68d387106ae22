"""Scores of parsers, by the rules that published numbers follow: attachment as CoNLL-2018 counts, brackets as EVALB."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

Arc = tuple[int | None, str | None]
"""The head of a word, 0 for the root, and the relation to it; ``None`` where they are not known."""
Constituent = tuple[str, int, int]
"""A label, and the words that it holds: from the first one to before the last, counted from 0."""

DELETED = frozenset({"TOP", "-NONE-", ",", ":", "``", "''", "."})
"""Labels that COLLINS.prm deletes: words with such a tag do not count, nor do such constituents."""
EQUAL = {"PRT": "ADVP"}
"""Labels that COLLINS.prm takes for another."""


class Attachment(NamedTuple):
    """How many words have the right head, and how many of these the right relation; adds up by ``+``.

    Attributes:
        words: judged.
        heads: right ones.
        labelled: right heads with the right relation.
    """

    words: int = 0
    heads: int = 0
    labelled: int = 0

    def __add__(self, other: Attachment) -> Attachment:  # type: ignore[override]
        return Attachment(*(a + b for a, b in zip(self, other, strict=True)))

    @property
    def uas(self) -> float:
        """The unlabelled attachment score; NaN of no words."""
        return self.heads / self.words if self.words else float("nan")

    @property
    def las(self) -> float:
        """The labelled attachment score; NaN of no words."""
        return self.labelled / self.words if self.words else float("nan")


def attachment(gold: Sequence[Arc], predicted: Sequence[Arc]) -> Attachment:
    """Count right heads and relations of one sentence, as the scorer of CoNLL 2018 does for gold words.

    Every word counts, punctuation too; of relations the subtype is cut (``nmod:poss`` is ``nmod``). A word whose gold
    head is not known is not judged.

    Args:
        gold: the arc of each word.
        predicted: those to be judged.

    Raises:
        ValueError: the numbers of words differ.
    """
    _check_same("arcs", len(gold), len(predicted))
    judged = [(a, b) for a, b in zip(gold, predicted, strict=True) if a[0] is not None]
    right = [(a, b) for a, b in judged if a[0] == b[0]]
    return Attachment(len(judged), len(right), sum(universal(a[1]) == universal(b[1]) for a, b in right))


def universal(relation: str | None) -> str | None:
    """A relation without its subtype."""
    return None if relation is None else relation.split(":", 1)[0]


class Brackets(NamedTuple):
    """How many constituents are in gold and predicted trees, and in both; adds up by ``+``.

    Attributes:
        right: in both.
        predicted: in the predicted trees.
        gold: in the gold trees.
        whole: trees all of whose constituents are right.
        trees: judged.
    """

    right: int = 0
    predicted: int = 0
    gold: int = 0
    whole: int = 0
    trees: int = 0

    def __add__(self, other: Brackets) -> Brackets:  # type: ignore[override]
        return Brackets(*(a + b for a, b in zip(self, other, strict=True)))

    @property
    def precision(self) -> float:
        return self.right / self.predicted if self.predicted else float("nan")

    @property
    def recall(self) -> float:
        return self.right / self.gold if self.gold else float("nan")

    @property
    def f1(self) -> float:
        """2 · right / (predicted + gold); NaN where there are none."""
        both = self.predicted + self.gold
        return 2 * self.right / both if both else float("nan")


def brackets(gold: Iterable[Constituent], predicted: Iterable[Constituent]) -> Brackets:
    """Count the constituents of one sentence, as EVALB does with the parameters of COLLINS.prm.

    Tags of words do not count. Words with a tag of punctuation, quotes or traces are taken out first, and constituents
    that are then empty. Functions are cut (``NP-SBJ`` and ``NP=2`` are ``NP``), TOP does not count, PRT is ADVP. What
    occurs twice (a unary chain of one label) counts twice.

    Args:
        gold: constituents, each before those inside it; every word has one of its own last, its tag.
        predicted: those to be judged.

    Raises:
        ValueError: there are not as many words on both sides, or a word has no tag.
    """
    (gold_words, gold_spans), (words, spans) = _counted(gold), _counted(predicted)
    _check_same("words that count", gold_words, words)
    right = (gold_spans & spans).total()
    return Brackets(right, spans.total(), gold_spans.total(), int(gold_spans == spans), 1)


def _counted(constituents: Iterable[Constituent]) -> tuple[int, Counter[Constituent]]:
    """How many words are left, and the constituents that count."""
    given = [(str(label), start, stop) for label, start, stop in constituents]
    number = max((stop for _, _, stop in given), default=0)
    tags: dict[int, int] = {start: place for place, (_, start, stop) in enumerate(given) if stop == start + 1}
    if len(tags) != number:
        missing = next(word for word in range(number) if word not in tags)
        raise ValueError(f"constituents: expected a tag of every word, found none of word {missing}")
    before = [0]  # words that count
    for word in range(number):
        before.append(before[-1] + (given[tags[word]][0] not in DELETED))
    own = set(tags.values())
    found: Counter[Constituent] = Counter()
    for place, (label, start, stop) in enumerate(given):
        name = label.split("-", 1)[0].split("=", 1)[0]
        if place not in own and name not in DELETED and before[start] < before[stop]:
            found[EQUAL.get(name, name), before[start], before[stop]] += 1
    return before[-1], found


def _check_same(what: str, gold: int, predicted: int) -> None:
    if gold != predicted:
        raise ValueError(f"predicted: expected {gold} {what} as in gold, got {predicted}")
