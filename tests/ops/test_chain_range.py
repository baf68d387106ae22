"""Scores of any size: what is true of probabilities stays true, by kernels and in logarithms."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

import lnz
from lnz import ops
from lnz.ops import chain
from lnz.ops.chain import Chains, reference
from lnz.ops.chain.cpu.forward_backward import forward_backward
from tests.suite import equal, random_scores

SCALES = [1e3, 1e6, 1e9, 1e15, 1e30, 1e100, 1e300]


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("edge_scale", [0.1, 100.0, None])
def test_probabilities_and_gradients_at_any_scale(scale: float, edge_scale: float | None) -> None:
    """Sums are 1, gradients numbers, no probability is above 1, and the best labelling is certain at last."""
    node = (scale * random_scores((5, 40, 4), 0)).requires_grad_()
    edge = ((edge_scale or scale) * random_scores((4, 4), 1)).requires_grad_()
    for name in ("auto", "reference"):
        with ops.backend(name):  # type: ignore[arg-type]
            p = lnz.LinearChain(node, edge)
            best = p.argmax()
            at_node, at_edge = torch.autograd.grad(p.log_partition.sum(), (node, edge))
            equal(at_node.sum(-1), torch.ones(5, 40, dtype=torch.float64), rtol=0, atol=1e-14)
            equal(at_edge.sum(), torch.tensor(5.0 * 39, dtype=torch.float64), rtol=1e-13)
            assert at_node.min() >= 0
            assert at_edge.min() >= 0
            entropy = lnz.LinearChain(node, edge).entropy()
            assert (entropy >= 0).all()
            slopes = torch.autograd.grad(entropy.sum(), (node, edge))
            assert all(slope.isfinite().all() for slope in slopes)
            log_prob = lnz.LinearChain(node, edge).log_prob(best)
            rounding = 4 * torch.finfo(torch.float64).eps * p.score(best).detach().abs()
            assert (log_prob <= rounding).all()
            if scale >= 1e6:
                assert (entropy < 1e-9).all()
                assert (log_prob >= -rounding if edge_scale else log_prob > -1e-6).all()
                equal(at_node.argmax(-1), best)
            if edge_scale is None:  # in logarithms
                assert (log_prob <= 0).all()


def test_float64_is_no_worse_than_float32_in_long_chains() -> None:
    node, edge = ((1500 * x).float().double() for x in (random_scores((1, 5000, 4), 0), random_scores((4, 4), 1)))
    p, q = lnz.LinearChain(node, edge), lnz.LinearChain(node.float(), edge.float())
    equal(p.node_marginals.sum(-1), torch.ones(1, 5000, dtype=torch.float64), rtol=0, atol=1e-13)
    best = p.argmax()
    log_probs = [lnz.LinearChain(*r.scores).log_prob(best).double() for r in (p, q)]
    for wide, single in ((p.entropy(), q.entropy().double()), log_probs):
        equal(wide, single, rtol=1e-6, atol=1e-6)
    assert (p.entropy() >= 0).all()


@pytest.mark.parametrize("scale", [1.0, 100.0, 300.0])
def test_the_entropy_of_what_is_almost_certain_keeps_its_digits(scale: float) -> None:
    """Against the differences of scores to the best labelling, by enumeration; with p = 1 − δ goes δ of δ − δ ln δ."""
    node, edge = scale * random_scores((6, 3), 0), scale * random_scores((3, 3), 1)
    labels = torch.tensor([*itertools.product(range(3), repeat=6)])
    scores = node.gather(1, labels.T).sum(0) + edge[labels[:, :-1], labels[:, 1:]].sum(1)
    behind = (scores.max() - scores).tolist()
    whole = math.fsum(math.exp(-d) for d in behind)
    log_z = math.log1p(math.fsum(math.exp(-d) for d in behind if d))
    wanted = log_z + math.fsum(d * math.exp(-d) for d in behind) / whole
    assert wanted > 0
    for name in ("auto", "reference"):
        with ops.backend(name):  # type: ignore[arg-type]
            entropy = lnz.LinearChain(node, edge).entropy()
            equal(entropy, torch.tensor(wanted, dtype=torch.float64), rtol=1e-9 if scale == 1 else 0.02, atol=0)


def test_the_gradient_of_the_entropy_where_probabilities_underflow() -> None:
    node, edge = random_scores((4, 3), 0), random_scores((3, 3), 1)
    node[1, 0], edge[2, 1] = -900.0, -torch.inf
    leaves = node.requires_grad_(), edge.requires_grad_()
    actual = torch.autograd.grad(lnz.LinearChain(*leaves).entropy(), leaves)
    p, same = lnz.LinearChain(*leaves), lnz.LinearChain(*leaves)
    wanted = torch.autograd.grad(p.cross_entropy(same), leaves)  # ln Z − E[s(y)]
    for a, w in zip(actual, wanted, strict=True):
        equal(a, w)


@pytest.mark.parametrize("node_scale", [1e3, 1e15])
@pytest.mark.parametrize("edge_scale", [15.0, 30.0, 50.0])
def test_kernels_vouch_only_for_what_is_right(node_scale: float, edge_scale: float) -> None:
    """Sums of e^−400 and less, one after another: their product is 0 long before any of them is."""
    node, edge = node_scale * random_scores((9, 60, 6), 1), edge_scale * random_scores((6, 6), 2)
    lengths, y = torch.tensor([60, 31, 2, 60, 1, 0, 60, 59, 30]), torch.randint(6, (9, 60))
    done = forward_backward(Chains(node, edge[None, None], lengths))
    assert done.in_range.sum() > 2
    log_z, nodes, _ = reference.forward_backward(node, edge[None, None], lengths)
    equal(done.log_z[done.in_range], log_z[done.in_range], rtol=1e-13, atol=1e-9)
    equal(done.nodes[done.in_range], nodes[done.in_range])
    log_prob = chain.scaled_log_prob(node, edge, lengths, y)
    assert log_prob is not None
    wanted = reference.log_prob(node, edge[None, None], lengths, y)
    equal(log_prob, wanted, rtol=1e-12, atol=1e-9)
