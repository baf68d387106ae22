"""What the functions of semi-Markov chains take and give. Shapes as in :mod:`lnz.ops.semi_markov.reference`."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from lnz.ops import precision
from lnz.ops.scaffold.batch import Axis

SHARED = {"edge": Axis(shared=True)}
CONTINUED = -1
"""What a labelling holds where a segment goes on."""


class Segments(NamedTuple):
    """B semi-Markov chains.

    Attributes:
        segment: scores of segments ``[B, T, W, L]``.
        edge: scores from the label of a segment to that of the next ``[B or 1, S, L, L]``.
        lengths: ``int64 [B]`` in 0 … T.
    """

    segment: Tensor
    edge: Tensor
    lengths: Tensor

    def wide(self) -> Segments:
        """In the dtype that a reference runs in."""
        return precision.astype(self, precision.accumulator(self.segment))


class Pass(NamedTuple):
    """What one pass gives, as constants: ln Z ``[B]``, marginals ``[B, T, W, L]`` and ``[B, S, L, L]``.

    ln Z is in the dtype that it was computed in (:func:`lnz.ops.precision.accumulator`), so that differences from it
    are rounded once.
    """

    log_z: Tensor
    segments: Tensor
    edges: Tensor
