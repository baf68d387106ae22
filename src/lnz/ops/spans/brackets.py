"""Which spans cross, and which sets of spans are trees: sums of booleans over tables ``[…, N, N]``, in O(N²)."""

from __future__ import annotations

import torch
from torch import Tensor


def crossed(spans: Tensor) -> Tensor:
    """Which spans i … j cross one of the ``spans``, booleans by first and last word: overlap without one in the other.

    A tree holds a span exactly if it holds none that cross it.
    """
    spans = spans & _upper(spans)
    begun = _before(spans, -2) & _upper(spans)  # [k, j]: one starts before k, and ends at j ≥ k
    from_left = _before(begun, -1)  # [k, l]: … and ends before l
    ended = _before(spans.flip(-1), -1).flip(-1) & _upper(spans)  # [i, l]: one starts at i ≤ l, and ends after l
    from_right = _before(ended.flip(-2), -2).flip(-2)  # [k, l]: … and starts after k
    return (from_left | from_right) & _upper(spans)


def is_tree(spans: Tensor, lengths: Tensor) -> Tensor:
    """Whether ``spans`` of n words are a binary tree, ``[…]``; without words, the empty set is one.

    They are if there are 2n − 1 of them, words and sentence among them, none of which cross: no laminar family on n
    words is larger, and those that are so large are the binary trees.
    """
    N = spans.shape[-1]
    if not N:
        return (lengths == 0).expand(spans.shape[:-2])
    words = torch.arange(N, device=spans.device) < lengths[..., None]
    leaves = (spans.diagonal(0, -2, -1) | ~words).all(-1)
    last = (lengths - 1).clamp(min=0).expand(spans.shape[:-2]).unsqueeze(-1)
    whole = spans[..., 0, :].gather(-1, last).squeeze(-1) | (lengths == 0)
    right = spans.flatten(-2).sum(-1) == (2 * lengths - 1).clamp(min=0)
    return leaves & whole & right & ~(crossed(spans) & spans).flatten(-2).any(-1)


def _upper(table: Tensor) -> Tensor:
    return torch.ones(table.shape[-2:], dtype=torch.bool, device=table.device).triu()


def _before(table: Tensor, dim: int) -> Tensor:
    """Whether any entry before this one along an axis is true."""
    counts = table.to(torch.int32)
    return counts.cumsum(dim) - counts > 0
