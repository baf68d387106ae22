"""Sentences with trees as examples, and the inventories of words, characters and tags."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from lnz.tasks.parse.structure import Parsed, Structure, padded


class Kept:
    """What a batch keeps as it is: the trainer walks through lists and tuples, but not through this."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items


class TreeDataset(Dataset[dict[str, Any]]):
    """Sentences with their trees as tensors."""

    def __init__(self, structure: Structure, sentences: Sequence[Parsed], labels: Sequence[str]) -> None:
        self.structure, self.sentences = structure, list(sentences)
        self.trees = [structure.encode(sentence, labels) for sentence in self.sentences]

    @property
    def lengths(self) -> list[int]:
        return [len(sentence) for sentence in self.sentences]

    def __len__(self) -> int:
        return len(self.sentences)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        sentence = self.sentences[key[1]]
        return {"sentence": sentence, "tree": self.trees[key[1]], "index": torch.tensor(key[1])}


def collate(structure: Structure, examples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A batch: that of :func:`words`, ``gold`` for measures, ``trees`` (−100 over padding), ``index``."""
    sentences = [example["sentence"] for example in examples]
    trees: list[Tensor] = [example["tree"] for example in examples]
    return {
        **words(sentences),
        "gold": Kept([structure.gold(sentence) for sentence in sentences]),
        "trees": padded(trees, structure.axes),
        "index": torch.stack([example["index"] for example in examples]),
    }


def words(sentences: Sequence[Parsed]) -> dict[str, Any]:
    """What an encoder takes: ``tokens``, ``pos`` (tags) and ``lengths``."""
    return {
        "tokens": [sentence.tokens for sentence in sentences],
        "pos": [sentence.tags for sentence in sentences],
        "lengths": torch.tensor([len(sentence) for sentence in sentences]),
    }


def collator(structure: Structure) -> partial[dict[str, Any]]:
    """:func:`collate` of a structure."""
    return partial(collate, structure)
