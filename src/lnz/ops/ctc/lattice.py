"""Which paths through which states spell a target, for every topology of CTC.

A target y_1 … y_S has 2 S + 1 states in a row: a blank, y_1, a blank, y_2, … a blank. An alignment spends one frame per
state, starting in one of the first two and ending in one of the last two; from a frame to the next it

- *steps* to the next state,
- *stays* in a blank; in a label only where repeats are collapsed, for then a label may last,
- *skips* a blank, from a label directly to the next one: wherever repeats are kept; where they are collapsed, only
  between labels that differ, for equal ones would become one.

Every frame labelling that spells the target is one such path. A mode without blank has the same states, the blanks at
probability 0.

Sources: Graves et al. 2006, section 4 (repeats collapsed); without collapsing, the lattice of an alignment in which
only blanks are removed.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Lattice(NamedTuple):
    """The states of B targets; what :mod:`lnz.ops.ctc` takes beside the scores of frames.

    Attributes:
        labels: ``int64 [B, S]``, in 0 … C − 1, whatever over padding.
        direct: ``bool [B, S]``, whether a label may follow the one before it without a blank between.
        lengths: ``int64 [B]``, frames.
        target_lengths: ``int64 [B]``, labels.
        blank: the class of blank, −1 where there is none.
        stays: whether a label may last for several frames.
    """

    labels: Tensor
    direct: Tensor
    lengths: Tensor
    target_lengths: Tensor
    blank: int
    stays: bool


def lattice(
    labels: Tensor, lengths: Tensor, target_lengths: Tensor, blank: int | None, collapse_repeats: bool
) -> Lattice:
    """The lattice of targets ``int64 [B, S]``, classes or negative beyond their lengths; ``blank`` may be ``None``."""
    labels = labels.clamp(min=0)
    direct = labels >= 0
    if collapse_repeats:
        direct = torch.cat((direct[:, :1], labels[:, 1:] != labels[:, :-1]), 1)
    return Lattice(labels, direct, lengths, target_lengths, -1 if blank is None else blank, collapse_repeats)


def frames_needed(of: Lattice) -> Tensor:
    """The least number of frames that spell each target, ``[B]``: its labels, and a blank between those that need one.

    Without a blank such a target is impossible at any length; this then is more frames than anyone has.
    """
    later = torch.arange(of.labels.shape[1], device=of.labels.device)
    between = (~of.direct & (later > 0) & (later < of.target_lengths[:, None])).sum(1)
    if of.blank < 0:
        between = torch.where(between > 0, 2**62, 0)
    return of.target_lengths + between


def collapse(z: Tensor, lengths: Tensor, blank: int | None, collapse_repeats: bool) -> tuple[Tensor, Tensor]:
    """What frame labellings ``int64 [*, T]`` of ``lengths`` ``[*]`` spell: labels ``[*, T]``, their number ``[*]``.

    Over padding the labels are −100.
    """
    T = z.shape[-1]
    kept = torch.arange(T, device=z.device) < lengths.unsqueeze(-1)
    if collapse_repeats and T:
        kept = kept & torch.nn.functional.pad(z[..., 1:] != z[..., :-1], (1, 0), value=True)
    if blank is not None:
        kept = kept & (z != blank)
    place = torch.where(kept, kept.cumsum(-1) - 1, T)  # the others go to one more place, which is cut off
    labels = torch.full((*z.shape[:-1], T + 1), -100, device=z.device)
    return labels.scatter(-1, place, z)[..., :T], kept.sum(-1)


def as_single(scores: Tensor) -> Tensor:
    """Scores in float32 at least, which kernels take."""
    return scores.to(torch.promote_types(scores.dtype, torch.float32))
