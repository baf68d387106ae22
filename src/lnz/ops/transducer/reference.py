"""Transducers in the log domain: the recursions as they are on paper, for any device and dtype.

Scores of blank arcs b ``[B, T, U + 1]`` and of label arcs l ``[B, T, U]``, each at the node (t, u) that it leaves, and
a :class:`~lnz.ops.transducer.lattice.Lattice`. Sources: Graves 2012, "Sequence transduction with recurrent neural
networks"; Bagby, Rao and Sim 2018 (the recursion along anti-diagonals).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lnz.ops import branches
from lnz.ops.branches import shares
from lnz.ops.transducer.lattice import Lattice
from lnz.semirings import Log, Semiring


def forward_backward(blank: Tensor, label: Tensor, of: Lattice) -> tuple[Tensor, Tensor, Tensor]:
    """ln of the sum over alignments of exp of their scores ``[B]``; the probabilities of arcs, shaped as b and l.

    The probability of being at a node flows back from the end, along each arc in proportion to the paths that come
    along it. 0 beside the lattice, and everywhere if ln Z = −inf. O(B T U) time.
    """
    b, l = by_step(blank, label, of)
    alphas = forward(Log(), b, l)
    ends, steps = ends_of(b, of), of.steps()[:, None]
    log_z, there = b.new_zeros(len(b)), torch.zeros_like(alphas[0])
    blanks, labels = [], []
    for n in range(b.shape[1], -1, -1):
        here = steps == n
        log_z = torch.where(here[:, 0], Log().plus(alphas[n] + ends, -1), log_z)
        there = torch.where(here, shares(alphas[n] + ends), there)
        if n:
            stay, move = (there[..., None] * shares(ways(alphas[n - 1], b[:, n - 1], l[:, n - 1]))).unbind(-1)
            move = shifted(move, -1, 0.0)
            blanks.append(stay)
            labels.append(move)
            there = stay + move
    T, U = label.shape[1:]
    found = (by_frame(torch.stack(x[::-1], 1) if x else torch.zeros_like(b), of, T) for x in (blanks, labels))
    blanks, labels = found
    return log_z, blanks, labels[..., :U]


def surprisal(pairs: Sequence[tuple[Tensor, Tensor]], of: Lattice) -> Tensor:
    """−Σ_z P(z) ln Q(z) ``[B]`` over alignments, of the scores (b, l) of P and of Q; of one pair alone, the entropy.

    By the chain rule: of each node, over where it can have come from, and so on from there. O(B T U) time.
    """
    arcs = [by_step(blank, label, of) for blank, label in pairs]
    alphas = [start(b) for b, _ in arcs]
    so_far, steps = torch.zeros_like(alphas[0]), of.steps()[:, None]
    for n in range(arcs[0][0].shape[1]):
        going = steps > n
        come = torch.stack((so_far, shifted(so_far, 1, 0.0)), -1)
        scores = [ways(alpha, b[:, n], l[:, n]) for alpha, (b, l) in zip(alphas, arcs, strict=True)]
        so_far = torch.where(going, branches.surprisal(come, scores[0], scores[-1]), so_far)
        alphas = [torch.where(going, Log().plus(x, -1), alpha) for x, alpha in zip(scores, alphas, strict=True)]
    return so_far.gather(1, of.target_lengths[:, None]).squeeze(1)


def by_step(blank: Tensor, label: Tensor, of: Lattice) -> tuple[Tensor, ...]:
    """The scores of the arcs that leave each column at each step, ``[B, steps, U + 1]``; −inf where there is none."""
    (B, T, U), device = label.shape, label.device
    at = torch.arange(T + of.slant() * U, device=device)[:, None] - of.slant() * torch.arange(U + 1, device=device)
    inside, at = (at >= 0) & (at < T), at.clamp(0, max(0, T - 1))
    blank = blank.masked_fill(~of.blanks(T, U), -torch.inf)
    label = label.masked_fill(~of.labels(T, U), -torch.inf)
    label = torch.nn.functional.pad(label, (0, 1), value=-torch.inf)
    if not T:
        return (blank.new_full((B, *at.shape), -torch.inf),) * 2
    at = at.expand(B, *at.shape)
    return tuple(x.gather(1, at).masked_fill(~inside, -torch.inf) for x in (blank, label))


def by_frame(x: Tensor, of: Lattice, T: int) -> Tensor:
    """Numbers per step and column ``[B, steps, U + 1]`` as numbers per frame and column, ``[B, T, U + 1]``."""
    B, _, W = x.shape
    at = torch.arange(T, device=x.device)[:, None] + of.slant() * torch.arange(W, device=x.device)
    return x.gather(1, at.expand(B, T, W))


def shifted(x: Tensor, by: int, nothing: float = -torch.inf) -> Tensor:
    """Columns moved up by one (``by`` = 1) or down by one (−1); ``nothing`` comes in."""
    padded = torch.nn.functional.pad(x, (max(by, 0), max(-by, 0)), value=nothing)
    return padded[..., :-1] if by > 0 else padded[..., 1:]


def forward(semiring: Semiring, b: Tensor, l: Tensor) -> list[Tensor]:
    """α_0 … α_N, semiring elements ``[B, U + 1]``: the sum over the paths of n arcs that end in a column.

    α_{n+1}(u) = α_n(u) · b_n(u) + α_n(u − 1) · l_n(u − 1), with b and l by step.
    """
    alphas = [semiring.lift(start(b))]
    for n in range(b.shape[1]):
        stay = semiring.times(alphas[-1], semiring.lift(b[:, n]))
        move = shifted(semiring.times(alphas[-1], semiring.lift(l[:, n])), 1)
        alphas.append(semiring.plus(torch.stack((stay, move), -1), -1))
    return alphas


def start(b: Tensor) -> Tensor:
    """α_0 ``[B, U + 1]``: no label is emitted."""
    found = b.new_full((len(b), b.shape[2]), -torch.inf)
    found[:, 0] = 0.0
    return found


def ways(alpha: Tensor, b: Tensor, l: Tensor) -> Tensor:
    """The scores of the paths that come to each column by a blank and by a label, ``[*, U + 1, 2]``."""
    return torch.stack((alpha + b, shifted(alpha + l, 1)), -1)


def ends_of(b: Tensor, of: Lattice) -> Tensor:
    """0 for the column in which paths end, −inf for others, ``[B, U + 1]``."""
    columns = torch.arange(b.shape[2], device=b.device)
    return b.new_zeros(b.shape[0], b.shape[2]).masked_fill(columns != of.target_lengths[:, None], -torch.inf)


# From joint scores to arcs -------------------------------------------------------------------------------------------
# x [*, U + 1, C] of one frame or of several, with labels [*, U] and ``inside`` [*, U + 1]: which nodes are in the
# lattice. What lies beside it is not looked at.


def normalisers(x: Tensor, inside: Tensor) -> Tensor:
    """Of each node the largest score, and the sum of exp of the scores less that, ``[*, U + 1, 2]``.

    0 and 1 beside the lattice and where all scores are −inf: no alignment passes there.
    """
    top = x.detach().amax(-1)  # cancels, and so do its derivatives
    alive = inside & ~torch.isneginf(top)
    top = top.masked_fill(~alive, 0.0)
    total = (x - top[..., None]).masked_fill(~alive[..., None], -torch.inf).exp().sum(-1)
    return torch.stack((top, total.masked_fill(~alive, 1.0)), -1)


def arcs(x: Tensor, labels: Tensor, inside: Tensor, blank: int, shift: Tensor) -> tuple[Tensor, Tensor]:
    """The scores of the blank ``[*, U + 1]`` and of the label ``[*, U]`` at each node, less ``shift`` ``[*, U + 1]``.

    −inf beside the lattice.
    """
    at_label = x[..., :-1, :].gather(-1, labels.expand(*x.shape[:-2], -1)[..., None]).squeeze(-1)
    at_blank = (x[..., blank] - shift).masked_fill(~inside, -torch.inf)
    return at_blank, (at_label - shift[..., :-1]).masked_fill(~inside[..., 1:], -torch.inf)


def slopes(x: Tensor, labels: Tensor, inside: Tensor, blank: int, normalise: bool, to: tuple[Tensor, Tensor]) -> Tensor:
    """The gradient of joint scores ``[*, U + 1, C]``, from that ``to`` the arcs ``[*, U + 1]``, ``[*, U]``.

    That of the arc at its class, less the softmax times both, where ``normalise``.
    """
    to_blank = to[0].masked_fill(~inside, 0.0)
    to_label = torch.nn.functional.pad(to[1].masked_fill(~inside[..., 1:], 0.0), (0, 1))
    labels = torch.nn.functional.pad(labels.expand(*x.shape[:-2], -1), (0, 1))
    found = torch.zeros_like(x)
    if normalise:
        top, total = normalisers(x, inside).unbind(-1)
        softmax = (x - top[..., None]).masked_fill(~inside[..., None], -torch.inf).exp() / total[..., None]
        found = -(to_blank + to_label)[..., None] * softmax
    found = found.scatter_add(-1, labels[..., None], to_label[..., None])
    return found.scatter_add(-1, torch.full_like(labels, blank)[..., None], to_blank[..., None])
