"""A linear layer that ends in CTC."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from lnz.checks import as_counts, as_labels, check_lengths
from lnz.distributions.ctc import CTC
from lnz.nn.functional import Counts, Reduction, linear_ctc_loss


class CTCHead(nn.Module):
    """Hidden states to a distribution over label sequences: logits h Wᵀ + b, then :class:`lnz.CTC`.

    ``loss`` is made for training with large vocabularies: it never holds the logits of all frames.

    Args:
        num_features: H, the size of hidden states.
        num_classes: C, the blank among them.
        blank: the class of blank, ``None`` for none.
        collapse_repeats: the topology, see :class:`lnz.CTC`.
        bias: whether logits have a bias.
    """

    def __init__(
        self,
        num_features: int,
        num_classes: int,
        blank: int | None = 0,
        collapse_repeats: bool = True,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.linear = nn.Linear(num_features, num_classes, bias)
        self.blank, self.collapse_repeats = blank, collapse_repeats

    def forward(self, hidden: Tensor, lengths: Counts | None = None) -> CTC:
        """The distribution given hidden states ``[*batch, T, H]`` of ``lengths`` ``[*batch]`` frames."""
        return CTC(self.linear(hidden), lengths, self.blank, self.collapse_repeats)

    if TYPE_CHECKING:
        __call__ = forward

    def loss(
        self,
        hidden: Tensor,
        targets: Tensor,
        lengths: Counts | None = None,
        target_lengths: Counts | None = None,
        reduction: Reduction = "mean",
        zero_infinity: bool = False,
        frames_at_once: int | None = None,
    ) -> Tensor:
        """−ln Q(y) of targets, the logits made for a few frames at a time.

        Args:
            hidden: ``[B, T, H]``.
            targets: integers ``[B, S]``.
            lengths: ``[B]`` frames, ``None`` for all.
            target_lengths: ``[B]`` labels, ``None`` for those before the first −100.
            reduction: as in :func:`lnz.nn.functional.ctc_loss`, and so are the others.
            zero_infinity: see there.
            frames_at_once: see :func:`lnz.nn.functional.linear_ctc_loss`.
        """
        B, T, _ = hidden.shape
        lengths = torch.full((B,), T) if lengths is None else as_counts("lengths", lengths, B, hidden.device)
        check_lengths(lengths, T, of="the frames of hidden")
        targets = as_labels("targets", targets)
        target_lengths = (targets != -100).long().cumprod(-1).sum(-1) if target_lengths is None else target_lengths
        return linear_ctc_loss(
            hidden,
            self.linear.weight,
            self.linear.bias,
            targets,
            lengths,
            target_lengths,
            self.blank,
            reduction,
            zero_infinity,
            collapse_repeats=self.collapse_repeats,
            frames_at_once=frames_at_once,
        )
