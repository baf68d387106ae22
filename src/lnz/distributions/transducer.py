"""The recurrent neural network transducer: the probability of a label sequence given its joint scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Never, Self

import torch
from torch import Tensor

from lnz.checks import broadcast_shapes, check_broadcast, check_scores
from lnz.distributions.sequence import without_padding
from lnz.distributions.transcripts import TranscriptDistribution
from lnz.distributions.transducer_alignments import TransducerAlignments
from lnz.distributions.transducer_arguments import check_known, checked_joint, fitted_targets, nodes_inside
from lnz.ops import transducer

_NEEDS_THE_NETWORK = (
    "the joint scores were computed for one target, and those of another one are for the network to say: "
    "decode with the network"
)


class Transducer(TranscriptDistribution):
    """``P(y) = Σ_z Π softmax(x[t, u])[z]`` over the alignments z of a target y; the RNN-T (Graves 2012).

    In frame t, after u labels, the network either emits the next label and stays, or says blank and goes on to frame
    t + 1; after the last frame's blank it is done. Its scores depend on the labels emitted so far, so that the joint
    scores x belong to one target: that which they were computed from, row u after its first u labels. Of that target
    the probability is exact, and so is everything about its alignments, in :meth:`alignments`.

    Targets are ``int64 [*batch, U]``, −100 beyond their ends.

    Args:
        logits: x ``[*batch, T, U + 1, C]``, normalised or not: the softmax of nodes is part of the distribution, and
            of the gradient. Rows beyond a target's labels are ignored.
        lengths: ``int64 [*batch]`` frames in 0 … T; ``None`` is T everywhere. What lies beyond is ignored.
        blank: the class of blank.
        one_label_per_frame: whether a label goes on to the next frame as a blank does, so that a frame emits one
            label or none (Tripathi et al. 2019, "Monotonic recurrent neural network transducer"); otherwise a frame
            may emit any number of them.
        validate_args: check the values of arguments, as in ``torch.distributions``.

    Raises:
        TypeError, ValueError: arguments of the wrong type, shape or value.
    """

    blank: int  # pyright: ignore[reportIncompatibleVariableOverride]  (never None here)
    _axes = 3
    _refused: ClassVar[dict[str, str]] = {
        "argmax": f"{_NEEDS_THE_NETWORK}; alignments(targets).argmax() is forced alignment",
        "topk": f"{_NEEDS_THE_NETWORK}; alignments(targets).topk({{k}}) are the best alignments",
        "entropy": f"{_NEEDS_THE_NETWORK}; alignments(targets).entropy() is that of the alignments",
        "condition": f"{_NEEDS_THE_NETWORK}; alignments(targets).condition(z) clamps frames of labels",
        "marginals": f"{_NEEDS_THE_NETWORK}; alignments(targets).marginals are those of arcs",
        "log_count": f"{_NEEDS_THE_NETWORK}; alignments(targets).log_count is for alignments",
    }

    def __init__(
        self,
        logits: Tensor,
        lengths: Tensor | None = None,
        blank: int = 0,
        *,
        one_label_per_frame: bool = False,
        validate_args: bool | None = None,
    ) -> None:
        validate = type(self)._validate_args if validate_args is None else validate_args
        check_scores("logits", logits, values=False)
        frames = checked_joint("logits", logits, lengths, blank)
        check_known("logits", logits, frames, values=validate)
        super().__init__(logits, frames, blank, broadcast_shapes(logits.shape[:-3], frames.shape), validate)
        self.one_label_per_frame = one_label_per_frame

    def log_prob(self, value: Tensor, target_lengths: Tensor | None = None) -> Tensor:
        """ln P(y), ``[*batch]``; −inf where y has no alignment, with gradient 0.

        Differentiable twice. The gradient to the logits, P(arc) at the classes of the two arcs of a node less
        P(node) softmax(x[t, u]), is computed when asked for, and nothing of the size of the logits beside it: memory
        is O(T U) beyond these two. O(T U C) time per batch entry.

        Args:
            value: y ``int64 [*batch, U]``, without blanks, the target of the logits (shorter ones may be narrower);
                whatever beyond its length.
            target_lengths: ``int64 [*batch]``; ``None`` counts the labels up to the first −100.

        Raises:
            TypeError, ValueError: arguments of the wrong type, shape or value.
        """
        return self._wide_log_prob(value, target_lengths).to(self.logits.dtype)

    def _wide_log_prob(self, value: Tensor, target_lengths: Tensor | None = None) -> Tensor:
        """:meth:`log_prob` in double precision: finite wherever y has an alignment."""
        shape, logits, labels, of = self._flat(value, target_lengths)
        return transducer.log_prob(logits, labels, of, self.blank, True).reshape(shape)

    def alignments(self, targets: Tensor, target_lengths: Tensor | None = None) -> TransducerAlignments:
        """P(z | y) over the alignments of targets ``int64 [*batch, U]``: best ones, marginals, samples.

        Its scores are the log-probabilities of arcs, so that its ``log_partition`` is ln P(y).
        """
        shape, logits, labels, of = self._flat(targets, target_lengths)
        arcs = transducer.arcs(logits, labels, of, self.blank, True)
        blank, label = (x.to(logits.dtype).reshape(*shape, *x.shape[1:]) for x in arcs)
        return TransducerAlignments(
            blank,
            label,
            of.lengths.reshape(shape),
            of.target_lengths.reshape(shape),
            one_label_per_frame=self.one_label_per_frame,
            validate_args=self._validate_args,
        )

    def _flat(
        self, targets: Tensor, target_lengths: Tensor | None
    ) -> tuple[torch.Size, Tensor, Tensor, transducer.Lattice]:
        """The batch shape of all; logits, labels and lattice with one batch axis, as :mod:`lnz.ops.transducer` does."""
        labels, sizes = fitted_targets(targets, target_lengths, self.logits, self.blank)
        target_shape = broadcast_shapes(labels.shape[:-1], sizes.shape)
        check_broadcast("targets", target_shape, self.batch_shape)
        shape = broadcast_shapes(target_shape, self.batch_shape)
        B, rest = shape.numel(), self.logits.shape[-3:]
        inside = nodes_inside(self.logits, self.lengths.expand(shape), sizes.expand(shape))
        logits = without_padding("logits", self.logits, inside, values=self._validate_args, axes=3)
        logits = logits.expand(*shape, *rest).reshape(B, *rest)
        labels = labels.expand(*shape, -1).reshape(B, labels.shape[-1])
        frames, sizes = (n.expand(shape).reshape(B) for n in (self.lengths, sizes))
        return shape, logits, labels, transducer.Lattice(frames, sizes, not self.one_label_per_frame)

    def _with(self, logits: Tensor) -> Self:
        return self.__class__(
            logits,
            self.lengths,
            self.blank,
            one_label_per_frame=self.one_label_per_frame,
            validate_args=self._validate_args,
        )

    def sample(self, sample_shape: Sequence[int] = (), generator: torch.Generator | None = None) -> Never:
        """Raise: joint scores say nothing of other targets."""
        raise TypeError(f"{_NEEDS_THE_NETWORK}; alignments(targets).sample() samples alignments")

    def __repr__(self) -> str:
        T, rows, C = self.logits.shape[-3:]
        topology = ", one label per frame" if self.one_label_per_frame else ""
        sizes = f"{T} frames, targets up to {rows - 1} labels, {C} classes, blank={self.blank}{topology}"
        return f"Transducer({sizes}, batch_shape={list(self.batch_shape)})"
