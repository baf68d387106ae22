"""Hidden Markov models with inputs or with known states: values against enumeration, rising EM, and their checks."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import lnz
from lnz.nn import CategoricalEmission, GaussianEmission, HiddenMarkovModel, InputCategoricalEmission, NeuralEmission
from lnz.nn.generalised_em import ascend
from lnz.objectives import em
from tests.suite import equal, random_scores

K, V, U = 2, 3, 2


def categorical(seed: int = 0) -> HiddenMarkovModel:
    scores = [random_scores(shape, seed + i) for i, shape in enumerate([(K,), (K, K), (K, V)])]
    return HiddenMarkovModel(scores[0], scores[1], CategoricalEmission(scores[2]))


def with_inputs(seed: int = 0, scale: float = 1.0) -> HiddenMarkovModel:
    torch.manual_seed(seed)
    transition = nn.Sequential(nn.Linear(U, K * K), nn.Unflatten(-1, (K, K))).double()
    emissions = InputCategoricalEmission(nn.Linear(U, K * V).double(), K, V)
    model = HiddenMarkovModel(random_scores((K,), seed), transition, emissions)
    with torch.no_grad():
        for each in model.parameters():
            each.mul_(scale)
    return model


def by_hand(initial: Tensor, transition: Tensor, emission: Tensor, states: list[int]) -> float:
    """ln Σ over paths through the known states, of tables ``[K]``, ``[T-1, K, K]``, ``[T, K]``, listed one by one."""
    total = []
    for path in itertools.product(range(K), repeat=len(emission)):
        if all(known in (-100, state) for known, state in zip(states, path, strict=True)):
            terms = [initial[path[0]], *(emission[t, k] for t, k in enumerate(path))]
            terms += [transition[t, path[t], path[t + 1]] for t in range(len(path) - 1)]
            total.append(math.fsum(term.item() for term in terms))
    return math.log(math.fsum(map(math.exp, total)))


X = torch.tensor([[0, 2, 1, 1], [1, 1, 0, 2]])
KNOWN = torch.tensor([[-100, 1, -100, 0], [0, -100, -100, -100]])


@torch.no_grad()
def test_known_states_are_part_of_what_is_observed() -> None:
    model = categorical()
    p = model(X, states=KNOWN)
    q = model.initial.log_softmax(-1), model.transition.log_softmax(-1).expand(3, K, K)
    wanted = [by_hand(*q, model.emissions(x), known.tolist()) for x, known in zip(X, KNOWN, strict=True)]
    assert p.log_evidence.tolist() == pytest.approx(wanted)
    evidence, counts = model.e_step(X, states=KNOWN)
    assert float(evidence) == pytest.approx(sum(wanted))
    equal(counts.states[KNOWN == 1], torch.tensor([[0.0, 1.0]]).double())
    equal(counts.states.sum(-1), torch.ones(2, 4).double())


def test_em_with_known_states_rises_to_where_the_gradient_is_0() -> None:
    x = torch.randint(V, (6, 9), generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([9, 4, 1, 9, 0, 7])
    states = torch.randint(K, x.shape, generator=torch.Generator().manual_seed(1))
    states[torch.rand(x.shape, generator=torch.Generator().manual_seed(2)) < 0.6] = -100
    model = categorical(3).fit(x, lengths, states=states, max_iterations=3000, tolerance=1e-14, pseudocount=0.2)
    result = model.training_result
    assert result is not None
    assert result.model is model
    assert (torch.tensor(result.objective).diff() >= -1e-9).all()
    objective = model(x, lengths, states=states).log_evidence.sum() + model.log_prior(0.2)
    assert float(objective.detach()) == pytest.approx(result.objective[-1])
    assert max(g.abs().max() for g in torch.autograd.grad(objective, list(model.parameters()))) < 1e-3
    assert (result.parameters, result.observations) == (1 + 2 + 4, 30)


def test_states_that_are_all_known_are_counted() -> None:
    """As the relative frequencies of a visible chain, in one step; every form of sequences."""
    states = [torch.tensor([0, 1, 1, 0]), torch.tensor([1, 1])]
    x = [torch.tensor([0, 2, 1, 0]), torch.tensor([2, 2])]
    forms = [
        (x, None, states),
        (torch.cat(x).numpy(), [4, 2], torch.cat(states).numpy()),
        (nn.utils.rnn.pad_sequence(x, True), [4, 2], nn.utils.rnn.pad_sequence(states, True, -100)),
    ]
    for data, lengths, known in forms:
        model = categorical().fit(data, lengths, states=known)
        assert model.training_result is not None
        assert model.training_result.iterations == 2
        equal(model.initial.softmax(-1), torch.tensor([0.5, 0.5]).double())
        equal(model.transition.softmax(-1), torch.tensor([[0, 1], [1 / 3, 2 / 3]], dtype=torch.float64))
        wanted = torch.tensor([[1, 0, 0], [0, 0.25, 0.75]], dtype=torch.float64)
        equal(model.emissions.logits.softmax(-1), wanted)


def test_restarts_know_the_states_too() -> None:
    truth = HiddenMarkovModel(torch.zeros(2), 3 * torch.eye(2), GaussianEmission(torch.tensor([[-2.0], [2.0]])))
    x, z = truth.sample(3, 60, torch.Generator().manual_seed(0))
    some = torch.full_like(z, -100)
    some[:, ::20] = z[:, ::20]
    model = HiddenMarkovModel(torch.zeros(2), torch.zeros(2, 2), GaussianEmission(torch.zeros(2, 1))).double()
    model.fit(x, states=some, init="random", restarts=4, pseudocount=0.1, generator=torch.Generator().manual_seed(1))
    assert (model.predict(x) == z).double().mean() > 0.95  # the names of the states, too, are known


@torch.no_grad()
def test_inputs_of_transitions_and_emissions() -> None:
    model, inputs = with_inputs(), random_scores((2, 4, U), 5)
    p = model(X, inputs=inputs)
    for b in range(2):
        steps = model.transition.network(inputs[b, 1:]).log_softmax(-1)
        table = model.emissions.network(inputs[b]).reshape(4, K, V).log_softmax(-1)
        emission = table[torch.arange(4), :, X[b]]
        wanted = by_hand(model.initial.log_softmax(-1), steps, emission, [-100] * 4)
        assert float(p.log_evidence[b]) == pytest.approx(wanted)
    padded = torch.cat((inputs, torch.full((2, 1, U), torch.nan).double()), 1)
    more = torch.cat((X, torch.full((2, 1), 77)), 1)
    equal(model(more, torch.tensor([4, 4]), inputs=padded).log_evidence, p.log_evidence)
    missing = X.clone()
    missing[0, 2] = -100
    each = [
        model(X.index_put((torch.tensor([0]), torch.tensor([2])), torch.tensor(v)), inputs=inputs) for v in range(V)
    ]
    sums = torch.stack([q.log_evidence[0] for q in each]).logsumexp(0)
    equal(model(missing, inputs=inputs).log_evidence[0], sums)


def test_generalised_em_rises_and_finds_the_likelihood_of_a_simulated_model() -> None:
    truth, inputs = with_inputs(1, 4.0), random_scores((40, 30, U), 0)
    x, z = truth.sample(40, 30, torch.Generator().manual_seed(0), inputs=inputs)
    model = with_inputs(2)
    model.fit(x, inputs=inputs, init="random", restarts=3, max_iterations=60, tolerance=1e-6,
              generator=torch.Generator().manual_seed(0))  # fmt: skip
    result = model.training_result
    assert result is not None
    assert (torch.tensor(result.log_evidence).diff() >= -1e-9 * abs(result.log_evidence[0])).all()
    assert model.score(x, inputs=inputs) == pytest.approx(result.log_evidence[-1])
    assert model.score(x, inputs=inputs) > truth.score(x, inputs=inputs) - 1
    parameters = (U + 1) * K * K + (U + 1) * K * V + K - 1
    assert (result.parameters, result.observations) == (parameters, 1200)
    assert model.bic(x, inputs=inputs) == pytest.approx(result.bic)
    assert model.aic(x, inputs=inputs) == pytest.approx(result.aic)
    known = with_inputs(2).fit(x, inputs=inputs, states=z, max_iterations=60)
    assert (known.predict(x, inputs=inputs) == z).double().mean() > 0.75
    assert known.predict_proba(list(x), inputs=list(inputs))[3].shape == (30, K)


def test_a_network_of_a_density_takes_inputs() -> None:
    class Regression(nn.Module):
        """A line of its own for each state, unit variance."""

        def __init__(self) -> None:
            super().__init__()
            self.line = nn.Linear(U, K).double()

        def forward(self, x: Tensor, inputs: Tensor) -> Tensor:
            return -0.5 * ((x - self.line(inputs)).square() + math.log(2 * math.pi))

    torch.manual_seed(0)
    truth = Regression()
    inputs = random_scores((1, 200, U), 0)
    z = (torch.arange(200) // 20) % 2
    lines = 3 * truth.line(inputs).detach()
    x = lines.gather(-1, z[None, :, None]) + 0.1 * random_scores((1, 200, 1), 1)
    model = HiddenMarkovModel(
        random_scores((K,), 0), random_scores((K, K), 1), NeuralEmission(Regression(), takes_inputs=True)
    )
    model.fit(x, inputs=inputs, max_iterations=30)
    result = model.training_result
    assert result is not None
    assert (torch.tensor(result.log_evidence).diff() >= -1e-9 * abs(result.log_evidence[0])).all()
    assert result.log_evidence[-1] > result.log_evidence[0] + 10


def test_gradient_steps_never_go_down() -> None:
    """A line search that ends in NaN or lower is undone."""
    x = nn.Parameter(torch.tensor([1.0]))

    def cliff() -> Tensor:
        value = -x.square().sum()
        return value if x.item() > 0.5 else value - 100

    ascend([x], cliff, 20)
    assert cliff() >= -1
    ascend([x], lambda: -(x - 1).square().sum(), 20)
    equal(x, torch.ones(1))


def test_frames_are_counted_whatever_the_shape() -> None:
    model = HiddenMarkovModel(torch.zeros(2), torch.zeros(2, 2), GaussianEmission(torch.tensor([[0.0, 1], [1, 0]])))
    x = torch.randn(9, 2, generator=torch.Generator().manual_seed(0))
    assert em(model, x, max_iterations=1, pseudocount=1.0).observations == 9
    assert model.bic(x) == pytest.approx(math.log(9) * model.num_parameters() - 2 * model.score(x))
    assert em(categorical(), torch.zeros(9, dtype=torch.int64), max_iterations=1).observations == 9


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: with_inputs()(X), ValueError, r"inputs: expected \[\*batch, T, U\], which the model takes, got None"),
        (lambda: with_inputs().score(X), ValueError, "inputs: expected .* got None"),
        (lambda: categorical()(X, inputs=torch.zeros(2, 4, 1)), ValueError, "inputs: expected None"),
        (lambda: categorical().fit(X, states=KNOWN[:1]), ValueError, "states: expected as many and as long sequences"),
        (lambda: categorical().fit(X, states=KNOWN + 103), ValueError, r"states: expected labels in \[0, 2\)"),
        (lambda: HiddenMarkovModel(torch.zeros(2), None, abs), TypeError, "transition: expected a tensor or a module"),  # type: ignore[arg-type]
        (
            lambda: HiddenMarkovModel(torch.zeros(2), nn.Linear(1, 3), abs)(X, inputs=torch.zeros(2, 4, 1)),  # type: ignore[arg-type]
            (TypeError, ValueError),
            "transition: expected a network that makes logits of shape",
        ),
        (
            lambda: with_inputs().sample(2, 4, inputs=torch.zeros(2, 3, U)),
            ValueError,
            r"inputs: expected shape \[2, 4, U\]",
        ),
    ],
)
def test_arguments_that_make_no_sense(call: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()  # type: ignore[operator]


def test_known_states_that_are_impossible_are_named() -> None:
    model = HiddenMarkovModel(
        torch.zeros(2), torch.tensor([[0.0, -np.inf], [0.0, 0.0]]), CategoricalEmission(torch.zeros(2, V))
    )
    with pytest.raises(lnz.InfeasibleError, match=r"observations of probability 0 in batch entries \[1\]"):
        model.fit(X, states=torch.tensor([[-100] * 4, [0, 1, -100, -100]]))
