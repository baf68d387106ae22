"""Label adjustment (direct loss minimisation): gradient descent on the task error of the prediction itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lnz.checks import broadcast_shapes, check_broadcast, check_integer, check_number, concrete
from lnz.distributions.base import StructuredDistribution
from lnz.objectives.augmented import augmented_argmax
from lnz.objectives.errors import TaskError, check_error
from lnz.objectives.labels import as_nodes, completed_by_argmax
from lnz.objectives.reduction import Reduction, check_possible, check_reduction, reduced
from lnz.typing import IGNORE

Epsilon = float | Tensor | Callable[[], float | Tensor]


def label_adjustment(
    p: StructuredDistribution,
    y: Tensor,
    error: TaskError,
    epsilon: Epsilon = 1.0,
    toward_better: bool = True,
    reduction: Reduction = "mean",
) -> Tensor:
    """Move the prediction towards a better one, or away from a worse one, that scores almost as much.

    With ŷ* = argmax s the prediction, and toward better

        y̌ = argmax s(ŷ) − ε Err(y, ŷ),   value s(ŷ*) − s(y̌),   ∂/∂s[α, ỹ] = 1[ŷ*[α] = ỹ] − 1[y̌[α] = ỹ];

    away from worse, y̌ = argmax s(ŷ) + ε Err(y, ŷ) and the value is s(y̌) − s(ŷ*). Averaged over a smooth population
    the gradient is ε times that of the expected error of the prediction, in the limit ε → 0, in either direction
    (McAllester, Hazan & Keshet 2010). Only the gradient means something. Where argmax is exact the value is at least 0
    toward better and at most 0 away from worse; it is 0, and so is the gradient, where ε is too small to change the
    prediction.

    Every argmax is that of the inference method. With an error that is a sum over labels (it has ``node_costs``, as
    Hamming and cost matrices do) y̌ is as exact as that; with any other (intersection over union, edit distance, BLEU,
    or a function of yours) it is searched for, deterministically: from the better of ŷ* and gold (and from what argmax
    gives for simpler errors, where the error has no ``change_costs``) by up to three argmaxes of the error's
    linearisation, then up to 20 rounds of changing labels as long as that helps. Unless the error has
    ``change_costs``, as intersection over union does, each round calls it for every label of every node.

    Args:
        p: :class:`~lnz.MRF`, :class:`~lnz.LinearChain` or :class:`~lnz.Softmax`.
        y: ``int64 [*batch, *event]`` gold labels; −100 where the prediction is not judged.
        error: of :mod:`lnz.metrics`, or any ``error(gold, predicted)`` of ``int64 [*batch, N]`` that gives
            ``[*batch]``.
        epsilon: positive: a number, a tensor ``[*batch]``, or a schedule, a function that is called here and returns
            either; see :class:`EpsilonSchedule`.
        toward_better: which of the two directions.
        reduction: ``"none"`` keeps ``[*batch]``; ``"mean"`` and ``"sum"`` are over the batch.

    Raises:
        InfeasibleError: no labelling is possible, or none that agrees with gold, naming the batch entries.
        TypeError: a family without scores of single labels, an inference method without argmax, an error that is no
            function of two labellings, or an epsilon that is no number.
        ValueError: an epsilon that is not positive, an error that is not finite, an unknown reduction, wrong labels.
    """
    check_reduction(reduction)
    check_error(error)
    p, gold = as_nodes(p, y)
    with torch.no_grad():
        predicted = p.argmax()
        _check_gold(p, gold, predicted)
    score = p._relative_score(predicted)
    batch = broadcast_shapes(score.shape, gold.shape[:-1])
    weight = _positive(epsilon() if callable(epsilon) else epsilon, score.to(p._dtype), batch)
    adjusted = augmented_argmax(p, gold, error, -weight if toward_better else weight, best=predicted)
    values = score - p._relative_score(adjusted)
    return reduced(values if toward_better else -values, reduction).to(p._dtype)


def _check_gold(p: StructuredDistribution, gold: Tensor, predicted: Tensor) -> None:
    """Raise where no labelling agrees with ``gold``; what is not judged is tried as predicted first, which is cheap."""
    scores = p._relative_score(torch.where(gold == IGNORE, predicted, gold))
    if concrete(scores) and torch.isneginf(scores).any() and p._unobserved(gold).any():
        scores = p._relative_score(completed_by_argmax(p, gold))
    check_possible(-scores)


def _positive(value: float | Tensor, like: Tensor, batch: torch.Size) -> Tensor:
    if isinstance(value, Tensor):
        check_broadcast("epsilon", value.shape, batch)
    else:
        check_number("epsilon", value)
    weight = torch.as_tensor(value, dtype=like.dtype, device=like.device)
    if not ((weight > 0) & torch.isfinite(weight)).all():
        raise ValueError(f"epsilon: expected positive numbers, got {value}")
    return weight


@dataclass
class EpsilonSchedule:
    """An ε that falls, or rises, geometrically from call to call: pass it as ``epsilon``.

    Args:
        first: ε of the first call.
        last: ε after ``calls`` more calls, and of all later ones.
        calls: how many calls it takes from one to the other.
        made: calls made so far; what a checkpoint has to keep.
    """

    first: float
    last: float
    calls: int
    made: int = 0

    def __post_init__(self) -> None:
        for name, value in (("first", self.first), ("last", self.last)):
            check_number(name, value)
        if not (self.first > 0 and self.last > 0):
            raise ValueError(f"first, last: expected positive numbers, got {self.first}, {self.last}")
        check_integer("calls", self.calls, 1)
        check_integer("made", self.made, 0)

    def __call__(self) -> float:
        """The next ε."""
        passed = min(self.made, self.calls) / self.calls
        self.made += 1
        return self.first * (self.last / self.first) ** passed
