"""Samples of segmentations: walks forward that choose by the summands of the pass back."""

from __future__ import annotations

import math

from lnz.ops.jit.cpu import helper
from lnz.ops.jit.cpu.choose import pick
from lnz.ops.jit.cpu.math import exp
from lnz.ops.semi_markov.cpu.widths import FLAGS
from lnz.ops.semi_markov.records import CONTINUED
from lnz.typing import IGNORE


@helper(fastmath=FLAGS)
def walk(given, b, r, back, uniform, labels, choices):
    """Draw one segmentation of sequence b, the r-th of its tile: a label, and a width, in turn."""
    edge, begins, weights, n = given.edge, back.begins, back.weights, given.lengths[b]
    size, own, label = edge.shape[3], b if len(edge) > 1 else 0, 0
    for t in range(n, len(labels)):
        labels[t] = IGNORE
    t = 0
    while t < n:
        if t == 0:
            for l in range(size):
                choices[l] = back.ahead[r, 0, l]
        else:
            place, far = t - 1 if len(given.kind) == 0 else 0, back.afters[r, t * size + label]
            far = far if far > -math.inf else 0.0
            for l in range(size):
                choices[l] = exp(edge[own, place, label, l] + begins[r, t, l] - far)
        label = pick(choices, size, uniform[t, 0])
        widths = min(weights.shape[2], n - t)
        for w in range(widths):
            choices[w] = weights[b, t, w, label]
        width = pick(choices, widths, uniform[t, 1])
        labels[t] = label
        for at in range(t + 1, t + width + 1):
            labels[at] = CONTINUED
        t += width + 1
