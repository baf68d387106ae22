"""Best dependency trees of any shape (Chu & Liu 1965; Edmonds 1967), in the O(N²) form of Tarjan for dense graphs.

A path grows backwards from a word: to its best head, to the best head of that, … It ends at the root, or at what is
known to hang under the root; where it meets itself, the cycle becomes one word, whose arcs in cost what they lose
against the arc of the cycle that they replace. At the end the cycles are opened again, each where an arc enters it.

Where one word may depend on the root, weights are pairs: how many arcs of the root (as few as can be), then scores.
A single arc remains wherever that is possible, without a search per root (compare Gabow & Tarjan 1984; Zmigrod,
Vieira & Cotterell 2020; Stanojević & Cohen 2021).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch

from lnz.ops.arborescence.cpu.eliminate import SHARED
from lnz.ops.arcs.records import Arcs, Trees
from lnz.ops.jit.cpu import helper, kernel
from lnz.ops.jit.threads import parallel, partition
from lnz.ops.jit.work import arrays

IGNORE = -100


class Graph(NamedTuple):
    """What is left of a sentence: words, and cycles in the place of one of their words. Nodes beyond N are cycles.

    Attributes:
        weight: of the best arc from place h into place d ``[d, h]``.
        roots: minus the number of root's arcs in it, ``int32 [d, h]``.
        dependent: the word that this arc enters, ``int32 [d, h]``.
        head: the word that it comes from.
        alive: whether a place is still one.
        node: which node is at a place, ``[M]``.
        entry: per node, the arc chosen into it, ``[2 M, 2]``: dependent and head.
        above: per node, the cycle that it became part of; −1.
        path: places, ``[M]``.
        at: where on the path a place is; −1 elsewhere, −2 once it is known to hang under the root.
        chosen: the place of the best head of each place of the path.
    """

    weight: Any
    roots: Any
    dependent: Any
    head: Any
    alive: Any
    node: Any
    entry: Any
    above: Any
    path: Any
    at: Any
    chosen: Any


@helper()
def room(M):
    return Graph(
        np.empty((M, M)), np.empty((M, M), np.int32), np.empty((M, M), np.int32), np.empty((M, M), np.int32),
        np.empty(M, np.bool_), np.empty(M, np.int64), np.empty((2 * M, 2), np.int64), np.empty(2 * M, np.int64),
        np.empty(M, np.int64), np.empty(M, np.int64), np.empty(M, np.int64),
    )  # fmt: skip


@helper()
def begin(g, scores, n, single_root):
    """A place for each word."""
    for d in range(n + 1):
        for h in range(n + 1):
            g.weight[d, h] = scores[d, h] if d > 0 and d != h else -math.inf
            g.roots[d, h] = -1 if single_root and h == 0 else 0
            g.dependent[d, h], g.head[d, h] = d, h
        g.alive[d], g.node[d], g.at[d] = True, d, -1
    g.at[0] = -2
    for node in range(2 * n + 2):
        g.above[node] = -1


@helper()
def best_head(g, d, n):
    """The place of the best head of place d; −1 if there is none."""
    best, weight, roots = -1, -math.inf, 0
    for h in range(n + 1):
        if g.alive[h] and h != d and g.weight[d, h] > -math.inf:
            more = best < 0 or g.roots[d, h] > roots
            if more or (g.roots[d, h] == roots and g.weight[d, h] > weight):
                best, weight, roots = h, g.weight[d, h], g.roots[d, h]
    return best


@helper()
def join(g, first, last, made, n):
    """Make one place, that of ``path[first]``, of the cycle ``path[first … last]``; it is node ``made``."""
    place = g.path[first]
    for x in range(n + 1):
        if not g.alive[x] or g.at[x] >= first:
            continue
        into, out_of, into_weight, out_weight = -1, -1, -math.inf, -math.inf
        into_roots, out_roots = 0, 0
        for step in range(first, last + 1):
            c = g.path[step]
            weight = g.weight[c, x] - g.weight[c, g.chosen[step]]
            roots = g.roots[c, x] - g.roots[c, g.chosen[step]]
            if g.weight[c, x] > -math.inf and (
                into < 0 or roots > into_roots or (roots == into_roots and weight > into_weight)
            ):
                into, into_weight, into_roots = c, weight, roots
            weight, roots = g.weight[x, c], g.roots[x, c]
            if weight > -math.inf and (out_of < 0 or roots > out_roots or (roots == out_roots and weight > out_weight)):
                out_of, out_weight, out_roots = c, weight, roots
        # the row and the column of ``place`` are read no more for x
        g.weight[place, x], g.roots[place, x] = into_weight, into_roots
        if into >= 0:
            g.dependent[place, x], g.head[place, x] = g.dependent[into, x], g.head[into, x]
        g.weight[x, place], g.roots[x, place] = out_weight, out_roots
        if out_of >= 0:
            g.dependent[x, place], g.head[x, place] = g.dependent[x, out_of], g.head[x, out_of]
    for step in range(first, last + 1):
        c = g.path[step]
        g.above[g.node[c]] = made
        g.alive[c] = c == place
        g.at[c] = -1
    g.node[place] = made


@helper()
def grow(g, n):
    """Choose an arc into every node; how many nodes there are, or −1 where a word cannot hang under the root."""
    made = n + 1
    for start in range(1, n + 1):
        if not g.alive[start] or g.at[start] == -2:
            continue
        g.path[0], g.at[start], length = start, 0, 1
        while length:
            d = g.path[length - 1]
            h = best_head(g, d, n)
            if h < 0:
                return -1
            g.chosen[length - 1] = h
            g.entry[g.node[d], 0], g.entry[g.node[d], 1] = g.dependent[d, h], g.head[d, h]
            if g.at[h] == -2:
                for step in range(length):
                    g.at[g.path[step]] = -2
                length = 0
            elif g.at[h] >= 0:
                first = g.at[h]
                join(g, first, length - 1, made, n)
                made, length = made + 1, first + 1
                g.at[h] = first
            else:
                g.path[length], g.at[h] = h, length
                length += 1
    return made


@helper()
def open_cycles(g, made, n, heads):
    """Write ``heads``, the last cycle first: where an arc enters a cycle, it takes the place of one of its arcs."""
    for cycle in range(made - 1, n, -1):
        node = g.entry[cycle, 0]
        while g.above[node] != cycle:
            node = g.above[node]
        g.entry[node, 0], g.entry[node, 1] = g.entry[cycle, 0], g.entry[cycle, 1]
    for word in range(1, n + 1):
        heads[g.entry[word, 0]] = g.entry[word, 1]


@kernel()
def run(first, last, scores, lengths, single_root, heads, best):
    """Sentences first … last − 1: ``heads int64 [B, N + 1]`` and float64 ``best [B]``, written."""
    g = room(scores.shape[1])
    for b in range(first, last):
        n = lengths[b]
        begin(g, scores[b], n, single_root)
        made = grow(g, n)
        heads[b] = IGNORE
        best[b] = -math.inf
        if made < 0:
            continue
        open_cycles(g, made, n, heads[b])
        total, roots = 0.0, 0
        for word in range(1, n + 1):
            total += scores[b, word, heads[b, word]]
            roots += heads[b, word] == 0
        if single_root and n and roots != 1:
            heads[b] = IGNORE
        else:
            best[b], heads[b, 0] = total, 0


def best_tree(arcs: Arcs) -> Trees:
    """The best trees; O(N²) time."""
    B, M, _ = arcs.scores.shape
    heads, best = torch.empty(B, M, dtype=torch.int64), torch.empty(B, dtype=torch.float64)
    threads = torch.get_num_threads() if arcs.scores.numel() >= SHARED else 1
    given = arrays(arcs.scores.double(), arcs.lengths)
    parallel(run, partition(B, threads), *given, arcs.single_root, heads.numpy(), best.numpy())
    return Trees(heads, best)
