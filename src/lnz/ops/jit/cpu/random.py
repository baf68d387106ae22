"""Uniform numbers for a vector of nodes at a time, every word of Philox used."""

from __future__ import annotations

import numpy as np
from numba.extending import overload

from lnz.ops.jit.cpu import helper
from lnz.ops.jit.cpu.memory import lane_numbers, load, store
from lnz.ops.jit.cpu.philox import U64, philox4x32, uniform24, uniform53
from lnz.ops.jit.cpu.vectors import LANES, astype, broadcast


def sharing(like):
    """How many blocks of nodes share the words of one call of :func:`ready_words`, as a power of two."""
    raise TypeError("only for use inside compiled functions")


def uniform(words, block, like):
    """Uniform numbers in [0, 1) for a block, in the dtype of ``like``: 24 bits of a word, or 53 bits of two."""
    raise TypeError("only for use inside compiled functions")


@overload(sharing, inline="always")
def _sharing(like):
    share = 2 if like.dtype.bitwidth == 32 else 1
    return lambda like: share


@overload(uniform, inline="always")
def _uniform(words, block, like):
    if like.dtype.bitwidth == 32:
        return lambda words, block, like: uniform24(load(words, LANES * (block & 3)))
    return lambda words, block, like: uniform53(
        load(words, 2 * LANES * (block & 1)), load(words, LANES * (2 * (block & 1) + 1))
    )


@helper(inline="always")
def ready_words(words, call, chain, step, k0, k1):
    """Words at successive counters into ``words``, a pointer to ``uint32 [4, 16]``: number 16 · ``call`` and on."""
    first = astype(lane_numbers() + call * LANES, np.uint64)
    w0, w1, w2, w3 = philox4x32(first, first >> U64(32), broadcast(U64(chain)), broadcast(U64(step)), k0, k1)
    store(w0, words, 0)
    store(w1, words, LANES)
    store(w2, words, 2 * LANES)
    store(w3, words, 3 * LANES)
