"""Scores of tags from sparse, hashed features of words; learnt on all sentences at once, or batch by batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn
from torch.nn import functional

from lnz.tasks.tag.templates import Templates


class FeatureEncoder(nn.Module):
    """A weight per feature and tag. Features are those of the training sentences; others count for nothing.

    Args:
        templates: of the features.
        num_tags: L, which is the width too: no layer follows.
    """

    keys: Tensor
    """The hash of each feature, sorted, ``int64 [F]``."""

    def __init__(self, templates: Sequence[str], num_tags: int) -> None:
        super().__init__()
        self.templates, self.width = Templates(templates), num_tags
        self.register_buffer("keys", torch.empty(0, dtype=torch.int64))
        self.weight = nn.Parameter(torch.zeros(0, num_tags))

    def learn_features(self, sentences: Sequence[Sequence[str]], min_count: int = 1) -> None:
        """Give the features of training sentences that occur ``min_count`` times a weight of 0."""
        keys, counts = np.unique(self.templates.hashes(sentences), return_counts=True)
        self._hold(torch.from_numpy(keys[counts >= min_count]))

    def _hold(self, keys: Tensor) -> None:
        self.keys = keys.to(self.weight.device)
        self.weight = nn.Parameter(self.weight.new_zeros(len(keys), self.width))

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        """As many features as the checkpoint has."""
        keys = state_dict.get(prefix + "keys")
        if isinstance(keys, Tensor) and keys.shape != self.keys.shape:
            self._hold(torch.zeros_like(keys))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def matrix(self, sentences: Sequence[Sequence[str]]) -> sparse.csr_matrix:
        """The known features of the words of all sentences, ``[N, F]``."""
        hashes, keys = self.templates.hashes(sentences), self.keys.cpu().numpy()
        place = np.searchsorted(keys, hashes)
        known = place < len(keys)
        known[known] = keys[place[known]] == hashes[known]
        ends = np.concatenate(([0], known.sum(1).cumsum()))
        return sparse.csr_matrix((np.ones(known.sum(), np.float32), place[known], ends), (len(hashes), len(keys)))

    def forward(self, batch: Mapping[str, Any]) -> Tensor:
        """``tokens``, the words of each sentence, to scores ``[B, T, L]``, 0 over padding."""
        sentences = batch["tokens"]
        found, device = self.matrix(sentences), self.weight.device
        columns, ends = (torch.from_numpy(each.astype(np.int64)).to(device) for each in (found.indices, found.indptr))
        if len(columns):
            scores = functional.embedding_bag(columns, self.weight, ends, mode="sum", include_last_offset=True)
        else:
            scores = self.weight.new_zeros(len(ends) - 1, self.width) + 0 * self.weight.sum()
        return nn.utils.rnn.pad_sequence(list(scores.split([len(words) for words in sentences])), batch_first=True)
