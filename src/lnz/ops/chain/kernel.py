"""Calls into the kernels: which thread does what, and which results can be vouched for."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lnz.ops.jit import buffers
from lnz.ops.jit.threads import side_by_side

_SHARED = 2**17  # scores of nodes from which threads share the work; waking one takes about 0.1 ms
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
        from lnz.ops.chain.cpu.sweep import START

        B, T, L = node.shape
        if not edge.numel():
            edge = edge.new_zeros(1, 1, L, L)  # for chains of one step
        self.shape = node.shape
        self.nodes, self.before, self.after = (buffers.empty(B, T, L, dtype=node.dtype) for _ in range(3))
        self.log_z, self.exact = torch.empty(B, dtype=torch.float64), torch.empty(B, dtype=torch.bool)
        self.inputs = arrays(node, edge, lengths)
        tops, scales = np.empty((2, B, T), self.inputs[0].dtype)
        report = np.empty((B, len(START)))
        report[:] = START
        results = arrays(self.log_z, self.nodes, self.before, self.after)
        limits = _REACH[node.dtype], _RANGE[node.dtype]
        self.outputs = [*results, tops, scales, report, limits, self.exact.numpy()]

    def __call__(self, *stages: int) -> None:
        """Do the stages, on one thread or on as many as torch has."""
        from lnz.ops.chain.cpu.sweep import BACKWARD, COLLECT, FORWARD, JUDGE, LIFT, run

        B, T, L = self.shape

        def task(stages: int, first: int, last: int, begin: int, end: int) -> Callable[[], None]:
            return lambda: run(stages, *self.inputs, first, last, begin, end, *self.outputs)

        threads = torch.get_num_threads() if B * T * L >= _SHARED else 1
        if threads == 1 or B > 1:
            side_by_side([task(sum(stages), first, last, 0, T) for first, last in shares(B, threads)])
            return
        ranges = shares(T, threads)
        if LIFT in stages:
            side_by_side([task(LIFT, 0, 1, *steps) for steps in ranges])
        side_by_side([task(stage, 0, 1, 0, T) for stage in stages if stage in (FORWARD, BACKWARD)])
        if COLLECT in stages:
            side_by_side([task(COLLECT, 0, 1, *steps) for steps in ranges])
        if JUDGE in stages:
            task(JUDGE, 0, 1, 0, T)()


def arrays(*tensors: Tensor) -> list[np.ndarray]:
    return [(t.detach() if t.requires_grad else t).contiguous().numpy() for t in tensors]


def shares(count: int, parts: int) -> Sequence[tuple[int, int]]:
    """``count`` tasks as ranges of about equal size, multiples of four where there are enough."""
    unit = 4 if count >= 4 * parts else 1
    units = math.ceil(count / unit)
    parts = min(parts, units)
    cuts = [min(count, unit * (units * k // parts)) for k in range(parts + 1)]
    return [*pairwise(cuts)]


def forward_backward(node: Tensor, edge: Tensor, lengths: Tensor) -> Factors:
    """ln Z, node marginals and the factors of edge marginals. O(B T L²) time, O(B T L) memory."""
    from lnz.ops.chain.cpu.sweep import BACKWARD, COLLECT, FORWARD, JUDGE, LIFT

    run = _Run(node, edge, lengths)
    run(LIFT, FORWARD, BACKWARD, COLLECT, JUDGE)
    return Factors(run.log_z, run.nodes, run.before, run.after, run.exact)


def is_full(y: Tensor, lengths: Tensor | None, labels: int) -> bool | None:
    """Whether y ``[*batch, T]`` is observed before ``lengths``; ``None`` where it holds what is no label."""
    from lnz.ops.chain.cpu.gold import FULL, LATENT, inspect

    *batch, T = y.shape
    if lengths is None:
        counts = np.full(math.prod(batch), T)
    else:
        counts = np.ascontiguousarray(np.broadcast_to(lengths.numpy(), batch)).reshape(-1)
    kind = inspect(np.ascontiguousarray(y.numpy()).reshape(len(counts), T), counts, labels)
    return kind == FULL if kind in (FULL, LATENT) else None


def log_prob(node: Tensor, edge: Tensor, lengths: Tensor, y: Tensor, log_z: Tensor) -> Tensor:
    """s(y) − ln Z of full labellings ``[B]``, in the dtype of the scores; summed in float64, in which ``log_z`` is."""
    from lnz.ops.chain.cpu.gold import log_prob as differences

    if not edge.numel():
        edge = edge.new_zeros(1, 1, *edge.shape[2:])
    out = node.new_empty(len(node))
    differences(*arrays(node, edge, lengths, y, log_z, out))
    return out


def gradient(
    edge: Tensor,
    lengths: Tensor,
    y: Tensor,
    nodes: Tensor,
    before: Tensor,
    after: Tensor,
    gold: Tensor,
    model: Tensor,
    with_node: bool,
    with_edge: bool,
) -> tuple[Tensor, Tensor]:
    """``gold`` · indicators of y + ``model`` · marginals, of nodes and of edges that share one table; or empty."""
    from lnz.ops.chain.cpu.gold import gradient, merge

    B, T, L = nodes.shape
    threads = torch.get_num_threads() if B * T * L >= _SHARED else 1
    parts = shares(B * T, threads)
    at_node = buffers.empty(B, T, L, dtype=nodes.dtype) if with_node else nodes.new_empty(0)
    at_edge = torch.empty_like(edge, memory_format=torch.contiguous_format) if with_edge else edge.new_empty(0)
    inputs = arrays(gold, model, lengths, y, nodes, before, after)
    out = at_node.numpy() if with_node else np.empty((0, 0, 0), inputs[0].dtype)
    totals, golds = np.empty((2, len(parts), L, L) if with_edge else (2, len(parts), 0, 0))

    def task(part: int, first: int, last: int) -> Callable[[], None]:
        return lambda: gradient(*inputs, first, last, with_node, with_edge, out, totals[part], golds[part])

    side_by_side([task(part, *rows) for part, rows in enumerate(parts)])
    if with_edge:
        merge(arrays(edge)[0][0, 0], totals, golds, at_edge.numpy()[0, 0])
    return at_node, at_edge


def viterbi(node: Tensor, edge: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """A best labelling ``int64 [B, T]`` and its score, float64 ``[B]``; −100 and −inf where there is none."""
    from lnz.ops.chain.cpu.viterbi import viterbi as best

    B, T, L = node.shape
    if not edge.numel():
        edge = edge.new_zeros(1, 1, L, L)
    labels, scores = torch.empty(B, T, dtype=torch.int64), torch.empty(B, dtype=torch.float64)
    inputs = arrays(node, edge, lengths)
    threads = torch.get_num_threads() if B * T * L >= _SHARED else 1

    def task(first: int, last: int) -> Callable[[], None]:
        return lambda: best(*inputs, first, last, labels.numpy(), scores.numpy())

    side_by_side([task(*share) for share in shares(B, threads)])
    return labels, scores


def sample(node: Tensor, edge: Tensor, lengths: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Labellings ``int64 [n, B, T]`` by random numbers ``[n, B, T]`` in [0, 1), and which entries are exact."""
    from lnz.ops.chain.cpu.draw import draw
    from lnz.ops.chain.cpu.sweep import FORWARD, JUDGE, LIFT

    B = len(node)
    run = _Run(node, edge, lengths)
    run(LIFT, FORWARD, JUDGE)
    labels = torch.empty(uniform.shape, dtype=torch.int64)
    nodes, before, (_, edges, counts) = run.nodes.numpy(), run.before.numpy(), run.inputs

    def task(first: int, last: int) -> Callable[[], None]:
        return lambda: draw(nodes, before, edges, counts, first, last, uniform.numpy(), labels.numpy())

    threads = torch.get_num_threads() if uniform.numel() * node.shape[2] >= _SHARED else 1
    side_by_side([task(*share) for share in shares(B, threads)])
    return labels, run.exact
