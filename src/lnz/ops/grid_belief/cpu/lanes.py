"""Arithmetic along a row of pixels, in the domain of the messages.

``EXP`` keeps probabilities, ``LOG`` their logarithms (sum-product), ``MAX`` max-marginals in logarithms.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from lnz.ops.jit.cpu.math import exp, log

EXP: tuple[()] = ()  # a domain is the length of a tuple, which the compiler knows: each gets a kernel of its own
LOG, MAX = (0,), (0, 0)
FLAGS = {"contract"}


@njit(fastmath=FLAGS)
def fill(out, value):
    for k in range(out.size):
        out[k] = value


@njit(fastmath=FLAGS)
def copy(out, a):
    for k in range(out.size):
        out[k] = a[k]


@njit(fastmath=FLAGS)
def add(out, a):
    for k in range(out.size):
        out[k] += a[k]


@njit(fastmath=FLAGS)
def include(domain, out, a):
    if len(domain) == 0:
        for k in range(out.size):
            out[k] *= a[k]
    else:
        for k in range(out.size):
            out[k] += a[k]


@njit(fastmath=FLAGS)
def combine(domain, out, a, b):
    if len(domain) == 0:
        for k in range(out.size):
            out[k] = a[k] * b[k]
    else:
        for k in range(out.size):
            out[k] = a[k] + b[k]


@njit(fastmath=FLAGS)
def multiply_add(out, a, b):
    for k in range(out.size):
        out[k] += a[k] * b[k]


@njit(fastmath=FLAGS)
def larger(out, a):
    for k in range(out.size):
        out[k] = a[k] if a[k] > out[k] else out[k]


@njit(fastmath=FLAGS)
def larger_sum(out, a, b):
    for k in range(out.size):
        total = a[k] + b[k]
        out[k] = total if total > out[k] else out[k]


@njit(fastmath=FLAGS)
def add_exp(out, a, b, top):
    """Add exp(a + b − top); nothing where top is −inf (exp of NaN is 0)."""
    for k in range(out.size):
        out[k] += exp(a[k] + b[k] - top[k])


@njit(fastmath=FLAGS)
def add_exp_difference(out, a, top):
    for k in range(out.size):
        out[k] += exp(a[k] - top[k])


@njit(fastmath=FLAGS)
def add_log(out, total):
    for k in range(out.size):
        out[k] += log(total[k])


@njit(fastmath=FLAGS)
def logarithm(domain, total):
    if len(domain) == 0:
        for k in range(total.size):
            total[k] = log(total[k])


@njit(fastmath=FLAGS)
def mix(domain, new, old, keep, take):
    """new^take · old^keep."""
    if len(domain) == 0:
        for k in range(new.size):
            new[k] = exp(take * log(new[k]) + keep * log(old[k]))
    else:
        for k in range(new.size):
            new[k] = take * new[k] + keep * old[k]


@njit(fastmath=FLAGS)
def raise_to(x, floor):
    """Up to ``floor`` what lies below it; −inf stays."""
    for k in range(x.size):
        x[k] = floor if -np.inf < x[k] < floor else x[k]


@njit(fastmath=FLAGS)
def compare(domain, old, new, change):
    if len(domain) == 0:
        for k in range(new.size):
            d = abs(new[k] - old[k])
            change[k] = d if d > change[k] else change[k]
    else:
        for k in range(new.size):
            d = abs(exp(new[k]) - exp(old[k]))
            change[k] = d if d > change[k] else change[k]


@njit(fastmath={"contract", "reassoc"})
def dot(a, b):
    total = a[0] * 0
    for k in range(a.size):
        total += a[k] * b[k]
    return total


@njit(fastmath=FLAGS)
def scaled_add(out, a, scale):
    for k in range(out.size):
        out[k] += scale * a[k]


@njit(fastmath=FLAGS)
def sum_out(domain, x, labels, n, total, work):
    """Over the labels: Σ (``EXP``), ln Σ exp (``LOG``) or max (``MAX``), per lane, into ``total``."""
    copy(total[:n], x[0, :n])
    for l in range(1, labels):
        if len(domain) == 0:
            add(total[:n], x[l, :n])
        else:
            larger(total[:n], x[l, :n])
    if len(domain) == 1:
        fill(work[:n], 0)
        for l in range(labels):
            add_exp_difference(work[:n], x[l, :n], total[:n])
        add_log(total[:n], work[:n])


@njit(fastmath=FLAGS)
def invert(domain, total, count):
    """What normalises: count / total, or −ln; neutral where nothing is possible."""
    if len(domain) == 0:
        for k in range(total.size):
            total[k] = count / total[k] if total[k] > 0 else total[k]
    else:
        for k in range(total.size):
            total[k] = -total[k] if total[k] > -np.inf else count - count
