"""Any factor graph: one node after the other, from the factors around it, scores read where the user's tensors lie.

By the rule of Gibbs, a draw from the node's conditional distribution, or by that of Metropolis, a uniform proposal.
"""

from __future__ import annotations

import math

import numpy as np

from lnz.ops.jit.cpu import kernel
from lnz.ops.jit.cpu.memory import pointer_to
from lnz.ops.jit.cpu.philox import U64, philox4x32, uniform53


@kernel()
def redraw(
    states, free, cards, wiring, groups, strides, base,
    key, begin, end, stride, first, steps, sequence, low, high, beta, accepted,
):  # fmt: skip
    """Redraw the nodes ``sequence[low … high − 1]`` one after the other, ``steps`` times.

    Args:
        states: ``int32 [images, N]``, the labels.
        free: ``bool [N]``, the nodes that may change, or ``[0]`` where all may.
        cards: ``int64 [N]``.
        wiring: starts ``int64 [N + 1]`` in the factors around each node, ``int32 [I, 4]`` (group, factor, position, the
            other node if there are two); starts ``int64 [G]`` in the scopes, one after the other, ``int64 [Σ F k]``.
        groups: ``int64 [G, 6]``: arity, first of its strides, address of the scores, stride of the factors, address of
            the weights or 0, stride of the factors there.
        strides: ``int64 [Σ k]``, those of the labels.
        base: ``int64 [2, B, G]``, where the scores and weights of a batch entry begin.
        key: ``uint64 [2]``.
        begin: the first image; the number of an image is also that of its random numbers.
        end: where images end.
        stride: how many images lie from one to the next, the number of batch entries.
        first: the number of the first sweep.
        steps: how many sweeps.
        sequence: ``int64 [M]`` of nodes; −1 stands for one drawn at random.
        low: the first position.
        high: the position after the last.
        beta: float ``[1]``, one over the temperature, of the dtype of the scores.
        accepted: ``int64 [images]``, to which the proposals that each image accepts are added; ``[0]`` for Gibbs.
    """
    start, around, scope_start, scopes = wiring
    k0, k1, b = key[0], key[1], float(beta[0])
    total = np.empty(cards.max() if cards.size else 0, np.float64)
    entry = begin % stride
    for chain in range(begin, end, stride):
        X = states[chain]
        for t in range(steps):
            for p in range(low, high):
                w0, w1, w2, w3 = philox4x32(U64(p), U64(0), U64(chain), U64(first + t), k0, k1)
                node = sequence[p]
                if node < 0:
                    node = int(uniform53(w2, w3) * cards.size)
                if free.size > 0 and not free[node]:
                    continue
                labels = cards[node]
                total[:labels] = 0.0
                for i in range(start[node], start[node + 1]):
                    g, f, position = around[i, 0], around[i, 1], around[i, 2]
                    arity, s = groups[g, 0], groups[g, 1]
                    at = base[0, entry, g] + f * groups[g, 3]
                    if arity == 2:
                        at += X[around[i, 3]] * strides[s + 1 - position]
                    else:
                        for j in range(arity):
                            if j != position:
                                at += X[scopes[scope_start[g] + f * arity + j]] * strides[s + j]
                    own = strides[s + position]
                    scores = pointer_to(groups[g, 2], beta)
                    weight = 1.0
                    if groups[g, 4] != 0:
                        weight = float(pointer_to(groups[g, 4], beta)[base[1, entry, g] + f * groups[g, 5]])
                    for l in range(labels):
                        total[l] += weight * scores[at + l * own]
                if accepted.size > 0:
                    w2, w3, _, _ = philox4x32(U64(p), U64(1), U64(chain), U64(first + t), k0, k1)
                    offered = int(uniform53(w2, w3) * labels)
                    gain = (total[offered] - total[X[node]]) * b
                    if gain >= 0.0 or uniform53(w0, w1) < math.exp(gain):  # not where it is NaN
                        X[node] = offered
                        accepted[chain] += 1
                    continue
                top = total[0]
                for l in range(1, labels):
                    top = max(top, total[l])
                if top == -np.inf:
                    continue
                z = 0.0
                for l in range(labels):
                    z += math.exp((total[l] - top) * b)
                    total[l] = z
                mark = uniform53(w0, w1) * z
                drawn = 0
                for l in range(labels):
                    drawn += total[l] <= mark
                X[node] = drawn
