"""From joint scores to the arcs of lattices, and from the gradient of arcs to that of joint scores, row by row."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from lnz.ops.jit.cpu import kernel
from lnz.ops.jit.cpu.memory import address
from lnz.ops.jit.cpu.rows import FLAGS, exponentials, fill, highest, scaled_exponentials, total


class Scores(NamedTuple):
    """Joint scores; as :class:`lnz.ops.transducer.records.Joint`, arrays.

    Attributes:
        x: ``[B, T, U + 1, C]``.
        labels: ``int64 [B, U]``.
        lengths: ``int64 [B]``, frames.
        sizes: ``int64 [B]``, labels.
        blank: the class of blank.
        normalise: whether ln Σ exp of each row is taken off.
    """

    x: Any
    labels: Any
    lengths: Any
    sizes: Any
    blank: int
    normalise: bool


@kernel(fastmath=FLAGS)
def arcs(joint, first, step, at_blank, at_label, scales):
    """Frames ``first``, ``first + step``, … of all B · T frames.

    Writes the scores of the two arcs of each node (where ``normalise`` less ln Σ exp of its row), −inf beside the
    lattice, NaN where the row has a NaN or +inf; and of each row the largest score and the sum of exp of the scores
    less that, 0 and 1 where there is nothing.
    """
    x, labels, lengths, sizes, blank, normalise = joint
    B, T, W, C = x.shape
    powers = np.empty(C, x.dtype)
    for r in range(first, B * T, step):
        b, t = r // T, r % T
        for u in range(W):
            row, shift = x[b, t, u], 0.0
            inside = t < lengths[b] and u <= sizes[b]
            scales[b, t, u, 0], scales[b, t, u, 1] = 0.0, 1.0
            if inside and normalise:
                top = highest(address(x, (b, t, u)), C)
                if top == np.inf:
                    shift = np.nan
                elif top > -np.inf:
                    exponentials(powers, row, top)
                    s = total(powers)
                    scales[b, t, u, 0], scales[b, t, u, 1] = top, s
                    shift = np.float64(top) + math.log(s)
            at_blank[b, t, u] = np.float64(row[blank]) - shift if inside else -math.inf
            if u < W - 1:
                leaves = inside and u < sizes[b]
                at_label[b, t, u] = np.float64(row[labels[b, u]]) - shift if leaves else -math.inf


@kernel(fastmath=FLAGS)
def slopes(joint, to_blank, to_label, scales, tiny, first, step, out):
    """Frames ``first``, ``first + step``, … of ``out`` ``[B, T, U + 1, C]``.

    That of each arc at its class, less the softmax times both where ``normalise``; 0 beside the lattice. A row whose
    arcs together have a gradient below ``tiny``, the smallest normal number, would be 0 and is not computed.
    """
    x, labels, lengths, sizes, blank, normalise = joint
    B, T, W, _ = x.shape
    for r in range(first, B * T, step):
        b, t = r // T, r % T
        for u in range(W):
            row = out[b, t, u]
            if t >= lengths[b] or u > sizes[b]:
                fill(row, 0.0)
                continue
            at_blank = to_blank[b, t, u]
            at_label = to_label[b, t, u] if u < sizes[b] else 0.0
            both = at_blank + at_label
            if normalise and not abs(both) < tiny:
                scaled_exponentials(row, x[b, t, u], scales[b, t, u, 0], row.dtype.type(-both / scales[b, t, u, 1]))
            else:
                fill(row, 0.0)
            row[blank] += at_blank
            if u < sizes[b]:
                row[labels[b, u]] += at_label
