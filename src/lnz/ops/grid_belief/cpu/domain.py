"""Products and sums in the domain of the messages, a vector of pixels at a time.

``EXP`` has products and sums, ``LOG`` sums and ln Σ exp, ``MAX`` sums and maxima. The compiler knows the length of a
domain, which is 0 for ``EXP``; ``LOG`` and ``MAX`` share a kernel. Rows of scratch lie ``ROOM`` apart.
"""

from __future__ import annotations

import math

from lnz.ops.grid_belief.cpu.arguments import ROOM
from lnz.ops.jit.cpu import helper
from lnz.ops.jit.cpu.math import exp, log
from lnz.ops.jit.cpu.memory import full_like, load
from lnz.ops.jit.cpu.vectors import maximum, select


@helper()
def times(domain, a, b):
    if len(domain) == 0:
        return a * b
    return a + b


@helper()
def plus(domain, a, b):
    """Sums (``EXP``) or the larger; b where a is NaN."""
    if len(domain) == 0:
        return a + b
    return maximum(a, b)


@helper()
def nothing(domain, like):
    """What impossible labels have, in every lane."""
    if len(domain) == 0:
        return full_like(like, 0)
    return full_like(like, -math.inf)


@helper()
def probability(domain, x):
    if len(domain) == 0:
        return x
    return exp(x)


@helper()
def logarithm(domain, x):
    if len(domain) == 0:
        return log(x)
    return x


@helper()
def total(domain, x, at, labels):
    """Over rows of scratch: Σ (``EXP``), ln Σ exp (``LOG``) or max (``MAX``)."""
    result = nothing(domain, x)
    for l in range(labels):
        value = load(x, l * ROOM + at)
        result = result + value if len(domain) == 0 else maximum(value, result)
    if len(domain) > 0 and domain[0] == 0:
        rest = full_like(x, 0)
        for l in range(labels):
            rest += exp(load(x, l * ROOM + at) - result)
        result += log(rest)
    return result


@helper()
def inverse(domain, whole, count):
    """What scales a total to ``count`` (in logarithms, to 0); neutral where nothing is possible."""
    if len(domain) == 0:
        return select(whole > 0, count / whole, 0)
    return select(whole > -math.inf, 0 - whole, 0)
