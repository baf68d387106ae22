"""Variable elimination in Numba, one row of scores at a time: what goes up and down the tree.

A clique's table is run through in blocks, held one at a time; :mod:`.layout` says where a block's entries lie in its
inputs. Inputs that are the same in all blocks are added up once. Where all tables together are small, those of the
upward pass are kept for the downward pass; otherwise it makes each block anew. :mod:`.sharing` says which thread does
what. Kernels take a layout by its addresses.
"""

from __future__ import annotations

import numpy as np

from lnz.ops.elimination.cpu.blocks import FLAGS, add, collect, column_maxima, sum_out
from lnz.ops.elimination.cpu.layout import CLIQUES, CONSTANTS, ENTRIES, INBOX, MESSAGES, ROOTS, WIDTH
from lnz.ops.elimination.cpu.tree import Below, Passed, Row, tree_at
from lnz.ops.jit.cpu import helper, kernel
from lnz.ops.jit.cpu.math import exp, log
from lnz.ops.jit.cpu.memory import address
from lnz.ops.jit.cpu.rows import clear


@helper(fastmath=FLAGS)
def _add_all(c, h, first, last, row, messages, tree, to):
    """Add inputs ``first`` to ``last`` of clique ``c`` to its block h."""
    for i in range(first, last):
        table, offset = tree.table[i], tree.offsets[tree.outer[i] + h]
        if table < 0:
            add(address(messages, tree.message[-1 - table] + offset), i, tree.summed[c], tree.lanes[c], tree, to)
        else:
            add(address(row.scores, row.base[table] + offset), i, tree.summed[c], tree.lanes[c], tree, to)


@kernel(fastmath=FLAGS)
def send(c, begin, end, row, passed, addresses, work, maximise):
    """The message of clique ``c`` for blocks ``begin`` to ``end``, to be centred when all are there."""
    tree, messages, keep = tree_at(addresses), passed.messages, len(passed.tables) > 0
    lanes, summed = tree.lanes[c], tree.summed[c]
    width, last = summed * lanes, tree.first[c + 1] if row.clamped else tree.own[c]
    common, block, shift, total = address(work, 0), address(work, 1), address(work, 2), address(work, 3)
    clear(common, width)
    _add_all(c, begin, tree.fixed[c], last, row, messages, tree, common)
    for h in range(begin, end):
        if keep:
            block = address(passed.tables, tree.entry[c] + h * width)
        for place in range(width):
            block[place] = common[place]
        _add_all(c, h, tree.first[c], tree.fixed[c], row, messages, tree, block)
        out = address(messages, tree.message[c] + h * lanes)
        if maximise:
            column_maxima(block, summed, lanes, out)
        else:
            sum_out(block, summed, lanes, out, shift, total, keep)


@kernel(fastmath=FLAGS)
def centre(c, messages, shifts, addresses):
    """Take the largest entry of a message away, and keep it in ``shifts``: messages stay as small as their range."""
    tree = tree_at(addresses)
    message, size = address(messages, tree.message[c]), tree.blocks[c] * tree.lanes[c]
    top = message[0]
    for l in range(size):
        top = message[l] if message[l] > top else top
    shifts[c] = 0.0
    if top > -np.inf:
        shifts[c] = top
        for l in range(size):
            message[l] -= top


@kernel(fastmath=FLAGS)
def receive(c, begin, end, row, passed, below, addresses, work):
    """Sum the marginal of clique ``c``, blocks ``begin`` to ``end``, down to its inputs.

    The clique's place in ``messages`` holds the marginal of its separator if tables are kept; otherwise the message
    less that marginal's logarithm, so that exp of the difference is the clique's marginal at once.
    """
    tree, messages, keep = tree_at(addresses), passed.messages, len(passed.tables) > 0
    lanes, summed = tree.lanes[c], tree.summed[c]
    width, last = summed * lanes, tree.first[c + 1] if row.clamped else tree.own[c]
    common, block, sums = address(work, 0), address(work, 1), address(work, 2)
    shift = work.dtype.type(passed.shifts[c])
    clear(sums, width)
    clear(address(below.inbox, 0), tree.received[c])
    if not keep:
        clear(common, width)
        _add_all(c, begin, tree.fixed[c], last, row, messages, tree, common)
    for h in range(begin, end):
        above = address(messages, tree.message[c] + h * lanes)
        if keep:
            block = address(passed.tables, tree.entry[c] + h * width)
        else:
            for place in range(width):
                block[place] = common[place]
            _add_all(c, h, tree.first[c], tree.fixed[c], row, messages, tree, block)
        for r in range(summed):
            line = address(block, r * lanes)
            if keep:
                for l in range(lanes):
                    line[l] *= above[l]
            else:
                for l in range(lanes):  # in the order in which the message was centred: what was equal cancels
                    line[l] = (line[l] - shift) - above[l]
        if not keep:
            for place in range(width):
                block[place] = exp(block[place])
        for place in range(width):
            sums[place] += block[place]
        _collect_all(c, h, tree.first[c], tree.fixed[c], block, row.base, below, tree)
    _collect_all(c, begin, tree.fixed[c], tree.first[c + 1], sums, row.base, below, tree)


@helper(fastmath=FLAGS)
def _collect_all(c, h, first, last, block, base, below, tree):
    """Add block h of clique ``c`` to its inputs ``first`` to ``last``."""
    for i in range(first, last):
        table, offset = tree.table[i], tree.offsets[tree.outer[i] + h]
        if table < 0:
            collect(block, address(below.inbox, tree.inbox[i] + offset), i, tree.summed[c], tree.lanes[c], tree)
        else:
            collect(block, address(below.marginals, base[table] + offset), i, tree.summed[c], tree.lanes[c], tree)


@kernel(fastmath=FLAGS)
def hand_down(c, thread, threads, inboxes, messages, addresses, keep):
    """Write what threads gathered for the children of ``c`` to the children's places in ``messages``."""
    tree = tree_at(addresses)
    for i in range(tree.first[c], tree.own[c]):
        child = -1 - tree.table[i]
        if child >= 0:
            size = tree.blocks[child] * tree.lanes[child]
            begin, end = size * thread // threads, size * (thread + 1) // threads
            belief, out = address(inboxes, (0, tree.inbox[i])), address(messages, tree.message[child])
            for other in range(1, threads):
                more = address(inboxes, (other, tree.inbox[i]))
                for l in range(begin, end):
                    belief[l] += more[l]
            if keep:
                for l in range(begin, end):
                    out[l] = belief[l]
            else:
                for l in range(begin, end):
                    out[l] = out[l] - log(belief[l]) if belief[l] > 0.0 else np.inf


@helper(fastmath=FLAGS)
def _upward(row, passed, addresses, work, maximise):
    """Fill in all messages."""
    tree = tree_at(addresses)
    for c in range(tree.sizes[CLIQUES]):
        send(c, 0, tree.blocks[c], row, passed, addresses, work, maximise)
        centre(c, passed.messages, passed.shifts, addresses)


@kernel(fastmath=FLAGS)
def total(row, passed, addresses):
    """ln Z, or the best score, in float64: what the messages have given up, and what those of the roots still hold."""
    tree, result = tree_at(addresses), np.float64(0.0)
    for i in range(tree.sizes[CONSTANTS]):
        result += np.float64(row.scores[row.base[tree.constants[i]]])
    for c in range(tree.sizes[CLIQUES]):
        result += passed.shifts[c]
    for i in range(tree.sizes[ROOTS]):
        result += np.float64(passed.messages[tree.message[tree.roots[i]]])
    return result


@kernel(fastmath=FLAGS)
def begin_downward(row, passed, marginals, addresses):
    """Marginals of tables without a free node, and what the roots are told."""
    tree = tree_at(addresses)
    for i in range(tree.sizes[CONSTANTS]):
        marginals[row.base[tree.constants[i]]] = 1.0
    if len(passed.tables) > 0:
        for i in range(tree.sizes[ROOTS]):
            passed.messages[tree.message[tree.roots[i]]] = 1.0


@helper(fastmath=FLAGS)
def _downward(row, passed, inboxes, marginals, addresses, work):
    """The marginals of all tables of a row with Z > 0 after :func:`_upward`; ``marginals`` starts at 0."""
    tree, below, keep = tree_at(addresses), Below(inboxes[0], marginals), len(passed.tables) > 0
    begin_downward(row, passed, marginals, addresses)
    for c in range(tree.sizes[CLIQUES] - 1, -1, -1):
        receive(c, 0, tree.blocks[c], row, passed, below, addresses, work)
        hand_down(c, 0, 1, inboxes, passed.messages, addresses, keep)


@kernel(fastmath=FLAGS)
def rows(first, step, scores, base, value, out, addresses, keep, clamped):
    """Every ``step``-th row from ``first``: ln Z into ``value``, and the marginals into ``out`` if it has rows."""
    sizes, dtype = tree_at(addresses).sizes, scores.dtype
    work, messages = np.empty((4, sizes[WIDTH]), dtype), np.empty(sizes[MESSAGES], dtype)
    tables, inboxes = (
        np.empty(sizes[ENTRIES] if keep else 0, dtype),
        np.empty((1, sizes[INBOX] if len(out) else 0), dtype),
    )
    passed = Passed(messages, np.empty(sizes[CLIQUES]), tables)
    for r in range(first, len(scores), step):
        row = Row(scores[r], base[min(r, len(base) - 1)], clamped)
        _upward(row, passed, addresses, work, False)
        value[r] = total(row, passed, addresses)
        if len(out) and value[r] > -np.inf:
            _downward(row, passed, inboxes, out[r], addresses, work)


@kernel(fastmath=FLAGS)
def decode(row, messages, uniforms, labels, addresses, weights):
    """Labels of the free nodes from the roots down; ``uniforms`` holds one number per clique, or none for the best."""
    tree = tree_at(addresses)
    for c in range(tree.sizes[CLIQUES] - 1, -1, -1):
        kept, summed, entry = tree.kept[c], tree.summed[c], 0
        for m in range(tree.members[c], kept):
            entry = entry * tree.card[m] + labels[tree.node[m]]
        h, l = entry // tree.lanes[c], entry % tree.lanes[c]
        for r in range(summed):
            weights[r] = 0.0
        for i in range(tree.first[c], tree.first[c + 1]):
            table, lines = tree.table[i], address(tree.offsets, tree.rows[i])
            at = tree.offsets[tree.outer[i] + h] + tree.lane_offsets[tree.lane[i] + l]
            if table < 0:
                part = address(messages, at + tree.message[-1 - table])
            else:
                part = address(row.scores, at + row.base[table])
            for r in range(summed):
                weights[r] += part[lines[r]]
        chosen = _best(weights, summed)
        if len(uniforms):
            chosen = _drawn(weights, summed, chosen, uniforms[c])
        for m in range(tree.members[c + 1] - 1, kept - 1, -1):
            labels[tree.node[m]] = chosen % tree.card[m]
            chosen //= tree.card[m]


@helper(fastmath=FLAGS)
def _best(weights, count):
    """The first of the largest."""
    best = 0
    for r in range(1, count):
        best = r if weights[r] > weights[best] else best
    return best


@helper(fastmath=FLAGS)
def _drawn(weights, count, best, uniform):
    """One in proportion to exp of the weights, of which the largest is the ``best``; these are overwritten."""
    top, whole, reached, chosen = weights[best], 0.0, 0.0, best
    for r in range(count):
        weights[r] = exp(weights[r] - top)
        whole += weights[r]
    target = uniform * whole
    for r in range(count):
        reached += weights[r]
        if weights[r] > 0.0:
            chosen = r
            if reached > target:
                break
    return chosen


@kernel(fastmath=FLAGS)
def label_rows(first, step, scores, base, uniforms, labels, addresses, maximise):
    """Labels of every ``step``-th row from ``first``, ``labels [n, B, N]`` by ``uniforms [n, B, C]``, or the best."""
    sizes, dtype = tree_at(addresses).sizes, scores.dtype
    work, messages = np.empty((4, sizes[WIDTH]), dtype), np.empty(sizes[MESSAGES], dtype)
    passed = Passed(messages, np.empty(sizes[CLIQUES]), messages[:0])
    for r in range(first, len(scores), step):
        row = Row(scores[r], base[min(r, len(base) - 1)], True)
        _upward(row, passed, addresses, work, maximise)
        for n in range(len(labels)):
            decode(row, messages, uniforms[n, r], labels[n, r], addresses, work[0])
