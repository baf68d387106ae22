"""Class weights of LinearChainCRF: by enumeration, limits and their optimum; why not the published ones."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

import lnz
from lnz.nn import LinearChainCRF
from lnz.nn.class_weights import class_weighted_log_prob
from tests.suite import equal, random_scores

L = 3
WEIGHTS = torch.tensor([0.2, 1.0, 3.5], dtype=torch.float64)


def by_enumeration(node: Tensor, edge: Tensor, y: list[int], weights: Tensor) -> Tensor:
    """Σ_t w[y_t] (ln P(y_1 … y_t) − ln P(y_1 … y_{t−1})), each a sum over all sequences; ``node [n, L]``."""
    every = list(itertools.product(range(L), repeat=len(node)))
    scores = torch.stack(
        [sum(node[t, k] for t, k in enumerate(z)) + sum(edge[a, b] for a, b in itertools.pairwise(z)) for z in every]
    )
    prefix = [
        scores[[z[:t] == tuple(y[:t]) for z in every]].logsumexp(0) - scores.logsumexp(0) for t in range(len(y) + 1)
    ]
    return sum(weights[y[t]] * (prefix[t + 1] - prefix[t]) for t in range(len(y)))


def test_value_and_gradient_by_enumeration() -> None:
    lengths, y = torch.tensor([4, 1, 0, 3]), torch.randint(L, (4, 4), generator=torch.Generator().manual_seed(0))
    leaves = [random_scores((4, 4, L), 0).requires_grad_(), random_scores((L, L), 1).requires_grad_()]
    actual = class_weighted_log_prob(lnz.LinearChain(*leaves, lengths), y, WEIGHTS)
    rows = [by_enumeration(leaves[0][b, :n], leaves[1], y[b, :n].tolist(), WEIGHTS) if n else torch.zeros(()).double()
            for b, n in enumerate(lengths.tolist())]  # fmt: skip
    equal(actual, torch.stack(rows))
    assert (actual <= 0).all()
    scale = torch.tensor([1.0, 2.0, 3.0, -1.0]).double()
    gradients = [torch.autograd.grad((scale * value).sum(), leaves) for value in (actual, torch.stack(rows))]
    for ours, wanted in zip(*gradients, strict=True):
        equal(ours, wanted)


def layers(weights: Tensor | None, batch_first: bool = True) -> LinearChainCRF:
    torch.manual_seed(0)
    crf = LinearChainCRF(L, batch_first, class_weights=weights).double()
    with torch.no_grad():
        for parameter in crf.parameters():
            parameter.normal_()
    return crf


EMISSIONS, TAGS = random_scores((5, 6, L), 3), torch.randint(L, (5, 6), generator=torch.Generator().manual_seed(1))
MASK = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 0, 1, 1, 0, 0], [0, 0, 0, 1, 0, 0], [0] * 6, [1, 1, 1, 0, 0, 0]]).bool()


@pytest.mark.parametrize("reduction", ["none", "sum", "mean", "token_mean"])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
def test_weights_of_one_change_nothing(reduction: str, masked: bool, batch_first: bool) -> None:
    results = []
    for weights in (torch.ones(L), None):
        crf, x = layers(weights, batch_first), EMISSIONS.clone().requires_grad_()
        arguments = (x, TAGS, MASK if masked else None)
        if not batch_first:
            arguments = tuple(a if a is None else a.transpose(0, 1) for a in arguments)
        value = crf(*arguments, reduction=reduction)
        results.append((value, *torch.autograd.grad(value.sum(), [x, *crf.parameters()])))
    for ours, wanted in zip(*results, strict=True):
        equal(ours, wanted)


def test_without_transitions_it_is_the_weighted_cross_entropy() -> None:
    crf = layers(WEIGHTS)
    torch.nn.init.zeros_(crf.transitions)
    torch.nn.init.zeros_(crf.start_transitions)
    torch.nn.init.zeros_(crf.end_transitions)
    logits, gold = EMISSIONS.flatten(0, 1), TAGS.masked_fill(~MASK, -100).flatten()
    for ours, theirs in (("sum", "sum"), ("token_mean", "mean")):
        wanted = -cross_entropy(logits, gold, WEIGHTS, reduction=theirs)
        equal(crf(EMISSIONS, TAGS, MASK, reduction=ours), wanted)


def test_the_optimum_has_the_conditionals_of_the_data_times_the_weights() -> None:
    data = random_scores((L, L), 5).flatten().softmax(0).reshape(L, L)
    first = (data.sum(1) * WEIGHTS).log().log_softmax(0)
    following = (data * WEIGHTS).log().log_softmax(1)
    node = torch.stack((first, torch.zeros(L).double())).expand(L * L, 2, L).clone().requires_grad_()
    edge = following.clone().requires_grad_()
    y = torch.cartesian_prod(torch.arange(L), torch.arange(L))
    terms = class_weighted_log_prob(lnz.LinearChain(node, edge), y, WEIGHTS)
    for gradient in torch.autograd.grad((data.flatten() * terms).sum(), (node, edge)):
        equal(
            gradient.sum(0) if gradient.dim() == 3 else gradient,
            torch.zeros_like(gradient[0] if gradient.dim() == 3 else gradient),
        )


def test_terms_normalised_by_what_has_come_so_far_would_have_no_bound() -> None:
    """Two steps, w = (0.2, 3.5) for tags 0, 2: what the transition makes up for is 'likelier'."""
    values = []
    for size in (10.0, 100.0):
        node, edge = torch.zeros(1, 2, L).double(), torch.zeros(L, L).double()
        node[0, 0, 0], edge[0, 2] = -size, 2 * size
        prefixes = [lnz.LinearChain(node[:, :n], edge) for n in (1, 2)]
        steps = [
            p.score(y) - p.log_partition
            for p, y in zip(prefixes, (torch.tensor([[0]]), torch.tensor([[0, 2]])), strict=True)
        ]
        values.append(WEIGHTS[0] * steps[0] + WEIGHTS[2] * (steps[1] - steps[0]))
        assert class_weighted_log_prob(lnz.LinearChain(node, edge), torch.tensor([[0, 2]]), WEIGHTS) <= 0
    assert values[0] > 20
    assert values[1] > 300


def test_derivatives_and_large_scores() -> None:
    crf = layers(WEIGHTS)
    x = EMISSIONS.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x, *_: crf(x, TAGS, MASK), [x, *crf.parameters()])
    assert torch.autograd.gradgradcheck(lambda x: crf(x, TAGS, MASK), [x])
    single = LinearChainCRF(L, True, class_weights=[0.2, 1.0, 3.5])
    single.load_state_dict({name: value.float() for name, value in crf.state_dict().items()})
    for scale in (1.0, 1000.0):  # where probabilities underflow, their logarithms must not
        value, wanted = single(scale * EMISSIONS.float(), TAGS, MASK), crf(scale * EMISSIONS, TAGS, MASK)
        torch.testing.assert_close(value.double(), wanted, rtol=1e-4, atol=1e-3)


def test_impossible_tags_and_weights_of_zero() -> None:
    tags = ["O", "B-x", "I-x"]
    crf = LinearChainCRF(L, True, tags=tags, class_weights=[1.0, 1.0, 0.0])
    x = torch.zeros(2, 3, L, requires_grad=True)
    value = crf(x, torch.tensor([[0, 2, 0], [1, 1, 1]]), reduction="none")  # O I-x O is impossible, but I-x weighs 0
    assert torch.isfinite(value).all()
    value.sum().backward()
    assert torch.isfinite(x.grad).all()
    crf.class_weights[:] = 1.0
    with pytest.raises(lnz.InfeasibleError, match=r"in sentence 0, step 1, 'I-x' cannot follow 'O' in scheme BIO"):
        crf(x, torch.tensor([[0, 2, 0], [1, 1, 1]]), reduction="none")


def test_what_makes_no_sense() -> None:
    assert set(layers(WEIGHTS).state_dict()) == {"start_transitions", "end_transitions", "transitions"}
    with pytest.raises(ValueError, match=r"class_weights: expected shape \[3\], got \[2\]"):
        LinearChainCRF(3, class_weights=[1.0, 2.0])
    with pytest.raises(ValueError, match=r"class_weights: expected finite weights of at least 0, got \[1.0, -1.0\]"):
        LinearChainCRF(2, class_weights=[1.0, -1.0])
    tags = TAGS.clone()
    tags[0, 1] = -100
    with pytest.raises(ValueError, match=r"tags: expected no latent tags \(-100\) under class_weights"):
        layers(WEIGHTS)(EMISSIONS, tags, MASK)
