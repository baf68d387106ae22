"""Label adjustment: its gradient against that of the expected error, in closed form and by quadrature."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import lnz
from lnz.metrics import cost_matrix, edit_distance, hamming, iou
from lnz.objectives import EpsilonSchedule, hinge, label_adjustment, pseudolikelihood
from tests.suite import equal, random_scores

IGNORE = -100
directions = pytest.mark.parametrize("toward_better", [True, False])


@directions
def test_theorem_the_gradient_over_epsilon_is_that_of_the_expected_error_in_closed_form(toward_better: bool) -> None:
    """x ~ N(0, 1), P(y = 1 | x) = σ(2x − 1), s = (0, w x + b): the prediction flips at t = −b/w.

    With false positives at c and false negatives at d, E[Err] = ∫_t^∞ c P(0|x) φ + ∫_{−∞}^t d P(1|x) φ.
    """
    c, d, w, b = 1.0, 3.0, 1.5, -0.9
    t = -b / w
    eta = 1 / (1 + math.exp(1 - 2 * t))
    slope = (d * eta - c * (1 - eta)) * math.exp(-t * t / 2) / math.sqrt(2 * math.pi)  # dE[Err]/dt
    wanted = torch.tensor([slope * b / w**2, -slope / w], dtype=torch.float64)  # by w and by b

    x = torch.linspace(t - 1, t + 1, 40_001, dtype=torch.float64)  # farther from t no label is adjusted
    density = torch.exp(-x * x / 2) / math.sqrt(2 * math.pi) * (x[1] - x[0])
    probability = torch.sigmoid(2 * x - 1)
    weight = torch.stack((density * (1 - probability), density * probability), -1)
    error = cost_matrix(torch.tensor([[0.0, c], [d, 0.0]], dtype=torch.float64))
    gold = torch.arange(2).expand(len(x), 2)

    def gradient(epsilon: float) -> Tensor:
        phi = torch.tensor([w, b], dtype=torch.float64, requires_grad=True)
        s = phi[0] * x + phi[1]
        p = lnz.Softmax(torch.stack((torch.zeros_like(s), s), -1)[:, None].expand(-1, 2, 2))
        values = label_adjustment(p, gold, error, epsilon, toward_better, reduction="none")
        return torch.autograd.grad((weight * values).sum(), phi)[0] / epsilon

    off = [(gradient(epsilon) - wanted).norm() / wanted.norm() for epsilon in (0.16, 0.04, 0.01)]
    assert off[2] < off[1] / 2 < off[0] / 4  # it converges, about as fast as ε …
    assert off[2] < 0.02  # … to the true gradient


@directions
def test_theorem_for_intersection_over_union_of_a_structured_prediction(toward_better: bool) -> None:
    """A chain of three nodes with scores a + x b, x ~ N(0, 1): E[IoU error] by quadrature."""
    x = torch.linspace(-4, 4, 32_001, dtype=torch.float64)
    density = torch.exp(-x * x / 2) / torch.exp(-x * x / 2).sum()
    node, direction, edge = random_scores((3, 2), 14), random_scores((3, 2), 15), random_scores((2, 2), 16) / 2
    golds = torch.tensor([[0, 1, 1], [1, 1, 0]])
    error = iou(2)

    def model(phi: Tensor) -> lnz.LinearChain:
        return lnz.LinearChain(phi[0] * node + (phi[1] * direction) * x[:, None, None, None], edge)

    gold = golds.expand(len(x), 2, 3)

    def expected(phi: Tensor) -> Tensor:
        return (density * error(gold, model(phi).argmax().expand(gold.shape)).mean(-1)).sum()

    at, h = torch.tensor([1.0, 0.8], dtype=torch.float64), 0.02
    wanted = torch.stack([(expected(at + h * e) - expected(at - h * e)) / (2 * h) for e in torch.eye(2).double()])
    assert wanted.norm() > 0.02  # there is something to learn
    phi = at.clone().requires_grad_()
    epsilon = 0.05
    values = label_adjustment(model(phi), gold, error, epsilon, toward_better, reduction="none").mean(-1)
    actual = torch.autograd.grad((density * values).sum(), phi)[0] / epsilon
    assert (actual - wanted).norm() < 0.05 * wanted.norm()


@directions
def test_value_and_gradient(toward_better: bool) -> None:
    node = random_scores((4, 5, 3), 0).requires_grad_()
    p = lnz.LinearChain(node, random_scores((3, 3), 1))
    gold = p.sample(generator=torch.Generator().manual_seed(0))
    losses = label_adjustment(p, gold, hamming, 2.0, toward_better, reduction="none")
    sign = -1 if toward_better else 1
    adjusted = p.with_node_scores(sign * 2.0 * hamming.node_costs(gold, 3)).argmax()
    best = p.argmax()
    equal(losses, -sign * (p.score(best) - p.score(adjusted)))
    assert ((losses >= 0) if toward_better else (losses <= 0)).all()
    one_hot = torch.nn.functional.one_hot
    (gradient,) = torch.autograd.grad(losses.sum(), node)
    equal(gradient, -sign * (one_hot(best, 3) - one_hot(adjusted, 3)).double())
    change = hamming(gold, adjusted) - hamming(gold, best)
    assert ((change <= 0) if toward_better else (change >= 0)).all()


@pytest.mark.parametrize("error", [hamming, iou(3), edit_distance], ids=["hamming", "iou", "edits"])
def test_descent_lowers_the_error_of_the_prediction(error: object) -> None:
    graph = lnz.FactorGraph.grid(3, 3, 3)
    node, edge = random_scores((4, 9, 3), 0).requires_grad_(), random_scores((3, 3), 1).requires_grad_()
    gold = torch.randint(3, (4, 9), generator=torch.Generator().manual_seed(0))
    assert callable(error)

    def now() -> float:
        return error(gold, lnz.MRF(graph, (node, edge)).argmax()).mean().item()

    before = now()
    optimiser = torch.optim.SGD([node, edge], lr=0.5)
    for _ in range(20):
        optimiser.zero_grad()
        label_adjustment(lnz.MRF(graph, (node, edge)), gold, error, 30.0, reduction="sum").backward()
        optimiser.step()
    assert now() < 0.75 * before


def test_unjudged_labels_and_padding() -> None:
    node, edge = random_scores((2, 4, 3), 0), random_scores((3, 3), 1)
    lengths = torch.tensor([4, 2])
    p = lnz.LinearChain(node, edge, lengths)
    gold = torch.tensor([[0, IGNORE, 2, 1], [1, 0, 2, 2]])
    short = lnz.LinearChain(node[1:, :2], edge)
    for error in (hamming, iou(3)):
        losses = label_adjustment(p, gold, error, 5.0, reduction="none")
        equal(losses[1:], label_adjustment(short, gold[1:, :2], error, 5.0, reduction="none"))
    free = torch.full((2, 4), IGNORE)
    equal(label_adjustment(p, free, hamming, 5.0, reduction="none"), torch.zeros(2, dtype=torch.float64))


def test_epsilon_per_entry_and_by_schedule() -> None:
    p = lnz.LinearChain(random_scores((3, 4, 3), 0), random_scores((3, 3), 1))
    gold = torch.tensor([[0, 1, 2, 0], [1, 1, 1, 1], [2, 0, 0, 2]])
    each = torch.tensor([0.5, 5.0, 50.0])
    losses = label_adjustment(p, gold, hamming, each, reduction="none")
    for i, epsilon in enumerate(each.tolist()):
        equal(losses[i], label_adjustment(p, gold, hamming, epsilon, reduction="none")[i])
    schedule = EpsilonSchedule(8.0, 0.5, calls=4)
    called = [label_adjustment(p, gold, hamming, schedule) for _ in range(6)]
    for loss, epsilon in zip(called, (8.0, 4.0, 2.0, 1.0, 0.5, 0.5), strict=True):
        equal(loss, label_adjustment(p, gold, hamming, epsilon))
    assert schedule.made == 6
    assert EpsilonSchedule(8.0, 0.5, calls=4, made=2)() == pytest.approx(2.0)


def test_wrong_arguments() -> None:
    p = lnz.LinearChain(torch.zeros(2, 3, 2), torch.zeros(2, 2))
    y = torch.zeros(2, 3, dtype=torch.int64)
    for epsilon in (0.0, -1.0, torch.tensor([1.0, 0.0]), math.inf):
        with pytest.raises(ValueError, match="epsilon: expected positive numbers"):
            label_adjustment(p, y, hamming, epsilon)
    with pytest.raises(ValueError, match=r"epsilon: expected a batch shape that broadcasts with \[2\], got \[3\]"):
        label_adjustment(p, y, hamming, torch.ones(3))
    for wrong in ("x", None, [1.0, 1.0]):
        with pytest.raises(TypeError, match="epsilon: expected a number, got"):
            label_adjustment(p, y, hamming, wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="reduction: expected"):
        label_adjustment(p, y, hamming, reduction="max")
    with pytest.raises(ValueError, match="first, last: expected positive numbers, got 1.0, 0.0"):
        EpsilonSchedule(1.0, 0.0, 3)
    with pytest.raises(ValueError, match="calls: expected a positive integer, got 0"):
        EpsilonSchedule(1.0, 0.1, 0)
    graph = lnz.FactorGraph.grid(2, 2, 2)
    sampled = lnz.MRF(graph, (torch.zeros(4, 2), torch.zeros(2, 2)), lnz.inference.sampling.gibbs.Gibbs())
    with pytest.raises(TypeError, match="Gibbs has no argmax"):
        label_adjustment(sampled, torch.zeros(4, dtype=torch.int64), hamming)


GRID = lnz.MRF(lnz.FactorGraph.grid(2, 2, 3), (random_scores((2, 4, 3), 0), random_scores((4, 3, 3), 1)))


@pytest.mark.parametrize(
    ("y", "kind", "message"),
    [
        (torch.full((2, 4), 9), ValueError, r"y: expected labels in \[0, 3\), or -100 for unobserved, got 9"),
        (torch.full((2, 4), -7), ValueError, r"y: expected labels in \[0, 3\)"),
        (torch.zeros(2, 4), TypeError, "y: expected a torch.Tensor of integers"),
        (torch.zeros(2, 3, dtype=torch.int64), ValueError, r"y: expected shape \[\*batch, 4\], got \[2, 3\]"),
        (torch.zeros(3, 4, dtype=torch.int64), ValueError, "y: expected a batch shape that broadcasts"),
        (None, TypeError, "y: expected a torch.Tensor, got NoneType"),
        ([0, 0, 0, 0], TypeError, "y: expected a torch.Tensor, got list"),
    ],
)
@pytest.mark.parametrize("p", [GRID, lnz.LinearChain(random_scores((2, 4, 3), 0), random_scores((3, 3), 1))])
def test_wrong_gold_is_refused_though_only_the_error_looks_at_it(p, y, kind, message) -> None:
    with pytest.raises(kind, match=message):
        label_adjustment(p, y, hamming)
    with pytest.raises(kind, match=message):
        hinge(p, y, hamming)


def test_impossible_gold_is_named_and_what_is_not_judged_may_be_anything() -> None:
    node, edge = random_scores((3, 4, 3), 0), random_scores((4, 3, 3), 1)
    node[1, 0, 0] = -math.inf
    node[1, 1] = torch.tensor([0.0, 5.0, 0.0])  # the prediction, with which the first label is impossible
    edge[0, 2, 1] = -math.inf
    p = lnz.MRF(lnz.FactorGraph.grid(2, 2, 3), (node, edge))
    with pytest.raises(lnz.InfeasibleError, match=r"y: .* probability 0 in batch entries \[1\]") as caught:
        label_adjustment(p, torch.zeros(3, 4, dtype=torch.int64), hamming)
    assert caught.value.entries == (1,)
    latent = torch.tensor([[0, 0, 0, 0], [0, IGNORE, 0, 0], [0, 0, 0, 0]])
    for objective in (label_adjustment, hinge):
        with pytest.raises(lnz.InfeasibleError, match=r"y: .* probability 0 in batch entries \[1\]"):
            objective(p, latent, hamming)
    latent[1] = torch.tensor([2, IGNORE, 0, 0])
    assert label_adjustment(p, latent, hamming).isfinite()


def broken(value: object) -> object:
    return lambda gold, predicted: value


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (broken(torch.tensor([0.0, math.nan])), ValueError, r"error: expected finite values, got nan at \[1\]"),
        (broken(torch.zeros(())), ValueError, r"error: expected values of shape \[2\], got \[\]"),
        (broken(1.0), TypeError, "error: expected a torch.Tensor, got float"),
        (None, TypeError, "error: expected a task error of lnz.metrics, or a function .* got None"),
        ("iou", TypeError, "error: expected a task error .* got 'iou'"),
        (iou, TypeError, r"got iou\(num_labels\): call it first, to make one"),
        (lambda: 0.0, TypeError, "error: expected a task error"),
    ],
)
@pytest.mark.parametrize("objective", [label_adjustment, hinge])
def test_wrong_errors_are_refused_by_name(objective, error, kind, message) -> None:
    with pytest.raises(kind, match=message):
        objective(GRID, torch.zeros(2, 4, dtype=torch.int64), error)


@pytest.mark.parametrize("objective", [label_adjustment, hinge, pseudolikelihood])
@pytest.mark.parametrize("p", [torch.zeros(2, 4, 3), lnz.CTC(torch.zeros(2, 4, 3)), None])
def test_what_is_no_distribution_over_labels_is_refused_by_name(objective, p) -> None:
    error = () if objective is pseudolikelihood else (hamming,)
    with pytest.raises(TypeError, match=f"p: expected MRF, .* got {type(p).__name__}"):
        objective(p, torch.zeros(2, 4, dtype=torch.int64), *error)
