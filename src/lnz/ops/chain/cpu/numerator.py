"""What one given labelling adds: its score, and gradients gold − marginals without a tensor in between.

The marginals of edges that share one table are sums over pairs of neighbouring rows, P(k, l) = Σ f_t(k) · b_{t+1}(l) ·
exp(A(k, l) − max A) with the factors f and b of a pass: a product of matrices, done here for a few rows at a time
(those of all chains one behind the other: f is 0 at the last label of each), in the dtype of the scores for some
hundred rows, in float64 beyond.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lnz.ops.chain.cpu.rows import FLAGS, exp_shifted, largest, scaled_copy
from lnz.ops.chain.records import Labelled, Pass, with_a_table
from lnz.ops.jit import buffers
from lnz.ops.jit.cpu import helper, kernel
from lnz.ops.jit.cpu.memory import address
from lnz.ops.jit.cpu.product import add_matmul, workspace
from lnz.ops.jit.work import arrays, on_threads, shares_of, threads_for

ROWS = 64  # of a product
PRODUCTS = 8  # between two additions in float64
LARGEST = 64  # labels of rows that are multiplied in place


@kernel()
def run_log_prob(node, edge, lengths, y, log_z, out):
    """s(y) − ln Z of full labellings, into ``out [B]``. Shapes as in :func:`lnz.ops.chain.cpu.sweep.run`."""
    several = edge.shape[1] > 1
    for b in range(len(y)):
        own, total = b if len(edge) > 1 else 0, 0.0
        for t in range(lengths[b]):
            total += node[b, t, y[b, t]]
            if t:
                total += edge[own, t - 1 if several else 0, y[b, t - 1], y[b, t]]
        out[b] = total - (0.0 if log_z[b] == -math.inf else log_z[b])  # where Z = 0, the score is −inf already


class Labellings(NamedTuple):
    """A labelling of each of B chains, and what the pass over these left.

    Attributes:
        weight_gold: ``[B]``, of the indicators of y.
        weight_model: ``[B]``, of the marginals.
        lengths: ``int64 [B]``.
        y: ``int64 [B, T]``; what is beyond the lengths is not looked at.
        nodes: marginals ``[B, T, L]``.
        forward_factor: ``[B, T, L]``.
        backward_factor: ``[B, T, L]``.
    """

    weight_gold: Any
    weight_model: Any
    lengths: Any
    y: Any
    nodes: Any
    forward_factor: Any
    backward_factor: Any


class Gradients(NamedTuple):
    """By node scores ``[B, T, L]``; by edge scores float64 ``[L, L]``, of the model up to exp A, and of the labelling.

    ``nodes`` is weight_gold · indicators + weight_model · marginals, ``total`` Σ weight_model · f ⊗ b of the factors,
    and ``gold`` Σ weight_gold over pairs of labels.
    """

    nodes: Any
    total: Any
    gold: Any


@helper()
def flush(sums, total, weight):
    for k in range(len(total)):
        for l in range(total.shape[1]):
            total[k, l] += weight * sums[k, l]
            sums[k, l] = 0


@helper(fastmath=FLAGS)
def accumulate(weight, forward_factor, backward_factor, first, last, total):
    """``total [L, L]`` += Σ weight · f[row] ⊗ b[row + 1] of the factors, over rows first … last − 1 of all chains."""
    B, T, size = forward_factor.shape
    one = forward_factor.dtype.type(1)
    line = (size + 15) // 16 * 16
    left, right = workspace(ROWS, line + 16, forward_factor.dtype), workspace(ROWS, line + 16, forward_factor.dtype)
    sums = workspace(line, line, forward_factor.dtype)
    # rows that fill lines, and do not share cache sets, are multiplied where they are, if they all weigh the same
    direct = size == line and size <= LARGEST
    for b in range(B):
        direct = direct and weight[b] == weight[0]
    if direct:
        forwards, backwards = forward_factor.reshape(-1, size), backward_factor.reshape(-1, size)
        last = min(last, B * T - 1)  # the row after the last is not there, and nothing follows it
    share = np.float64(weight[0]) if direct else 1.0
    for products, at in enumerate(range(first, last, ROWS)):
        count = min(ROWS, last - at)
        if direct:
            add_matmul(forwards[at:], backwards[at + 1 :], sums, size, count, size)
        else:
            for r in range(count):
                b, t = divmod(at + r, T)
                scaled_copy(address(forward_factor, (b, t)), weight[b], address(left, r), size)
                if t < T - 1:
                    scaled_copy(address(backward_factor, (b, t + 1)), one, address(right, r), size)
            add_matmul(left, right, sums, size, count, size)
        if products % PRODUCTS == PRODUCTS - 1:
            flush(sums, total, share)
    flush(sums, total, share)


@kernel(fastmath=FLAGS)
def run_gradient(given, first, last, wanted, out):
    """Rows first … last − 1 of all chains, one behind the other: their parts of the gradients.

    ``given`` is a :class:`Labellings`, ``wanted`` whether gradients by node and by edge scores are, ``out`` a
    :class:`Gradients`, written.
    """
    weight_gold, weight_model, lengths, y, nodes, forward_factor, backward_factor = given
    at_node, total, gold = out
    with_nodes, with_edges = wanted
    T = nodes.shape[1]
    if with_nodes:
        rows = at_node.reshape(-1, nodes.shape[2])
        for row in range(first, last):
            b, t = divmod(row, T)
            scaled_copy(address(nodes, (b, t)), weight_model[b], address(rows, row), nodes.shape[2])
            if t < lengths[b]:
                at_node[b, t, y[b, t]] += weight_gold[b]
    if with_edges:
        total[:] = 0
        gold[:] = 0
        accumulate(weight_model, forward_factor, backward_factor, first, last, total)
        for row in range(first, last):
            b, t = divmod(row, T)
            if t + 1 < lengths[b]:
                gold[y[b, t], y[b, t + 1]] += weight_gold[b]


@kernel(fastmath=FLAGS)
def merge(edge, totals, golds, out):
    """``out [L, L]`` = Σ golds + exp(edge − max) Σ totals, both float64 ``[parts, L, L]``."""
    high = largest(address(edge, 0), edge.size)
    if high == -math.inf:
        high = edge.dtype.type(0)
    factor = np.empty(len(edge), edge.dtype)
    for k in range(len(edge)):
        exp_shifted(address(edge, k), high, address(factor, 0), len(edge))
        for l in range(len(edge)):
            total, gold = 0.0, 0.0
            for part in range(len(totals)):
                total += totals[part, k, l]
                gold += golds[part, k, l]
            out[k, l] = gold + total * factor[l]


def log_prob(given: Labelled, log_z: Tensor) -> Tensor:
    """s(y) − ln Z ``[B]`` of full labellings, in the dtype of the scores; summed in float64, in which ``log_z`` is."""
    out = given.node.new_empty(len(given.node))
    run_log_prob(*arrays(*with_a_table(given.chains), given.y, log_z, out))
    return out


def log_prob_gradient(given: Labelled, done: Pass, weight: Tensor, wanted: Sequence[bool]) -> tuple[Tensor, Tensor]:
    """``weight`` · (indicators of y − marginals), of nodes and of edges that share one table; empty if not wanted."""
    B, T, L = done.nodes.shape
    with_node, with_edge = wanted
    parts = shares_of(B * T, threads_for(B * T * L))
    at_node = buffers.empty(B, T, L, dtype=done.nodes.dtype) if with_node else done.nodes.new_empty(0)
    at_edge = torch.empty(1, 1, L, L, dtype=done.nodes.dtype) if with_edge else done.nodes.new_empty(0)
    factors = done.nodes, done.forward_factor, done.backward_factor
    inputs = Labellings(*arrays(weight, -weight, given.lengths, given.y, *factors))
    out = at_node.numpy() if with_node else np.empty((0, 0, 0), inputs.nodes.dtype)
    totals, golds = np.empty((2, len(parts), L, L) if with_edge else (2, len(parts), 0, 0))

    def task(part: int, first: int, last: int) -> None:
        run_gradient(inputs, first, last, (with_node, with_edge), Gradients(out, totals[part], golds[part]))

    on_threads(task, parts)
    if with_edge:
        merge(arrays(given.edge)[0][0, 0], totals, golds, at_edge.numpy()[0, 0])
    return at_node, at_edge
