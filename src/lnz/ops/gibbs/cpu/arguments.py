"""What the kernels of Gibbs sweeps take: arrays in named tuples.

Arrays of grids are laid out by colours as in :mod:`lnz.ops.gibbs.checkerboard`, K places per row.
"""

from __future__ import annotations

from typing import Any, NamedTuple

EXP: tuple[()] = ()  # a domain is the length of a tuple, which the compiler knows
LOG = (0,)
EQUAL: tuple[()] = ()  # and so is what edges say: whether labels are equal,
TABLE = (0,)  # or what a table has


class Band(NamedTuple):
    """Which rows of which images are redrawn when.

    Attributes:
        begin: the first image; the number of an image is also that of its random numbers.
        end: where images end.
        stride: how many images lie from one to the next, the number of batch entries.
        first: the number of the first half-sweep; even ones draw colour 0.
        steps: how many half-sweeps.
        low: the first row.
        high: the row after the last.
        up: how many rows ``low`` moves per half-sweep.
        down: likewise for ``high``.
    """

    begin: int
    end: int
    stride: int
    first: int
    steps: int
    low: int
    high: int
    up: int
    down: int


class Edges(NamedTuple):
    """The edges of one direction.

    Attributes:
        kind: ``EQUAL``, where labels only matter by being equal, or ``TABLE``.
        weight: of the edges before and after each node ``[2, 2, H, K]``, or of all ``[2, 2, 1, 16]``: what equal labels
            gain, or what scales the tables in ``LOG``.
        table: ``[E · L · L]`` or, of all edges, ``[L · L]``; not read in ``EQUAL``.
    """

    kind: Any
    weight: Any
    table: Any


class Grid(NamedTuple):
    """The scores of one batch entry.

    Attributes:
        domain: ``EXP``, where scores come as their exponentials and are multiplied, or ``LOG``.
        free: ``uint8 [2, H, K]``, 1 at the nodes that may change.
        node: ``[2, H, K / 16, L, 16]``, the scores of nodes, or ``[1, 1, 1, L, 16]``, those of all. With L = 1 labels
            are binary, and these and the weights are the odds of :mod:`.binary`.
        across: of the horizontal edges.
        down: of the vertical edges.
        beta: ``[1]``, one over the temperature; not read in ``EXP``.
        width: W.
    """

    domain: Any
    free: Any
    node: Any
    across: Edges
    down: Edges
    beta: Any
    width: int


class Rows(NamedTuple):
    """Rows low … high − 1 of an image at a half-sweep."""

    image: int
    step: int
    low: int
    high: int


class Work(NamedTuple):
    """Room for random words ``uint32 [4, 16]`` and for the sums of all labels ``[L, 16]``."""

    words: Any
    sums: Any
