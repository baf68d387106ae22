"""Pseudolikelihood: its terms against enumeration, its optimum against the model that made the data, latent labels."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

import lnz
from lnz.inference import BeliefPropagation, Enumeration
from lnz.objectives import nll, pseudolikelihood
from tests.distributions.test_mrf import mrfs
from tests.suite import equal, random_scores, seeds

IGNORE = -100


def random_labelling(p: lnz.MRF, seed: int, latent: float = 0.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (*p.batch_shape, p.graph.num_nodes)
    y = (torch.rand(shape, generator=generator) * torch.tensor(p.graph.cardinalities)).long()
    return y.masked_fill(torch.rand(shape, generator=generator) < latent, IGNORE)


def by_enumeration(p: lnz.MRF, y: Tensor) -> tuple[Tensor, Tensor]:
    """−Σ_n ln P(y_n | the other observed labels), each term as a difference of two clamped ln Z; and if all exist."""
    total, exist = torch.zeros(p.batch_shape, dtype=torch.float64), torch.tensor(True)
    for node in range(p.graph.num_nodes):
        rest = y.clone()
        rest[..., node] = IGNORE
        both, without = p.condition(y).log_partition, p.condition(rest).log_partition
        exist = exist & torch.isfinite(both).all()
        total = total - (both - without).masked_fill(y[..., node] == IGNORE, 0.0)
    return total, exist


@given(st.data())
def test_it_is_the_sum_of_conditionals_on_any_graph(data: st.DataObject) -> None:
    instance = data.draw(mrfs(Enumeration(), forest=False))
    leaves, p = instance.with_gradient()
    latent = data.draw(st.sampled_from([0.0, 0.3]))
    y = random_labelling(p, data.draw(seeds), latent)
    for scope in p.graph.scopes:
        assume(not ((y[..., scope] == IGNORE).sum(-1) > 1).any())
    wanted, exist = by_enumeration(p, y)
    if not exist:
        with pytest.raises(lnz.InfeasibleError, match="probability 0 in batch entries"):
            pseudolikelihood(p, y)
        return
    actual = pseudolikelihood(p, y, reduction="none")
    equal(actual, wanted)
    kept = sum(leaf.nan_to_num(0.0, 0.0, 0.0).sum() * 0.0 for leaf in leaves)  # a gradient of 0 where there is none
    gradients = [torch.autograd.grad(value.sum() + kept, leaves, retain_graph=True) for value in (actual, wanted)]
    for a, w in zip(*gradients, strict=True):
        assert torch.isfinite(a).all()
        equal(a, w)


@pytest.mark.parametrize("lengths", [None, torch.tensor([4, 2, 1])])
@pytest.mark.parametrize("shared", [True, False])
def test_a_chain_by_its_own_recursion_and_as_an_mrf(lengths: Tensor | None, shared: bool) -> None:
    leaves = random_scores((3, 4, 3), 0), random_scores((3, 3) if shared else (3, 3, 3, 3), 1, impossible=0.1)
    leaves = tuple(leaf.requires_grad_() for leaf in leaves)
    p = lnz.LinearChain(*leaves, lengths)
    y = p.sample(generator=torch.Generator().manual_seed(0))
    losses = pseudolikelihood(p, y, reduction="none")
    wanted, exist = by_enumeration(p.to_mrf(), torch.where(y == IGNORE, 0, y))
    assert exist
    equal(losses, wanted)
    for a, w in zip(*(torch.autograd.grad(v.sum(), leaves) for v in (losses, wanted)), strict=True):
        equal(a, w)
    hidden = y.clone()
    hidden[:, 0] = IGNORE
    wanted, _ = by_enumeration(p.to_mrf(), torch.where((y == IGNORE), 0, hidden))
    equal(pseudolikelihood(p, hidden, reduction="none"), wanted)


def test_of_one_node_is_the_likelihood() -> None:
    p = lnz.Softmax(random_scores((3, 4), 0))
    y = torch.tensor([1, 3, 0])
    equal(pseudolikelihood(p, y, reduction="none"), nll(p, y, reduction="none"))


def test_second_derivatives() -> None:
    graph = lnz.FactorGraph.grid(2, 2, 2)
    y = torch.tensor([[0, 1, 1, 0], [1, IGNORE, 1, 1]])

    def loss(*scores: Tensor) -> Tensor:
        return pseudolikelihood(lnz.MRF(graph, scores), y, reduction="sum")

    leaves = (random_scores((4, 2), 0).requires_grad_(), random_scores((2, 2), 1).requires_grad_())
    assert torch.autograd.gradcheck(loss, leaves)
    assert torch.autograd.gradgradcheck(loss, leaves)


def test_vmap_and_latent_labels_that_it_cannot_see() -> None:
    graph = lnz.FactorGraph.grid(2, 2, 2)
    node, edge = random_scores((3, 4, 2), 0), random_scores((2, 2), 1)
    y = torch.tensor([[0, 1, 1, 0], [1, 0, 1, 1], [1, IGNORE, 0, 0]])
    found = torch.func.vmap(lambda n, labels: pseudolikelihood(lnz.MRF(graph, (n, edge)), labels))(node, y)
    equal(found[:2], pseudolikelihood(lnz.MRF(graph, (node[:2], edge)), y[:2], reduction="none"))
    assert found[2].isnan()  # rather than a number that is wrong


def population(p: lnz.MRF) -> tuple[Tensor, Tensor]:
    """Every labelling ``[K, N]`` and its probability ``[K]``."""
    y = torch.tensor(list(itertools.product(*map(range, p.graph.cardinalities))))
    return y, p.log_prob(y).exp()


def fitted(graph: lnz.FactorGraph, y: Tensor, weight: Tensor, start: list[Tensor]) -> list[Tensor]:
    leaves = [scores.clone().requires_grad_() for scores in start]
    optimiser = torch.optim.LBFGS(
        leaves, max_iter=400, tolerance_grad=1e-12, tolerance_change=1e-16, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = (weight * pseudolikelihood(lnz.MRF(graph, leaves), y, reduction="none")).sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    return [leaf.detach() for leaf in leaves]


def test_theorem_the_optimum_is_the_model_that_made_the_data() -> None:
    graph = lnz.FactorGraph.grid(2, 3, 2)
    truth = lnz.MRF(graph, [0.5 * random_scores((6, 2), 0), 0.5 * random_scores((7, 2, 2), 1)], Enumeration())
    y, weight = population(truth)
    leaves = fitted(graph, y, weight, [random_scores((6, 2), 2), random_scores((7, 2, 2), 3)])
    found = lnz.MRF(graph, leaves, Enumeration())
    equal(found.log_conditionals(y), truth.log_conditionals(y), atol=1e-5, rtol=0)
    equal(found.log_prob(y), truth.log_prob(y), atol=1e-4, rtol=0)
    # and with other data it is another model, whose conditionals differ
    other = fitted(graph, y, weight.flip(0), leaves)
    assert (lnz.MRF(graph, other).log_conditionals(y) - truth.log_conditionals(y)).abs().max() > 0.1


def test_theorem_with_hidden_units_summed_out_the_truth_is_stationary() -> None:
    edges = torch.tensor([[v, 4 + h] for v in range(4) for h in range(2)])  # 4 visible units, 2 hidden
    graph = lnz.FactorGraph.pairwise(6, 2, edges)
    scores = [random_scores((6, 2), 0), random_scores((8, 2, 2), 1)]
    truth = lnz.MRF(graph, scores, Enumeration())
    y = torch.tensor(list(itertools.product(range(2), repeat=4)))
    y = torch.cat((y, torch.full((16, 2), IGNORE)), -1)
    weight = truth.log_prob(y).exp()
    equal(weight.sum(), torch.ones((), dtype=torch.float64))

    def gradient(scores: list[Tensor]) -> Tensor:
        leaves = [s.clone().requires_grad_() for s in scores]
        loss = (weight * pseudolikelihood(lnz.MRF(graph, leaves), y, reduction="none")).sum()
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, leaves)])

    equal(gradient(scores), torch.zeros(44, dtype=torch.float64))
    assert gradient([scores[0], 1.2 * scores[1]]).abs().max() > 1e-2


def test_no_partition_function_is_involved() -> None:
    graph = lnz.FactorGraph.grid(40, 40, 3)  # far beyond exact inference
    p = lnz.MRF(graph, (random_scores((1600, 3), 0), random_scores((3, 3), 1)))
    assert torch.isfinite(pseudolikelihood(p, torch.zeros(2, 1600, dtype=torch.int64)))


def test_latent_nodes_that_share_a_factor_are_refused() -> None:
    p = lnz.MRF(lnz.FactorGraph.grid(2, 2, 2), (torch.zeros(4, 2), torch.zeros(2, 2)), BeliefPropagation())
    y = torch.tensor([[0, 1, 1, 0], [IGNORE, IGNORE, 1, 1]])
    with pytest.raises(ValueError, match=r"no two latent .* nodes \[0, 1\] of factor 0 of group 1.* use nll or contr"):
        pseudolikelihood(p, y)
    diagonal = torch.tensor([[0, IGNORE, IGNORE, 0], [IGNORE, 0, 1, 1]])  # apart, differently in each entry
    assert torch.isfinite(pseudolikelihood(p, diagonal))


def test_clamped_labels_cost_nothing_unless_contradicted() -> None:
    p = lnz.MRF(lnz.FactorGraph.grid(2, 2, 2), (random_scores((4, 2), 0), random_scores((2, 2), 1)))
    y = torch.tensor([0, 1, 1, 0])
    clamped = p.condition(torch.tensor([0, IGNORE, IGNORE, IGNORE]))
    equal(pseudolikelihood(clamped, y), -p.log_conditionals(y)[1:].sum())
    equal(pseudolikelihood(clamped, torch.tensor([IGNORE, 1, 1, 0])), -p.log_conditionals(y)[1:].sum())
    with pytest.raises(lnz.InfeasibleError):
        pseudolikelihood(clamped, torch.tensor([1, 1, 1, 0]))


def test_wrong_arguments() -> None:
    p = lnz.MRF(lnz.FactorGraph.grid(2, 2, 2), (torch.zeros(4, 2), torch.zeros(2, 2)))
    with pytest.raises(ValueError, match="reduction: expected 'none', 'mean' or 'sum', got 'all'"):
        pseudolikelihood(p, torch.zeros(4, dtype=torch.int64), reduction="all")
    with pytest.raises(ValueError, match=r"y: expected shape \[\*batch, 4\], got \[3\]"):
        pseudolikelihood(p, torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"y: expected labels in \[0, 2\)"):
        pseudolikelihood(p, torch.full((4,), 2))
