"""The pass back over the steps of a few sequences side by side, which ln Z and samples are read off.

begin_t(l) = ln Σ_w exp(s_t(w, l) + after_{t+w+1}(l)) and after_t(k) = ln Σ_l exp(A(k, l) + begin_t(l)), after_n = 0,
are kept as float64 logarithms, one of each per step and label; scores of float32 are exponentiated as such, each
relative to the largest of its label. Shapes as in :mod:`lnz.ops.semi_markov.reference`; after_t here is what is
called after_{t−1} there.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from lnz.ops.jit.cpu.product import workspace
from lnz.ops.semi_markov.cpu.labels import after, begin
from lnz.ops.semi_markov.cpu.widths import FLAGS, room_to_fold, sum_widths

TILE = 8  # sequences side by side; a multiple of the rows of a product


@njit
def rows_of_labels(rows, steps, size, dtype):
    """Zeros ``[rows, steps, L rounded up to 16]``."""
    padded = (size + 15) // 16 * 16
    return workspace(rows, steps * padded, dtype).reshape(rows, steps, padded)


@njit
def room_for_tables(size, dtype):
    """For a table and its transpose as the products read them, ``[1, ≥ L, ≥ L]``."""
    padded = (size + 15) // 16 * 16
    table = workspace(padded, padded + 16, dtype)  # rows of a power of two would share cache sets
    return table.reshape(1, padded, padded + 16), workspace(padded, padded + 16, dtype)


@njit(fastmath=FLAGS)
def back(
    kind, segment, edge, lengths, W, at, count, limit, tops, transposed, state, message, begins, ahead, inverses,
    leaves, afters, rare, peaks, weights, factors, exact,
):  # fmt: skip
    """The steps of sequences at … at + count − 1, from last to first.

    Args:
        kind: see :func:`lnz.ops.semi_markov.cpu.labels.after`, as for what is not named here.
        segment: s, flat.
        edge: see there.
        lengths: see there.
        W: the largest width.
        at: of the sequences.
        count: of them.
        limit: see there.
        tops: see there.
        transposed: see there.
        state: ``[TILE, L …]``, to work in, as is ``message``.
        message: see there.
        begins: written, as are the following.
        ahead: exp(begin − peak).
        inverses: 1 / Σ_w ``weights``.
        leaves: 1 / Σ_l exp(A − top + begin − peak); 0 where that is too small.
        afters: float64 ``[count, (T + 2) L + 32]``.
        rare: where ``leaves`` has a 0 for that reason.
        peaks: of the first step.
        weights: exp(s + after − shift), flat, as s.
        factors: see there.
        exact: see there.
    """
    size, steps = edge.shape[3], begins.shape[1]
    shifts, sums = np.zeros((TILE, begins.shape[2])), np.zeros((TILE, begins.shape[2]), segment.dtype)
    folds, columns, longest = room_to_fold(), state.T, 0
    state[:] = 0
    for r in range(count):
        n = lengths[at + r]
        longest = max(longest, n)
        afters[r, n * size : (n + 1) * size] = 0
    for t in range(longest - 1, -1, -1):
        sum_widths(segment, lengths, at, count, steps, W, size, t, afters, weights, shifts, sums, folds, exact)
        begin(lengths, at, count, size, t, shifts, sums, begins, inverses, ahead, state, peaks)
        if t > 0:
            after(
                kind, edge, lengths, at, count, size, t, limit, transposed, columns, message, tops, begins, peaks,
                ahead, afters, leaves, rare, factors, exact,
            )  # fmt: skip
    return longest
