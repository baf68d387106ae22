"""Charts over the spans of sentences, as references keep them: lists by width.

Entry w is ``[…, B, N − w]``, the spans i … i + w by their first words, so that a step of a recursion does all spans of
one width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count

import torch
from torch import Tensor

from lnz.typing import IGNORE

ABSENT = -1
"""What a labelling holds where no constituent is."""


def no_constituents(M: int, N: int, lengths: Tensor) -> Tensor:
    """M labellings ``int64 [M, B, N, N]`` without constituents: −1, and −100 over padding."""
    beyond = torch.arange(N, device=lengths.device) >= lengths[:, None]
    beyond = beyond[:, None] | beyond[..., None]
    return torch.where(beyond, IGNORE, ABSENT).expand(M, *beyond.shape).clone()


def within(N: int, lengths: Tensor) -> Tensor:
    """Which entries ``[*lengths, N, N]`` are spans: neither below the diagonal nor beyond the length."""
    words = torch.arange(N, device=lengths.device)
    return (words[:, None] <= words) & (words < lengths[..., None, None])


def by_width(table: Tensor) -> list[Tensor]:
    """``[B, N, N, …]`` by first and last word as a list by width, ``[B, N − w, …]``."""
    return [table.diagonal(w, 1, 2).movedim(-1, 1) for w in range(table.shape[1])]


def parts(chart: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """Per width w, the values of left and right parts ``[…, N − w, w]`` of spans, by where they split.

    ``chart`` is read as it grows: entry w must be there when the parts of width w + 1 are asked for.
    """
    left = right = torch.empty(0)
    yield left, right
    for w in count(1):
        newest = chart[w - 1]
        if w == 1:
            left = right = newest.new_zeros(*newest.shape, 0)
        left = torch.cat((left[..., :-1, :], newest[..., :-1, None]), -1)
        right = torch.cat((newest[..., 1:, None], right[..., 1:, :]), -1)
        yield left, right


def of_sentences(chart: Sequence[Tensor], lengths: Tensor) -> Tensor:
    """The entries ``[…, B]`` of a chart that are whole sentences; 0 where n = 0."""
    if not chart:
        return lengths.new_zeros(len(lengths), dtype=torch.get_default_dtype())
    first = torch.stack([each[..., 0] for each in chart], -1)
    at = (lengths - 1).clamp(min=0).expand(first.shape[:-1]).unsqueeze(-1)
    return torch.where(lengths > 0, first.gather(-1, at).squeeze(-1), 0.0)
