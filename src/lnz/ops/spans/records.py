"""What the functions of binary trees take and give. Shapes as in :mod:`lnz.ops.spans.reference`."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from lnz.ops import precision


class Spans(NamedTuple):
    """B sentences.

    Attributes:
        scores: of labelled spans ``[B, N, N, L]``, by first word, last word and label; entries below the diagonal and
            beyond the length are never read.
        lengths: ``int64 [B]`` in 0 … N.
    """

    scores: Tensor
    lengths: Tensor

    def wide(self) -> Spans:
        """In the dtype that a reference runs in."""
        return precision.astype(self, precision.accumulator(self.scores))


class Pass(NamedTuple):
    """What one pass gives, as constants. P(span with label l) = shares · exp(score − peaks).

    Attributes:
        log_z: ``[B]``, in the dtype of the accumulator.
        peaks: the highest score of each span ``[B, N, N]``; 0 where no span is, or none of its labels is possible.
        shares: P(span) / Σ_l exp(score − peak) ``[B, N, N]``; 0 there.
    """

    log_z: Tensor
    peaks: Tensor
    shares: Tensor
