"""Eisner's chart in logarithms, and from it how probable each of its spans is.

Sums over where a span is split read two rows: charts are also kept transposed, ``back[j, i]`` beside ``[i, j]``. Going
down again, a span's probability is shared out among its splits in proportion to their weights: numbers in [0, 1], for
which the range of scores does not matter. All is in float64, whatever the scores are. See ``reference.py``.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from lnz.ops.arcs.records import Arcs
from lnz.ops.jit import buffers
from lnz.ops.jit.cpu import helper, kernel
from lnz.ops.jit.cpu.math import exp
from lnz.ops.jit.cpu.memory import address, fold_blocks, for_blocks, full_like, load, store
from lnz.ops.jit.cpu.vectors import max_lanes, maximum, sum_lanes
from lnz.ops.jit.threads import parallel, partition
from lnz.ops.jit.work import arrays

RIGHT, RIGHT_BACK, LEFT, LEFT_BACK, OPEN_RIGHT, OPEN_LEFT_BACK = range(6)
"""The charts: of closed spans both ways, of open ones the way in which they are read."""
SHARED = 2**13  # arcs from which threads share the work: one word in each sum


@helper()
def log_sum(a, b, n):
    """ln Σ exp(a + b) over n splits, pointers; −inf where there is none."""
    top = max_lanes(fold_blocks(climb, full_like(a, -math.inf), n, a, b))
    if top == -math.inf:
        return top
    return top + math.log(sum_lanes(fold_blocks(_add, full_like(a, 0), n, a, b, top)))


@helper()
def climb(top, at, n, a, b):
    return maximum(load(a, at, n, -math.inf) + load(b, at, n, -math.inf), top)


@helper()
def _add(total, at, n, a, b, top):
    return total + exp(load(a, at, n, -math.inf) + load(b, at, n, -math.inf) - top)


@helper()
def share(chart, p, left, right, n, whole, probability):
    """Add the probability of each of n splits to those of its parts, from ``left`` and ``right`` on in the charts.

    ``whole`` is ln Σ exp(left + right).
    """
    a, b = address(chart, left), address(chart, right)
    for_blocks(_share, n, a, b, whole, probability, address(p, left), address(p, right))


@helper()
def _share(at, n, a, b, whole, probability, to_a, to_b):
    part = exp(load(a, at, n, -math.inf) + load(b, at, n, -math.inf) - whole) * probability
    store(load(to_a, at, n) + part, to_a, at, n)
    store(load(to_b, at, n) + part, to_b, at, n)


@helper()
def inside(scores, n, single_root, chart, meet):
    """Write ``chart [6, ≥ n + 1, ≥ n + 1]``, and ``meet`` of what lies in open spans. ``scores [N + 1, N + 1]``."""
    for i in range(n + 1):
        for kind in range(LEFT_BACK + 1):
            chart[kind, i, i] = 0.0
    for width in range(1, n + 1):
        for i in range(n + 1 - width):
            j = i + width
            splits = 1 if single_root and i == 0 else width
            inner = log_sum(address(chart, (RIGHT, i, i)), address(chart, (LEFT_BACK, j, i + 1)), splits)
            meet[i, j] = inner
            chart[OPEN_RIGHT, i, j] = inner + scores[j, i]
            chart[OPEN_LEFT_BACK, j, i] = inner + scores[i, j]
            value = log_sum(address(chart, (OPEN_RIGHT, i, i + 1)), address(chart, (RIGHT_BACK, j, i + 1)), width)
            chart[RIGHT, i, j], chart[RIGHT_BACK, j, i] = value, value
            value = log_sum(address(chart, (LEFT, i, i)), address(chart, (OPEN_LEFT_BACK, j, i)), width)
            chart[LEFT, i, j], chart[LEFT_BACK, j, i] = value, value


@helper(forceinline=True)  # else the address of ``share`` stays in the code, which cannot be kept on disk then
def outside(share, n, single_root, chart, meet, p, marginals):
    """Write ``marginals [N + 1, N + 1]`` of arcs among the first n words; ``p`` is shaped as the chart.

    ``share`` is the function of that name, of charts in logarithms or in exponentials.
    """
    for kind in range(OPEN_LEFT_BACK + 1):
        for i in range(n + 1):
            p[kind, i, : n + 1] = 0.0
    p[RIGHT, 0, n] = 1.0
    for width in range(n, 0, -1):
        for i in range(n + 1 - width):
            j = i + width
            there = p[RIGHT, i, j] + p[RIGHT_BACK, j, i]
            if there > 0:
                share(chart, p, (OPEN_RIGHT, i, i + 1), (RIGHT_BACK, j, i + 1), width, chart[RIGHT, i, j], there)
            there = p[LEFT, i, j] + p[LEFT_BACK, j, i]
            if there > 0:
                share(chart, p, (LEFT, i, i), (OPEN_LEFT_BACK, j, i), width, chart[LEFT, i, j], there)
            to_right, to_left = p[OPEN_RIGHT, i, j], p[OPEN_LEFT_BACK, j, i]
            marginals[j, i], marginals[i, j] = to_right, to_left
            if to_right + to_left > 0:
                splits = 1 if single_root and i == 0 else width
                share(chart, p, (RIGHT, i, i), (LEFT_BACK, j, i + 1), splits, meet[i, j], to_right + to_left)


@kernel()
def run(first, last, scores, lengths, single_root, log_z, marginals):
    """Sentences first … last − 1: ``log_z [B]`` and ``marginals [B, N + 1, N + 1]``, written."""
    M = scores.shape[1]
    chart, p, meet = np.empty((6, M, M)), np.empty((6, M, M)), np.empty((M, M))
    for b in range(first, last):
        n = lengths[b]
        marginals[b] = 0.0
        inside(scores[b], n, single_root, chart, meet)
        log_z[b] = chart[RIGHT, 0, n]
        if log_z[b] > -math.inf:
            outside(share, n, single_root, chart, meet, p, marginals[b])


def inside_outside_in_logs(arcs: Arcs) -> tuple[Tensor, Tensor]:
    """ln Z, float64 ``[B]``, and marginals, as ``scores``. O(N³) time, O(N²) memory per thread."""
    scores, B = arcs.scores.double(), len(arcs.scores)
    log_z, marginals = torch.empty(B, dtype=torch.float64), buffers.empty(*scores.shape, dtype=torch.float64)
    threads = torch.get_num_threads() if scores.numel() >= SHARED else 1
    given = arrays(scores, arcs.lengths)
    parallel(run, partition(B, threads), *given, arcs.single_root, log_z.numpy(), marginals.numpy())
    return log_z, marginals.to(arcs.scores.dtype)
