"""Constituency trees: the exponential softmax over binary trees with a label per span."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Self

import torch
from torch import Tensor

from lnz.checks import (
    LARGE,
    as_integers,
    broadcast_shapes,
    check_integer,
    check_lengths,
    check_scores,
    joint_batch_shape,
    largest,
)
from lnz.distributions.sequence import gathered, without_padding
from lnz.distributions.tree_labels import TreeLabels
from lnz.ops import spans
from lnz.ops.charts import within


class ConstituencyTree(TreeLabels):
    """``P(y) ∝ exp(Σ over constituents of s[i, j, l])`` over the binary trees on N words, with a label per constituent.

    A tree on n words has 2n − 1 constituents: the words themselves, the sentence, and n − 2 between; there are
    Catalan(n − 1) · L^(2n − 1) of them. The labels of a span are summed out before the recursion over spans (CKY; Baker
    1979), which never sees L. A sentence without words has one tree, the empty one.

    A labelling y is an ``int64`` tensor ``[*batch, N, N]``: entry [i, j] is **the label of the constituent of words
    i … j (inclusive), −1 where there is none, −100 unknown**. So ``condition`` takes any mixture of brackets: a label
    says that the constituent is there, −1 that it is not. Entries below the diagonal are ignored (and −1 in labellings
    returned), padding too (−100). Trees that are not binary have such forms: see :class:`lnz.io.ChartLabels`.

    All exact: O(N³ + N² L) time per batch entry and O(N²) memory beside the marginals. For float32 and float64 on the
    CPU, ln Z, marginals, argmax and samples run on kernels, right at any range of scores. The k best for k > 1,
    entropies and second derivatives go through the reference.

    Args:
        span_scores: s ``[*batch, N, N, L]``, of words i … j with label l; −inf forbids. Those below the diagonal are
            never looked at.
        lengths: integers ``[*batch]`` in 0 … N, the lengths of the sentences; ``None`` is N everywhere. What lies
            beyond is padding: ignored in scores (NaN, too) and labellings, −100 in labellings returned, 0 in marginals.
        validate_args: check the values of arguments (NaN, labels out of range), as in ``torch.distributions``.

    Raises:
        TypeError, ValueError: scores or lengths of the wrong type, shape or value.
    """

    def __init__(
        self,
        span_scores: Tensor,
        lengths: Tensor | Sequence[int] | None = None,
        *,
        validate_args: bool | None = None,
    ) -> None:
        values = self._validate_args if validate_args is None else validate_args
        check_scores("span_scores", span_scores, values=False)
        if span_scores.dim() < 3 or span_scores.shape[-3] != span_scores.shape[-2] or not span_scores.shape[-1]:
            raise ValueError(f"span_scores: expected shape [*batch, N, N, L] with L > 0, got {list(span_scores.shape)}")
        N = span_scores.shape[-2]
        shapes = {"span_scores": span_scores.shape[:-3]}
        if lengths is not None:
            lengths = as_integers("lengths", lengths, span_scores.device)
            check_lengths(lengths, N)
            shapes["lengths"] = lengths.shape
        super().__init__(joint_batch_shape(**shapes), torch.Size((N, N)), validate_args)
        words = torch.as_tensor(N if lengths is None else lengths, device=span_scores.device)
        self._top = largest(span_scores)
        if self._top is None or not math.isfinite(self._top):  # what is NaN or infinite may be padding
            span_scores = without_padding(
                "span_scores", span_scores, lambda: within(N, words).unsqueeze(-1), values=values, axes=3
            )
            self._top = largest(span_scores)
        self.span_scores, self.lengths = span_scores, lengths

    @property
    def scores(self) -> Tensor:
        return self.span_scores

    @property
    def _label_counts(self) -> tuple[int, int]:
        return self.span_scores.shape[-1], self.span_scores.shape[-1]

    @property
    def _device(self) -> torch.device:
        return self.span_scores.device

    @property
    def _dtype(self) -> torch.dtype:
        return self.span_scores.dtype

    @property
    def _far(self) -> bool:
        return self._top is not None and LARGE < abs(self._top) < math.inf and self._device.type != "mps"

    @property
    def _flat(self) -> spans.Spans:
        """Scores and lengths with one batch axis, as the operation takes them; half precision in float32."""
        return self._once("flat", self._flattened)

    def _flattened(self) -> spans.Spans:
        B, shape = self.batch_shape.numel(), self.span_scores.shape[-3:]
        scores = self.span_scores.to(self._working_dtype).expand(*self.batch_shape, *shape).reshape(B, *shape)
        return spans.Spans(scores, self._word_counts.expand(self.batch_shape).reshape(B))

    @property
    def _pass(self) -> spans.Pass:
        return self._once("forward_backward", lambda: spans.forward_backward(self._flat))

    @property
    def _wide_log_partition(self) -> Tensor:
        return spans.log_partition(self._flat, self._pass).reshape(self.batch_shape)

    @property
    def _wide_entropy(self) -> Tensor:
        flat = self._flat
        return spans.cross_entropy(flat, flat).reshape(self.batch_shape)

    def _wide_cross_entropy(self, other: ConstituencyTree, by_conditionals: bool) -> Tensor:
        return spans.cross_entropy(self._flat, other._flat).reshape(self.batch_shape)  # by conditionals, always

    @property
    def marginals(self) -> Tensor:
        """P(words i … j are a constituent of label l), ``[*batch, N, N, L]``; 0 below the diagonal and over padding."""
        self._require_feasible("marginals")
        return spans.marginals(self._flat, self._pass).reshape(self._expanded_scores()[0].shape).to(self._dtype)

    def score(self, y: Tensor) -> Tensor:
        """s(y), ``[*batch]``; −inf where it is impossible, also where the constituents are no binary tree."""
        return super().score(y)

    def _wide_score(self, y: Tensor) -> Tensor:
        y = self._full(y)
        shape = broadcast_shapes(y.shape[:-2], self.batch_shape)
        N, L = self._words, self.span_scores.shape[-1]
        there = (y >= 0) & self.inside
        own = gathered(self.span_scores.expand(*shape, N, N, L), y.clamp(min=0).expand(*shape, N, N))
        total = torch.where(there, own, 0.0).flatten(-2).sum(-1)
        return total.masked_fill(~spans.is_tree(there, self._word_counts), -torch.inf)

    def condition(self, y: Tensor) -> Self:
        y = self.labelling(y)
        labels = torch.arange(self.span_scores.shape[-1], device=y.device)
        wrong = (y >= 0).unsqueeze(-1) & (y.unsqueeze(-1) != labels)
        return self._with(self.span_scores.masked_fill(wrong | self._excluded(y).unsqueeze(-1), -torch.inf))

    def topk(self, k: int) -> tuple[Tensor, Tensor]:
        check_integer("k", k)
        with torch.no_grad():
            labels, scores = spans.topk(self._flat, k)
        labels = labels.reshape(k, *self.batch_shape, *self.event_shape)
        return labels, scores.reshape(k, *self.batch_shape).to(self._dtype)

    def _sample(self, n: int, generator: torch.Generator | None) -> Tensor:
        return spans.sample(self._flat, n, generator).reshape(n, *self.batch_shape, *self.event_shape)

    def map_scores(self, function: Callable[[Tensor], Tensor]) -> Self:
        return self._with(function(self.span_scores))

    def _map_entries(self, function: Callable[[Tensor, int], Tensor]) -> Self:
        return self._with(function(self.span_scores, 3))

    def _with(self, span_scores: Tensor) -> Self:
        return self.__class__(span_scores, self.lengths, validate_args=self._validate_args)

    def _expanded_scores(self) -> tuple[Tensor]:
        return (self.span_scores.expand(*self.batch_shape, *self.span_scores.shape[-3:]),)

    def expand(self, batch_shape: Sequence[int], _instance: object = None) -> Self:
        """The same distribution with a larger batch shape (nothing is copied)."""
        return self._with(self.span_scores.expand(*batch_shape, *self.span_scores.shape[-3:]))

    def __repr__(self) -> str:
        lengths = "" if self.lengths is None else ", lengths given"
        N, L = self.span_scores.shape[-2:]
        return f"ConstituencyTree({N} words, {L} labels, batch_shape={list(self.batch_shape)}{lengths})"
