"""Induced forests of a model laid out flat (:mod:`lnz.ops.layout`), grown node by node.

A node joins where it closes no cycle and no factor comes to hold three nodes of the forest; nodes left out stay fixed,
so that every factor scores one node of the forest or joins two.
"""

from __future__ import annotations

from lnz.ops.jit.cpu import helper


@helper()
def root_of(above, node):
    """The node that stands for a tree."""
    while above[node] != node:
        above[node] = above[above[node]]
        node = above[node]
    return node


@helper()
def grow(wiring, candidates, above, held, met, parent, sequence):
    """Take, in order, each of ``candidates`` that fits; returns how many were taken.

    In the end ``sequence`` has the nodes taken, parents before their children, and ``parent[n]`` is −1 at roots and −2
    at nodes left out. ``above [N]``, ``held [F]`` and ``met [2, N]`` are room to work in: the trees that nodes are in,
    how many nodes of each factor were taken, and the last candidate that met a node, or a tree.
    """
    _, node_at, node_slots, factor_at, slot_node, slot_factor, _, _, _, _ = wiring
    above[:], held[:], met[:], parent[:] = -1, 0, -1, -2
    for node in candidates:
        fits = True
        for at in range(node_at[node], node_at[node + 1]):
            factor = slot_factor[node_slots[at]]
            if not fits or held[factor] == 2:
                fits = False
                break
            if held[factor] == 1:
                for s in range(factor_at[factor], factor_at[factor + 1]):
                    other = slot_node[s]
                    if above[other] >= 0 and met[0, other] != node:
                        met[0, other] = node
                        root = root_of(above, other)
                        fits = fits and met[1, root] != node
                        met[1, root] = node
        if not fits:
            continue
        above[node] = node
        for at in range(node_at[node], node_at[node + 1]):
            factor = slot_factor[node_slots[at]]
            held[factor] += 1
            if held[factor] == 2:
                for s in range(factor_at[factor], factor_at[factor + 1]):
                    if above[slot_node[s]] >= 0:
                        above[root_of(above, slot_node[s])] = node
    count = ahead = 0
    for start in candidates:
        if above[start] < 0 or parent[start] > -2:
            continue
        parent[start], sequence[count] = -1, start
        count += 1
        while ahead < count:
            node = sequence[ahead]
            ahead += 1
            for at in range(node_at[node], node_at[node + 1]):
                factor = slot_factor[node_slots[at]]
                if held[factor] < 2:
                    continue
                for s in range(factor_at[factor], factor_at[factor + 1]):
                    other = slot_node[s]
                    if above[other] >= 0 and parent[other] == -2:
                        parent[other], sequence[count] = node, other
                        count += 1
    return count
