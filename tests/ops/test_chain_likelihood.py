"""ln P(y) of full labellings and its gradients in one pass: against the reference, and what autograd does with it."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import forward_ad

import lnz
from lnz import ops
from lnz.ops import chain
from lnz.ops.chain import Chains, fused_nll
from lnz.ops.jit import work
from tests.suite import equal, random_scores


def wanted(
    node: torch.Tensor, edge: torch.Tensor, lengths: torch.Tensor, y: torch.Tensor, weight: torch.Tensor
) -> list[torch.Tensor]:
    """ln P(y) and the gradients by the scores, by the reference in float64."""
    scores = [x.detach().double().requires_grad_() for x in (node, edge)]
    with ops.backend("reference"):
        log_prob = chain.log_probability(Chains(scores[0], scores[1][None, None], lengths), y)[0]
        return [log_prob.detach(), *torch.autograd.grad((log_prob * weight.double()).sum(), scores)]


def served(
    node: torch.Tensor, edge: torch.Tensor, lengths: torch.Tensor, y: torch.Tensor, weight: torch.Tensor, scale: float
) -> list[torch.Tensor]:
    """As :func:`wanted`, of ``scale`` · ln P(y) times what is left of the weight."""
    scores = [x.detach().requires_grad_() for x in (node, edge)]
    scaled = chain.scaled_log_prob(scores[0], scores[1], lengths, y, scale)
    assert scaled is not None
    return [scaled.detach() / scale, *torch.autograd.grad((scaled * (weight / scale)).sum(), scores)]


@pytest.mark.parametrize("size", [1, 3, 16, 40, 70])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("threads", [1, 2])
def test_equals_the_reference(size: int, dtype: torch.dtype, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels that fill registers or not, sequences that fill eight rows or not; any weights."""
    monkeypatch.setattr(work, "SHARED", 1)
    before = torch.get_num_threads()
    for B, T in ((4, 1), (8, 9), (21, 150)):
        generator = torch.Generator().manual_seed(B)
        node, edge = random_scores((B, T, size), 0).to(dtype), random_scores((size, size), 1).to(dtype)
        lengths = torch.randint(T + 1, (B,), generator=generator)
        padding = torch.arange(T) >= lengths[:, None]
        y = torch.randint(size, (B, T), generator=generator).masked_fill(padding, 10**9)
        node = node.masked_fill(padding[..., None], torch.nan)
        rtol, atol = (1e-5, 1e-5) if dtype == torch.float32 else (1e-12, 1e-9)
        clean, many = node.nan_to_num(nan=0.0), 100 * atol  # in the sum over all pairs of labels
        for weight, scales in (
            (torch.full((B,), -0.5, dtype=dtype), (-0.5, 1.0)),
            (torch.linspace(-1, 2, B, dtype=dtype), (1.0,)),
        ):
            right = wanted(clean, edge, lengths, y, weight)  # on one thread: torch's would only wait for each other
            for scale in scales:
                torch.set_num_threads(threads)
                try:
                    actual = served(node, edge, lengths, y, weight, scale)
                finally:
                    torch.set_num_threads(before)
                for a, w, small in zip(actual, right, (atol, atol, many), strict=True):
                    assert a.dtype == dtype
                    equal(a.double(), w, rtol=rtol, atol=small)


@pytest.mark.parametrize("scale", [1.0, 8.0, 30.0, 100.0, 1e4])
@pytest.mark.parametrize("banded", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_any_range_of_scores_is_right(scale: float, banded: bool, dtype: torch.dtype) -> None:
    node, edge = (scale * random_scores((9, 40, 12), 0)).to(dtype), (scale * random_scores((12, 12), 1)).to(dtype)
    y = torch.randint(12, (9, 40), generator=torch.Generator().manual_seed(0))
    if banded:
        edge = edge.masked_fill((torch.arange(12) - torch.arange(12)[:, None]).abs() > 1, -torch.inf)
        y = (torch.arange(40) % 2).expand(9, 40) + torch.arange(9)[:, None]
    lengths = torch.tensor([40, 7, 1, 0, 40, 39, 20, 0, 12])
    weight = torch.linspace(-1, 2, 9, dtype=dtype)
    for factor in (1.0, -1.0):
        actual = served(node, edge, lengths, y, weight, factor)
        for a, w in zip(actual, wanted(node, edge, lengths, y, weight), strict=True):
            equal(a.double(), w, **({"rtol": 1e-5, "atol": 3e-5} if dtype == torch.float32 else {"atol": 1e-9}))


def test_gradients_by_banded_tables_of_a_wide_range_are_numbers() -> None:
    """Chains that neither float32 nor float64 serves leave nothing behind in the sums over all chains."""
    for seed in range(4):
        node, edge = (100 * random_scores((16, 40, 100), seed)).float(), (100 * random_scores((100, 100), seed)).float()
        edge = edge.masked_fill((torch.arange(100) - torch.arange(100)[:, None]).abs() > 2, -torch.inf)
        edge.requires_grad_()
        log_z = lnz.LinearChain(node, edge, torch.arange(16) * 2).log_partition
        assert torch.autograd.grad(log_z.sum(), edge)[0].isfinite().all()


def test_impossible_labellings_and_models() -> None:
    node, edge = torch.randn(5, 4, 3), torch.randn(3, 3)
    node[1, 2, 0] = -torch.inf
    node[2, 1] = -torch.inf
    node.requires_grad_()
    log_prob = lnz.LinearChain(node, edge).log_prob(torch.zeros(5, 4, dtype=torch.int64))
    assert torch.isneginf(log_prob).tolist() == [False, True, True, False, False]
    gradient = torch.autograd.grad(log_prob[[0, 3, 4]].sum(), node)[0]
    assert gradient.isfinite().all()
    assert (gradient[[1, 2]] == 0).all()


def test_both_derivatives() -> None:
    node, edge = random_scores((4, 3, 2), 0).requires_grad_(), random_scores((2, 2), 1).requires_grad_()
    lengths, y = torch.tensor([3, 2, 0, 1]), torch.tensor([[0, 1, 1], [1, 0, 0], [0, 0, 0], [1, 1, 1]])

    def loss(node: torch.Tensor, edge: torch.Tensor) -> torch.Tensor:
        log_prob = chain.scaled_log_prob(node, edge, lengths, y)
        assert log_prob is not None
        return log_prob

    assert torch.autograd.gradcheck(loss, (node, edge))
    assert torch.autograd.gradgradcheck(loss, (node, edge))


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_what_is_handed_over_is_not_kept_and_what_is_kept_is_not_handed_over(reduction: str) -> None:
    """Backward gives what forward made, without a copy; a graph that is kept serves again, whatever became of that."""
    node, edge = torch.randn(6, 50, 9).requires_grad_(), torch.randn(9, 9).requires_grad_()
    y = torch.randint(9, (6, 50))
    loss = lnz.objectives.nll(lnz.LinearChain(node, edge), y, reduction=reduction)  # type: ignore[arg-type]
    made = loss.grad_fn
    while made is not None and not hasattr(made, "saved_tensors"):
        made = made.next_functions[0][0]
    assert made is not None
    kept = made.saved_tensors[5].data_ptr()
    loss.backward(retain_graph=True)
    assert node.grad is not None
    assert edge.grad is not None
    assert node.grad.data_ptr() != kept
    first = node.grad.clone(), edge.grad.clone()
    node.grad.zero_()
    edge.grad.zero_()
    loss.backward(retain_graph=True)
    equal(node.grad, first[0])
    equal(edge.grad, first[1])
    node.grad = edge.grad = None
    loss.backward()
    assert node.grad.data_ptr() == kept  # pyright: ignore[reportOptionalMemberAccess]


def test_latent_and_wrong_labels_are_left_to_others() -> None:
    node, edge = random_scores((5, 4, 3), 0), random_scores((3, 3), 1)
    p = lnz.LinearChain(node, edge)
    y = torch.zeros(5, 4, dtype=torch.int64)
    y[4, 3] = -100
    assert chain.scaled_log_prob(node, edge, None, y) is None
    equal(p.log_prob(y), p.condition(y).log_partition - p.log_partition)
    y[4, 3] = 3
    with pytest.raises(ValueError, match=r"y: expected labels in \[0, 3\), or -100 for unobserved, got 3 at \[4, 3\]"):
        lnz.LinearChain(node, edge).log_prob(y)


def test_only_what_is_asked_for_is_made() -> None:
    node, edge = random_scores((5, 4, 3), 0), random_scores((3, 3), 1)
    y = torch.zeros(5, 4, dtype=torch.int64)
    assert not lnz.LinearChain(node, edge).log_prob(y).requires_grad
    gradient = torch.autograd.grad(lnz.LinearChain(node, edge.requires_grad_()).log_prob(y).sum(), edge)[0]
    both = torch.autograd.grad(lnz.LinearChain(node.requires_grad_(), edge).log_prob(y).sum(), (node, edge))
    equal(gradient, both[1])
    with torch.no_grad():
        p = lnz.LinearChain(node, edge)
        equal(p.log_prob(y), p.log_prob(y))  # the second by ln Z
        equal(p.log_prob(y), (p._wide_score(y) - p._wide_log_partition).to(node.dtype))


def test_a_tangent_is_not_lost_in_silence() -> None:
    """What the kernels of training would lose goes another way: tangents are gradients times directions."""
    node, edge = random_scores((5, 4, 3), 0), random_scores((3, 3), 1)
    y, along = torch.zeros(5, 4, dtype=torch.int64), random_scores((5, 4, 3), 2)
    leaf = node.clone().requires_grad_()
    p = lnz.LinearChain(leaf, edge)
    wanted = [torch.autograd.grad(answer.sum(), leaf)[0] for answer in (p.log_prob(y), p.log_partition)]
    with forward_ad.dual_level():
        for first in (0, 1):
            p = lnz.LinearChain(forward_ad.make_dual(node, along), edge)
            answers = [lambda p=p: p.log_prob(y), lambda p=p: p.log_partition]
            for i in (first, 1 - first):
                tangent = forward_ad.unpack_dual(answers[i]()).tangent
                equal(tangent, (wanted[i] * along).sum((1, 2)))


def test_long_chains_in_float32() -> None:
    generator = torch.Generator().manual_seed(0)
    node, edge = torch.randn(4, 20_000, 5, generator=generator), torch.randn(5, 5, generator=generator)
    y, lengths = torch.randint(5, (4, 20_000), generator=generator), torch.tensor([20_000, 19_999, 1, 12_345])
    weight = torch.ones(4)
    single = served(node, edge, lengths, y, weight, 1.0)
    double = served(node.double(), edge.double(), lengths, y, weight.double(), 1.0)
    equal(single[0].double(), double[0], rtol=1e-6)
    assert (single[1] - double[1]).abs().max() < 2e-5
    equal(single[2].double(), double[2], rtol=1e-4, atol=1e-2)
    assert fused_nll.FEWEST <= 4


@pytest.mark.parametrize("scale", [1.0, 30.0, 1e4])
@pytest.mark.parametrize("banded", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ends_are_as_good_as_among_the_node_scores(scale: float, banded: bool, dtype: torch.dtype) -> None:
    """ln P(y), its gradients, those of these and a best labelling: of lengths 0 and 1 too, on every rung."""
    B, T, L = 11, 7, 19
    node, edge = scale * random_scores((B, T, L), 0).to(dtype), scale * random_scores((L, L), 1).to(dtype)
    ends = scale * random_scores((2, L), 2).to(dtype)
    ends[0, 3] = ends[1, 5] = -torch.inf
    if banded:
        edge = edge.masked_fill((torch.arange(L)[:, None] - torch.arange(L)).abs() > 9, -torch.inf)
    lengths = torch.arange(B) % (T + 1)
    y = torch.full((B, T), 4) + torch.arange(B)[:, None]
    answers = []
    for kept in (True, False):
        leaves = [x.clone().requires_grad_() for x in (node, edge, ends)]
        given = lnz.LinearChain(leaves[0], leaves[1], lengths)
        p = given.with_boundary_scores(*leaves[2])
        if not kept:
            p = lnz.LinearChain(p.node_scores, leaves[1], lengths)
        log_prob = p.log_prob(y)
        weight = torch.linspace(-1, 2, B, dtype=dtype)
        first = torch.autograd.grad((log_prob * weight).sum(), leaves, create_graph=True)
        second = torch.autograd.grad(sum((x * x.detach().sign()).sum() for x in first), leaves)
        best, score = p.topk(1)
        answers.append([log_prob, *first, *second, best, score, p.node_scores, p.argmax()])
    for actual, right in zip(*answers, strict=True):
        rtol = 1e-5 if dtype == torch.float32 else 1e-11
        equal(actual, right, rtol=rtol, atol=rtol * scale * 10)
