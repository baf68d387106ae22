"""Calls into the kernel of :mod:`lnz.ops.chain.cpu.sweep`: its arrays, and which thread does which stage."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lnz.ops.chain.cpu.arguments import LIMITS, Inputs, Span, Sweep
from lnz.ops.chain.cpu.sweep import BACKWARD, CHECK_RANGE, EXP_NODES, FINALIZE, FORWARD, START, run
from lnz.ops.chain.records import Chains, with_a_table
from lnz.ops.jit import buffers
from lnz.ops.jit.threads import side_by_side
from lnz.ops.jit.work import arrays, shares_of, threads_for


class Result(NamedTuple):
    """What one pass over B chains gives; as :class:`lnz.ops.chain.records.Pass`.

    Attributes:
        log_z: ln Z, float64 ``[B]``.
        nodes: marginals ``[B, T, L]``.
        forward_factor: ``[B, T, L]``.
        backward_factor: ``[B, T, L]``.
        in_range: bool ``[B]``: the results of other entries mean nothing.
    """

    log_z: Tensor
    nodes: Tensor
    forward_factor: Tensor
    backward_factor: Tensor
    in_range: Tensor


class Run:
    """The arrays of one run, and its stages."""

    def __init__(self, chains: Chains) -> None:
        node = chains.node
        B, T, L = self.shape = node.shape
        self.nodes = buffers.empty(B, T, L, dtype=node.dtype)
        self.forward_factor, self.backward_factor = (buffers.empty(B, T, L, dtype=node.dtype) for _ in range(2))
        self.log_z, self.in_range = torch.empty(B, dtype=torch.float64), torch.empty(B, dtype=torch.bool)
        self.inputs = Inputs(*arrays(*with_a_table(chains)))
        tops, scales = np.empty((2, B, T), self.inputs.node.dtype)
        range_stats = np.empty((B, len(START)))
        range_stats[:] = START
        log_z, nodes, forward, backward = arrays(self.log_z, self.nodes, self.forward_factor, self.backward_factor)
        limits, in_range = LIMITS[node.dtype], self.in_range.numpy()
        self.outputs = Sweep(log_z, nodes, forward, backward, tops, scales, range_stats, limits, in_range)

    def __call__(self, *stages: int) -> None:
        """Do the stages. Threads share the sequences; of a single one, its steps, where a stage allows any order."""
        B, T, L = self.shape

        def task(stages: int, *span: int) -> partial[None]:
            return partial(run, stages, self.inputs, Span(*span), self.outputs)

        threads = threads_for(B * T * L)
        if threads == 1 or B > 1:
            side_by_side([task(sum(stages), first, last, 0, T) for first, last in shares_of(B, threads)])
            return
        ranges = shares_of(T, threads)
        if EXP_NODES in stages:
            side_by_side([task(EXP_NODES, 0, 1, *steps) for steps in ranges])
        side_by_side([task(stage, 0, 1, 0, T) for stage in stages if stage in (FORWARD, BACKWARD)])
        if FINALIZE in stages:
            side_by_side([task(FINALIZE, 0, 1, *steps) for steps in ranges])
        if CHECK_RANGE in stages:
            task(CHECK_RANGE, 0, 1, 0, T)()


def forward_backward(chains: Chains) -> Result:
    """ln Z, node marginals and the factors of edge marginals. O(B T L²) time, O(B T L) memory."""
    done = Run(chains)
    done(EXP_NODES, FORWARD, BACKWARD, FINALIZE, CHECK_RANGE)
    return Result(done.log_z, done.nodes, done.forward_factor, done.backward_factor, done.in_range)
