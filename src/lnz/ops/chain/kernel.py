"""Calls into the kernels: which thread does what, and which results can be vouched for."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from lnz.ops.jit.threads import side_by_side

_SHARED = 2**13  # scores of nodes from which threads share the work
_REACH = {torch.float32: 60.0, torch.float64: 600.0}  # e^−that, and what is left of it, are inside the range
_RANGE = {torch.float32: 79.0, torch.float64: 637.0}  # nine tenths of the range


class Factors(NamedTuple):
    """What one pass over B chains gives; see :mod:`lnz.ops.chain.cpu.sweep`.

    Attributes:
        log_z: ln Z, float64 ``[B]``.
        nodes: marginals ``[B, T, L]``.
        before: ``[B, T, L]``, and
        after: ``[B, T, L]``: P(y_t = k, y_{t+1} = l) = before_t(k) · after_{t+1}(l) · exp(A_t(k, l) − max A_t).
        exact: bool ``[B]``, which entries are what they should be; the others mean nothing.
    """

    log_z: Tensor
    nodes: Tensor
    before: Tensor
    after: Tensor
    exact: Tensor


class _Run:
    """The arrays of one run, and its stages."""

    def __init__(self, node: Tensor, edge: Tensor, lengths: Tensor) -> None:
        B, T, _ = node.shape
        self.node, self.edge, self.lengths = node.contiguous(), edge.contiguous(), lengths.contiguous()
        if not edge.numel():
            self.edge = edge.new_zeros(1, 1, *edge.shape[2:])  # for chains of one step
        self.banded = bool(torch.isneginf(edge.amin())) if edge.numel() else False
        self.nodes, self.before, self.after = (torch.empty_like(self.node) for _ in range(3))
        self.tops, self.scales = node.new_empty(B, T), node.new_empty(B, T)
        self.log_z = torch.empty(B, dtype=torch.float64)
        self.report = torch.tensor([1.0, 0, 1, 0, 1, 1], dtype=torch.float64).repeat(B, 1)
        self.arrays = [
            t.detach().numpy()
            for t in (self.log_z, self.nodes, self.before, self.after, self.tops, self.scales, self.report)
        ]
        self.inputs = [t.detach().numpy() for t in (self.node, self.edge, self.lengths)]

    def __call__(self, *stages: int) -> None:
        """Do the stages, on one thread or on as many as torch has."""
        from lnz.ops.chain.cpu.sweep import BACKWARD, COLLECT, FORWARD, LIFT, run

        B, T, L = self.node.shape

        def task(stages: int, first: int, last: int, begin: int, end: int) -> Callable[[], None]:
            return lambda: run(stages, *self.inputs, first, last, begin, end, self.banded, *self.arrays)

        threads = torch.get_num_threads() if B * T * L >= _SHARED else 1
        if threads == 1 or B > 1:
            side_by_side([task(sum(stages), first, last, 0, T) for first, last in _shares(B, threads)])
            return
        ranges = _shares(T, threads)
        if LIFT in stages:
            side_by_side([task(LIFT, 0, 1, *steps) for steps in ranges])
        side_by_side([task(stage, 0, 1, 0, T) for stage in stages if stage in (FORWARD, BACKWARD)])
        if COLLECT in stages:
            side_by_side([task(COLLECT, 0, 1, *steps) for steps in ranges])

    @property
    def exact(self) -> Tensor:
        proper, reach, alpha, local, beta, joint = self.report.unbind(1)
        small = alpha.minimum(beta).log() + local - reach if self.banded else -reach
        limit = (_RANGE if self.banded else _REACH)[self.node.dtype]
        return (proper == 1) & (small > -limit) & ((joint.log() > -limit) | torch.isneginf(self.log_z))


def _shares(count: int, parts: int) -> Sequence[tuple[int, int]]:
    """``count`` tasks as ranges of about equal size, multiples of four where there are enough."""
    unit = 4 if count >= 4 * parts else 1
    units = math.ceil(count / unit)
    parts = min(parts, units)
    cuts = [min(count, unit * (units * k // parts)) for k in range(parts + 1)]
    return [*pairwise(cuts)]


def forward_backward(node: Tensor, edge: Tensor, lengths: Tensor) -> Factors:
    """ln Z, node marginals and the factors of edge marginals. O(B T L²) time, O(B T L) memory."""
    from lnz.ops.chain.cpu.sweep import BACKWARD, COLLECT, FORWARD, LIFT

    run = _Run(node, edge, lengths)
    run(LIFT, FORWARD, BACKWARD, COLLECT)
    return Factors(run.log_z, run.nodes, run.before, run.after, run.exact)


def viterbi(node: Tensor, edge: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """A best labelling ``int64 [B, T]`` and its score, float64 ``[B]``; −100 and −inf where there is none."""
    from lnz.ops.chain.cpu.viterbi import viterbi as best

    B, T, L = node.shape
    if not edge.numel():
        edge = edge.new_zeros(1, 1, L, L)
    labels, scores = torch.empty(B, T, dtype=torch.int64), torch.empty(B, dtype=torch.float64)
    arrays = [t.detach().contiguous().numpy() for t in (node, edge, lengths)]
    threads = torch.get_num_threads() if B * T * L >= _SHARED else 1

    def task(first: int, last: int) -> Callable[[], None]:
        return lambda: best(*arrays, first, last, labels.numpy(), scores.numpy())

    side_by_side([task(*share) for share in _shares(B, threads)])
    return labels, scores


def sample(node: Tensor, edge: Tensor, lengths: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Labellings ``int64 [n, B, T]`` by random numbers ``[n, B, T]`` in [0, 1), and which entries are exact."""
    from lnz.ops.chain.cpu.draw import draw
    from lnz.ops.chain.cpu.sweep import FORWARD, LIFT

    B = len(node)
    run = _Run(node, edge, lengths)
    run(LIFT, FORWARD)
    labels = torch.empty(uniform.shape, dtype=torch.int64)
    nodes, before, (_, edges, counts) = run.nodes.numpy(), run.before.numpy(), run.inputs

    def task(first: int, last: int) -> Callable[[], None]:
        return lambda: draw(nodes, before, edges, counts, first, last, uniform.numpy(), labels.numpy())

    threads = torch.get_num_threads() if uniform.numel() * node.shape[2] >= _SHARED else 1
    side_by_side([task(*share) for share in _shares(B, threads)])
    return labels, run.exact
