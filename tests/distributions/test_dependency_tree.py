"""DependencyTree: the shared suite, counts of trees, closed forms, and its checks."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import lnz
from tests import oracles
from tests.suite import DistributionSuite, Instance, batch_shapes, equal, impossibilities, random_scores, seeds

KINDS = [(projective, single_root) for projective in (True, False) for single_root in (True, False)]


def instance(
    scores: Tensor, lengths: Tensor | None, projective: bool, single_root: bool, labelled: bool = False
) -> Instance:
    own = 3 if labelled else 2
    M = scores.shape[-own]
    unit = torch.zeros(M, 1) if not labelled else torch.zeros(M, 1, 1)
    unit[1:] = 1.0
    return Instance(
        (scores,),
        lambda scores: lnz.DependencyTree(scores, lengths, projective, single_root, labelled=labelled),
        lambda scores: oracles.dependency_tree(scores, lengths, projective, single_root, labelled),
        (unit,),
    )


@st.composite
def trees(draw: st.DrawFn, projective: bool, single_root: bool, labelled: bool = False) -> Instance:
    batch, N, seed = draw(batch_shapes), draw(st.integers(0, 2 if labelled else 3)), draw(seeds)
    R = (draw(st.integers(1, 2)),) if labelled else ()
    lengths = None
    if draw(st.booleans()):
        shape = draw(st.sampled_from([(), batch]))
        lengths = torch.randint(N + 1, shape, generator=torch.Generator().manual_seed(seed))
    scores = random_scores((*batch, N + 1, N + 1, *R), seed, draw(impossibilities) / 2)
    return instance(scores, lengths, projective, single_root, labelled)


def empty_sentences(projective: bool, single_root: bool, labelled: bool = False) -> dict[str, Instance]:
    R = (2,) if labelled else ()
    return {
        "batch": instance(random_scores((0, 3, 3, *R), 0), None, projective, single_root, labelled),
        "words": instance(random_scores((2, 1, 1, *R), 0), None, projective, single_root, labelled),
    }


LENGTHS = torch.tensor([3, 1, 2])


def beyond(lengths: Tensor, labels: int = 0) -> Tensor:
    """What is no arc of sentences of ``lengths``, of three words."""
    places = torch.arange(4)
    inside = (places[:, None] > 0) & (places[:, None] != places)
    inside = inside & (places <= lengths[:, None])[:, :, None] & (places <= lengths[:, None])[:, None]
    return ~(inside[..., None].expand(*inside.shape, labels) if labels else inside)


class TestProjectiveSingleRoot(DistributionSuite):
    @staticmethod
    def instances() -> st.SearchStrategy[Instance]:
        return trees(True, True)

    @staticmethod
    def example() -> Instance:
        return instance(random_scores((3, 4, 4), 0), LENGTHS, True, True)

    @staticmethod
    def empties() -> dict[str, Instance]:
        return empty_sentences(True, True)

    @staticmethod
    def padding() -> tuple[Tensor, ...]:
        return (beyond(LENGTHS),)


class TestProjective(DistributionSuite):
    @staticmethod
    def instances() -> st.SearchStrategy[Instance]:
        return trees(True, False)

    @staticmethod
    def example() -> Instance:
        return instance(random_scores((2, 4, 4), 0), None, True, False)

    @staticmethod
    def empties() -> dict[str, Instance]:
        return empty_sentences(True, False)

    @staticmethod
    def padding() -> tuple[Tensor, ...]:
        return (beyond(torch.tensor([3, 3])),)


class TestAnyShapeSingleRoot(DistributionSuite):
    @staticmethod
    def instances() -> st.SearchStrategy[Instance]:
        return trees(False, True)

    @staticmethod
    def example() -> Instance:
        return instance(random_scores((3, 4, 4), 0), LENGTHS, False, True)

    @staticmethod
    def empties() -> dict[str, Instance]:
        return empty_sentences(False, True)

    @staticmethod
    def padding() -> tuple[Tensor, ...]:
        return (beyond(LENGTHS),)


class TestAnyShapeLabelled(DistributionSuite):
    @staticmethod
    def instances() -> st.SearchStrategy[Instance]:
        return trees(False, False, labelled=True)

    @staticmethod
    def example() -> Instance:
        return instance(random_scores((3, 4, 4, 2), 0), LENGTHS, False, False, labelled=True)

    @staticmethod
    def empties() -> dict[str, Instance]:
        return empty_sentences(False, False, labelled=True)

    @staticmethod
    def padding() -> tuple[Tensor, ...]:
        return (beyond(LENGTHS, 2),)


# Closed forms --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("projective", "single_root", "counts"),
    [
        (True, True, [1, 2, 7, 30, 143, 728]),
        (True, False, [math.comb(3 * n, n) // (2 * n + 1) for n in range(1, 7)]),
        (False, True, [n ** (n - 1) for n in range(1, 7)]),
        (False, False, [(n + 1) ** (n - 1) for n in range(1, 7)]),
    ],
)
def test_it_counts_trees(projective: bool, single_root: bool, counts: list[int]) -> None:
    p = lnz.DependencyTree(torch.zeros(6, 7, 7).double(), torch.arange(1, 7), projective, single_root)
    equal(p.log_count, torch.tensor(counts).double().log())
    equal(p.entropy(), torch.tensor(counts).double().log())


@pytest.mark.parametrize(("projective", "single_root"), KINDS)
@pytest.mark.parametrize("scale", [1.0, 200.0])
def test_long_sentences_and_wide_scores(projective: bool, single_root: bool, scale: float) -> None:
    """Every word has one head; the best tree is the likeliest; no probability is above 1."""
    scores = scale * random_scores((3, 31, 31), 1, 0.2)
    scores[:, :, 0] = scores[:, :, 0].nan_to_num(neginf=-scale)
    lengths = torch.tensor([30, 12, 1])
    p = lnz.DependencyTree(scores, lengths, projective, single_root)
    words = (torch.arange(31) > 0) & (torch.arange(31) <= lengths[:, None])
    equal(p.marginals.sum(-1), words.double())
    if single_root:
        equal(p.marginals[:, :, 0].sum(-1), torch.ones(3).double())
    best, others = p.argmax(), p.sample((20,), torch.Generator().manual_seed(0))
    assert (p.log_prob(best) <= 0).all()
    assert (p.log_prob(best) >= p.log_prob(others) - 1e-9).all()
    equal(p.score(best), p.topk(2)[1][0])


@pytest.mark.parametrize(("projective", "single_root"), KINDS)
def test_marginals_of_scores_over_200_and_forbidden_arcs(projective: bool, single_root: bool) -> None:
    for seed in range(10):
        one = instance(100 * random_scores((2, 5, 5), seed, 0.2).clamp(-2, 2), None, projective, single_root)
        if one.oracle.feasible:
            equal(one.p.marginals, one.oracle.marginals[0])
            equal(one.p.log_partition, one.oracle.log_partition)


def test_huge_scores_are_no_more_likely_than_sure() -> None:
    scores = 8e5 * random_scores((4, 9, 9), 0).float()
    for projective, single_root in KINDS:
        p = lnz.DependencyTree(scores, None, projective, single_root)
        assert (p.log_prob(p.argmax()) <= 0).all()
        assert (p.log_prob(p.sample((50,))) <= 0).all()


@given(seeds)
def test_all_trees_are_at_least_as_good_as_projective_ones(seed: int) -> None:
    scores = random_scores((2, 9, 9), seed)
    bound, best = (lnz.DependencyTree(scores, projective=kind).topk(1)[1][0] for kind in (False, True))
    assert (bound >= best - 1e-12).all()


def test_a_long_sentence_parses() -> None:
    scores = random_scores((1011, 1011), 0).float()
    for projective in (True, False):
        y = lnz.DependencyTree(scores, projective=projective).argmax()
        assert (y[1:] == 0).sum() == 1


def test_minimum_bayes_risk_has_the_most_expected_arcs() -> None:
    one = instance(random_scores((3, 5, 5), 4), None, False, True)
    p = lnz.DependencyTree(*one.leaves, projective=False)
    marginals = p.marginals
    expected = [
        max(sum(marginals[b][part].item() for part in tree.parts[0]) for tree in entry)
        for b, entry in enumerate(one.oracle.entries)
    ]
    y = p.minimum_bayes_risk()
    found = marginals.gather(-1, y.unsqueeze(-1)).squeeze(-1)[:, 1:].sum(-1)
    equal(found, torch.tensor(expected, dtype=torch.float64))


def test_heads_that_make_no_tree_are_impossible() -> None:
    p = lnz.DependencyTree(torch.zeros(4, 4))
    assert p.log_prob(torch.tensor([0, 2, 3, 0])) > -math.inf
    for y in ([0, 2, 1, 0], [0, 0, 0, 1], [0, 3, 3, 1], [0, 1, 0, 2]):
        assert p.log_prob(torch.tensor(y)) == -math.inf
    crossing = torch.tensor([0, 0, 4, 1, 1])
    assert lnz.DependencyTree(torch.zeros(5, 5)).log_prob(crossing) == -math.inf
    assert lnz.DependencyTree(torch.zeros(5, 5), projective=False).log_prob(crossing) > -math.inf


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match=r"arc_scores: expected shape \[\*batch, N \+ 1, N \+ 1\], got \[3, 4\]"):
        lnz.DependencyTree(torch.zeros(3, 4))
    with pytest.raises(ValueError, match=r"arc_scores: expected shape \[\*batch, N \+ 1, N \+ 1, R\], got \[3, 3\]"):
        lnz.DependencyTree(torch.zeros(3, 3), labelled=True)
    with pytest.raises(ValueError, match="lengths"):
        lnz.DependencyTree(torch.zeros(2, 3, 3), torch.tensor([1, 3]))
    with pytest.raises(ValueError, match="projective=True and projective=False"):
        torch.distributions.kl_divergence(
            lnz.DependencyTree(torch.zeros(3, 3)), lnz.DependencyTree(torch.zeros(3, 3), projective=False)
        )
