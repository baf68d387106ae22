"""What the kernels of chains take: arrays in named tuples. Shapes as in :mod:`lnz.ops.chain.reference`."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch


class Inputs(NamedTuple):
    """B chains: node ``[B, T, L]``, edge ``[B or 1, S, L, L]``, lengths ``int64 [B]``."""

    node: Any
    edge: Any
    lengths: Any


class Span(NamedTuple):
    """Sequences first … last − 1, steps begin … end − 1."""

    first: int
    last: int
    begin: int
    end: int


class Limits(NamedTuple):
    """How far the scores of one dtype may range, in natural logarithms, for a pass in exponentials to be exact.

    Attributes:
        reach: of a table of edge scores without −inf. What underflows is then at most e^reach times the smallest number
            of the dtype in any later sum, which is below its rounding.
        width: of states, where there is −inf and none may underflow: nine tenths of the range of the dtype.
    """

    reach: float
    width: float


LIMITS = {torch.float32: Limits(60.0, 79.0), torch.float64: Limits(600.0, 637.0)}


class Sweep(NamedTuple):
    """What the passes forward and backward write, and what they leave for each other.

    Attributes:
        log_z: float64 ``[B]``.
        nodes: ``[B, T, L]``: exp(x_t − max x_t), in the end the marginals.
        forward_factor: ``[B, T, L]``: the messages from the left, in the end the factors.
        backward_factor: ``[B, T, L]``: exp(x_t) β_t, normalised.
        tops: max x_t ``[B, T]``.
        scales: what the backward state was divided by ``[B, T]``.
        range_stats: float64 ``[B, 7]``, in the order of ``sweep.FINITE`` …, starting as ``sweep.START``.
        limits: of the dtype of the scores.
        in_range: bool ``[B]``.
    """

    log_z: Any
    nodes: Any
    forward_factor: Any
    backward_factor: Any
    tops: Any
    scales: Any
    range_stats: Any
    limits: Limits
    in_range: Any


class Tile(NamedTuple):
    """Sequences that are done side by side.

    Attributes:
        first: of them.
        count: their number.
        longest: their largest length.
        delayed: whether states are divided by their sums one step late, see ``sweep``.
    """

    first: int
    count: int
    longest: int
    delayed: bool


class Work(NamedTuple):
    """Rows of a tile: the exponentiated table, the states of its sequences, and what arrives at them."""

    table: Any
    state: Any
    message: Any
