"""Beliefs of edges, added up in the form in which their scores were given."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from lnz.ops.grid_belief.cpu.arguments import ROOM
from lnz.ops.grid_belief.cpu.domain import probability, times
from lnz.ops.grid_belief.cpu.transfer import entry_block
from lnz.ops.jit.cpu import helper
from lnz.ops.jit.cpu.memory import (
    address,
    first_lanes,
    full_like,
    gather,
    lane_numbers,
    load,
    scatter,
    store,
)
from lnz.ops.jit.cpu.vectors import LANES, select, sum_lanes


class SharedSums(NamedTuple):
    """Σ over edges of their beliefs ``[B, bands, L, L]``, added to; empty if none are wanted."""

    counts: Any


class OwnSums(NamedTuple):
    """What is added up over the edges of one direction, empty where it is not wanted.

    Attributes:
        counts: beliefs ``[B, bands, L, L]``, each times its ``given`` weight, if there are any.
        weights: ``[B, rows, columns]``: beliefs times ``table``, summed over labels.
        beliefs: themselves, ``[entries, rows, columns, L, L]``.
        given: ``[entries, rows, columns]``.
        table: ``[L, L]``, the scores that weights multiply.
        entries: ``int64 [B]``, the entry of ``beliefs`` and ``given`` that each image has.
    """

    counts: Any
    weights: Any
    beliefs: Any
    given: Any
    table: Any
    entries: Any


class Joint(NamedTuple):
    """Consecutive edges: their tables, what their ends sent ``[L, ROOM]``, and what beliefs are multiplied with."""

    labels: int
    tables: Any
    early: Any
    late: Any
    factor: float


@helper()
def edge_beliefs(domain, form, joint, n, into):
    """Add up the beliefs of n edges."""
    labels, factor = joint.labels, joint.factor
    for i in range(labels):
        for j in range(labels):
            beliefs = full_like(joint.early, 0)
            for at in range(0, n, LANES):
                beliefs += belief_block(at, n - at, domain, form, joint, i, j, into)
            if into.counted:
                into.counts[i * labels + j] += factor * sum_lanes(beliefs)


@helper()
def belief_block(at, n, domain, form, joint, i, j, into):
    """The beliefs in labels (i, j) of n edges ``at …``."""
    labels, tables, early, late, factor = joint
    pair = times(domain, load(early, i * ROOM + at), load(late, j * ROOM + at))
    table = entry_block(at, n, domain, form, tables, labels, i, j)
    belief = select(first_lanes(n), probability(domain, times(domain, pair, table)), 0)
    if len(form) == 0:
        return belief
    place, score = i * labels + j, into.table[i * labels + j]
    if into.weighted and score > -math.inf:
        store(load(into.weights, at, n) + factor * score * belief, into.weights, at, n)
    if into.each:
        places = (lane_numbers() + at) * (labels * labels) + place
        before = gather(into.beliefs, places, first_lanes(n), 0)
        scatter(before + factor * belief, into.beliefs, places, first_lanes(n))
    return belief * load(into.given, at, n) if into.weighs else belief


class SharedInto(NamedTuple):
    """What beliefs of consecutive edges are added to: ``counts [L, L]``, as a pointer."""

    wanted: bool
    counted: bool
    counts: Any


class OwnInto(NamedTuple):
    """What beliefs of consecutive edges are added to, as pointers; and whether each of these is.

    Attributes:
        wanted: any.
        counted: ``counts [L, L]``.
        counts: as there.
        weighted: ``weights [edges]``.
        weights: as there.
        each: ``beliefs [edges, L, L]``.
        beliefs: as there.
        weighs: whether counts are weighted by ``given [edges]``.
        given: as there.
        table: ``[L, L]``.
    """

    wanted: bool
    counted: bool
    counts: Any
    weighted: bool
    weights: Any
    each: bool
    beliefs: Any
    weighs: bool
    given: Any
    table: Any


@helper()
def sums_of(form, side, b, band, row, column):
    """Of the edges from (row, column) on; of new weights, these are the first."""
    if len(form) == 0:
        wanted = side.counts.size > 0
        return SharedInto(wanted, wanted, address(side.counts, (b, band)))
    counts, weights, beliefs, given, table, entries = side
    entry = entries[b]
    return OwnInto(
        counts.size + weights.size + beliefs.size > 0, counts.size > 0, address(counts, (b, band)),
        weights.size > 0, address(weights, (b, row, column)), beliefs.size > 0, address(beliefs, (entry, row, column)),
        given.size > 0, address(given, (entry, row, column)), address(table, 0),
    )  # fmt: skip
