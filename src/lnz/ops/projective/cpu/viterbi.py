"""Best projective trees: Eisner's chart of maxima, and the way back along the splits that gave them."""

from __future__ import annotations

import math

import numpy as np
import torch

from lnz.ops.arcs.records import Arcs, Trees
from lnz.ops.jit.cpu import helper, kernel
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
)

IGNORE = -100
MEET = 2  # of three tables of splits: those of right spans, of left ones, and of what lies in open ones


@helper()
def best_split(a, b):
    """The largest sum of two rows, and where it is first."""
    best, at = -math.inf, 0
    for k in range(len(a)):
        total = a[k] + b[k]
        if total > best:
            best, at = total, k
    return best, at


@helper()
def fill_chart(scores, n, single_root, chart, splits):
    """As :func:`.in_logs.inside`, with maxima; ``splits`` are counted from the first."""
    for i in range(n + 1):
        for kind in range(LEFT_BACK + 1):
            chart[kind, i, i] = 0.0
    for width in range(1, n + 1):
        for i in range(n + 1 - width):
            j = i + width
            end = i + 1 if single_root and i == 0 else j
            inner, splits[MEET, i, j] = best_split(chart[RIGHT, i, i:end], chart[LEFT_BACK, j, i + 1 : end + 1])
            chart[OPEN_RIGHT, i, j] = inner + scores[j, i]
            chart[OPEN_LEFT_BACK, j, i] = inner + scores[i, j]
            best, splits[0, i, j] = best_split(chart[OPEN_RIGHT, i, i + 1 : j + 1], chart[RIGHT_BACK, j, i + 1 : j + 1])
            chart[RIGHT, i, j], chart[RIGHT_BACK, j, i] = best, best
            best, splits[1, i, j] = best_split(chart[LEFT, i, i:j], chart[OPEN_LEFT_BACK, j, i:j])
            chart[LEFT, i, j], chart[LEFT_BACK, j, i] = best, best


@helper()
def walk_back(n, splits, heads, stack):
    """Write ``heads``; ``stack [≥ 3 n, 3]`` holds spans to be opened: their kind and their ends."""
    depth = 0
    stack[0, 0], stack[0, 1], stack[0, 2] = RIGHT, 0, n
    while depth >= 0:
        kind, i, j = stack[depth, 0], stack[depth, 1], stack[depth, 2]
        depth -= 1
        if i == j:
            continue
        if kind == RIGHT:
            k = i + 1 + splits[0, i, j]
            heads[k] = i
            stack[depth + 1, 0], stack[depth + 1, 1], stack[depth + 1, 2] = RIGHT, k, j
            depth += 1
            low, high = i, k
        else:
            k = i + splits[1, i, j]
            heads[k] = j
            stack[depth + 1, 0], stack[depth + 1, 1], stack[depth + 1, 2] = LEFT, i, k
            depth += 1
            low, high = k, j
        m = low + splits[MEET, low, high]  # what lies under the arc just found
        stack[depth + 1, 0], stack[depth + 1, 1], stack[depth + 1, 2] = RIGHT, low, m
        stack[depth + 2, 0], stack[depth + 2, 1], stack[depth + 2, 2] = LEFT, m + 1, high
        depth += 2


@kernel()
def run(first, last, scores, lengths, single_root, heads, best):
    """Sentences first … last − 1: ``heads int64 [B, N + 1]`` and float64 ``best [B]``, written."""
    M = scores.shape[1]
    chart, splits = np.empty((6, M, M)), np.empty((3, M, M), np.int32)
    stack = np.empty((3 * M + 3, 3), np.int64)
    for b in range(first, last):
        n = lengths[b]
        fill_chart(scores[b], n, single_root, chart, splits)
        best[b] = chart[RIGHT, 0, n]
        heads[b] = IGNORE
        if best[b] > -math.inf:
            heads[b, 0] = 0
            walk_back(n, splits, heads[b], stack)


def viterbi(arcs: Arcs) -> Trees:
    """The best trees; O(N³) time. Of several best ones the one whose splits come first."""
    B, M, _ = arcs.scores.shape
    heads, best = torch.empty(B, M, dtype=torch.int64), torch.empty(B, dtype=torch.float64)
    threads = torch.get_num_threads() if arcs.scores.numel() >= SHARED else 1
    given = arrays(arcs.scores.double(), arcs.lengths)
    parallel(run, partition(B, threads), *given, arcs.single_root, heads.numpy(), best.numpy())
    return Trees(heads, best)
