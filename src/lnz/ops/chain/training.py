"""ln P(y) as training asks for it: value and gradient in one pass, on the processor, outside torch's dispatcher.

The gradient is made together with the value, times the weight that ln P(y) will most likely have in the loss. Where
backward brings that weight, what was made is handed over as it is (autograd copies what is kept for a further call);
where it brings another one for all, it is scaled; where weights differ, a second pass takes them in. What is traced,
vectorised or differentiated once more goes through :mod:`lnz.ops.chain.labelling`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lnz.checks import plain
from lnz.ops import unobserved, use_kernels
from lnz.ops.chain import kernel, labelling
from lnz.ops.chain.autograd import forward_backward
from lnz.ops.jit import buffers
from lnz.ops.jit.threads import side_by_side

_FEWEST = 4  # sequences that are worth rows for eight


class _Chains(NamedTuple):
    """Constants with one batch axis: node ``[B, T, L]``, edge ``[L, L]``, lengths ``[B]``, y ``[B, T]``."""

    node: Tensor
    edge: Tensor
    lengths: Tensor
    y: Tensor


class _Made(NamedTuple):
    log_prob: Tensor
    at_node: Tensor | None
    at_edge: Tensor | None


def likelihood(node: Tensor, edge: Tensor, lengths: Tensor | None, y: Tensor, weight: float) -> Tensor | None:
    """ln P(y) ``[*batch]`` of full labellings; ``None`` where y is none, or this is not served here.

    Args:
        node: ``[*batch, T, L]``.
        edge: ``[L, L]``; other shapes are not served.
        lengths: ``int64 [*batch]`` or ``None``.
        y: ``[*batch, T]``.
        weight: by what the gradient of each will most likely be multiplied.
    """
    if not _serves(node, edge, lengths, y):
        return None
    *batch, T, L = node.shape
    B = math.prod(batch)
    chains = _Chains(
        node.detach().reshape(B, T, L),
        edge.detach(),
        torch.full((B,), T) if lengths is None else lengths.reshape(B),
        y.reshape(B, T),
    )
    wanted = node.requires_grad, edge.requires_grad
    if not torch.is_grad_enabled():
        wanted = False, False
    made = _made(chains, np.full(B, weight, chains.node.numpy().dtype), *wanted)
    if made is None:
        return None
    at_node = None if made.at_node is None else made.at_node.view(node.shape)
    made = _Made(made.log_prob.view(batch), at_node, made.at_edge)
    return LogProbability.apply(node, edge, chains, made, weight) if any(wanted) else made.log_prob


def _serves(node: Tensor, edge: Tensor, lengths: Tensor | None, y: Tensor) -> bool:
    return (
        edge.dim() == 2
        and isinstance(y, Tensor)
        and y.shape == node.shape[:-1]
        and y.dtype == torch.int64
        and (lengths is None or (lengths.shape == node.shape[:-2] and plain(lengths)))
        and unobserved(node, edge, y)
        and use_kernels(node, edge)
        and node.shape[:-2].numel() >= _FEWEST
        and node.numel() > 0
    )


def _made(chains: _Chains, weights: np.ndarray, with_node: bool, with_edge: bool) -> _Made | None:
    """ln P(y) and its gradients times ``weights`` ``[B]``; ``None`` where y is no full labelling."""
    from lnz.ops.chain.cpu import likelihood as compiled
    from lnz.ops.chain.cpu.gold import FULL, merge
    from lnz.ops.chain.cpu.octets import EIGHT

    node, edge, lengths, y = (x.contiguous().numpy() for x in chains)
    B, T, L = node.shape
    dtype = chains.node.dtype
    threads = torch.get_num_threads() if node.size >= kernel._SHARED else 1
    parts = kernel.shares(B, threads)
    columns = -(-L // 16) * 16
    line = columns if columns <= 64 else columns + 16  # or rows of a power of two share cache sets
    scratch = buffers.empty(len(parts), 2, EIGHT * T, line, dtype=dtype).numpy()
    log_prob, exact = torch.empty(B, dtype=dtype), np.empty(B, np.bool_)
    at_node = buffers.empty(B, T, L, dtype=dtype) if with_node else torch.empty(0, 0, 0, dtype=dtype)
    at_edge = torch.empty(L, L, dtype=dtype) if with_edge else None
    totals, golds = np.empty((2, len(parts), L, L) if with_edge else (2, len(parts), 0, 0))
    limits = kernel._REACH[dtype], kernel._RANGE[dtype]
    outputs = log_prob.numpy(), exact, at_node.numpy()
    kinds = [FULL] * len(parts)

    def task(part: int, first: int, last: int) -> None:
        given = node, edge, lengths, y, weights, first, last, with_edge, limits, scratch[part], *outputs
        kinds[part] = compiled.likelihood(*given, totals[part], golds[part])

    tasks: list[Callable[[], None]] = [lambda k=k, s=s: task(k, *s) for k, s in enumerate(parts)]
    side_by_side(tasks)
    if kinds != [FULL] * len(parts):
        return None
    if at_edge is not None:
        merge(edge, totals, golds, at_edge.numpy())
    made = _Made(log_prob, at_node if with_node else None, at_edge)
    if not exact.all():
        _add_lost(chains, torch.from_numpy(weights), made, torch.from_numpy(~exact).nonzero()[:, 0])
    return made


def _add_lost(chains: _Chains, weights: Tensor, made: _Made, lost: Tensor) -> None:
    """Fill in the chains that need more range."""
    node, lengths, y = chains.node[lost], chains.lengths[lost], chains.y[lost]
    edge, weight = chains.edge[None, None], weights[lost]
    made.log_prob[lost], _, *done = labelling._log_prob_now(node, edge, lengths, y)
    wanted = made.at_node is not None, made.at_edge is not None
    given = node, edge, lengths, y, *done, weight, -weight
    at_node, at_edge = labelling._gradient_now(*given, *wanted)  # pyright: ignore[reportCallIssue]
    if made.at_node is not None:
        made.at_node[lost] = at_node
    if made.at_edge is not None:
        made.at_edge.add_(at_edge[0, 0])


class LogProbability(torch.autograd.Function):
    """ln P(y), which has been computed, as a function of the scores."""

    @staticmethod
    def forward(ctx: Any, node: Tensor, edge: Tensor, chains: _Chains, made: _Made, weight: float) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.save_for_backward(node, edge, chains.lengths, chains.y, made.at_node, made.at_edge)
        ctx.weight = weight
        return made.log_prob

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        node, edge, lengths, y, at_node, at_edge = ctx.saved_tensors
        if torch.is_grad_enabled() or not unobserved(grad):
            return *_differentiable(node, edge, lengths, y, grad, ctx.needs_input_grad), None, None, None
        grads = grad.reshape(-1).numpy()
        if (grads == grads[0]).all():
            factor = float(grads[0]) / float(grads.dtype.type(ctx.weight))
            return _scaled(at_node, factor), _scaled(at_edge, factor), None, None, None
        chains = _Chains(node.detach().reshape(*y.shape, -1), edge.detach(), lengths, y)
        made = _made(chains, np.ascontiguousarray(grads), at_node is not None, at_edge is not None)
        assert made is not None  # of labels that were looked at before
        return None if made.at_node is None else made.at_node.view(node.shape), made.at_edge, None, None, None


def _scaled(made: Tensor | None, factor: float) -> Tensor | None:
    return made if made is None or factor == 1 else made * factor


def _differentiable(
    node: Tensor, edge: Tensor, lengths: Tensor, y: Tensor, grad: Tensor, wanted: tuple[bool, ...]
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients, as functions of the scores and of ``grad``."""
    scores = node.reshape(*y.shape, -1), edge[None, None]
    nodes, *factors = forward_backward(*scores, lengths)[1:]
    at_node, at_edge = labelling.gradients(*scores, lengths, y, nodes, factors, grad.reshape(-1), wanted)
    return (
        None if at_node is None else at_node.reshape(node.shape),
        None if at_edge is None else at_edge[0, 0],
    )
