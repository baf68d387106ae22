"""Sentences with dependency trees as examples, and the inventories of words, characters, tags and relations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch.utils.data import Dataset

from lnz.errors import FormatError
from lnz.io.dependencies import Dependencies
from lnz.typing import IGNORE


class Inventory(NamedTuple):
    """What a parser knows; all sorted.

    Attributes:
        words: in lower case, that occur often enough.
        characters: every one.
        tags: of words.
        relations: every one.
    """

    words: list[str]
    characters: list[str]
    tags: list[str]
    relations: list[str]


def inventory(sentences: Sequence[Dependencies], min_count: int, source: str) -> Inventory:
    """What ``sentences`` show; words that occur ``min_count`` times at least.

    Raises:
        FormatError: no word has a head and a relation.
    """
    words = Counter(token.lower() for sentence in sentences for token in sentence.tokens)
    relations = {
        relation
        for sentence in sentences
        for head, relation in zip(sentence.heads, sentence.relations, strict=True)
        if head is not None and relation is not None
    }
    if not relations:
        raise FormatError(f"{source}: expected words with heads and relations, found none that has both")
    return Inventory(
        sorted(word for word, count in words.items() if count >= min_count),
        sorted({character for sentence in sentences for token in sentence.tokens for character in token}),
        sorted({tag for sentence in sentences for tag in sentence.tags if tag is not None}),
        sorted(relations),
    )


class TreeDataset(Dataset[dict[str, Any]]):
    """Sentences with their trees as heads and numbers of relations, ``int64 [N + 1, 2]``.

    −100 is a head that is not known, or a relation that is not known or not among ``relations``.
    """

    def __init__(self, sentences: Sequence[Dependencies], relations: Sequence[str]) -> None:
        self.sentences = list(sentences)
        number = {relation: k for k, relation in enumerate(relations)}
        self.trees = [
            torch.tensor(
                [
                    (0, 0),
                    *(
                        (IGNORE if head is None else head, number.get(relation or "", IGNORE))
                        for head, relation in zip(sentence.heads, sentence.relations, strict=True)
                    ),
                ]
            )
            for sentence in self.sentences
        ]

    @property
    def lengths(self) -> list[int]:
        return [len(sentence) for sentence in self.sentences]

    def __len__(self) -> int:
        return len(self.sentences)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        return {"sentence": self.sentences[key[1]], "tree": self.trees[key[1]], "index": torch.tensor(key[1])}


def collate(examples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A batch: that of :func:`words`, ``relations`` (names), ``trees [B, N + 1, 2]`` (−100 over padding), ``index``."""
    sentences = [example["sentence"] for example in examples]
    trees = torch.nn.utils.rnn.pad_sequence(
        [example["tree"] for example in examples], batch_first=True, padding_value=IGNORE
    )
    index = torch.stack([example["index"] for example in examples])
    relations = [sentence.relations for sentence in sentences]
    return {**words(sentences), "relations": relations, "trees": trees, "index": index}


def words(sentences: Sequence[Dependencies]) -> dict[str, Any]:
    """What an encoder takes: ``tokens``, ``pos`` (tags) and ``lengths``."""
    return {
        "tokens": [sentence.tokens for sentence in sentences],
        "pos": [sentence.tags for sentence in sentences],
        "lengths": torch.tensor([len(sentence) for sentence in sentences]),
    }
