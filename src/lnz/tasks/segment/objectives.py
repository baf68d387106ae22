"""The objectives that ``lnz fit segment`` can train its Markov random field by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from lnz import metrics
from lnz.distributions import MRF
from lnz.inference import BeliefPropagation, Chains, Gibbs, MeanField, Method, TreeReweighted
from lnz.inference.map.trws import TRWS
from lnz.objectives import contrastive_divergence, hinge, label_adjustment, nll
from lnz.typing import IGNORE

Name = Literal[
    "nll",
    "nll-bp",
    "nll-trw",
    "mean-field",
    "mcmc",
    "pseudolikelihood",
    "cd",
    "pcd",
    "label-adjustment",
    "hinge",
    "softmax",
]
NAMES: tuple[Name, ...] = get_args(Name)
COMPARED = tuple(name for name in NAMES if name != "nll")  # which is one of the next two
ENOUGH = 0.9
"""The share of an epoch's training images on which belief propagation has to converge for "nll" to stay with it."""
ErrorName = Literal["iou", "hamming"]


@dataclass(frozen=True)
class Step:
    """What an objective needs besides the distribution and the labels.

    Attributes:
        sampler: of mcmc, cd and pcd, and what draws labels of unobserved pixels for pseudolikelihood.
        steps: sweeps of cd and pcd.
        generator: of the random numbers.
        error: of label-adjustment and hinge.
        epsilon: of label-adjustment, at this step.
        chains: of pcd, one labelling of each image; advanced in place.
    """

    sampler: Gibbs
    steps: int
    generator: torch.Generator
    error: ErrorName
    epsilon: float
    chains: Chains | None = None


Loss = Callable[[MRF, Tensor, Step], Tensor]
"""``(p, labels int64 [B, N], step)`` to the sum of the losses of a batch; −100 is unobserved."""


def _nll(p: MRF, y: Tensor, step: Step) -> Tensor:
    """ln Z − ln Z(observed), by the inference method of ``p``; under a sampler, the surrogate of its gradient."""
    return nll(p, y, "sum", generator=step.generator)


def _pseudolikelihood(p: MRF, y: Tensor, step: Step) -> Tensor:
    """−Σ ln P(y_n | all other labels) over observed pixels; unobserved ones are drawn given the observed ones.

    The draw, one per step, stands in for the sum over them, which pseudolikelihood cannot do where they are neighbours.
    """
    observed = y != IGNORE
    if not observed.all():
        y = torch.where(observed, y, by(p, step.sampler).condition(y).sample((), step.generator))
    return -p.log_conditionals(y)[observed].sum()


def _contrastive_divergence(p: MRF, y: Tensor, step: Step) -> Tensor:
    """CD-k, from gold or from the persistent chains; unobserved pixels are drawn given the observed ones."""
    return contrastive_divergence(p, y, step.steps, step.sampler, step.chains, step.generator, "sum")


def _label_adjustment(p: MRF, y: Tensor, step: Step) -> Tensor:
    """Toward a better labelling; unobserved pixels are not judged."""
    return label_adjustment(p, y, error_of(step.error, p), step.epsilon, reduction="sum")


def _hinge(p: MRF, y: Tensor, step: Step) -> Tensor:
    """Margin-rescaled; unobserved pixels are filled in as they score best, and not judged."""
    return hinge(p, y, error_of(step.error, p), "sum")


def _softmax(p: MRF, y: Tensor, step: Step) -> Tensor:
    """Cross-entropy of the node scores, each pixel by itself; edge scores stay at 0."""
    nodes = p.scores[0]
    assert isinstance(nodes, Tensor)
    return F.cross_entropy(nodes.flatten(0, -2), y.flatten(), ignore_index=IGNORE, reduction="sum")


@dataclass(frozen=True)
class Objective:
    """One way to train.

    Attributes:
        loss: what is minimised.
        train: the inference method of the distribution in training, given that of judgement; ``None`` for the same.
        judge: the one that beliefs come from, given belief propagation with the iterations and tolerance asked for.
        decodes: predictions are best labellings rather than labels of largest beliefs.
        reweights: tree-reweighted belief propagation takes over, in training and for beliefs, after the first epoch in
            which belief propagation has converged on too few images; see :data:`ENOUGH`.
    """

    loss: Loss
    train: Callable[[BeliefPropagation, Gibbs], Method] | None = None
    judge: Callable[[BeliefPropagation], Method] = lambda bp: bp
    decodes: bool = False
    reweights: bool = False


def decoder(bp: BeliefPropagation) -> TRWS:
    """What finds best labellings, with as many iterations as belief propagation has."""
    return TRWS(max_iterations=bp.max_iterations)


def tree_reweighted(bp: BeliefPropagation) -> Method:
    """Tree-reweighted belief propagation, with the iterations and the tolerance of belief propagation."""
    return TreeReweighted(max_iterations=bp.max_iterations, tolerance=bp.tolerance)


def _mean_field(bp: BeliefPropagation) -> Method:
    return MeanField(max_iterations=bp.max_iterations, tolerance=bp.tolerance)


def _argmax(bp: BeliefPropagation, sampler: Gibbs) -> Method:
    return decoder(bp)


OBJECTIVES: dict[Name, Objective] = {
    "nll": Objective(_nll, reweights=True),
    "nll-bp": Objective(_nll),
    "nll-trw": Objective(_nll, judge=tree_reweighted),
    "mean-field": Objective(_nll, judge=_mean_field),
    "mcmc": Objective(_nll, train=lambda bp, sampler: sampler),
    "pseudolikelihood": Objective(_pseudolikelihood),
    "cd": Objective(_contrastive_divergence),
    "pcd": Objective(_contrastive_divergence),
    "label-adjustment": Objective(_label_adjustment, train=_argmax, decodes=True),
    "hinge": Objective(_hinge, train=_argmax, decodes=True),
    "softmax": Objective(_softmax),
}


def by(p: MRF, method: Method) -> MRF:
    """The same distribution under another inference method."""
    return MRF(p.graph, p.scores, method, validate_args=False)


def shifted(p: MRF, shift: Tensor) -> MRF:
    """The distribution with ``shift`` ``[L]`` added to the scores of every node."""
    nodes, *edges = p.scores
    assert isinstance(nodes, Tensor)
    return MRF(p.graph, (nodes + shift, *edges), p.inference, validate_args=False)


@dataclass(frozen=True)
class PixelIoU:
    """1 − mean IoU times the number of judged pixels: it weighs against scores as the number of wrong pixels does."""

    num_labels: int

    def __call__(self, gold: Tensor, predicted: Tensor) -> Tensor:
        return _judged(gold) * metrics.iou(self.num_labels)(gold, predicted)

    def change_costs(self, gold: Tensor, predicted: Tensor, num_labels: int) -> Tensor:
        costs = metrics.iou(self.num_labels).change_costs(gold, predicted, num_labels)
        return _judged(gold)[..., None, None] * costs


def _judged(gold: Tensor) -> Tensor:
    return (gold != IGNORE).sum(-1)


def error_of(name: ErrorName, p: MRF) -> PixelIoU | metrics.Hamming:
    """The task error of that name, per image."""
    return PixelIoU(p.num_labels) if name == "iou" else metrics.hamming
