"""A network from words to distributions over constituency trees."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lnz.distributions import ConstituencyTree
from lnz.nn.dependency_parser import Decoder
from lnz.nn.span_scorer import SpanScorer
from lnz.objectives import nll


class SpanParser(nn.Module):
    """An encoder of words, scores of labelled spans, and the exponential softmax over binary trees.

    The parser of Stern et al. (2017) with the encoder that it is given, trained by maximum likelihood. Trees of any
    arity are made charts by :class:`lnz.io.ChartLabels`, whose label 0, of constituents that only binarisation puts in,
    is the empty one here.

    Args:
        encoder: a module with a ``width``, from a batch with ``lengths`` ``int64 [B]`` to features ``[B, N, width]``,
            half of them read from either side, as :class:`~lnz.nn.WordEncoder`.
        num_labels: L, the empty one among them.
        hidden: see :class:`~lnz.nn.SpanScorer`.
        dropout: see there, too.
    """

    def __init__(self, encoder: nn.Module, num_labels: int, *, hidden: int = 128, dropout: float = 0.2) -> None:
        super().__init__()
        self.encoder = encoder
        width: int = encoder.width  # type: ignore[assignment]
        self.scorer = SpanScorer(width, num_labels, hidden=hidden, dropout=dropout)

    def scores(self, batch: Mapping[str, Any]) -> Tensor:
        """Of spans and labels, ``[B, N, N, L]``."""
        return self.scorer(self.encoder(batch), batch["lengths"])

    def distribution(self, batch: Mapping[str, Any]) -> ConstituencyTree:
        """The distribution over the trees ``int64 [B, N, N]`` of each sentence."""
        return ConstituencyTree(self.scores(batch), batch["lengths"])

    forward = distribution

    def nll(self, batch: Mapping[str, Any], trees: Tensor) -> Tensor:
        """−ln P of ``trees`` ``int64 [B, N, N]``, summed over the sentences; entries of −100 are summed over.

        Raises:
            InfeasibleError: of sentences whose constituents make no tree; names them.
        """
        return nll(self(batch), trees, "sum")

    @torch.no_grad()
    def decode(self, batch: Mapping[str, Any], by: Decoder = "mbr") -> Tensor:
        """One tree for each sentence, ``int64 [B, N, N]``, −1 where there is no constituent, −100 over padding.

        Args:
            batch: as the encoder takes it.
            by: "mbr", that with the fewest constituents expected to be wrong or missing, empty ones left aside (minimum
                Bayes risk); "argmax", the most probable one.
        """
        if by not in ("mbr", "argmax"):
            raise ValueError(f"by: expected 'mbr' or 'argmax', got {by!r}")
        p = self(batch)
        return p.argmax() if by == "argmax" else minimum_bayes_risk(p)


def minimum_bayes_risk(p: ConstituencyTree) -> Tensor:
    """The tree ``[*batch, N, N]`` with the fewest constituents expected to be wrong or missing, but for label 0.

    One that is there with probability P is expected to be wrong 1 − P times, and to be missing P times if it is left
    out, so it gains 2 P − 1.
    """
    gains = 2 * p.marginals - 1
    gains[..., 0] = 0.0
    return ConstituencyTree(gains, p.lengths).argmax()
