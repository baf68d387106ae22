"""Negative log-likelihood: reductions, latent labels, impossible labels."""

from __future__ import annotations

import pytest
import torch

import lnz
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
    with pytest.raises(ValueError, match="reduction: expected 'none', 'mean' or 'sum', got 'average'"):
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
