"""The (max, +) recursion forward in float64, in blocks of steps that can be had again.

What is far behind the best label of a step is what max-marginals and k-best labellings are about, so values are held in
float64 whatever the scores are, relative to the best one of their step: they are as accurate after a million steps as
after ten. A long chain keeps only the state before each block, and computes a block again when the way back comes to
it: √T blocks of √T steps, so that nothing of the length of the chain is held beside the answers (the checkpoints of
Griewank 1992).
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from lnz.ops.chain.cpu.arguments import Work
from lnz.ops.chain.cpu.rows import FLAGS, largest
from lnz.ops.chain.cpu.sweep import TILE
from lnz.ops.chain.records import Chains
from lnz.ops.jit.cpu.memory import address, for_blocks, load, store
from lnz.ops.jit.cpu.product import SPLITS, maximise, workspace
from lnz.ops.jit.cpu.vectors import astype


@njit(fastmath=FLAGS)
def advance(message, x, state, size):
    """``state = (message − its largest) + x``, pointers; returns that largest, or 0 where it is −inf."""
    top = largest(message, size)
    top = top if top > -math.inf else 0.0
    for_blocks(_advance, size, message, x, state, top)
    return top


@njit(fastmath=FLAGS)
def _advance(at, n, message, x, state, top):
    store((load(message, at, n) - top) + astype(load(x, at, n), np.float64), state, at, n)


@njit(fastmath=FLAGS)
def lay(scores, table):
    """``table [≥ L, ≥ L] = scores [L, L]``."""
    for i in range(len(scores)):
        for j in range(len(scores)):
            table[i, j] = scores[i, j]


@njit(fastmath=FLAGS)
def lay_transposed(scores, table):
    for i in range(len(scores)):
        for j in range(len(scores)):
            table[j, i] = scores[i, j]


@njit
def table_of(size):
    """Room for a table as the products read it; the rows of a power of two would share cache sets."""
    return workspace((size + SPLITS - 1) // SPLITS * SPLITS, (size + 15) // 16 * 16 + 16, np.float64)


@njit
def rows_of(count, size):
    """Room for rows of labels; what is beyond the labels is impossible."""
    rows = workspace(count, (size + 15) // 16 * 16, np.float64)
    rows[:] = -math.inf
    return rows


@njit(fastmath=FLAGS, inline="always")
def exact_sum(sums, r, x):
    """Add x to ``sums[r]``, a sum and what its rounding has lost (Neumaier 1974)."""
    total = sums[r, 0] + x
    if abs(sums[r, 0]) >= abs(x):
        sums[r, 1] += (sums[r, 0] - total) + x
    else:
        sums[r, 1] += (x - total) + sums[r, 0]
    sums[r, 0] = total


@njit(fastmath=FLAGS)
def forward(chains, tile, start, stop, work, kept, offsets):
    """α of steps start … stop − 1 of a tile into ``kept [rows, ≥ stop − start, ≥ L]``.

    The state ``[rows, ≥ L]`` of ``work`` is α before start, then before stop; ``offsets [rows, 2]`` gather what makes α
    absolute. Where there is one table for all steps, that of ``work`` holds it.
    """
    node, edge, lengths = chains
    table, state, message = work
    first, count = tile.first, tile.count
    size, several, own = node.shape[2], edge.shape[1] > 1, first if len(edge) > 1 else 0
    columns = state.T  # once: each view of an array counts references
    for t in range(start, stop):
        if t:
            if several:
                lay(edge[own, t - 1], table)
            maximise(columns, table, message, count, size)
        else:
            message[:, :size] = 0
        for r in range(count):
            if t < lengths[first + r]:
                scores = address(node, (first + r, t))
                exact_sum(offsets, r, advance(address(message, r), scores, address(state, r), size))
                for l in range(size):
                    kept[r, t - start, l] = state[r, l]


@njit(fastmath=FLAGS)
def forward_to_the_end(chains, tile, block, table, message, kept, offsets):
    """α of all steps, those of the last block left in ``kept``; returns α before each block ``[blocks, rows, ≥ L]``."""
    size, longest = chains.node.shape[2], tile.longest
    blocks = (longest + block - 1) // block
    before = rows_of(max(1, blocks) * TILE, size).reshape(max(1, blocks), TILE, -1)
    state = rows_of(TILE, size)
    offsets[:] = 0
    for c in range(blocks):
        before[c] = state
        stop = min(longest, (c + 1) * block)
        forward(chains, tile, c * block, stop, Work(table, state, message), kept, offsets)
    return before


HELD = 2**22  # numbers of α up to which those of all steps are kept: 32 MB


def block_of(chains: Chains) -> int:
    """Of how many steps α is kept at a time: of all, or of √T, computed again block by block."""
    _, T, L = chains.node.shape
    rows = TILE if len(chains.edge) == 1 else 1
    return T if rows * T * L <= HELD else math.ceil(math.sqrt(T))
