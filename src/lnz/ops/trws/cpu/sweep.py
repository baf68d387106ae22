"""One pass of sequential message passing over a model laid out flat (:mod:`lnz.ops.layout`).

``lent[slot_at[s] :]`` is what the node of slot s has lent to the table of its factor, per label; −inf at labels that
cannot be part of any possible labelling. See :mod:`lnz.ops.trws.reference` for what is computed.
"""

from __future__ import annotations

import numpy as np

from lnz.ops.jit.cpu import helper, kernel
from lnz.ops.jit.cpu.memory import address
from lnz.ops.trws.cpu.pairs import Factor, give, receive, top_of

FLAGS = {"nnan", "nsz"}  # infinities, but never NaN


@helper(fastmath=FLAGS)
def more(a, b):
    return b if b > a else a


@helper(fastmath=FLAGS)
def collect_any(found, own, table, strides, starts, lent, weight, state, held):
    """The same for any number of nodes: the most with slot ``own`` at each label.

    Slots that are ``held`` stay at their label in ``state`` and count nothing, the others count with what was lent.
    """
    row = 0
    for k in range(strides.size):
        if not held[k]:
            state[k] = 0
        row += state[k] * strides[k]
    found[:] = -np.inf
    while True:
        value = weight * table[row]
        for k in range(strides.size):
            if not held[k] and k != own:
                value += lent[starts[k] + state[k]]
        found[state[own]] = more(found[state[own]], value)
        k = strides.size - 1
        while k >= 0:  # the next joint label
            if not held[k]:
                state[k] += 1
                row += strides[k]
                if state[k] < starts[k + 1] - starts[k]:
                    break
                row -= state[k] * strides[k]
                state[k] = 0
            k -= 1
        if k < 0:
            return


@kernel(fastmath=FLAGS)
def sweep(wiring, scores, nodes, forward, lent, labels):
    """Visit ``nodes`` in order: collect what factors offer, choose a label, lend to the factors of later nodes.

    Returns the bound that these nodes contribute, and the score of the labels chosen in the factors whose last node
    is among them. ``forward`` says whether factors meet their nodes in the order of their slots or in reverse.
    """
    label_at, node_at, node_slots, factor_at, slot_node, slot_factor, slot_at, slot_table, slot_stride, weight_of = (
        wiring
    )
    tables, weights = scores.tables, scores.weights
    widest = longest = 1
    for node in nodes:
        widest = max(widest, label_at[node + 1] - label_at[node])
    for factor in range(factor_at.size - 1):
        longest = max(longest, factor_at[factor + 1] - factor_at[factor])
    belief_of, choice_of, found_of = np.empty(widest), np.empty(widest), np.empty(widest)
    state_of, held_of = np.zeros(longest, dtype=np.int64), np.zeros(longest, dtype=np.bool_)
    beliefs, choices = address(belief_of, 0), address(choice_of, 0)
    bound = score = 0.0
    for node in nodes:
        start, card = label_at[node], label_at[node + 1] - label_at[node]
        belief, choice = belief_of, choice_of
        for x in range(card):
            belief[x] = choice[x] = scores.nodes[start + x]
        arriving = leaving = 0
        for at in range(node_at[node], node_at[node + 1]):
            slot = node_slots[at]
            factor = slot_factor[slot]
            low, arity = factor_at[factor], factor_at[factor + 1] - factor_at[factor]
            own = slot - low
            place = own if forward else arity - 1 - own
            leaving += place < arity - 1
            mine = slot_at[slot]
            if place == 0:  # nobody has lent since this was last collected
                for x in range(card):
                    offered = -lent[mine + x] if lent[mine + x] > -np.inf else -np.inf
                    belief[x] += offered
                    choice[x] += offered
                continue
            arriving += 1
            weight = weights[weight_of[factor]]
            if arity == 2:
                other = low + 1 - own
                begin, present = slot_at[other], labels[slot_node[other]]
                lender, table = address(lent, begin), address(tables, slot_table[slot])
                shown = Factor(table, present, weight, lender, slot_at[other + 1] - begin)
                receive(beliefs, choices, address(lent, mine), card, shown)
                continue
            found = found_of[:card]
            state, held = state_of[:arity], held_of[:arity]
            strides, starts = slot_stride[low : low + arity], slot_at[low : low + arity + 1]
            table = slot_table[low]
            for k in range(arity):
                held[k] = k < own if forward else k > own
                state[k] = labels[slot_node[low + k]] if held[k] else 0
            collect_any(found, own, tables[table:], strides, starts, lent, weight, state, held)
            for x in range(card):
                choice[x] += found[x]
            held[:] = False
            collect_any(found, own, tables[table:], strides, starts, lent, weight, state, held)
            for x in range(card):
                belief[x] += found[x]
                lent[mine + x] = -found[x] if found[x] > -np.inf else -np.inf
        top, best_choice = top_of(beliefs, card), top_of(choices, card)
        if top == -np.inf:
            return -np.inf, -np.inf
        best = 0
        if best_choice > -np.inf:
            while choice[best] < best_choice:
                best += 1
        else:  # a dead end: go on with what the messages say
            while belief[best] < top:
                best += 1
        labels[node] = best
        bound += top
        score += scores.nodes[start + best]
        share = 1.0 / max(arriving, leaving, 1)
        for at in range(node_at[node], node_at[node + 1]):
            slot = node_slots[at]
            factor = slot_factor[slot]
            low, high = factor_at[factor], factor_at[factor + 1]
            if slot != (high - 1 if forward else low):
                give(address(lent, slot_at[slot]), beliefs, card, share, top)
                continue
            row = slot_table[low]
            if high - low == 2:
                row += labels[slot_node[low + 1]] * (slot_at[low + 1] - slot_at[low]) + labels[slot_node[low]]
            else:
                for s in range(low, high):
                    row += labels[slot_node[s]] * slot_stride[s]
            score += weights[weight_of[factor]] * tables[row]
    return bound, score
