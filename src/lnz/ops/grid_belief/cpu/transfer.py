"""From one end of an edge to the other: the products of edge tables with what their ends send."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from lnz.ops.grid_belief.cpu.arguments import ROOM
from lnz.ops.grid_belief.cpu.domain import nothing, plus, times, total
from lnz.ops.grid_belief.domains import LOG
from lnz.ops.grid_scores import FULL, POTTS, TABLE
from lnz.ops.jit.cpu import helper
from lnz.ops.jit.cpu.math import exp, log
from lnz.ops.jit.cpu.memory import address, full_like, gather, load, store
from lnz.ops.jit.cpu.product import best, matmul
from lnz.ops.jit.cpu.vectors import LANES, astype, broadcast, maximum


class Shared(NamedTuple):
    """The table of consecutive edges ``[L, line]``, and its transpose, as pointers."""

    onward: Any
    back: Any
    line: int


class Own(NamedTuple):
    """The tables of consecutive edges, as pointers to what the first has; see :class:`.arguments.OwnTables`.

    Attributes:
        kind: as there.
        square: ``[tables, 2, L, line]``.
        line: how far the rows of ``square`` lie apart.
        weight: ``[edges]``.
        full: ``[L, L, columns]``.
        columns: how far the labels of ``full`` lie apart.
        low: as there.
        high: as there.
        choice: ``[edges]``.
    """

    kind: int
    square: Any
    line: int
    weight: Any
    full: Any
    columns: int
    low: float
    high: float
    choice: Any


@helper()
def tables_of(form, side, entry, row, column):
    """The tables of the edges from (row, column) on."""
    if len(form) == 0:
        square = side.square
        return Shared(address(square, (entry, 0)), address(square, (entry, 1)), square.shape[3])
    kind, square, weight, full, low, high, choice = side
    own = 0 if kind == TABLE else min(entry, square.shape[0] - 1)
    return Own(
        kind, address(square, own), square.shape[3], address(weight, (entry, row, column)),
        address(full, (entry, row, 0, 0, column)), full.shape[4], low, high, address(choice, (entry, row, column)),
    )  # fmt: skip


@helper()
def entry_block(at, n, domain, form, tables, labels, i, j):
    """The tables' entry (i, j) at edges ``at …``; largest of each table 1, in logarithms 0."""
    if len(form) == 0:
        return broadcast(tables.onward[i * tables.line + j])
    kind, place = tables.kind, i * tables.line + j
    if kind == TABLE:
        chosen = astype(load(tables.choice, at, n), np.int64)
        return gather(tables.square, chosen * (2 * labels * tables.line) + place, chosen >= 0, 0)
    if kind == FULL:
        return load(tables.full, (i * labels + j) * tables.columns + at, n)
    weight = load(tables.weight, at, n)
    score = weight * tables.square[place] - maximum(weight * tables.low, weight * tables.high)
    if len(domain) == 0:
        return exp(score)
    return score


@helper()
def transfer(domain, form, tables, n, labels, sent, made, size):
    """What n edges make of what their ends have ``sent``, into ``made``: onwards, and ``size`` further on, back.

    In logarithms the largest first, and then, but for ``MAX``, sums next to it.
    """
    if len(form) == 0:
        multiply(domain, tables.onward, tables.back, tables.line, sent, made, size, labels, n)
    elif tables.kind == TABLE:
        multiply_runs(domain, tables, n, labels, sent, made, size)
    else:
        shares_totals = tables.kind == POTTS and domain != LOG
        for at in range(0, n, LANES):
            if shares_totals:
                potts_block(at, n - at, domain, tables, labels, sent, made, size)
            else:
                transfer_block(at, n - at, domain, form, tables, labels, sent, made, size)
    if len(domain) > 0 and domain[0] == 0:
        for at in range(0, n, LANES):
            add_exponentials(at, n - at, domain, form, tables, labels, sent, made, size)


@helper()
def multiply(domain, onward, back, line, sent, made, size, labels, n):
    """The products of one table with both ends of n edges."""
    for end in range(2):
        table = back if end else onward
        arriving, result = address(sent, end * size), address(made, end * size)
        if len(domain) == 0:
            matmul((table, line), (arriving, ROOM), (result, ROOM), labels, labels, n)
        else:
            best((table, line), (arriving, ROOM), (result, ROOM), labels, labels, n)


@helper()
def multiply_runs(domain, tables, n, labels, sent, made, size):
    """A product per run of edges with one table; from the left, as each spills over its end."""
    start, square = 0, labels * tables.line
    for k in range(1, n + 1):
        if k == n or tables.choice[k] != tables.choice[start]:
            onward = address(tables.square, 2 * square * tables.choice[start])
            here, there = address(sent, start), address(made, start)
            multiply(domain, onward, address(onward, square), tables.line, here, there, size, labels, k - start)
            start = k


@helper()
def potts_block(at, n, domain, tables, labels, sent, made, size):
    """Edges that score equal labels alike, and no less than others: all labels share one total."""
    weight = load(tables.weight, at, n)
    top = maximum(weight * tables.low, weight * tables.high)
    same, other = weight * tables.square[0] - top, weight * tables.square[1] - top
    if len(domain) == 0:
        other = exp(other)
        same = exp(same) - other
    for end in range(2):
        arriving, result = address(sent, end * size + at), address(made, end * size + at)
        rest = times(domain, other, total(domain, arriving, 0, labels))
        for l in range(labels):
            store(plus(domain, times(domain, same, load(arriving, l * ROOM)), rest), result, l * ROOM)


@helper()
def transfer_block(at, n, domain, form, tables, labels, sent, made, size):
    """Σ or max over the labels of one end, for each of the other."""
    for l in range(labels):
        store(nothing(domain, made), made, l * ROOM + at)
    for i in range(labels):
        early, back = load(sent, i * ROOM + at), nothing(domain, made)
        for j in range(labels):
            late, there = load(sent, size + j * ROOM + at), j * ROOM + at
            table = entry_block(at, n, domain, form, tables, labels, i, j)
            store(plus(domain, times(domain, table, early), load(made, there)), made, there)
            back = plus(domain, times(domain, table, late), back)
        store(back, made, size + i * ROOM + at)


@helper()
def add_exponentials(at, n, domain, form, tables, labels, sent, made, size):
    """From the largest of each sum to its logarithm."""
    for l in range(labels):
        store(full_like(made, 0), made, 2 * size + l * ROOM + at)
    for i in range(labels):
        early, top = load(sent, i * ROOM + at), load(made, size + i * ROOM + at)
        rest = full_like(made, 0)
        for j in range(labels):
            late, there = load(sent, size + j * ROOM + at), j * ROOM + at
            table = entry_block(at, n, domain, form, tables, labels, i, j)
            term = exp(table + early - load(made, there))
            store(load(made, 2 * size + there) + term, made, 2 * size + there)
            rest += exp(table + late - top)
        store(top + log(rest), made, size + i * ROOM + at)
    for j in range(labels):
        there = j * ROOM + at
        store(load(made, there) + log(load(made, 2 * size + there)), made, there)
