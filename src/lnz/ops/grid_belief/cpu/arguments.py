"""What the kernels of grids take: arrays and numbers in named tuples, and pointers into them.

Shapes: B images, H rows, W columns, L labels, rounded up to P, a multiple of 4. Some fields are tuples whose length
counts: the compiler knows it, so that each length gets a kernel of its own, without the other's branches.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from lnz.ops.jit.cpu import helper
from lnz.ops.jit.cpu.memory import address
from lnz.ops.jit.cpu.vectors import LANES

SHARED: tuple[()] = ()
OWN = (0,)
"""The forms of edges: one table for all of a direction, or any of the kinds of :mod:`lnz.ops.grid_scores`."""

LEFT, RIGHT, UP, DOWN = 0, 1, 2, 3  # where a message comes from; 2 · (is the edge vertical) + end that sends
TILE = 64  # pixels worked on at a time
ROOM = TILE + LANES  # with what spills over


class SharedTables(NamedTuple):
    """Edges of one direction whose form is ``SHARED``: ``square [entries, 2, L, P]``, transposed the second time."""

    square: Any


class OwnTables(NamedTuple):
    """Edges of one direction whose form is ``OWN``; what a kind does not need is empty.

    Attributes:
        kind: ``TABLE``, ``POTTS``, ``WEIGHTED`` or ``FULL``.
        square: ``[tables, 2, L, P]``, as above.
        weight: ``[entries, rows, columns]``.
        full: ``[entries, rows, L, L, columns]``.
        low: the least score of the table that weights multiply.
        high: the greatest.
        choice: ``int32 [entries, rows, columns]``: with ``TABLE``, the one that each edge has.
    """

    kind: int
    square: Any
    weight: Any
    full: Any
    low: float
    high: float
    choice: Any


class Grid(NamedTuple):
    """Models and their messages.

    Attributes:
        domain: ``EXP``, ``LOG`` or ``MAX``; tables come in it.
        form: ``SHARED`` or ``OWN``.
        node: ``[entries, H, L, W]``, largest of each pixel 1 (in logarithms 0); in logarithms where there is ``rho``.
        which: ``int64 [4, B]``: the node, horizontal, vertical and ``rho`` entry that each image reads.
        edges: the tables of the horizontal and of the vertical edges.
        rho: how much messages count at nodes where that is not once: ``across [entries, H, W + 1]`` and ``down
            [entries, H + 1, W]``, by the edges before and after each pixel, 0 on the border. Else an empty tuple.
        messages: ``[4, B, H, L, W]``.
    """

    domain: tuple[int, ...]
    form: tuple[int, ...]
    node: Any
    which: Any
    edges: tuple[Any, Any]
    rho: tuple[Any, ...]
    messages: Any


class Tasks(NamedTuple):
    """Bands of rows of images, numbered image by image: tasks first … last − 1.

    Attributes:
        first: of the tasks.
        last: the one after the last.
        images: ``int64``, which there are.
        cuts: ``int64 [bands + 1]``, the rows at which the bands of each begin and end.
        work: scratch of the thread, see :func:`scratch`.
    """

    first: int
    last: int
    images: Any
    cuts: Any
    work: Any


class Rule(NamedTuple):
    """How to iterate.

    Attributes:
        limit: the most iterations.
        tolerance: the residual to stop at; 0 where there is none.
        damping: ``(damping, 1 − damping)``.
        floor: ``[B]``, in logarithms: the least that a message says of a possible label.
        joins: 0; or 1, where only the edges between bands are served.
    """

    limit: int
    tolerance: float
    damping: tuple[float, float]
    floor: Any
    joins: int


class Scratch(NamedTuple):
    """Rows of ``ROOM`` numbers, as pointers.

    Attributes:
        sent: what the pixels of a tile send: right (a lane late), left, down (the row above), up, each ``[P, ROOM]``.
        made: what edges make of that, onward and back, each ``[P, ROOM]``; twice, for sums in logarithms.
        products: of scores and all incoming messages, ``[P, ROOM]``.
        lanes: ``[2, ROOM]``.
        size: P · ROOM.
    """

    sent: Any
    made: Any
    products: Any
    lanes: Any
    size: int


def scratch_rows(labels: int) -> int:
    """How many rows of ``ROOM`` numbers a :class:`Scratch` takes."""
    return 9 * ((labels + 3) // 4 * 4) + 2


@helper()
def scratch(work, labels):
    """Pointers into ``work [scratch_rows, ROOM]``."""
    rows = (labels + 3) // 4 * 4
    return Scratch(
        address(work, 0), address(work, 4 * rows), address(work, 8 * rows), address(work, 9 * rows), rows * ROOM
    )


class Received(NamedTuple):
    """What the pixels of a tile go by: scores, and messages from four sides, each ``[L, line]``, as pointers."""

    labels: int
    line: int
    scores: Any
    left: Any
    right: Any
    up: Any
    down: Any


@helper()
def received(node, messages, entry, b, h, w):
    return Received(
        node.shape[2], node.shape[3], address(node, (entry, h, 0, w)),
        address(messages, (LEFT, b, h, 0, w)), address(messages, (RIGHT, b, h, 0, w)),
        address(messages, (UP, b, h, 0, w)), address(messages, (DOWN, b, h, 0, w)),
    )  # fmt: skip
