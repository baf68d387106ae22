"""Beliefs of nodes and edges at given messages, and the value there: Bethe's ln Z, or the reweighted upper bound."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from lnz.ops.grid_belief.cpu.arguments import ROOM, TILE, received, scratch
from lnz.ops.grid_belief.cpu.domain import inverse, logarithm, probability, times, total
from lnz.ops.grid_belief.cpu.gather import gather, multiply_block
from lnz.ops.grid_belief.cpu.pairs import Joint, edge_beliefs, sums_of
from lnz.ops.grid_belief.cpu.reweighted import Arrival, excess, powers_of
from lnz.ops.grid_belief.cpu.transfer import tables_of, transfer
from lnz.ops.jit.cpu import helper, kernel
from lnz.ops.jit.cpu.memory import address, first_lanes, full_like, load, store
from lnz.ops.jit.cpu.vectors import LANES, astype, maximum, select


@kernel()
def collect(grid, tasks, rows, share, grad, value, shown, sums):
    """ln Z and beliefs, added up band by band.

    Args:
        grid: a :class:`~.arguments.Grid` in ``EXP`` or ``LOG``, not changed; where ``rho`` is not empty, ln Z is the
            upper bound.
        tasks: a :class:`~.arguments.Tasks`.
        rows: scratch of the thread, ``[L + 2, columns]``, the columns rounded up to tiles and a vector more.
        share: ``[H, W]``, how often each node counts: one less than it has neighbours, negative; with ``rho``, once.
        grad: ``[B]``, what beliefs of edges are multiplied with.
        value: float64 ``[B, bands, 2, LANES]``, added to: ln Z, and how many nodes and edges have nothing possible.
        shown: beliefs of nodes ``[B, H, L, W]``, written.
        sums: :class:`SharedSums` or :class:`OwnSums` of the horizontal and the vertical edges.
    """
    domain, form, node, which, edges, rho, messages = grid
    first, last, images, cuts, work = tasks
    labels, width, bands, wide = node.shape[2], node.shape[3], len(cuts) - 1, rows.shape[1]
    space, below = scratch(work, labels), address(rows, 0)
    for task in range(first, last):
        b, band = images[task // bands], task % bands
        tally = address(value, (b, band))
        for h in range(cuts[band] - 1 if band else 0, cuts[band + 1]):  # of the row above, only what it sends down
            here, above = address(rows, labels + (h & 1)), address(rows, labels + 1 - (h & 1))  # a column late
            for w in range(0, width, TILE):
                n = width - w if width - w < TILE else TILE
                arrived = received(node, messages, which[0, b], b, h, w)
                powers = powers_of(rho, which[3, b], h, w)
                gather(domain, powers, n, arrived, space, address(below, w), wide)
                totals, own = address(here, w + 1), address(shown, (b, h, 0, w))
                nodes = Nodes(labels, space.products, space.lanes, totals, address(share, (h, w)), own, width)
                for at in range(0, n, LANES):
                    if len(rho) == 0:
                        multiply_block(at, n - at, domain, arrived, space.products)
                    node_block(at, n - at, domain, powers, nodes, tally, h >= cuts[band])
                for side in range(0 if h >= cuts[band] else 2, 2 if h > 0 else 1):
                    begin = 1 if side == 0 and w == 0 else 0  # of a row: no edge
                    row, column = (h - 1, w) if side else (h, w - 1 + begin)
                    tables = tables_of(form, edges[side], which[1 + side, b], row, column)
                    early, made = address(space.sent, 2 * side * space.size + begin), address(space.made, begin)
                    late, back = address(early, space.size), address(made, space.size)
                    transfer(domain, form, tables, n - begin, labels, early, made, space.size)
                    at_early = address(messages, (2 * side + 1, b, row, 0, column))
                    at_late = address(messages, (2 * side, b, h, 0, w + begin))
                    sender = address(above if side else here, w + begin + side)
                    ends = (
                        Arrival(made, at_late, width, late, sender),
                        Arrival(back, at_early, width, early, address(totals, begin)),
                    )
                    power, into = power_of(powers, side, begin), sums_of(form, sums[side], b, band, row, column)
                    for at in range(0, n - begin, LANES):  # all masked: one form of each function to compile
                        edge_block(at, n - begin - at, domain, power, ends, labels, tally)
                    if into.wanted:
                        joint = Joint(labels, tables, early, late, grad[b])
                        edge_beliefs(domain, form, joint, n - begin, into)


class Nodes(NamedTuple):
    """Consecutive pixels, as pointers.

    Attributes:
        labels: how many.
        products: of scores and all incoming messages, ``[L, ROOM]``.
        top: the logarithm of what they were divided by, where messages are reweighted.
        totals: their sums, written.
        share: how often each counts.
        shown: beliefs ``[L, line]``, written.
        line: as there.
    """

    labels: int
    products: Any
    top: Any
    totals: Any
    share: Any
    shown: Any
    line: int


@helper()
def node_block(at, n, domain, powers, nodes, tally, counted):
    """The totals of pixels ``at …``; if they are ``counted``, their beliefs and values as well."""
    labels, products, top, totals, share, shown, line = nodes
    whole = total(domain, products, at, labels)
    store(whole, totals, at)
    if counted:
        scale = inverse(domain, whole, 1)
        for l in range(labels):
            product = times(domain, load(products, l * ROOM + at), scale)
            store(probability(domain, product), shown, l * line + at, n)
        value = logarithm(domain, whole)
        if len(powers) > 0:
            value += load(top, at)
        account(tally, n, value, load(share, at, n))


@helper()
def account(tally, n, value, share):
    """Add ``share · value`` of the first n lanes to ``tally``; the numbers after it count where nothing is possible."""
    inside, possible, one = first_lanes(n), value > -math.inf, full_like(tally, 1)
    exact = astype(select(inside & possible, value, 0), np.float64) * astype(share, np.float64)
    store(load(tally, 0) + exact, tally, 0)
    store(load(tally, LANES) + select(inside, select(possible, 0, one), 0), tally, LANES)


@helper()
def power_of(powers, side, begin):
    """How much messages count that come over consecutive edges, as a pointer; nothing where that is once."""
    if len(powers) == 0:
        return ()
    return (address(powers[2 * side], begin),)


@helper()
def edge_block(at, n, domain, power, ends, labels, tally):
    """The value of edges ``at …``. What their later ends sent is divided by their total, which beliefs then sum to."""
    onward, back = ends
    made, late = onward.new, onward.sent
    if len(power) > 0:
        most = maximum(excess(at, n, domain, onward, labels), excess(at, n, domain, back, labels))
        account(tally, n, most, load(power[0], at, n))
    for l in range(labels):
        there = l * ROOM + at
        store(times(domain, load(made, there), load(late, there)), made, there)
    whole = total(domain, made, at, labels)
    if len(power) == 0:
        account(tally, n, logarithm(domain, whole), 1)
    scale = inverse(domain, whole, 1)
    for l in range(labels):
        there = l * ROOM + at
        store(times(domain, load(late, there), scale), late, there)
