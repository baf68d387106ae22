"""Parallel tempering of one batch entry by one run; see ``reference.py``."""

from __future__ import annotations

import math

import numpy as np

from lnz.ops.annealing.cpu.fields import fill_fields, set_label, sweep
from lnz.ops.annealing.reference import EVERY
from lnz.ops.jit.cpu import helper, kernel
from lnz.ops.jit.cpu.philox import U64, philox4x32, uniform53

SWEEP, CLUSTER, EXCHANGE = U64(0), U64(1), U64(2)
"""What random numbers are for."""


@helper()
def find_cluster(wiring, start, one, two, seen, mark, nodes):
    """Write the nodes that factors connect with ``start`` through nodes where two labellings differ; how many.

    Nodes are in the cluster, or in one before, where ``seen`` is ``mark``.
    """
    _, node_at, node_slots, factor_at, slot_node, slot_factor, _, _, _, _ = wiring
    size, done = 1, 0
    nodes[0], seen[start] = start, mark
    while done < size:
        node = nodes[done]
        done += 1
        for at in range(node_at[node], node_at[node + 1]):
            factor = slot_factor[node_slots[at]]
            for slot in range(factor_at[factor], factor_at[factor + 1]):
                other = slot_node[slot]
                if seen[other] != mark and one[other] != two[other]:
                    nodes[size], seen[other] = other, mark
                    size += 1
    return size


@helper()
def move_cluster(wiring, scores, pair, fields, totals, seen, mark, nodes, start):
    """Exchange the cluster around ``start`` between the labellings of a pair, unless it is most of them."""
    one, two = pair
    if one[start] == two[start]:
        return
    size = find_cluster(wiring, start, one, two, seen, mark, nodes)
    if size <= one.size // 2:
        for i in range(size):
            node = nodes[i]
            first, second = one[node], two[node]
            totals[0] += set_label(wiring, scores, node, second, one, fields[0])
            totals[1] += set_label(wiring, scores, node, first, two, fields[1])


@helper()
def take_over(wiring, scores, labels, best, fields, seen, mark, nodes, before):
    """Give ``best`` every cluster of ``labels`` that makes it better; ``before [N]`` is scratch."""
    for start in range(best.size):
        if labels[start] == best[start] or seen[start] == mark:
            continue
        size, gain = find_cluster(wiring, start, labels, best, seen, mark, nodes), 0.0
        for i in range(size):
            before[i] = best[nodes[i]]
            gain += set_label(wiring, scores, nodes[i], labels[nodes[i]], best, fields)
        if gain <= 0:
            for i in range(size):
                set_label(wiring, scores, nodes[i], before[i], best, fields)


@kernel()
def run(wiring, scores, temperatures, sweeps, number, key, states, best):
    """Make ``sweeps`` rounds of run ``number``; ``states [2, R, N]``, by temperature, and ``best [N]`` are written."""
    (_, R, N), size = states.shape, scores.nodes.size
    fields, best_fields, totals = np.empty((2, R, size)), np.empty(size), np.empty((2, R))
    at = np.empty((2, R), np.int64)  # which replica of a row has a temperature
    seen, mark, nodes, before = np.zeros(N, np.int64), 0, np.empty(N, np.int64), np.empty(N, np.int64)
    for h in range(2):
        for r in range(R):
            at[h, r] = r
            totals[h, r] = fill_fields(wiring, scores, states[h, r], fields[h, r])
    fill_fields(wiring, scores, best, best_fields)
    for t in range(1, sweeps + 1):
        now = U64(t)
        for r in range(R):
            for h in range(2):
                i, counter = at[h, r], (now, U64(2 * (number * R + r) + h), SWEEP)
                totals[h, i] += sweep(wiring, scores, temperatures[r], states[h, i], fields[h, i], counter, key)
        for r in range(R):
            words = philox4x32(U64(r), now, U64(number), CLUSTER, key[0], key[1])
            i, j, mark = at[0, r], at[1, r], mark + 1
            sums = np.array([totals[0, i], totals[1, j]])
            pair, around = (states[0, i], states[1, j]), (fields[0, i], fields[1, j])
            start = int(uniform53(words[0], words[1]) * N)
            move_cluster(wiring, scores, pair, around, sums, seen, mark, nodes, start)
            totals[0, i], totals[1, j] = sums[0], sums[1]
        for h in range(2):
            for r in range(R - 1):
                i, j = at[h, r], at[h, r + 1]
                words = philox4x32(U64(2 * r + h), now, U64(number), EXCHANGE, key[0], key[1])
                gain = (1 / temperatures[r] - 1 / temperatures[r + 1]) * (totals[h, j] - totals[h, i])
                if gain >= 0 or uniform53(words[0], words[1]) < math.exp(gain):
                    at[h, r], at[h, r + 1] = j, i
        if t % EVERY == 0:
            for r in range(R):
                for h in range(2):
                    mark += 1
                    take_over(wiring, scores, states[h, at[h, r]], best, best_fields, seen, mark, nodes, before)
    moved = states.copy()
    for h in range(2):
        for r in range(R):
            states[h, r] = moved[h, at[h, r]]
