"""Heads of words: which arcs there are, which heads make a tree."""

from __future__ import annotations

import torch
from torch import Tensor

from lnz.checks import check_lengths, joint_batch_shape


def arcs_among(M: int, lengths: Tensor | None, device: torch.device) -> Tensor:
    """Which entries of scores are arcs, ``[*batch, M, M]`` or ``[M, M]``."""
    places = torch.arange(M, device=device)
    found = (places[:, None] > 0) & (places[:, None] != places)
    if lengths is None:
        return found
    word = places <= lengths.unsqueeze(-1)
    return found & word.unsqueeze(-1) & word.unsqueeze(-2)


def is_tree(heads: Tensor, words: Tensor, projective: bool, single_root: bool) -> Tensor:
    """Whether heads ``[*, M]`` of ``words [*, M]`` make a tree of the kind, ``[*]``."""
    M = heads.shape[-1]
    heads = torch.where(words, heads, 0)
    above = heads
    for _ in range(max(1, M - 1).bit_length()):  # as far up as twice as often before
        above = above.gather(-1, above)
    found = (above == 0).all(-1)
    if single_root:
        found = found & (((heads == 0) & words).sum(-1) == words.any(-1))
    if projective:
        places = torch.arange(M, device=heads.device)
        low, high = torch.minimum(heads, places), torch.maximum(heads, places)
        low, high = low.masked_fill(~words, 0), high.masked_fill(~words, 0)
        crossing = (low[..., :, None] < low[..., None, :]) & (low[..., None, :] < high[..., :, None])
        crossing = crossing & (high[..., :, None] < high[..., None, :])
        found = found & ~crossing.flatten(-2).any(-1)
    return found


def batch_shape_of(scores: Tensor, lengths: Tensor | None, own: int) -> torch.Size:
    """The batch shape of well-formed arguments; raises where they are not."""
    square = scores.dim() >= own and scores.shape[-own] == scores.shape[1 - own] > 0
    if not square or scores.shape[-1] == 0:
        labels = ", R" if own == 3 else ""
        raise ValueError(f"arc_scores: expected shape [*batch, N + 1, N + 1{labels}], got {list(scores.shape)}")
    shapes = {"arc_scores": scores.shape[:-own]}
    if lengths is not None:
        check_lengths(lengths, scores.shape[-own] - 1, of="the words")
        shapes["lengths"] = lengths.shape
    return joint_batch_shape(**shapes)
