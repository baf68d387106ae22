"""Connectionist temporal classification: the distribution over label sequences that frames spell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from lnz.checks import as_sample_shape, check_broadcast, check_integer, check_scores, joint_batch_shape
from lnz.distributions.ctc_alignments import CTCAlignments
from lnz.distributions.ctc_targets import check_blank, checked_frames, checked_prior, checked_targets, frames_inside
from lnz.distributions.sequence import without_padding
from lnz.distributions.transcripts import TranscriptDistribution
from lnz.ops import ctc
from lnz.ops.ctc.beam import LanguageModel, search
from lnz.typing import SampleShape


class CTC(TranscriptDistribution):
    """``Q(y) = Σ_z Π_t softmax(x_t)[z_t]`` over the frame labellings z that spell y.

    Every frame chooses a class of its own; z spells y by taking away blanks, where ``collapse_repeats`` after equal
    neighbours have become one (Graves et al. 2006), otherwise repeats stay. Q is normalised frame by frame: its ln Z is
    0. Best sequences and the entropy of y are intractable; :meth:`decode` is a search, and everything about z given a
    y is exact and in :meth:`alignments`.

    Label sequences are ``int64 [*batch, S]``, −100 beyond their ends.

    Args:
        logits: x ``[*batch, T, C]``, normalised or not: the softmax of frames is part of the distribution, and of the
            gradient.
        lengths: ``int64 [*batch]`` frames in 0 … T; ``None`` is T everywhere. What lies beyond is ignored.
        blank: the class ⊥ of frames that say nothing; ``None`` for none.
        collapse_repeats: whether a label may last for several frames; ``False`` is the topology y = z − ⊥.
        log_prior: ``[C]``, finite: divides the probability of every class by exp of this in :meth:`log_prob` (no
            longer a probability then). With a fraction, say 0.3, of the log of the average softmax, alignments become
            less peaky (Huang et al. 2024, "Less peaky and more accurate CTC forced alignment by label priors"). Held
            constant in derivatives.
        validate_args: check the values of arguments, as in ``torch.distributions``.

    Raises:
        TypeError, ValueError: arguments of the wrong type, shape or value.
    """

    _axes = 2
    _refused: ClassVar[dict[str, str]] = {
        "argmax": "argmax over label sequences is intractable: use decode(beam=…), greedy(), "
        "or alignments(targets).argmax() for forced alignment",
        "topk": "topk over label sequences is intractable: use decode(beam=…, k={k}), or alignments(targets).topk({k})",
        "entropy": "the entropy over label sequences is intractable: average −log_prob over sample((n,)), "
        "or use alignments(targets).entropy()",
        "condition": "label sequences have no places to clamp: alignments(targets).condition(z) clamps frames",
        "marginals": "label sequences have no places of which to say marginals: alignments(targets).marginals are "
        "those of frames given targets, logits.softmax(-1) without",
        "log_count": "label sequences are not counted: alignments(targets).log_count is for the frame labellings "
        "that spell the targets",
    }

    def __init__(
        self,
        logits: Tensor,
        lengths: Tensor | Sequence[int] | None = None,
        blank: int | None = 0,
        collapse_repeats: bool = True,
        *,
        log_prior: Tensor | None = None,
        validate_args: bool | None = None,
    ) -> None:
        validate = type(self)._validate_args if validate_args is None else validate_args
        check_scores("logits", logits, values=False)
        frames, self._lengths_given = checked_frames("logits", logits, lengths), lengths is not None
        logits = without_padding("logits", logits, frames_inside(logits, frames), values=validate, axes=2)
        check_blank(blank, logits.shape[-1])
        checked_prior(log_prior, logits.shape[-1])
        batch_shape = joint_batch_shape(logits=logits.shape[:-2], lengths=frames.shape)
        super().__init__(logits, frames, blank, batch_shape, validate)
        self.collapse_repeats, self.log_prior = collapse_repeats, log_prior

    def log_prob(self, value: Tensor, target_lengths: Tensor | None = None) -> Tensor:
        """ln Q(y), ``[*batch]``; −inf where no alignment spells y, with gradient 0.

        Differentiable twice; the gradient to the logits, P(z_t = c | y) − softmax(x_t)[c], is computed when asked for,
        without a log-softmax beside the logits or a gradient of one. O(T (C + S)) time per batch entry; O(S) memory
        where no gradient is wanted, else O(T S), and O(√T S), for twice the time, of sequences past 128 MiB of lattice.

        Args:
            value: y ``int64 [*batch, S]``, without blanks; whatever beyond its length.
            target_lengths: ``int64 [*batch]``; ``None`` counts the labels up to the first −100.

        Raises:
            TypeError, ValueError: arguments of the wrong type, shape or value.
        """
        return self._wide_log_prob(value, target_lengths).to(self.logits.dtype)

    def _wide_log_prob(self, value: Tensor, target_lengths: Tensor | None = None) -> Tensor:
        """:meth:`log_prob` in double precision: finite wherever y has an alignment."""
        labels, sizes = checked_targets(value, target_lengths, self.num_labels, self.blank)
        check_broadcast("targets", labels.shape[:-1], self.batch_shape)
        shape = joint_batch_shape(logits=self.batch_shape, targets=labels.shape[:-1], target_lengths=sizes.shape)
        B = shape.numel()
        logits = self.logits.expand(*shape, *self.logits.shape[-2:])
        logits = logits if logits.dim() == 3 else logits.reshape(B, *self.logits.shape[-2:])
        labels = labels.expand(*shape, -1).reshape(B, labels.shape[-1])
        frames, sizes = (n.expand(shape).reshape(B) for n in (self.lengths, sizes))
        lattice = ctc.lattice(labels, frames, sizes, self.blank, self.collapse_repeats)
        prior = checked_prior(self.log_prior, self.num_labels)
        return ctc.log_prob(logits, prior, lattice, True).reshape(shape)

    def alignments(self, targets: Tensor, target_lengths: Tensor | None = None) -> CTCAlignments:
        """P(z | y) over the alignments of targets ``int64 [*batch, S]``: marginals, best ones, samples.

        Its scores are the logits as they are (less the prior, where there is one): its ``log_partition`` is ln Q(y)
        where these are normalised, in general ln Q(y) + Σ_t ln Σ_c exp x[t, c].
        """
        scores = self.logits if self.log_prior is None else self.logits - self.log_prior.detach().to(self.logits)
        lengths = self.lengths if self._lengths_given else None
        topology = self.blank, self.collapse_repeats
        alignments = CTCAlignments(scores, targets, target_lengths, lengths, *topology, validate_args=False)
        alignments._validate_args = self._validate_args  # the logits have been looked at
        return alignments

    def greedy(self) -> Tensor:
        """What the best class of every frame spells, ``int64 [*batch, S]``, −100 beyond; S is the longest."""
        best = self.logits.detach().argmax(-1).expand(*self.batch_shape, -1)
        return _cut(*ctc.collapse(best, self.lengths.expand(self.batch_shape), self.blank, self.collapse_repeats))

    def decode(self, beam: int = 16, language_model: LanguageModel | None = None, k: int | None = None) -> Any:
        """Label sequences of high probability by prefix beam search.

        A search, not a proof: with a wide beam it finds the best sequence, how wide depends on the model. Without a
        language model, what was found is ranked by its exact ln Q(y).

        Args:
            beam: how many prefixes are kept from frame to frame; 1 is a greedy search over prefixes (:meth:`greedy`
                takes the best class of every frame instead).
            language_model: takes prefixes ``int64 [N, U]``, −100 beyond their ends, and returns scores ``[N, C]`` of
                the next label (weighted as you like; that of the blank is ignored), each added once per label.
            k: how many to return, at most ``beam``; ``None`` is the best one alone.

        Returns:
            y ``int64 [*batch, S]``, −100 beyond its end; with ``k``, y ``[k, *batch, S]`` and scores ``[k, *batch]``,
            ln Q(y) plus the language model's score, best first, −100 and −inf where fewer were found.
        """
        check_integer("beam", beam)
        if k is not None:
            check_integer("k", k)
        if k is not None and k > beam:
            raise ValueError(f"k: expected a number in [1, {beam}], the width of the beam, got {k}")
        shape = self.batch_shape
        with torch.no_grad():
            x = self.logits.expand(*shape, *self.logits.shape[-2:]).reshape(shape.numel(), *self.logits.shape[-2:])
            frames = self.lengths.expand(shape).reshape(-1)
            wide = torch.float32 if x.device.type == "mps" else torch.float64
            log_probs = x.to(wide).log_softmax(-1)
            labels, sizes, scores = search(log_probs, frames, beam, self.blank, self.collapse_repeats, language_model)
            if language_model is None:
                topology = (frames, self.blank, self.collapse_repeats)
                targets = [(labels[:, i], sizes[:, i]) for i in range(beam)]
                exact = [CTCAlignments(log_probs, *of, *topology, validate_args=False) for of in targets]
                found = [alignments.log_partition for alignments in exact]
                scores = torch.where(torch.isneginf(scores), scores, torch.stack(found, 1))
                scores, order = scores.sort(stable=True, dim=-1, descending=True)
                labels, sizes = labels.gather(1, order[..., None].expand_as(labels)), sizes.gather(1, order)
            labels, sizes, scores = labels.movedim(1, 0), sizes.movedim(1, 0), scores.movedim(1, 0).to(x.dtype)
        if k is None:
            return _cut(labels[0].reshape(*shape, labels.shape[-1]), sizes[0].reshape(shape))
        labels = _cut(labels[:k], sizes[:k])
        return labels.reshape(k, *shape, labels.shape[-1]), scores[:k].reshape(k, *shape)

    def sample(self, sample_shape: SampleShape = (), generator: torch.Generator | None = None) -> Tensor:
        """Independent label sequences, ``int64 [*sample_shape, *batch, S]``, −100 beyond; S is the longest of them."""
        shape = (*as_sample_shape(sample_shape), *self.batch_shape)
        with torch.no_grad():
            noise = torch.empty(*shape, *self.logits.shape[-2:], dtype=self.logits.dtype, device=self.logits.device)
            z = (self.logits - noise.exponential_(generator=generator).log()).argmax(-1)  # the Gumbel-max trick
            return _cut(*ctc.collapse(z, self.lengths.expand(shape), self.blank, self.collapse_repeats))

    def _with(self, logits: Tensor) -> Self:
        return self.__class__(
            logits,
            self.lengths,
            self.blank,
            self.collapse_repeats,
            log_prior=self.log_prior,
            validate_args=self._validate_args,
        )

    def __repr__(self) -> str:
        T, C = self.logits.shape[-2:]
        topology = "repeats collapsed" if self.collapse_repeats else "repeats kept"
        return f"CTC({T} frames, {C} classes, blank={self.blank}, {topology}, batch_shape={list(self.batch_shape)})"


def _cut(labels: Tensor, sizes: Tensor) -> Tensor:
    """Labels ``[*, S]`` cut to the longest of them."""
    return labels[..., : int(sizes.max()) if sizes.numel() else 0]
