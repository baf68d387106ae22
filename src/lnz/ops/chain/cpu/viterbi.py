"""Best labellings: the (max, +) recursion of a few sequences side by side, and the walk back (Viterbi 1967).

The step forward keeps the values only, so that it is one addition and one maximum per pair of labels, in registers; the
walk back looks for the maximising label again, of one column per step. Values are taken relative to the best one of
their step, so that they keep their accuracy in long chains.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from lnz.ops.chain.cpu.rows import FLAGS, largest, plus
from lnz.ops.chain.cpu.sweep import TILE
from lnz.ops.chain.records import Chains, with_a_table
from lnz.ops.jit.cpu import helper, kernel
from lnz.ops.jit.cpu.memory import address, fold_blocks, for_blocks, full_like, lane_numbers, load, store
from lnz.ops.jit.cpu.product import SPLITS, maximise, workspace
from lnz.ops.jit.cpu.rows import copy
from lnz.ops.jit.cpu.vectors import max_lanes, min_lanes, select
from lnz.ops.jit.threads import parallel, partition
from lnz.ops.jit.work import arrays, threads_for

IGNORE = -100


@helper(fastmath=FLAGS)
def relative(message, x, state, kept, size):
    """``state = kept = message + (x − the largest of the message)``, pointers; −inf where all of the message is."""
    top = largest(message, size)
    for_blocks(_relative, size, message, x, state, kept, top if top > -math.inf else 0.0)


@helper(fastmath=FLAGS)
def _relative(at, n, message, x, state, kept, top):
    value = load(message, at, n) + (load(x, at, n) - top)
    store(value, state, at, n)
    store(value, kept, at, n)


@helper(fastmath=FLAGS)
def maximiser(values, into, size):
    """The first l of the largest ``values[l] + into[l]``, pointers; 0 where all are NaN or −inf."""
    lanes = lane_numbers()
    top, place = fold_blocks(_better, (full_like(values, -math.inf), lanes), size, values, into, lanes)
    return min_lanes(select(top == max_lanes(top), place, 2**62))


@helper(fastmath=FLAGS)
def _better(best, at, n, values, into, lanes):
    top, place = best
    total = load(values, at, n, -math.inf) + load(into, at, n)
    better = total > top
    return select(better, total, top), select(better, lanes + at, place)


@helper(fastmath=FLAGS)
def first_of_largest(values):
    place = 0
    for l in range(values.size):
        if values[l] > values[place]:
            place = l
    return place


@kernel(fastmath=FLAGS)
def run(first, last, node, edge, lengths, ends, labels, scores):
    """Of sequences first … last − 1: ``labels int64 [B, T]``, −100 beyond, and float64 ``scores [B]``, both written.

    ``node [B, T, L]``, ``edge [B or 1, T − 1 or 1, L, L]``, ``ends [2, L]``, on top of the node scores of the first and
    of the last label. An impossible chain gets −100 and −inf.
    """
    T, size = node.shape[1:]
    padded, inner = (size + 15) // 16 * 16, (size + SPLITS - 1) // SPLITS * SPLITS
    several, rows = edge.shape[1] > 1, TILE if len(edge) == 1 else 1
    table, into = workspace(inner, padded + 16, node.dtype), workspace(size, padded, node.dtype)
    state, message = workspace(TILE, padded, node.dtype), workspace(TILE, padded, node.dtype)
    columns, line = state.T, workspace(1, padded, node.dtype)
    values, copied = np.empty((rows, T, size), node.dtype), -1
    for at in range(first, last, rows):
        count, own, longest = min(rows, last - at), at if len(edge) > 1 else 0, 0
        for b in range(at, at + count):
            longest = max(longest, lengths[b])
        state[:] = -math.inf
        message[:] = 0
        for t in range(longest):
            if t:
                if several or copied != own:
                    copied = own
                    scores_here = edge[own, t - 1 if several else 0]
                    for i in range(size):
                        copy(table[i, :size], scores_here[i])
                        if not several:
                            copy(into[:, i], scores_here[i])
                maximise(columns, table, message, count, size)
            for r in range(count):
                if t < lengths[at + r]:
                    row, states, kept = address(node, (at + r, t)), address(state, r), address(values, (r, t))
                    if t == 0:
                        row = plus(row, address(ends, 0), address(line, 0), size)
                    if t == lengths[at + r] - 1:
                        row = plus(row, address(ends, 1), address(line, 0), size)
                    relative(address(message, r), row, states, kept, size)
        for r in range(count):
            b, n = at + r, lengths[at + r]
            labels[b, n:] = IGNORE
            scores[b] = 0.0
            if n == 0:
                continue
            label = first_of_largest(values[r, n - 1])
            total = np.float64(ends[1, label])
            for t in range(n - 1, -1, -1):
                labels[b, t] = label
                total += node[b, t, label]
                if t:
                    if several:
                        copy(into[label, :size], edge[own, t - 1, :, label])
                    previous = maximiser(address(values, (r, t - 1)), address(into, label), size)
                    total += into[label, previous]
                    label = previous
            total += ends[0, label]
            scores[b] = total
            if total == -math.inf:
                labels[b, :] = IGNORE


def viterbi(chains: Chains, ends: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """A best labelling ``int64 [B, T]`` and its score, float64 ``[B]``; −100 and −inf where there is none.

    ``ends [2, L]`` are on top of the scores of the first and of the last label.
    """
    B, T, _ = chains.node.shape
    labels, scores = torch.empty(B, T, dtype=torch.int64), torch.empty(B, dtype=torch.float64)
    ends = chains.node.new_zeros(2, chains.node.shape[2]) if ends is None else ends
    inputs, outputs = arrays(*with_a_table(chains), ends), (labels.numpy(), scores.numpy())
    parallel(run, partition(B, threads_for(chains.node.numel()), 4), *inputs, *outputs)
    return labels, scores
