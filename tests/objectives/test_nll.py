"""Negative log-likelihood: reductions, latent labels, impossible labels."""

from __future__ import annotations

import pytest
import torch

import lnz
from lnz.inference import BeliefPropagation, Enumeration, Exact
from lnz.inference.base import Method
from lnz.inference.exact.plans import plans_of
from lnz.inference.sampling.gibbs import Gibbs
from lnz.objectives import nll
from tests.suite import equal, random_scores


def chain() -> lnz.LinearChain:
    return lnz.LinearChain(random_scores((4, 3, 2), 0), random_scores((2, 2), 1))


def test_reductions() -> None:
    p, y = chain(), torch.tensor([0, 1, 1]).expand(4, 3)
    each = nll(p, y, reduction="none")
    equal(each, p.log_partition - p.score(y))
    equal(nll(p, y), each.mean())
    equal(nll(p, y, reduction="sum"), each.sum())
    with pytest.raises(ValueError, match="reduction: expected 'none', 'mean', 'sum' or 'per_node', got 'average'"):
        nll(p, y, reduction="average")


def test_latent_labels_are_summed_over() -> None:
    p = chain()
    hidden = torch.tensor([0, -100, 1]).expand(4, 3)
    both = [p.log_prob(torch.tensor([0, label, 1]).expand(4, 3)) for label in (0, 1)]
    equal(nll(p, hidden, reduction="none"), -torch.stack(both).logsumexp(0))


def test_gradient_with_latent_labels_is_free_minus_clamped_marginals() -> None:
    node = random_scores((4, 3, 2), 0).requires_grad_()
    edge = random_scores((2, 2), 1)
    hidden = torch.tensor([0, -100, 1]).expand(4, 3)
    p = lnz.LinearChain(node, edge)
    (gradient,) = torch.autograd.grad(nll(p, hidden, reduction="sum"), node, retain_graph=True)
    equal(gradient, p.node_marginals - p.condition(hidden).node_marginals)


def test_impossible_gold_is_an_error_or_left_out() -> None:
    node = random_scores((4, 3, 2), 0)
    node[1, 0, 1] = node[3, 0, 1] = -torch.inf
    node.requires_grad_()
    p = lnz.LinearChain(node, random_scores((2, 2), 1))
    y = torch.ones(4, 3, dtype=torch.int64)
    with pytest.raises(
        lnz.InfeasibleError, match=r"probability 0 in batch entries \[1, 3\]; zero_infinity=True"
    ) as error:
        nll(p, y)
    assert error.value.entries == (1, 3)
    losses = nll(p, y, reduction="none", zero_infinity=True)
    assert (losses == 0).tolist() == [False, True, False, True]
    (gradient,) = torch.autograd.grad(losses.sum(), node)
    assert torch.isfinite(gradient).all()
    assert (gradient[[1, 3]] == 0).all()


LOOP = lnz.FactorGraph.grid(2, 3, 2)
TREE = lnz.FactorGraph.pairwise(6, 2, torch.tensor([[0, 1], [2, 1], [1, 3], [3, 4], [5, 3]]))
HIDDEN = torch.tensor([[0, -100, 1, -100, -100, 1], [-100, 1, -100, 0, 1, 1], [1, 1, 0, 0, 1, 0], [-100] * 6])


@pytest.mark.parametrize(
    ("graph", "method"),
    [(LOOP, Enumeration()), (LOOP, Exact()), (TREE, Exact()), (TREE, BeliefPropagation())],
    ids=["enumeration", "exact", "exact-tree", "bp-tree"],
)
def test_theorem_the_latent_gradient_is_free_minus_clamped_marginals(graph: lnz.FactorGraph, method: Method) -> None:
    leaves = [random_scores((4, 6, 2), 0).requires_grad_(), random_scores((4, len(graph.scopes[1]), 2, 2), 1)]
    leaves[1].requires_grad_()
    p = lnz.MRF(graph, leaves, method)
    oracle = lnz.MRF(graph, leaves, Enumeration())
    losses = nll(p, HIDDEN, reduction="none")
    equal(losses, oracle.log_partition - oracle.condition(HIDDEN).log_partition)
    equal(losses[3], torch.zeros((), dtype=torch.float64))
    gradients = torch.autograd.grad(losses.sum(), leaves)
    free, clamped = oracle.marginals, oracle.condition(HIDDEN).marginals
    for gradient, f, c in zip(gradients, free, clamped, strict=True):
        equal(gradient, f - c)


def test_the_free_and_the_clamped_run_share_a_plan() -> None:
    graph = lnz.FactorGraph.grid(3, 3, 2)
    p = lnz.MRF(graph, (random_scores((9, 2), 0), random_scores((2, 2), 1)))
    y = torch.randint(2, (4, 9), generator=torch.Generator().manual_seed(0))
    y[torch.arange(4), torch.arange(4)] = -100
    y[0, 4:] = -100  # every node is latent somewhere: nothing can be cut out for the whole batch
    for _ in range(3):
        nll(p, y)
    method = Exact()
    limits = method.max_table, method.max_messages, method.search_seconds
    assert list(plans_of(graph)) == [(frozenset(), limits)]
    nll(p, y[1:])  # nodes 4 … 8 are observed in every entry now: they are cut out, in one more plan, also kept
    nll(p, y[1:].roll(1, 0))
    assert [cut for cut, _ in plans_of(graph)] == [frozenset(), frozenset({0, 4, 5, 6, 7, 8})]


def test_theorem_under_a_sampler_the_gradient_is_right_in_expectation() -> None:
    leaves = [(random_scores((6, 2), 0) / 2).requires_grad_(), (random_scores((7, 2, 2), 1) / 2).requires_grad_()]
    chains = 4000
    for y in (torch.tensor([0, 1, 1, 0, 0, 1]), torch.tensor([0, -100, 1, -100, -100, 1])):
        wanted = torch.autograd.grad(nll(lnz.MRF(LOOP, leaves), y), leaves)
        p = lnz.MRF(LOOP, leaves, Gibbs(chains=chains, warmup=30))
        actual = torch.autograd.grad(nll(p, y, generator=torch.Generator().manual_seed(0)), leaves)
        for a, w in zip(actual, wanted, strict=True):
            assert (a - w).abs().max() < 4.5 * (0.5 / chains) ** 0.5  # two indicators, each of variance at most 1/4
            assert w.abs().max() > 0.1


def test_under_a_sampler_each_entry_has_its_own_latent_labels() -> None:
    node, edge = random_scores((4, 6, 2), 0).requires_grad_(), random_scores((7, 2, 2), 1)
    p = lnz.MRF(LOOP, (node, edge), Gibbs(chains=8, warmup=5))
    generator = torch.Generator().manual_seed(0)
    losses = nll(p, HIDDEN, reduction="none", generator=generator)
    assert losses.shape == (4,)
    (gradient,) = torch.autograd.grad(losses.sum(), node)
    equal(gradient.sum(-1), torch.zeros(4, 6, dtype=torch.float64))
    node = node.detach().clone()
    node[2, 0, 1] = -torch.inf
    impossible = lnz.MRF(LOOP, (node, edge), p.inference)
    with pytest.raises(lnz.InfeasibleError, match=r"probability 0 in batch entries \[2\]"):
        nll(impossible, HIDDEN.clamp(min=0))
    losses = nll(impossible, HIDDEN.clamp(min=0), reduction="none", zero_infinity=True)
    assert losses[2] == 0
    assert torch.isfinite(losses).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("scale", [1.0, 3e3])
def test_sequences_beyond_the_range_of_half_precision_are_not_impossible(dtype: torch.dtype, scale: float) -> None:
    """At 3000 a loss is some hundred thousand nats: more than float16 holds, which is no error."""
    y = torch.tensor([[1, 2, 3], [2, 2, -100]])
    for build, shape in ((lnz.CTC, (2, 60, 5)), (lnz.Transducer, (2, 60, 4, 5))):
        logits = (scale * random_scores(shape, 1)).to(dtype).requires_grad_()
        for reduction in ("none", "mean", "sum"):
            loss, right = nll(build(logits), y, reduction), nll(build(logits.double()), y, reduction)
            assert loss.dtype == dtype
            torch.testing.assert_close(loss, right.to(dtype), rtol=2 * torch.finfo(dtype).eps, atol=0.0)
            assert torch.isfinite(torch.autograd.grad(loss.sum(), logits)[0]).all()
        short = build(logits[:, :2], one_label_per_frame=True) if build is lnz.Transducer else build(logits[:, :2])
        with pytest.raises(lnz.InfeasibleError, match=r"probability 0 in batch entries \[0\]"):
            nll(short, torch.tensor([[1, 2, 3], [-100, -100, -100]]))


def test_under_a_sampler_the_loss_has_the_dtype_of_the_scores() -> None:
    graph, scores = lnz.FactorGraph.pairwise(2, 2, torch.tensor([[0, 1]])), torch.zeros(2, 2, dtype=torch.float16)
    assert nll(lnz.MRF(graph, (scores, scores), Gibbs()), torch.zeros(2, dtype=torch.int64)).dtype == torch.float16


def test_wrong_arguments_are_named() -> None:
    graph, scores = lnz.FactorGraph.grid(2, 2, 2), (torch.zeros(2, 4, 2), torch.zeros(2, 2))
    y = torch.zeros(2, 4, dtype=torch.int64)
    for method in (None, lnz.inference.Gibbs()):
        p = lnz.MRF(graph, scores, method)
        for wrong in (None, [0, 0, 0, 0]):
            with pytest.raises(TypeError, match="y: expected a torch.Tensor, got"):
                nll(p, wrong)
        with pytest.raises(ValueError, match=r"y: expected shape \[\*batch, 4\], got \[2, 3\]"):
            nll(p, y[:, :3])
        with pytest.raises(ValueError, match=r"broadcasts with \[2\], got \[3\]"):
            nll(p, y.new_zeros(3, 4))
        with pytest.raises(TypeError, match="generator: expected a torch.Generator or None, got 3"):
            nll(p, y, generator=3)
    with pytest.raises(TypeError, match="p: expected a distribution of lnz, got Tensor"):
        nll(scores[0], y)
    for p in (lnz.LinearChain(scores[0], scores[1]), lnz.Softmax(scores[0])):
        with pytest.raises(TypeError, match="y: expected a torch.Tensor, got list"):
            p.log_prob([0])


def test_per_node_counts_words_and_spans_of_trees() -> None:
    """Neither the root, nor the labels of arcs once more, nor what lies below the diagonal or beyond the length."""
    lengths = torch.tensor([3, 2])
    for labelled in (False, True):
        p = lnz.DependencyTree(torch.zeros(2, 4, 4, *[2] * labelled), lengths, labelled=labelled)
        y = p.argmax()
        torch.testing.assert_close(nll(p, y, "per_node"), nll(p, y, "sum") / 5)
        y[0, 1] = -100
        torch.testing.assert_close(nll(p, y, "per_node"), nll(p, y, "sum") / 4)
    p = lnz.ConstituencyTree(torch.zeros(2, 3, 3, 2), lengths)
    y = p.argmax()
    torch.testing.assert_close(nll(p, y, "per_node"), nll(p, y, "sum") / (6 + 3))
    y[0, 0, 1] = -100
    torch.testing.assert_close(nll(p, y, "per_node"), nll(p, y, "sum") / (5 + 3))
