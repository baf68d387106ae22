"""Labellings that are binary trees: what distributions over constituents and over derivations share."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor
from torch.distributions import constraints

from lnz.checks import as_labels, check_broadcast, check_event_shape, check_labels, check_tensor, concrete
from lnz.distributions.sequence import SequenceDistribution
from lnz.distributions.support import BinaryTrees
from lnz.ops.charts import ABSENT, within
from lnz.ops.spans import crossed
from lnz.typing import IGNORE


class TreeLabels(SequenceDistribution):
    """A distribution over binary trees on the words of a sentence, whose labellings are ``int64 [*batch, N, N]``.

    Entry [i, j] is the label of the constituent of words i … j, −1 where there is none, −100 unknown. Entries below the
    diagonal are ignored, and −1 in labellings returned; padding is ignored, and −100.
    """

    lengths: Tensor | None

    @property
    @abstractmethod
    def _label_counts(self) -> tuple[int, int]:
        """How many labels single words have, and how many longer spans."""

    @property
    def _words(self) -> int:
        """N."""
        return self.event_shape[0]

    @property
    @abstractmethod
    def _device(self) -> torch.device: ...

    @property
    def _word_counts(self) -> Tensor:
        """The lengths, ``[*batch]`` or ``[]``."""
        return torch.as_tensor(self._words if self.lengths is None else self.lengths, device=self._device)

    @property
    def inside(self) -> Tensor:
        """Which entries are spans: neither below the diagonal nor over padding, ``[*batch, N, N]`` or ``[N, N]``."""
        return within(self._words, self._word_counts)

    @property
    def _lengths(self) -> Tensor | int:
        return self._words if self.lengths is None else self.lengths

    @property
    def _sizes_of_labels(self) -> Tensor:
        """How many labels each span has, ``[N, N]``."""
        word, span = self._label_counts
        diagonal = torch.eye(self._words, dtype=torch.bool, device=self._device)
        return torch.where(diagonal, word, span)

    @property
    def support(self) -> constraints.Constraint:
        """Binary trees with a label per constituent; −1 elsewhere, −100 over padding."""
        return BinaryTrees(self._sizes_of_labels, self._word_counts)

    def labelling(self, y: Tensor) -> Tensor:
        """``y`` with −100 over padding and −1 below the diagonal, whatever it held there."""
        check_tensor("y", y)
        y = as_labels("y", y)
        check_event_shape("y", y.shape, self.event_shape)
        check_broadcast("y", y.shape[:-2], self.batch_shape)
        words = torch.arange(self._words, device=y.device) < self._word_counts.unsqueeze(-1)
        outside = torch.where(words.unsqueeze(-1) & words.unsqueeze(-2), ABSENT, IGNORE)
        y = torch.where(self.inside, y, outside)
        absent = (y == ABSENT) & ~torch.eye(self._words, dtype=torch.bool, device=y.device)  # every word is there
        word, span = self._label_counts
        check_labels("y", torch.where(absent, IGNORE, y), span if word == span else self._sizes_of_labels)
        return y

    def _unobserved(self, y: Tensor) -> Tensor:
        return ((self.labelling(y) == IGNORE) & self.inside).flatten(-2).any(-1)

    def _gold_count(self, y: Tensor) -> Tensor:
        """Of how many spans it is known what they are, ``[*batch]``."""
        return ((self.labelling(y) != IGNORE) & self.inside).flatten(-2).sum(-1)

    def _full(self, y: Tensor) -> Tensor:
        """:meth:`labelling` of a full one.

        Raises:
            ValueError: entries are unobserved.
        """
        y = self.labelling(y)
        if self._validate_args and concrete(y) and self._unobserved(y).any():
            raise ValueError("y: expected a full labelling, got -100 (unobserved); use log_prob or condition")
        return y

    def _excluded(self, y: Tensor) -> Tensor:
        """Which spans a partial labelling rules out: those of −1, and what crosses one with a label.

        A tree holds a span exactly if it holds none that cross it.
        """
        return (y == ABSENT) | crossed((y >= 0) & self.inside)
