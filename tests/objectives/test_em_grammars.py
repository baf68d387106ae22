"""EM for grammars: expected counts, rising evidence, closed forms, and what it finds in strings of a known grammar."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import lnz
from lnz.nn import CategoricalEmission, PCFGModel
from lnz.objectives import em
from tests import oracles
from tests.suite import equal, random_scores


def grammar(NT: int, PT: int, V: int, seed: int = 0) -> PCFGModel:
    S = NT + PT
    words = CategoricalEmission(random_scores((PT, V), seed + 2))
    return PCFGModel(random_scores((NT,), seed), random_scores((NT, S, S), seed + 1), words)


LENGTHS = torch.tensor([4, 2, 3, 0, 4])


def sentences(V: int) -> Tensor:
    x = torch.randint(V, (5, 4), generator=torch.Generator().manual_seed(1))
    return x.masked_fill(torch.arange(4) >= LENGTHS[:, None], 12345)  # padding may hold anything


def test_expected_counts_are_those_of_enumeration() -> None:
    model, x = grammar(2, 2, 3), sentences(3)
    evidence, statistics = model.e_step(x, LENGTHS)
    p = model(x, LENGTHS)
    scores = [s.detach() for s in p.scores]
    oracle = oracles.context_free(scores[0], scores[1], scores[2], LENGTHS)
    equal(evidence, oracle.log_partition.sum())
    root, rules, tags = oracle.marginals
    equal(statistics.root, root.sum(0))
    equal(statistics.rules, rules.sum(0).flatten(1))
    equal(statistics.tags, tags)


def test_counts_are_the_gradient_of_the_log_evidence() -> None:
    """By the log-probabilities, as EM and training by gradient have them in common."""
    model, x = grammar(2, 2, 3), sentences(3)
    _, statistics = model.e_step(x, LENGTHS)
    scores = [s.detach().requires_grad_() for s in model(x, LENGTHS).scores]
    p = lnz.PCFG(*scores, lengths=LENGTHS)
    root, rules, tags = torch.autograd.grad(p.log_partition.sum(), scores)
    equal(statistics.root, root)
    equal(statistics.rules, rules.flatten(1))
    equal(statistics.tags, tags)


def test_many_sentences_are_done_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = grammar(2, 2, 3), sentences(3)
    wanted = model.e_step(x, LENGTHS)
    monkeypatch.setattr("lnz.nn.pcfg._AT_ONCE", 70)
    found = model.e_step(x, LENGTHS)
    equal(found[0], wanted[0])
    for name in ("root", "rules", "tags"):
        equal(getattr(found[1], name), getattr(wanted[1], name))


@pytest.mark.parametrize("pseudocount", [0.0, 0.5])
@pytest.mark.parametrize("seed", range(4))
def test_it_never_lowers_the_objective(pseudocount: float, seed: int) -> None:
    x = torch.randint(3, (12, 6), generator=torch.Generator().manual_seed(seed))
    lengths = torch.randint(2, 7, (12,), generator=torch.Generator().manual_seed(seed))
    result = em(grammar(3, 2, 3, seed), x, lengths, max_iterations=40, tolerance=0.0, pseudocount=pseudocount)
    steps = torch.tensor(result.objective).diff()
    assert (steps >= -1e-9 * abs(result.objective[0])).all()
    assert result.objective[-1] > result.objective[0] + 0.1
    logits = result.model.rules.detach().double()
    equal(logits.exp().sum(-1), torch.ones(3, dtype=torch.float64), rtol=1e-6)


def test_the_first_step_by_hand() -> None:
    """One nonterminal, "a b": S → A B, S → B A … of two preterminals; counts are products of emissions."""
    emission = torch.tensor([[0.7, 0.3], [0.2, 0.8]], dtype=torch.float64)
    rules = torch.full((1, 3, 3), -math.inf, dtype=torch.float64)
    rules[0, 1:, 1:] = torch.tensor([[0.1, 0.4], [0.3, 0.2]], dtype=torch.float64).log()
    model = PCFGModel(torch.zeros(1).double(), rules, CategoricalEmission(emission.log()))
    result = em(model, torch.tensor([[0, 1]]), max_iterations=1)
    joint = torch.tensor([[0.1, 0.4], [0.3, 0.2]], dtype=torch.float64) * emission[:, 0, None] * emission[None, :, 1]
    assert result.log_evidence[0] == pytest.approx(joint.sum().log().item(), abs=1e-12)
    found = result.model.rules.detach().exp().view(3, 3)[1:, 1:]
    equal(found, joint / joint.sum())
    assert torch.isneginf(result.model.rules.detach().view(3, 3)[0]).all()


def balanced(n: int) -> list[list[int]]:
    """All strings of n pairs of brackets."""
    if not n:
        return [[]]
    return [[0, *inner, 1, *rest] for k in range(n) for inner in balanced(k) for rest in balanced(n - 1 - k)]


@pytest.mark.slow
def test_it_recovers_the_likelihood_of_a_known_grammar() -> None:
    """S → S S | ( S ) | ( ), each with its probability: no grammar of these symbols does much better on its strings."""
    p = 0.3, 0.3, 0.4
    strings = [s for n in range(1, 5) for s in balanced(n)]
    x = torch.full((len(strings), 8), 0)
    for row, string in zip(x, strings, strict=True):
        row[: len(string)] = torch.tensor(string)
    lengths = torch.tensor([len(s) for s in strings])
    S, close, open_, shut = 0, 1, 2, 3  # close: what is after "(" in "( S )"
    rules = torch.full((2, 4, 4), -math.inf, dtype=torch.float64)
    rules[S, S, S], rules[S, open_, close], rules[S, open_, shut] = (math.log(q) for q in p)
    rules[close, S, shut] = 0.0
    known = PCFGModel(torch.tensor([0.0, -math.inf]).double(), rules, CategoricalEmission(torch.eye(2).double().log()))
    weight = known(x, lengths).log_partition.detach().exp()
    counts = (200 * weight / weight.sum()).round().long()
    data, n = x.repeat_interleave(counts, 0), lengths.repeat_interleave(counts, 0)
    assert len(data) > 150
    reached = em(known, data, n).log_evidence[-1]  # the best that its rules can do
    generator = torch.Generator().manual_seed(0)
    result = em(grammar(2, 2, 2), data, n, restarts=6, max_iterations=300, generator=generator)
    assert result.log_evidence[-1] >= reached - 0.01 * abs(reached)
    assert result.parameters == 1 + 2 * 15 + 2
    assert math.isfinite(result.bic)


def test_training_by_gradient_uses_the_same_model() -> None:
    model, x = grammar(2, 2, 3), sentences(3)
    losses = []
    optimiser = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(10):
        loss = -model(x, LENGTHS).log_partition.mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_what_has_no_derivation_is_named() -> None:
    with pytest.raises(lnz.InfeasibleError, match=r"PCFGModel.e_step: sentences of probability 0.*\b1\b"):
        em(grammar(2, 2, 3), torch.zeros(3, 4, dtype=torch.int64), torch.tensor([4, 1, 2]))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((torch.zeros(2, 1), torch.zeros(2, 4, 4)), ValueError, r"root: expected shape \[NT\] .* got \[2, 1\]"),
        ((torch.zeros(2), torch.zeros(2, 4, 3)), ValueError, r"rules: expected shape \[2, S, S\] .* got \[2, 4, 3\]"),
        ((torch.zeros(2), torch.zeros(2, 2, 2)), ValueError, r"rules: .* with S > 2, got \[2, 2, 2\]"),
    ],
)
def test_parameters_that_make_no_sense(arguments: tuple[Tensor, Tensor], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        PCFGModel(arguments[0], arguments[1], CategoricalEmission(torch.zeros(2, 3)))
    with pytest.raises(TypeError, match="emissions: expected an Emission, got Tensor"):
        PCFGModel(torch.zeros(2), torch.zeros(2, 4, 4), torch.zeros(2, 3))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"lengths: expected the batch shape of x \[5, 4\], got \[2\]"):
        grammar(2, 2, 3)(sentences(3), torch.tensor([1, 2]))
