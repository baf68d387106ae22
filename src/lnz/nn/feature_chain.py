"""Likelihood and gradient of a chain CRF on sparse features of tokens, of all sentences at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy import sparse
from torch import Tensor
from torch.nn import functional

from lnz.distributions import LinearChain
from lnz.objectives import nll
from lnz.typing import IGNORE

POSITIONS = 2**15
"""Positions, padding included, of the sentences that are worked on at once."""


class Block(NamedTuple):
    """Sentences of similar lengths, padded: their numbers, their first position, the steps of the longest."""

    sentences: np.ndarray
    first: int
    steps: int
    lengths: Tensor

    @property
    def positions(self) -> slice:
        return slice(self.first, self.first + len(self.sentences) * self.steps)


class Layout:
    """Where the tokens of sentences lie when these are sorted by length and padded in blocks.

    Args:
        lengths: tokens of each sentence.

    Attributes:
        blocks: of sentences with a token.
        place: the position of each token, ``int64 [N]``.
        count: of positions.
    """

    def __init__(self, lengths: Sequence[int]) -> None:
        sizes = np.asarray(lengths, np.int64)
        self.blocks: list[Block] = []
        self.place = np.empty(sizes.sum(), np.int64)
        self.count = 0
        token = np.cumsum(sizes) - sizes
        order = np.argsort(sizes, kind="stable")
        order = order[sizes[order] > 0]
        while len(order):
            taken = max(1, int((np.arange(1, len(order) + 1) * sizes[order] <= POSITIONS).sum()))
            part, order = order[:taken], order[taken:]
            block = Block(part, self.count, int(sizes[part[-1]]), torch.from_numpy(sizes[part]))
            self.blocks.append(block)
            step = np.arange(block.steps)
            inside = step < sizes[part][:, None]
            at = self.count + np.arange(taken)[:, None] * block.steps + step
            self.place[(token[part][:, None] + step)[inside]] = at[inside]
            self.count += taken * block.steps

    def padded(self, features: sparse.csr_matrix) -> sparse.csr_matrix:
        """The rows of tokens at their positions; those of padding are empty."""
        one = np.ones(len(self.place), features.dtype)
        return sparse.csr_matrix((one, (self.place, np.arange(len(one)))), (self.count, len(one))) @ features


class Product:
    """Products of a sparse matrix ``[R, C]`` with dense ones ``[C, L]``, on all of torch's threads."""

    def __init__(self, matrix: sparse.csr_matrix) -> None:
        whole = np.int32 if len(matrix.indices) < 2**31 else np.int64  # half the memory traffic
        self.columns = torch.from_numpy(matrix.indices.astype(whole))
        self.ends = torch.from_numpy(matrix.indptr.astype(whole))
        ones = bool((matrix.data == 1).all())
        self.values = None if ones else torch.from_numpy(matrix.data.astype(np.float32))

    def __call__(self, dense: Tensor) -> Tensor:
        """``[R, L]``."""
        if not len(self.columns):
            return dense.new_zeros(len(self.ends) - 1, dense.shape[1])
        return functional.embedding_bag(
            self.columns, dense, self.ends, mode="sum", per_sample_weights=self.values, include_last_offset=True
        )


class FeatureObjective:
    """Σ −ln P(tags) + c2 · Σ w², and its gradient, as a function of the weights of a feature CRF, ``float32 [P]``.

    The weights are those of pairs of a feature and a tag, then those of pairs of a tag and the next one. Unless all are
    asked for, only pairs that occur in the data have a weight, as crfsuite has it; a feature that is given as 0 occurs.

    Args:
        features: ``[N, F]``, the features of each token, sentence after sentence.
        tags: ``int64 [N]``; −100 is unknown, and summed over.
        lengths: tokens of each sentence.
        num_tags: L.
        c2: the weight of the squares.
        min_count: pairs that occur less often have no weight.
        all_states: whether each feature has a weight for each tag.
        all_transitions: whether each tag has a weight after each.
        transitions: ``False`` leaves them out: tags independent of each other.
        masks: scores of first tags ``[L]``, last tags ``[L]`` and transitions ``[L, L]`` that are added, −inf where a
            scheme forbids them.
    """

    def __init__(
        self,
        features: sparse.csr_matrix,
        tags: np.ndarray,
        lengths: Sequence[int],
        num_tags: int,
        *,
        c2: float = 0.0,
        min_count: float = 0,
        all_states: bool = False,
        all_transitions: bool = False,
        transitions: bool = True,
        masks: tuple[Tensor, Tensor, Tensor] | None = None,
    ) -> None:
        _, self.num_features = features.get_shape()
        self.num_tags, self.c2 = num_tags, c2
        self.layout, self._masks = Layout(lengths), masks
        padded = self.layout.padded(sparse.csr_matrix(features, dtype=np.float32))
        padded.eliminate_zeros()
        self._to_scores, self._to_weights = Product(padded), Product(padded.T.tocsr())
        labels = np.full(self.layout.count, IGNORE, np.int64)
        labels[self.layout.place] = tags
        self._labels = torch.from_numpy(labels)
        self.states = torch.from_numpy(self._states(features, tags, min_count))
        self.transitions = torch.from_numpy(self._transitions(tags, lengths, min_count))
        if all_states:
            self.states = torch.arange(self.num_features * num_tags)
        if not transitions:
            self.transitions = self.transitions[:0]
        elif all_transitions:
            self.transitions = torch.arange(num_tags**2)
        self.num_weights = len(self.states) + len(self.transitions)
        self._table, self._edges = torch.zeros(self.num_features, num_tags), torch.zeros(num_tags, num_tags)

    def _states(self, features: sparse.csr_matrix, tags: np.ndarray, min_count: float) -> np.ndarray:
        """The pairs of the data, as places in a table ``[F, L]``."""
        repeats = np.diff(features.indptr)
        known = np.repeat(tags >= 0, repeats)
        pairs = features.indices.astype(np.int64)[known] * self.num_tags + np.repeat(tags, repeats)[known]
        if min_count > 1:
            counts = np.bincount(pairs, features.data[known], self.num_features * self.num_tags)
            return np.flatnonzero(counts >= min_count)
        seen = np.zeros(self.num_features * self.num_tags, bool)
        seen[pairs] = True
        return np.flatnonzero(seen)

    def _transitions(self, tags: np.ndarray, lengths: Sequence[int], min_count: float) -> np.ndarray:
        """The pairs of the data, as places in a table ``[L, L]``."""
        sentence = np.repeat(np.arange(len(lengths)), lengths)
        both = (sentence[:-1] == sentence[1:]) & (tags[:-1] >= 0) & (tags[1:] >= 0)
        pairs, counts = np.unique((tags[:-1] * self.num_tags + tags[1:])[both], return_counts=True)
        return pairs[counts >= min_count]

    def tables(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Weights as tables ``[F, L]`` and ``[L, L]``, 0 for pairs without one."""
        table, edges = torch.zeros_like(self._table), torch.zeros_like(self._edges)
        self._fill(table, edges, weights)
        return table, edges

    def _fill(self, table: Tensor, edges: Tensor, weights: Tensor) -> None:
        table.view(-1).index_copy_(0, self.states, weights[: len(self.states)])
        edges.view(-1).index_copy_(0, self.transitions, weights[len(self.states) :])

    def __call__(self, weights: Tensor) -> tuple[float, Tensor]:
        """Value and gradient ``[P]``."""
        with torch.no_grad():
            self._fill(self._table, self._edges, weights)  # the same places each time: the others stay 0
            scores = self._to_scores(self._table)
            value, by_score, by_edge = 0.0, torch.empty_like(scores), torch.zeros_like(self._edges)
            for block in self.layout.blocks:
                loss, at_score, at_edge = self._block(block, scores[block.positions], self._edges)
                value += loss
                by_score[block.positions] = at_score
                by_edge += at_edge
            by_feature = self._to_weights(by_score)
            gradient = torch.cat((by_feature.take(self.states), by_edge.take(self.transitions)))
            if self.c2:
                value += self.c2 * float(weights.dot(weights))
                gradient.add_(weights, alpha=2 * self.c2)
        return value, gradient

    def _block(self, block: Block, scores: Tensor, edges: Tensor) -> tuple[float, Tensor, Tensor]:
        """Negative log-likelihood of a block and its gradients by scores ``[B T, L]`` and ``[L, L]``."""
        shape = len(block.sentences), block.steps
        node, edge = scores.view(*shape, -1).requires_grad_(), edges.detach().requires_grad_()
        with torch.enable_grad():
            chain = self._chain(node, edge, block.lengths)
            loss = nll(chain, self._labels[block.positions].view(shape), "sum")
            by_node, by_edge = torch.autograd.grad(loss, (node, edge))
        return loss.item(), by_node.reshape(-1, self.num_tags), by_edge

    def _chain(self, node: Tensor, edge: Tensor, lengths: Tensor) -> LinearChain:
        if self._masks is None:
            return LinearChain(node, edge, lengths, validate_args=False)
        start, end, between = self._masks
        return LinearChain(node, edge + between, lengths, validate_args=False).with_boundary_scores(start, end)
