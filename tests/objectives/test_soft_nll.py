"""Soft targets: by enumeration, the gradient as a difference of marginals, on the CRF layer."""

from __future__ import annotations

import itertools

import pytest
import torch

import lnz
from lnz.errors import InfeasibleError
from lnz.nn import LinearChainCRF
from lnz.objectives import nll, soft_nll

B, T, L = 4, 4, 3
LENGTHS = torch.tensor([4, 1, 0, 3])


def chain(seed: int, lengths: torch.Tensor | None = LENGTHS) -> lnz.LinearChain:
    generator = torch.Generator().manual_seed(seed)
    node, edge = (torch.randn(*shape, generator=generator).double() for shape in ((B, T, L), (L, L)))
    return lnz.LinearChain(node.requires_grad_(), edge.requires_grad_(), lengths)


def by_enumeration(p: lnz.LinearChain, target: lnz.LinearChain) -> torch.Tensor:
    losses = torch.zeros(B, dtype=torch.float64)
    for b, n in enumerate(LENGTHS.tolist()):
        for y in itertools.product(range(L), repeat=n):
            labels = torch.full((B, T), 0)
            labels[b, :n] = torch.tensor(y, dtype=torch.int64)
            losses[b] -= target.log_prob(labels)[b].exp().item() * p.log_prob(labels)[b].item()
    return losses


def test_is_the_expected_negative_log_likelihood() -> None:
    p, target = chain(0), chain(1)
    expected = by_enumeration(p, target)
    torch.testing.assert_close(soft_nll(p, target, "none").detach(), expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(soft_nll(p, target).detach(), expected.mean(), rtol=0, atol=1e-9)
    torch.testing.assert_close(soft_nll(p, target, "sum").detach(), expected.sum(), rtol=0, atol=1e-9)
    torch.testing.assert_close(soft_nll(p, p, "none"), p.entropy())


def test_its_gradient_is_a_difference_of_marginals() -> None:
    p, target = chain(0), chain(1)
    node, edge = torch.autograd.grad(soft_nll(p, target, "sum"), p.scores)
    torch.testing.assert_close(node, p.marginals[0] - target.marginals[0], rtol=0, atol=1e-9)
    torch.testing.assert_close(edge, (p.marginals[1] - target.marginals[1]).sum((0, 1)), rtol=0, atol=1e-9)


def test_of_a_sure_target_it_is_nll() -> None:
    p, y = chain(0, None), torch.tensor([[0, 2, 1, 1]] * B)
    sure = lnz.LinearChain(1e4 * torch.nn.functional.one_hot(y, L).double(), torch.zeros(L, L).double())
    torch.testing.assert_close(soft_nll(p, sure), nll(p, y), rtol=0, atol=1e-9)


def test_other_families() -> None:
    for p in (lnz.Softmax(torch.randn(5, 4)), lnz.DependencyTree(torch.randn(2, 5, 5))):
        torch.testing.assert_close(soft_nll(p, p, "none"), p.entropy())


def test_what_the_target_may_be_and_p_may_not() -> None:
    p, target = chain(0, None), chain(1, None)
    forbidding = lnz.LinearChain(p.node_scores.detach().index_fill(2, torch.tensor([1]), -torch.inf), p.edge_scores)
    with pytest.raises(InfeasibleError, match=r"batch entries \[0, 1, 2, 3\]; the target may be what is impossible"):
        soft_nll(forbidding, target)
    assert soft_nll(forbidding, target, zero_infinity=True) == 0


def test_bad_arguments() -> None:
    with pytest.raises(TypeError, match="target: expected a structured distribution, got Tensor"):
        soft_nll(chain(0), torch.zeros(2))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="expected two distributions of one family"):
        soft_nll(chain(0), lnz.Softmax(torch.zeros(3)))
    with pytest.raises(ValueError, match="reduction: expected"):
        soft_nll(chain(0), chain(1), "x")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="length"):
        soft_nll(chain(0), chain(1, None))


@pytest.mark.parametrize("batch_first", [True, False])
def test_the_layer_learns_from_another(batch_first: bool) -> None:
    """With steps that the mask leaves out in the middle; in the end the layer is its teacher."""
    torch.manual_seed(0)
    teacher, layer = (LinearChainCRF(L, batch_first) for _ in range(2))
    with torch.no_grad():
        teacher.transitions.normal_()
    shape = (B, T) if batch_first else (T, B)
    emissions, mask = torch.randn(*shape, L), torch.rand(*shape) < 0.7
    target = teacher.distribution(emissions, mask)
    value = layer.expected_log_likelihood(emissions, target, mask, "none")
    torch.testing.assert_close(value, -target.cross_entropy(layer.distribution(emissions, mask)))
    layer.expected_log_likelihood(emissions, target, mask).backward()
    assert teacher.transitions.grad is None
    layer.load_state_dict(teacher.state_dict())
    layer.zero_grad()
    layer.expected_log_likelihood(emissions, target, mask).backward()
    assert all(parameter.grad.abs().max() < 1e-5 for parameter in layer.parameters())


def test_bad_targets_of_the_layer() -> None:
    layer, emissions = LinearChainCRF(L, True), torch.randn(2, 3, L)
    with pytest.raises(TypeError, match="target: expected a LinearChain, got Tensor"):
        layer.expected_log_likelihood(emissions, emissions)  # type: ignore[arg-type]
    other = layer.distribution(emissions, torch.tensor([[1, 1, 0], [1, 1, 1]]))
    with pytest.raises(ValueError, match="length"):
        layer.expected_log_likelihood(emissions, other)
