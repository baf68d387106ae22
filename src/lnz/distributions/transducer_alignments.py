"""The alignments of a transducer's target: in which frame each of its labels is emitted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Self

import torch
from torch import Tensor

from lnz.checks import (
    as_labelling,
    as_lengths,
    broadcast_shapes,
    check_event_shape,
    check_feasible,
    check_full,
    check_integer,
    check_scores,
    joint_batch_shape,
    promoted,
)
from lnz.distributions.base import StructuredDistribution
from lnz.distributions.sequence import without_padding
from lnz.ops import transducer
from lnz.ops.precision import accumulator
from lnz.typing import IGNORE


class TransducerAlignments(StructuredDistribution):
    """``P(z) ∝ exp(Σ of the scores of the arcs of z)`` over the paths z through frames and labels.

    A node (t, u) stands for t frames read and u labels emitted. Its *blank* arc goes on to the next frame, its *label*
    arc emits the next label in frame t. What :meth:`lnz.Transducer.alignments` gives, with the log-probabilities of
    arcs; or of any scores of arcs, such as those of a network that scores blanks and labels apart.

    A labelling is the frame of each label, ``int64 [*batch, U]``, in 0 … T − 1: ascending, where
    ``one_label_per_frame`` strictly. All exact: O(T U) time and memory per batch entry.

    Args:
        blank_arcs: scores of blank arcs ``[*batch, T, U + 1]``, each at the node that the arc leaves.
        label_arcs: scores of label arcs ``[*batch, T, U]``.
        lengths: ``int64 [*batch]`` frames in 0 … T; ``None`` is T everywhere. What lies beyond is ignored.
        target_lengths: ``int64 [*batch]`` labels in 0 … U; ``None`` is U everywhere.
        one_label_per_frame: whether a label arc goes on to the next frame too, see :class:`lnz.Transducer`.
        validate_args: check the values of arguments, as in ``torch.distributions``.

    Raises:
        TypeError, ValueError: arguments of the wrong type, shape or value.
    """

    def __init__(
        self,
        blank_arcs: Tensor,
        label_arcs: Tensor,
        lengths: Tensor | None = None,
        target_lengths: Tensor | None = None,
        *,
        one_label_per_frame: bool = False,
        validate_args: bool | None = None,
    ) -> None:
        values = self._validate_args if validate_args is None else validate_args
        check_scores("blank_arcs", blank_arcs, values=False)
        check_scores("label_arcs", label_arcs, values=False)
        if blank_arcs.dim() < 2 or blank_arcs.shape[-1] == 0:
            raise ValueError(f"blank_arcs: expected shape [*batch, T, U + 1], got {list(blank_arcs.shape)}")
        T, U = blank_arcs.shape[-2], blank_arcs.shape[-1] - 1
        check_event_shape("label_arcs", label_arcs.shape, (T, U))
        blank_arcs, label_arcs = promoted(blank_arcs, label_arcs)
        shapes = {"blank_arcs": blank_arcs.shape[:-2], "label_arcs": label_arcs.shape[:-2]}
        if lengths is not None:
            lengths = as_lengths(lengths, T, of="the frames", device=blank_arcs.device)
            shapes["lengths"] = lengths.shape
        if target_lengths is not None:
            target_lengths = as_lengths(target_lengths, U, "target_lengths", "the labels", blank_arcs.device)
            shapes["target_lengths"] = target_lengths.shape
        super().__init__(joint_batch_shape(**shapes), torch.Size((U,)), validate_args)
        self.lengths, self.target_lengths, self.one_label_per_frame = lengths, target_lengths, one_label_per_frame
        self.blank_arcs = without_padding("blank_arcs", blank_arcs, self._arcs_inside(T, U, 0), values=values, axes=2)
        self.label_arcs = without_padding("label_arcs", label_arcs, self._arcs_inside(T, U, 1), values=values, axes=2)

    def _arcs_inside(self, T: int, U: int, emits: int) -> Callable[[], Tensor] | None:
        """What makes the mask of blank arcs ``[*batch, T, U + 1]``, or, where it ``emits`` 1, of label arcs."""
        if self.lengths is None and self.target_lengths is None:
            return None

        def inside() -> Tensor:
            given = self.lengths if self.target_lengths is None else self.target_lengths
            assert given is not None
            frames, labels = (torch.arange(n, device=given.device) for n in (T, U + 1 - emits))
            lengths, sizes = (torch.tensor(n, device=given.device) for n in (T, U))
            lengths = lengths if self.lengths is None else self.lengths
            sizes = sizes if self.target_lengths is None else self.target_lengths
            return (frames < lengths[..., None])[..., None] & (labels + emits <= sizes[..., None])[..., None, :]

        return inside

    @property
    def scores(self) -> tuple[Tensor, Tensor]:
        return self.blank_arcs, self.label_arcs

    @property
    def num_labels(self) -> int:
        """T: a label is emitted in one of that many frames."""
        return self.blank_arcs.shape[-2]

    @property
    def _counts(self) -> tuple[Tensor, Tensor]:
        """Frames and labels of each entry, ``[*batch]``."""
        every = torch.tensor((self.num_labels, *self.event_shape), device=self.blank_arcs.device)
        frames = every[0] if self.lengths is None else self.lengths
        labels = every[1] if self.target_lengths is None else self.target_lengths
        return frames.expand(self.batch_shape), labels.expand(self.batch_shape)

    @property
    def _flat(self) -> tuple[Tensor, Tensor, transducer.Lattice]:
        """Scores and lattice with one batch axis, as :mod:`lnz.ops.transducer` takes them."""
        B = self.batch_shape.numel()
        blank, label = (x.reshape(B, *x.shape[-2:]) for x in self._expanded_scores())
        frames, sizes = self._counts
        of = transducer.Lattice(frames.reshape(B), sizes.reshape(B), not self.one_label_per_frame)
        return blank, label, of

    @property
    def _forward_backward(self) -> tuple[Tensor, Tensor, Tensor]:
        return self._once("forward_backward", lambda: transducer.forward_backward(*self._centred._flat))

    @property
    def _wide_log_partition(self) -> Tensor:
        """ln Z in float64: sums of scores may leave the range of narrower types."""
        frames, labels = self._counts
        arcs = frames if self.one_label_per_frame else frames + labels
        return self._forward_backward[0].reshape(self.batch_shape) + arcs * self._top

    @property
    def log_partition(self) -> Tensor:
        """ln Σ_z exp s(z) over the alignments, ``[*batch]``: ln P(y) of the transducer; −inf where there is none."""
        return self._wide_log_partition.to(self.blank_arcs.dtype)

    @property
    def marginals(self) -> tuple[Tensor, Tensor]:
        """The probability of each blank arc ``[*batch, T, U + 1]`` and label arc ``[*batch, T, U]``; 0 over padding.

        That of the label arcs says in which frame a label is emitted: it sums to 1 over t.
        """
        self._require_feasible("marginals")
        arcs = (x.to(self.blank_arcs.dtype) for x in self._forward_backward[1:])
        return tuple(x.reshape(*self.batch_shape, *x.shape[1:]) for x in arcs)  # type: ignore[return-value]

    def _require_feasible(self, what: str) -> None:
        if self._validate_args:
            check_feasible(self._wide_log_partition, f"TransducerAlignments.{what}")

    @property
    def _top(self) -> Tensor:
        """The largest score of all arcs ``[*batch]``, a constant in float64; 0 where all are −inf."""

        def largest(arcs: Tensor, inside: Callable[[], Tensor] | None) -> Tensor:
            arcs = arcs.detach() if inside is None else arcs.detach().masked_fill(~inside(), -torch.inf)
            none = arcs.new_full((*arcs.shape[:-2], 1), -torch.inf)  # where there is no arc at all
            return torch.cat((arcs.flatten(-2), none), -1).amax(-1)

        def top() -> Tensor:
            insides = (self._arcs_inside(self.num_labels, self.event_shape[0], k) for k in (0, 1))
            found = torch.maximum(*map(largest, self._expanded_scores(), insides))
            return found.masked_fill(torch.isneginf(found), 0.0).to(accumulator(found))

        return self._once("top", top)

    @property
    def _centred(self) -> Self:
        """The same distribution in float64, the largest score of all arcs being 0: all alignments have as many arcs."""
        return self._once("centred", lambda: self.map_scores(lambda arcs: arcs - self._top[..., None, None]))

    def log_prob(self, value: Tensor) -> Tensor:
        """ln P(z) = s(z) − ln Z, ``[*batch]``; −inf where z is no alignment. Entries of −100 are summed over."""
        return super().log_prob(value)

    def score(self, y: Tensor) -> Tensor:
        """The sum of the scores of the arcs of a full alignment, ``[*batch]``; −inf where it is none."""
        y, inside = self.labelling(y), self.inside
        if self._validate_args:
            check_full("y", self._unobserved(y))
        shape, T, U = broadcast_shapes(y.shape[:-1], self.batch_shape), self.num_labels, self.event_shape[0]
        frames, _ = self._counts
        label = torch.nn.functional.pad(self.label_arcs, (0, 0, 0, 1)).expand(*shape, T + 1, U)
        label = label.gather(-2, y.clamp(min=0).expand(*shape, U).unsqueeze(-2)).squeeze(-2)
        wide = accumulator(label)
        total = label.masked_fill(~inside, 0.0).sum(-1, dtype=wide)
        steps = torch.arange(T, device=y.device)
        emitted = ((y[..., None, :] <= steps[:, None]) & inside[..., None, :]).sum(-1)  # after each frame, [*, T]
        blank = self.blank_arcs.expand(*shape, T, U + 1).gather(-1, emitted.expand(*shape, T)[..., None]).squeeze(-1)
        silent = steps < frames[..., None]
        if self.one_label_per_frame:
            silent = silent & ((y[..., None, :] != steps[:, None]) | ~inside[..., None, :]).all(-1)
        total = (total + blank.masked_fill(~silent, 0.0).sum(-1, dtype=wide)).to(blank.dtype)
        least = 1 if self.one_label_per_frame else 0
        ascending = ((y[..., 1:] - y[..., :-1] >= least) | ~inside[..., 1:]).all(-1)
        ascending = ascending & ((y < frames[..., None]) | ~inside).all(-1)
        return total.masked_fill(~ascending, -torch.inf)

    def condition(self, y: Tensor) -> Self:
        y = self.labelling(y)[..., None, :]
        excluded = (y != IGNORE) & (y != torch.arange(self.num_labels, device=y.device)[:, None])
        return self._with(self.blank_arcs, torch.where(excluded, -torch.inf, self.label_arcs))

    def argmax(self) -> Tensor:
        """The best alignment, ``int64 [*batch, U]``, the frame of each label: forced alignment."""
        labels, scores = self._wide_topk(1)
        if self._validate_args:
            check_feasible(scores[0], "TransducerAlignments.argmax")
        return labels[0]

    def topk(self, k: int) -> tuple[Tensor, Tensor]:
        check_integer("k", k)
        labels, scores = self._wide_topk(k)
        return labels, scores.to(self.blank_arcs.dtype)

    def _wide_topk(self, k: int) -> tuple[Tensor, Tensor]:
        """:meth:`topk` with scores in float64."""
        with torch.no_grad():
            labels, scores = transducer.topk(*self._flat, k)
        return labels.reshape(k, *self.batch_shape, *self.event_shape), scores.reshape(k, *self.batch_shape)

    def _sample(self, n: int, generator: torch.Generator | None) -> Tensor:
        return transducer.sample(*self._flat, n, generator).reshape(n, *self.batch_shape, *self.event_shape)

    def with_node_scores(self, added: Tensor) -> Self:
        return self._with(self.blank_arcs, self.label_arcs + added.mT)

    def cross_entropy(self, other: StructuredDistribution) -> Tensor:
        """−Σ_z P(z) ln Q(z) against alignments ``other`` of as many frames and labels, ``[*batch]``.

        Raises:
            ValueError: other lengths or another topology: alignments of one may be none of the other.
        """
        return super().cross_entropy(other)

    def _check_comparable(self, other: StructuredDistribution) -> None:
        super()._check_comparable(other)
        assert isinstance(other, TransducerAlignments)
        one, two = self._flat[2], other._flat[2]
        same = one.several == two.several and self.num_labels == other.num_labels
        if not same or not all(map(torch.equal, one[:2], two[:2])):
            raise ValueError("expected alignments of equal lengths, target lengths and topology")

    def _cross_entropy(self, other: TransducerAlignments) -> Tensor:
        self._require_feasible("entropy")
        *mine, of = self._centred._flat
        theirs = mine if other is self else other._centred._flat[:2]
        return transducer.surprisal(mine, theirs, of).reshape(self.batch_shape)

    def map_scores(self, function: Callable[[Tensor], Tensor]) -> Self:
        return self._with(function(self.blank_arcs), function(self.label_arcs))

    def _with(self, blank_arcs: Tensor, label_arcs: Tensor) -> Self:
        return self.__class__(
            blank_arcs,
            label_arcs,
            self.lengths,
            self.target_lengths,
            one_label_per_frame=self.one_label_per_frame,
            validate_args=self._validate_args,
        )

    def _map_entries(self, function: Callable[[Tensor, int], Tensor]) -> Self:
        return self.map_scores(lambda scores: function(scores, 2))

    def expand(self, batch_shape: Sequence[int], _instance: object = None) -> Self:
        """The same distribution with a larger batch shape (nothing is copied)."""
        return self.map_scores(lambda scores: scores.expand(*batch_shape, *scores.shape[-2:]))

    def _expanded_scores(self) -> tuple[Tensor, Tensor]:
        blank, label = (x.expand(*self.batch_shape, *x.shape[-2:]) for x in self.scores)
        return blank, label

    @property
    def inside(self) -> Tensor:
        """Which labels are not padding, ``[*batch, U]``."""
        return torch.arange(*self.event_shape, device=self.blank_arcs.device) < self._counts[1].unsqueeze(-1)

    def _unobserved(self, y: Tensor) -> Tensor:
        return ((self.labelling(y) == IGNORE) & self.inside).any(-1)

    def labelling(self, y: Tensor) -> Tensor:
        """``y`` with −100 over padding, whatever it held there."""
        return as_labelling("y", y, self.event_shape, self.batch_shape, self.inside, self.num_labels)

    def __repr__(self) -> str:
        topology = ", one label per frame" if self.one_label_per_frame else ""
        sizes = f"{self.num_labels} frames, targets up to {self.event_shape[0]} labels{topology}"
        return f"TransducerAlignments({sizes}, batch_shape={list(self.batch_shape)})"
