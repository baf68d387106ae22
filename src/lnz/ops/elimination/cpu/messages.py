"""Variable elimination in Numba, one row of scores at a time.

A clique's table is run through in blocks, held one at a time; :mod:`~lnz.ops.elimination.layout` says where a block's
entries lie in its inputs. Inputs that are the same in all blocks are added up once. Where all tables together are
small, those of the upward pass are kept for the downward pass; otherwise it makes each block anew.
:mod:`~lnz.ops.elimination.sharing` says which thread does what.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lnz.ops.elimination.layout import CONSECUTIVE, CONSTANT, ENTRIES, INBOX, MESSAGES, WIDTH
from lnz.ops.jit.cpu import kernel as compiled
from lnz.ops.jit.cpu.math import exp, log

# constants are passed on typed (np.int64(0)): for plain ones the compiler makes another version of the function
kernel = compiled(fastmath={"contract"})


@kernel
def add(source: Any, start: int, i: int, summed: int, lanes: int, tree: Any, block: Any) -> None:
    """Add the entries of input ``i`` to a block."""
    along = tree.along[i]
    lane = tree.lane_offsets[tree.lane[i] : tree.lane[i] + lanes]
    for r in range(summed):
        row = block[r * lanes : (r + 1) * lanes]
        at = start + tree.offsets[tree.rows[i] + r]
        if along == CONSTANT:
            value = source[at]
            for l in range(lanes):
                row[l] += value
        elif along == CONSECUTIVE:
            part = source[at : at + lanes]
            for l in range(lanes):
                row[l] += part[l]
        else:
            part = source[at:]
            for l in range(lanes):
                row[l] += part[lane[l]]


@kernel
def _collect(block: Any, target: Any, start: int, i: int, summed: int, lanes: int, tree: Any) -> None:
    """Add a block to the entries of input ``i``: the transpose of :func:`add`."""
    along = tree.along[i]
    lane = tree.lane_offsets[tree.lane[i] : tree.lane[i] + lanes]
    for r in range(summed):
        row = block[r * lanes : (r + 1) * lanes]
        at = start + tree.offsets[tree.rows[i] + r]
        if along == CONSTANT:
            target[at] += _total(row)
        elif along == CONSECUTIVE:
            part = target[at : at + lanes]
            for l in range(lanes):
                part[l] += row[l]
        else:
            part = target[at:]
            for l in range(lanes):
                part[lane[l]] += row[l]


@compiled(fastmath={"reassoc", "contract"})
def _total(row: Any) -> float:
    total = row.dtype.type(0)
    for l in range(len(row)):
        total += row[l]
    return total


@kernel
def _add_all(c: int, h: int, first: int, last: int, scores: Any, base: Any, messages: Any, tree: Any, to: Any) -> None:
    for i in range(first, last):
        table = tree.table[i]
        offset = tree.offsets[tree.outer[i] + h]
        if table < 0:
            add(messages, tree.message[-1 - table] + offset, i, tree.summed[c], tree.lanes[c], tree, to)
        else:
            add(scores, base[table] + offset, i, tree.summed[c], tree.lanes[c], tree, to)


@kernel
def _sum_out(block: Any, out: Any, shift: Any, total: Any, keep: bool) -> None:
    """ln Σ exp of a block's columns into ``out``; if ``keep``, the block becomes the probabilities of its columns."""
    lanes = len(out)
    column_maxima(block, out)
    for l in range(lanes):
        shift[l] = out[l] if out[l] > -np.inf else 0.0
        total[l] = 0.0
    for r in range(len(block) // lanes):
        row = block[r * lanes : (r + 1) * lanes]
        for l in range(lanes):
            row[l] -= shift[l]
    for place in range(len(block)):  # in one loop, whose vectors have no remainder row by row
        block[place] = exp(block[place])
    for r in range(len(block) // lanes):
        row = block[r * lanes : (r + 1) * lanes]
        for l in range(lanes):
            total[l] += row[l]
    for l in range(lanes):
        out[l] = shift[l] + log(total[l])
    if keep:
        for l in range(lanes):
            total[l] = 1.0 / total[l] if total[l] > 0.0 else 0.0
        for r in range(len(block) // lanes):
            row = block[r * lanes : (r + 1) * lanes]
            for l in range(lanes):
                row[l] *= total[l]


@kernel
def column_maxima(block: Any, out: Any) -> None:
    lanes = len(out)
    for l in range(lanes):
        out[l] = block[l]
    for r in range(1, len(block) // lanes):
        row = block[r * lanes : (r + 1) * lanes]
        for l in range(lanes):
            out[l] = row[l] if row[l] > out[l] else out[l]


@kernel
def send(
    c: int, begin: Any, end: Any, scores: Any, base: Any, messages: Any, tables: Any, tree: Any, work: Any,
    clamped: Any, maximise: Any,
) -> None:  # fmt: skip
    """The message of clique ``c`` for blocks ``begin`` to ``end``, to be centred when all are there."""
    lanes = tree.lanes[c]
    width = tree.summed[c] * lanes
    last = tree.first[c + 1] if clamped else tree.own[c]
    common, block, shift, total = work[0, :width], work[1, :width], work[2, :lanes], work[3, :lanes]
    common[:] = 0.0
    _add_all(c, begin, tree.fixed[c], last, scores, base, messages, tree, common)
    for h in range(begin, end):
        if len(tables):
            block = tables[tree.entry[c] + h * width : tree.entry[c] + (h + 1) * width]
        for place in range(width):
            block[place] = common[place]
        _add_all(c, h, tree.first[c], tree.fixed[c], scores, base, messages, tree, block)
        out = messages[tree.message[c] + h * lanes : tree.message[c] + (h + 1) * lanes]
        if maximise:
            column_maxima(block, out)
        else:
            _sum_out(block, out, shift, total, len(tables) > 0)


@kernel
def centre(c: int, messages: Any, shifts: Any, tree: Any) -> None:
    """Take the largest entry of a message away, and keep it in ``shifts``: messages stay as small as their range."""
    message = messages[tree.message[c] : tree.message[c] + tree.blocks[c] * tree.lanes[c]]
    top = message[0]
    for l in range(len(message)):
        top = message[l] if message[l] > top else top
    shifts[c] = 0.0
    if top > -np.inf:
        shifts[c] = top
        for l in range(len(message)):
            message[l] -= top


@kernel
def receive(
    c: int, begin: Any, end: Any, scores: Any, base: Any, messages: Any, shifts: Any, tables: Any, inbox: Any,
    marginals: Any, tree: Any, work: Any, clamped: bool,
) -> None:  # fmt: skip
    """Sum the marginal of clique ``c``, blocks ``begin`` to ``end``, down to its inputs.

    The clique's place in ``messages`` holds the marginal of its separator if tables are kept; otherwise the message
    less that marginal's logarithm, so that exp of the difference is the clique's marginal at once.
    """
    lanes = tree.lanes[c]
    summed = tree.summed[c]
    width = summed * lanes
    last = tree.first[c + 1] if clamped else tree.own[c]
    common, block, sums = work[0, :width], work[1, :width], work[2, :width]
    shift = scores.dtype.type(shifts[c])
    sums[:] = 0.0
    inbox[: tree.received[c]] = 0.0
    if not len(tables):
        common[:] = 0.0
        _add_all(c, begin, tree.fixed[c], last, scores, base, messages, tree, common)
    for h in range(begin, end):
        above = messages[tree.message[c] + h * lanes : tree.message[c] + (h + 1) * lanes]
        if len(tables):
            block = tables[tree.entry[c] + h * width : tree.entry[c] + (h + 1) * width]
        else:
            for place in range(width):
                block[place] = common[place]
            _add_all(c, h, tree.first[c], tree.fixed[c], scores, base, messages, tree, block)
        for r in range(summed):
            row = block[r * lanes : (r + 1) * lanes]
            if len(tables):
                for l in range(lanes):
                    row[l] *= above[l]
            else:
                for l in range(lanes):  # in the order in which the message was centred: what was equal cancels
                    row[l] = (row[l] - shift) - above[l]
        if not len(tables):
            for place in range(width):
                block[place] = exp(block[place])
        for place in range(width):
            sums[place] += block[place]
        _collect_all(c, h, tree.first[c], tree.fixed[c], block, base, inbox, marginals, tree)
    _collect_all(c, begin, tree.fixed[c], tree.first[c + 1], sums, base, inbox, marginals, tree)


@kernel
def _collect_all(
    c: int, h: int, first: int, last: int, block: Any, base: Any, inbox: Any, marginals: Any, tree: Any
) -> None:
    for i in range(first, last):
        table = tree.table[i]
        offset = tree.offsets[tree.outer[i] + h]
        if table < 0:
            _collect(block, inbox, tree.inbox[i] + offset, i, tree.summed[c], tree.lanes[c], tree)
        else:
            _collect(block, marginals, base[table] + offset, i, tree.summed[c], tree.lanes[c], tree)


@kernel
def hand_down(c: int, thread: Any, threads: Any, inboxes: Any, messages: Any, tree: Any, keep: bool) -> None:
    """Write what threads gathered for the children of ``c`` to the children's places in ``messages``."""
    for i in range(tree.first[c], tree.own[c]):
        child = -1 - tree.table[i]
        if child >= 0:
            size = tree.blocks[child] * tree.lanes[child]
            begin, end = size * thread // threads, size * (thread + 1) // threads
            belief = inboxes[0, tree.inbox[i] + begin : tree.inbox[i] + end]
            for other in range(1, threads):
                more = inboxes[other, tree.inbox[i] + begin : tree.inbox[i] + end]
                for l in range(len(belief)):
                    belief[l] += more[l]
            out = messages[tree.message[child] + begin : tree.message[child] + end]
            if keep:
                for l in range(len(out)):
                    out[l] = belief[l]
            else:
                for l in range(len(out)):
                    out[l] = out[l] - log(belief[l]) if belief[l] > 0.0 else np.inf


@kernel
def _upward(
    scores: Any, base: Any, messages: Any, shifts: Any, tables: Any, tree: Any, work: Any, clamped: Any, maximise: Any
) -> None:
    """Fill in all messages."""
    for c in range(len(tree.blocks)):
        send(c, np.int64(0), tree.blocks[c], scores, base, messages, tables, tree, work, clamped, maximise)
        centre(c, messages, shifts, tree)


@kernel
def total(scores: Any, base: Any, messages: Any, shifts: Any, tree: Any) -> float:
    """ln Z, or the best score, in float64: what the messages have given up, and what those of the roots still hold."""
    result = np.float64(0.0)
    for table in tree.constants:
        result += np.float64(scores[base[table]])
    for c in range(len(shifts)):
        result += shifts[c]
    for c in tree.roots:
        result += np.float64(messages[tree.message[c]])
    return result


@kernel
def begin_downward(base: Any, messages: Any, marginals: Any, tree: Any, keep: bool) -> None:
    for table in tree.constants:
        marginals[base[table]] = 1.0
    if keep:
        for c in tree.roots:
            messages[tree.message[c]] = 1.0


@kernel
def _downward(
    scores: Any, base: Any, messages: Any, shifts: Any, tables: Any, inboxes: Any, marginals: Any, tree: Any,
    work: Any, clamped: bool,
) -> None:  # fmt: skip
    """The marginals of all tables of a row with Z > 0 after :func:`_upward`; ``marginals`` starts at 0."""
    keep = len(tables) > 0
    begin_downward(base, messages, marginals, tree, keep)
    for c in range(len(tree.blocks) - 1, -1, -1):
        receive(
            c, np.int64(0), tree.blocks[c], scores, base, messages, shifts, tables, inboxes[0], marginals, tree, work,
            clamped,
        )  # fmt: skip
        hand_down(c, np.int64(0), np.int64(1), inboxes, messages, tree, keep)


@kernel
def rows(
    first: int, step: int, scores: Any, base: Any, value: Any, out: Any, tree: Any, keep: bool, clamped: bool
) -> None:
    """Every ``step``-th row from ``first``: ln Z into ``value``, and the marginals into ``out`` if it has rows."""
    work = np.empty((4, tree.sizes[WIDTH]), scores.dtype)
    messages = np.empty(tree.sizes[MESSAGES], scores.dtype)
    shifts = np.empty(len(tree.blocks))
    tables = np.empty(tree.sizes[ENTRIES] if keep else 0, scores.dtype)
    inboxes = np.empty((1, tree.sizes[INBOX] if len(out) else 0), scores.dtype)
    for row in range(first, len(scores), step):
        starts = base[min(row, len(base) - 1)]
        _upward(scores[row], starts, messages, shifts, tables, tree, work, clamped, np.bool_(False))
        value[row] = total(scores[row], starts, messages, shifts, tree)
        if len(out) and value[row] > -np.inf:
            _downward(scores[row], starts, messages, shifts, tables, inboxes, out[row], tree, work, clamped)


@kernel
def decode(scores: Any, base: Any, messages: Any, uniforms: Any, labels: Any, tree: Any, weights: Any) -> None:
    """Labels of the free nodes from the roots down; ``uniforms`` holds one number per clique, or none for the best."""
    for c in range(len(tree.blocks) - 1, -1, -1):
        kept = tree.kept[c]
        entry = 0
        for m in range(tree.members[c], kept):
            entry = entry * tree.card[m] + labels[tree.node[m]]
        h, l = entry // tree.lanes[c], entry % tree.lanes[c]
        summed = tree.summed[c]
        given = weights[:summed]
        given[:] = 0.0
        for i in range(tree.first[c], tree.first[c + 1]):
            table = tree.table[i]
            at = tree.offsets[tree.outer[i] + h] + np.int64(tree.lane_offsets[tree.lane[i] + l])
            if table < 0:
                at += tree.message[-1 - table]
                for r in range(summed):
                    given[r] += messages[at + tree.offsets[tree.rows[i] + r]]
            else:
                at += base[table]
                for r in range(summed):
                    given[r] += scores[at + tree.offsets[tree.rows[i] + r]]
        chosen = np.argmax(given)
        if len(uniforms):
            best = given[chosen]
            total = 0.0
            for r in range(summed):
                given[r] = exp(given[r] - best)
                total += given[r]
            target = uniforms[c] * total
            reached = 0.0
            for r in range(summed):
                reached += given[r]
                if given[r] > 0.0:
                    chosen = r
                    if reached > target:
                        break
        for m in range(tree.members[c + 1] - 1, kept - 1, -1):
            labels[tree.node[m]] = chosen % tree.card[m]
            chosen //= tree.card[m]


@kernel
def label_rows(
    first: int, step: int, scores: Any, base: Any, uniforms: Any, labels: Any, tree: Any, maximise: bool
) -> None:
    work = np.empty((4, tree.sizes[WIDTH]), scores.dtype)
    messages = np.empty(tree.sizes[MESSAGES], scores.dtype)
    shifts = np.empty(len(tree.blocks))
    for row in range(first, len(scores), step):
        starts = base[min(row, len(base) - 1)]
        _upward(scores[row], starts, messages, shifts, messages[:0], tree, work, np.bool_(True), maximise)
        for n in range(len(labels)):
            decode(scores[row], starts, messages, uniforms[n, row], labels[n, row], tree, work[0])
