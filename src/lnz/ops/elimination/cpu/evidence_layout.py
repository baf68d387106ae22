"""A junction tree as the kernels of :mod:`.evidence` read it: every clique's entries one by one, by lists of places.

A clique's entries are in the order of its nodes, those of the separator first: entry ``s · summed + r`` belongs to the
separator's entry s and to the joint label r of the eliminated nodes. No clique has more than ``CHILDREN`` children, so
that a product of messages keeps its range: where there are more, some report to a clique in between, which sums nothing
out. The places of an entry in messages and tables are written out: these are for trees of few entries.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from lnz.ops.elimination.program import Input, Program, offsets_of
from lnz.ops.jit.cpu import helper
from lnz.ops.jit.cpu.memory import pointer_to

CHILDREN = 4
CLIQUES, TABLE_ENTRIES, MESSAGES, LONGEST, NODES, SIZE = range(6)
"""Places in ``sizes``: how many cliques; the entries of all their tables, and of all messages; the most joint labels of
eliminated nodes; how many nodes; the entries of a row of scores."""


class Lists(NamedTuple):
    """A :class:`Program` as arrays of ``int64``, C cliques; for kernels, pointers to them (:func:`lists_at`)."""

    entry: Any  # [C] where a clique's entries start
    kept: Any  # [C] entries of its message: joint labels of the separator
    summed: Any  # [C] joint labels of the eliminated nodes
    message: Any  # [C] where its message starts
    root: Any  # [C] 1 where it has no parent
    first_child: Any  # [C + 1] its children …
    child_at: Any  # … and for each, where the list starts of the places in messages of the clique's entries
    first_node: Any  # [C + 1] the nodes it eliminates …
    node_at: Any  # … and for each, where the list starts of the slots of their labels, one per joint label
    first_table: Any  # [C + 1] its tables …
    table_at: Any  # … and for each, where the list starts of the places in a row of scores of the clique's entries
    places: Any  # all lists
    slot: Any  # [N] where a node's labels start among those of all nodes: its table in a row, less ``node_start``
    card: Any  # [N] how many labels it has
    sizes: Any


class Layout(NamedTuple):
    """What is prepared once per program.

    Attributes:
        lists: the arrays.
        addresses: of these arrays, which is what kernels take.
        parent: ``[C]``, or −1.
        products: pairs of entries and places in a row: the tables of a clique, the first of each, the second …
        counted: for every entry of every table in a row, the clique entries that add up to it, as pairs.
    """

    lists: Lists
    addresses: np.ndarray
    parent: np.ndarray
    products: list[tuple[np.ndarray, np.ndarray]]
    counted: tuple[np.ndarray, np.ndarray]


@helper()
def lists_at(addresses):
    """The lists of a layout's ``addresses``."""
    a = addresses
    return Lists(
        pointer_to(a[0], a), pointer_to(a[1], a), pointer_to(a[2], a), pointer_to(a[3], a), pointer_to(a[4], a),
        pointer_to(a[5], a), pointer_to(a[6], a), pointer_to(a[7], a), pointer_to(a[8], a), pointer_to(a[9], a),
        pointer_to(a[10], a), pointer_to(a[11], a), pointer_to(a[12], a), pointer_to(a[13], a), pointer_to(a[14], a),
    )  # fmt: skip


class _Clique(NamedTuple):
    nodes: tuple[int, ...]
    eliminated: int
    tables: list[Input]
    children: list[int]


def layout(program: Program) -> Layout:
    """The lists of a program without nodes that are cut out."""
    cards, cliques = program.cardinalities, _cliques(program)
    columns: dict[str, list[int]] = {name: [] for name in Lists._fields}
    places: list[np.ndarray] = []
    filled = entries = messages = 0
    starts, parent = program.base[0].tolist(), np.full(len(cliques), -1)
    products: list[list[tuple[np.ndarray, np.ndarray]]] = []

    def listed(found: np.ndarray) -> int:
        nonlocal filled
        places.append(found)
        filled += len(found)
        return filled - len(found)

    for number, (nodes, eliminated, tables, children) in enumerate(cliques):
        shape = [cards[node] for node in nodes]
        split = len(nodes) - eliminated
        for name, items in (("first_child", "child_at"), ("first_node", "node_at"), ("first_table", "table_at")):
            columns[name].append(len(columns[items]))
        columns["entry"].append(entries)
        columns["kept"].append(math.prod(shape[:split]))
        columns["summed"].append(math.prod(shape[split:]))
        columns["message"].append(messages)
        for child in children:
            parent[child] = number
            separator = cliques[child].nodes[: len(cliques[child].nodes) - cliques[child].eliminated]
            steps = _steps([cards[node] for node in separator])
            strides = dict(zip(separator, steps, strict=True))
            along = offsets_of(shape, [strides.get(node, 0) for node in nodes])
            columns["child_at"].append(listed(along + columns["message"][child]))
        labels = _steps(shape[split:])
        for node, card, step in zip(nodes[split:], shape[split:], labels, strict=True):
            label = np.arange(math.prod(shape[split:])) // step % card
            columns["node_at"].append(listed(label + starts[program.num_factors + node] - program.node_start))
        for rank, table in enumerate(tables):
            found = offsets_of(shape, table.strides) + starts[table.table]
            columns["table_at"].append(listed(found))
            products += [[]] if rank == len(products) else []
            products[rank].append((np.arange(entries, entries + len(found)), found))
        entries += math.prod(shape)
        messages += columns["kept"][-1]
    for name, items in (("first_child", "child_at"), ("first_node", "node_at"), ("first_table", "table_at")):
        columns[name].append(len(columns[items]))
    columns["root"] = (parent < 0).astype(int).tolist()
    columns["slot"] = [starts[program.num_factors + node] - program.node_start for node in range(len(cards))]
    columns["card"] = list(cards)
    longest = max(columns["summed"], default=1)
    columns["sizes"] = [len(cliques), entries, messages, longest, len(cards), program.size]
    arrays = {name: np.array(column, np.int64) for name, column in columns.items()}
    arrays["places"] = np.concatenate([np.zeros(0, np.int64), *places])
    lists = Lists(**arrays)
    joined = [(np.concatenate([e for e, _ in pairs]), np.concatenate([p for _, p in pairs])) for pairs in products]
    every = [np.concatenate(side) for side in zip((np.zeros(0, np.int64),) * 2, *joined, strict=True)]
    return Layout(lists, np.array([a.ctypes.data for a in lists], np.int64), parent, joined, (every[0], every[1]))


def _cliques(program: Program) -> list[_Clique]:
    """The cliques, children before parents, with those in between."""
    found: list[_Clique] = []
    number: dict[int, int] = {}  # of a clique of the program

    def separator(child: int) -> set[int]:
        nodes, eliminated, _, _ = found[child]
        return set(nodes[: len(nodes) - eliminated])

    for clique, ((nodes, eliminated, _), inputs) in enumerate(zip(program.cliques, program.inputs, strict=True)):
        children = [number[child] for child in program.children[clique]]
        while len(children) > CHILDREN:
            some, children = children[:CHILDREN], children[CHILDREN:]
            joint = set().union(*map(separator, some))
            children.append(len(found))
            found.append(_Clique(tuple(node for node in nodes if node in joint), 0, [], some))
        tables = [entry for entry in inputs if 0 <= entry.table < program.num_factors]
        number[clique] = len(found)
        found.append(_Clique(nodes, eliminated, tables, children))
    return found


def _steps(shape: list[int]) -> list[int]:
    return [math.prod(shape[place + 1 :]) for place in range(len(shape))]
