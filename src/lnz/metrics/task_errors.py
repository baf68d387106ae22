"""Task errors: Hamming, cost matrices, intersection over union, edit distance, BLEU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lnz.checks import as_labels, broadcast_shapes, check_labels
from lnz.typing import IGNORE


@dataclass(frozen=True)
class Hamming:
    """The number of labels that differ."""

    def __call__(self, gold: Tensor, predicted: Tensor) -> Tensor:
        """The error per batch entry, ``[*batch]``."""
        gold, predicted = _aligned(gold, predicted)
        return ((gold != predicted) & (gold != IGNORE)).sum(-1).to(torch.get_default_dtype())

    def node_costs(self, gold: Tensor, num_labels: int) -> Tensor:
        """What each label of each node would cost, ``[*batch, N, L]``."""
        gold = as_labels("gold", gold)
        labels = torch.arange(num_labels, device=gold.device)
        wrong = (gold.unsqueeze(-1) != labels) & (gold != IGNORE).unsqueeze(-1)
        return wrong.to(torch.get_default_dtype())


hamming = Hamming()
"""The number of labels that differ; splits over labels."""


@dataclass(frozen=True, eq=False)
class CostMatrix:
    """The sum of a price per label, ``costs[gold, predicted]``; see :func:`cost_matrix`."""

    costs: Tensor

    def __call__(self, gold: Tensor, predicted: Tensor) -> Tensor:
        """The error per batch entry, ``[*batch]``."""
        gold, predicted = _aligned(gold, predicted)
        seen = gold != IGNORE
        check_labels("gold", gold, len(self.costs))
        check_labels("predicted", torch.where(seen, predicted, 0), len(self.costs), unobserved=False)
        rows, columns = gold.clamp(min=0), torch.where(seen, predicted, 0)
        return self.costs.to(gold.device)[rows, columns].masked_fill(~seen, 0.0).sum(-1)

    def node_costs(self, gold: Tensor, num_labels: int) -> Tensor:
        """What each label of each node would cost, ``[*batch, N, L]``."""
        if num_labels != len(self.costs):
            expected = f"a cost matrix of shape [{num_labels}, {num_labels}], as many as there are labels"
            raise ValueError(f"costs: expected {expected}, got {list(self.costs.shape)}")
        gold = as_labels("gold", gold)
        check_labels("gold", gold, num_labels)
        rows = self.costs.to(gold.device)[gold.clamp(min=0)]
        return rows.masked_fill((gold == IGNORE).unsqueeze(-1), 0.0)


def cost_matrix(costs: Tensor) -> CostMatrix:
    """An error that prices every kind of mistake: Σ_n ``costs[gold_n, predicted_n]``; splits over labels.

    With two labels ``[[0, a], [b, 0]]`` prices false positives at a and false negatives at b.

    Args:
        costs: ``[L, L]``, finite, not negative; the diagonal is what being right costs, normally 0 (and 0 where
            :func:`~lnz.objectives.hinge` is to train with it).

    Raises:
        TypeError, ValueError: not a square matrix of finite, non-negative numbers.
    """
    if not isinstance(costs, Tensor):
        raise TypeError(f"costs: expected a torch.Tensor, got {type(costs).__name__}")
    if costs.dim() != 2 or costs.shape[0] != costs.shape[1]:
        raise ValueError(f"costs: expected shape [L, L], got {list(costs.shape)}")
    costs = costs if costs.is_floating_point() else costs.to(torch.get_default_dtype())
    if not torch.isfinite(costs).all():
        raise ValueError("costs: expected finite numbers")
    if (costs < 0).any():
        raise ValueError(
            f"costs: expected no negative numbers, since 0 is perfect, got {costs.min().item():.6g}; "
            "adding a constant to a row changes no preference"
        )
    return CostMatrix(costs)


@dataclass(frozen=True)
class IoU:
    """1 − mean intersection over union; see :func:`iou`."""

    num_labels: int

    def __call__(self, gold: Tensor, predicted: Tensor) -> Tensor:
        """The error per batch entry, ``[*batch]``."""
        ratio, present = _ratios(*self._counts(gold, predicted))
        return _error(ratio.sum(-1), present.sum(-1))

    def change_costs(self, gold: Tensor, predicted: Tensor, num_labels: int) -> Tensor:
        """The error after relabelling one node and no other, for every node and label: ``[*batch, N, L]``; O(N L)."""
        if num_labels != self.num_labels:
            raise ValueError(f"iou: expected num_labels={num_labels}, as many as the model has, got {self.num_labels}")
        gold, predicted = _aligned(gold, predicted)
        intersection, union = self._counts(gold, predicted)
        ratio, present = _ratios(intersection, union)
        now, right = predicted.clamp(min=0), (gold == predicted).long()
        labels = torch.arange(num_labels, device=gold.device)
        hit = (gold.unsqueeze(-1) == labels).long()
        # the label that loses the node: its union shrinks unless gold has the node there
        less, still = _ratios(intersection.gather(-1, now) - right, union.gather(-1, now) - 1 + right)
        # the label that gains it: its union grows unless gold has the node there
        more, since = _ratios(intersection.unsqueeze(-2) + hit, union.unsqueeze(-2) + 1 - hit)
        total = ratio.sum(-1)[..., None, None] + (less - ratio.gather(-1, now)).unsqueeze(-1)
        total = total + more - ratio.unsqueeze(-2)
        kinds = present.sum(-1)[..., None, None] + (still - present.gather(-1, now)).unsqueeze(-1)
        kinds = kinds + since - present.unsqueeze(-2)
        unchanged = (predicted.unsqueeze(-1) == labels) | (gold == IGNORE).unsqueeze(-1)
        return torch.where(unchanged, _error(ratio.sum(-1), present.sum(-1))[..., None, None], _error(total, kinds))

    def _counts(self, gold: Tensor, predicted: Tensor) -> tuple[Tensor, Tensor]:
        """Sizes of the intersection and of the union per label, ``[*batch, L]``."""
        gold, predicted = _aligned(gold, predicted)
        seen = gold != IGNORE
        check_labels("gold", gold, self.num_labels)
        check_labels("predicted", torch.where(seen, predicted, 0), self.num_labels, unobserved=False)
        rows, columns = gold.clamp(min=0), torch.where(seen, predicted, 0)

        def count(labels: Tensor, which: Tensor) -> Tensor:
            return labels.new_zeros(*gold.shape[:-1], self.num_labels).scatter_add(-1, labels, which.long())

        intersection = count(rows, seen & (rows == columns))
        return intersection, count(rows, seen) + count(columns, seen) - intersection


def iou(num_labels: int) -> IoU:
    """1 − mean intersection over union, per batch entry.

    The mean is over the labels that gold or prediction show; labels that neither shows do not count, as in
    torchmetrics' Jaccard index with ``average="macro"``, taken of each batch entry alone. With nothing observed the
    error is 0. Does not split over labels.

    Args:
        num_labels: L.
    """
    if not isinstance(num_labels, int) or num_labels < 1:
        raise ValueError(f"num_labels: expected a positive integer, got {num_labels!r}")
    return IoU(num_labels)


def edit_distance(gold: Tensor, predicted: Tensor) -> Tensor:
    """The least number of insertions, deletions and substitutions that make one sequence the other (Levenshtein).

    Entries of −100 are left out of either sequence; the two may differ in width. Needs the extra ``metrics``.

    Args:
        gold: integers ``[*batch, N]``.
        predicted: integers ``[*batch, M]``.

    Returns:
        ``[*batch]``.
    """
    try:
        from rapidfuzz.distance import Levenshtein
    except ImportError as error:
        raise _missing("edit_distance", "rapidfuzz") from error
    return _per_sequence(gold, predicted, Levenshtein.distance)


def bleu(gold: Tensor, predicted: Tensor) -> Tensor:
    """1 − sentence BLEU of labels as words (Papineni et al. 2002), in [0, 1].

    That of sacrebleu: exponential smoothing of n-grams without a match, and no n longer than the prediction
    ("effective order"). Entries of −100 are left out of either sequence; the two may differ in width. Two empty
    sequences agree. Needs the extra ``metrics``.

    Args:
        gold: integers ``[*batch, N]``.
        predicted: integers ``[*batch, M]``.

    Returns:
        ``[*batch]``.
    """
    try:
        from sacrebleu.metrics.bleu import BLEU
    except ImportError as error:
        raise _missing("bleu", "sacrebleu") from error
    judge = BLEU(tokenize="none", effective_order=True)

    def of(reference: list[int], hypothesis: list[int]) -> float:
        if not reference or not hypothesis:
            return float(bool(reference) != bool(hypothesis))
        return max(0.0, 1.0 - judge.sentence_score(_words(hypothesis), [_words(reference)]).score / 100.0)

    return _per_sequence(gold, predicted, of)


def _words(labels: list[int]) -> str:
    return " ".join(map(str, labels))


def _aligned(gold: Tensor, predicted: Tensor) -> tuple[Tensor, Tensor]:
    gold, predicted = _of_one_batch(gold, predicted)
    if gold.shape[-1] != predicted.shape[-1]:
        raise ValueError(f"predicted: expected {gold.shape[-1]} labels as in gold, got {predicted.shape[-1]}")
    gold, predicted = torch.broadcast_tensors(gold, predicted)
    return gold, predicted


def _of_one_batch(gold: Tensor, predicted: Tensor) -> tuple[Tensor, Tensor]:
    """Both as int64; raises unless they are integers whose batch shapes broadcast."""
    gold, predicted = as_labels("gold", gold), as_labels("predicted", predicted)
    for name, labels in (("gold", gold), ("predicted", predicted)):
        if labels.dim() == 0:
            raise ValueError(f"{name}: expected shape [*batch, N], got []")
    try:
        broadcast_shapes(gold.shape[:-1], predicted.shape[:-1])
    except RuntimeError as error:
        shapes = f"{list(gold.shape)} and {list(predicted.shape)}"
        raise ValueError(f"gold, predicted: expected batch shapes that broadcast together, got {shapes}") from error
    return gold, predicted


def _ratios(intersection: Tensor, union: Tensor) -> tuple[Tensor, Tensor]:
    """Intersection over union of each label, 0 where it is absent, and whether it is present."""
    present = union > 0
    return intersection / union.clamp(min=1), present.long()


def _error(total: Tensor, kinds: Tensor) -> Tensor:
    return (1 - total / kinds.clamp(min=1)).masked_fill(kinds == 0, 0.0)


def _per_sequence(gold: Tensor, predicted: Tensor, of: Callable[[Any, Any], float]) -> Tensor:
    gold, predicted = _of_one_batch(gold, predicted)
    batch = broadcast_shapes(gold.shape[:-1], predicted.shape[:-1])
    rows = [y.expand(*batch, y.shape[-1]).reshape(batch.numel(), y.shape[-1]).tolist() for y in (gold, predicted)]
    kept = [[[label for label in row if label != IGNORE] for row in side] for side in rows]
    values = [of(a, b) for a, b in zip(*kept, strict=True)]
    return torch.tensor(values, dtype=torch.get_default_dtype(), device=gold.device).reshape(batch)


def _missing(name: str, package: str) -> ImportError:
    return ImportError(f"lnz.metrics.{name} needs the package {package}: pip install 'lnz[metrics]'")
