"""What the kernels of semi-Markov chains take: arrays in named tuples. Shapes as in :mod:`..reference`.

L' is L rounded up to a multiple of 16; rows ``[…, L']`` of probabilities hold zeros beyond the labels.
"""

from __future__ import annotations

from typing import Any, NamedTuple

ROWWISE: tuple[()] = ()  # whether positions have tables of their own, by a length that the compiler knows,
AS_ONE = (0,)  # or share one


class Inputs(NamedTuple):
    """B chains.

    Attributes:
        kind: ``AS_ONE`` or ``ROWWISE``.
        segment: s ``[B, T, W, L]``.
        edge: A ``[B or 1, S, L, L]``.
        lengths: ``int64 [B]``.
        limit: a sum of exponentials above it is within range; underflow is negligible beside it.
    """

    kind: Any
    segment: Any
    edge: Any
    lengths: Any
    limit: float


class Results(NamedTuple):
    """What a pass writes.

    Attributes:
        log_z: float64 ``[B]``.
        segments: marginals ``[B, T, W, L]``; of the pass back, exp(s + after − shift).
        edges: marginals ``[B · S, L, L]``; of the pass back, ``ROWWISE``, exp(A − top), which may be a single table.
        in_range: bool ``[B]``: whether all scores are numbers; if not, the other results mean nothing.
        uniform: numbers in [0, 1) ``[n, B, T, 2]`` to draw by; if n is not 0, there are no marginals.
        labels: ``int64 [n, B, T]``, −100 beyond the sequence.
    """

    log_z: Any
    segments: Any
    edges: Any
    in_range: Any
    uniform: Any
    labels: Any


class Tile(NamedTuple):
    """Sequences first … first + count − 1, done side by side; n is at most ``longest``."""

    first: int
    count: int
    longest: int


class Tables(NamedTuple):
    """exp(A − top), with a top per row.

    Attributes:
        table: ``[≥ L, ≥ L]``, ``AS_ONE``.
        transposed: the same transposed, ``AS_ONE``.
        factors: ``[B · S, ≥ L, ≥ L]``, or a single one that each position writes anew; ``ROWWISE``.
        tops: float64 ``[≥ 1, L']``.
    """

    table: Any
    transposed: Any
    factors: Any
    tops: Any


class Backward(NamedTuple):
    """What the pass back leaves of the sequences of a tile.

    Attributes:
        begins: begin_t, float64 ``[tile, T, L']``; −∞ beyond the labels.
        afters: after_t, float64 ``[tile, ≥ (T + 1) L]``, steps behind one another.
        ahead: exp(begin_t − peak) ``[tile, T, L']``.
        inverses: 1 / Σ_w exp(s + after − shift) ``[tile, T, L']``.
        leaves: 1 / Σ_l exp(A − top + begin − peak) ``[tile, T, L']``; 0 where that is below the limit.
        rare: bool ``[tile, T]``: whether it is for any label.
        peaks: max begin_0, float64 ``[tile]``.
        weights: exp(s + after − shift) ``[B, T, W, L]``, 0 for segments that reach beyond the end.
        in_range: as of :class:`Results`.
    """

    begins: Any
    afters: Any
    ahead: Any
    inverses: Any
    leaves: Any
    rare: Any
    peaks: Any
    weights: Any
    in_range: Any


class Forward(NamedTuple):
    """What the pass forward has at its step, and adds up.

    Attributes:
        starts: the probability that a segment of each label starts here, ``[tile, L']``, but for a factor.
        ends: the probability that one ends, ``[tile, ≥ (T + W) L]``, steps behind one another.
        extra: float64 ``[tile, L, L]``, ``AS_ONE``: marginals of edges that were computed with logarithms.
    """

    starts: Any
    ends: Any
    extra: Any


class Work(NamedTuple):
    """Rows to work in: the states of a tile and what arrives at them ``[≥ tile, L']``, and see :mod:`.widths`."""

    state: Any
    message: Any
    shifts: Any
    sums: Any
    folds: Any
