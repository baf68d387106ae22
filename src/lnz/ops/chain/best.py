"""Calls into the kernels of max-marginals and of the k best labellings. Shapes as in :mod:`lnz.ops.chain.reference`."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from lnz.ops.chain.kernel import _SHARED, arrays, shares
from lnz.ops.jit import buffers
from lnz.ops.jit.threads import side_by_side

_HELD = 2**22  # numbers of α up to which those of all steps are kept: 32 MB


def max_marginals(node: Tensor, edge: Tensor, lengths: Tensor, of_edges: bool) -> Tensor:
    """Those of nodes ``[B, T, L]``, or of edges ``[B, T − 1, L, L]``; O(B T L²) time, O(√T L) memory beside them."""
    from lnz.ops.chain.cpu.max_marginals import max_marginals as kernel

    B, T, L = node.shape
    shape = (B, max(0, T - 1), L, L) if of_edges else (B, T, L)
    out = buffers.empty(*shape, dtype=node.dtype)
    nodes = out.new_empty(0, 0, 0) if of_edges else out
    edges = out if of_edges else out.new_empty(0, 0, 0, 0)
    inputs, block = arrays(node, _some(edge), lengths), _block(node, edge)

    def task(first: int, last: int) -> Callable[[], None]:
        return lambda: kernel(*inputs, first, last, block, nodes.numpy(), edges.numpy())

    side_by_side([task(*share) for share in shares(B, _threads(node))])
    return out


def topk(node: Tensor, edge: Tensor, lengths: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Labellings ``int64 [k, B, T]`` and float64 scores ``[k, B]``; −100 and −inf beyond the possible ones."""
    from lnz.ops.chain.cpu.topk import topk as kernel

    B, T, _ = node.shape
    labels, scores = torch.empty(k, B, T, dtype=torch.int64), torch.empty(k, B, dtype=torch.float64)
    inputs, block = arrays(node, _some(edge), lengths), _block(node, edge)

    def task(first: int, last: int) -> Callable[[], None]:
        return lambda: kernel(*inputs, first, last, block, labels.numpy(), scores.numpy())

    side_by_side([task(*share) for share in shares(B, _threads(node))])
    return labels, scores


def _some(edge: Tensor) -> Tensor:
    return edge if edge.numel() else edge.new_zeros(1, 1, *edge.shape[2:])  # for chains of one step


def _block(node: Tensor, edge: Tensor) -> int:
    """Of how many steps α is kept at a time: of all, or of √T, computed again block by block."""
    from lnz.ops.chain.cpu.sweep import TILE

    _, T, L = node.shape
    rows = TILE if len(edge) == 1 else 1
    return T if rows * T * L <= _HELD else math.ceil(math.sqrt(T))


def _threads(node: Tensor) -> int:
    return torch.get_num_threads() if node.numel() >= _SHARED else 1
