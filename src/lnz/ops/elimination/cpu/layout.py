"""A junction tree as the arrays that the CPU kernel reads.

The axes of a clique's table are its eliminated nodes, then its separator with the nodes eliminated last in the last
axes. The last few axes of the separator are the *lanes*: consecutive entries of the clique's message, worked on
together. The eliminated nodes make the *rows* of a block of ``summed × lanes`` entries, the rest of the separator says
which block. Entry (row r, lane l) of block h lies in an input at ``start + outer[h] + rows[r] + lane[l]``.

Since messages order their axes alike, nodes eliminated late and so shared by many tables come last in all of them, and
most lanes are consecutive entries there too.
"""

from __future__ import annotations

import math
from bisect import insort
from typing import NamedTuple

import numpy as np

from lnz.ops.elimination.program import Program, offsets_of

_LANES = 512  # at most, unless one node has more labels

CONSTANT, CONSECUTIVE, SCATTERED = 0, 1, 2
"""How an input's entries move along the lanes."""

MESSAGES, ENTRIES, INBOX, WIDTH, CLIQUES, CONSTANTS, ROOTS = range(7)
"""Places in ``sizes``: the entries of all messages; of all tables; of the beliefs one clique hands to its children, at
most; of a block, at most; the numbers of cliques, constants and roots."""


class Layout(NamedTuple):
    """A :class:`Program` as arrays; C cliques, I inputs, T tables."""

    blocks: np.ndarray  # [C] how many blocks
    summed: np.ndarray  # [C] rows of a block: joint labels of the eliminated nodes
    lanes: np.ndarray  # [C]
    message: np.ndarray  # [C] where a clique's message starts
    entry: np.ndarray  # [C] where a clique's table starts, if all are kept one after the other
    first: np.ndarray  # [C + 1] a clique's inputs: those that differ from block to block …
    fixed: np.ndarray  # [C] … then those that do not …
    own: np.ndarray  # [C] … then node tables, which do not either
    table: np.ndarray  # [I] the table, or −1 − child for a message
    outer: np.ndarray  # [I] where the input's offsets start in ``offsets`` …
    rows: np.ndarray  # [I]
    lane: np.ndarray  # [I] … and those of its lanes in ``lane_offsets``
    along: np.ndarray  # [I] CONSTANT, CONSECUTIVE or SCATTERED
    inbox: np.ndarray  # [I] where a message's belief is gathered while its clique is worked on
    received: np.ndarray  # [C] how much is gathered there
    offsets: np.ndarray
    lane_offsets: np.ndarray
    members: np.ndarray  # [C + 1] a clique's nodes: its separator …
    kept: np.ndarray  # [C] … then the eliminated ones
    node: np.ndarray  # the nodes
    card: np.ndarray  # their labels
    constants: np.ndarray  # tables without a free node
    roots: np.ndarray  # cliques without a parent
    sizes: np.ndarray  # how long the arrays are that the kernel works in, by MESSAGES …
    addresses: np.ndarray  # of all these arrays, which is what kernels take: :mod:`.cpu.tree`


class _Offsets:
    """Offsets of many axes in one array, each pattern once."""

    def __init__(self) -> None:
        self.parts: list[np.ndarray] = [np.zeros(0, np.int64)]
        self.places: dict[tuple[tuple[int, ...], tuple[int, ...]], int] = {}
        self.filled = 0

    def place(self, cards: tuple[int, ...], strides: tuple[int, ...]) -> int:
        key = (cards, strides)
        if key not in self.places:
            self.places[key] = self.filled
            self.parts.append(offsets_of(cards, strides))
            self.filled += len(self.parts[-1])
        return self.places[key]


def layout(program: Program) -> Layout:
    """The arrays of a program."""
    columns: dict[str, list[int]] = {name: [] for name in Layout._fields[:-2]}
    offsets, lane_offsets = _Offsets(), _Offsets()
    inbox = width = entries = messages = 0
    sizes: list[int] = []  # of messages
    for shape, inputs, (nodes, eliminated, parent) in zip(program.shapes, program.inputs, program.cliques, strict=True):
        split = len(nodes) - eliminated
        separator = shape[:split][::-1]
        outer, lanes = len(separator), 1
        while outer and (lanes == 1 or lanes * separator[outer - 1] <= _LANES):
            outer -= 1
            lanes *= separator[outer]
        summed, blocks = math.prod(shape[split:]), math.prod(separator[:outer])
        strides = [_strides(program, entry.child, nodes) if entry.child >= 0 else entry.strides for entry in inputs]
        fixed = [not any(step[:split][::-1][:outer]) for step in strides]
        own = [entry.table >= program.num_factors for entry in inputs]
        columns["first"].append(len(columns["table"]))
        columns["fixed"].append(len(columns["table"]) + fixed.count(False))
        columns["own"].append(len(columns["table"]) + own.count(False))
        received = 0
        for place in sorted(range(len(inputs)), key=lambda place: (fixed[place], own[place])):
            child, step = inputs[place].child, strides[place]
            above = step[:split][::-1]
            columns["table"].append(inputs[place].table if child < 0 else -1 - child)
            columns["outer"].append(offsets.place(separator[:outer], above[:outer]))
            columns["rows"].append(offsets.place(shape[split:], step[split:]))
            columns["lane"].append(lane_offsets.place(separator[outer:], above[outer:]))
            columns["along"].append(_along(separator[outer:], above[outer:]))
            columns["inbox"].append(received)
            received += sizes[child] if child >= 0 else 0
        columns["received"].append(received)
        columns["members"].append(len(columns["node"]))
        columns["kept"].append(len(columns["node"]) + split)
        columns["node"] += nodes[:split][::-1] + nodes[split:]
        columns["card"] += separator + shape[split:]
        if parent < 0:
            columns["roots"].append(len(sizes))
        for name, value in (("blocks", blocks), ("summed", summed), ("lanes", lanes)):
            columns[name].append(value)
        columns["message"].append(messages)
        columns["entry"].append(entries)
        sizes.append(blocks * lanes)
        messages += blocks * lanes
        entries += blocks * summed * lanes
        width, inbox = max(width, summed * lanes), max(inbox, received)
    columns["constants"] = program.constants
    columns["first"].append(len(columns["table"]))
    columns["members"].append(len(columns["node"]))
    arrays: dict[str, np.ndarray] = {name: np.array(column, np.int64) for name, column in columns.items()}
    arrays["offsets"] = np.concatenate(offsets.parts)
    arrays["lane_offsets"] = np.concatenate(lane_offsets.parts)
    counts = len(sizes), len(columns["constants"]), len(columns["roots"])
    return _addressed({**arrays, "sizes": np.array([messages, entries, inbox, width, *counts], np.int64)})


def _addressed(arrays: dict[str, np.ndarray]) -> Layout:
    return Layout(**arrays, addresses=np.array([arrays[name].ctypes.data for name in Layout._fields[:-1]], np.int64))


def _strides(program: Program, child: int, nodes: tuple[int, ...]) -> tuple[int, ...]:
    """The steps in the message of ``child`` along ``nodes``: its axes are its separator, last node first."""
    sent, eliminated, _ = program.cliques[child]
    strides, step = {}, 1
    for node in sent[: len(sent) - eliminated]:
        strides[node] = step
        step *= program.cardinalities[node]
    return tuple([strides.get(node, 0) for node in nodes])


def _along(cards: tuple[int, ...], strides: tuple[int, ...]) -> int:
    if not any(strides):
        return CONSTANT
    step = 1
    for card, stride in zip(cards[::-1], strides[::-1], strict=True):
        if card > 1 and stride != step:
            return SCATTERED
        step *= card
    return CONSECUTIVE


def freeing(program: Program) -> Layout:
    """The layout for an upward pass alone, in which a message's place is taken again once its parent has read it."""
    tree = program.cached("layout", layout)
    sizes = (tree.blocks * tree.lanes).tolist()
    starts: list[int] = []
    free: list[tuple[int, int]] = []  # where, how much; sorted
    end = 0
    for clique, size in enumerate(sizes):
        fit = next((place for place, (_, room) in enumerate(free) if room >= size), None)
        if fit is None:
            starts.append(end)
            end += size
        else:
            start, room = free.pop(fit)
            starts.append(start)
            if room > size:
                insort(free, (start + size, room - size))
        for child in program.children[clique]:
            insort(free, (starts[child], sizes[child]))
            _merge(free)
    changed = {"message": np.array(starts, np.int64), "sizes": np.array([end, *tree.sizes[1:]], np.int64)}
    return _addressed({**dict(zip(Layout._fields[:-1], tree, strict=False)), **changed})


def _merge(free: list[tuple[int, int]]) -> None:
    for place in range(len(free) - 1, 0, -1):
        (start, room), (after, more) = free[place - 1], free[place]
        if start + room == after:
            free[place - 1 : place + 1] = [(start, room + more)]
