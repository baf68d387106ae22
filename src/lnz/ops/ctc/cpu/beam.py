"""Prefix beam search of a range of sequences, the same as :mod:`lnz.ops.ctc.beam` without a language model.

A prefix is a node of a tree, of which label and parent are kept, so that a frame costs no copy of prefixes. Candidates
are looked at only where they can still enter the beam.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from lnz.ops.jit.cpu import kernel
from lnz.ops.jit.cpu.rows import FLAGS, fill

IGNORE = -100
FACTOR, ADDED = 6364136223846793005, 1442695040888963407  # of a generator modulo 2⁶⁴ (Knuth), to hash prefixes


class Beam(NamedTuple):
    """Up to K prefixes, best first.

    Attributes:
        places: ``int64 [K, 4]``: the node of a prefix, its last label (−1 for none), its hash, that of its parent.
        ends: ``[K, 2]``, ln of the probability of the alignments so far that end in a blank, and in the last label.
    """

    places: np.ndarray
    ends: np.ndarray


NODE, LAST, NAME, PARENT = 0, 1, 2, 3


@njit
def _new(K):
    return Beam(np.empty((K, 4), np.int64), np.empty((K, 2)))


@njit(fastmath=FLAGS)
def _plus(a, b):
    """ln (e^a + e^b)."""
    high, low = (a, b) if a > b else (b, a)
    return high if low == -math.inf else high + math.log1p(math.exp(low - high))


@njit(fastmath=FLAGS)
def _insert(best, chosen, count, score, source, label):
    """Into the first ``count`` of ``best``, sorted, behind its equals; returns how many there are then."""
    k = min(count, best.size - 1)
    while k > 0 and best[k - 1] < score:
        best[k], chosen[k, 0], chosen[k, 1] = best[k - 1], chosen[k - 1, 0], chosen[k - 1, 1]
        k -= 1
    best[k], chosen[k, 0], chosen[k, 1] = score, source, label
    return min(count + 1, best.size)


@njit(fastmath=FLAGS)
def _stay(beam, count, frame, blank, collapse, stay, total, taken):
    """What prefixes that do not grow get, ``stay`` as ``ends``; and ``taken``, which longer ones are in the beam."""
    for i in range(count):
        total[i] = _plus(beam.ends[i, 0], beam.ends[i, 1])
        last = beam.places[i, LAST]
        stay[i, 0] = total[i] + frame[blank] if blank >= 0 else -math.inf
        stay[i, 1] = beam.ends[i, 1] + frame[last] if collapse and last >= 0 else -math.inf
    for j in range(count):
        last, taken[j] = beam.places[j, LAST], -1
        for i in range(count):
            if last >= 0 and beam.places[i, NAME] == beam.places[j, PARENT]:
                taken[j] = i
                come = beam.ends[i, 0] if collapse and beam.places[i, LAST] == last else total[i]
                stay[j, 1] = _plus(stay[j, 1], come + frame[last])


@njit(fastmath=FLAGS)
def _choose(beam, count, frame, blank, collapse, stay, total, taken, best, chosen):
    """The best candidates, their source and label (−1: the prefix stays as it is); returns how many there are."""
    found, top = 0, frame.max()
    for i in range(count):
        score = _plus(stay[i, 0], stay[i, 1])
        if score > -math.inf and (found < best.size or score > best[found - 1]):
            found = _insert(best, chosen, found, score, i, -1)
    for i in range(count):
        last = beam.places[i, LAST] if collapse else -1
        if found == best.size and not total[i] + top > best[found - 1]:
            continue
        for c in range(frame.size):
            score = (beam.ends[i, 0] if c == last else total[i]) + frame[c]
            if c == blank or score == -math.inf or (found == best.size and not score > best[found - 1]):
                continue
            there = False
            for j in range(count):
                there |= taken[j] == i and beam.places[j, LAST] == c
            if not there:
                found = _insert(best, chosen, found, score, i, c)
    return found


@kernel(fastmath=FLAGS)
def search(x, lengths, beam, blank, collapse, first, last, labels, sizes, scores):
    """Log-probabilities ``[B, T, C]`` to prefixes ``[B, K, T]``, −100 beyond their ``sizes`` ``[B, K]``, and scores.

    K = ``beam``; −inf where fewer are possible.
    """
    T, K = x.shape[1], beam
    tree = np.empty((T * K + 1, 2), np.int64)  # parent and label of nodes
    old, new, stay, total = _new(K), _new(K), np.empty((K, 2)), np.empty(K)
    taken, best, chosen = np.empty(K, np.int64), np.empty(K), np.empty((K, 2), np.int64)
    for b in range(first, last):
        count, nodes = 1, 1
        old.places[0, NODE], old.places[0, LAST], old.places[0, NAME], old.places[0, PARENT] = 0, -1, 0, -1
        old.ends[0, 0], old.ends[0, 1], best[0] = 0.0, -math.inf, 0.0
        for t in range(lengths[b]):
            frame = x[b, t]
            _stay(old, count, frame, blank, collapse, stay, total, taken)
            found = _choose(old, count, frame, blank, collapse, stay, total, taken, best, chosen)
            for k in range(found):
                i, c = chosen[k]
                new.places[k], new.ends[k] = old.places[i], stay[i]
                if c >= 0:
                    tree[nodes, 0], tree[nodes, 1] = old.places[i, NODE], c
                    new.places[k, NODE], new.places[k, LAST], new.places[k, PARENT] = nodes, c, old.places[i, NAME]
                    new.places[k, NAME] = old.places[i, NAME] * FACTOR + c + ADDED
                    new.ends[k, 0], new.ends[k, 1], nodes = -math.inf, best[k], nodes + 1
            count, old, new = found, new, old
        for k in range(K):
            fill(labels[b, k], IGNORE)
            scores[b, k], sizes[b, k] = -math.inf, 0
            if k >= count:
                continue
            scores[b, k], node = best[k], old.places[k, NODE]
            while node > 0:
                sizes[b, k], node = sizes[b, k] + 1, tree[node, 0]
            node = old.places[k, NODE]
            for u in range(sizes[b, k] - 1, -1, -1):
                labels[b, k, u], node = tree[node, 1], tree[node, 0]
