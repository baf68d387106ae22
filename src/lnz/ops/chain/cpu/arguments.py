"""What the kernels of chains take: arrays in named tuples. Shapes as in :mod:`lnz.ops.chain.reference`."""

from __future__ import annotations

from typing import Any, NamedTuple


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


class Sweep(NamedTuple):
    """What the passes forward and backward write, and what they leave for each other.

    Attributes:
        log_z: float64 ``[B]``.
        nodes: ``[B, T, L]``: exp(x_t − max x_t), in the end the marginals.
        before: ``[B, T, L]``: what arrives from the left, in the end the forward factors.
        after: ``[B, T, L]``: exp(x_t) β_t, normalised.
        tops: max x_t ``[B, T]``.
        scales: what the backward state was divided by ``[B, T]``.
        report: float64 ``[B, 7]``, starting as ``sweep.START``.
        limits: of ``sweep.judge``.
        in_range: bool ``[B]``.
    """

    log_z: Any
    nodes: Any
    before: Any
    after: Any
    tops: Any
    scales: Any
    report: Any
    limits: tuple[float, float]
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
