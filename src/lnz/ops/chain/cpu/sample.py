"""Samples of labellings: forward filtering, backward sampling."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lnz.ops.chain.cpu.forward_backward import Run
from lnz.ops.chain.cpu.rows import FLAGS
from lnz.ops.chain.cpu.sweep import CHECK_RANGE, EXP_NODES, FORWARD, exp_table
from lnz.ops.chain.records import Chains
from lnz.ops.jit.cpu import helper, kernel
from lnz.ops.jit.cpu.memory import address
from lnz.ops.jit.threads import parallel, partition
from lnz.ops.jit.work import threads_for

IGNORE = -100


@helper(fastmath=FLAGS)
def weigh(out, message, local, column):
    for l in range(out.size):
        out[l] = message[l] * local[l] * column[l]


@helper(fastmath=FLAGS)
def pick(weights, uniform):
    """The first label at which the cumulative sum passes ``uniform`` times the whole; never one of weight 0."""
    total = 0.0
    for l in range(weights.size):
        total += weights[l]
    left, chosen = uniform * total, 0
    for l in range(weights.size):
        if weights[l] > 0:
            chosen = l
            left -= weights[l]
            if left < 0:
                break
    return chosen


@kernel(fastmath=FLAGS)
def run(first, last, nodes, messages, edge, lengths, uniform, labels):
    """Of sequences first … last − 1: ``labels int64 [n, B, T]``, −100 beyond, by ``uniform [n, B, T]`` numbers.

    ``nodes`` and ``messages`` are as the stages ``EXP_NODES`` and ``FORWARD`` leave them;
    ``edge [B or 1, T − 1 or 1, L, L]``.
    """
    size = nodes.shape[2]
    several = edge.shape[1] > 1
    columns, weights, ones = (
        np.empty((size, size), nodes.dtype),
        np.empty(size, nodes.dtype),
        np.ones(size, nodes.dtype),
    )
    for b in range(first, last):
        own = b if len(edge) > 1 else 0
        n = lengths[b]
        labels[:, b, n:] = IGNORE
        for t in range(n - 1, -1, -1):
            if t < n - 1 and (several or t == n - 2):
                exp_table(address(edge, (own, t if several else 0)), columns, size, True)
            for m in range(len(labels)):
                column = columns[labels[m, b, t + 1]] if t < n - 1 else ones
                weigh(weights, messages[b, t], nodes[b, t], column)
                labels[m, b, t] = pick(weights, uniform[m, b, t])


def sample(chains: Chains, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Labellings ``int64 [n, B, T]`` by random numbers ``[n, B, T]`` in [0, 1), and which entries are in range."""
    filtering = Run(chains)
    filtering(EXP_NODES, FORWARD, CHECK_RANGE)
    labels = torch.empty(uniform.shape, dtype=torch.int64)
    _, edges, counts = filtering.inputs
    inputs = filtering.nodes.numpy(), filtering.forward_factor.numpy(), edges, counts
    threads = threads_for(uniform.numel() * chains.node.shape[2])
    parallel(run, partition(len(chains.node), threads, 4), *inputs, uniform.numpy(), labels.numpy())
    return labels, filtering.in_range
