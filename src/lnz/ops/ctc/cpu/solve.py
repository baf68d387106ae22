"""ln Z of a range of sequences, straight from the scores of frames; with it, occupancies or the gradient.

Three ways: ln Z alone keeps two columns of the lattice; occupancies keep all of them; the gradient of long sequences
keeps every √T-th and makes those between once more (Griewank and Walther 2000, "revolve", its simplest case).
"""

from __future__ import annotations

import math

import numpy as np

from lnz.ops.ctc.cpu.floating import whole
from lnz.ops.ctc.cpu.frames import prepare, room, scale, weigh
from lnz.ops.ctc.cpu.gradient import write_row
from lnz.ops.ctc.cpu.lattice import backward, columns, ends, finish, forward, occupied, start
from lnz.ops.jit.cpu import helper, kernel
from lnz.ops.jit.cpu.rows import FLAGS, fill


@helper(fastmath=FLAGS)
def _through(b, frames, targets, y, work, states, every, scales):
    """α of sequence b from start to end; returns ln Z, NaN where a frame has NaN or +inf.

    α_t goes to ``states[t % len(states)]`` where ``every`` is 0, otherwise every so many to ``states[2:]`` in turn, and
    those between to the first two. ``scales`` ``[T, 2]`` is written.
    """
    n, U, added, good, alive = targets.lengths[b], y.size, 0.0, True, True
    start(states[0] if every == 0 else states[2], U)
    now = 0 if every == 0 else 2
    for t in range(n):
        at = b * frames.strides[0] + t * frames.strides[1]
        fine, possible, more = scale(at, frames, work, scales[t])  # pyright: ignore[reportGeneralTypeIssues]
        good, alive, added = good and fine, alive and possible, added + more
        if not (good and alive):
            continue
        blank = weigh(at, np.float64(scales[t, 0]), frames, y, work)
        if every == 0:
            after = (t + 1) % states.shape[0]
        else:
            after = 2 + (t + 1) // every if (t + 1) % every == 0 else (t + 1) % 2
        forward(t, U, states[now], work.weights, blank, work.arcs, targets.lasting, states[after])
        now = after
    if not good:
        return np.nan
    if not alive:
        return -math.inf
    blank, label, e = ends(states[now], U)
    return whole(blank + label, e) + added if e > -math.inf else -math.inf


@kernel(fastmath=FLAGS)
def value(frames, targets, first, last, log_z, scales):
    """Sequences ``first`` … ``last`` − 1: write ln Z, less the normalisers of frames where ``frames.normalise``.

    And of each frame the largest score and, where normalised, the sum of exp of the scores less that, ``[B, T, 2]``.
    """
    work, states = room(frames, targets), np.empty((2, 4, columns(targets.labels.shape[1])))
    for b in range(first, last):
        y = prepare(b, frames, targets, work)
        log_z[b] = _through(b, frames, targets, y, work, states, 0, scales[b])


@kernel(fastmath=FLAGS)
def solve(frames, targets, first, last, states, log_z, occupancy, scales):
    """As :func:`value`, and the occupancies ``[B, T, S + 1]``; ``states`` ``[T + 1, 4, K]`` is room to work in."""
    work, there = room(frames, targets), np.empty((3, states.shape[2]))
    T = occupancy.shape[1]
    for b in range(first, last):
        n, y = targets.lengths[b], prepare(b, frames, targets, work)
        log_z[b] = _through(b, frames, targets, y, work, states, 0, scales[b])
        possible = log_z[b] > -math.inf
        if possible:
            finish(there, states[n], y.size)
        for t in range(n - 1 if possible else -1, -1, -1):
            occupied(there, y.size, occupancy[b, t])
            backward(y.size, states[t], work.arcs, targets.lasting, there)
        for t in range(n if possible else 0, T):
            fill(occupancy[b, t], 0.0)


@kernel(fastmath=FLAGS)
def slopes(frames, targets, factor, log_z, scales, first, last, states, block, out):
    """The gradient of sequences ``first`` … ``last`` − 1, as :func:`lnz.ops.ctc.cpu.gradient.gradient` has it.

    From blocks of frames, of which one at a time lies in ``block`` ``[every, 4, K]``, started from ``states``
    ``[T / every + 3, 4, K]``. ``scales`` are read.
    """
    every = len(block)
    work, there = room(frames, targets), np.empty((3, states.shape[2]))
    T, row = scales.shape[1], np.empty(targets.labels.shape[1] + 1)
    unused = np.empty((T, 2), scales.dtype)
    for b in range(first, last):
        n, y = targets.lengths[b], prepare(b, frames, targets, work)
        U = y.size
        if log_z[b] > -math.inf:
            _through(b, frames, targets, y, work, states, every, unused)
            finish(there, states[2 + n // every if n % every == 0 else n % 2], U)
        for t in range(T):
            if t >= n or not log_z[b] > -math.inf:
                at = b * frames.strides[0] + t * frames.strides[1]
                write_row(out[at], at, frames, y, factor[b], log_z[b] if t < n else -math.inf, row, scales[b, t])
        for begin in range((n - 1) // every * every if log_z[b] > -math.inf else -1, -1, -every):
            stop = min(n, begin + every)
            before = states[2 + begin // every]
            for t in range(begin, stop - 1):
                at = b * frames.strides[0] + t * frames.strides[1]
                blank = weigh(at, np.float64(scales[b, t, 0]), frames, y, work)
                forward(t, U, before, work.weights, blank, work.arcs, targets.lasting, block[t - begin])
                before = block[t - begin]
            for t in range(stop - 1, begin - 1, -1):
                at = b * frames.strides[0] + t * frames.strides[1]
                occupied(there, U, row)
                write_row(out[at], at, frames, y, factor[b], log_z[b], row, scales[b, t])
                before = states[2 + begin // every] if t == begin else block[t - begin - 1]
                backward(U, before, work.arcs, targets.lasting, there)
