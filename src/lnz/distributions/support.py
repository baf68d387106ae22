"""What a labelling may be, as ``torch.distributions`` asks for it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions.constraints import Constraint

from lnz.ops.spans.brackets import is_tree
from lnz.typing import IGNORE


class Labellings(Constraint):
    """Full labellings ``[*batch, *event]``: a label at every entry, −100 over padding.

    Which of them are possible, and how much, is for the scores to say.

    Args:
        num_labels: labels are 0 … L − 1; an integer, or a tensor that broadcasts with the event, one L per entry.
        event_dim: the number of axes of a labelling.
        inside: which entries are no padding, ``[*batch, *event]``; ``None`` for all.
        continued: whether −1 stands for the label before, at every entry but the first.
    """

    is_discrete = True

    def __init__(
        self, num_labels: int | Tensor, event_dim: int, inside: Tensor | None = None, continued: bool = False
    ) -> None:
        self.num_labels, self.inside, self.continued = num_labels, inside, continued
        self._event_dim = event_dim
        super().__init__()

    @property
    def event_dim(self) -> int:  # type: ignore[override]
        return self._event_dim

    def check(self, value: Tensor) -> Tensor:
        """Whether each of the labellings is one, ``[*batch]``."""
        right = (value >= 0) & (value < self.num_labels) & (value == value.floor())
        if self.continued:
            right = right | ((value == -1) & (torch.arange(value.shape[-1], device=value.device) > 0))
        if self.inside is not None:
            right = torch.where(self.inside, right, value == IGNORE)
        return right.flatten(-self.event_dim).all(-1) if self.event_dim else right


class Transcripts(Constraint):
    """Label sequences ``[*batch, S]`` without blanks, −100 beyond their ends.

    Args:
        num_labels: labels are 0 … C − 1.
        blank: the one of them that is no label; ``None`` for none.
    """

    is_discrete = True
    event_dim = 1

    def __init__(self, num_labels: int, blank: int | None) -> None:
        self.num_labels, self.blank = num_labels, blank
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        """Whether each of the sequences is one, ``[*batch]``."""
        over = value == IGNORE
        label = (value >= 0) & (value < self.num_labels) & (value == value.floor()) & (value != self.blank)
        ended = over.cummax(-1).values if value.shape[-1] else over
        return torch.where(ended, over, label).all(-1)


class BinaryTrees(Constraint):
    """Full labellings of spans ``[*batch, N, N]`` that are binary trees: a label per constituent, −1 at other spans.

    Args:
        num_labels: an integer, or a tensor ``[N, N]``, one L per span.
        lengths: how many words there are, ``[*batch]``; −100 stands over the others.
    """

    is_discrete = True
    event_dim = 2

    def __init__(self, num_labels: int | Tensor, lengths: Tensor) -> None:
        self.num_labels, self.lengths = num_labels, lengths
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        """Whether each of the labellings is one, ``[*batch]``."""
        words = torch.arange(value.shape[-1], device=value.device) < self.lengths.unsqueeze(-1)
        inside = words.unsqueeze(-1) & words.unsqueeze(-2)
        span = (value >= 0) & inside.triu()
        label = (value < self.num_labels) & (value == value.floor())
        right = torch.where(span, label, value == torch.where(inside, -1, IGNORE))
        return right.flatten(-2).all(-1) & is_tree(span, self.lengths)
