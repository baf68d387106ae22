"""CTC in the log domain: the recursions as they are on paper, for any device and dtype.

Scores x ``[B, T, C]`` of the classes at each frame, and a :class:`~lnz.ops.ctc.lattice.Lattice` of states k = 0 … 2 S,
the even ones blanks. Source: Graves, Fernández, Gomez and Schmidhuber 2006, section 4.1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lnz.ops import branches
from lnz.ops.branches import shares
from lnz.ops.ctc.lattice import Lattice
from lnz.ops.precision import accumulator
from lnz.semirings import Log, Semiring


def value(scores: Tensor, prior: Tensor, of: Lattice, normalise: bool) -> Tensor:
    """ln of the sum, over the alignments that spell the target, of exp of their scores ``[B]``; O(S) memory.

    The scores of classes less ``prior`` ``[C]`` and, where ``normalise``, less ln Σ exp of their frame.
    """
    wide = accumulator(scores)
    added = scores.new_zeros(len(scores), dtype=wide)
    alpha, between = begin(added, of), arcs(added, of)
    for t in range(scores.shape[1]):
        inside = of.lengths > t
        frame, top = centred(scores[:, t : t + 1].to(wide), of._replace(lengths=inside.long()))
        after = advance(Log(), alpha, emissions(frame - prior.to(wide), of)[:, 0], between)
        alpha = torch.where(inside[:, None], after, alpha)
        more = -totals(frame).log() if normalise else top
        added = added + torch.where(inside, more.squeeze(1), 0.0)
    return Log().plus(alpha + final_states(added, of), -1) + added


def forward_backward(x: Tensor, of: Lattice) -> tuple[Tensor, Tensor]:
    """ln of the sum, over the alignments that spell the target, of exp of their scores ``[B]``; occupancies.

    The occupancy of a state is the probability of being there at a frame. It flows back from the last frame, to each
    state in proportion to the paths that come from it: no β, and no difference of large sums. Given ``[B, T, S + 1]``,
    one per label of the target and, last, that of all blanks together. 0 over padding, and everywhere if ln Z = −inf.
    Scores x are finite over padding. O(B T S) time.
    """
    x = emissions(x, of)
    alphas, between, last = forward(Log(), x, of), arcs(x, of), final_states(x, of)
    log_z, there, states = x.new_zeros(len(x)), torch.zeros_like(alphas[0]), []
    for t in range(x.shape[1], -1, -1):
        ends, here = alphas[t] + last, (of.lengths == t)[:, None]
        log_z = torch.where(here[:, 0], Log().plus(ends, -1), log_z)
        there = torch.where(here, shares(ends), there)
        if t:
            states.append(there)
            stay, step, skip = (there[..., None] * shares(ways(alphas[t - 1], between))).unbind(-1)
            there = stay + moved(step, 1) + moved(skip, 2)
    occupied = torch.stack(states[::-1], 1) if states else torch.zeros_like(x)
    return log_z, torch.cat((occupied[..., 1::2], occupied[..., ::2].sum(-1, keepdim=True)), -1)


def moved(x: Tensor, by: int) -> Tensor:
    """What leaves states, at the states it goes to, ``by`` before."""
    return torch.nn.functional.pad(x, (0, by))[..., by:]


def surprisal(scores: Tensor, other: Tensor, of: Lattice) -> Tensor:
    """−Σ_z P(z) ln Q(z) over alignments, Q those of ``other`` scores; the entropy where these are the same.

    By the chain rule: of each state, over where it can have come from, and so on from there. O(B T S) time; O(B S)
    memory where nothing is differentiated.
    """
    pairs = [centred(x, of)[0] for x in ((scores,) if other is scores else (scores, other))]
    alphas, between, last = [begin(x, of) for x in pairs], arcs(scores, of), final_states(scores, of)
    so_far = torch.zeros_like(alphas[0])
    for t in range(scores.shape[1]):
        inside = (of.lengths > t)[:, None]
        come = torch.stack(arrivals(so_far, 0.0), -1)
        reached = [ways(alpha, between) for alpha in alphas]
        so_far = torch.where(inside, branches.surprisal(come, reached[0], reached[-1]), so_far)
        frames = [emissions(x[:, t : t + 1], of)[:, 0] for x in pairs]
        after = [advance(Log(), alpha, x, between) for alpha, x in zip(alphas, frames, strict=True)]
        alphas = [torch.where(inside, new, old) for new, old in zip(after, alphas, strict=True)]
    return branches.surprisal(so_far, alphas[0] + last, alphas[-1] + last)


def centred(scores: Tensor, of: Lattice) -> tuple[Tensor, Tensor]:
    """Scores ``[B, T, C]`` less the largest of each frame, and this ``[B, T]``, a constant; both 0 over padding.

    Nothing is taken off where all are −inf.
    """
    inside = torch.arange(scores.shape[1], device=scores.device) < of.lengths[:, None]
    x = torch.where(inside[..., None], scores, 0.0)
    top = x.detach().amax(-1)
    top = top.masked_fill(torch.isneginf(top), 0.0)
    return x - top[..., None], top


def totals(x: Tensor) -> Tensor:
    """Σ exp of each frame ``[B, T]`` of :func:`centred` scores; 1 where all are −inf: no alignment has such a frame."""
    nowhere = torch.isneginf(x).all(-1)
    return x.masked_fill(nowhere[..., None], 0.0).exp().sum(-1).masked_fill(nowhere, 1.0)


def emissions(scores: Tensor, of: Lattice) -> Tensor:
    """The score of each state at each frame, ``[B, T, 2 S + 1]``: that of its class; −inf beyond the target."""
    (B, S), T = of.labels.shape, scores.shape[1]
    label = scores.gather(-1, of.labels[:, None].expand(B, T, S))
    beyond = torch.arange(S, device=scores.device) >= of.target_lengths[:, None]
    label = label.masked_fill(beyond[:, None], -torch.inf)
    blank = scores[..., of.blank, None] if of.blank >= 0 else torch.full_like(scores[..., :1], -torch.inf)
    return torch.cat((torch.stack((blank.expand_as(label), label), -1).flatten(-2), blank), -1)


def forward(semiring: Semiring, x: Tensor, of: Lattice) -> list[Tensor]:
    """α_0 … α_T, semiring elements ``[B, 2 S + 1]``, of emissions ``[B, T, 2 S + 1]``."""
    alphas, between = [semiring.lift(begin(x, of))], arcs(x, of)
    for t in range(x.shape[1]):
        alphas.append(advance(semiring, alphas[-1], x[:, t], between))
    return alphas


def begin(like: Tensor, of: Lattice) -> Tensor:
    """α_0 ``[B, 2 S + 1]``: as if a blank came before the first frame."""
    start = like.new_full((len(of.labels), 2 * of.labels.shape[1] + 1), -torch.inf)
    start[:, 0] = 0.0
    return start


def advance(semiring: Semiring, alpha: Tensor, x: Tensor, between: tuple[Tensor, Tensor]) -> Tensor:
    """The sum over the paths of one frame more that end in a state, from emissions ``[B, 2 S + 1]`` and :func:`arcs`.

    α_t(k) = x_t(k) · Σ over the arcs into k from k, k − 1, k − 2.
    """
    stays, skips = (semiring.lift(arc) for arc in between)
    stay, step, skip = arrivals(alpha)
    paths = torch.stack((semiring.times(stay, stays), step, semiring.times(skip, skips)), -1)
    return semiring.times(semiring.plus(paths, -1), semiring.lift(x))


def ways(alpha: Tensor, between: tuple[Tensor, Tensor]) -> Tensor:
    """Of each state, the scores of the paths that come from itself and from the two states before, ``[*, 3]``."""
    stay, step, skip = arrivals(alpha)
    return torch.stack((stay + between[0], step, skip + between[1]), -1)


def arrivals(alpha: Tensor, nothing: float = -torch.inf) -> tuple[Tensor, Tensor, Tensor]:
    """α of the states from which each state is reached: itself, the one before, the one before that."""
    pad = torch.nn.functional.pad
    return alpha, pad(alpha, (1, 0), value=nothing)[..., :-1], pad(alpha, (2, 0), value=nothing)[..., :-2]


def arcs(like: Tensor, of: Lattice) -> tuple[Tensor, Tensor]:
    """The scores of staying in a state and of skipping into it, ``[B, 2 S + 1]``: 0, or −inf where not allowed."""
    (B, S), dtype = of.labels.shape, like.dtype
    stays, skips = (like.new_full((B, 2 * S + 1), -torch.inf) for _ in range(2))
    stays[:, ::2] = 0.0
    if of.stays:
        stays[:, 1::2] = 0.0
    skips[:, 1::2] = torch.where(of.direct, 0.0, -torch.inf).to(dtype)
    return stays, skips


def final_states(like: Tensor, of: Lattice) -> Tensor:
    """0 for the last label and the blank after it, in which an alignment may end, −inf for other states."""
    (B, S), last = of.labels.shape, 2 * of.target_lengths[:, None]
    states = torch.arange(2 * S + 1, device=like.device)
    return like.new_zeros(B, 2 * S + 1).masked_fill((states < last - 1) | (states > last), -torch.inf)


def marginals(scores: Tensor, of: Lattice, occupancy: Tensor) -> Tensor:
    """The probability of each class at each frame ``[B, T, C]`` from occupancies of states, added by class."""
    (B, S), T = of.labels.shape, scores.shape[1]
    classes = torch.zeros_like(scores).scatter_add(-1, of.labels[:, None].expand(B, T, S), occupancy[..., :S])
    if of.blank >= 0:
        added = torch.nn.functional.one_hot(torch.tensor(of.blank, device=scores.device), scores.shape[2])
        classes = classes + occupancy[..., S:] * added
    return classes


def gradient(scores: Tensor, of: Lattice, normalise: bool, log_z: Tensor, occupancy: Tensor) -> Tensor:
    """∂ ln Z / ∂ scores ``[B, T, C]``, or ∂ (ln Z less the normalisers of frames): marginals, less the softmax."""
    slopes = marginals(scores, of, occupancy)
    if not normalise:
        return slopes
    inside = torch.arange(scores.shape[1], device=scores.device) < of.lengths[:, None]
    alive = (inside & ~torch.isneginf(log_z)[:, None])[..., None]
    x = centred(scores, of)[0]
    return slopes - torch.where(alive, x.exp() / totals(x)[..., None], 0.0)
