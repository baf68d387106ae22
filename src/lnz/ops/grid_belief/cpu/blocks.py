"""The steps of a sweep in probabilities, a vector of pixels at a time.

Loops of :mod:`.lanes` along a row of 64 pixels spend as long on getting started as on arithmetic; here one pass over
the labels reads each message once and writes each product once. ``gather`` and ``commit`` of :mod:`.sweep` do the same
in any domain. What is read and written comes as pointers to the first label, and how far on the next label lies.
Blocks past the end of a row are masked, so that nothing outside an array is touched.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from numba import njit

from lnz.ops.grid_belief.cpu.lanes import FLAGS
from lnz.ops.jit.cpu.memory import full_like, load, store
from lnz.ops.jit.cpu.vectors import absolute, maximum, select


class Received(NamedTuple):
    """What the pixels of a row go by, as pointers to the first label at one pixel.

    Attributes:
        labels: how many.
        scores: of the pixels, ``[labels, line]``.
        messages: from the left, right, up and down, each ``[labels, line]``.
        line: how far the next label lies.
    """

    labels: Any
    scores: Any
    messages: Any
    line: Any


class Sent(NamedTuple):
    """What the pixels of a row send, as pointers to the first label at one pixel.

    Attributes:
        ends: to the right (a lane late), to the left, down by the row above, up: each ``[labels, room]``.
        room: how far the next label lies in these.
        below: what the row above sends down, and then what this one does, ``[labels, wide]``.
        wide: how far the next label lies there.
    """

    ends: Any
    room: Any
    below: Any
    wide: Any


@njit(fastmath=FLAGS)
def gather_block(at, n, received, sent):
    """What pixels ``at …`` send, all incoming messages but one each; n of them, or ``None`` for a whole block."""
    labels, scores, (from_left, from_right, from_up, from_down), line = received
    ends, room, below, wide = sent
    for l in range(labels):
        here, there, rest = l * line + at, l * room + at, l * wide + at
        score = load(scores, here, n)
        left, right = load(from_left, here, n), load(from_right, here, n)
        up, down = load(from_up, here, n), load(from_down, here, n)
        vertical, horizontal = score * up * down, score * left * right
        store(vertical * left, ends[0], there + 1, n)
        store(vertical * right, ends[1], there, n)
        store(load(below, rest, n), ends[2], there, n)
        store(horizontal * down, ends[3], there, n)
        store(horizontal * up, below, rest, n)


@njit(fastmath=FLAGS)
def commit_block(at, n, x, room, messages, line, labels, count):
    """Store ``x [labels, room]``, scaled to sum ``count``, as the messages that arrive at pixels ``at …``."""
    scale = _scale(at, n, x, room, labels, count)
    for l in range(labels):
        store(load(x, l * room + at, n) * scale, messages, l * line + at, n)


@njit(fastmath=FLAGS)
def measure_block(at, n, x, room, messages, line, labels, count, change):
    """:func:`commit_block`, and ``change`` becomes the largest change so far."""
    scale, largest = _scale(at, n, x, room, labels, count), load(change, at, n)
    for l in range(labels):
        new = load(x, l * room + at, n) * scale
        largest = maximum(absolute(new - load(messages, l * line + at, n)), largest)
        store(new, messages, l * line + at, n)
    store(largest, change, at, n)


@njit(fastmath=FLAGS)
def _scale(at, n, x, room, labels, count):
    total = full_like(x, 0)
    for l in range(labels):
        total += load(x, l * room + at, n)
    return select(total > 0, count / total, 0)
