"""From the scores of a frame to the weights of states."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from lnz.ops.ctc.cpu.floating import exponential
from lnz.ops.ctc.cpu.lattice import columns
from lnz.ops.jit.cpu.memory import address
from lnz.ops.jit.cpu.rows import FLAGS, exponentials, fill, highest, total


class Frames(NamedTuple):
    """Scores of classes, R rows in the order of memory.

    Attributes:
        x: ``[R, C]``.
        strides: frame t of sequence b is at row ``b · strides[0] + t · strides[1]``.
        prior: ``[C]``, subtracted.
        blank: the class of blank, −1 for none.
        normalise: whether ln Σ exp of a frame is taken off.
    """

    x: np.ndarray
    strides: tuple[int, int]
    prior: np.ndarray
    blank: int
    normalise: bool


class Targets(NamedTuple):
    """As :class:`lnz.ops.ctc.lattice.Lattice`, arrays; ``lasting`` is 0.0 where a label may last, else −inf."""

    labels: np.ndarray
    direct: np.ndarray
    lengths: np.ndarray
    sizes: np.ndarray
    lasting: float


class Room(NamedTuple):
    """What the weights of one frame are made in, ``[K]`` and ``[2, K]`` for K columns; and ``powers`` ``[C]``."""

    arcs: np.ndarray
    priors: np.ndarray
    own: np.ndarray
    weights: np.ndarray
    powers: np.ndarray


@njit
def room(frames, targets):
    """For the longest target."""
    wide = columns(targets.labels.shape[1])
    powers = np.empty(frames.x.shape[1], frames.x.dtype)
    return Room(np.empty(wide), np.empty(wide), np.empty(wide), np.empty((2, wide)), powers)


@njit(fastmath=FLAGS)
def prepare(b, frames, targets, room):
    """The labels of sequence b; of these, priors and which follow each other directly go into ``room``."""
    y = targets.labels[b, : targets.sizes[b]]
    fill(room.arcs, 0.0)
    fill(room.priors, 0.0)
    for u in range(y.size):
        room.arcs[u] = 1.0 if targets.direct[b, u] else 0.0
        room.priors[u + 1] = frames.prior[y[u]]
    room.priors[y.size + 1] = frames.prior[frames.blank] if frames.blank >= 0 else 0.0
    return y


@njit(fastmath=FLAGS)
def weigh(at, top, frames, y, room):
    """Fill ``room.weights`` from row ``at`` of x less ``top``; returns m and e of the weight of a blank."""
    U, end, own, weights = y.size, columns(y.size), room.own, room.weights
    row = frames.x[at]
    _gather(own[1:], row, y)
    own[0], own[U + 1] = -math.inf, row[frames.blank] if frames.blank >= 0 else -math.inf
    fill(own[U + 2 : end], -math.inf)
    _subtract(own[:end], top, room.priors[:end])
    exponential(weights[0, :end], weights[1, :end], own[:end])
    blank = weights[0, U + 1], weights[1, U + 1]
    weights[1, U + 1] = -math.inf
    return blank


@njit(fastmath=FLAGS)
def scale(at, frames, room, out) -> tuple[bool, bool, float]:
    """Whether row ``at`` is without NaN and +inf, whether any score is finite; and what is to be added to ln Z.

    ``out`` gets the largest score, 0 where none is finite, and where frames are normalised the sum of exp of the scores
    less that.
    """
    top = highest(address(frames.x, at), frames.x.shape[1])
    good, alive = top < np.inf, top > -np.inf
    out[0], out[1] = top if good and alive else 0.0, 1.0
    if not (frames.normalise and good and alive):
        return good, alive, np.float64(out[0])
    exponentials(room.powers, frames.x[at], top)
    out[1] = total(room.powers)
    return good, alive, -math.log(out[1])


@njit(fastmath=FLAGS)
def _gather(out, row, labels):
    for u in range(labels.size):
        out[u] = row[labels[u]]


@njit(fastmath=FLAGS)
def _subtract(row, top, a):
    for k in range(row.size):
        row[k] = row[k] - top - a[k]
