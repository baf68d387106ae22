"""Fields: what each label of each node would score given all others, over a model laid out flat.

They are kept up to date. A node that changes its label adds the difference to the fields around it, which takes its
factors' labels; a node that stays takes a look at its own. While it is cold few change.
"""

from __future__ import annotations

import math

from lnz.ops.jit.cpu import helper
from lnz.ops.jit.cpu.philox import U64, philox4x32, uniform53

FROZEN = 40.0
"""A label whose score is this many temperatures lower is never drawn: e⁻⁴⁰ is less than one draw in 10¹⁷."""


@helper()
def fill_fields(wiring, scores, labels, fields):
    """Write ``fields`` of all nodes, and return the score but for the constant."""
    label_at, _, _, factor_at, slot_node, slot_factor, _, _, _, factor_weight = wiring
    fields[:] = scores.nodes
    total = 0.0
    for node in range(labels.size):
        total += scores.nodes[label_at[node] + labels[node]]
    for slot in range(slot_node.size):
        node, factor = slot_node[slot], slot_factor[slot]
        row, stride, _ = row_of(wiring, slot, slot, labels)
        weight = scores.weights[factor_weight[factor]]
        for x in range(label_at[node + 1] - label_at[node]):
            fields[label_at[node] + x] += weight * scores.tables[row + x * stride]
        if slot == factor_at[factor]:
            total += weight * scores.tables[row + labels[node] * stride]
    return total


@helper()
def row_of(wiring, slot, moving, labels):
    """Where in the tables the scores of a slot's labels begin given the others, and how far apart they lie.

    The third result is how far that beginning moves for each label that another slot of the factor, ``moving``, gains.
    """
    label_at, _, _, factor_at, slot_node, slot_factor, _, slot_table, slot_stride, _ = wiring
    factor, row = slot_factor[slot], slot_table[slot]
    low, high = factor_at[factor], factor_at[factor + 1]
    if high - low == 2:
        node = slot_node[slot]
        size = label_at[node + 1] - label_at[node]
        return row + labels[slot_node[low + high - 1 - slot]] * size, 1, size
    for s in range(low, high):
        if s != slot:
            row += labels[slot_node[s]] * slot_stride[s]
    return row, slot_stride[slot], slot_stride[moving]


@helper()
def set_label(wiring, scores, node, label, labels, fields):
    """Give a node a label, bring the fields around it up to date, and return what the score gains."""
    label_at, node_at, node_slots, factor_at, slot_node, slot_factor, _, _, _, factor_weight = wiring
    gain = fields[label_at[node] + label] - fields[label_at[node] + labels[node]]
    for at in range(node_at[node], node_at[node + 1]):
        own = node_slots[at]
        factor = slot_factor[own]
        weight = scores.weights[factor_weight[factor]]
        for slot in range(factor_at[factor], factor_at[factor + 1]):
            if slot != own:
                other = slot_node[slot]
                old, stride, step = row_of(wiring, slot, own, labels)
                new = old + (label - labels[node]) * step
                for x in range(label_at[other + 1] - label_at[other]):
                    change = scores.tables[new + x * stride] - scores.tables[old + x * stride]
                    fields[label_at[other] + x] += weight * change
    labels[node] = label
    return gain


@helper()
def sweep(wiring, scores, temperature, labels, fields, counter, key):
    """Draw every node given all others by the random numbers at (node, counter); return what the score gains."""
    label_at, total = wiring[0], 0.0
    for node in range(labels.size):
        field, label = fields[label_at[node] : label_at[node + 1]], labels[node]
        if not _frozen(field, label, FROZEN * temperature):
            words = philox4x32(U64(node), counter[0], counter[1], counter[2], key[0], key[1])
            drawn = _draw(field, label, temperature, uniform53(words[0], words[1]))
            if drawn != label:
                total += set_label(wiring, scores, node, drawn, labels, fields)
    return total


@helper()
def _frozen(field, label, limit):
    """Whether every other label is lower than this one by more than ``limit``."""
    above, least = 0, field[label] - limit
    for x in range(field.size):
        above += field[x] > least
    return above <= 1


@helper()
def _draw(field, label, temperature, uniform):
    """A label of the softmax of ``field / temperature``, given a uniform number."""
    top = field[0]
    for x in range(1, field.size):
        top = max(top, field[x])
    total = 0.0
    for x in range(field.size):
        total += math.exp((field[x] - top) / temperature)
    left = uniform * total
    for x in range(field.size):
        weight = math.exp((field[x] - top) / temperature)
        if left < weight:
            return x
        left -= weight
    return label  # what rounding leaves
