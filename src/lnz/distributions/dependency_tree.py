"""Dependency trees: the exponential softmax over the ways in which the words of a sentence hang under each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Self

import torch
from torch import Tensor
from torch.distributions import constraints

from lnz.checks import (
    as_integers,
    as_labelling,
    broadcast_shapes,
    check_full,
    check_integer,
    check_scores,
)
from lnz.distributions.heads import arcs_among, batch_shape_of, is_tree
from lnz.distributions.sequence import SequenceDistribution, gathered, without_padding
from lnz.distributions.support import Labellings
from lnz.ops import arborescence, arcs, precision, projective
from lnz.ops.choices import picked
from lnz.semirings import Log
from lnz.typing import IGNORE


class DependencyTree(SequenceDistribution):
    """``P(y) ∝ exp(Σ_d s[d, y_d])`` over dependency trees y: every word d has one head y_d, a word or the root 0.

    Projective trees, whose arcs do not cross, by Eisner's chart (Eisner 1996), O(N³); all trees by the matrix-tree
    theorem (Koo et al. 2007; McDonald & Satta 2007; Smith & Smith 2007), O(N³) too, by an elimination that subtracts
    nothing, so that scores may range as they like. Best trees: Eisner's, or Chu–Liu–Edmonds' in O(N²).

    A tree y is an ``int64`` tensor ``[*batch, N + 1]``: the head of each word 1 … N; entry 0 is 0 and means nothing.
    With labels it is ``[*batch, N + 1, 2]``, head and label. −100 is padding, or *unobserved*. Heads that make no tree
    of this kind have score −inf.

    Args:
        arc_scores: s ``[*batch, N + 1, N + 1]``, [dependent, head]; row 0 and the diagonal are not looked at. With
            ``labelled``, ``[*batch, N + 1, N + 1, R]``: every arc has one of R labels.
        lengths: the numbers of words, integers ``[*batch]`` in 0 … N; ``None`` is N everywhere. What lies beyond is
            padding: ignored in scores (NaN, too) and trees, −100 in trees returned, 0 in marginals.
        projective: whether arcs may not cross, with the root at the left.
        single_root: whether exactly one word hangs under the root; else at least one does.
        labelled: whether arcs have labels.
        validate_args: check the values of arguments (NaN, heads out of range), as in ``torch.distributions``.

    Raises:
        TypeError, ValueError: scores or lengths of the wrong type, shape or value.
    """

    def __init__(
        self,
        arc_scores: Tensor,
        lengths: Tensor | Sequence[int] | None = None,
        projective: bool = True,
        single_root: bool = True,
        *,
        labelled: bool = False,
        validate_args: bool | None = None,
    ) -> None:
        values = self._validate_args if validate_args is None else validate_args
        check_scores("arc_scores", arc_scores, values=False)
        lengths = None if lengths is None else as_integers("lengths", lengths, arc_scores.device)
        own = 3 if labelled else 2
        batch_shape = batch_shape_of(arc_scores, lengths, own)
        M = arc_scores.shape[-own]
        super().__init__(batch_shape, torch.Size([M, 2] if labelled else [M]), validate_args)
        self.lengths, self.projective, self.single_root, self.labelled = lengths, projective, single_root, labelled

        def within() -> Tensor:
            among = arcs_among(M, lengths, arc_scores.device)
            return among.unsqueeze(-1) if labelled else among

        self.arc_scores = without_padding("arc_scores", arc_scores, within, values=values, axes=own)

    @property
    def scores(self) -> Tensor:
        return self.arc_scores

    @property
    def _dtype(self) -> torch.dtype:
        return self.arc_scores.dtype

    @property
    def _words(self) -> int:
        """N."""
        return self.event_shape[0] - 1

    @property
    def _op(self) -> arcs.TreeOp:
        return projective.TREES if self.projective else arborescence.TREES

    @property
    def inside(self) -> Tensor:
        """Which entries of a tree are not padding, ``[*batch, N + 1]`` or ``[N + 1]``; with labels, of each two."""
        places = torch.arange(self._words + 1, device=self.arc_scores.device)
        inside = places <= (self._words if self.lengths is None else self.lengths.unsqueeze(-1))
        return inside.unsqueeze(-1).expand(*inside.shape, 2) if self.labelled else inside

    @property
    def support(self) -> constraints.Constraint:
        """A head in 0 … N at every word, and a label; 0 at entry 0, −100 over padding."""
        kinds = [self._words + 1, *self.arc_scores.shape[-1:]] if self.labelled else [self._words + 1]
        sizes = torch.tensor(kinds, device=self.arc_scores.device).repeat(self._words + 1, 1)
        sizes[0] = 1
        return Labellings(sizes if self.labelled else sizes[:, 0], len(self.event_shape), self.inside)

    # What the operations take ----------------------------------------------------------------------------------------

    @property
    def _among(self) -> Tensor:
        """Scores in the dtype to add up in, with an axis of labels, −inf where there is no arc."""

        def find() -> Tensor:
            scores = self.arc_scores.to(precision.accumulator(self.arc_scores))
            among = arcs_among(self._words + 1, self.lengths, scores.device).unsqueeze(-1)
            never = torch.zeros(among.shape, dtype=scores.dtype, device=scores.device).masked_fill(~among, -torch.inf)
            # a sum keeps nothing for backward, which may then be called for several answers
            return (scores if self.labelled else scores.unsqueeze(-1)) + never

        return self._once("among", find)

    @property
    def _tops(self) -> Tensor:
        """The largest score of each word ``[…, N + 1, 1, 1]``, a constant: it has one head, in any tree."""
        tops = self._among.detach().amax((-2, -1), keepdim=True)
        return tops.masked_fill(torch.isneginf(tops), 0.0)

    @property
    def _common(self) -> Tensor:
        """Σ of :attr:`_tops` ``[B]``, which the functions below leave out."""
        return self._tops.flatten(-3).sum(-1).expand(self.batch_shape).reshape(self.batch_shape.numel())

    @property
    def _labelled_scores(self) -> Tensor:
        """:attr:`_among`, less :attr:`_tops`, ``[B, N + 1, N + 1, R]``."""

        def find() -> Tensor:
            scores = self._among - self._tops
            own = scores.shape[-3:]
            return scores.expand(*self.batch_shape, *own).reshape(self.batch_shape.numel(), *own)

        return self._once("labelled_scores", find)

    @property
    def _flat(self) -> arcs.Arcs:
        """Scores with one batch axis, labels summed over, as the operations take them."""
        scores = self._labelled_scores
        summed = Log().plus(scores, -1) if self.labelled else scores.squeeze(-1)  # not kept, nor what it keeps
        return arcs.Arcs(summed, self._flat_lengths, self.single_root)

    @property
    def _flat_lengths(self) -> Tensor:
        lengths = torch.as_tensor(self._words if self.lengths is None else self.lengths, device=self.arc_scores.device)
        return lengths.expand(self.batch_shape).reshape(self.batch_shape.numel())

    @property
    def _pass(self) -> arcs.Pass:
        return self._once("pass", lambda: self._op.trees.solve(self._flat))

    # Sums ------------------------------------------------------------------------------------------------------------

    @property
    def _centred_log_partition(self) -> Tensor:
        return self._op.trees.value(self._flat, self._pass).reshape(self.batch_shape)

    @property
    def _wide_log_partition(self) -> Tensor:
        return self._centred_log_partition + self._common.reshape(self.batch_shape)

    def _total(self) -> Tensor:
        return self._centred_log_partition

    @property
    def _wide_marginals(self) -> Tensor:
        """``[B, N + 1, N + 1, R]``."""
        heads = self._op.trees.gradient(None, self._flat, self._pass, (True,))[0].unsqueeze(-1)
        if not self.labelled:
            return heads
        scores, summed = self._labelled_scores, self._flat.scores.unsqueeze(-1)
        return heads * (scores - summed.masked_fill(torch.isneginf(summed), 0.0)).exp()

    @property
    def marginals(self) -> Tensor:
        """P(arc), shaped as the scores: ``[*batch, N + 1, N + 1]``, [dependent, head], or that of each label."""
        self._require_feasible("marginals")
        marginals = self._wide_marginals if self.labelled else self._wide_marginals.squeeze(-1)
        return marginals.to(self._dtype).reshape(*self.batch_shape, *marginals.shape[1:])

    def _wide_score(self, y: Tensor) -> Tensor:
        return self._score_of(y, self._labelled_scores) + self._common.reshape(self.batch_shape)

    def _from_offset(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return self._score_of(y, self._labelled_scores), self._centred_log_partition

    def _relative_score(self, y: Tensor) -> Tensor:
        return self._score_of(y, self._labelled_scores)

    def _score_of(self, y: Tensor, scores: Tensor) -> Tensor:
        """Σ of ``scores [B, N + 1, N + 1, R]`` of the arcs of a full y; −inf where they are no tree."""
        y = self.labelling(y)
        if self._validate_args:
            check_full("y", self._unobserved(y))
        shape, M = broadcast_shapes(y.shape[: y.dim() - len(self.event_shape)], self.batch_shape), self._words + 1
        heads, labels = self._split(y.clamp(min=0))
        heads = heads.expand(*shape, M)
        table = scores.flatten(2).unflatten(0, self.batch_shape) if self.batch_shape else scores.flatten(2)[0]
        table = table.expand(*shape, *table.shape[-2:])
        each = gathered(table, heads * scores.shape[-1] + labels)
        words = self.inside[..., 0] if self.labelled else self.inside
        words = (words & (torch.arange(M, device=y.device) > 0)).expand(*shape, M)
        total = torch.where(words, each, 0.0).sum(-1)
        return total.masked_fill(~is_tree(heads, words, self.projective, self.single_root), -torch.inf)

    def _split(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Heads and labels."""
        return (y[..., 0], y[..., 1]) if self.labelled else (y, torch.zeros_like(y))

    @property
    def _wide_entropy(self) -> Tensor:
        return self._wide_cross_entropy(self, self._far)

    def _wide_cross_entropy(self, other: DependencyTree, by_conditionals: bool) -> Tensor:
        """ln Z of Q less expected scores; or, ``by_conditionals``, from the best tree of Q on.

        That is −ln Q(best), a sum of logarithms of conditionals, and what the others lose against it.
        """
        marginals, scores = self._wide_marginals, other._labelled_scores
        banned = torch.isneginf(scores)
        finite = scores.masked_fill(banned, 0.0)
        if by_conditionals:
            best, surprisal = other._op.surprisal_of_best(other._labelled_scores, other._flat, other._pass)
            finite = finite - finite.flatten(2).gather(2, best[..., None]).unsqueeze(-1).to(finite)
            value = surprisal
        else:
            value = other._op.trees.value(other._flat, other._pass)
        finite = torch.where(marginals > 0, finite, 0.0)
        value = value - (marginals * finite).flatten(1).sum(1)
        lost = (banned & (marginals > 0)).flatten(1).any(1)
        return value.masked_fill(lost, torch.inf).reshape(self.batch_shape)

    # Trees -----------------------------------------------------------------------------------------------------------

    def condition(self, y: Tensor) -> Self:
        y = self.labelling(y)
        heads, labels = self._split(y)
        places = torch.arange(self._words + 1, device=y.device)
        excluded = (heads.unsqueeze(-1) != IGNORE) & (heads.unsqueeze(-1) != places)
        excluded = excluded & (places > 0).unsqueeze(-1)
        if self.labelled:
            kinds = torch.arange(self.arc_scores.shape[-1], device=y.device)
            other = (labels.unsqueeze(-1) != IGNORE) & (labels.unsqueeze(-1) != kinds)
            excluded = excluded.unsqueeze(-1) | other.unsqueeze(-2)
        return self._with(torch.where(excluded, -torch.inf, self.arc_scores))

    def topk(self, k: int) -> tuple[Tensor, Tensor]:
        check_integer("k", k)
        with torch.no_grad():
            scores, lengths = self._labelled_scores, self._flat_lengths
            if k == 1:
                tops, kinds = scores.max(-1)
                heads, best = self._op.best(arcs.Arcs(tops, lengths, self.single_root))
                labels = kinds.gather(2, heads.clamp(min=0).unsqueeze(-1)).squeeze(-1).masked_fill(heads < 0, IGNORE)
                y, best = torch.stack((heads, labels), -1)[None], best[None]
                y[..., 0, 1] = y[..., 0, 0]
            else:
                y, best = self._op.topk(arcs.TopK(scores, lengths, self.single_root, k))
            best = best + self._common
        return self._shaped(y, k), best.to(self._dtype).reshape(k, *self.batch_shape)

    def minimum_bayes_risk(self) -> Tensor:
        """The tree with the most arcs expected to be right, ``[*batch, N + 1]``: the best one by the marginals.

        Goodman (1996); of trees of the same kind, whose arcs are possible.
        """
        self._require_feasible("minimum_bayes_risk")
        with torch.no_grad():
            marginals = self._wide_marginals.masked_fill(torch.isneginf(self._labelled_scores), -torch.inf)
            tops, kinds = marginals.max(-1)
            heads = self._op.best(arcs.Arcs(tops, self._flat_lengths, self.single_root)).heads
            labels = kinds.gather(2, heads.clamp(min=0).unsqueeze(-1)).squeeze(-1).masked_fill(heads < 0, IGNORE)
            y = torch.stack((heads, labels), -1)
            y[..., 0, 1] = 0
        return self._shaped(y[None], 1)[0]

    def _sample(self, n: int, generator: torch.Generator | None) -> Tensor:
        given, scores = self._flat, self._labelled_scores
        shape, options = (n, *given.scores.shape[:2]), {"dtype": scores.dtype, "device": scores.device}
        uniform = torch.rand(shape, generator=generator, **options)
        heads = self._op.sample(arcs.Uniform(given.scores, given.lengths, uniform, self.single_root)).heads
        if not self.labelled:
            return heads.reshape(n, *self.batch_shape, *self.event_shape)
        rows = scores.expand(n, *scores.shape).gather(
            3, heads.clamp(min=0)[..., None, None].expand(*shape, 1, scores.shape[-1])
        )
        labels = picked(rows.squeeze(3).softmax(-1), torch.rand(shape, generator=generator, **options))
        labels = torch.where(heads < 0, IGNORE, labels)
        labels[..., 0] = 0
        return self._shaped(torch.stack((heads, labels), -1), n)

    def _shaped(self, y: Tensor, n: int) -> Tensor:
        """Heads and labels ``[n, B, N + 1, 2]`` as trees ``[n, *batch, *event]``."""
        return (y if self.labelled else y[..., 0]).reshape(n, *self.batch_shape, *self.event_shape)

    # The same distribution, otherwise written ----------------------------------------------------------------------

    def map_scores(self, function: Callable[[Tensor], Tensor]) -> Self:
        return self._with(function(self.arc_scores))

    def _map_entries(self, function: Callable[[Tensor, int], Tensor]) -> Self:
        return self._with(function(self.arc_scores, 3 if self.labelled else 2))

    @property
    def _lengths(self) -> Tensor | int:
        return self._words if self.lengths is None else self.lengths

    def _with(self, arc_scores: Tensor) -> Self:
        return self.__class__(
            arc_scores,
            self.lengths,
            self.projective,
            self.single_root,
            labelled=self.labelled,
            validate_args=self._validate_args,
        )

    def _expanded_scores(self) -> tuple[Tensor, ...]:
        own = self.arc_scores.shape[-3:] if self.labelled else self.arc_scores.shape[-2:]
        return (self.arc_scores.expand(*self.batch_shape, *own),)

    def expand(self, batch_shape: Sequence[int], _instance: object = None) -> Self:
        """The same distribution with a larger batch shape (nothing is copied)."""
        own = self.arc_scores.shape[-3:] if self.labelled else self.arc_scores.shape[-2:]
        return self._with(self.arc_scores.expand(*batch_shape, *own))

    def _unobserved(self, y: Tensor) -> Tensor:
        missing = (self.labelling(y) == IGNORE) & self.inside
        return missing.flatten(-len(self.event_shape)).any(-1)

    def _gold_count(self, y: Tensor) -> Tensor:
        """How many words have a head or a label, ``[*batch]``."""
        gold = self.labelling(y) != IGNORE
        return (gold.any(-1) if self.labelled else gold)[..., 1:].sum(-1)

    def labelling(self, y: Tensor) -> Tensor:
        """``y`` with −100 over padding, whatever it held there, and 0 at entry 0."""
        sizes = self.support.num_labels  # type: ignore[attr-defined]
        y = as_labelling("y", y, self.event_shape, self.batch_shape, self.inside, sizes)
        first = torch.arange(self._words + 1, device=y.device) == 0
        return torch.where(first.unsqueeze(-1) if self.labelled else first, 0, y)

    def _check_comparable(self, other: object) -> None:
        super()._check_comparable(other)  # type: ignore[arg-type]
        assert isinstance(other, DependencyTree)
        for name in ("projective", "single_root"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                raise ValueError(f"expected trees of one kind, got {name}={mine} and {name}={theirs}")

    def __repr__(self) -> str:
        kind = "projective" if self.projective else "any shape"
        root = "single root" if self.single_root else "any number of roots"
        labels = f", {self.arc_scores.shape[-1]} labels" if self.labelled else ""
        lengths = "" if self.lengths is None else ", lengths given"
        batch = list(self.batch_shape)
        return f"DependencyTree({self._words} words, {kind}, {root}{labels}, batch_shape={batch}{lengths})"
