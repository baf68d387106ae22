"""Best states and posteriors of words, where words may be left out: :mod:`lnz.ops.ctc.words` in O(S √T) memory.

Columns are those of :mod:`.lattice`: b_j the blank after j labels, l_j the j-th label, counted from 1. The arcs over
words are few beside those of the lattice: their sums are added to columns that :func:`.lattice.forward` has made, and
their shares taken off before :func:`.lattice.backward` and handed to the blanks that they come from.
"""

from __future__ import annotations

import math

import numpy as np

from lnz.ops.ctc.cpu.floating import exponential
from lnz.ops.ctc.cpu.frames import prepare, room, scale, weigh
from lnz.ops.ctc.cpu.lattice import backward, columns, forward, start
from lnz.ops.jit.cpu import helper, kernel
from lnz.ops.jit.cpu.rows import FLAGS, fill, total

BLANK, LABEL = 0, 1
_LARGE, _SHIFT, _NEGLIGIBLE = 2.0**64, 64, -400.0  # mantissas of columns are below 2^200


@helper(fastmath=FLAGS)
def _add(m, e, n, f):
    """The sum of two numbers with exponents."""
    if f > e:
        m, e, n, f = n, f, m, e
    if e == -math.inf or f - e < _NEGLIGIBLE:
        return m, e
    return m + math.ldexp(n, int(f - e)), e


@helper(fastmath=FLAGS)
def _moderate(m, e):
    """The same number, where its mantissa is far from 1 with another exponent."""
    if m > _LARGE:
        return m / _LARGE, e + _SHIFT
    if m < 1.0 / _LARGE:
        return m * _LARGE, e - _SHIFT
    return m, e


@helper(fastmath=FLAGS)
def _share(m, e, n, f):
    """The first of two numbers over their sum; 0 where both are 0."""
    if e == -math.inf:
        return 0.0
    if f > e:
        ratio = m / n * 2.0 ** (e - f)
        return ratio / (1.0 + ratio)
    return 1.0 / (1.0 + n / m * 2.0 ** (f - e))


@helper(fastmath=FLAGS)
def _chain(state, begins, costs, ending, over):
    """``over`` ``[2, W + 1]``: the paths that leave out the words before each word and, last, before the end."""
    over[0, 0], over[1, 0] = 1.0, -math.inf
    for w in range(costs.shape[1]):
        if costs[1, w] == -math.inf:
            over[0, w + 1], over[1, w + 1] = 1.0, -math.inf
            continue
        j = begins[w]
        m, e = _add(over[0, w], over[1, w], state[0, j], state[1, j])
        if ending:
            m, e = _add(m, e, state[2, j], state[3, j])
        m, e = _moderate(m, e)  # a column's may be as large as 2^200
        over[0, w + 1], over[1, w + 1] = m * costs[0, w], e + costs[1, w]


@helper(fastmath=FLAGS)
def _advance(t, U, before, blank, work, lasting, begins, costs, over, after):
    """α of frames 0 … t from that of frames 0 … t − 1, arcs over words included."""
    forward(t, U, before, work.weights, blank, work.arcs, lasting, after)
    if len(over[0]) == 0:
        return
    _chain(before, begins, costs, False, over)
    for w in range(1, costs.shape[1]):
        if over[1, w] > -math.inf:
            j = begins[w] + 1
            m, e = over[0, w] * work.weights[0, j], over[1, w] + work.weights[1, j]
            after[2, j], after[3, j] = _add(after[2, j], after[3, j], m, e)


@helper(fastmath=FLAGS)
def _hand_down(mass, state, begins, over, ending, there, left_out):
    """Give what comes over words, ``mass`` ``[W + 1]``, to the states from which these are left out; 0 is left."""
    for w in range(mass.size - 1, 0, -1):
        if mass[w] > 0.0:
            j = begins[w - 1]
            left_out[w - 1] += mass[w]
            m, e = state[0, j], state[1, j]
            if ending:
                m, e = _add(m, e, state[2, j], state[3, j])
            further = mass[w] * _share(over[0, w - 1], over[1, w - 1], m, e)
            here = mass[w] * _share(m, e, over[0, w - 1], over[1, w - 1])
            mass[w - 1] += further
            if ending:
                there[1, j] += here * _share(state[2, j], state[3, j], state[0, j], state[1, j])
                here *= _share(state[0, j], state[1, j], state[2, j], state[3, j])
            there[0, j] += here
        mass[w] = 0.0
    mass[0] = 0.0


@helper(fastmath=FLAGS)
def _finish(there, state, U, begins, costs, over, mass, left_out):
    """The probabilities of states after the last frame."""
    for row in range(3):
        fill(there[row, : columns(U)], 0.0)
    m, e = _add(state[0, U], state[1, U], state[2, U], state[3, U])
    spoken = 1.0
    if len(over[0]):
        _chain(state, begins, costs, True, over)
        W = costs.shape[1]
        spoken = _share(m, e, over[0, W], over[1, W])
        mass[W] = _share(over[0, W], over[1, W], m, e)
        _hand_down(mass, state, begins, over, True, there, left_out)
    there[0, U] += spoken * _share(state[0, U], state[1, U], state[2, U], state[3, U])
    there[1, U] += spoken * _share(state[2, U], state[3, U], state[0, U], state[1, U])


@helper(fastmath=FLAGS)
def _retreat(U, before, work, lasting, begins, costs, over, mass, there, left_out):
    """The probabilities of states, one frame back, from α before it; arcs over words included."""
    if len(over[0]) == 0:
        backward(U, before, work.arcs, lasting, there)
        return
    _chain(before, begins, costs, False, over)
    for w in range(1, costs.shape[1]):
        j = begins[w]
        here = there[1, j + 1] + there[2, j + 1]
        if here > 0.0 and over[1, w] > -math.inf:
            m, e = _add(before[0, j], before[1, j], before[2, j + 1], before[3, j + 1] + lasting)
            if work.arcs[j] > 0.0:
                m, e = _add(m, e, before[2, j], before[3, j])
            mass[w] = here * _share(over[0, w], over[1, w], m, e)
            other = _share(m, e, over[0, w], over[1, w])
            there[1, j + 1] *= other
            there[2, j + 1] *= other
    backward(U, before, work.arcs, lasting, there)
    _hand_down(mass, before, begins, over, False, there, left_out)


@kernel(fastmath=FLAGS)
def word_posteriors(frames, targets, begins, ends, prices, asked, states, block, within, left_out):
    """Write the probability of being in the word asked about at each frame, and of leaving out each word.

    ``prices`` ``[W]`` are costs with their sign changed, empty where no word may be left out. ``states``
    ``[T / every + 3, 4, K]`` and ``block`` ``[every, 4, K]`` are room to work in.
    """
    every, W = len(block), prices.size
    work, there, unused = room(frames, targets), np.empty((3, states.shape[2])), np.empty(2)
    n, y, lasting = targets.lengths[0], prepare(0, frames, targets, work), targets.lasting
    U, tops = y.size, np.empty(n)
    costs, over, mass = np.empty((2, W)), np.empty((2, W + 1 if W else 0)), np.zeros(W + 1)
    exponential(costs[0], costs[1], prices)
    start(states[2], U)
    now = 2
    for t in range(n):
        scale(t, frames, work, unused)
        tops[t] = unused[0]
        blank = weigh(t, tops[t], frames, y, work)
        after = 2 + (t + 1) // every if (t + 1) % every == 0 else (t + 1) % 2
        _advance(t, U, states[now], blank, work, lasting, begins, costs, over, states[after])
        now = after
    _finish(there, states[now], U, begins, costs, over, mass, left_out)
    for begin in range((n - 1) // every * every, -1, -every):
        stop = min(n, begin + every)
        for t in range(begin, stop - 1):
            before = states[2 + begin // every] if t == begin else block[t - begin - 1]
            blank = weigh(t, tops[t], frames, y, work)
            _advance(t, U, before, blank, work, lasting, begins, costs, over, block[t - begin])
        for t in range(stop - 1, begin - 1, -1):
            w = asked[t]
            if w >= 0:
                a, z = begins[w], ends[w]
                within[t] = total(there[0, a + 1 : z]) + total(there[1, a + 1 : z + 1]) + total(there[2, a + 1 : z + 1])
            before = states[2 + begin // every] if t == begin else block[t - begin - 1]
            _retreat(U, before, work, lasting, begins, costs, over, mass, there, left_out)


@helper(fastmath=FLAGS)
def _best_frame(row, y, skips, lasting, blank, before, after):
    """Best scores ``[2, S + 1]`` after one frame more."""
    b, l, c, m = before[BLANK], before[LABEL], after[BLANK], after[LABEL]
    at_blank = np.float64(row[blank]) if blank >= 0 else -math.inf
    c[0], m[0] = b[0] + at_blank, -math.inf
    _best_blanks(c[1:], b[1:], l[1:], at_blank)
    _pick(m[1:], row, y)
    _best_labels(m[1:], l[1:], b[:-1], l[:-1], skips, lasting)


@helper(fastmath=FLAGS)
def _best_blanks(out, b, l, score):
    for k in range(out.size):
        out[k] = (b[k] if b[k] > l[k] else l[k]) + score


@helper(fastmath=FLAGS)
def _pick(out, row, labels):
    for k in range(out.size):
        out[k] = row[labels[k]]


@helper(fastmath=FLAGS)
def _best_labels(out, stay, step, last, skips, lasting):
    """Add to the scores of labels those of the best way into each."""
    for k in range(out.size):
        here, skip = stay[k] + lasting, last[k] + skips[k]
        come = step[k] if step[k] > skip else skip
        out[k] += here if here > come else come


@helper(fastmath=FLAGS)
def _best_over(row, y, begins, costs, before, after):
    """What arcs over words add to :func:`_best_frame`."""
    over = -math.inf
    for w in range(1, costs.size):
        over = max(over, before[BLANK, begins[w - 1]]) - costs[w - 1]
        j = begins[w] + 1
        after[LABEL, j] = max(after[LABEL, j], over + row[y[j - 1]])


@helper(fastmath=FLAGS)
def _left_out(state, w, begins, costs, ending, score, at):
    """The better of ``score``, at state ``at``, and the best path that leaves out words before word ``w``."""
    cost = 0.0
    for v in range(w - 1, -1, -1):
        cost += costs[v]
        if cost == math.inf:
            break
        j = begins[v]
        if state[BLANK, j] - cost > score:
            score, at = state[BLANK, j] - cost, 2 * j
        if ending and state[LABEL, j] - cost > score:
            score, at = state[LABEL, j] - cost, 2 * j - 1
    return score, at


@helper(fastmath=FLAGS)
def _come_from(state, k, w, skips, lasting, begins, costs):
    """The state before state ``k`` of the best path; ``w`` is the word that begins with it, or −1."""
    j = k // 2  # the blank before label j, or that label
    if k % 2 == 0:
        return k if state[BLANK, j] >= state[LABEL, j] else k - 1
    score, at = state[LABEL, j + 1] + lasting, k
    if state[BLANK, j] > score:
        score, at = state[BLANK, j], k - 1
    if state[LABEL, j] + skips[j] > score:
        score, at = state[LABEL, j] + skips[j], k - 2
    return _left_out(state, w, begins, costs, False, score, at)[1] if w >= 0 else at


@kernel(fastmath=FLAGS)
def best_states(x, targets, blank, begins, costs, states, block, best):
    """Write the states of the best alignment ``[T]``, −1 where there is none; returns its score.

    ``states`` ``[T / every + 3, 2, S + 1]`` and ``block`` ``[every, 2, S + 1]`` are room to work in.
    """
    n, y, every, lasting = targets.lengths[0], targets.labels[0], len(block), targets.lasting
    U, skips, word = y.size, np.empty(y.size), np.full(y.size, -1)
    for u in range(U):
        skips[u] = 0.0 if targets.direct[0, u] else -math.inf
    for w in range(costs.size):
        word[begins[w]] = w
    for row in range(2):
        fill(states[2, row], -math.inf)
    states[2, BLANK, 0] = 0.0  # as if a blank came before the first frame
    now = 2
    for t in range(n):
        after = 2 + (t + 1) // every if (t + 1) % every == 0 else (t + 1) % 2
        _best_frame(x[t], y, skips, lasting, blank, states[now], states[after])
        _best_over(x[t], y, begins, costs, states[now], states[after])
        now = after
    last, score, k = states[now], states[now, BLANK, U], 2 * U
    if last[LABEL, U] > score:
        score, k = last[LABEL, U], 2 * U - 1
    score, k = _left_out(last, costs.size, begins, costs, True, score, k)
    fill(best, -1)
    if score == -math.inf:
        return score
    for begin in range((n - 1) // every * every, -1, -every):
        stop = min(n, begin + every)
        for t in range(begin, stop - 1):
            before = states[2 + begin // every] if t == begin else block[t - begin - 1]
            _best_frame(x[t], y, skips, lasting, blank, before, block[t - begin])
            _best_over(x[t], y, begins, costs, before, block[t - begin])
        for t in range(stop - 1, begin - 1, -1):
            best[t] = k
            before = states[2 + begin // every] if t == begin else block[t - begin - 1]
            k = _come_from(before, k, word[k // 2] if k % 2 else -1, skips, lasting, begins, costs)
    return score
