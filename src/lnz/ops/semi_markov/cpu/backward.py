"""The pass back over the steps of a few sequences side by side, which ln Z and samples are read off.

begin_t(l) = ln Σ_w exp(s_t(w, l) + after_{t+w+1}(l)) and after_t(k) = ln Σ_l exp(A(k, l) + begin_t(l)), after_n = 0,
are kept as float64 logarithms, one of each per step and label; scores of float32 are exponentiated as such, each
relative to the largest of its label. Shapes as in :mod:`lnz.ops.semi_markov.reference`; after_t here is what is
called after_{t−1} there.
"""

from __future__ import annotations

from lnz.ops.jit.cpu import helper
from lnz.ops.jit.cpu.memory import address
from lnz.ops.jit.cpu.product import multiply
from lnz.ops.jit.cpu.rows import clear
from lnz.ops.semi_markov.cpu.labels import after, after_in_logs, begin, exp_shifted
from lnz.ops.semi_markov.cpu.widths import FLAGS, sum_widths


@helper(fastmath=FLAGS)
def backward(given, tile, tables, out, work):
    """The steps of a tile, from last to first."""
    segment, edge, lengths, kind = given.segment, given.edge, given.lengths, given.kind
    begins, afters, ahead, leaves, peaks = out.begins, out.afters, out.ahead, out.leaves, out.peaks
    weights, in_range = out.weights, out.in_range
    factors, tops, state, message = tables.factors, tables.tops, work.state, work.message
    shifts, sums, folds = address(work.shifts, 0), address(work.sums, 0), address(work.folds, 0)
    W, size, columns = segment.shape[2], edge.shape[3], state.T
    first, count, longest = tile
    clear(address(state, 0), state.size)
    for r in range(count):
        clear(address(afters, (r, lengths[first + r] * size)), size)
    for t in range(longest - 1, -1, -1):
        for r in range(count):
            b = first + r
            widths = min(W, lengths[b] - t)
            if widths <= 0:
                continue
            left, following, here = (
                address(weights, (b, t)),
                address(afters, (r, (t + 1) * size)),
                address(ahead, (r, t)),
            )
            if not sum_widths(address(segment, (b, t)), following, left, widths, size, shifts, sums, folds):
                in_range[b] = False
            clear(address(left, widths * size), (W - widths) * size)
            peaks[r] = begin(shifts, sums, address(begins, (r, t)), address(out.inverses, (r, t)), here, size)
            for l in range(size):
                state[r, l] = here[l]
        if t == 0:
            break
        if len(kind) > 0:
            multiply(columns, tables.transposed, message, count, size)
        for r in range(count):
            b = first + r
            if t >= lengths[b]:
                continue
            here, line = address(ahead, (r, t)), 0
            scores = address(edge, (b if len(edge) > 1 else 0, t - 1 if len(kind) == 0 else 0))
            if len(kind) == 0:
                line = r
                for k in range(size):
                    out_row = address(factors, (b * edge.shape[1] + t - 1 if len(factors) > 1 else 0, k))
                    tops[r, k], message[r, k], proper = exp_shifted(address(scores, k * size), out_row, here, size)
                    in_range[b] = in_range[b] and proper
            later, leaving = address(afters, (r, t * size)), address(leaves, (r, t))
            out.rare[r, t] = after(
                address(message, r), address(tops, line), peaks[r], given.limit, later, leaving, size
            )  # fmt: skip
            if out.rare[r, t]:
                after_in_logs(scores, address(begins, (r, t)), later, leaving, size)
