"""Eisner's chart in exponentials, and from it how probable each of its spans is.

As ``in_logs.py``, with products for sums and sums for their logarithms: a split costs a multiplication. Weights are
exp(score − the largest of its word), in float64. The smallest and the largest number that is met are kept: as long as
the product of any two is in range, every sum is right to the last digits; what leaves it is for logarithms.
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
from lnz.ops.jit.cpu.vectors import max_lanes, sum_lanes
from lnz.ops.jit.threads import parallel, partition
from lnz.ops.jit.work import arrays
from lnz.ops.projective.cpu.in_logs import (
    LEFT,
    LEFT_BACK,
    OPEN_LEFT_BACK,
    OPEN_RIGHT,
    RIGHT,
    RIGHT_BACK,
    SHARED,
    climb,
    outside,
)

TINY, HUGE = 1e-140, 1e140  # what the product of two numbers may be made of
FLAGS = {"contract"}


@helper(fastmath=FLAGS)
def lift(scores, n, weights):
    """``weights [n + 1, n + 1]`` = exp(scores − tops) of words 1 … n; Σ tops, −inf where a word has no head."""
    total = 0.0
    for d in range(1, n + 1):
        row = address(scores, (d, 0))
        top = max_lanes(fold_blocks(climb, full_like(row, -math.inf), n + 1, row, row)) / 2
        if top == -math.inf:
            return top
        total += top
        for_blocks(_lift, n + 1, row, top, address(weights, (d, 0)))
    return total


@helper(fastmath=FLAGS)
def _lift(at, n, row, top, out):
    store(exp(load(row, at, n, -math.inf) - top), out, at, n)


@helper(fastmath=FLAGS)
def dot(a, b, n):
    """Σ a · b over n splits, pointers."""
    return sum_lanes(fold_blocks(_dot, full_like(a, 0), n, a, b))


@helper(fastmath=FLAGS)
def _dot(total, at, n, a, b):
    return total + load(a, at, n) * load(b, at, n)


@helper(fastmath=FLAGS)
def share(chart, p, left, right, n, whole, probability):
    """As :func:`.in_logs.share`."""
    rate = probability / whole
    for_blocks(_share, n, address(chart, left), address(chart, right), rate, address(p, left), address(p, right))


@helper(fastmath=FLAGS)
def _share(at, n, a, b, rate, to_a, to_b):
    part = load(a, at, n) * load(b, at, n) * rate
    store(load(to_a, at, n) + part, to_a, at, n)
    store(load(to_b, at, n) + part, to_b, at, n)


@helper()
def met(low, high, value):
    """The range of the numbers met, 0 left out."""
    return (value if 0 < value < low else low), (value if value > high else high)


@helper(fastmath=FLAGS)
def inside(scores, weights, n, single_root, chart, meet):
    """As :func:`.in_logs.inside`; whether all numbers stay in range."""
    low, high = 1.0, 1.0
    for i in range(n + 1):
        for kind in range(LEFT_BACK + 1):
            chart[kind, i, i] = 1.0
    for width in range(1, n + 1):
        for i in range(n + 1 - width):
            j = i + width
            splits = 1 if single_root and i == 0 else width
            inner = dot(address(chart, (RIGHT, i, i)), address(chart, (LEFT_BACK, j, i + 1)), splits)
            to_right, to_left = weights[j, i], weights[i, j] if i else 0.0
            if (to_right < TINY and scores[j, i] > -math.inf) or (i and to_left < TINY and scores[i, j] > -math.inf):
                return False
            low, high = met(low, high, inner)
            meet[i, j] = inner
            chart[OPEN_RIGHT, i, j], chart[OPEN_LEFT_BACK, j, i] = inner * to_right, inner * to_left
            low, high = met(low, high, inner * to_right)
            low, high = met(low, high, inner * to_left)
            value = dot(address(chart, (OPEN_RIGHT, i, i + 1)), address(chart, (RIGHT_BACK, j, i + 1)), width)
            low, high = met(low, high, value)
            chart[RIGHT, i, j], chart[RIGHT_BACK, j, i] = value, value
            value = dot(address(chart, (LEFT, i, i)), address(chart, (OPEN_LEFT_BACK, j, i)), width)
            low, high = met(low, high, value)
            chart[LEFT, i, j], chart[LEFT_BACK, j, i] = value, value
        if not (low > TINY and high < HUGE):
            return False
    return True


@kernel(fastmath=FLAGS)
def run(first, last, scores, lengths, single_root, log_z, marginals, in_range):
    """Sentences first … last − 1: ``log_z [B]``, ``marginals [B, N + 1, N + 1]`` and ``in_range [B]``, written."""
    M = scores.shape[1]
    chart, p, meet, weights = np.empty((6, M, M)), np.empty((6, M, M)), np.empty((M, M)), np.empty((M, M))
    for b in range(first, last):
        n = lengths[b]
        marginals[b] = 0.0
        log_z[b] = lift(scores[b], n, weights)
        in_range[b] = log_z[b] == -math.inf or inside(scores[b], weights, n, single_root, chart, meet)
        if in_range[b] and log_z[b] > -math.inf:
            z = chart[RIGHT, 0, n]
            log_z[b] += math.log(z) if z > 0 else -math.inf
            if z > 0:
                outside(share, n, single_root, chart, meet, p, marginals[b])


def inside_outside(arcs: Arcs) -> tuple[Tensor, Tensor, Tensor]:
    """ln Z, float64 ``[B]``, marginals, and which entries are in range. O(N³) time, O(N²) memory per thread."""
    scores, B = arcs.scores.double(), len(arcs.scores)
    log_z, marginals = torch.empty(B, dtype=torch.float64), buffers.empty(*scores.shape, dtype=torch.float64)
    in_range = torch.empty(B, dtype=torch.bool)
    threads = torch.get_num_threads() if scores.numel() >= SHARED else 1
    outputs = log_z.numpy(), marginals.numpy(), in_range.numpy()
    parallel(run, partition(B, threads), *arrays(scores, arcs.lengths), arcs.single_root, *outputs)
    return log_z, marginals.to(arcs.scores.dtype), in_range
