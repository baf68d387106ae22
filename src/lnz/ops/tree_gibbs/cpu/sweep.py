"""The joint draw of all nodes of a forest given the rest: filtering towards the roots, drawing away from them."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from lnz.ops.jit.cpu import helper, kernel
from lnz.ops.jit.cpu.philox import U64, philox4x32, uniform53
from lnz.ops.jit.cpu.rows import copy, longest
from lnz.ops.tree_gibbs.cpu.forest import grow

SHUFFLE, DRAW = 0, 1  # what random numbers are for: the second word of their counters


class Forest(NamedTuple):
    """A forest, and what filtering leaves of it.

    Attributes:
        parent: ``int64 [N]`` as :func:`.forest.grow` has it.
        sequence: ``int64 [M]``, its nodes, parents before their children.
        values: β times the scores of each node alone, and what its children say of it, as labels lie.
        pairs: from ``node · size`` on, β times what joins a node to its parent, the parent's labels in rows.
        size: room for the labels of any two nodes.
    """

    parent: Any
    sequence: Any
    values: Any
    pairs: Any
    size: int


class Key(NamedTuple):
    """Of the random numbers of a step: the key ``uint64 [2]``, the number of the chain, that of the step."""

    key: Any
    chain: int
    step: int


@helper()
def uniform(key, purpose, place):
    """In [0, 1), of 53 bits: a function of its arguments."""
    k0, k1 = key.key[0], key.key[1]
    high, low, _, _ = philox4x32(U64(place), U64(purpose), U64(key.chain), U64(key.step), k0, k1)
    return uniform53(high, low)


@helper()
def total(values, first, pairs, row, card):
    """ln Σ_x exp(values[first + x] + pairs[row + x])."""
    top = -np.inf
    for x in range(card):
        top = max(top, values[first + x] + pairs[row + x])
    if top == -np.inf:
        return top
    z = 0.0
    for x in range(card):
        z += math.exp(values[first + x] + pairs[row + x] - top)
    return top + math.log(z)


@helper()
def drawn(values, first, card, mark):
    """A label in proportion to exp(values), by ``mark`` in [0, 1); −1 if none is possible. Overwrites the values."""
    top = -np.inf
    for x in range(card):
        top = max(top, values[first + x])
    if top == -np.inf:
        return -1
    z = 0.0
    for x in range(card):
        z += math.exp(values[first + x] - top)
        values[first + x] = z
    x = 0
    while values[first + x] <= mark * z:
        x += 1
    return x


@helper()
def collect(wiring, scores, labels, forest, beta):
    """Towards the roots: fill in ``values`` and ``pairs``."""
    parent, sequence, values, pairs, size = forest
    label_at, node_at, node_slots, factor_at, slot_node, slot_factor, _, slot_table, slot_stride, weight_of = wiring
    for node in sequence:
        for x in range(label_at[node], label_at[node + 1]):
            values[x] = 0.0
    for k in range(sequence.size - 1, -1, -1):
        node = sequence[k]
        mother, first, card = parent[node], label_at[node], label_at[node + 1] - label_at[node]
        rows = label_at[mother + 1] - label_at[mother] if mother >= 0 else 0
        own = node * size
        for x in range(card):
            values[first + x] += beta * scores.nodes[first + x]
        for x in range(rows * card):
            pairs[own + x] = 0.0
        for at in range(node_at[node], node_at[node + 1]):
            slot = node_slots[at]
            factor = slot_factor[slot]
            low, high = factor_at[factor], factor_at[factor + 1]
            row, stride, partner = slot_table[slot], slot_stride[slot], -1
            for s in range(low, high):
                if s != slot and parent[slot_node[s]] > -2:
                    partner = s
            if partner >= 0 and slot_node[partner] != mother:
                continue  # a child's
            step = card if high - low == 2 else slot_stride[partner]  # of the parent's labels
            if high - low == 2:
                stride = 1
                row += 0 if partner >= 0 else labels[slot_node[low + high - 1 - slot]] * card
            else:
                for s in range(low, high):
                    row += labels[slot_node[s]] * slot_stride[s] if s not in (slot, partner) else 0
            weight = beta * scores.weights[weight_of[factor]]
            if partner < 0:
                for x in range(card):
                    values[first + x] += weight * scores.tables[row + x * stride]
                continue
            for y in range(rows):
                for x in range(card):
                    pairs[own + y * card + x] += weight * scores.tables[row + y * step + x * stride]
        for y in range(rows):
            values[label_at[mother] + y] += total(values, first, pairs, own + y * card, card)


@helper()
def redraw(wiring, scores, labels, forest, beta, key):
    """Draw the nodes of a forest given the rest. A node none of whose labels is possible keeps the one it has."""
    label_at = wiring.label_at
    parent, sequence, values, pairs, size = forest
    collect(wiring, scores, labels, forest, beta)
    for node in sequence:
        mother, first, card = parent[node], label_at[node], label_at[node + 1] - label_at[node]
        if mother >= 0:
            for x in range(card):
                values[first + x] += pairs[node * size + labels[mother] * card + x]
        label = drawn(values, first, card, uniform(key, DRAW, node))
        if label >= 0:
            labels[node] = label


@kernel()
def redraw_forests(wiring, scores, labels, candidates, ends, fixed, temperatures, key, chain):
    """One forest after the other, each redrawn at the next temperature; ``labels`` move in place.

    Args:
        wiring: of the layout.
        scores: of the layout, those of one batch entry.
        labels: ``int64 [N]``.
        candidates: ``int64 [M]``, the nodes that forests are grown from, block by block.
        ends: ``int64 [K]``, where blocks end in ``candidates``; they take turns.
        fixed: whether blocks are forests already; else each time one is grown from its nodes in an order drawn anew.
        temperatures: ``float64 [S]``, positive.
        key: ``uint64 [2]``, of the random numbers.
        chain: the number of the chain, for its random numbers.
    """
    label_at, factor_at = wiring.label_at, wiring.factor_at
    size = longest(label_at) ** 2
    above, parent = np.empty(labels.size, np.int64), np.empty(labels.size, np.int64)
    held, met = np.empty(factor_at.size - 1, np.int64), np.empty((2, labels.size), np.int64)
    values, pairs = np.empty(label_at[-1]), np.empty(labels.size * size)
    nodes, sequence = np.empty(candidates.size, np.int64), np.empty(labels.size, np.int64)
    copy(nodes, candidates)
    for step in range(temperatures.size):
        block, now = step % ends.size, Key(key, chain, step)
        start, end = ends[block - 1] if block else 0, ends[block]
        if not fixed:
            for i in range(end - start - 1, 0, -1):  # Fisher and Yates
                j = int(uniform(now, SHUFFLE, i) * (i + 1))
                nodes[start + i], nodes[start + j] = nodes[start + j], nodes[start + i]
        count = grow(wiring, nodes[start:end], above, held, met, parent, sequence)
        forest = Forest(parent, sequence[:count], values, pairs, size)
        redraw(wiring, scores, labels, forest, 1.0 / temperatures[step], now)
