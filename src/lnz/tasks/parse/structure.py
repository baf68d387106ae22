"""What differs between kinds of trees: how they are read, scored, judged, drawn and written."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from lnz.distributions import Softmax
from lnz.io.dependencies import TagColumn
from lnz.io.shards import Kind
from lnz.tasks.parse.arithmetic import Sentence as Composed

Name = Literal["constituency", "dependency"]
Tags = TagColumn | Literal["tag"]


class Parsed(Protocol):
    """A sentence with a tree."""

    @property
    def tokens(self) -> Sequence[str]: ...

    @property
    def tags(self) -> Sequence[str | None]: ...

    def __len__(self) -> int: ...


class Examples(Protocol):
    """Sentences, and their trees as tensors."""

    @property
    def sentences(self) -> Sequence[Any]: ...

    @property
    def trees(self) -> Sequence[Tensor]: ...


class Structure(ABC):
    """A kind of trees. Trees are tensors with an axis of words or more, −100 where not known, and over padding."""

    name: ClassVar[Name]
    files: ClassVar[str]
    """What files hold such trees."""
    rules: ClassVar[str]
    """By which predictions are judged."""
    score: ClassVar[str]
    """The measure by which the best checkpoint is chosen."""
    picture_says: ClassVar[str]
    columns: ClassVar[Mapping[str, Kind]]
    """Of trees in Parquet files."""
    axes: ClassVar[int]
    """How many axes of a tree are of words."""

    @abstractmethod
    def read(
        self, path: Path, tag_column: Tags | None, single_root: bool, trees: bool, encoding: str | None
    ) -> list[Any]:
        """The sentences of a file; without ``trees``, their words and tags."""

    @abstractmethod
    def of_arithmetic(self, sentence: Composed) -> Any:
        """A composed sentence with its tree of this kind."""

    @abstractmethod
    def labels(self, sentences: Sequence[Any], source: str) -> list[str]:
        """What the trees of ``sentences`` are labelled with."""

    @abstractmethod
    def encode(self, sentence: Any, labels: Sequence[str]) -> Tensor:
        """The tree of a sentence as a tensor; −100 for labels that ``labels`` lacks."""

    @abstractmethod
    def decode(self, sentence: Any, tree: Tensor, labels: Sequence[str]) -> Any:
        """A sentence with the tree of a tensor, which may be padded."""

    @abstractmethod
    def gold(self, sentence: Any) -> Any:
        """What measures compare predictions with: tuples, lists and plain values."""

    @abstractmethod
    def parser(self, encoder: nn.Module, labels: Sequence[str], settings: Mapping[str, Any]) -> Any:
        """The structured network, with ``nll(batch, trees)``, ``decode(batch, by)`` and ``distribution(batch)``."""

    @abstractmethod
    def measures(self, labels: Sequence[str], settings: Mapping[str, Any]) -> Any:
        """Of one method."""

    @abstractmethod
    def greedy_nll(self, parser: Any, batch: Mapping[str, Any]) -> Tensor:
        """The loss of the baseline, summed over the batch."""

    @abstractmethod
    def greedy(self, parser: Any, batch: Mapping[str, Any]) -> Softmax:
        """The distribution of the baseline."""

    @abstractmethod
    def greedy_gold(self, trees: Tensor, lengths: Tensor, labels: Sequence[str]) -> Tensor:
        """Gold trees as labels of that."""

    @abstractmethod
    def greedy_beliefs(self, p: Softmax, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """What the baseline predicts, and how probable that is."""

    @abstractmethod
    def beliefs(self, p: Any, by: str) -> tuple[Tensor, Tensor]:
        """What the structured network predicts, and its marginals."""

    def baseline(self, train: Examples, val: Examples, labels: Sequence[str], tags: Sequence[str]) -> dict[str, float]:
        """The measures of what needs no network, learnt from training sentences with ``tags``; none by default."""
        return {}

    @abstractmethod
    def says(self, settings: Mapping[str, Any]) -> str:
        """What trees there are, in words."""

    @abstractmethod
    def picture(self, pairs: Sequence[tuple[Any, Any]]) -> Figure:
        """Gold and predicted trees."""

    @abstractmethod
    def row(self, sentence: Any) -> dict[str, Any]:
        """A sentence with its tree as plain values, by the names of ``columns``."""

    @abstractmethod
    def write(self, source: Path, output: Path, sentences: Sequence[Any], encoding: str | None) -> None:
        """Write the sentences of the file ``source`` with their trees."""


def padded(trees: Sequence[Tensor], axes: int) -> Tensor:
    """Trees ``[n, …]`` as one batch, padded by −100 along the first ``axes`` axes."""
    most = max(len(tree) for tree in trees)
    batch = torch.full((len(trees), *(most,) * axes, *trees[0].shape[axes:]), -100)
    for row, tree in zip(batch, trees, strict=True):
        row[(slice(len(tree)),) * axes] = tree
    return batch
