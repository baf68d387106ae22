"""Scores of the spans of a sentence, from differences between the places where they begin and end."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lnz.checks import as_integers, check_lengths


class SpanScorer(nn.Module):
    """Scores of labels of all spans, from features that have read the sentence in two directions.

    Between two words, before the first and behind the last there is a fencepost: what was read up to there, and what
    was read from the end down to there. A span is the difference of two fenceposts (Stern et al. 2017), whose labels
    are scored by a perceptron with one layer and layer normalisation (Kitaev & Klein 2018). The first layer is linear,
    so it is taken of fenceposts: O(N (width · hidden) + N² hidden · L).

    Args:
        width: of the features, even; the first half has read the words up to each one, the other half those from there
            on, as of :class:`~lnz.nn.WordEncoder`.
        num_labels: L. Label 0 is the empty one, of spans that are there only because trees are binary: its score is 0.
        hidden: width of the layer.
        dropout: of it.
    """

    def __init__(self, width: int, num_labels: int, *, hidden: int = 128, dropout: float = 0.2) -> None:
        super().__init__()
        if width < 2 or width % 2:
            raise ValueError(f"width: expected an even positive integer, got {width}")
        if num_labels < 2:
            raise ValueError(f"num_labels: expected at least 2, the empty label and another, got {num_labels}")
        self.start, self.stop = (nn.Parameter(torch.randn(width // 2) / width**0.5) for _ in range(2))
        self.project = nn.Linear(width, hidden)
        self.normalise, self.dropout = nn.LayerNorm(hidden), nn.Dropout(dropout)
        self.label = nn.Linear(hidden, num_labels - 1)

    def forward(self, features: Tensor, lengths: Tensor | Sequence[int] | None = None) -> Tensor:
        """Scores ``[*batch, N, N, L]`` of words i … j (inclusive) as :class:`~lnz.ConstituencyTree` takes them.

        Args:
            features: ``[*batch, N, width]``.
            lengths: integers ``[*batch]``; ``None`` is N everywhere. What lies beyond is ignored.
        """
        N = features.shape[-2]
        posts = self._fenceposts(features, lengths) @ self.project.weight.mT
        spans = posts[..., None, 1:, :] - posts[..., :N, None, :] + self.project.bias
        hidden = self.dropout(torch.relu(self.normalise(spans)))
        scores = self.label(hidden)
        return torch.cat((scores.new_zeros(*scores.shape[:-1], 1), scores), -1)

    def _fenceposts(self, features: Tensor, lengths: Tensor | Sequence[int] | None) -> Tensor:
        """``[*batch, N + 1, width]``; the difference of the second half is negative, which the projection learns."""
        ahead, back = features.chunk(2, -1)
        shape = (*features.shape[:-2], 1, ahead.shape[-1])
        ahead = torch.cat((self.start.to(features.dtype).expand(shape), ahead), -2)
        stop = self.stop.to(features.dtype).expand(shape)
        back = torch.cat((back, stop), -2)
        if lengths is not None:
            lengths = as_integers("lengths", lengths, features.device)
            check_lengths(lengths, features.shape[-2])
            beyond = torch.arange(back.shape[-2], device=features.device) >= lengths.unsqueeze(-1)
            back = torch.where(beyond.unsqueeze(-1), stop, back)
        return torch.cat((ahead, back), -1)
