"""Semi-Markov chains: the exponential softmax over segmentations with a label per segment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Self

import torch
from torch import Tensor
from torch.distributions import constraints

from lnz.checks import (
    as_integers,
    as_labels,
    broadcast_shapes,
    check_broadcast,
    check_event_shape,
    check_integer,
    check_labels,
    check_lengths,
    check_same_kind,
    check_scores,
    concrete,
    joint_batch_shape,
    promoted,
)
from lnz.distributions.sequence import SequenceDistribution, expected_scores, gathered, without_padding
from lnz.distributions.support import Labellings
from lnz.ops import semi_markov
from lnz.ops.semi_markov.records import CONTINUED
from lnz.typing import IGNORE, LazyTuple


class SemiMarkov(SequenceDistribution):
    """``P(y) ∝ exp(Σ_i s[t_i, w_i, l_i] + Σ_i A[l_i, l_{i+1}])`` over the ways to cut a sequence into segments.

    Segment i starts at step t_i, is w_i + 1 ≤ W steps wide and has label l_i; each starts where the one before it ends
    (Sarawagi & Cohen 2004). A segmentation y is an ``int64`` tensor ``[*batch, T]``: **the label of a segment at its
    first step, −1 at its other steps**; −100 is padding, or *unobserved*: neither a start nor its label is known there.
    So ``condition`` takes any mixture: a label says that a segment of that label starts here, −1 that none does.

    All exact and streaming: O(T (W L + L²)) time per batch entry, O(T L) memory beside the marginals. For float32 and
    float64 on the CPU, ln Z, marginals, argmax and samples run on kernels: one exponential per segment score, right at
    any range of scores. The k best for k > 1, and second derivatives, go through the reference.

    Args:
        segment_scores: s ``[*batch, T, W, L]``, of the segment that starts at step t, is w + 1 steps wide and has label
            l. Segments that reach beyond the end are left out, whatever their score.
        edge_scores: A ``[L, L]``, from the label of a segment to that of the next, shared by all; or
            ``[*batch, T-1, L, L]``, entry t for a segment that ends at t (the T − 1 may be 1, to broadcast).
        lengths: integers ``[*batch]`` in 0 … T, the lengths of the sequences; ``None`` is T everywhere. What lies
            beyond is padding: ignored in scores (NaN, too) and labellings, −100 in labellings returned, 0 in marginals.
        validate_args: check the values of arguments (NaN, labels out of range), as in ``torch.distributions``.

    Raises:
        TypeError, ValueError: scores or lengths of the wrong type, shape or value.
    """

    def __init__(
        self,
        segment_scores: Tensor,
        edge_scores: Tensor,
        lengths: Tensor | Sequence[int] | None = None,
        *,
        validate_args: bool | None = None,
    ) -> None:
        values = self._validate_args if validate_args is None else validate_args
        check_scores("segment_scores", segment_scores, values=False)
        check_scores("edge_scores", edge_scores, values=False)
        segment_scores, edge_scores = promoted(segment_scores, edge_scores)
        lengths = None if lengths is None else as_integers("lengths", lengths, segment_scores.device)
        batch_shape = _joint_batch_shape(segment_scores, edge_scores, lengths)
        super().__init__(batch_shape, segment_scores.shape[-3:-2], validate_args)
        (T,), own = self.event_shape, edge_scores.dim() > 2 and edge_scores.shape[-3] == segment_scores.shape[-3] - 1
        last = torch.as_tensor(T if lengths is None else lengths, device=segment_scores.device)[..., None, None, None]

        def segments() -> Tensor:  # those that do not reach beyond the end
            T, W = segment_scores.shape[-3:-1]
            start, more = (torch.arange(size, device=last.device) for size in (T, W))
            return (start[:, None, None] + more[:, None]) < last

        def edges() -> Tensor:
            return torch.arange(1, T, device=last.device)[:, None, None] < last

        self.segment_scores = without_padding("segment_scores", segment_scores, segments, values=values, axes=3)
        self.edge_scores = without_padding("edge_scores", edge_scores, edges if own else None, values=values, axes=3)
        self.lengths = lengths

    @property
    def scores(self) -> tuple[Tensor, Tensor]:
        return self.segment_scores, self.edge_scores

    @property
    def _sizes(self) -> tuple[int, int, int]:
        """T, W and L."""
        T, W, L = self.segment_scores.shape[-3:]
        return T, W, L

    @property
    def _flat(self) -> semi_markov.Segments:
        """Scores and lengths with one batch axis, as the operation takes them; half precision in float32."""
        (T, W, L), B = self._sizes, self.batch_shape.numel()
        segment, scores = (each.to(self._working_dtype) for each in self.scores)
        segment = segment.expand(*self.batch_shape, T, W, L).reshape(B, T, W, L)
        table = scores.shape[-3:] if scores.dim() > 2 else (1, L, L)
        if scores.dim() == 2 or scores.shape[:-3].numel() == 1:
            edge = scores.reshape(1, *table)  # shared by the batch: not copied per entry
        else:
            edge = scores.expand(*self.batch_shape, *table).reshape(B, *table)
        lengths = torch.as_tensor(T if self.lengths is None else self.lengths, device=segment.device)
        return semi_markov.Segments(segment, edge, lengths.expand(self.batch_shape).reshape(B))

    @property
    def inside(self) -> Tensor:
        """Which steps are not padding, ``[*batch, T]`` (or ``[T]``)."""
        steps = torch.arange(self._sizes[0], device=self.segment_scores.device)
        return steps < (self._sizes[0] if self.lengths is None else self.lengths.unsqueeze(-1))

    @property
    def _pass(self) -> semi_markov.Pass:
        return self._once("forward_backward", lambda: semi_markov.forward_backward(self._flat))

    @property
    def _wide_log_partition(self) -> Tensor:
        return semi_markov.log_partition(self._flat, self._pass).reshape(self.batch_shape)

    @property
    def _dtype(self) -> torch.dtype:
        return self.segment_scores.dtype

    @property
    def _wide_entropy(self) -> Tensor:
        return semi_markov.expectation(*self._flat).reshape(self.batch_shape)

    def _wide_cross_entropy(self, other: SemiMarkov, by_conditionals: bool) -> Tensor:
        scores = semi_markov.log_conditionals(*other._flat) if by_conditionals else other._flat[:2]
        expected = expected_scores(semi_markov.expectation, self._flat, scores).reshape(self.batch_shape)
        return -expected if by_conditionals else other._wide_log_partition - expected

    @property
    def marginals(self) -> LazyTuple:
        """Of segments ``[*batch, T, W, L]`` and of edges ``[*batch, T-1, L, L]``, each computed when asked for.

        Entry t of the edges is the probability that a segment of the one label ends at t and is followed by one of the
        other.
        """
        self._require_feasible("marginals")
        return LazyTuple((self._segment_marginals, self._edge_marginals))

    def _segment_marginals(self) -> Tensor:
        marginals = semi_markov.segment_marginals(self._flat, self._pass)
        return marginals.reshape(*self.batch_shape, *self._sizes).to(self._dtype)

    def _edge_marginals(self) -> Tensor:
        edges = semi_markov.edge_marginals(self._flat, self._pass)
        return edges.reshape(*self.batch_shape, *edges.shape[1:]).to(self._dtype)

    @property
    def node_marginals(self) -> Tensor:
        """The probability that a step lies in a segment of each label, ``[*batch, T, L]``; 0 over padding."""
        self._require_feasible("node_marginals")
        T, W, _ = self._sizes
        reaching = self._segment_marginals().flip(-2).cumsum(-2).flip(-2)  # from t to t + w or further
        shifted = (reaching[..., : T - w, w, :] for w in range(min(W, T)))
        parts = [torch.nn.functional.pad(part, (0, 0, w, 0)) for w, part in enumerate(shifted)]
        return torch.stack(parts).sum(0) if parts else reaching.sum(-2)

    def score(self, y: Tensor) -> Tensor:
        """s(y), ``[*batch]``; −inf where it is impossible, for instance with a segment of more than W steps."""
        return super().score(y)

    def _wide_score(self, y: Tensor) -> Tensor:
        y, inside = self.labelling(y), self.inside
        if self._validate_args and concrete(y) and self._unobserved(y).any():
            raise ValueError("y: expected a full labelling, got -100 (unobserved); use log_prob or condition")
        T, W, L = self._sizes
        shape = broadcast_shapes(y.shape[:-1], self.batch_shape)
        y = y.expand(*shape, T)
        steps = torch.arange(T, device=y.device)
        starts, label = y >= 0, y.clamp(min=0)
        length = inside.sum(-1, keepdim=True)
        following = torch.where(starts, steps, T).flip(-1).cummin(-1).values.flip(-1)  # the first start from t on
        stop = torch.minimum(torch.nn.functional.pad(following, (0, 1), value=T)[..., 1:], length)
        width = (stop - steps - 1).clamp(min=0)
        part = width.clamp(max=W - 1) * L + label
        own = gathered(self.segment_scores.flatten(-2).expand(*shape, T, W * L), part)
        total = torch.where(starts, own.masked_fill(width >= W, -torch.inf), 0.0).sum(-1)
        if T < 2:
            return total
        begun = torch.where(starts, steps, 0).cummax(-1).values  # where the segment of step t has begun
        pair = label.gather(-1, begun)[..., :-1] * L + label[..., 1:]
        if self.edge_scores.dim() == 2:
            edge = self.edge_scores.flatten()[pair].to(total.dtype)
        else:
            tables = self.edge_scores.flatten(-2).expand(*shape, T - 1, L * L)
            edge = gathered(tables, pair)
        return total + torch.where(starts[..., 1:], edge, 0.0).sum(-1)

    def condition(self, y: Tensor) -> Self:
        y = self.labelling(y)
        T, W, L = self._sizes
        steps, labels = torch.arange(T, device=y.device), torch.arange(L, device=y.device)
        starts, begun = y >= 0, (y >= 0).cumsum(-1)
        last = (steps[:, None] + torch.arange(W, device=y.device)).clamp(max=max(0, T - 1))
        interrupted = begun[..., last] > begun.unsqueeze(-1) if T else begun.new_zeros(0, W, dtype=torch.bool)
        wrong = (starts.unsqueeze(-1) & (y.unsqueeze(-1) != labels)) | (y == CONTINUED).unsqueeze(-1)
        excluded = interrupted.unsqueeze(-1) | wrong.unsqueeze(-2)
        return self._with(torch.where(excluded, -torch.inf, self.segment_scores), self.edge_scores)

    def topk(self, k: int) -> tuple[Tensor, Tensor]:
        check_integer("k", k)
        with torch.no_grad():
            labels, scores = semi_markov.topk(self._flat, k)
        labels = labels.reshape(k, *self.batch_shape, *self.event_shape)
        return labels, scores.reshape(k, *self.batch_shape).to(self._dtype)

    def _sample(self, n: int, generator: torch.Generator | None) -> Tensor:
        return semi_markov.sample(self._flat, n, generator).reshape(n, *self.batch_shape, *self.event_shape)

    def map_scores(self, function: Callable[[Tensor], Tensor]) -> Self:
        return self._with(function(self.segment_scores), function(self.edge_scores))

    def _map_entries(self, function: Callable[[Tensor, int], Tensor]) -> Self:
        edge = self.edge_scores if self.edge_scores.dim() > 2 else self.edge_scores.unsqueeze(0)
        return self._with(function(self.segment_scores, 3), function(edge, 3))

    @property
    def _lengths(self) -> Tensor | int:
        return self.event_shape[0] if self.lengths is None else self.lengths

    def _with(self, segment_scores: Tensor, edge_scores: Tensor) -> Self:
        return self.__class__(segment_scores, edge_scores, self.lengths, validate_args=self._validate_args)

    def _expanded_scores(self) -> tuple[Tensor, Tensor]:
        T, W, L = self._sizes
        return (
            self.segment_scores.expand(*self.batch_shape, T, W, L),
            self.edge_scores.expand(*self.batch_shape, max(0, T - 1), L, L),
        )

    def _unobserved(self, y: Tensor) -> Tensor:
        return ((self.labelling(y) == IGNORE) & self.inside).any(-1)

    @property
    def support(self) -> constraints.Constraint:
        """A label where a segment starts, −1 where it goes on, −100 over padding."""
        return Labellings(self._sizes[-1], 1, self.inside, continued=True)

    def labelling(self, y: Tensor) -> Tensor:
        """``y`` with −100 over padding, whatever it held there."""
        if not isinstance(y, Tensor):
            raise TypeError(f"y: expected a torch.Tensor, got {type(y).__name__}")
        y = as_labels("y", y)
        check_event_shape("y", y.shape, self.event_shape)
        check_broadcast("y", y.shape[:-1], self.batch_shape)
        y = torch.where(self.inside, y, IGNORE)
        goes_on = (y == CONTINUED) & (torch.arange(y.shape[-1], device=y.device) > 0)  # the first step starts a segment
        check_labels("y", torch.where(goes_on, IGNORE, y), self._sizes[-1])
        return y

    def expand(self, batch_shape: Sequence[int], _instance: object = None) -> Self:
        """The same distribution with a larger batch shape (nothing is copied)."""
        return self._with(self.segment_scores.expand(*batch_shape, *self._sizes), self.edge_scores)

    def __repr__(self) -> str:
        lengths = "" if self.lengths is None else ", lengths given"
        T, W, L = self._sizes
        return f"SemiMarkov({T} steps, width to {W}, {L} labels, batch_shape={list(self.batch_shape)}{lengths})"


def _joint_batch_shape(segment: Tensor, edge: Tensor, lengths: Tensor | None) -> torch.Size:
    """The batch shape of well-formed arguments; raises where they are not."""
    if segment.dim() < 3 or 0 in segment.shape[-2:]:
        raise ValueError(
            f"segment_scores: expected shape [*batch, T, W, L] with W > 0 and L > 0, got {list(segment.shape)}"
        )
    T, _, L = segment.shape[-3:]
    steps = max(0, T - 1)
    own = edge.dim() > 2 and edge.shape[-2:] == (L, L) and edge.shape[-3] in (1, steps)
    if not (own or edge.shape == (L, L)):
        raise ValueError(
            f"edge_scores: expected shape [{L}, {L}] or [*batch, {steps}, {L}, {L}], got {list(edge.shape)}"
        )
    check_same_kind("edge_scores", edge, "segment_scores", segment)
    shapes = {"segment_scores": segment.shape[:-3], "edge_scores": edge.shape[:-3]}
    if lengths is not None:
        check_lengths(lengths, T)
        shapes["lengths"] = lengths.shape
    return joint_batch_shape(**shapes)
