"""The k best labellings: one forward pass for the best, one walk back that knows what every turn costs.

The best labelling of those that end in given labels from step t on falls short of the best of all by the sum of what
each choice of the walk back gave away: α_t is the exact rest of the score, so that this is a tree search with the exact
heuristic (Soong & Huang 1991; the losses are the sidetracks of Eppstein 1998). At each step the k endings with the
least loss are kept. Each goes on to its best label before, at no loss; others enter only if they beat the worst that is
kept, which becomes rare. So it costs one Viterbi pass (two for long chains) and little for each labelling more.

Ties go to the ending that comes first, then to the lower label. Losses are sums of float64 differences; the scores are
those of the labellings themselves, summed anew.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lnz.ops.chain.cpu.arguments import Inputs, Tile, Work
from lnz.ops.chain.cpu.max_forward import (
    block_of,
    exact_sum,
    forward,
    forward_to_the_end,
    lay,
    lay_transposed,
    rows_of,
    table_of,
)
from lnz.ops.chain.cpu.rows import FLAGS
from lnz.ops.chain.cpu.sweep import TILE
from lnz.ops.chain.cpu.viterbi import IGNORE, maximiser
from lnz.ops.chain.records import Chains, with_a_table
from lnz.ops.jit.cpu import helper, kernel
from lnz.ops.jit.cpu.memory import address
from lnz.ops.jit.cpu.rows import copy
from lnz.ops.jit.threads import parallel, partition
from lnz.ops.jit.work import arrays, threads_for


class Endings(NamedTuple):
    """The best labellings from a step on.

    Attributes:
        ends: their first labels ``[k]``.
        losses: what they lose ``[k]``.
        candidates: room ``[k L]`` for what candidates lose, the endings that they prolong, their labels, and twice for
            their order.
    """

    ends: Any
    losses: Any
    candidates: Any


class Memo(NamedTuple):
    """``seen [L]`` is ``stamp`` where ``previous [L]``, the best label before each label, is known at this step."""

    seen: Any
    previous: Any
    stamp: int


@helper(fastmath=FLAGS)
def rivals(alpha, column, top, loss, limit):
    """How many labels lose less than ``limit`` in all."""
    count = 0
    for l in range(alpha.size):
        count += 1 if loss + (top - (alpha[l] + column[l])) < limit else 0
    return count


@helper(fastmath=FLAGS)
def sort(values, total, order, room):
    """The indices of ``values[:total]``, the smallest first and equal ones as they come: a merge sort."""
    for i in range(total):
        order[i] = i
    width = 1
    while width < total:
        for start in range(0, total, 2 * width):
            middle, end = min(start + width, total), min(start + 2 * width, total)
            left, right = start, middle
            for place in range(start, end):
                if left < middle and (right >= end or values[order[left]] <= values[order[right]]):
                    room[place] = order[left]
                    left += 1
                else:
                    room[place] = order[right]
                    right += 1
        for i in range(total):
            order[i] = room[i]
        width *= 2


@helper(fastmath=FLAGS)
def select(ends, losses, candidates, total, k, sources):
    """The k best of ``total`` candidates (losses, endings, labels), in order, as the endings; how many there are."""
    lost, parents, labels, order, spare = candidates
    sort(lost, total, order, spare)
    count = min(k, total)
    for h in range(count):
        ends[h], losses[h], sources[h] = labels[order[h]], lost[order[h]], parents[order[h]]
    return count


@helper(fastmath=FLAGS)
def begin(alpha, size, k, ends, losses, candidates, sources):
    """The k best last labels; how many there are."""
    lost, parents, labels, _, _ = candidates
    top, total = -math.inf, 0
    for l in range(size):
        top = max(top, alpha[l])
    for l in range(size):
        if alpha[l] > -math.inf:
            lost[total], parents[total], labels[total] = top - alpha[l], 0, l
            total += 1
    return select(ends, losses, candidates, total, k, sources)


@helper(fastmath=FLAGS)
def go_back(kept, r, s, into, size, k, count, endings, sources, memo):
    """One step back from ``count`` endings, whose labels' columns are rows of ``into``; how many there are then.

    ``sources`` are the endings that they prolong.
    """
    ends, losses, candidates = endings
    seen, previous, stamp = memo
    limit, forks = losses[k - 1] if count == k else math.inf, False
    for h in range(count):
        label = ends[h]
        sources[h] = h
        if seen[label] != stamp:  # of endings with one label the first has the least loss, so speaks for all
            seen[label] = stamp
            best = maximiser(address(kept, (r, s)), address(into, label), size)
            previous[label] = best
            top = kept[r, s, best] + into[label, best]
            itself = 1 if losses[h] < limit else 0
            forks = forks or rivals(kept[r, s, :size], into[label], top, losses[h], limit) > itself
    if not forks:
        for h in range(count):
            ends[h] = previous[ends[h]]
        return count
    lost, parents, labels, _, _ = candidates
    total = 0
    for h in range(count):
        label, best = ends[h], previous[ends[h]]
        top = kept[r, s, best] + into[label, best]
        for l in range(size):
            loss = losses[h] + (top - (kept[r, s, l] + into[label, l]))
            if l == best or loss < limit:
                lost[total], parents[total], labels[total] = losses[h] if l == best else loss, h, l
                total += 1
    return select(ends, losses, candidates, total, k, sources)


@helper(fastmath=FLAGS)
def unroll(node, edge, own, b, n, sources, count, labels, scores):
    """``labels [k, B, T]`` from those at which ``sources [T, k]`` point; the scores, and the labellings by them."""
    rows = np.zeros((4, count), np.int64)
    pointers, before, raw, order = rows[0], rows[1], rows[2], rows[3]
    sums, losses = np.zeros((count, 2)), np.empty(count)
    for h in range(count):
        pointers[h] = h
    for t in range(n):
        for h in range(count):
            raw[h] = labels[h, b, t]
        for h in range(count):
            label = raw[pointers[h]]
            exact_sum(sums, h, np.float64(node[b, t, label]))
            if t:
                exact_sum(sums, h, np.float64(edge[own, t - 1 if edge.shape[1] > 1 else 0, before[h], label]))
            labels[h, b, t] = before[h] = label
            pointers[h] = sources[t, pointers[h]]
    for h in range(count):
        losses[h] = -(sums[h, 0] + sums[h, 1])
    sort(losses, count, order, raw)
    for h in range(count):
        scores[h, b] = -losses[order[h]]
    for h in range(1, count):
        if order[h] < order[h - 1]:  # losses and scores are rounded differently
            rearrange(labels, b, n, order, raw)
            break


@helper(fastmath=FLAGS)
def rearrange(labels, b, n, order, raw):
    """``labels[:, b, :n]`` in another order."""
    for t in range(n):
        for h in range(len(order)):
            raw[h] = labels[h, b, t]
        for h in range(len(order)):
            labels[h, b, t] = raw[order[h]]


@kernel(fastmath=FLAGS)
def run(first, last, chains, block, labels, scores):
    """Of sequences first … last − 1: ``labels int64 [k, B, T]``, −100 beyond, and float64 ``scores [k, B]``, written.

    What does not exist has −100 and −inf. α is kept of ``block`` steps at a time.
    """
    node, edge, lengths = chains
    T, size = node.shape[1:]
    k, several, rows = len(labels), edge.shape[1] > 1, TILE if len(edge) == 1 else 1
    table, into = table_of(size), table_of(size)
    message, offsets = rows_of(TILE, size), np.zeros((TILE, 2))
    kept = np.empty((rows, block, size))
    sources = np.empty((rows, T, k), np.int32)
    room = max(k, 1) * size
    order = np.empty((3, room), np.int64)
    candidates = np.empty(room), np.empty(room, np.int32), order[0], order[1], order[2]
    ends, losses, counts = np.zeros((rows, k), np.int64), np.zeros((rows, k)), np.zeros(rows, np.int64)
    seen, previous, stamp = np.zeros(size, np.int64), np.zeros(size, np.int64), 0
    for at in range(first, last, rows):
        count, own, longest = min(rows, last - at), at if len(edge) > 1 else 0, 0
        for b in range(at, at + count):
            longest = max(longest, lengths[b])
        if not several and (at == first or len(edge) > 1):
            lay(edge[own, 0], table)
            lay_transposed(edge[own, 0], into)
        tile = Tile(at, count, longest, False)
        before = forward_to_the_end(chains, tile, block, table, message, kept, offsets)
        blocks = (longest + block - 1) // block
        for c in range(blocks - 1, -1, -1):
            start, stop = c * block, min(longest, (c + 1) * block)
            if c < blocks - 1:
                forward(chains, tile, start, stop, Work(table, before[c], message), kept, offsets)
            for r in range(count):
                n = lengths[at + r]
                for t in range(min(n, stop) - 1, start - 1, -1):
                    if t == n - 1:
                        counts[r] = begin(kept[r, t - start], size, k, ends[r], losses[r], candidates, sources[r, t])
                    else:
                        if several:
                            for h in range(counts[r]):
                                copy(into[ends[r, h], :size], edge[own, t, :, ends[r, h]])
                        stamp += 1
                        endings, memo = Endings(ends[r], losses[r], candidates), Memo(seen, previous, stamp)
                        counts[r] = go_back(kept, r, t - start, into, size, k, counts[r], endings, sources[r, t], memo)
                    for h in range(counts[r]):
                        labels[h, at + r, t] = ends[r, h]
        for r in range(count):
            b = at + r
            n, found = lengths[b], counts[r] if lengths[b] else 1
            unroll(node, edge, own, b, n, sources[r], found, labels, scores)
            labels[:, b, n:] = IGNORE
            labels[found:, b] = IGNORE
            scores[found:, b] = -math.inf


def topk(chains: Chains, k: int) -> tuple[Tensor, Tensor]:
    """Labellings ``int64 [k, B, T]`` and float64 scores ``[k, B]``; −100 and −inf beyond the possible ones."""
    B, T, _ = chains.node.shape
    labels, scores = torch.empty(k, B, T, dtype=torch.int64), torch.empty(k, B, dtype=torch.float64)
    inputs = Inputs(*arrays(*with_a_table(chains)))
    outputs = block_of(chains), labels.numpy(), scores.numpy()
    parallel(run, partition(B, threads_for(chains.node.numel()), 4), inputs, *outputs)
    return labels, scores
