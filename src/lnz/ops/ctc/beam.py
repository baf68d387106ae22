"""Prefix beam search: the labellings of highest probability that a beam of prefixes finds.

Each prefix in the beam carries the probability of all alignments so far that spell it, those that end in a blank and
those that end in its last label apart; equal prefixes are one. Sources: Graves 2008, section 7.5.3; Hannun, Maas,
Jurafsky and Ng 2014 (with a language model).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lnz.checks import check_scores
from lnz.ops.ctc.records import KERNELS
from lnz.typing import IGNORE

LanguageModel = Callable[[Tensor], Tensor]
"""Prefixes ``int64 [N, U]``, −100 beyond their ends, to the score of each class as the next label, ``[N, C]``."""

_FACTOR = 6364136223846793005  # of a linear congruential generator modulo 2⁶⁴ (Knuth), here to hash prefixes


@dataclass
class _Beam:
    """K prefixes of B sequences; all ``[B, K]`` but the labels ``[B, K, U]`` and the scores of what may follow."""

    labels: Tensor
    sizes: Tensor
    name: Tensor  # a hash of the prefix
    parent: Tensor  # that of the prefix without its last label
    last: Tensor
    in_blank: Tensor  # ln of the probability of the alignments that end in a blank
    in_label: Tensor
    bonus: Tensor  # the language model's score of the prefix
    onward: Tensor  # [B, K, C], the language model's scores of the next label


def search(
    log_probs: Tensor,
    lengths: Tensor,
    beam: int,
    blank: int | None,
    collapse_repeats: bool,
    language_model: LanguageModel | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The K = ``beam`` best prefixes found, best first.

    Args:
        log_probs: ``[B, T, C]`` normalised scores of frames, ``lengths`` ``[B]`` of them.
        lengths: see above.
        beam: how many prefixes are kept from frame to frame.
        blank: the class that is removed, or ``None``.
        collapse_repeats: the topology.
        language_model: scores of next labels, added once per label.

    Returns:
        Labels ``[B, K, U]``, −100 beyond their ends, U the longest of them; their number ``[B, K]``; their scores
        ``[B, K]``, −inf where fewer prefixes are possible.
    """
    B, T, _ = log_probs.shape
    search = KERNELS.find("search", log_probs) if language_model is None and log_probs.numel() else None
    if search is not None:
        labels, sizes, scores = search(log_probs, lengths, beam, blank, collapse_repeats)
        return labels[..., : int(sizes.max())], sizes, scores
    state = _start(log_probs, beam, blank, language_model)
    for t in range(T if B else 0):
        before = state
        state = _advance(state, log_probs[:, t], blank, collapse_repeats, language_model)
        going = lengths > t
        for name, value in vars(state).items():
            old = getattr(before, name)
            if name == "labels":
                old = torch.nn.functional.pad(old, (0, value.shape[-1] - old.shape[-1]), value=IGNORE)
            setattr(state, name, torch.where(going.reshape(B, *[1] * (value.dim() - 1)), value, old))
    scores = torch.logaddexp(state.in_blank, state.in_label) + state.bonus
    scores, order = scores.sort(stable=True, dim=-1, descending=True)
    sizes = state.sizes.gather(1, order).masked_fill(torch.isneginf(scores), 0)
    labels = state.labels.gather(1, order[..., None].expand_as(state.labels))
    width = int(sizes.max()) if sizes.numel() else 0
    return labels[..., :width].masked_fill(torch.isneginf(scores)[..., None], IGNORE), sizes, scores


def _start(log_probs: Tensor, beam: int, blank: int | None, language_model: LanguageModel | None) -> _Beam:
    B, _, C = log_probs.shape
    whole = {"dtype": torch.int64, "device": log_probs.device}
    nothing = log_probs.new_full((B, beam), -torch.inf)
    in_blank = nothing.clone()
    in_blank[:, 0] = 0.0
    onward = log_probs.new_zeros(B, beam, C)
    if language_model is not None and B:
        onward[:, 0] = _next(language_model, torch.full((1, 0), IGNORE, **whole), onward, blank)
    names = torch.arange(beam, **whole).expand(B, beam).clone()  # those of impossible prefixes only need to differ
    return _Beam(
        torch.full((B, beam, 0), IGNORE, **whole), torch.zeros(B, beam, **whole), names, torch.full_like(names, -1),
        torch.full_like(names, -1), in_blank, nothing, torch.zeros_like(nothing), onward,
    )  # fmt: skip


def _advance(
    old: _Beam, frame: Tensor, blank: int | None, collapse_repeats: bool, language_model: LanguageModel | None
) -> _Beam:
    """One frame ``[B, C]`` further."""
    B, K = old.last.shape
    C = frame.shape[1]
    total = torch.logaddexp(old.in_blank, old.in_label)
    silent = torch.full_like(total[:, :1], -torch.inf) if blank is None else frame[:, blank, None]
    stay_blank, stay_label = total + silent, torch.full_like(total, -torch.inf)
    again = old.last.clamp(min=0)
    longer = total[..., None] + frame[:, None]  # [B, K, C]: the prefix with one more label
    if collapse_repeats:
        stay_label = torch.where(old.last >= 0, old.in_label + frame.gather(1, again), -torch.inf)
        repeated = torch.nn.functional.one_hot(again, C).bool() & (old.last >= 0)[..., None]
        longer = torch.where(repeated, (old.in_blank[..., None] + frame[:, None]), longer)
    if blank is not None:
        longer[..., blank] = -torch.inf
    # a longer prefix that is in the beam already gets the probability there
    joins = old.parent[:, None] == old.name[..., None]  # [B, parent, child]
    joins &= ~torch.isneginf(total)[:, None] & (old.last >= 0)[:, None]
    arriving = longer.gather(2, again[:, None].expand(B, K, K)).masked_fill(~joins, -torch.inf)
    stay_label = torch.logaddexp(stay_label, arriving.logsumexp(1) if K else stay_label)
    taken = torch.zeros_like(longer, dtype=torch.int64).scatter_add(2, again[:, None].expand(B, K, K), joins.long())
    longer = longer.masked_fill(taken > 0, -torch.inf)

    stay = torch.logaddexp(stay_blank, stay_label) + old.bonus
    candidates = torch.cat((stay, (longer + (old.bonus[..., None] + old.onward)).flatten(1)), 1)
    best, index = candidates.topk(K, 1)
    grown = index >= K
    source = torch.where(grown, (index - K) // C, index)
    label = torch.where(grown, (index - K) % C, -1)

    def kept(x: Tensor) -> Tensor:
        at = source.reshape(*source.shape, *[1] * (x.dim() - 2)).expand(*source.shape, *x.shape[2:])
        return x.gather(1, at)

    at = label.clamp(min=0)
    weight = kept(longer).gather(2, at[..., None]).squeeze(-1)
    onward, sizes = kept(old.onward), kept(old.sizes)
    labels = torch.nn.functional.pad(kept(old.labels), (0, 1), value=IGNORE)
    labels = torch.where(
        grown[..., None] & (torch.arange(labels.shape[-1], device=at.device) == sizes[..., None]),
        label[..., None], labels,
    )  # fmt: skip
    width = int((sizes + grown).max())
    labels = labels[..., :width]
    bonus = kept(old.bonus) + torch.where(grown, onward.gather(2, at[..., None]).squeeze(-1), 0.0)
    fresh = grown & ~torch.isneginf(best)
    if language_model is not None and fresh.any():
        onward = onward.masked_scatter(fresh[..., None], _next(language_model, labels[fresh], onward, blank))
    name = kept(old.name)
    dead = torch.isneginf(best)
    return _Beam(
        labels,
        sizes + grown,
        torch.where(grown, name * _FACTOR + label + 1442695040888963407, name),
        torch.where(grown, name, kept(old.parent)),
        torch.where(grown, label, kept(old.last)),
        torch.where(grown, -torch.inf, kept(stay_blank)).masked_fill(dead, -torch.inf),
        torch.where(grown, weight, kept(stay_label)).masked_fill(dead, -torch.inf),
        bonus,
        onward,
    )


def _next(language_model: LanguageModel, prefixes: Tensor, like: Tensor, blank: int | None) -> Tensor:
    """What the model says of the next label, ``[N, C]``, of the kind of ``like`` ``[…, C]``; 0 for the blank."""
    scores, C = language_model(prefixes), like.shape[-1]
    if not isinstance(scores, Tensor) or scores.shape != (len(prefixes), C):
        got = list(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise ValueError(f"language_model: expected to return scores of shape [{len(prefixes)}, {C}], got {got}")
    scores = scores.to(like)
    if blank is not None:
        scores = scores.index_fill(1, torch.tensor([blank], device=scores.device), 0.0)
    check_scores("language_model", scores)
    return scores
