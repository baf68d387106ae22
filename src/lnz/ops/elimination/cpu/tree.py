"""A junction tree as kernels have it: pointers, which cost a call nothing, where two dozen arrays cost hundreds."""

from __future__ import annotations

from typing import Any, NamedTuple

from lnz.ops.jit.cpu import helper
from lnz.ops.jit.cpu.memory import pointer_to


class Tree(NamedTuple):
    """Pointers to the arrays of a :class:`~lnz.ops.elimination.cpu.layout.Layout`, ``int64``, by the same names."""

    blocks: Any
    summed: Any
    lanes: Any
    message: Any
    entry: Any
    first: Any
    fixed: Any
    own: Any
    table: Any
    outer: Any
    rows: Any
    lane: Any
    along: Any
    inbox: Any
    received: Any
    offsets: Any
    lane_offsets: Any
    members: Any
    kept: Any
    node: Any
    card: Any
    constants: Any
    roots: Any
    sizes: Any


class Row(NamedTuple):
    """One model: all its tables, where each starts, and whether node tables hold anything but 0."""

    scores: Any
    base: Any
    clamped: bool


class Passed(NamedTuple):
    """What cliques have told each other.

    Attributes:
        messages: ``[MESSAGES]``.
        shifts: float64 ``[C]``, what was taken away from each message.
        tables: ``[ENTRIES]``, if they are kept; else empty.
    """

    messages: Any
    shifts: Any
    tables: Any


class Below(NamedTuple):
    """What the way down gathers: beliefs of the messages into a clique ``[INBOX]``, and the marginals of all tables."""

    inbox: Any
    marginals: Any


@helper()
def tree_at(addresses):
    """The tree of a layout's ``addresses``."""
    a = addresses
    return Tree(
        pointer_to(a[0], a), pointer_to(a[1], a), pointer_to(a[2], a), pointer_to(a[3], a), pointer_to(a[4], a),
        pointer_to(a[5], a), pointer_to(a[6], a), pointer_to(a[7], a), pointer_to(a[8], a), pointer_to(a[9], a),
        pointer_to(a[10], a), pointer_to(a[11], a), pointer_to(a[12], a), pointer_to(a[13], a), pointer_to(a[14], a),
        pointer_to(a[15], a), pointer_to(a[16], a), pointer_to(a[17], a), pointer_to(a[18], a), pointer_to(a[19], a),
        pointer_to(a[20], a), pointer_to(a[21], a), pointer_to(a[22], a), pointer_to(a[23], a),
    )  # fmt: skip
