"""The best alignment of a range of sequences (Viterbi 1967), eight labels of a target at a time.

After a frame, column u holds the best score of the paths that end in the blank after u labels, and of those that end
in label u, counted from 0, which follows it. A path moves by one column per frame at most: columns are looked at only
where one can have come from the start and can still reach the end. Two bits per column say where its best paths came
from, which is all that the walk back reads.

Scores are summed in float64, whatever those of frames are, for in float32 sums over thousands of frames no longer tell
paths apart: no alignment is better by more than T roundings of float64 at the size of the sum.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from lnz.ops.ctc.cpu.floating import WIDE
from lnz.ops.jit.cpu import helper, kernel
from lnz.ops.jit.cpu.memory import address, gather, load, load_bits, store, store_bits
from lnz.ops.jit.cpu.product import workspace
from lnz.ops.jit.cpu.rows import FLAGS, fill
from lnz.ops.jit.cpu.vectors import astype, broadcast, select, shift_in

IGNORE = -100
BLANK, LABEL = 0, 1  # rows of states, and of the bits that say where these came from


@helper(fastmath=FLAGS)
def _frame(begin, end, scores, places, blank, skips, stays, states, came, line):
    """Blocks ``begin`` … ``end`` − 1 of the states after a frame, whose scores ``scores[places]`` are.

    All but the numbers ``blank`` and ``line``, from the blanks' to the labels' states, are pointers.
    """
    zero = broadcast(0.0, WIDE)
    everywhere, before, new = zero == 0, zero - math.inf, broadcast(not stays, WIDE)
    for k in range(begin, end):
        at = k * WIDE
        b, l = load(states, at, width=WIDE), load(states, at + line, width=WIDE)
        last = shift_in(before, l)  # the label before each blank
        before = l
        spoken = last > b
        either = select(spoken, last, b)
        come = select(load_bits(skips, k, WIDE), either, b)
        moved = (come > l) | new
        label = astype(gather(scores, load(places, at, width=WIDE), everywhere, 0), np.float64)
        store(either + blank, states, at)
        store(select(moved, come, l) + label, states, at + line)
        store_bits(spoken, came, 2 * k + BLANK)
        store_bits(moved, came, 2 * k + LABEL)


class Room(NamedTuple):
    """What a search works in, for K blocks of columns.

    Attributes:
        states: the best scores, ``[2, 8 K]``.
        places: the classes of the target, ``int64 [8 K]``.
        skips: bits that say which label may follow the one before it directly, ``uint8 [K]``.
        came: bits that say where states came from, ``uint8 [T, K, 2]``.
    """

    states: Any
    places: Any
    skips: Any
    came: Any


@helper(fastmath=FLAGS)
def _forward(x, start, stride, n, U, blank, stays, room):
    """The states after n frames of sequence b, and where those of every frame came from."""
    states, came = room.states, room.came
    fill(states[BLANK], -math.inf)
    fill(states[LABEL], -math.inf)
    states[BLANK, 0] = 0.0  # as if a blank came before the first frame
    state, offsets, ready = address(states, 0), address(room.places, 0), address(room.skips, 0)
    for t in range(n):
        row = start + t * stride
        at_blank = np.float64(x[row, blank]) if blank >= 0 else -math.inf
        begin = max(0, U - n + t - 1) // WIDE  # one column before the first that matters, which needs it
        end = min(U, t) // WIDE + 1
        scores, bits = address(x, row), address(came, t)
        _frame(begin, end, scores, offsets, at_blank, ready, stays, state, bits, states.shape[1])


@helper()
def _walk(n, y, in_label, blank, room, best):
    """Write the classes of n frames, from the last one back."""
    skips, came = room.skips, room.came
    u = y.size - 1 if in_label else y.size
    for t in range(n - 1, -1, -1):
        best[t] = y[u] if in_label else blank
        block, bit = u // WIDE, np.uint8(1 << u % WIDE)
        spoken = came[t, block, BLANK] & bit
        if not in_label:
            if spoken:
                in_label, u = True, u - 1
        elif came[t, block, LABEL] & bit:
            if spoken and skips[block] & bit:
                u -= 1
            else:
                in_label = False


@kernel(fastmath=FLAGS)
def viterbi(x, strides, blank, targets, first, last, best, scores):
    """Write the best alignments ``[B, T]``, −100 over padding, or throughout where there is none, and their scores.

    Of several, that which, seen from its end, stays in a state rather than comes from another, and comes from a blank
    rather than from a label.
    """
    labels, direct, lengths, sizes, lasting = targets
    T, blocks, stays = best.shape[1], labels.shape[1] // WIDE + 1, lasting == 0.0
    states, places = workspace(2, blocks * WIDE, np.float64), workspace(1, blocks * WIDE, np.int64)[0]
    came, skips = np.empty((T, blocks, 2), np.uint8), np.empty(blocks, np.uint8)
    room = Room(states, places, skips, came)
    for b in range(first, last):
        n, y = lengths[b], labels[b, : sizes[b]]
        U = y.size
        fill(skips, 0)
        for u in range(U):
            places[u] = y[u]
            skips[u // WIDE] |= np.uint8(direct[b, u]) << np.uint8(u % WIDE)
        _forward(x, b * strides[0], strides[1], n, U, blank, stays, room)
        in_label = U > 0 and states[LABEL, U - 1] > states[BLANK, U]
        score = states[LABEL, U - 1] if in_label else states[BLANK, U]
        scores[b], possible = score, score > -math.inf
        if possible:
            _walk(n, y, in_label, blank, room, best[b])
        fill(best[b, n if possible else 0 :], IGNORE)
