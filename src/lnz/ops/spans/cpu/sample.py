"""Samples of trees: walks down that choose by the summands of the inside pass."""

from __future__ import annotations

import math

import numpy as np

from lnz.ops.jit.cpu import helper, kernel
from lnz.ops.jit.cpu.choose import pick
from lnz.ops.jit.cpu.math import exp
from lnz.ops.jit.cpu.rows import FLAGS
from lnz.ops.spans.cpu.inside import chart_in, inside, new_room
from lnz.ops.spans.cpu.labels import sum_labels
from lnz.ops.spans.cpu.viterbi import blank


@kernel(fastmath=FLAGS)
def draw(first, last, scores, lengths, uniform, labels, in_range):
    """Of sentences first … last − 1: trees ``int64 [n, B, N, N]`` by numbers in [0, 1) ``[n, B, 2 N, 2]``."""
    N, size = scores.shape[1], scores.shape[3]
    choices, stack = np.empty(max(N, size)), np.empty((N + 1, 2), np.int64)
    numbers, exponents = new_room(N)
    for b in range(first, last):
        n, chart = lengths[b], chart_in(numbers, exponents)
        top = sum_labels(chart, scores, b, n)
        in_range[b] = top < math.inf
        if not top < math.inf:
            continue
        inside(chart, n)
        for m in range(len(uniform)):
            blank(labels[m, b], n)
            if n > 0:
                walk(chart, scores[b], n, uniform[m, b], labels[m, b], choices, stack)


@helper(fastmath=FLAGS)
def walk(chart, scores, n, uniform, labels, choices, stack):
    """Write the labels of one tree; span t of the walk takes ``uniform[t]``: for its label, and where it splits."""
    stack[0, 0], stack[0, 1], height, t = 0, n - 1, 1, 0
    while height > 0:
        height -= 1
        i, w = stack[height, 0], stack[height, 1]
        for l in range(scores.shape[2]):
            choices[l] = exp(float(scores[i, i + w, l]) - chart.peaks[w * chart.wide + i])
        labels[i, i + w] = pick(choices, scores.shape[2], uniform[t, 0])
        if w > 0:
            for d in range(w):
                left, right = d * chart.wide + i, (w - 1 - d) * chart.wide + i + d + 1
                choices[d] = exp(chart.logs[left] + chart.logs[right] - chart.below[w * chart.wide + i])
            split = pick(choices, w, uniform[t, 1])
            stack[height, 0], stack[height, 1] = i + split + 1, w - 1 - split
            stack[height + 1, 0], stack[height + 1, 1] = i, split
            height += 2
        t += 1
