"""New messages, as they are stored: normalised, held to their reach, damped."""

from __future__ import annotations

import math

from lnz.ops.grid_belief.cpu.arguments import ROOM
from lnz.ops.grid_belief.cpu.domain import inverse, probability, times, total
from lnz.ops.jit.cpu import helper
from lnz.ops.jit.cpu.math import exp, log
from lnz.ops.jit.cpu.memory import full_like, load, store
from lnz.ops.jit.cpu.vectors import absolute, maximum, select


@helper()
def hold_block(at, n, domain, damping, floor, x, messages, line, labels):
    """Normalise the messages ``x [L, ROOM]`` that n edges ``at …`` bring, bound them, mix them with the old ones."""
    scale = inverse(domain, total(domain, x, at, labels), labels if len(domain) == 0 else 1)
    for l in range(labels):
        new = bounded(domain, times(domain, load(x, l * ROOM + at), scale), floor)
        if damping[0] > 0:
            new = mixed(domain, damping, new, load(messages, l * line + at, n))
        store(new, x, l * ROOM + at)


@helper()
def commit_block(at, n, domain, done, x, messages, line, labels, change):
    """Store ``x [L, ROOM]``, the messages that edges ``at …`` bring, scaled to mean one.

    In logarithms they are scaled to 0, unless that is ``done``. ``change``, a vector, becomes the largest change of a
    probability so far.
    """
    scale = inverse(domain, total(domain, x, at, labels), labels if len(domain) == 0 else 1)
    if len(domain) > 0 and done:
        scale = full_like(x, 0)
    largest = load(change, 0)
    for l in range(labels):
        new, old = times(domain, load(x, l * ROOM + at), scale), load(messages, l * line + at, n)
        largest = maximum(absolute(probability(domain, new) - probability(domain, old)), largest)
        store(new, messages, l * line + at, n)
    store(largest, change, 0, n)


@helper()
def bounded(domain, x, floor):
    """At least ``floor``, in logarithms; −inf stays."""
    if len(domain) == 0:
        return x
    return select((x > -math.inf) & (x < floor), floor, x)


@helper()
def mixed(domain, damping, new, old):
    """new^(1 − damping) · old^damping."""
    if len(domain) == 0:
        return exp(damping[1] * log(new) + damping[0] * log(old))
    return damping[1] * new + damping[0] * old
