"""The alignments of a target: frame labellings that spell it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Self

import torch
from torch import Tensor

from lnz.checks import (
    as_labelling,
    broadcast_shapes,
    check_broadcast,
    check_feasible,
    check_full,
    check_integer,
    check_positive,
    check_scores,
    concrete,
    constant,
    joint_batch_shape,
)
from lnz.distributions.base import StructuredDistribution
from lnz.distributions.ctc_targets import check_blank, checked_frames, checked_targets, frames_inside
from lnz.distributions.sequence import without_padding
from lnz.ops import ctc
from lnz.ops.precision import accumulator
from lnz.typing import IGNORE


class CTCAlignments(StructuredDistribution):
    """``P(z) ∝ exp(Σ_t x[t, z_t])`` over the frame labellings z that spell a target y; blanks are labels of z too.

    What :meth:`lnz.CTC.alignments` gives. The scores are those of frames as they are, not normalised: Z sums over the
    alignments of y alone, so P(z) is the posterior P(z | y) of the :class:`lnz.CTC` with the same logits, whose
    ln Q(y) is ``log_partition`` less ln Σ_c exp x[t, c] of each frame. All exact: O(T S) time per batch entry.

    Args:
        scores: x ``[*batch, T, C]``.
        targets: ``int64 [*batch, S]``, without blanks; whatever beyond their lengths.
        target_lengths: ``int64 [*batch]``; ``None`` counts the labels up to the first −100.
        lengths: ``int64 [*batch]`` frames in 0 … T; ``None`` is T everywhere.
        blank: the class that is removed; ``None`` for none.
        collapse_repeats: whether equal labels in neighbouring frames are one label (Graves et al. 2006).
        validate_args: check the values of arguments, as in ``torch.distributions``.

    Raises:
        TypeError, ValueError: arguments of the wrong type, shape or value.
    """

    def __init__(
        self,
        scores: Tensor,
        targets: Tensor,
        target_lengths: Tensor | None = None,
        lengths: Tensor | None = None,
        blank: int | None = 0,
        collapse_repeats: bool = True,
        *,
        validate_args: bool | None = None,
    ) -> None:
        values = self._validate_args if validate_args is None else validate_args
        check_scores("scores", scores, values=False)
        lengths = checked_frames("scores", scores, lengths)
        scores = without_padding("scores", scores, frames_inside(scores, lengths), values=values, axes=2)
        check_blank(blank, scores.shape[-1])
        targets, target_lengths = checked_targets(targets, target_lengths, scores.shape[-1], blank)
        check_broadcast("targets", targets.shape[:-1], scores.shape[:-2])
        batch_shape = joint_batch_shape(
            scores=scores.shape[:-2],
            lengths=lengths.shape,
            targets=targets.shape[:-1],
            target_lengths=target_lengths.shape,
        )
        super().__init__(batch_shape, scores.shape[-2:-1], validate_args)
        self._scores = scores
        self.targets, self.target_lengths, self.lengths = targets, target_lengths, lengths
        self.blank, self.collapse_repeats = blank, collapse_repeats

    @property
    def scores(self) -> Tensor:
        return self._scores

    @property
    def num_labels(self) -> int:
        """C, the number of classes, the blank among them."""
        return self._scores.shape[-1]

    @property
    def _flat(self) -> tuple[Tensor, ctc.Lattice]:
        """Scores and lattice with one batch axis, as :mod:`lnz.ops.ctc` takes them."""
        B, shape = self.batch_shape.numel(), self.batch_shape
        scores = self._scores.expand(*shape, *self._scores.shape[-2:]).reshape(B, *self._scores.shape[-2:])
        labels = self.targets.expand(*shape, -1).reshape(B, self.targets.shape[-1])
        frames, sizes = (n.expand(shape).reshape(B) for n in (self.lengths, self.target_lengths))
        return scores, ctc.lattice(labels, frames, sizes, self.blank, self.collapse_repeats)

    @property
    def _forward_backward(self) -> tuple[Tensor, Tensor]:
        return self._once("forward_backward", lambda: ctc.marginals(*self._flat))

    @property
    def _wide_log_partition(self) -> Tensor:
        """ln Z in float64: sums of scores may leave the range of narrower types."""
        if self._known("forward_backward") or not constant(self._scores):
            return self._forward_backward[0].reshape(self.batch_shape)
        return self._once("log_partition", lambda: ctc.log_partition(*self._flat)).reshape(self.batch_shape)

    @property
    def log_partition(self) -> Tensor:
        """ln Σ_z exp s(z) over the alignments of the target, ``[*batch]``; −inf where there is none.

        O(S) memory where nothing is to be differentiated; else O(T S), and O(√T S) of sequences past 128 MiB.
        """
        return self._wide_log_partition.to(self._scores.dtype)

    @property
    def marginals(self) -> Tensor:
        """P(z_t = c | y), ``[*batch, T, C]``: the sufficient statistics of expected gradient and EM; 0 over padding."""
        marginals = self._forward_backward[1]
        self._require_feasible("marginals")
        return marginals.to(self._scores.dtype).reshape(*self.batch_shape, *self.event_shape, self.num_labels)

    def _require_feasible(self, what: str) -> None:
        if self._validate_args:
            check_feasible(self._wide_log_partition, f"CTCAlignments.{what}")

    @property
    def _centred(self) -> Self:
        """The same distribution in float64, the largest score of each frame being 0."""

        def centred(scores: Tensor) -> Tensor:
            scores = scores.to(accumulator(scores))
            top = scores.detach().amax(-1, keepdim=True)
            return scores - top.masked_fill(torch.isneginf(top), 0.0)

        return self._once("centred", lambda: self.map_scores(centred))

    def log_prob(self, value: Tensor) -> Tensor:
        """ln P(z) = s(z) − ln Z, ``[*batch]``; −inf where z is no alignment. Entries of −100 are summed over."""
        return super().log_prob(value)

    def score(self, y: Tensor) -> Tensor:
        """Σ_t x[t, z_t] of a full alignment, ``[*batch]``; −inf where it does not spell the target."""
        z = self.labelling(y)
        if self._validate_args:
            check_full("y", self._unobserved(y))
        z = z.expand(*broadcast_shapes(z.shape[:-1], self.batch_shape), -1)
        at = self._scores.expand(*z.shape, -1).gather(-1, z.clamp(min=0).unsqueeze(-1)).squeeze(-1)
        total = at.masked_fill(~self.inside, 0.0).sum(-1, dtype=accumulator(at)).to(at.dtype)
        return total.masked_fill(~self._spells(z), -torch.inf)

    def _spells(self, z: Tensor) -> Tensor:
        """Whether frame labellings ``[*shape, T]`` spell the target, ``[*shape]``."""
        *shape, T = z.shape
        S = self.targets.shape[-1]
        spelt, sizes = ctc.collapse(z, self.lengths.expand(shape), self.blank, self.collapse_repeats)
        wide = max(T, S)
        spelt = torch.nn.functional.pad(spelt, (0, wide - T), value=IGNORE)
        targets = torch.nn.functional.pad(self.targets, (0, wide - S), value=IGNORE)
        inside = torch.arange(wide, device=z.device) < self.target_lengths.unsqueeze(-1)
        return ((spelt == targets) | ~inside).all(-1) & (sizes == self.target_lengths)

    def condition(self, y: Tensor) -> Self:
        z = self.labelling(y).unsqueeze(-1)
        classes = torch.arange(self.num_labels, device=z.device)
        excluded = (z != IGNORE) & (z != classes)
        return self.map_scores(lambda scores: torch.where(excluded, -torch.inf, scores))

    def argmax(self) -> Tensor:
        """The best alignment, ``int64 [*batch, T]``: forced alignment.

        Scores are summed in float64, whatever their type: none is better by more than the rounding of that. Of equal
        ones always the same is given.
        """
        labels, scores = self._wide_topk(1)
        if self._validate_args:
            check_feasible(scores[0], "CTCAlignments.argmax")
        return labels[0]

    def topk(self, k: int) -> tuple[Tensor, Tensor]:
        check_integer("k", k)
        labels, scores = self._wide_topk(k)
        return labels, scores.to(self._scores.dtype)

    def _wide_topk(self, k: int) -> tuple[Tensor, Tensor]:
        """:meth:`topk` with scores in float64."""
        with torch.no_grad():
            labels, scores = ctc.topk(*self._flat, k)
        return labels.reshape(k, *self.batch_shape, *self.event_shape), scores.reshape(k, *self.batch_shape)

    def spans(self, z: Tensor | None = None, seconds_per_frame: float = 1.0) -> Tensor:
        """Where each label of the target begins and ends, ``[*sample, *batch, S, 2]``, NaN beyond the target.

        Args:
            z: ``int64 [*sample, *batch, T]`` alignments, such as samples; ``None`` is the best one.
            seconds_per_frame: the unit: 1 gives frames (the end is the first frame after the label), the hop of the
                spectrogram times the stride of the network, in seconds, gives seconds.

        Raises:
            TypeError, ValueError: arguments of the wrong type, shape or value; a z that does not spell the targets.
        """
        check_positive("seconds_per_frame", seconds_per_frame)
        z, (T,), S = self.labelling(self.argmax() if z is None else z, "z"), self.event_shape, self.targets.shape[-1]
        z = z.expand(*broadcast_shapes(z.shape[:-1], self.batch_shape), T)
        if self._validate_args and concrete(z):
            check_full("z", self._unobserved(z), "")
            other = ~self._spells(z)
            if other.any():
                where = f" at {other.nonzero()[0].tolist()}" if other.dim() else ""
                raise ValueError(f"z: expected alignments, which spell the targets, got one that does not{where}")
        same = torch.zeros_like(z, dtype=torch.bool)
        if T and self.collapse_repeats:
            same[..., 1:] = z[..., 1:] == z[..., :-1]
        spoken = self.inside & (True if self.blank is None else z != self.blank)
        place = (spoken & ~same).cumsum(-1) - 1  # the label of the target that a frame belongs to
        frames = torch.arange(T, device=z.device).expand_as(z)
        place = torch.where(spoken, place, S)
        dtype = self._scores.dtype if self._scores.dtype == torch.float64 else torch.float32
        starts = torch.full((*z.shape[:-1], S + 1), T, device=z.device).scatter_reduce(-1, place, frames, "amin")
        ends = torch.zeros((*z.shape[:-1], S + 1), dtype=torch.int64, device=z.device)
        ends = ends.scatter_reduce(-1, place, frames + 1, "amax")
        beyond = torch.arange(S, device=z.device) >= self.target_lengths.unsqueeze(-1)
        spans = torch.stack((starts, ends), -1)[..., :S, :].to(dtype) * seconds_per_frame
        return spans.masked_fill(beyond.unsqueeze(-1), torch.nan)

    def _sample(self, n: int, generator: torch.Generator | None) -> Tensor:
        return ctc.sample(*self._flat, n, generator).reshape(n, *self.batch_shape, *self.event_shape)

    def with_node_scores(self, added: Tensor) -> Self:
        return self.map_scores(lambda scores: scores + added)

    def cross_entropy(self, other: StructuredDistribution) -> Tensor:
        """−Σ_z P(z) ln Q(z) against alignments ``other`` of the same targets, ``[*batch]``.

        Raises:
            ValueError: other targets, lengths or topology: alignments of one may be none of the other.
        """
        return super().cross_entropy(other)

    def _check_comparable(self, other: StructuredDistribution) -> None:
        super()._check_comparable(other)
        assert isinstance(other, CTCAlignments)
        mine, theirs = self._flat[1], other._flat[1]
        if mine[4:] != theirs[4:] or not all(map(torch.equal, mine[:4], theirs[:4])):
            raise ValueError("expected alignments of equal targets, lengths and topology")

    def _cross_entropy(self, other: CTCAlignments) -> Tensor:
        self._require_feasible("entropy")
        scores, of = self._flat
        return ctc.surprisal(scores, scores if other is self else other._flat[0], of).reshape(self.batch_shape)

    def map_scores(self, function: Callable[[Tensor], Tensor]) -> Self:
        return self.__class__(
            function(self._scores),
            self.targets,
            self.target_lengths,
            self.lengths,
            self.blank,
            self.collapse_repeats,
            validate_args=self._validate_args,
        )

    def _map_entries(self, function: Callable[[Tensor, int], Tensor]) -> Self:
        return self.map_scores(lambda scores: function(scores, 2))

    def expand(self, batch_shape: Sequence[int], _instance: object = None) -> Self:
        """The same distribution with a larger batch shape (nothing is copied)."""
        return self.map_scores(lambda scores: scores.expand(*batch_shape, *scores.shape[-2:]))

    def _expanded_scores(self) -> tuple[Tensor]:
        return (self._scores.expand(*self.batch_shape, *self._scores.shape[-2:]),)

    def _unobserved(self, y: Tensor) -> Tensor:
        return ((self.labelling(y) == IGNORE) & self.inside).any(-1)

    @property
    def inside(self) -> Tensor:
        """Which frames are not padding, ``[*batch, T]`` (or ``[T]``)."""
        return torch.arange(*self.event_shape, device=self._scores.device) < self.lengths.unsqueeze(-1)

    def labelling(self, y: Tensor, name: str = "y") -> Tensor:
        """``y`` with −100 over padding, whatever it held there."""
        return as_labelling(name, y, self.event_shape, self.batch_shape, self.inside, self.num_labels)

    def __repr__(self) -> str:
        (T,) = self.event_shape
        sizes = f"{T} frames, {self.num_labels} classes, targets up to {self.targets.shape[-1]} labels"
        return f"CTCAlignments({sizes}, batch_shape={list(self.batch_shape)})"
