"""E_P[−ln Q(y)] in Numba, up a junction tree; the recursion of :func:`lnz.ops.elimination.reference.surprisal`.

Beside the messages of P and of Q every clique sends *moments*: E_P[−ln Q of what it and those below it eliminate], one
per entry of its message and in the same places. Blocks are those of :mod:`~lnz.ops.elimination.cpu.messages`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from lnz.ops.elimination.cpu.blocks import FLAGS, add, column_maxima
from lnz.ops.elimination.cpu.layout import CLIQUES, CONSTANTS, MESSAGES, ROOTS, WIDTH
from lnz.ops.elimination.cpu.messages import centre
from lnz.ops.elimination.cpu.tree import tree_at
from lnz.ops.jit.cpu import helper, kernel
from lnz.ops.jit.cpu.math import exp, log
from lnz.ops.jit.cpu.memory import address
from lnz.ops.jit.cpu.rows import clear, copy

P, Q, BELOW = 0, 1, 2
"""Rows of messages, and of what is added up in a block."""
COMMON, BLOCKS, TOPS, LOG_TOTALS, ROOM = 0, 3, 6, 8, 10
"""Where rows of ``WIDTH`` that :func:`send` works in begin, and how many there are."""


class Pair(NamedTuple):
    """Models P and Q of one junction tree: all tables of both, and where each starts."""

    scores: Any
    other: Any
    base: Any


@helper(fastmath=FLAGS)
def _add_all(c, h, first, last, pair, sent, tree, work, at):
    """Add inputs ``first`` to ``last`` of clique ``c`` to the blocks of P, of Q, and of the moments from below."""
    lanes, summed = tree.lanes[c], tree.summed[c]
    for i in range(first, last):
        table, offset = tree.table[i], tree.offsets[tree.outer[i] + h]
        if table < 0:
            for k in range(3):
                message = address(sent, (k, tree.message[-1 - table] + offset))
                add(message, i, summed, lanes, tree, address(work, at + k))
        else:
            place = pair.base[table] + offset
            add(address(pair.scores, place), i, summed, lanes, tree, address(work, at + P))
            add(address(pair.other, place), i, summed, lanes, tree, address(work, at + Q))


@helper(fastmath=FLAGS)
def _normalise(block, summed, lanes, out, top, log_total):
    """ln Σ exp of a block's columns into ``out``, of which ``top`` is the largest entry and ``log_total`` the rest."""
    column_maxima(block, summed, lanes, top)
    for l in range(lanes):
        top[l] = top[l] if top[l] > -np.inf else 0.0
        log_total[l] = 0.0
    for r in range(summed):
        row = address(block, r * lanes)
        for l in range(lanes):
            log_total[l] += exp(row[l] - top[l])
    for l in range(lanes):
        log_total[l] = log(log_total[l])
        out[l] = top[l] + log_total[l]


@helper(fastmath=FLAGS)
def _surprise(work, summed, lanes, out):
    """Σ_r P(r|s) (moments from below − ln Q(r|s)) of the columns of blocks into ``out``."""
    top, other_top = address(work, TOPS + P), address(work, TOPS + Q)
    log_total, other_log_total = address(work, LOG_TOTALS + P), address(work, LOG_TOTALS + Q)
    clear(out, lanes)
    for r in range(summed):
        mine, others = address(work, (BLOCKS + P, r * lanes)), address(work, (BLOCKS + Q, r * lanes))
        below = address(work, (BLOCKS + BELOW, r * lanes))
        for l in range(lanes):
            if mine[l] > -np.inf:
                chance = exp((mine[l] - top[l]) - log_total[l])
                possible = others[l] > -np.inf
                surprise = (other_top[l] - others[l]) + other_log_total[l] if possible else np.inf
                if chance > 0.0:
                    out[l] += chance * (below[l] + surprise)


@kernel(fastmath=FLAGS)
def send(c, begin, end, pair, sent, addresses, work):
    """The messages and moments of clique ``c`` for blocks ``begin`` to ``end``; messages are still to be centred."""
    tree = tree_at(addresses)
    lanes, summed = tree.lanes[c], tree.summed[c]
    for k in range(3):
        clear(address(work, COMMON + k), summed * lanes)
    _add_all(c, begin, tree.fixed[c], tree.first[c + 1], pair, sent, tree, work, COMMON)
    for h in range(begin, end):
        for k in range(3):
            copy(work[BLOCKS + k, : summed * lanes], work[COMMON + k])
        _add_all(c, h, tree.first[c], tree.fixed[c], pair, sent, tree, work, BLOCKS)
        at = tree.message[c] + h * lanes
        for k in range(BELOW):
            top, log_total = address(work, TOPS + k), address(work, LOG_TOTALS + k)
            _normalise(address(work, BLOCKS + k), summed, lanes, address(sent, (k, at)), top, log_total)
        _surprise(work, summed, lanes, address(sent, (BELOW, at)))


@kernel(fastmath=FLAGS)
def total(pair, sent, addresses):
    """E_P[−ln Q(y)]: the moments of the roots; +∞ where a table without a free node is impossible under Q."""
    tree, result = tree_at(addresses), 0.0
    for i in range(tree.sizes[CONSTANTS]):
        if pair.other[pair.base[tree.constants[i]]] == -np.inf:
            result = np.inf
    for i in range(tree.sizes[ROOTS]):
        result += sent[BELOW, tree.message[tree.roots[i]]]
    return result


@kernel(fastmath=FLAGS)
def rows(first, step, scores, other, base, value, addresses):
    """E_P[−ln Q(y)] of every ``step``-th row from ``first`` into ``value``."""
    tree = tree_at(addresses)
    work, sent = np.empty((ROOM, tree.sizes[WIDTH])), np.empty((3, tree.sizes[MESSAGES]))
    shifts = np.empty(tree.sizes[CLIQUES])
    for row in range(first, len(scores), step):
        pair = Pair(scores[row], other[row], base[min(row, len(base) - 1)])
        for c in range(tree.sizes[CLIQUES]):
            send(c, 0, tree.blocks[c], pair, sent, addresses, work)
            centre(c, sent[P], shifts, addresses)
            centre(c, sent[Q], shifts, addresses)
        value[row] = total(pair, sent, addresses)
