"""Linear chains in the log domain: the recursions as they are on paper, for any device and dtype.

Node scores x ``[B, T, L]``; edge scores A ``[B or 1, S, L, L]`` from each label to the next, with S = T − 1 (a table
per position) or S = 1 (one table for all); lengths n ``[B]`` in 0 … T, positions from n on being padding.

Sums over labellings are normalised at every step: forwards by what has come so far (:func:`filtered`), backwards by
the conditionals P(y_t | y_{t+1}) that follow from it (:func:`conditionals`). No number is then larger than the scores
of a step, so that the rounding of large ones does not grow with T, and probabilities sum to 1 whatever the scores.

Sources: Baum et al. 1970 (forward–backward); Rauch, Tung and Striebel 1965 (smoothing by the conditionals of a filter);
Lafferty, McCallum and Pereira 2001 (chain CRF).
"""

from __future__ import annotations

import torch
from torch import Tensor

from lnz.ops.choices import picked
from lnz.semirings import Log, Max, Semiring
from lnz.typing import IGNORE


def forward_backward(node: Tensor, edge: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """ln Z ``[B]``, node marginals ``[B, T, L]`` and edge marginals ``[B, S, L, L]``, summed over positions if S = 1.

    P(y_t = k, y_{t+1} = l) = P(y_t = k | y_{t+1} = l) P(y_{t+1} = l), whose sum over l is P(y_t = k); that of the last
    label is α. 0 over padding, and everywhere if ln Z = −inf. A chain of length 0 has one labelling, the empty one:
    ln Z = 0. O(B T L²) time.
    """
    B, T, L = node.shape
    alpha, log_z = filtered(node, edge, lengths)
    possible = ~torch.isneginf(log_z)
    nodes, edges = [], []
    for t in reversed(range(T)):
        last = (possible & (lengths == t + 1))[:, None]
        if t + 1 < T:
            edges.append(conditionals(alpha[t], edge, t).exp() * nodes[-1].unsqueeze(-2))
            nodes.append(torch.where(last, alpha[t].exp(), edges[-1].sum(-1)))
        else:
            nodes.append(torch.where(last, alpha[t].exp(), 0.0))
    nodes, edges = nodes[::-1], edges[::-1]
    if edge.shape[1] == 1:
        edges = [sum(edges, node.new_zeros(B, L, L))]
    return (
        log_z,
        torch.stack(nodes, 1) if nodes else torch.zeros_like(node),
        torch.stack(edges, 1) if edges else node.new_zeros(B, *edge.shape[1:]),
    )


def step_log_probs(node: Tensor, edge: Tensor, lengths: Tensor, y: Tensor) -> Tensor:
    """ln P(y_t | y_{t−1}) ``[B, T]`` of full labellings y ``[B, T]``; 0 over padding. O(T L²) time and memory.

    By the backward recursion β, with ln Z in its place before the first step:

        ln P(y_t | y_{t−1}) = A(y_{t−1}, y_t) + x_t(y_t) + β_t(y_t) − β_{t−1}(y_{t−1})

    What follows an impossible step is −inf too, or what the possible labels before it would give.
    """
    B, T, L = node.shape
    if not T:
        return node.new_zeros(B, 0)
    beta = torch.stack(backward(Log(), node, edge, lengths), 1)
    onward = (node + beta).gather(2, y.unsqueeze(2)).squeeze(2)
    given = torch.cat((Log().plus(node[:, :1] + beta[:, :1], -1), beta.gather(2, y.unsqueeze(2)).squeeze(2)[:, :-1]), 1)
    pair = (y[:, :-1] * L + y[:, 1:]).unsqueeze(2)
    pairs = edge.expand(B, T - 1, -1, -1).flatten(2).gather(2, pair).squeeze(2)
    terms = onward + torch.nn.functional.pad(pairs, (1, 0)) - given.masked_fill(torch.isneginf(given), 0.0)
    return torch.where(torch.arange(T, device=y.device) < lengths[:, None], terms, 0.0)


def log_prob(node: Tensor, edge: Tensor, lengths: Tensor, y: Tensor) -> Tensor:
    """ln P(y) ``[B]`` of full labellings y ``[B, T]``, whatever they hold from ``lengths`` on.

    ln P(y_n) + Σ_t ln P(y_t | y_{t+1}), of which no term is positive: none has to cancel against another.
    """
    B, T, L = node.shape
    if not T:
        return node.new_zeros(B)
    steps = torch.arange(T, device=y.device)
    y = torch.where(steps < lengths[:, None], y, 0)
    alpha = torch.stack(filtered(node, edge, lengths)[0], 1)
    into = edge.mT.expand(B, T - 1, L, L).gather(2, y[:, 1:, None, None].expand(B, T - 1, 1, L)).squeeze(2)
    given = torch.cat((normalised(alpha[:, :-1] + into), alpha[:, -1:]), 1)
    terms = torch.where((steps == lengths[:, None] - 1)[..., None], alpha, given).gather(2, y[..., None]).squeeze(2)
    return torch.where(steps < lengths[:, None], terms, 0.0).sum(1)


def filtered(node: Tensor, edge: Tensor, lengths: Tensor) -> tuple[list[Tensor], Tensor]:
    """α_t(l), ln of the share of y_t = l in the sum over labellings of the first t labels; and ln Z ``[B]``.

    α_{t+1}(l) = x_{t+1}(l) + ln Σ_k exp(α_t(k) + A_t(k, l)) − c_{t+1}, where c normalises, and ln Z = Σ_t c_t. Where
    nothing is possible α stays −inf.
    """
    alphas: list[Tensor] = []
    constants: list[Tensor] = []
    for t in range(node.shape[1]):
        a = node[:, t]
        if t:
            a = a + Log().plus(alphas[-1].unsqueeze(-1) + table(edge, t - 1), -2)
        constants.append(torch.where(lengths > t, Log().plus(a, -1), 0.0))
        alphas.append(normalised(a))
    return alphas, torch.stack(constants, 1).sum(1) if constants else node.new_zeros(len(node))


def conditionals(alpha: Tensor, edge: Tensor, t: int) -> Tensor:
    """ln P(y_t = k | y_{t+1} = l) ``[B, L, L]``, whatever comes after; −inf where y_{t+1} = l is impossible."""
    return normalised((alpha.unsqueeze(-1) + table(edge, t)).mT).mT


def log_conditionals(node: Tensor, edge: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Scores of nodes ``[B, T, L]`` and edges ``[B, T − 1, L, L]`` that add up to ln P(y); 0 over padding.

    ln P(y_n) at the last step, and ln P(y_t | y_{t+1}). None is positive, so that no digits cancel. O(B T L²) time.
    """
    B, T, L = node.shape
    alpha, _ = filtered(node, edge, lengths)
    last = [torch.where((lengths == t + 1)[:, None], alpha[t], 0.0) for t in range(T)]
    given = [torch.where((lengths > t + 1)[:, None, None], conditionals(alpha[t], edge, t), 0.0) for t in range(T - 1)]
    return torch.stack(last, 1) if last else node, torch.stack(given, 1) if given else node.new_zeros(B, 0, L, L)


def normalised(scores: Tensor) -> Tensor:
    """``log_softmax(-1)``, but −inf where all are, without a gradient there."""
    empty = torch.isneginf(scores).all(-1, keepdim=True)
    return scores.masked_fill(empty, 0.0).log_softmax(-1).masked_fill(empty, -torch.inf)


def sample(node: Tensor, edge: Tensor, lengths: Tensor, uniform: Tensor) -> Tensor:
    """Labellings ``int64 [n, B, T]`` by random numbers ``[n, B, T]``: the last by α, then each given the next."""
    alphas, _ = filtered(node, edge, lengths)
    labels = torch.full(uniform.shape, IGNORE, device=node.device)
    for t in reversed(range(len(alphas))):
        weights = alphas[t]
        if t + 1 < len(alphas):
            weights = weights + scores_into(edge, t, lengths, labels[..., t + 1])
        chosen = picked(weights.softmax(-1), uniform[..., t])
        labels[..., t] = torch.where(lengths > t, chosen, IGNORE)
    return labels


def max_marginals(node: Tensor, edge: Tensor, lengths: Tensor) -> Tensor:
    """The largest score of a labelling with each label, ``[B, T, L]``: max over y with y_t = l of s(y).

    α_t(l) + β_t(l) in the (max, +) semiring. −inf over padding and where there is none.
    """
    alpha, beta = forward(Max(), node, edge), backward(Max(), node, edge, lengths)
    T = node.shape[1]
    nodes = [torch.where((lengths > t)[:, None], alpha[t] + beta[t], -torch.inf) for t in range(T)]
    return torch.stack(nodes, 1) if nodes else torch.zeros_like(node)


def edge_max_marginals(node: Tensor, edge: Tensor, lengths: Tensor) -> Tensor:
    """The largest score of a labelling with each pair of neighbouring labels, ``[B, T − 1, L, L]``.

    α_t(k) + A_t(k, l) + x_{t+1}(l) + β_{t+1}(l) in the (max, +) semiring.
    """
    B, T, L = node.shape
    alpha, beta = forward(Max(), node, edge), backward(Max(), node, edge, lengths)
    edges = []
    for t in range(T - 1):
        joint = alpha[t].unsqueeze(-1) + table(edge, t) + (node[:, t + 1] + beta[t + 1]).unsqueeze(-2)
        edges.append(torch.where((lengths > t + 1)[:, None, None], joint, -torch.inf))
    return torch.stack(edges, 1) if edges else node.new_zeros(B, 0, L, L)


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


def scores_into(edge: Tensor, t: int, lengths: Tensor, labels: Tensor) -> Tensor:
    """The edge scores from each label at t to ``labels [M, B]`` after it, ``[M, B, L]``; 0 from the last label on."""
    entry = torch.arange(labels.shape[1], device=edge.device)
    into = table(edge, t).expand(len(entry), -1, -1)[entry, :, labels.clamp(min=0)]
    return into.masked_fill((lengths <= t + 1)[:, None], 0.0)


def entropy(nodes: Tensor, edges: Tensor) -> Tensor:
    """H(y) = H(y_1) + Σ_t H(y_{t+1} | y_t), ``[*batch]``, of marginals ``[*batch, T, L]`` and ``[*batch, T-1, L, L]``.

    By the chain rule of entropy, in which scores do not occur: as exact as the marginals at any scale of these, where
    ln Z − E[s(y)] is a difference of two large numbers. No term is negative. O(T L²) time and memory.
    """
    return _conditional(nodes[..., :1, :]).sum(-1) + _conditional(edges).flatten(-2).sum(-1)


def _conditional(joint: Tensor) -> Tensor:
    """−Σ_l p(k, l) ln (p(k, l) / Σ_l p(k, l)) over the last axis, with 0 ln 0 = 0; its gradient is −ln of the ratio."""
    whole, least = joint.sum(-1, keepdim=True), torch.finfo(joint.dtype).tiny  # less has no inverse
    whole = whole.masked_fill(whole < least, 1.0)
    ratio = torch.where(joint < least, whole, joint) / whole
    return -(joint * ratio.log()).sum(-1)
