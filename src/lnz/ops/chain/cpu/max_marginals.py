"""Max-marginals: the best score of a labelling with each label, or with each pair of neighbours.

The best labelling through label l at step t scores α_t(l) + β_t(l), which is as far behind the largest of that step as
the labelling is behind the best of all: s* + (α_t(l) + β_t(l) − max). Both recursions are in float64, relative to the
best label of each step, and s* is the compensated sum of what they were made relative to; so the largest entry of every
step is the same number, and what is rounded to the dtype of the scores is the answer only.
"""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from lnz.ops.chain.cpu.arguments import Inputs, Tile, Work
from lnz.ops.chain.cpu.max_forward import (
    advance,
    block_of,
    forward,
    forward_to_the_end,
    lay,
    lay_transposed,
    rows_of,
    table_of,
)
from lnz.ops.chain.cpu.rows import FLAGS
from lnz.ops.chain.cpu.sweep import TILE
from lnz.ops.chain.records import Chains, with_a_table
from lnz.ops.jit import buffers
from lnz.ops.jit.cpu import helper, kernel
from lnz.ops.jit.cpu.memory import address, fold_blocks, full_like, load
from lnz.ops.jit.cpu.product import maximise
from lnz.ops.jit.cpu.vectors import max_lanes, maximum
from lnz.ops.jit.threads import parallel, partition
from lnz.ops.jit.work import arrays, threads_for


@helper(fastmath=FLAGS)
def highest_sum(alpha, beta, size):
    """``max_l alpha[l] + beta[l]``, pointers; both are −inf beyond the labels, or numbers."""
    return max_lanes(fold_blocks(_climb_sum, full_like(alpha, -math.inf), size, alpha, beta))


@helper(fastmath=FLAGS)
def _climb_sum(top, at, n, alpha, beta):
    return maximum(load(alpha, at, n, -math.inf) + load(beta, at, n), top)


@helper(fastmath=FLAGS)
def write_row(out, score, top, alpha, beta):
    """``out = score + (alpha + beta − top)``."""
    for l in range(out.size):
        out[l] = score + ((alpha[l] + beta[l]) - top)


@helper(fastmath=FLAGS)
def write_table(out, score, top, alpha, table, onward):
    """``out [L, L] = score + (alpha_k + table_kl + onward_l − top)``, onward being x + β of the next step."""
    for k in range(len(out)):
        for l in range(len(out)):
            out[k, l] = score + ((alpha[k] + (table[k, l] + onward[l])) - top)


@kernel(fastmath=FLAGS)
def run(first, last, chains, block, nodes, edges):
    """Of sequences first … last − 1: ``nodes [B, T, L]`` and ``edges [B, T − 1, L, L]``, written unless empty.

    −inf over padding and where there is no labelling. α is kept of ``block`` steps at a time.
    """
    node, edge, lengths = chains
    size = node.shape[2]
    several, rows = edge.shape[1] > 1, TILE if len(edge) == 1 else 1
    with_nodes, with_edges = len(nodes) > 0, len(edges) > 0
    table, into = table_of(size), table_of(size)
    message, offsets, scores = rows_of(TILE, size), np.zeros((TILE, 2)), np.zeros(TILE)
    kept = np.empty((rows, block, size))
    for at in range(first, last, rows):
        count, own, longest = min(rows, last - at), at if len(edge) > 1 else 0, 0
        for b in range(at, at + count):
            longest = max(longest, lengths[b])
            if with_nodes:
                nodes[b, lengths[b] :] = -math.inf
            if with_edges:
                edges[b, max(0, lengths[b] - 1) :] = -math.inf
        if not several and (at == first or len(edge) > 1):
            lay(edge[own, 0], table)
            lay_transposed(edge[own, 0], into)
        tile = Tile(at, count, longest, False)
        before = forward_to_the_end(chains, tile, block, table, message, kept, offsets)
        state = rows_of(TILE, size)
        columns, blocks = state.T, (longest + block - 1) // block
        for c in range(blocks - 1, -1, -1):
            start, stop = c * block, min(longest, (c + 1) * block)
            if c < blocks - 1:
                again = np.zeros((TILE, 2))
                forward(chains, tile, start, stop, Work(table, before[c], message), kept, again)
            for t in range(stop - 1, start - 1, -1):
                if t < longest - 1:
                    if several:
                        lay_transposed(edge[own, t], into)
                        if with_edges:
                            lay(edge[own, t], table)
                    maximise(columns, into, message, count, size)
                for r in range(count):
                    b = at + r
                    if t < lengths[b]:
                        if t == lengths[b] - 1:
                            message[r, :size] = 0
                        top = highest_sum(address(kept, (r, t - start)), address(message, r), size)
                        if t == lengths[b] - 1:
                            scores[r] = top + (offsets[r, 0] + offsets[r, 1])
                        if top == -math.inf:  # then no labelling is possible
                            if with_nodes:
                                nodes[b, t] = -math.inf
                            if with_edges and t < lengths[b] - 1:
                                edges[b, t] = -math.inf
                        else:
                            if with_nodes:
                                write_row(nodes[b, t], scores[r], top, kept[r, t - start], message[r])
                            if with_edges and t < lengths[b] - 1:
                                write_table(edges[b, t], scores[r], top, kept[r, t - start], table, state[r])
                        advance(address(message, r), address(node, (b, t)), address(state, r), size)


def max_marginals(chains: Chains, of_edges: bool) -> Tensor:
    """Those of nodes ``[B, T, L]``, or of edges ``[B, T − 1, L, L]``; O(B T L²) time, O(√T L) memory beside them."""
    B, T, L = chains.node.shape
    shape = (B, max(0, T - 1), L, L) if of_edges else (B, T, L)
    out = buffers.empty(*shape, dtype=chains.node.dtype)
    nodes = out.new_empty(0, 0, 0) if of_edges else out
    edges = out if of_edges else out.new_empty(0, 0, 0, 0)
    inputs = Inputs(*arrays(*with_a_table(chains)))
    outputs = block_of(chains), nodes.numpy(), edges.numpy()
    parallel(run, partition(B, threads_for(chains.node.numel()), 4), inputs, *outputs)
    return out
