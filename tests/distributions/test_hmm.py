"""HMM: the shared suite, filtering and prediction by definition, closed forms, and its checks."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import lnz
from tests import oracles
from tests.suite import DistributionSuite, Instance, batch_shapes, equal, impossibilities, random_scores, seeds


def instance(initial: Tensor, transition: Tensor, emission: Tensor, lengths: Tensor | None) -> Instance:
    """Scores of any size: the suite perturbs, cools and forbids them, which no log-probabilities survive."""
    return Instance(
        (initial, transition, emission),
        lambda *leaves: lnz.HMM(*leaves, lengths, normalised=False),
        lambda *leaves: oracles.hidden_markov(*leaves, lengths),
    )


def empty_scores(shared: bool, with_lengths: bool) -> dict[str, Instance]:
    """A batch of none, and sequences of no step."""
    found = {}
    for axis, B, T in (("batch", 0, 3), ("steps", 2, 0)):
        lengths = torch.zeros(B, dtype=torch.int64) if with_lengths else None
        transition = random_scores((2, 2) if shared else (B, max(0, T - 1), 2, 2), 1)
        found[axis] = instance(random_scores((2,), 0), transition, random_scores((B, T, 2), 2), lengths)
    return found


@st.composite
def scores(draw: st.DrawFn, shared: bool, with_lengths: bool) -> Instance:
    batch, T, K, seed = draw(batch_shapes), draw(st.integers(0, 4)), draw(st.integers(1, 3)), draw(seeds)
    impossible = draw(impossibilities)
    steps = draw(st.sampled_from([max(0, T - 1), 1]))
    own = draw(st.sampled_from([(), batch]))
    lengths = None
    if with_lengths:
        shape = draw(st.sampled_from([(), batch]))
        lengths = torch.randint(T + 1, shape, generator=torch.Generator().manual_seed(seed))
    return instance(
        random_scores((*draw(st.sampled_from([(), batch])), K), seed, impossible / 2),
        random_scores((K, K) if shared else (*own, steps, K, K), seed + 1, impossible / 2),
        random_scores((*batch, T, K), seed + 2, impossible / 2),
        lengths,
    )


class TestSharedTransition(DistributionSuite):
    @staticmethod
    def instances() -> st.SearchStrategy[Instance]:
        return scores(shared=True, with_lengths=False)

    @staticmethod
    def example() -> Instance:
        return instance(random_scores((2,), 0), random_scores((2, 2), 1), random_scores((2, 3, 2), 2), None)

    @staticmethod
    def empties() -> dict[str, Instance]:
        return empty_scores(shared=True, with_lengths=False)


class TestTransitionPerPositionAndLengths(DistributionSuite):
    @staticmethod
    def instances() -> st.SearchStrategy[Instance]:
        return scores(shared=False, with_lengths=True)

    @staticmethod
    def example() -> Instance:
        lengths = torch.tensor([3, 1, 2])
        return instance(random_scores((3, 2), 0), random_scores((2, 2, 2), 1), random_scores((3, 3, 2), 2), lengths)

    @staticmethod
    def empties() -> dict[str, Instance]:
        return empty_scores(shared=False, with_lengths=True)

    @staticmethod
    def padding() -> tuple[Tensor, ...]:
        beyond = torch.arange(3) >= torch.tensor([3, 1, 2])[:, None]
        never = torch.zeros(3, 2, dtype=torch.bool), torch.zeros(2, 2, 2, dtype=torch.bool)  # shared by the batch
        return *never, beyond[..., None].expand(3, 3, 2)


# Filtering, prediction, smoothing ----------------------------------------------------------------------------------


@st.composite
def models(draw: st.DrawFn) -> lnz.HMM:
    """Log-probabilities, some of them −inf, of a model whose every row is possible."""
    batch, T, K, seed = draw(batch_shapes), draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(seeds)
    table = draw(st.sampled_from([(K, K), (T - 1, K, K), (*batch, T - 1, K, K), (1, K, K)]))
    impossible = draw(impossibilities)

    def rows(shape: tuple[int, ...], seed: int) -> Tensor:
        drawn = random_scores(shape, seed, impossible)
        drawn[..., 0] = 0.5  # one entry of each row stays possible
        return drawn.log_softmax(-1)

    lengths = torch.randint(T + 1, batch, generator=torch.Generator().manual_seed(seed))
    emission = random_scores((*batch, T, K), seed + 2)
    return lnz.HMM(rows((K,), seed), rows(table, seed + 1), emission, draw(st.sampled_from([None, lengths])))


def cut(p: lnz.HMM, t: int) -> lnz.HMM:
    """The model of the first t + 1 observations."""
    lengths = torch.full(p.batch_shape, t + 1) if p.lengths is None else p.lengths.clamp(max=t + 1)
    return lnz.HMM(p.initial, p.transition, p.emission, lengths)


@given(models())
def test_filtered_is_smoothed_of_what_came_so_far(p: lnz.HMM) -> None:
    (T,) = p.event_shape
    inside = p._chain.inside.expand(*p.batch_shape, T)[..., None]
    for t in range(T):
        equal(p.filtered[..., t, :], torch.where(inside[..., t, :], cut(p, t).smoothed[..., t, :], 0.0))
    equal(p.filtered.sum(-1), inside[..., 0].double())


@given(models(), st.integers(0, 4))
def test_predicted_is_smoothed_of_a_future_without_observations(p: lnz.HMM, steps: int) -> None:
    """An emission of log-probability 0 says nothing: what the model then believes of a step is its prediction."""
    (T,) = p.event_shape
    actual = p.predicted(steps)
    assert actual.shape == p.filtered.shape
    lengths = torch.full(p.batch_shape, T) if p.lengths is None else p.lengths
    pad = torch.nn.functional.pad
    for t in range(T):
        silent = pad(p.emission[..., : t + 1, :], (0, 0, 0, T + steps - t - 1))
        transition = p.transition
        if transition.dim() > 2:
            transition = pad(
                transition.expand(*transition.shape[:-3], max(0, T - 1), -1, -1), (0, 0, 0, 0, 0, steps), value=0.0
            )
        future = lnz.HMM(p.initial, transition, silent, normalised=False)
        wanted = future.smoothed[..., t + steps, :]
        known = (t < lengths) & ((t + steps < lengths) | (p.transition.dim() == 2))
        equal(actual[..., t, :], torch.where(known[..., None], wanted.expand(actual[..., t, :].shape), 0.0))


def test_one_table_for_all_positions_may_be_given_with_an_axis_for_them() -> None:
    initial, transition = random_scores((3,), 0).log_softmax(-1), random_scores((1, 3, 3), 1).log_softmax(-1)
    p = lnz.HMM(initial, transition, random_scores((2, 4, 3), 2))
    q = lnz.HMM(initial, transition.expand(3, 3, 3), p.emission)
    equal(p.predicted(2), q.predicted(2))


def test_without_observations_it_is_its_markov_chain() -> None:
    initial, transition = random_scores((4,), 0).log_softmax(-1), random_scores((4, 4), 1).log_softmax(-1)
    p = lnz.HMM(initial, transition, torch.zeros(6, 4, dtype=torch.float64))
    equal(p.log_evidence, torch.zeros((), dtype=torch.float64))
    wanted = initial.exp()
    for t in range(6):
        equal(p.filtered[t], wanted)
        equal(p.smoothed[t], wanted)
        wanted = wanted @ transition.exp()
        equal(p.predicted()[t], wanted)


def test_by_hand() -> None:
    """Umbrellas (Russell & Norvig, section 14.2): P(rain) after two days with an umbrella, and smoothed."""
    change, umbrella = [[0.7, 0.3], [0.3, 0.7]], [0.9, 0.2]
    initial, transition, emission = (torch.tensor(x, dtype=torch.float64).log() for x in ([0.5, 0.5], change, umbrella))
    p = lnz.HMM(initial, transition, emission.expand(2, 2))
    equal(p.filtered[:, 0], torch.tensor([9 / 11, 621 / 703], dtype=torch.float64))
    equal(p.smoothed[0, 0], torch.tensor(621 / 703, dtype=torch.float64))
    equal(p.predicted()[0, 0], torch.tensor(0.7 * 9 / 11 + 0.3 * 2 / 11, dtype=torch.float64))
    paths = itertools.product(range(2), repeat=2)
    evidence = sum(0.5 * umbrella[a] * change[a][b] * umbrella[b] for a, b in paths)
    equal(p.log_evidence, torch.tensor(math.log(evidence), dtype=torch.float64))
    assert p.argmax().tolist() == [0, 0]


@given(models())
def test_evidence_is_the_sum_over_predictions_of_each_observation(p: lnz.HMM) -> None:
    """ln p(x) = Σ_t ln p(x_t | x_<t)."""
    (T,) = p.event_shape
    total = torch.zeros(p.batch_shape, dtype=torch.float64)
    for t in range(T):
        before = p.initial.exp().expand(*p.batch_shape, -1) if t == 0 else cut(p, t - 1).predicted()[..., t - 1, :]
        if t and p.transition.dim() > 2:
            before = lnz.HMM(p.initial, p.transition, p.emission).predicted()[..., t - 1, :]
        inside = p._chain.inside[..., t]
        total = total + torch.where(inside, (before * p.emission[..., t, :].exp()).sum(-1).log(), 0.0)
    equal(p.log_evidence, total)


@given(models())
def test_fishers_identity(p: lnz.HMM) -> None:
    """The gradient of the evidence by the log-probabilities is the expected counts."""
    leaves = [leaf.clone().requires_grad_() for leaf in p.scores]
    q = lnz.HMM(*leaves, p.lengths)
    actual = torch.autograd.grad(q.log_evidence.sum(), leaves)
    initial, pairs, smoothed = p.marginals
    equal(actual[0], initial.sum_to_size(p.initial.shape))
    if p.transition.dim() == 2:
        equal(actual[1], pairs.flatten(0, -3).sum(0))
    elif p.transition.shape[-3]:
        equal(actual[1], pairs.sum_to_size(p.transition.shape) if pairs.shape[-3] else torch.zeros_like(p.transition))
    equal(actual[2], smoothed.sum_to_size(p.emission.shape))


def test_filtered_and_predicted_are_differentiable() -> None:
    leaves = [random_scores((2,), 0).requires_grad_(), random_scores((2, 2), 1).requires_grad_()]
    emission = random_scores((2, 3, 2), 2).requires_grad_()

    def answers(initial: Tensor, transition: Tensor, emission: Tensor) -> tuple[Tensor, ...]:
        p = lnz.HMM(initial.log_softmax(-1), transition.log_softmax(-1), emission, torch.tensor([3, 1]))
        return p.filtered, p.predicted(2)

    assert torch.autograd.gradcheck(answers, (*leaves, emission))


@pytest.mark.parametrize("scale", [1.0, 30.0, 1000.0])
@pytest.mark.parametrize("banded", [False, True])
def test_filtering_is_right_at_any_range_of_scores_in_float32(scale: float, banded: bool) -> None:
    transition = random_scores((4, 4), 1, 0.4 if banded else 0.0).fill_diagonal_(0.0).log_softmax(-1).float()
    initial, emission = random_scores((4,), 0).log_softmax(-1).float(), (scale * random_scores((2, 50, 4), 2)).float()
    lengths = torch.tensor([50, 20])
    single = lnz.HMM(initial, transition, emission, lengths)
    with lnz.ops.backend("reference"):
        double = lnz.HMM(*(leaf.double() for leaf in single.scores), lengths)
        wanted = double.filtered
    equal(single.filtered.double(), wanted, rtol=1e-4, atol=1e-5)


def test_filtering_of_a_long_sequence_costs_no_tape() -> None:
    initial, transition = random_scores((8,), 0).log_softmax(-1), random_scores((8, 8), 1).log_softmax(-1)
    p = lnz.HMM(initial, transition, random_scores((50_000, 8), 2))
    assert p.filtered.shape == (50_000, 8)
    equal(p.filtered.sum(-1), torch.ones(50_000, dtype=torch.float64))
    equal(p.filtered[-1], p.smoothed[-1])


def test_posterior_samples_are_paths_of_positive_probability() -> None:
    transition = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.5, 0.5], [0.0, 0.0, 1.0]], dtype=torch.float64).log()
    initial = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64).log()
    p = lnz.HMM(initial, transition, random_scores((5, 3), 0))
    drawn = p.sample((200,), generator=torch.Generator().manual_seed(0))
    assert torch.isfinite(p.log_prob(drawn)).all()
    assert (drawn.diff(dim=-1) >= 0).all()
    assert (drawn[:, 0] == 0).all()


def test_equals_its_mrf() -> None:
    initial, transition = random_scores((3,), 0).log_softmax(-1), random_scores((3, 3), 1).log_softmax(-1)
    p = lnz.HMM(initial, transition, random_scores((2, 4, 3), 2), torch.tensor([4, 2]))
    q = p.to_mrf()
    equal(q.log_partition, p.log_evidence)
    equal(q.node_marginals[0], p.smoothed[0])
    equal(q.log_prob(p.argmax()), p.log_prob(p.argmax()))


def test_max_marginals_are_the_best_scores_of_paths() -> None:
    p = lnz.HMM(INITIAL, TRANSITION, EMISSION)
    nodes, pairs = p.max_marginals()
    (T,), K = p.event_shape, p.num_labels
    paths = torch.tensor(list(itertools.product(range(K), repeat=T)))
    scores = torch.stack([p.score(z) for z in paths])  # [paths, *batch]
    for t in range(T):
        for k in range(K):
            equal(nodes[..., t, k], scores[paths[:, t] == k].amax(0))
            for j in range(K if t + 1 < T else 0):
                equal(pairs[..., t, k, j], scores[(paths[:, t] == k) & (paths[:, t + 1] == j)].amax(0))


def test_objectives_of_single_labels_take_it() -> None:
    p = lnz.HMM(*(leaf.log_softmax(-1) for leaf in (random_scores((3,), 0), random_scores((3, 3), 1))),
                random_scores((2, 4, 3), 2))  # fmt: skip
    y = torch.tensor([[0, 1, 2, 0], [1, 1, 0, 2]])
    equal(lnz.objectives.pseudolikelihood(p, y), lnz.objectives.pseudolikelihood(p.to_mrf(), y))
    equal(p.label_scores(y).log_softmax(-1), p.to_mrf().label_scores(y).log_softmax(-1))
    added = random_scores((2, 4, 3), 5)
    equal(p.with_node_scores(added).log_partition, lnz.HMM(p.initial, p.transition, p.emission + added).log_partition)


# Checks ------------------------------------------------------------------------------------------------------------

INITIAL, TRANSITION, EMISSION = torch.zeros(2).log_softmax(-1), torch.zeros(2, 2).log_softmax(-1), torch.zeros(3, 4, 2)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((INITIAL, TRANSITION, EMISSION[0, 0]), ValueError, r"emission: expected shape \[\*batch, T, K\] .* got \[2\]"),
        ((INITIAL[:1], TRANSITION, EMISSION), ValueError, r"initial: expected shape \[\*batch, 2\], got \[1\]"),
        ((INITIAL, TRANSITION[:1], EMISSION), ValueError, r"transition: expected shape \[2, 2\] or \[\*batch, 3, 2, 2"),
        ((INITIAL, TRANSITION.to("meta"), EMISSION), TypeError, "transition: expected device cpu as emission"),
        ((INITIAL, TRANSITION, EMISSION, torch.tensor([4, 5, 1])), ValueError, r"lengths: .*\[0, 4\].* 5 at \[1\]"),
        ((INITIAL, TRANSITION, EMISSION, torch.ones(3)), TypeError, "lengths: expected integers, got dtype"),
        ((INITIAL, TRANSITION, EMISSION, torch.tensor([1, 2])), ValueError, "batch shapes of initial, .* and lengths"),
        ((INITIAL.exp(), TRANSITION, EMISSION), ValueError, "initial: expected log-probabilities, .* a sum of 3.297"),
        (
            (INITIAL, TRANSITION + torch.tensor([[0.0], [0.5]]), EMISSION),
            ValueError,
            r"transition: expected log-probabilities, .* a sum of 1.64872 in row \[1\]; log_softmax",
        ),
        (
            (INITIAL, TRANSITION.masked_fill(torch.tensor([[True], [False]]), -torch.inf).expand(3, 2, 2), EMISSION),
            ValueError,
            r"transition: .* a sum of 0 in row \[0, 0\]",
        ),
    ],
)
def test_arguments_that_make_no_sense(arguments: tuple, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        lnz.HMM(*arguments)


def test_rows_of_padding_are_not_looked_at() -> None:
    transition = TRANSITION.expand(3, 2, 2).clone()
    transition[2] = 7.0
    assert lnz.HMM(INITIAL, transition, EMISSION, torch.tensor([3, 0, 1])).log_evidence.shape == (3,)
    with pytest.raises(ValueError, match=r"in row \[2, 2, 0\]"):
        lnz.HMM(INITIAL, transition, EMISSION, torch.tensor([3, 0, 4]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_rounded_logarithms_are_log_probabilities(dtype: torch.dtype) -> None:
    initial, transition = random_scores((500,), 0).log_softmax(-1), random_scores((500, 500), 1).log_softmax(-1)
    assert lnz.HMM(initial.to(dtype), transition.to(dtype), torch.zeros(2, 500, dtype=dtype)).num_labels == 500


def test_a_rescaled_model_does_not_filter() -> None:
    p = lnz.HMM(INITIAL, TRANSITION, EMISSION)
    for q in (p.tempered(2.0), lnz.HMM(INITIAL, TRANSITION, EMISSION, normalised=False)):
        assert q.smoothed.shape == (3, 4, 2)
        with pytest.raises(ValueError, match="HMM.filtered: expected initial and transition to be log-probabilities"):
            q.predicted()
    assert p.condition(torch.full((3, 4), -100)).filtered.shape == (3, 4, 2)
    with pytest.raises(ValueError, match=r"steps: expected an integer of at least 0, got 1\.5"):
        p.predicted(1.5)
    with pytest.raises(ValueError, match="steps: expected an integer of at least 0, got -1"):
        p.predicted(-1)


def test_infeasible_entries_are_named() -> None:
    emission = EMISSION.clone()
    emission[1, 2] = -torch.inf
    p = lnz.HMM(INITIAL, TRANSITION, emission)
    for call in (lambda: p.smoothed, lambda: p.filtered, p.argmax, p.sample):
        with pytest.raises(
            lnz.InfeasibleError, match=r"HMM\.\w+: no labelling has a finite score in batch entries \[1"
        ):
            call()


@pytest.mark.parametrize("shape", [(3,), (3, 0), ()])
def test_emissions_without_steps_or_states_are_refused(shape: tuple[int, ...]) -> None:
    states = shape[-1] if shape else 1
    with pytest.raises(ValueError, match=r"emission: expected shape \[\*batch, T, K\] with K > 0, got"):
        lnz.HMM(torch.zeros(states), torch.zeros(states, states), torch.zeros(shape), normalised=False)
    with pytest.raises(ValueError, match=r"initial: expected shape \[\*batch, 2\], got"):
        lnz.HMM(torch.zeros(shape[:1]).sum(), torch.zeros(2, 2), torch.zeros(3, 2), normalised=False)
