"""The network of a tagger: an encoder, the scores of tags, and the chain that joins them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from lnz.distributions import LinearChain
from lnz.nn import LinearChainCRF
from lnz.nn.tag_schemes import Scheme
from lnz.tasks.tag.feature_encoder import FeatureEncoder


class Encoder(Protocol):
    """A batch of sequences to features ``[B, T, width]``; a module of the task's, or one of your own."""

    width: int

    def __call__(self, batch: Mapping[str, Any]) -> Tensor: ...


class Tagger(nn.Module):
    """An encoder with a linear layer to the scores of tags, ending in a chain or in a softmax per position.

    Args:
        encoder: a module with a ``width``, from a batch to features ``[B, T, width]``.
        num_tags: L.
        chain: whether tags are joined by a :class:`~lnz.nn.LinearChainCRF`; else each position is by itself.
        tags: names of the tags, to forbid what ``scheme`` forbids.
        scheme: of the tags; ``None`` forbids nothing.
    """

    def __init__(
        self,
        encoder: nn.Module,
        num_tags: int,
        chain: bool = True,
        tags: Sequence[str] | None = None,
        scheme: Scheme | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        scored = isinstance(encoder, FeatureEncoder)  # a weight per feature and tag: nothing follows
        self.nodes = nn.Identity() if scored else nn.Linear(encoder.width, num_tags)  # type: ignore[arg-type]
        if not chain:
            self.crf = None
        elif scheme is None:
            self.crf = LinearChainCRF(num_tags, batch_first=True)
        else:
            self.crf = LinearChainCRF(num_tags, batch_first=True, tags=tags, scheme=scheme)

    def forward(self, batch: Mapping[str, Any]) -> LinearChain:
        """The distribution over the tags of each sequence of the batch; without a chain, its edge scores are 0."""
        return self.joined(self.nodes(self.encoder(batch)), batch["lengths"])

    def joined(self, scores: Tensor, lengths: Tensor) -> LinearChain:
        """The distribution of node scores ``[B, T, L]`` and of this network's edge scores."""
        if self.crf is None:
            L = scores.shape[-1]
            return LinearChain(scores, scores.new_zeros(L, L), lengths)
        return self.crf.distribution(scores, inside(lengths, scores.shape[1]))


def inside(lengths: Tensor, steps: int) -> Tensor:
    """Which positions are not padding, ``bool [B, T]``."""
    return torch.arange(steps, device=lengths.device) < lengths[:, None]
