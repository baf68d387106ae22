"""PCFG: the shared suite, counts, kinship with constituency trees and chains, partial derivations, and its checks."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import lnz
from lnz.ops import backend
from tests import oracles
from tests.suite import DistributionSuite, Instance, equal, impossibilities, random_scores, seeds, tensors


def instance(root: Tensor, rules: Tensor, words: Tensor, lengths: Tensor | None) -> Instance:
    return Instance(
        (root, rules, words),
        lambda root, rules, words: lnz.PCFG(root, rules, words, lengths),
        lambda root, rules, words: oracles.context_free(root, rules, words, lengths),
    )


@st.composite
def sentences(draw: st.DrawFn, shared: bool, with_lengths: bool) -> Instance:
    batch, seed = draw(st.sampled_from([(), (1,), (2,), (2, 2), (0,)])), draw(seeds)
    N, NT, PT = draw(st.sampled_from([(0, 1, 1), (2, 2, 2), (2, 1, 3), (3, 2, 1), (3, 1, 2), (4, 1, 1), (4, 2, 1)]))
    lengths = None
    if with_lengths:
        some = torch.tensor([n for n in range(N + 1) if n != 1])
        drawn = torch.randint(
            len(some), draw(st.sampled_from([(), batch])), generator=torch.Generator().manual_seed(seed)
        )
        lengths = some[drawn]
    own, impossible = () if shared else batch, draw(impossibilities) / 3
    return instance(
        random_scores((*own, NT), seed, impossible / 2),
        random_scores((*own, NT, NT + PT, NT + PT), seed + 1, impossible),
        random_scores((*batch, N, PT), seed + 2, impossible / 2),
        lengths,
    )


def nothing(with_lengths: bool) -> dict[str, Instance]:
    """A batch of none, and sentences without words."""
    found = {}
    for axis, B, N in (("batch", 0, 3), ("words", 2, 0)):
        lengths = torch.zeros(B, dtype=torch.int64) if with_lengths else None
        found[axis] = instance(
            random_scores((2,), 0), random_scores((2, 4, 4), 1), random_scores((B, N, 2), 2), lengths
        )
    return found


class TestOneGrammar(DistributionSuite):
    @staticmethod
    def instances() -> st.SearchStrategy[Instance]:
        return sentences(shared=True, with_lengths=False)

    @staticmethod
    def example() -> Instance:
        return instance(random_scores((2,), 0), random_scores((2, 3, 3), 1), random_scores((2, 3, 1), 2), None)

    @staticmethod
    def empties() -> dict[str, Instance]:
        return nothing(with_lengths=False)


class TestGrammarsAndLengths(DistributionSuite):
    @staticmethod
    def instances() -> st.SearchStrategy[Instance]:
        return sentences(shared=False, with_lengths=True)

    @staticmethod
    def example() -> Instance:
        lengths = torch.tensor([2, 3, 2])
        leaves = random_scores((3, 2), 0), random_scores((3, 2, 4, 4), 1), random_scores((3, 3, 2), 2)
        return instance(*leaves, lengths)

    @staticmethod
    def empties() -> dict[str, Instance]:
        return nothing(with_lengths=True)

    @staticmethod
    def padding() -> tuple[Tensor, ...]:
        beyond = (torch.arange(3) >= torch.tensor([2, 3, 2])[:, None])[..., None].expand(3, 3, 2)
        return torch.zeros(3, 2, dtype=torch.bool), torch.zeros(3, 2, 4, 4, dtype=torch.bool), beyond


# Closed forms ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("NT", "PT"), [(1, 1), (3, 2)])
def test_it_counts_derivations(NT: int, PT: int) -> None:
    """Catalan(n − 1) · NT^(n − 1) · PT^n; one of no words, none of one."""
    S, n = NT + PT, torch.arange(0, 16)
    p = lnz.PCFG(torch.zeros(NT).double(), torch.zeros(NT, S, S).double(), torch.zeros(16, 15, PT).double(), n)
    counts = [math.comb(2 * k - 2, k - 1) // k * NT ** (k - 1) * PT**k for k in range(2, 16)]
    wanted = [0.0, -math.inf, *map(math.log, counts)]
    equal(p.log_count, torch.tensor(wanted, dtype=torch.float64))
    q = lnz.PCFG(p.root, p.rules, p.preterminals[2:], n[2:])
    equal(q.entropy(), q.log_count)


def test_rules_of_one_score_are_a_constituency_tree() -> None:
    """Scores of nonterminals alone, whatever they become: a tree whose labels are independent."""
    N, NT, PT = 6, 3, 2
    a, words = random_scores((NT,), 0), random_scores((2, N, PT), 1)
    rules = a[:, None, None].expand(NT, NT + PT, NT + PT)
    p = lnz.PCFG(torch.zeros(NT).double(), rules, words)
    spans = a.expand(2, N, N, NT).clone()
    diagonal = torch.arange(N)
    spans[:, diagonal, diagonal] = -torch.inf
    spans = torch.cat((spans, torch.full((2, N, N, PT), -torch.inf).double()), -1)
    spans[:, diagonal, diagonal, NT:] = words
    tree = lnz.ConstituencyTree(spans)
    equal(p.log_partition, tree.log_partition)
    equal(p.entropy(), tree.entropy())
    equal(p.marginals[2], tree.marginals[:, diagonal, diagonal, NT:])
    equal(p.topk(4)[1], tree.topk(4)[1])


def test_right_linear_grammars_are_hidden_markov_models() -> None:
    """State j becomes (its tag, state k): the tags of all words but the last are the states of a chain."""
    T, K = 6, 3
    initial, transition = random_scores((K,), 0).log_softmax(-1), random_scores((K, K), 1).log_softmax(-1)
    emission = random_scores((2, T, K), 2)
    rules = torch.full((K, 2 * K, 2 * K), -torch.inf, dtype=torch.float64)
    for j in range(K):
        rules[j, K + j, :K] = transition[j]  # the state goes on, and emits
        rules[j, K + j, K:] = transition[j]  # or the last word follows
    p, q = lnz.PCFG(initial, rules, emission), lnz.HMM(initial, transition, emission)
    equal(p.log_partition, q.log_partition)
    equal(p.marginals[0], q.marginals[0])
    equal(p.marginals[2], q.marginals[2])
    equal(p.entropy(), q.entropy())


# Batches, range ----------------------------------------------------------------------------------------------------


def test_each_sentence_of_a_batch_is_what_it_is_alone() -> None:
    lengths = torch.tensor([4, 9, 2, 0, 7, 3])
    root, rules, words = random_scores((3,), 0), random_scores((3, 5, 5), 1, 0.2), random_scores((6, 9, 2), 2)
    p = lnz.PCFG(root, rules, words, lengths)
    for b, n in enumerate(lengths.tolist()):
        alone = lnz.PCFG(root, rules, words[b, :n])
        equal(p.log_partition[b], alone.log_partition)
        for all_of_them, mine in zip(p.marginals, alone.marginals, strict=True):
            equal(all_of_them[b, :n] if mine.dim() == 2 and n else all_of_them[b], mine if n else 0 * all_of_them[b])
        equal(p.entropy()[b], alone.entropy())
        assert torch.equal(p.argmax()[b, :n, :n], alone.argmax())


@pytest.mark.parametrize("scale", [1.0, 20.0, 300.0, 1e4])
@pytest.mark.parametrize("impossible", [0.0, 0.3])
def test_any_range_of_scores_is_right(scale: float, impossible: float) -> None:
    """By products of exponentials, or with logarithms where these have no room."""
    leaves = random_scores((3,), 0), random_scores((3, 5, 5), 1, impossible), random_scores((3, 12, 2), 2)
    lengths, results = torch.tensor([12, 7, 10]), []
    for dtype, name in ((torch.float32, "auto"), (torch.float64, "auto"), (torch.float64, "reference")):
        with backend(name):
            root, rules, words = ((scale * x).float().to(dtype) for x in leaves)
            p = lnz.PCFG(root, rules, words, lengths)
            results.append((p.log_partition, *p.marginals))
    for single, double, wanted in zip(*results, strict=True):
        equal(double, wanted, rtol=1e-10, atol=1e-9)
        equal(single.double(), wanted, rtol=1e-5, atol=1e-4)


def test_symbols_far_below_others_of_their_span_are_not_lost() -> None:
    """The one nonterminal that the grammar can use weighs e^−2000 beside another, in every span."""
    root, words = torch.tensor([-torch.inf, 0.0]).double(), torch.zeros(1, 6, 1).double()
    rules = torch.full((2, 3, 3), -torch.inf, dtype=torch.float64)
    rules[0] = 0.0
    rules[1, 2, 1] = rules[1, 2, 2] = -2000.0
    p = lnz.PCFG(root, rules, words)
    equal(p.log_partition, torch.tensor([-5 * 2000.0], dtype=torch.float64))
    equal(p.marginals[1][0, 1, 2], torch.tensor([0.0, 4.0, 1.0], dtype=torch.float64))


# Partial derivations -----------------------------------------------------------------------------------------------


def test_partial_derivations() -> None:
    p = lnz.PCFG(random_scores((2,), 0), random_scores((2, 4, 4), 1), random_scores((6, 2), 2))
    y = torch.full((6, 6), -100)
    y[1, 3], y[4, 5], y[2, 2] = 1, -1, 0
    q = p.condition(y)
    drawn = q.sample((200,), torch.Generator().manual_seed(0))
    assert (drawn[:, 1, 3] == 1).all()
    assert (drawn[:, 4, 5] == -1).all()
    assert (drawn[:, 2, 2] == 0).all()
    equal(p.log_prob(y), q.log_partition - p.log_partition)
    equal(q.marginals[2][2], torch.tensor([1.0, 0.0], dtype=torch.float64))
    y[2, 4] = 0  # crosses 1 … 3
    assert torch.isneginf(p.log_prob(y))


def test_allowed_nonterminals_of_constituents() -> None:
    leaves = random_scores((2,), 0), random_scores((2, 3, 3), 1), random_scores((4, 1), 2)
    allowed = torch.ones(4, 4, 2, dtype=torch.bool)
    allowed[0, 2, 1] = allowed[1, 2] = False
    p, oracle = lnz.PCFG(*leaves, allowed=allowed), oracles.context_free(*leaves, None)
    kept = [y for y in oracle.entries[0] if y.y[2] != 1 and y.y[6] == -1]
    wanted = oracles.Oracle((), oracle.event_shape, oracle.part_shapes, (tuple(kept),))
    equal(p.log_partition, wanted.log_partition)
    equal(p.entropy(), wanted.entropy)
    for actual, right in zip(p.marginals, wanted.marginals, strict=True):
        equal(actual, right)
    labellings, scores = oracle.labellings()
    there = {y.y for y in kept}
    mask = torch.tensor([tuple(y.flatten().tolist()) in there for y in labellings])
    equal(p.score(labellings), scores.masked_fill(~mask, -torch.inf))


def test_what_is_no_derivation_has_no_probability() -> None:
    p = lnz.PCFG(random_scores((2,), 0), random_scores((2, 3, 3), 1), random_scores((3, 1), 2))
    y = p.argmax()
    bad = y.clone()
    bad[0, 2] = -1
    assert torch.isneginf(p.score(bad))
    one = lnz.PCFG(p.root, p.rules, p.preterminals[:1])
    assert torch.isneginf(one.log_partition)
    assert torch.isneginf(one.score(torch.zeros(1, 1, dtype=torch.int64)))
    with pytest.raises(lnz.InfeasibleError, match="argmax: no labelling has a finite score"):
        one.argmax()


@given(seeds)
def test_the_k_best_are_sorted_and_different(seed: int) -> None:
    p = lnz.PCFG(random_scores((2,), seed), random_scores((2, 4, 4), seed + 1), random_scores((2, 5, 2), seed + 2))
    best, scores = p.topk(20)
    equal(p.score(best), scores)
    assert (scores[:-1] >= scores[1:]).all()
    assert len({tuple(tree) for tree in best[:, 0].flatten(1).tolist()}) == 20


# Checks ------------------------------------------------------------------------------------------------------------

ROOT, RULES, WORDS = torch.zeros(3), torch.zeros(3, 5, 5), torch.zeros(2, 4, 2)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((ROOT[0], RULES, WORDS), ValueError, r"root: expected shape \[\*batch, NT\] with NT > 0, got \[\]"),
        ((ROOT, RULES, WORDS[0, 0]), ValueError, r"preterminals: expected shape \[\*batch, N, PT\] .* got \[2\]"),
        ((ROOT, RULES, WORDS[..., :0]), ValueError, r"preterminals: .* PT > 0, got \[2, 4, 0\]"),
        ((ROOT, RULES[:2], WORDS), ValueError, r"rules: expected shape \[\*batch, 3, 5, 5\], got \[2, 5, 5\]"),
        ((ROOT, RULES.to("meta"), WORDS), TypeError, "rules: expected device cpu as preterminals, got meta"),
        ((ROOT, RULES, WORDS, torch.tensor([5, 2])), ValueError, r"lengths: expected values in \[0, 4\].* got 5"),
        ((ROOT.expand(3, 3), RULES, WORDS), ValueError, "batch shapes of root, rules and preterminals"),
        ((ROOT.tolist(), RULES, WORDS), TypeError, "root: expected a torch.Tensor, got list"),
    ],
)
def test_arguments_that_make_no_sense(arguments: tuple, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        lnz.PCFG(*arguments)


def test_masks_that_make_no_sense() -> None:
    with pytest.raises(TypeError, match="allowed: expected a torch.Tensor of booleans, got torch.float32"):
        lnz.PCFG(ROOT, RULES, WORDS, allowed=torch.ones(4, 4, 3))
    with pytest.raises(ValueError, match=r"allowed: expected shape \[\*batch, 4, 4, 3\], got \[4, 4, 1\]"):
        lnz.PCFG(ROOT, RULES, WORDS, allowed=torch.ones(4, 4, 1, dtype=torch.bool))


def test_it_is_no_mrf() -> None:
    with pytest.raises(TypeError, match="PCFG is no MRF; families that are: MRF, LinearChain"):
        lnz.PCFG(ROOT, RULES, WORDS).to_mrf()


def test_products_serve_ordinary_scores() -> None:
    """Neither the second rung nor logarithms are needed for a grammar as networks make them."""
    from lnz.ops.grammar.products import forward_backward

    rules = (3 * random_scores((6, 900), 1)).log_softmax(-1).view(6, 30, 30)
    p = lnz.PCFG(
        random_scores((6,), 0).log_softmax(-1), rules, random_scores((4, 20, 24), 2).log_softmax(-1)
    ).map_scores(torch.Tensor.float)
    assert forward_backward(p._flat)[-1].all()
    assert len(tensors(p.marginals)) == 3
