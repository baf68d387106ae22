"""Tree-reweighted messages on a grid: what nodes send, and what an edge adds to the upper bound.

Messages count ρ times at the node where they arrive, by the edge they come over, and then one is taken away in full:
see the reference of tree-reweighted messages. Node scores are logarithms. In probabilities, powers of messages are
taken through their logarithms, and a quotient takes one away: that costs a fourth of the exponentials that four
messages sent in logarithms would.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from lnz.ops.grid_belief.cpu.arguments import ROOM
from lnz.ops.grid_belief.cpu.domain import logarithm, nothing
from lnz.ops.jit.cpu import helper
from lnz.ops.jit.cpu.math import exp, log
from lnz.ops.jit.cpu.memory import address, full_like, load, store
from lnz.ops.jit.cpu.vectors import by_dtype, maximum, select

LEAST_SINGLE, LEAST_DOUBLE = 1e-32, 1e-300  # of a possible label of a node: then 0 is for impossible ones only


@helper()
def powers_of(rho, entry, h, w):
    """How much the messages from four sides count at consecutive pixels, as pointers; nothing where that is once."""
    if len(rho) == 0:
        return ()
    across, down = rho
    return (
        address(across, (entry, h, w)), address(across, (entry, h, w + 1)),
        address(down, (entry, h, w)), address(down, (entry, h + 1, w)),
    )  # fmt: skip


@helper()
def gather_powers(at, n, domain, powers, received, to, below, wide, scratch):
    """:func:`~.gather.gather_block` with powers, and the products of all, the largest exp ``lanes[0]`` times that."""
    labels, line, scores, from_left, from_right, from_up, from_down = received
    right, left, down, up = to
    products, one, top = scratch.products, 1 if len(domain) == 0 else 0, full_like(scores, -math.inf)
    by_left, by_right = load(powers[0], at, n), load(powers[1], at, n)
    by_up, by_down = load(powers[2], at, n), load(powers[3], at, n)
    for l in range(labels):
        here = l * line + at
        whole = load(scores, here, n)
        whole += by_left * logarithm(domain, load(from_left, here, n, one))
        whole += by_right * logarithm(domain, load(from_right, here, n, one))
        whole += by_up * logarithm(domain, load(from_up, here, n, one))
        whole += by_down * logarithm(domain, load(from_down, here, n, one))
        top = maximum(whole, top)
        store(whole, products, l * ROOM + at)
    store(top if len(domain) == 0 else full_like(scores, 0), scratch.lanes, at)
    for l in range(labels):
        here, there, under = l * line + at, l * ROOM + at, l * wide + at
        whole = load(products, there)
        possible = whole > -math.inf
        a, b = load(from_left, here, n, one), load(from_right, here, n, one)
        c, d = load(from_up, here, n, one), load(from_down, here, n, one)
        store(load(below, under), down, there)
        if len(domain) == 0:
            share = select(possible, maximum(exp(whole - top), by_dtype(scores, LEAST_SINGLE, LEAST_DOUBLE)), 0)
            # two quotients for four: products of two messages are far from the ends of the range
            level, upright = select(possible, share / (a * b), 0), select(possible, share / (c * d), 0)
            store(share, products, there)
            store(level * a, right, there + 1)
            store(level * b, left, there)
            store(upright * d, up, there)
            store(upright * c, below, under)
        else:
            store(select(possible, whole - b, whole), right, there + 1)
            store(select(possible, whole - a, whole), left, there)
            store(select(possible, whole - c, whole), up, there)
            store(select(possible, whole - d, whole), below, under)


class Arrival(NamedTuple):
    """One end of consecutive edges, as pointers: where new messages arrive.

    Attributes:
        new: the messages, before they are normalised, ``[L, ROOM]``.
        old: those they were made with, ``[L, line]``.
        line: as there.
        sent: what the receiving nodes sent, ``[L, ROOM]``.
        total: what the products of all at the sending nodes sum to.
    """

    new: Any
    old: Any
    line: int
    sent: Any
    total: Any


@helper()
def excess(at, n, domain, arrival, labels):
    """ln of what the sums over the sending nodes exceed 1 by, at most over the labels of the receiving ones."""
    new, old, line, sent, total = arrival
    worst = nothing(domain, new)
    for l in range(labels):
        message, before = load(new, l * ROOM + at), load(old, l * line + at, n, 1)
        possible = load(sent, l * ROOM + at) > nothing(domain, new)
        quotient = message / before if len(domain) == 0 else message - before
        worst = maximum(select(possible, quotient, worst), worst)
    return log(worst / load(total, at)) if len(domain) == 0 else worst - load(total, at)
