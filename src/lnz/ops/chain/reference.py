"""Linear chains in the log domain: the recursions as they are on paper, for any device and dtype.

Node scores x ``[B, T, L]``; edge scores A ``[B or 1, S, L, L]`` from each label to the next, with S = T − 1 (a table
per position) or S = 1 (one table for all); lengths n ``[B]`` in 0 … T, positions from n on being padding.

Sources: Baum et al. 1970 (forward–backward); Lafferty, McCallum and Pereira 2001 (chain CRF).
"""

from __future__ import annotations

import torch
from torch import Tensor

from lnz.semirings import Log, Max, Semiring


def forward_backward(node: Tensor, edge: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """ln Z ``[B]``, node marginals ``[B, T, L]`` and edge marginals ``[B, S, L, L]``, summed over positions if S = 1.

    P(y_t = l) = exp(α_t(l) + β_t(l) − ln Z) and
    P(y_t = k, y_{t+1} = l) = exp(α_t(k) + A_t(k, l) + x_{t+1}(l) + β_{t+1}(l) − ln Z);
    0 over padding, and everywhere if ln Z = −inf. A chain of length 0 has one labelling, the empty one: ln Z = 0.
    O(B T L²) time.
    """
    T = node.shape[1]
    alpha, beta = forward(Log(), node, edge), backward(Log(), node, edge, lengths)
    log_z = node.new_zeros(len(node))
    for t in range(T):
        log_z = torch.where(lengths == t + 1, Log().plus(alpha[t], -1), log_z)
    z = log_z.masked_fill(torch.isneginf(log_z), 0.0)[:, None]  # where Z = 0, all α + β are −inf already
    nodes = [(alpha[t] + beta[t] - z).exp().masked_fill((lengths <= t)[:, None], 0.0) for t in range(T)]
    edges = []
    for t in range(T - 1):
        joint = alpha[t].unsqueeze(-1) + table(edge, t) + (node[:, t + 1] + beta[t + 1] - z).unsqueeze(-2)
        edges.append(joint.exp().masked_fill((lengths <= t + 1)[:, None, None], 0.0))
    if edge.shape[1] == 1:
        edges = [sum(edges, node.new_zeros(len(node), *edge.shape[2:]))]
    return (
        log_z,
        torch.stack(nodes, 1) if nodes else torch.zeros_like(node),
        torch.stack(edges, 1) if edges else node.new_zeros(len(node), *edge.shape[1:]),
    )


def max_marginals(node: Tensor, edge: Tensor, lengths: Tensor) -> Tensor:
    """The largest score of a labelling with each label, ``[B, T, L]``: max over y with y_t = l of s(y).

    The α_t(l) + β_t(l) of :func:`forward_backward` in the (max, +) semiring. −inf over padding and where there is none.
    """
    alpha, beta = forward(Max(), node, edge), backward(Max(), node, edge, lengths)
    nodes = torch.full_like(node, -torch.inf)
    for t in range(node.shape[1]):
        nodes[:, t] = torch.where((lengths > t)[:, None], alpha[t] + beta[t], -torch.inf)
    return nodes


def edge_max_marginals(node: Tensor, edge: Tensor, lengths: Tensor) -> Tensor:
    """The largest score of a labelling with each pair of neighbouring labels, ``[B, T − 1, L, L]``.

    α_t(k) + A_t(k, l) + x_{t+1}(l) + β_{t+1}(l) in the (max, +) semiring.
    """
    B, T, L = node.shape
    alpha, beta = forward(Max(), node, edge), backward(Max(), node, edge, lengths)
    edges = node.new_full((B, max(0, T - 1), L, L), -torch.inf)
    for t in range(T - 1):
        joint = alpha[t].unsqueeze(-1) + table(edge, t) + (node[:, t + 1] + beta[t + 1]).unsqueeze(-2)
        edges[:, t] = torch.where((lengths > t + 1)[:, None, None], joint, -torch.inf)
    return edges


def forward(semiring: Semiring, node: Tensor, edge: Tensor) -> list[Tensor]:
    """α_t(l): the sum over y_1 … y_t = l of their scores; α_{t+1}(l) = x_{t+1}(l) · Σ_k α_t(k) · A_t(k, l)."""
    alphas: list[Tensor] = []
    for t in range(node.shape[1]):
        x = semiring.lift(node[:, t])
        if t:
            a = semiring.lift(table(edge, t - 1))
            x = semiring.times(semiring.plus(semiring.times(alphas[-1].unsqueeze(-1), a), -2), x)
        alphas.append(x)
    return alphas


def backward(semiring: Semiring, node: Tensor, edge: Tensor, lengths: Tensor) -> list[Tensor]:
    """β_t(k): the sum over y_{t+1} … y_n, given y_t = k, of their scores; 0 from the last label on.

    For semirings whose elements are scores, as ``Log`` and ``Max`` are.
    """
    T = node.shape[1]
    betas = [torch.zeros_like(node[:, 0])] if T else []
    for t in reversed(range(T - 1)):
        onward = semiring.plus(table(edge, t) + (node[:, t + 1] + betas[-1]).unsqueeze(-2), -1)
        betas.append(onward.masked_fill((lengths <= t + 1)[:, None], 0.0))
    return betas[::-1]


def table(edge: Tensor, t: int) -> Tensor:
    """The edge scores between t and t + 1, ``[B or 1, L, L]``."""
    return edge[:, t if edge.shape[1] > 1 else 0]


def accumulator(node: Tensor) -> torch.dtype:
    """The dtype to run in: α grows with T, and with it the rounding errors of anything less than float64."""
    return torch.float32 if node.device.type == "mps" else torch.float64
