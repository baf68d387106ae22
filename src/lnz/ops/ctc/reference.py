"""CTC in the log domain: the recursions as they are on paper, for any device and dtype.

Scores x ``[B, T, C]`` of the classes at each frame, and a :class:`~lnz.ops.ctc.lattice.Lattice` of states k = 0 … 2 S,
the even ones blanks. Source: Graves, Fernández, Gomez and Schmidhuber 2006, section 4.1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lnz.ops.ctc.lattice import Lattice
from lnz.semirings import Log, Semiring


def forward_backward(scores: Tensor, of: Lattice) -> tuple[Tensor, Tensor]:
    """ln of the sum, over the alignments that spell the target, of exp of their scores ``[B]``; occupancies.

    The occupancy of a state at a frame is exp(α_t(k) + β_t(k) − ln Z); they are given ``[B, T, S + 1]``, one per label
    of the target and, last, that of all blanks together. 0 over padding, and everywhere if ln Z = −inf. O(B T S) time.
    """
    inside = torch.arange(scores.shape[1], device=scores.device) < of.lengths[:, None]
    x = emissions(scores.masked_fill(~inside[..., None], 0.0), of)
    alphas, betas = forward(Log(), x, of), backward(x, of)
    log_z = scores.new_zeros(len(scores))
    for t, alpha in enumerate(alphas):
        log_z = torch.where(of.lengths == t, Log().plus(alpha + final_states(x, of), -1), log_z)
    z = log_z.masked_fill(torch.isneginf(log_z), 0.0)[:, None]  # where Z = 0, all α + β are −inf already
    states = [(alpha + beta - z).exp() for alpha, beta in zip(alphas[1:], betas[1:], strict=True)]
    states = torch.stack(states, 1) if states else x
    states = states.masked_fill(~inside[..., None], 0.0)
    return log_z, torch.cat((states[..., 1::2], states[..., ::2].sum(-1, keepdim=True)), -1)


def emissions(scores: Tensor, of: Lattice) -> Tensor:
    """The score of each state at each frame, ``[B, T, 2 S + 1]``: that of its class; −inf beyond the target."""
    (B, S), T = of.labels.shape, scores.shape[1]
    label = scores.gather(-1, of.labels[:, None].expand(B, T, S))
    beyond = torch.arange(S, device=scores.device) >= of.target_lengths[:, None]
    label = label.masked_fill(beyond[:, None], -torch.inf)
    blank = scores[..., of.blank, None] if of.blank >= 0 else torch.full_like(scores[..., :1], -torch.inf)
    return torch.cat((torch.stack((blank.expand_as(label), label), -1).flatten(-2), blank), -1)


def forward(semiring: Semiring, x: Tensor, of: Lattice) -> list[Tensor]:
    """α_0 … α_T, semiring elements ``[B, 2 S + 1]``: the sum over the paths of t frames that end in a state.

    α_0 is as if a blank came before the first frame; α_t(k) = x_t(k) · Σ over the arcs into k from k, k − 1, k − 2.
    """
    stays, skips = (semiring.lift(arc) for arc in arcs(x, of))
    start = x.new_full((len(x), x.shape[2]), -torch.inf)
    start[:, 0] = 0.0
    alphas = [semiring.lift(start)]
    for t in range(x.shape[1]):
        stay, step, skip = arrivals(alphas[-1])
        paths = torch.stack((semiring.times(stay, stays), step, semiring.times(skip, skips)), -1)
        alphas.append(semiring.times(semiring.plus(paths, -1), semiring.lift(x[:, t])))
    return alphas


def arrivals(alpha: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """α of the states from which each state is reached: itself, the one before, the one before that."""
    pad = torch.nn.functional.pad
    return alpha, pad(alpha, (1, 0), value=-torch.inf)[..., :-1], pad(alpha, (2, 0), value=-torch.inf)[..., :-2]


def arcs(x: Tensor, of: Lattice) -> tuple[Tensor, Tensor]:
    """The scores of staying in a state and of skipping into it, ``[B, 2 S + 1]``: 0, or −inf where not allowed."""
    stays, skips = (x.new_full((len(x), x.shape[2]), -torch.inf) for _ in range(2))
    stays[:, ::2] = 0.0
    if of.stays:
        stays[:, 1::2] = 0.0
    skips[:, 1::2] = torch.where(of.direct, 0.0, -torch.inf).to(x.dtype)
    return stays, skips


def final_states(x: Tensor, of: Lattice) -> Tensor:
    """0 for the last label and the blank after it, in which an alignment may end, −inf for other states."""
    states = torch.arange(x.shape[2], device=x.device)
    last = 2 * of.target_lengths[:, None]
    return x.new_zeros(len(x), x.shape[2]).masked_fill((states < last - 1) | (states > last), -torch.inf)


def backward(x: Tensor, of: Lattice) -> list[Tensor]:
    """β_0 … β_T, ``[B, 2 S + 1]``: ln of the sum, over how a path goes on after t frames, of exp of its scores."""
    stays, skips = arcs(x, of)
    last = final_states(x, of)
    pad = torch.nn.functional.pad
    betas = [last]
    for t in reversed(range(x.shape[1])):
        onward = x[:, t] + betas[-1]
        step = pad(onward, (0, 1), value=-torch.inf)[..., 1:]
        skip = pad(onward + skips, (0, 2), value=-torch.inf)[..., 2:]
        beta = Log().plus(torch.stack((onward + stays, step, skip), -1), -1)
        betas.append(torch.where((of.lengths <= t)[:, None], last, beta))
    return betas[::-1]


def marginals(scores: Tensor, of: Lattice, occupancy: Tensor) -> Tensor:
    """The probability of each class at each frame ``[B, T, C]`` from occupancies of states, added by class."""
    (B, S), T = of.labels.shape, scores.shape[1]
    classes = torch.zeros_like(scores).scatter_add(-1, of.labels[:, None].expand(B, T, S), occupancy[..., :S])
    if of.blank >= 0:
        added = torch.nn.functional.one_hot(torch.tensor(of.blank, device=scores.device), scores.shape[2])
        classes = classes + occupancy[..., S:] * added
    return classes


def frames(scores: Tensor, of: Lattice) -> Tensor:
    """Of each frame the largest score, and the sum of exp of the scores less that, ``[B, T, 2]``; 0 and 1 over padding.

    Also 0 and 1 where all scores are −inf: no alignment has such a frame.
    """
    inside = torch.arange(scores.shape[1], device=scores.device) < of.lengths[:, None]
    top = scores.amax(-1)
    inside = inside & ~torch.isneginf(top)
    top = top.masked_fill(~inside, 0.0)
    total = (scores - top[..., None]).masked_fill(~inside[..., None], -torch.inf).exp().sum(-1)
    return torch.stack((top, total.masked_fill(~inside, 1.0)), -1)


def gradient(scores: Tensor, of: Lattice, normalise: bool, log_z: Tensor, occupancy: Tensor, frames: Tensor) -> Tensor:
    """∂ ln Z / ∂ scores ``[B, T, C]``, or ∂ (ln Z less the normalisers of frames): marginals, less the softmax."""
    slopes = marginals(scores, of, occupancy)
    if not normalise:
        return slopes
    inside = torch.arange(scores.shape[1], device=scores.device) < of.lengths[:, None]
    alive = (inside & ~torch.isneginf(log_z)[:, None])[..., None]
    softmax = (scores - frames[..., :1]).masked_fill(~alive, -torch.inf).exp() / frames[..., 1:]
    return slopes - softmax
