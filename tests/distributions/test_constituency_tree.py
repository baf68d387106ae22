"""ConstituencyTree: the shared suite, counts, partial brackets, and its checks."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import lnz
from lnz.ops import backend
from lnz.ops.spans import crossed, is_tree
from tests import oracles
from tests.suite import DistributionSuite, Instance, batch_shapes, equal, impossibilities, random_scores, seeds


def instance(scores: Tensor, lengths: Tensor | None) -> Instance:
    return Instance(
        (scores,),
        lambda scores: lnz.ConstituencyTree(scores, lengths),
        lambda scores: oracles.constituency(scores, lengths),
    )


@st.composite
def sentences(draw: st.DrawFn, with_lengths: bool) -> Instance:
    batch, seed = draw(batch_shapes), draw(seeds)
    N, L = draw(st.sampled_from([(0, 1), (1, 3), (2, 2), (3, 1), (3, 2), (4, 1), (5, 1)]))
    lengths = None
    if with_lengths:
        shape = draw(st.sampled_from([(), batch]))
        lengths = torch.randint(N + 1, shape, generator=torch.Generator().manual_seed(seed))
    return instance(random_scores((*batch, N, N, L), seed, draw(impossibilities) / 2), lengths)


def nothing(with_lengths: bool) -> dict[str, Instance]:
    """A batch of none, and sentences without words."""
    sizes = {"batch": (0, 3), "words": (2, 0)}
    return {
        axis: instance(random_scores((B, N, N, 2), 0), torch.zeros(B, dtype=torch.int64) if with_lengths else None)
        for axis, (B, N) in sizes.items()
    }


def padded(N: int, lengths: Tensor) -> Tensor:
    words = torch.arange(N)
    return (words[:, None] > words) | (torch.maximum(words[:, None], words) >= lengths[:, None, None])


class TestFullLength(DistributionSuite):
    @staticmethod
    def instances() -> st.SearchStrategy[Instance]:
        return sentences(with_lengths=False)

    @staticmethod
    def example() -> Instance:
        return instance(random_scores((2, 3, 3, 2), 0), None)

    @staticmethod
    def empties() -> dict[str, Instance]:
        return nothing(with_lengths=False)

    @staticmethod
    def padding() -> tuple[Tensor, ...]:
        return (padded(3, torch.tensor([3, 3]))[..., None].expand(2, 3, 3, 2),)


class TestLengths(DistributionSuite):
    @staticmethod
    def instances() -> st.SearchStrategy[Instance]:
        return sentences(with_lengths=True)

    @staticmethod
    def example() -> Instance:
        return instance(random_scores((3, 4, 4, 2), 0), torch.tensor([3, 1, 2]))

    @staticmethod
    def empties() -> dict[str, Instance]:
        return nothing(with_lengths=True)

    @staticmethod
    def padding() -> tuple[Tensor, ...]:
        return (padded(4, torch.tensor([3, 1, 2]))[..., None].expand(3, 4, 4, 2),)


# Closed forms ------------------------------------------------------------------------------------------------------


def catalan(n: int) -> int:
    return math.comb(2 * n, n) // (n + 1)


@pytest.mark.parametrize("L", [1, 3])
def test_it_counts_trees(L: int) -> None:
    """Catalan(n − 1) · L^(2n − 1); one tree without words."""
    n = torch.arange(0, 41)
    p = lnz.ConstituencyTree(torch.zeros(41, 40, 40, L).double(), n)
    wanted = [0.0] + [math.log(catalan(k - 1) * L ** (2 * k - 1)) for k in range(1, 41)]
    equal(p.log_count, torch.tensor(wanted, dtype=torch.float64))
    equal(p.entropy(), p.log_count)


def test_marginals_of_all_trees_alike_are_ratios_of_counts() -> None:
    """P(i … j) = C(j − i) C(n − 1 − (j − i)) / C(n − 1): trees of the span, and of what it is one leaf of."""
    n = 12
    p = lnz.ConstituencyTree(torch.zeros(n, n, 1).double())
    wanted = torch.zeros(n, n, 1, dtype=torch.float64)
    for i in range(n):
        for j in range(i, n):
            wanted[i, j] = catalan(j - i) * catalan(n - 1 - (j - i)) / catalan(n - 1)
    equal(p.marginals, wanted)


def test_one_word() -> None:
    scores = random_scores((1, 1, 3), 0)
    p, softmax = lnz.ConstituencyTree(scores), lnz.Softmax(scores[0, 0])
    equal(p.log_partition, softmax.log_partition)
    equal(p.marginals[0, 0], softmax.marginals)
    equal(p.entropy(), softmax.entropy())
    assert p.argmax().tolist() == [[int(scores.argmax())]]


def test_labels_are_summed_out() -> None:
    """The tree is that of collapsed labels, and these a softmax given the tree."""
    scores = random_scores((6, 6, 4), 0)
    p, q = lnz.ConstituencyTree(scores), lnz.ConstituencyTree(scores.logsumexp(-1, keepdim=True))
    equal(p.log_partition, q.log_partition)
    equal(p.marginals, q.marginals * scores.softmax(-1))


# Batches, range ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["auto", "reference"])
def test_each_sentence_of_a_batch_is_what_it_is_alone(name: str) -> None:
    lengths = torch.tensor([4, 9, 1, 20, 2, 0, 19, 17, 5])
    scores = random_scores((9, 20, 20, 2), 0, 0.02)
    with backend(name):
        p = lnz.ConstituencyTree(scores, lengths)
        for b, n in enumerate(lengths.tolist()):
            alone = lnz.ConstituencyTree(scores[b, :n, :n])
            equal(p.log_partition[b], alone.log_partition)
            if torch.isneginf(alone.log_partition):
                continue
            equal(p.condition(p.labelling(p.topk(1)[0][0])).log_partition[b], alone.score(alone.argmax()))
            one = lnz.ConstituencyTree(scores[b : b + 1], lengths[b : b + 1])
            equal(one.marginals[0, :n, :n], alone.marginals)
            equal(one.entropy()[0], alone.entropy())
            assert torch.equal(one.argmax()[0, :n, :n], alone.argmax())


@pytest.mark.parametrize("scale", [1.0, 30.0, 1000.0, 1e5])
def test_any_range_of_scores_is_right(scale: float) -> None:
    """By sums of exponentials, or with logarithms where these have no room, kernels agree with the reference."""
    scores, lengths = (scale * random_scores((4, 36, 36, 3), 0, 0.05)), torch.tensor([36, 20, 33, 17])
    results = []
    for dtype, name in ((torch.float32, "auto"), (torch.float64, "auto"), (torch.float64, "reference")):
        with backend(name):
            p = lnz.ConstituencyTree(scores.float().to(dtype), lengths)
            results.append((p.log_partition, p.marginals, p.score(p.argmax())))
    for single, double, wanted in zip(*results, strict=True):
        equal(double, wanted, rtol=1e-11, atol=1e-8 * max(1.0, scale / 1000))
        equal(single.double(), wanted, rtol=1e-5, atol=1e-4)


def test_gradients_are_marginals_at_any_number_of_threads() -> None:
    scores = random_scores((8, 30, 30, 4), 0).requires_grad_()
    p = lnz.ConstituencyTree(scores)
    (gradient,) = torch.autograd.grad(p.log_partition.sum(), scores)
    equal(gradient, p.marginals)
    equal(gradient.sum((1, 2, 3)), torch.full((8,), 59.0, dtype=torch.float64))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert torch.equal(lnz.ConstituencyTree(scores.detach()).marginals, gradient)
    finally:
        torch.set_num_threads(threads)


# Brackets ----------------------------------------------------------------------------------------------------------


def test_crossing_spans_and_trees_by_enumeration() -> None:
    N = 5
    spans = [(i, j) for i in range(N) for j in range(i, N)]
    for i, j in spans:
        one = torch.zeros(N, N, dtype=torch.bool)
        one[i, j] = True
        wanted = {(k, m) for k, m in spans if i < k <= j < m or k < i <= m < j}
        assert {(int(k), int(m)) for k, m in crossed(one).nonzero()} == wanted
    trees = {frozenset(tree) for tree in oracles.brackets(0, 3)}
    cells = [(i, j) for i in range(4) for j in range(i, 4)]
    for code in range(2 ** len(cells)):
        chosen = frozenset(cell for bit, cell in enumerate(cells) if code >> bit & 1)
        table = torch.zeros(N, N, dtype=torch.bool)
        for i, j in chosen:
            table[i, j] = True
        assert bool(is_tree(table, torch.tensor(4))) == (chosen in trees)


def test_partial_brackets() -> None:
    p = lnz.ConstituencyTree(random_scores((6, 6, 2), 0))
    y = torch.full((6, 6), -100)
    y[1, 3], y[4, 5] = 1, -1
    q = p.condition(y)
    drawn = q.sample((200,), torch.Generator().manual_seed(0))
    assert (drawn[:, 1, 3] == 1).all()
    assert (drawn[:, 4, 5] == -1).all()
    assert len({tuple(tree) for tree in drawn.flatten(1).tolist()}) > 20
    equal(q.marginals[1, 3], torch.tensor([0.0, 1.0], dtype=torch.float64))
    equal(q.marginals[4, 5], torch.zeros(2, dtype=torch.float64))
    equal(p.log_prob(y), q.log_partition - p.log_partition)
    y[2, 4] = 0  # crosses 1 … 3
    assert torch.isneginf(p.log_prob(y))
    with pytest.raises(lnz.InfeasibleError, match=r"marginals: no labelling has a finite score"):
        _ = p.condition(y).marginals


def test_what_is_no_tree_has_no_probability() -> None:
    p = lnz.ConstituencyTree(random_scores((3, 3, 2), 0))
    y = p.argmax()
    for change in (lambda y: y[0, 2].fill_(-1), lambda y: y[0, 1].fill_(0) + y[1, 2].fill_(0)):
        bad = y.clone()
        change(bad)
        assert torch.isneginf(p.score(bad))
        assert torch.isneginf(p.log_prob(bad))
        assert not p.support.check(bad)
    y[2, 0] = 12345  # below the diagonal nothing is looked at
    equal(p.log_prob(y), p.log_prob(p.argmax()))


def test_forbidden_spans_make_it_right_branching() -> None:
    N = 7
    scores = random_scores((N, N, 1), 0)
    words = torch.arange(N)
    allowed = (words[:, None] == words) | (words == N - 1)
    p = lnz.ConstituencyTree(scores.masked_fill(~allowed[..., None], -torch.inf))
    equal(p.log_count, torch.zeros((), dtype=torch.float64))
    equal(p.marginals[..., 0], (allowed & (words[:, None] <= words)).double())
    equal(p.log_prob(p.argmax()), torch.zeros((), dtype=torch.float64))


# Checks ------------------------------------------------------------------------------------------------------------

SCORES = torch.zeros(2, 4, 4, 3)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((SCORES[0, 0],), ValueError, r"span_scores: expected shape \[\*batch, N, N, L\] .* got \[4, 3\]"),
        ((SCORES[:, :3],), ValueError, r"span_scores: expected shape .* got \[2, 3, 4, 3\]"),
        ((SCORES[..., :0],), ValueError, r"span_scores: .* L > 0, got \[2, 4, 4, 0\]"),
        ((SCORES, torch.tensor([5, 2])), ValueError, r"lengths: expected values in \[0, 4\].* got 5 at \[0\]"),
        ((SCORES, torch.tensor([1, 2, 3])), ValueError, r"batch shapes of span_scores and lengths"),
        ((SCORES.tolist(),), TypeError, "span_scores: expected a torch.Tensor, got list"),
    ],
)
def test_arguments_that_make_no_sense(arguments: tuple, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        lnz.ConstituencyTree(*arguments)


def test_a_full_labelling_is_asked_for_by_score() -> None:
    p = lnz.ConstituencyTree(SCORES, torch.tensor([2, 1]))
    y = p.argmax()
    equal(p.score(y), torch.zeros(2))
    y[0, 0, 1] = -100
    with pytest.raises(ValueError, match="y: expected a full labelling, got -100"):
        p.score(y)


def test_it_is_no_mrf() -> None:
    with pytest.raises(TypeError, match="ConstituencyTree is no MRF; families that are: MRF, LinearChain"):
        lnz.ConstituencyTree(SCORES).to_mrf()
    with pytest.raises(TypeError, match="ConstituencyTree has no scores of single labels"):
        lnz.objectives.pseudolikelihood(lnz.ConstituencyTree(SCORES), torch.zeros(2, 4, 4, dtype=torch.int64))


@given(seeds)
def test_the_k_best_without_kernels(seed: int) -> None:
    p = lnz.ConstituencyTree(random_scores((2, 6, 6, 3), seed), torch.tensor([6, 4]))
    best, scores = p.topk(30)
    equal(p.score(best), scores)
    assert (scores[:-1] >= scores[1:]).all()
    assert len({tuple(tree) for tree in best[:, 0].flatten(1).tolist()}) == 30
    with backend("reference"):
        equal(p.topk(1)[1], scores[:1])
