"""Beam search: likely sequences of a model that says how likely each next label is."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lnz.typing import IGNORE


def beam_search(
    following: Callable[[Tensor, Tensor], Tensor],
    prefix: Tensor,
    num_labels: int,
    end: int | None,
    length_exponent: float,
) -> tuple[Tensor, Tensor]:
    """The k best sequences found, ``[B, k, T]``, −100 behind their end, and their ln P ``[B, k]``.

    Where fewer than k were found, the rest are −100 with −inf. Sequences are ranked by ln P / length ** exponent, which
    no extension of a prefix exceeds by more than its ln P / T ** exponent: the search stops when none can win.

    Args:
        following: from prefixes ``[B * k, t]``, and whether each is in use, ``bool [B * k]``, to ln P of the label that
            follows, ``[B * k, L]``; what it says of those that are not is ignored.
        prefix: room for the prefixes, ``int64 [B, k, T]``, all −100.
        num_labels: L.
        end: the label that ends a sequence, or ``None``.
        length_exponent: of the length rule.
    """
    B, k, T = prefix.shape
    labels = torch.arange(num_labels, device=prefix.device)
    impossible = torch.full((B, k), -torch.inf, dtype=torch.float64, device=prefix.device)
    found, of_found, rank = prefix, impossible, impossible
    score, dtype = (
        torch.where(torch.arange(k, device=prefix.device) == 0, 0.0, impossible),
        impossible.dtype,
    )  # one, empty
    for step in range(T):
        log_q = following(prefix[..., :step].flatten(0, 1), ~torch.isneginf(score).flatten())
        dtype, joint = log_q.dtype, score.unsqueeze(-1) + log_q.reshape(B, k, num_labels)
        ending = labels if step == T - 1 else labels[:0] if end is None else labels[end : end + 1]
        if len(ending):
            longer, of_longer = _extended(prefix, joint[..., ending], ending, step)
            found, of_found = torch.cat((found, longer), 1), torch.cat((of_found, of_longer), 1)
            rank, at = torch.cat((rank, of_longer / (step + 1) ** length_exponent), 1).topk(k, 1)
            found, of_found = _taken(found, at), of_found.gather(1, at)
        if end is not None:
            joint[..., end] = -torch.inf
        prefix, score = _extended(prefix, joint, labels, step)
        if (score[:, 0] / T**length_exponent <= rank[:, -1]).all():
            break
    return found.masked_fill(torch.isneginf(of_found).unsqueeze(-1), IGNORE), of_found.to(dtype)


def _extended(prefix: Tensor, joint: Tensor, labels: Tensor, step: int) -> tuple[Tensor, Tensor]:
    """The k best of ``prefix [B, k, T]``, each followed by one of ``labels [M]``, scored ``joint [B, k, M]``."""
    score, at = joint.flatten(1).topk(prefix.shape[1], 1)
    longer = _taken(prefix, at // len(labels)).clone()
    longer[..., step] = labels[at % len(labels)]
    return longer, score


def _taken(rows: Tensor, at: Tensor) -> Tensor:
    """``rows [B, m, T]`` at ``at [B, k]``, ``[B, k, T]``."""
    return rows.gather(1, at.unsqueeze(-1).expand(-1, -1, rows.shape[-1]))
