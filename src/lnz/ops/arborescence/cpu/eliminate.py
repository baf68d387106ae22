"""The elimination of ``reference.py`` in exponentials, and back through it the probability of each arc.

Weights are exp(score − the largest of its word), in float64. Going back, every arc among words that are left has its
derivative of ln Z, and of a word that comes back

- an arc *to* it (d under k) gains what arcs from d to k's heads gained, in the shares of these heads;
- an arc *from* it (k under h): (1 − the number of words expected under k + what arcs to h gained) / s.

Marginals are derivatives times weights: numbers up to N are added, so that they are right to some 1e-14. What would
leave the range of float64 is reported, and is for the reference.
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
from lnz.ops.jit.cpu.memory import address, fold_blocks, full_like, load, store
from lnz.ops.jit.cpu.vectors import all_lanes, max_lanes, maximum
from lnz.ops.jit.threads import parallel, partition
from lnz.ops.jit.work import arrays

TINY, HUGE = 1e-140, 1e140  # what products of two weights may be, so that those of four are in range
SHARED = 2**13  # arcs from which threads share the work
FLAGS = {"contract", "reassoc", "nsz"}


@helper()
def lift(scores, n, w, kept):
    """``w`` and ``kept [≥ n, ≥ n + 1]`` = exp(scores − tops) of words 1 … n; Σ tops.

    −inf where a word has no head, NaN where a weight is too small.
    """
    total = 0.0
    for d in range(1, n + 1):
        row = address(scores, (d, 0))
        top = max_lanes(fold_blocks(_climb, full_like(row, -math.inf), n + 1, row))
        if top == -math.inf:
            return top
        total += top
        in_range = full_like(row, 0) == 0
        in_range = fold_blocks(_lift, in_range, n + 1, row, top, address(w, (d - 1, 0)), address(kept, (d - 1, 0)))
        if not all_lanes(in_range):
            total = math.nan
    return total


@helper()
def _climb(top, at, n, row):
    return maximum(load(row, at, n, -math.inf), top)


@helper()
def _lift(in_range, at, n, row, top, w, kept):
    x = load(row, at, n, -math.inf)
    weight = exp(x - top)
    store(weight, w, at, n)
    store(weight, kept, at, n)
    return in_range & ((weight > TINY) | (x == -math.inf))


@helper(fastmath=FLAGS)
def smallest(x, n):
    """The smallest positive of the first n numbers; +inf if there is none."""
    low = math.inf
    for i in range(n):
        if 0 < x[i] < low:
            low = x[i]
    return low


@helper(fastmath=FLAGS)
def total_of(row, first, n):
    total = 0.0
    for h in range(first, n + 1):
        total += row[h]
    return total


@helper(fastmath=FLAGS)
def forward(w, n, single_root, order, sums, shares, under):
    """Eliminate all words of ``w``, which is lost; ln Z, −inf where there is no tree, NaN where the range was left.

    Step t takes word ``order[t]``, of ``sums[t]``, ``shares[t, h]`` of its heads and ``under[t, d]``, the weights of
    words under it. Where one word depends on the root, a word without another head waits until it is the last.
    """
    log_z = 0.0
    for t in range(n):
        order[t] = t
    for t in range(n):
        last = t == n - 1
        chosen, s = t, 0.0
        for at in range(t, n):
            s = w[order[at], 0] if single_root and last else total_of(w[order[at]], 1 if single_root else 0, n)
            if s > 0:
                chosen = at
                break
        if not s > 0:
            return -math.inf
        k, order[chosen] = order[chosen], order[t]
        order[t], sums[t] = k, s
        log_z += math.log(s)
        for h in range(n + 1):
            shares[t, h] = w[k, h] / s
        under[t, :n] = 0.0
        for at in range(t + 1, n):
            d = order[at]
            under[t, d], w[d, k + 1] = w[d, k + 1], 0.0
        low = smallest(shares[t], n + 1) * smallest(under[t], n)
        if s < TINY or low < TINY or shares[t, 0] > HUGE:
            return math.nan
        for at in range(t + 1, n):
            d = order[at]
            c = under[t, d]
            if c > 0:
                for h in range(n + 1):
                    w[d, h] += c * shares[t, h]
                w[d, d + 1] = 0.0
    return log_z


@helper(fastmath=FLAGS)
def backward(a, n, single_root, order, sums, shares, under, gain):
    """``a [≥ n, ≥ n + 1]``: the derivatives of ln Z by weights, written. ``gain [≥ n + 1]`` is room."""
    for t in range(n - 1, -1, -1):
        k, s = order[t], sums[t]
        expected = 0.0
        for h in range(n + 1):
            gain[h] = 0.0
        for at in range(t + 1, n):
            d = order[at]
            c, through = under[t, d], 0.0
            for h in range(n + 1):
                through += a[d, h] * shares[t, h]
                gain[h] += c * a[d, h]
            a[d, k + 1] = through
            expected += c * through
        for h in range(n + 1):
            a[k, h] = (1.0 - expected + gain[h]) / s
        if single_root:
            a[k, 0] = 1.0 / s if t == n - 1 else gain[0] / s
        a[k, k + 1] = 0.0


@kernel(fastmath=FLAGS)
def run(first, last, scores, lengths, single_root, log_z, marginals, in_range):
    """Sentences first … last − 1: ``log_z [B]``, ``marginals [B, N + 1, N + 1]`` and ``in_range [B]``, written."""
    M = scores.shape[1]
    w, a, shares, under, kept = np.empty((M, M)), np.empty((M, M)), np.empty((M, M)), np.empty((M, M)), np.empty((M, M))
    order, sums, gain = np.empty(M, np.int64), np.empty(M), np.empty(M)
    for b in range(first, last):
        n = lengths[b]
        marginals[b] = 0.0
        tops = lift(scores[b], n, w, kept)
        value = forward(w, n, single_root, order, sums, shares, under) if tops > -math.inf else tops
        in_range[b] = not math.isnan(value)
        log_z[b] = tops + value
        if in_range[b] and log_z[b] > -math.inf:
            backward(a, n, single_root, order, sums, shares, under, gain)
            for d in range(n):
                for h in range(n + 1):
                    marginals[b, d + 1, h] = min(max(a[d, h] * kept[d, h], 0.0), 1.0)


def eliminate(arcs: Arcs) -> tuple[Tensor, Tensor, Tensor]:
    """ln Z, float64 ``[B]``, marginals, and which entries are in range. O(N³) time, O(N²) memory per thread."""
    scores, B = arcs.scores.double(), len(arcs.scores)
    log_z, marginals = torch.empty(B, dtype=torch.float64), buffers.empty(*scores.shape, dtype=torch.float64)
    in_range = torch.empty(B, dtype=torch.bool)
    threads = torch.get_num_threads() if scores.numel() >= SHARED else 1
    outputs = log_z.numpy(), marginals.numpy(), in_range.numpy()
    parallel(run, partition(B, threads), *arrays(scores, arcs.lengths), arcs.single_root, *outputs)
    return log_z, marginals.to(arcs.scores.dtype), in_range
