"""Rows of evidence under tables that they share: one row per lane, a pass up and down the tree for all lanes at once.

The product of a clique's tables is made once per call. In a pass it is multiplied by what each row allows, 0 or 1, and
by the messages of children, as probabilities in float64; a message is scaled only where it comes near the limits of
the range. A row in which an entry of a message falls so low that a product could lose it gets NaN as ln Z: it is left
to whoever works in logarithms.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from lnz.ops.elimination.cpu.evidence_layout import (
    CLIQUES,
    LONGEST,
    MESSAGES,
    NODES,
    SIZE,
    TABLE_ENTRIES,
    lists_at,
)
from lnz.ops.jit.cpu import helper, kernel
from lnz.ops.jit.cpu.math import log
from lnz.ops.jit.cpu.memory import address, first_lanes, full_like, gather, lane_numbers, load, scatter, store
from lnz.ops.jit.cpu.rows import clear
from lnz.ops.jit.cpu.vectors import LANES, all_lanes, maximum, minimum, select, sum_lanes

FLAGS = {"contract"}
LOW, HIGH = 1e-20, 1e20
"""A message whose largest entry lies between them is not scaled."""
LEAST = 1e-290
"""Messages below it are never scaled: its inverse is in range."""
UNOBSERVED = -100


class Given(NamedTuple):
    """Rows, and the networks that they are evidence for; worked on in chunks, a network's before the next one's.

    Attributes:
        observed: ``int64 [R, N]``, negative where unobserved.
        weights: ``[R]``, how often each row counts in sums; or empty.
        products: ``[S, TABLE_ENTRIES]``, the product of each clique's tables.
        least: ``[S, C]``, below which a clique's message loses its range …
        enough: … unless ln Z exceeds this.
        chunk: how many rows are one chunk.
    """

    observed: Any
    weights: Any
    products: Any
    least: Any
    enough: float
    chunk: int


class Found(NamedTuple):
    """What a pass writes; what is empty is not wanted.

    Attributes:
        log_z: ``[S, R]``; NaN where a row left the range.
        sums: ``[chunks, TABLE_ENTRIES]``, beliefs of all cliques, summed over the rows of a chunk.
        marginals: ``[R, M]``: entries of a row of scores, those in ``columns``, at ``targets``.
        columns, targets: ``int64``; ``columns`` in the row of scores, of tables or of nodes alone.
        node_start: where in a row the tables of nodes start.
    """

    log_z: Any
    sums: Any
    marginals: Any
    columns: Any
    targets: Any
    node_start: int


class Work(NamedTuple):
    """The memory of one thread, ``LANES`` numbers per place: arrays, or pointers to them."""

    evidence: Any  # of every label of every node, 1 where a row allows it, else 0
    allowed: Any  # of the joint labels of a clique's eliminated nodes; later their marginals
    tables: Any
    messages: Any
    beliefs: Any  # of what messages are about
    sums: Any  # beliefs of cliques, over rows
    marginals: Any  # of a row of scores


@kernel(fastmath=FLAGS)
def run(first, last, given, found, addresses):
    """Chunks ``first`` … ``last`` − 1."""
    sizes = lists_at(addresses).sizes
    entries, size = sizes[TABLE_ENTRIES], sizes[SIZE]
    room = Work(
        np.empty((size - found.node_start, LANES)),
        np.empty((sizes[LONGEST], LANES)),
        np.empty((entries, LANES)),
        np.empty((sizes[MESSAGES], LANES)),
        np.empty((sizes[MESSAGES], LANES)),
        np.empty((entries if len(found.sums) else 1, LANES)),
        np.empty((size if len(found.marginals) else 1, LANES)),
    )
    for chunk in range(first, last):
        _chunk(chunk, given, found, addresses, room)


@helper(fastmath=FLAGS)
def _chunk(chunk, given, found, addresses, room):
    """The rows of one chunk, ``LANES`` at a time; the caller holds the memory that pointers lead to."""
    work = Work(
        address(room.evidence, 0), address(room.allowed, 0), address(room.tables, 0), address(room.messages, 0),
        address(room.beliefs, 0), address(room.sums, 0), address(room.marginals, 0),
    )  # fmt: skip
    lists, chunks = lists_at(addresses), -(-len(given.observed) // given.chunk)
    net, begin = chunk // chunks, chunk % chunks * given.chunk
    until = min(len(given.observed), begin + given.chunk)
    down = len(found.sums) > 0 or len(found.marginals) > 0
    if len(found.sums):
        clear(work.sums, lists.sizes[TABLE_ENTRIES] * LANES)
    for at in range(begin, until, LANES):
        n = min(LANES, until - at)
        observe(at, n, given, lists, work)
        log_z, fine = upward(address(given.products, net), address(given.least, net), n, lists, work)
        fine = fine | ((log_z >= given.enough) & first_lanes(n))
        store(select(fine, log_z, math.nan), address(found.log_z, (net, at)), 0, n)
        if down:
            weight = full_like(work.tables, 1.0)
            if len(given.weights):
                weight = load(given.weights, at, n)
            downward(select(fine & (log_z > -math.inf), weight, 0.0), found, lists, work)
        if len(found.marginals):
            write(at, n, found, work)
    if len(found.sums):
        for e in range(lists.sizes[TABLE_ENTRIES]):
            found.sums[chunk, e] = sum_lanes(load(work.sums, e * LANES))


@helper(fastmath=FLAGS)
def observe(at, n, given, lists, work):
    """What ``n`` rows from ``at`` on allow of every label."""
    N = lists.sizes[NODES]
    rows, ones, inside = address(given.observed, at), full_like(work.evidence, 1.0), first_lanes(n)
    places = lane_numbers() * N
    for v in range(N):
        y = gather(rows, places + v, inside, UNOBSERVED)
        for l in range(lists.card[v]):
            store(select((y == l) | (y < 0), ones, 0.0), work.evidence, (lists.slot[v] + l) * LANES)


@helper(fastmath=FLAGS)
def upward(products, least, n, lists, work):
    """ln Z of each lane, and where everything stayed in range; tables and messages stay in ``work``."""
    log_z, fine = full_like(work.tables, 0.0), first_lanes(n)
    for c in range(lists.sizes[CLIQUES]):
        allow(c, lists, work)
        top, low = send(c, products, lists, work)
        message, count = address(work.messages, lists.message[c] * LANES), lists.kept[c]
        if not all_lanes(((top < HIGH) & (top > LOW)) | (top == 0.0)):
            top = select(top > LEAST, top, 1.0)  # below it a row has left the range, and must not become NaN
            scale = 1.0 / top
            for s in range(count):
                store(load(message, s * LANES) * scale, message, s * LANES)
            own = address(work.tables, lists.entry[c] * LANES)
            for e in range(count * lists.summed[c]):
                store(load(own, e * LANES) * scale, own, e * LANES)
            low = low * scale
            log_z = log_z + log(top)
        fine = fine & (low >= least[c])
        if lists.root[c]:
            log_z = log_z + log(load(message, 0))
    return log_z, fine


@helper(fastmath=FLAGS)
def allow(c, lists, work):
    """What the rows allow of the joint labels of the nodes that clique ``c`` eliminates."""
    ones = full_like(work.allowed, 1.0)
    for r in range(lists.summed[c]):
        value = ones
        for i in range(lists.first_node[c], lists.first_node[c + 1]):
            value = value * load(work.evidence, lists.places[lists.node_at[i] + r] * LANES)
        store(value, work.allowed, r * LANES)


@helper(fastmath=FLAGS)
def send(c, products, lists, work):
    """The table and the message of clique ``c``; the message's largest entry, and its least but 0."""
    nothing, endless = full_like(work.tables, 0.0), full_like(work.tables, math.inf)
    top, low, e = nothing, endless, lists.entry[c]
    place, summed, ahead = address(lists.places, -e), lists.summed[c], lists.first_child[c]
    below = lists.first_child[c + 1]
    for s in range(lists.kept[c]):
        total = nothing
        for r in range(summed):
            value = load(work.allowed, r * LANES) * products[e]
            for i in range(ahead, below):
                value = value * load(work.messages, place[lists.child_at[i] + e] * LANES)
            store(value, work.tables, e * LANES)
            total = total + value
            e += 1
        store(total, work.messages, (lists.message[c] + s) * LANES)
        top, low = maximum(total, top), minimum(select(total > 0.0, total, math.inf), low)
    return top, low


@helper(fastmath=FLAGS)
def downward(weight, found, lists, work):
    """Beliefs, times ``weight``: added to the sums, or left in ``work.marginals``."""
    clear(work.beliefs, lists.sizes[MESSAGES] * LANES)
    if len(found.marginals):
        clear(work.marginals, lists.sizes[SIZE] * LANES)
    for c in range(lists.sizes[CLIQUES] - 1, -1, -1):
        if lists.root[c]:
            store(weight, work.beliefs, lists.message[c] * LANES)
        receive(c, len(found.sums) > 0, len(found.marginals) > 0, lists, work)
        if len(found.marginals):
            for i in range(lists.first_node[c], lists.first_node[c + 1]):
                for r in range(lists.summed[c]):
                    at = (found.node_start + lists.places[lists.node_at[i] + r]) * LANES
                    store(load(work.marginals, at) + load(work.allowed, r * LANES), work.marginals, at)
            if found.columns[0] < found.node_start:
                spread(c, lists, work)


@helper(fastmath=FLAGS)
def receive(c, summing, keeping, lists, work):
    """The belief of clique ``c`` in place of its table; handed down to its children."""
    e, summed = lists.entry[c], lists.summed[c]
    place, ahead, below = address(lists.places, -e), lists.first_child[c], lists.first_child[c + 1]
    clear(work.allowed, summed * LANES)
    for s in range(lists.kept[c]):
        at = (lists.message[c] + s) * LANES
        message = load(work.messages, at)
        factor = select(message > 0.0, load(work.beliefs, at) / message, 0.0)
        for r in range(summed):
            value = load(work.tables, e * LANES) * factor
            for i in range(ahead, below):
                to = place[lists.child_at[i] + e] * LANES
                store(load(work.beliefs, to) + value, work.beliefs, to)
            if summing:
                store(load(work.sums, e * LANES) + value, work.sums, e * LANES)
            if keeping:
                store(load(work.allowed, r * LANES) + value, work.allowed, r * LANES)
                store(value, work.tables, e * LANES)
            e += 1


@helper(fastmath=FLAGS)
def spread(c, lists, work):
    """Sum the belief of clique ``c`` to its tables' entries."""
    begin, count = lists.entry[c], lists.kept[c] * lists.summed[c]
    for i in range(lists.first_table[c], lists.first_table[c + 1]):
        place = address(lists.places, lists.table_at[i])
        for e in range(count):
            at = place[e] * LANES
            store(load(work.marginals, at) + load(work.tables, (begin + e) * LANES), work.marginals, at)


@helper(fastmath=FLAGS)
def write(at, n, found, work):
    """The marginals of ``n`` rows from ``at`` on, from lanes to rows."""
    out, inside = address(found.marginals, at), first_lanes(n)
    rows = lane_numbers() * found.marginals.shape[1]
    for k in range(len(found.columns)):
        scatter(load(work.marginals, found.columns[k] * LANES), out, rows + found.targets[k], inside)
