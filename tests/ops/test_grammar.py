"""Grammars as an op: opcheck, transforms, and the ladder from products of exponentials to logarithms."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lnz.ops import backend
from lnz.ops.grammar import Grammar, forward_backward, log_partition, sample
from lnz.ops.grammar.decode import SAMPLE, TOPK
from lnz.ops.grammar.op import GRAMMAR
from lnz.ops.grammar.products import forward_backward as by_products
from lnz.ops.precision import astype
from tests.suite import equal, random_scores

LENGTHS = torch.tensor([5, 0, 3, 2])
EVERYTHING = torch.ones(1, 1, 1, 1, dtype=torch.bool)


def grammar(shared: bool = True, scale: float = 1.0) -> Grammar:
    own = 1 if shared else 4
    scores = random_scores((4, 5, 2), 0), random_scores((own, 2), 1), random_scores((own, 2, 4, 4), 2)
    preterminals, root, rules = (scale * x for x in scores)
    return Grammar(preterminals, root, rules, EVERYTHING, LENGTHS)


@pytest.mark.parametrize("shared", [True, False])
def test_operators_keep_their_promises(shared: bool) -> None:
    given = grammar(shared)
    torch.library.opcheck(GRAMMAR.solve.op, (*given,))
    torch.library.opcheck(TOPK.op, (*given, 2))
    torch.library.opcheck(SAMPLE.op, (*given, torch.rand(2, 4, 5, dtype=torch.float64)))


def test_transforms() -> None:
    base = grammar()
    words, rules = base.preterminals, base.rules

    def value(preterminals: Tensor, rules: Tensor) -> Tensor:
        given = base._replace(preterminals=preterminals, rules=rules)
        return log_partition(given, forward_backward(given))

    found = torch.func.vmap(value, in_dims=(0, None))(torch.stack((words, 2 * words)), rules)
    equal(found[1], value(2 * words, rules))
    several = torch.func.vmap(value)(torch.stack((words, 2 * words)), torch.stack((rules, 3 * rules)))
    equal(several[1], value(2 * words, 3 * rules))
    for forwards, backwards in zip(
        torch.func.jacfwd(value, argnums=(0, 1))(words, rules),
        torch.func.jacrev(value, argnums=(0, 1))(words, rules),
        strict=True,
    ):
        equal(forwards, backwards)


def test_masks_of_one_sentence_or_of_each() -> None:
    allowed = torch.rand(4, 5, 5, 2, generator=torch.Generator().manual_seed(0)) < 0.8
    for mask in (allowed, allowed[:1]):
        results = []
        for name in ("auto", "reference"):
            with backend(name):
                results.append(forward_backward(grammar()._replace(allowed=mask)))
        for actual, wanted in zip(*results, strict=True):
            equal(actual, wanted)


@pytest.mark.parametrize(("dtype", "scale", "served"), [
    (torch.float32, 1.0, True), (torch.float32, 60.0, False), (torch.float64, 60.0, True), (torch.float64, 1e3, False),
])  # fmt: skip
def test_what_is_out_of_range_says_so(dtype: torch.dtype, scale: float, served: bool) -> None:
    """And is right all the same, for the ladder does it again."""
    rules = torch.full((1, 2, 4, 4), -torch.inf, dtype=torch.float64)
    rules[0, 0] = 0.0
    rules[0, 1, 2, 1:] = -scale  # the second nonterminal is far below the first, in every span, and its own part
    given = grammar()._replace(rules=rules, root=torch.tensor([[-torch.inf, 0.0]]))
    given = astype(given, dtype)
    *_, in_range = by_products(given)
    assert bool(in_range.all()) == served
    with backend("reference"):
        wanted = forward_backward(given)
    for actual, right in zip(forward_backward(given), wanted, strict=True):
        equal(actual, right, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_scores_that_are_no_numbers_leave_other_sentences_alone(bad: float) -> None:
    given, wanted = grammar(), forward_backward(grammar())
    words = given.preterminals.clone()
    words[0, 1, 0] = bad
    words[1:, 4] = bad  # padding
    found = forward_backward(given._replace(preterminals=words))
    equal(found.log_z[1:], wanted.log_z[1:])
    equal(found.rules[1:], wanted.rules[1:])
    assert not torch.isfinite(found.log_z[0])


def test_samples_are_those_of_their_numbers_however_many_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    one = sample(grammar(), 7, torch.Generator().manual_seed(0))
    monkeypatch.setattr("lnz.ops.grammar.decode._AT_ONCE", 1)
    assert torch.equal(sample(grammar(), 7, torch.Generator().manual_seed(0)), one)
