"""Why gold tags have probability 0, in words: which sentence, which step, which tags."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lnz.errors import InfeasibleError


class TagScores(NamedTuple):
    """Scores of tags that are added up: emissions ``[B, T, L]``, start ``[L]``, end ``[L]``, transitions ``[L, L]``.

    Beside them, the tags allowed at each step, bool ``[B, T, L]``; ``None``, all.
    """

    emissions: Tensor
    start: Tensor
    end: Tensor
    transitions: Tensor
    allowed: Tensor | None = None


def impossible_tags(
    entries: Sequence[int],
    scores: TagScores,
    tags: Tensor,
    mask: Tensor | None,
    names: Sequence[str] | None = None,
    scheme: str | None = None,
) -> InfeasibleError:
    """The error that names the batch ``entries`` and says what forbids the tags ``[B, T]`` of the first of them.

    Args:
        entries: sentences whose tags have probability 0.
        scores: of the tags.
        tags: the gold ones, −100 where latent.
        mask: bool ``[B, T]``, the steps that there are; ``None`` is all.
        names: of the tags; by default, their numbers.
        scheme: that the names follow, if any.
    """
    b = entries[0]
    steps = range(tags.shape[1]) if mask is None else mask[b].nonzero().flatten().tolist()
    reason = _reason(b, list(steps), scores, tags[b].tolist(), names, scheme)
    shown = f"[{', '.join(map(str, entries[:8]))}{', …' if len(entries) > 8 else ''}]"
    return InfeasibleError(
        f"tags: expected gold tags of positive probability, got probability 0 in batch entries {shown}: "
        f"in sentence {b}{reason}; zero_infinity=True leaves such sentences out",
        entries=entries,
    )


def _reason(
    b: int,
    steps: Sequence[int],
    scores: TagScores,
    tags: Sequence[int],
    names: Sequence[str] | None,
    scheme: str | None,
) -> str:
    def named(tag: int) -> str:
        return f"tag {tag}" if names is None else repr(names[tag])

    in_scheme = "" if scheme is None else f" in scheme {scheme}"
    before = None
    for step in steps:
        tag, at = tags[step], f", step {step}, "
        if tag < 0:
            before = tag
            continue
        if scores.allowed is not None and not scores.allowed[b, step, tag]:
            return f"{at}{named(tag)} is not among the allowed tags"
        if torch.isneginf(scores.emissions[b, step, tag]):
            return f"{at}{named(tag)} has an emission score of -inf"
        if before is None and torch.isneginf(scores.start[tag]):
            return f"{at}{named(tag)} cannot be the first tag{in_scheme}"
        if before is not None and before >= 0 and torch.isneginf(scores.transitions[before, tag]):
            return f"{at}{named(tag)} cannot follow {named(before)}{in_scheme}"
        if step == steps[-1] and torch.isneginf(scores.end[tag]):
            return f"{at}{named(tag)} cannot be the last tag{in_scheme}"
        before = tag
    return ", no tagging agrees with the tags that are not latent"
