"""Any factor graph: one node after the other, from the factors around it, scores read where the user's tensors lie.

By the rule of Gibbs, a draw from the node's conditional distribution, or by that of Metropolis, a uniform proposal.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from lnz.ops.jit.cpu import helper, kernel
from lnz.ops.jit.cpu.memory import pointer_to
from lnz.ops.jit.cpu.philox import U64, philox4x32, uniform53
from lnz.ops.jit.cpu.rows import top_of

ARITY, STRIDES, SCORES, STEP, WEIGHTS, WEIGHT_STEP = range(6)
"""What is known of a group of factors: how many nodes each has, where its strides begin, the address of the scores, how
far apart those of factors are, the address of the weights or 0, how far apart those of factors are."""


class Factors(NamedTuple):
    """A model: its wiring, and where the scores are.

    Attributes:
        cards: ``int64 [N]``.
        starts: ``int64 [N + 1]``, where the factors around each node start in
        around: ``int32 [I, 4]``: group, factor, position, the other node if there are two.
        scope_starts: ``int64 [G]``, where the scopes of groups start in
        scopes: ``int64 [Σ F k]``, one after the other.
        groups: ``int64 [G, 6]``, see above.
        strides: ``int64 [Σ k]``, those of the labels.
        base: ``int64 [2, B, G]``, where the scores and weights of a batch entry begin.
        beta: ``[1]``, one over the temperature, of the dtype of the scores.
    """

    cards: Any
    starts: Any
    around: Any
    scope_starts: Any
    scopes: Any
    groups: Any
    strides: Any
    base: Any
    beta: Any


class Chains(NamedTuple):
    """What moves.

    Attributes:
        states: ``int32 [images, N]``, the labels.
        free: ``bool [N]``, the nodes that may change, or ``[0]`` where all may.
        accepted: ``int64 [images]``, to which the proposals that each image accepts are added; ``[0]`` for Gibbs.
    """

    states: Any
    free: Any
    accepted: Any


class Turn(NamedTuple):
    """Which nodes of which images are redrawn when.

    Attributes:
        begin: the first image; the number of an image is also that of its random numbers.
        end: where images end.
        stride: how many images lie from one to the next, the number of batch entries.
        first: the number of the first sweep.
        steps: how many sweeps.
        low: the first position in the sequence of nodes.
        high: the position after the last.
    """

    begin: int
    end: int
    stride: int
    first: int
    steps: int
    low: int
    high: int


@kernel()
def redraw(factors, chains, sequence, turn, key):
    """Redraw nodes one after the other.

    Args:
        factors: the model.
        chains: move in place.
        sequence: ``int64 [M]`` of nodes; −1 stands for one drawn at random.
        turn: which of them.
        key: ``uint64 [2]``, of the random numbers.
    """
    cards, free, accepted = factors.cards, chains.free, chains.accepted
    k0, k1, beta, entry = key[0], key[1], float(factors.beta[0]), turn.begin % turn.stride
    total = np.empty(top_of(cards) if cards.size else 0, np.float64)
    for chain in range(turn.begin, turn.end, turn.stride):
        X = chains.states[chain]
        for sweep in range(turn.first, turn.first + turn.steps):
            for p in range(turn.low, turn.high):
                w0, w1, w2, w3 = philox4x32(U64(p), U64(0), U64(chain), U64(sweep), k0, k1)
                node = sequence[p]
                if node < 0:
                    node = int(uniform53(w2, w3) * cards.size)
                if free.size > 0 and not free[node]:
                    continue
                labels = cards[node]
                conditional(factors, entry, node, X, total)
                if accepted.size > 0:
                    w2, w3, _, _ = philox4x32(U64(p), U64(1), U64(chain), U64(sweep), k0, k1)
                    offered = int(uniform53(w2, w3) * labels)
                    gain = (total[offered] - total[X[node]]) * beta
                    if gain >= 0.0 or uniform53(w0, w1) < math.exp(gain):  # not where it is NaN
                        X[node] = offered
                        accepted[chain] += 1
                else:
                    drawn = draw(total, labels, beta, uniform53(w0, w1))
                    if drawn >= 0:
                        X[node] = drawn


@helper(forceinline=True)
def conditional(factors, entry, node, X, total):
    """The score of every label of a node given all others, into ``total``."""
    around, groups, strides, base = factors.around, factors.groups, factors.strides, factors.base
    labels = factors.cards[node]
    for l in range(labels):
        total[l] = 0.0
    for i in range(factors.starts[node], factors.starts[node + 1]):
        g, f, position = around[i, 0], around[i, 1], around[i, 2]
        arity, s = groups[g, ARITY], groups[g, STRIDES]
        at = base[0, entry, g] + f * groups[g, STEP]
        if arity == 2:
            at += X[around[i, 3]] * strides[s + 1 - position]
        else:
            for j in range(arity):
                if j != position:
                    at += X[factors.scopes[factors.scope_starts[g] + f * arity + j]] * strides[s + j]
        own, weight = strides[s + position], 1.0
        scores = pointer_to(groups[g, SCORES], factors.beta)
        if groups[g, WEIGHTS] != 0:
            weight = float(pointer_to(groups[g, WEIGHTS], factors.beta)[base[1, entry, g] + f * groups[g, WEIGHT_STEP]])
        for l in range(labels):
            total[l] += weight * scores[at + l * own]


@helper(forceinline=True)
def draw(total, labels, beta, uniform):
    """A label in proportion to exp(β · total), −1 where none is possible; sums of weights into ``total``."""
    top = total[0]
    for l in range(1, labels):
        top = max(top, total[l])
    if top == -np.inf:
        return -1
    z = 0.0
    for l in range(labels):
        z += math.exp((total[l] - top) * beta)
        total[l] = z
    mark, drawn = uniform * z, 0
    for l in range(labels):
        drawn += total[l] <= mark
    return drawn
