"""What distributions over transcripts share: label sequences of any length, one softmax per frame or node."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Never, Self

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from lnz.distributions.support import Transcripts
from lnz.distributions.temperature import check_temperature, divided


class TranscriptDistribution(Distribution):
    """``P(y)``, a sum over the alignments of a label sequence y. Every choice is normalised, so that ln Z = 0.

    It is no exponential softmax over labellings of one shape, so no :class:`lnz.distributions.StructuredDistribution`:
    that is P(z | y) over alignments z, see ``alignments``. What asks for all sequences at once is refused by name.

    Label sequences are ``int64 [*batch, S]``, −100 beyond their ends.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012  (torch declares it a property)
    _validate_args = __debug__
    _axes: ClassVar[int]
    """Of the logits, behind those of the batch."""
    _refused: ClassVar[dict[str, str]]
    """Why there is no such answer, and what has one."""

    def __init__(
        self, logits: Tensor, lengths: Tensor, blank: int | None, batch_shape: torch.Size, validate: bool
    ) -> None:
        super().__init__(batch_shape, torch.Size(), validate_args=False)
        self._validate_args = validate
        self.logits, self.lengths = logits, lengths
        self.blank: int | None = blank

    @abstractmethod
    def log_prob(self, value: Tensor, target_lengths: Tensor | None = None) -> Tensor:
        """ln P(y), ``[*batch]``, of sequences that end where ``target_lengths`` says, or at the first −100."""

    @abstractmethod
    def _with(self, logits: Tensor) -> Self:
        """The same distribution with other logits."""

    @property
    def scores(self) -> Tensor:
        """The logits, as given."""
        return self.logits

    @property
    def num_labels(self) -> int:
        """C, the number of classes, the blank among them."""
        return self.logits.shape[-1]

    @property
    def log_partition(self) -> Tensor:
        """ln Z = 0, ``[*batch]``: what the network chooses is normalised choice by choice."""
        return self.logits.new_zeros(self.batch_shape)

    def score(self, y: Tensor, target_lengths: Tensor | None = None) -> Tensor:
        """The same as :meth:`log_prob`, for ln Z is 0."""
        return self.log_prob(y, target_lengths)

    def tempered(self, temperature: float | Tensor) -> Self:
        """The distribution with all logits divided by ``temperature`` > 0, a number or a tensor per batch entry."""
        check_temperature(temperature, self.batch_shape)
        return self._with(divided(self.logits, temperature, self._axes))

    def expand(self, batch_shape: Sequence[int], _instance: object = None) -> Self:
        """The same distribution with a larger batch shape (nothing is copied)."""
        return self._with(self.logits.expand(*batch_shape, *self.logits.shape[-self._axes :]))

    @property
    def support(self) -> constraints.Constraint:
        """Label sequences without blanks, −100 beyond the end."""
        return Transcripts(self.num_labels, self.blank)

    def argmax(self) -> Never:
        """Raise: there is no best sequence to be had, and the message says what there is."""
        raise TypeError(self._refused["argmax"])

    def topk(self, k: int) -> Never:
        """Raise, as :meth:`argmax` does."""
        raise TypeError(self._refused["topk"].format(k=k))

    def entropy(self) -> Never:
        """Raise, as :meth:`argmax` does."""
        raise TypeError(self._refused["entropy"])

    def condition(self, y: Tensor) -> Never:
        """Raise: a sequence of any length has no places to clamp."""
        raise TypeError(self._refused["condition"])

    @property
    def marginals(self) -> Never:
        """Raise: a sequence of any length has no places to give marginals of."""
        raise TypeError(self._refused["marginals"])

    @property
    def log_count(self) -> Never:
        """Raise: sequences are not counted."""
        raise TypeError(self._refused["log_count"])

    @property
    def mode(self) -> Never:
        """Raise, as :meth:`argmax` does."""
        return self.argmax()

    @property
    def mean(self) -> Never:
        """Raise: labels are names, not numbers."""
        self._no_moment("mean")

    @property
    def variance(self) -> Never:
        """Raise, as :attr:`mean` does."""
        self._no_moment("variance")

    @property
    def stddev(self) -> Never:
        """Raise, as :attr:`mean` does."""
        self._no_moment("stddev")

    def _no_moment(self, what: str) -> Never:
        raise TypeError(
            f"{type(self).__name__} has no {what}: labels are names, not numbers; use alignments(targets).marginals "
            f"(the expectation of indicators, given targets); {self._refused['argmax']}"
        )
