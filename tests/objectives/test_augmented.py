"""Loss-augmented argmax against the list of all labellings; the hinge, which is its value."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import lnz
from lnz.distributions import StructuredDistribution
from lnz.inference import BeliefPropagation, Enumeration
from lnz.metrics import bleu, cost_matrix, edit_distance, hamming, iou
from lnz.objectives import hinge
from lnz.objectives.augmented import augmented_argmax, judged
from tests.suite import equal, random_scores

IGNORE = -100
COSTS = cost_matrix(torch.tensor([[0.0, 1.0, 2.0], [4.0, 0.0, 0.5], [1.0, 3.0, 0.0]], dtype=torch.float64))
Error = Callable[[Tensor, Tensor], Tensor]


def without_structure(gold: Tensor, predicted: Tensor) -> Tensor:
    """An error of the user's own, about which nothing is known: labels wrong in pairs of neighbours, squared."""
    wrong = (gold != predicted) & (gold != IGNORE)
    return 0.2 * (wrong[..., 1:] & wrong[..., :-1]).sum(-1).square() + 0.1 * wrong.sum(-1)


def grid(seed: int = 0, batch: int = 6) -> lnz.MRF:
    graph = lnz.FactorGraph.grid(2, 3, 3)
    scores = (random_scores((batch, 6, 3), seed) / 2, random_scores((batch, 7, 3, 3), seed + 1) / 2)
    return lnz.MRF(graph, scores)


def pairs_only() -> lnz.MRF:
    """Nothing scores a node alone, and cardinalities differ: the graph has to be extended."""
    graph, _ = lnz.FactorGraph.grouped([3, 2, 3, 2], [[0, 1], [2, 1], [2, 3], [0, 3], [0, 2]])
    shapes = [(6, factors, *labels) for factors, labels in zip(graph.num_factors, graph.labels, strict=True)]
    return lnz.MRF(graph, [random_scores(shape, seed) for seed, shape in enumerate(shapes)])


def chain() -> lnz.LinearChain:
    lengths = torch.tensor([4, 3, 2, 1, 4, 4])
    return lnz.LinearChain(random_scores((6, 4, 3), 0), random_scores((3, 3), 1), lengths)


def everything(p: StructuredDistribution) -> tuple[Tensor, Tensor]:
    """All labellings ``[K, *batch, N]`` and their scores."""
    q = p.to_mrf()
    y = torch.tensor(list(itertools.product(*map(range, q.graph.cardinalities))))
    y = y[:, None].expand(-1, *q.batch_shape, -1)
    scores = q.score(y)
    if isinstance(p, lnz.LinearChain):
        y = torch.where(p.inside, y, IGNORE)
    return y, scores


def maximum(p: StructuredDistribution, gold: Tensor, error: Error, weight: Tensor) -> Tensor:
    y, scores = everything(p)
    return (scores + weight * judged(error, gold, y)).amax(0)


def gold_of(p: StructuredDistribution, seed: int = 7) -> Tensor:
    return p.sample(generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("weight", [-2.0, -0.3, 0.3, 2.0])
@pytest.mark.parametrize("error", [hamming, COSTS], ids=["hamming", "costs"])
@pytest.mark.parametrize("make", [grid, pairs_only, chain])
def test_it_is_exact_for_errors_that_are_sums(make: Callable, error: Error, weight: float) -> None:
    p = make()
    gold = gold_of(p)
    gold[0, 0] = IGNORE
    w = torch.tensor(weight, dtype=torch.float64)
    y = augmented_argmax(p, gold, error, w)
    equal(p.score(y) + w * judged(error, gold, y), maximum(p, gold, error, w))


def test_a_weighted_unary_group_and_clamped_nodes() -> None:
    graph = lnz.FactorGraph.grid(2, 3, 3)
    unary = lnz.Weighted(random_scores((2, 6), 0).abs(), random_scores((3,), 1))
    p = lnz.MRF(graph, (unary, random_scores((3, 3), 2)), Enumeration())
    gold = gold_of(p)
    w = torch.tensor([1.0, -1.0], dtype=torch.float64)
    y = augmented_argmax(p, gold, hamming, w)
    equal(p.score(y) + w * hamming(gold, y), maximum(p, gold, hamming, w))
    clamp = torch.full((6,), IGNORE)
    clamp[2] = 1
    y = augmented_argmax(p.condition(clamp), gold, hamming, w)
    assert (y[..., 2] == 1).all()


@pytest.mark.parametrize("weight", [-3.0, -0.5, 0.5, 3.0])
@pytest.mark.parametrize("error", [iou(3), edit_distance, bleu, without_structure], ids=["iou", "edits", "bleu", "own"])
def test_the_search_finds_what_enumeration_finds_in_most_cases(error: Error, weight: float) -> None:
    found, best, start = [], [], []
    for seed in (0, 10):
        p = grid(seed, batch=10)
        gold = gold_of(p)
        w = torch.tensor(weight, dtype=torch.float64)
        y = augmented_argmax(p, gold, error, w)
        assert torch.equal(y, augmented_argmax(p, gold, error, w))
        found.append(p.score(y) + w * judged(error, gold, y))
        best.append(maximum(p, gold, error, w))
        start.append(torch.maximum(p.score(p.argmax()) + w * judged(error, gold, p.argmax()), p.score(gold)))
    gap = torch.cat(best) - torch.cat(found)
    assert (gap > -1e-9).all()
    assert (torch.cat(found) >= torch.cat(start) - 1e-9).all()
    optimal = (gap < 1e-9).double().mean()
    assert optimal >= (0.9 if weight < 0 else 0.65)  # away from gold there is more than one way to be wrong
    assert gap.mean() < 0.15 * abs(weight)


@pytest.mark.parametrize("make", [grid, pairs_only, chain])
def test_the_search_on_every_family(make: Callable) -> None:
    p = make()
    gold = gold_of(p)
    gold[1, 0] = IGNORE
    w = torch.tensor([-1.0, 1, -1, 1, -1, 1], dtype=torch.float64)
    y = augmented_argmax(p, gold, iou(3), w)
    value = p.score(y) + w * judged(iou(3), gold, y)
    best = maximum(p, gold, iou(3), w)
    assert (value <= best + 1e-9).all()
    assert ((best - value) < 1e-9).sum() >= 5


def test_hinge_is_the_largest_violation() -> None:
    p = grid()
    gold = gold_of(p)
    for error in (hamming, COSTS):
        one = torch.ones((), dtype=torch.float64)
        losses = hinge(p, gold, error, reduction="none")
        equal(losses, maximum(p, gold, error, one) - p.score(gold))
        assert (losses >= error(gold, p.argmax()) - 1e-9).all()  # an upper bound of the task error
    equal(hinge(p, gold, hamming), hinge(p, gold, hamming, reduction="none").mean())


def test_hinge_is_zero_exactly_where_the_margin_is_kept() -> None:
    p = grid()
    gold = p.argmax()
    y, scores = everything(p)
    others = (y != gold).any(-1)
    margin = (p.score(gold) - scores) / hamming(gold, y)
    least = margin.masked_fill(~others, torch.inf).amin(0)  # scaling the scores by 1 / least just keeps it
    for factor, kept in ((1.001, True), (0.999, False)):
        scaled = p.map_scores(lambda s, f=factor: s * (f / least).reshape(-1, *[1] * (s.dim() - 1)))
        losses = hinge(scaled, gold, hamming, reduction="none")
        assert (losses >= -1e-9).all()
        assert ((losses.abs() < 1e-9) == kept).all()


def test_the_gradient_of_hinge_is_worst_minus_gold() -> None:
    node = random_scores((2, 4, 3), 0).requires_grad_()
    p = lnz.LinearChain(node, random_scores((3, 3), 1))
    gold = torch.tensor([[0, 1, 2, 0], [2, 2, 1, 0]])
    worst = p.with_node_scores(hamming.node_costs(gold, 3)).argmax()
    (gradient,) = torch.autograd.grad(hinge(p, gold, hamming, reduction="sum"), node)
    one_hot = torch.nn.functional.one_hot
    equal(gradient, (one_hot(worst, 3) - one_hot(gold, 3)).double())


def test_latent_hinge_completes_gold_by_its_best_labels() -> None:
    p = grid()
    gold = gold_of(p)
    gold[:, 2] = gold[:3, 4] = IGNORE
    y, scores = everything(p)
    agrees = ((gold == IGNORE) | (gold == y)).all(-1)
    completed = scores.masked_fill(~agrees, -torch.inf).amax(0)
    one = torch.ones((), dtype=torch.float64)
    equal(hinge(p, gold, hamming, reduction="none"), maximum(p, gold, hamming, one) - completed)


def test_hinge_of_one_node() -> None:
    p = lnz.Softmax(torch.tensor([[2.0, 0.0, 1.5], [0.0, 3.0, 1.0]]))
    equal(hinge(p, torch.tensor([0, 1]), hamming, reduction="none"), torch.tensor([0.5, 0.0]))


def test_hinge_under_belief_propagation_on_a_tree_is_exact() -> None:
    graph = lnz.FactorGraph.pairwise(4, 3, torch.tensor([[0, 1], [1, 2], [1, 3]]))
    scores = (random_scores((3, 4, 3), 0), random_scores((3, 3, 3, 3), 1))
    gold = torch.tensor([0, 1, 2, 1])
    exact, approximate = (lnz.MRF(graph, scores, m) for m in (None, BeliefPropagation()))
    equal(hinge(approximate, gold, hamming, reduction="none"), hinge(exact, gold, hamming, reduction="none"))


def test_wrong_arguments_of_hinge() -> None:
    node = torch.zeros(2, 3, 2)
    node[1, 0, 1] = -torch.inf
    p = lnz.LinearChain(node, torch.zeros(2, 2))
    with pytest.raises(lnz.InfeasibleError, match=r"probability 0 in batch entries \[1\]"):
        hinge(p, torch.ones(2, 3, dtype=torch.int64), hamming)
    with pytest.raises(ValueError, match="reduction: expected"):
        hinge(p, torch.zeros(2, 3, dtype=torch.int64), hamming, reduction="average")
    with pytest.raises(ValueError, match=r"costs: expected a cost matrix of shape \[2, 2\]"):
        hinge(p, torch.zeros(2, 3, dtype=torch.int64), COSTS)


def test_the_margin_is_0_for_gold_and_never_negative() -> None:
    p, gold = grid(), gold_of(grid())
    with pytest.raises(ValueError, match="error: as a margin, expected 0 for gold itself, got 6"):
        hinge(p, gold, cost_matrix(torch.ones(3, 3)))
    with pytest.raises(ValueError, match="error: as a margin, expected no negative values, got -"):
        hinge(p, gold, lambda gold, predicted: -hamming(gold, predicted))


def test_padding_of_every_chain_is_not_judged() -> None:
    node, edge, lengths = random_scores((2, 4, 3), 0), random_scores((3, 3), 1), torch.tensor([4, 2])
    hmm = lnz.HMM(edge[0].log_softmax(-1), edge.log_softmax(-1), node, lengths)
    second = lnz.SecondOrderChain(node, edge, random_scores((3, 3, 3), 2), lengths)
    gold = torch.tensor([[0, 1, 2, 0], [1, 0, 2, 2]])
    padded = torch.where(torch.arange(4) < lengths[:, None], gold, IGNORE)
    for p in (hmm, second):
        for error in (hamming, iou(3)):
            equal(hinge(p, gold, error, reduction="none"), hinge(p, padded, error, reduction="none"))
