"""Semi-Markov chains in the log domain: the recursions as they are on paper, for any device and dtype.

Segment scores s ``[B, T, W, L]`` of the segment that starts at step t, is w + 1 steps wide and has label l; edge scores
A ``[B or 1, S, L, L]`` from each label to that of the next segment, with S = T − 1 (the table of t where a segment ends
at t) or S = 1 (one table for all); lengths n ``[B]`` in 0 … T, steps from n on being padding.

Two recursions take turns, over widths and over labels: O(B T (W L + L²)) time and O(B T L) memory beside the answers,
nothing of the size of widths times pairs of labels. Source: Sarawagi & Cohen 2004.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lnz.semirings import Log, Semiring


def forward_backward(segment: Tensor, edge: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """ln Z ``[B]``, segment marginals ``[B, T, W, L]`` and edge marginals ``[B, S, L, L]``, summed over t if S = 1.

    P(segment t, w, l) = exp(enter_t(l) + s_t(w, l) + after_{t+w}(l) − ln Z) and
    P(k ends at t, l starts at t + 1) = exp(leave_t(k) + A_t(k, l) + begin_{t+1}(l) − ln Z); 0 over padding, and
    everywhere if ln Z = −inf. A sequence of length 0 has one segmentation, the empty one: ln Z = 0.
    """
    B, T, W, _ = segment.shape
    enter, leave = forward(Log(), segment, edge, segment.new_zeros(B, segment.shape[-1]))
    begin, after = backward(segment, edge, lengths)
    log_z = segment.new_zeros(B)
    for t in range(T):
        log_z = torch.where(lengths == t + 1, Log().plus(leave[t], -1), log_z)
    z = log_z.masked_fill(torch.isneginf(log_z), 0.0)[:, None]  # where Z = 0, all sums below are −inf already
    if not T:
        return log_z, torch.zeros_like(segment), segment.new_zeros(B, *edge.shape[1:])
    beyond = torch.stack([*after, *[torch.full_like(after[0], -torch.inf)] * (W - 1)], 1).unfold(1, W, 1)
    segments = (torch.stack(enter, 1).unsqueeze(2) + segment + beyond.mT - z[:, None, None]).exp()
    edges = []
    for t in range(T - 1):
        joint = (leave[t].unsqueeze(-1) + table(edge, t) + (begin[t + 1] - z).unsqueeze(-2)).exp()
        if edge.shape[1] == 1 and edges:
            edges[0] = edges[0] + joint
        else:
            edges.append(joint)
    return log_z, segments, torch.stack(edges, 1) if edges else segment.new_zeros(B, *edge.shape[1:])


def forward(semiring: Semiring, segment: Tensor, edge: Tensor, start: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """enter_t(l) and leave_t(k): the sums over segmentations of 0 … t − 1, and of 0 … t.

    enter_t(l) = Σ_k leave_{t−1}(k) · A_{t−1}(k, l), what comes before a segment of label l that starts at t;
    leave_t(k) = Σ_w enter_{t−w}(k) · s_{t−w}(w, k), everything up to a segment of label k that ends at t.
    ``start`` is enter_0, the unit of the semiring.
    """
    ending = by_end(segment)
    enter, leave = [], []
    for t in range(segment.shape[1]):
        before = start
        if t:
            before = semiring.plus(semiring.times(leave[-1].unsqueeze(-1), semiring.lift(table(edge, t - 1))), -2)
        enter.append(before)
        widths = min(ending.shape[2], t + 1)
        latest_first = torch.stack(enter[: t - widths if t >= widths else None : -1], -2)
        leave.append(semiring.plus(semiring.times(latest_first, semiring.lift(ending[:, t, :widths])), -2))
    return enter, leave


def backward(segment: Tensor, edge: Tensor, lengths: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """begin_t(l) and after_t(k): ln of the sums over segmentations of t … n − 1, and of t + 1 … n − 1.

    begin_t(l) = ln Σ_w exp(s_t(w, l) + after_{t+w}(l)), of those whose first segment has label l;
    after_t(k) = ln Σ_l exp(A_t(k, l) + begin_{t+1}(l)), after a segment of label k that ends at t; 0 at the end.
    """
    T, W = segment.shape[1:3]
    begin: list[Tensor] = []  # both lists backward, from T − 1 on
    after: list[Tensor] = []
    for t in reversed(range(T)):
        onward = torch.full_like(segment[:, 0, 0], -torch.inf)
        if begin:
            onward = Log().plus(table(edge, t) + begin[-1].unsqueeze(-2), -1)
        left = (lengths - 1 - t)[:, None]
        after.append(torch.where(left == 0, 0.0, torch.where(left > 0, onward, -torch.inf)))
        widths = min(W, T - t)
        nearest_first = torch.stack(after[: -widths - 1 : -1], 1)
        begin.append(Log().plus(segment[:, t, :widths] + nearest_first, 1))
    return begin[::-1], after[::-1]


def by_end(segment: Tensor) -> Tensor:
    """The scores by where segments end: entry ``[:, t, w]`` is that of the start t − w; −inf where there is none."""
    T, W = segment.shape[1:3]
    shifted = [
        torch.nn.functional.pad(segment[:, : T - w, w], (0, 0, w, 0), value=-torch.inf)
        for w in range(min(W, max(T, 1)))
    ]
    return torch.stack(shifted, 2)


def table(edge: Tensor, t: int) -> Tensor:
    """The edge scores of a segment that ends at t, ``[B or 1, L, L]``."""
    return edge[:, t if edge.shape[1] > 1 else 0]
