"""Samples of trees: walks down that choose by the summands of the inside pass."""

from __future__ import annotations

import math

import numpy as np

from lnz.ops.jit.cpu import helper, kernel
from lnz.ops.jit.cpu.choose import pick
from lnz.ops.jit.cpu.math import exp
from lnz.ops.jit.cpu.memory import address
from lnz.ops.jit.cpu.rows import FLAGS, highest
from lnz.ops.spans.cpu.inside import highest_of, inside, new_chart
from lnz.ops.spans.cpu.viterbi import blank


@kernel(fastmath=FLAGS)
def draw(first, last, scores, lengths, uniform, labels, in_range):
    """Of sentences first … last − 1: trees ``int64 [n, B, N, N]`` by numbers in [0, 1) ``[n, B, 2 N, 2]``."""
    N, size = scores.shape[1], scores.shape[3]
    chart, choices, stack = new_chart(N), np.empty(max(N, size)), np.empty((N + 1, 2), np.int64)
    for b in range(first, last):
        n = lengths[b]
        top = highest_of(scores, b, n)
        in_range[b] = top < math.inf
        if not top < math.inf:
            continue
        for i in range(n):
            for w in range(n - i):
                peak, total = exponentials(address(scores, (b, i, i + w)), choices, size)
                chart.own[w, i] = (peak - top) + math.log(total) if total > 0 else -math.inf
        inside(chart, n)
        for m in range(len(uniform)):
            blank(labels[m, b], n)
            if n > 0:
                walk(chart, scores[b], n, uniform[m, b], labels[m, b], choices, stack)


@helper(fastmath=FLAGS)
def exponentials(row, choices, size):
    """``choices`` = exp(row − peak); the peak, 0 if all is −∞, and their sum."""
    peak, total = float(highest(row, size)), 0.0
    peak = peak if peak > -math.inf else 0.0
    for l in range(size):
        choices[l] = exp(float(row[l]) - peak)
        total += choices[l]
    return peak, total


@helper(fastmath=FLAGS)
def walk(chart, scores, n, uniform, labels, choices, stack):
    """Write the labels of one tree; span t of the walk takes ``uniform[t]``: for its label, and where it splits."""
    stack[0, 0], stack[0, 1], height, t = 0, n - 1, 1, 0
    while height > 0:
        height -= 1
        i, w = stack[height, 0], stack[height, 1]
        exponentials(address(scores, (i, i + w)), choices, scores.shape[2])
        labels[i, i + w] = pick(choices, scores.shape[2], uniform[t, 0])
        if w > 0:
            for d in range(w):
                choices[d] = exp(chart.logs[d, i] + chart.logs[w - 1 - d, i + d + 1] - chart.below[w, i])
            split = pick(choices, w, uniform[t, 1])
            stack[height, 0], stack[height, 1] = i + split + 1, w - 1 - split
            stack[height + 1, 0], stack[height + 1, 1] = i, split
            height += 2
        t += 1
