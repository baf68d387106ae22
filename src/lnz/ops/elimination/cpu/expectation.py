"""E_P[−ln Q(y)] in Numba, up a junction tree; the recursion of :func:`lnz.ops.elimination.reference.surprisal`.

Beside the messages of P and of Q every clique sends *moments*: E_P[−ln Q of what it and those below it eliminate], one
per entry of its message and in the same places. Blocks are those of :mod:`~lnz.ops.elimination.cpu.messages`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lnz.ops.elimination.cpu.messages import add, centre, column_maxima, kernel
from lnz.ops.elimination.layout import MESSAGES, WIDTH
from lnz.ops.jit.cpu.math import exp, log

P, Q, BELOW = 0, 1, 2
"""Rows of messages, and of what is added up in a block."""
ROOM = 10
"""Rows of ``WIDTH`` that :func:`send` works in."""


@kernel
def _add_all(
    c: int, h: int, first: int, last: int, scores: Any, other: Any, base: Any, sent: Any, tree: Any, to: Any
) -> None:
    """Add inputs ``first`` to ``last`` of clique ``c`` to the blocks of P, of Q, and of the moments from below."""
    for i in range(first, last):
        table, offset = tree.table[i], tree.offsets[tree.outer[i] + h]
        if table < 0:
            at = tree.message[-1 - table] + offset
            for k in range(3):
                add(sent[k], at, i, tree.summed[c], tree.lanes[c], tree, to[k])
        else:
            add(scores, base[table] + offset, i, tree.summed[c], tree.lanes[c], tree, to[P])
            add(other, base[table] + offset, i, tree.summed[c], tree.lanes[c], tree, to[Q])


@kernel
def _normalise(block: Any, out: Any, top: Any, log_total: Any) -> None:
    """ln Σ exp of a block's columns into ``out``, of which ``top`` is the largest entry and ``log_total`` the rest."""
    lanes = len(out)
    column_maxima(block, top)
    for l in range(lanes):
        top[l] = top[l] if top[l] > -np.inf else 0.0
        log_total[l] = 0.0
    for r in range(len(block) // lanes):
        row = block[r * lanes : (r + 1) * lanes]
        for l in range(lanes):
            log_total[l] += exp(row[l] - top[l])
    for l in range(lanes):
        log_total[l] = log(log_total[l])
        out[l] = top[l] + log_total[l]


@kernel
def _surprise(blocks: Any, out: Any, tops: Any, log_totals: Any) -> None:
    """Σ_r P(r|s) (moments from below − ln Q(r|s)) of a block's columns into ``out``."""
    lanes = len(out)
    for l in range(lanes):
        out[l] = 0.0
    for r in range(blocks.shape[1] // lanes):
        row = slice(r * lanes, (r + 1) * lanes)
        mine, others, below = blocks[P, row], blocks[Q, row], blocks[BELOW, row]
        for l in range(lanes):
            if mine[l] > -np.inf:
                chance = exp((mine[l] - tops[P, l]) - log_totals[P, l])
                possible = others[l] > -np.inf
                surprise = (tops[Q, l] - others[l]) + log_totals[Q, l] if possible else np.inf
                if chance > 0.0:
                    out[l] += chance * (below[l] + surprise)


@kernel
def send(c: int, begin: Any, end: Any, scores: Any, other: Any, base: Any, sent: Any, tree: Any, work: Any) -> None:
    """The messages and moments of clique ``c`` for blocks ``begin`` to ``end``; messages are still to be centred."""
    lanes = tree.lanes[c]
    width = tree.summed[c] * lanes
    common, blocks = work[:3, :width], work[3:6, :width]
    tops, log_totals = work[6:8, :lanes], work[8:10, :lanes]
    common[:] = 0.0
    _add_all(c, begin, tree.fixed[c], tree.first[c + 1], scores, other, base, sent, tree, common)
    for h in range(begin, end):
        blocks[:] = common
        _add_all(c, h, tree.first[c], tree.fixed[c], scores, other, base, sent, tree, blocks)
        out = sent[:, tree.message[c] + h * lanes : tree.message[c] + (h + 1) * lanes]
        for k in range(BELOW):
            _normalise(blocks[k], out[k], tops[k], log_totals[k])
        _surprise(blocks, out[BELOW], tops, log_totals)


@kernel
def total(other: Any, base: Any, sent: Any, tree: Any) -> float:
    """E_P[−ln Q(y)]: the moments of the roots; +∞ where a table without a free node is impossible under Q."""
    result = 0.0
    for table in tree.constants:
        if other[base[table]] == -np.inf:
            result = np.inf
    for c in tree.roots:
        result += sent[BELOW, tree.message[c]]
    return result


@kernel
def rows(first: int, step: int, scores: Any, other: Any, base: Any, value: Any, tree: Any) -> None:
    """E_P[−ln Q(y)] of every ``step``-th row from ``first`` into ``value``."""
    work = np.empty((ROOM, tree.sizes[WIDTH]))
    sent = np.empty((3, tree.sizes[MESSAGES]))
    shifts = np.empty(len(tree.blocks))
    for row in range(first, len(scores), step):
        starts = base[min(row, len(base) - 1)]
        for c in range(len(tree.blocks)):
            send(c, np.int64(0), tree.blocks[c], scores[row], other[row], starts, sent, tree, work)
            centre(c, sent[P], shifts, tree)
            centre(c, sent[Q], shifts, tree)
        value[row] = total(other[row], starts, sent, tree)
