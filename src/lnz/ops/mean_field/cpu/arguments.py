"""What the kernels of mean field take: arrays in named tuples, laid out as :mod:`.layout` says."""

from __future__ import annotations

from typing import Any, NamedTuple


class Edges(NamedTuple):
    """The edges of one direction.

    Attributes:
        slots: ``int64 [2]``, the place in the stack of the tables that lead onward and back; S where none is needed.
        weight: ``[entries, rows, 2, K]``, empty where there are none. With Potts scores, what equal labels gain.
        full: ``[entries, rows, 2, L, L, K]``, the tables of edges that have their own; else empty.
    """

    slots: Any
    weight: Any
    full: Any


class Grids(NamedTuple):
    """B images.

    Attributes:
        which: ``int64 [4, B]``: the node, horizontal, vertical and stack entry of each image.
        unary: ``[entries, H + 2, 2, L, K]``.
        stack: ``[1 or B, S · L, L rounded up to 4]``.
        across: the horizontal edges.
        down: the vertical edges.
        width: W.
    """

    which: Any
    unary: Any
    stack: Any
    across: Edges
    down: Edges
    width: int


class Band(NamedTuple):
    """Rows top … bottom − 1 of image b, of the colours first … last − 1 of (0, 1); 0 has the upper left pixel."""

    b: int
    top: int
    bottom: int
    first: int
    last: int


class Pixels(NamedTuple):
    """n pixels of row h and column parity p, from the k-th of that parity on."""

    h: int
    p: int
    k: int
    n: int


class Until(NamedTuple):
    """How images are iterated, and until when.

    Attributes:
        parallel: all pixels at once, instead of one colour after the other.
        damping: of the dtype of q.
        tolerance: stop once no probability changes by more; 0 never does.
        limit: the most iterations.
    """

    parallel: bool
    damping: Any
    tolerance: float
    limit: int
