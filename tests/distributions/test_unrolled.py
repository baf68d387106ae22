"""Networks unrolled in time: hidden Markov models by another way, shared tables in EM, and their checks."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

import lnz
from lnz.nn import CategoricalEmission, HiddenMarkovModel
from lnz.objectives import em
from tests.suite import equal, random_scores

K, V, T = 2, 3, 5


def hidden(seed: int = 0) -> tuple[HiddenMarkovModel, lnz.BayesNet]:
    """One hidden Markov model, as a module and unrolled."""
    initial, transition, emission = (
        random_scores(shape, seed + i).log_softmax(-1) for i, shape in enumerate([(K,), (K, K), (K, V)])
    )
    module = HiddenMarkovModel(initial, transition, CategoricalEmission(emission))
    tables = [initial, emission], [transition, emission]
    return module, lnz.unrolled(T, [K, V], [[], [0]], [[0], []], log_cpts=tables, names=["z", "x"])


def rows(x: Tensor) -> Tensor:
    return torch.stack((torch.full_like(x, -100), x), -1).flatten(1)


def symbols() -> Tensor:
    return torch.randint(V, (12, T), generator=torch.Generator().manual_seed(0))


def test_evidence_and_posteriors_are_those_of_the_hidden_markov_model() -> None:
    module, net = hidden()
    x, lengths = symbols(), torch.tensor([5, 1, 3, 0] * 3)
    p = module(x, lengths)
    data = rows(x.masked_fill(torch.arange(T) >= lengths[:, None], -100))
    equal(net.log_prob(data), p.log_evidence)
    smoothed = net.condition(rows(x)).node_marginals[:, ::2, :K]
    equal(smoothed, module(x).smoothed)
    assert net.names[:4] == ("z[0]", "x[0]", "z[1]", "x[1]")
    assert net.ties == ((2, 4, 6, 8), (1, 3, 5, 7, 9))


def test_em_keeps_the_slices_alike_and_goes_the_way_of_the_hidden_markov_model() -> None:
    module, net = hidden()
    x = symbols()
    ours = em(net, rows(x), max_iterations=10, tolerance=0.0, pseudocount=0.3)
    same = em(net, rows(x), max_iterations=10, tolerance=0.0, pseudocount=0.3, tied=net.ties)
    theirs = em(module, x, max_iterations=10, tolerance=0.0, pseudocount=0.3)
    for result in (ours, same):
        assert result.log_evidence == pytest.approx(theirs.log_evidence)
        assert result.objective == pytest.approx(theirs.objective)
        assert result.parameters == theirs.parameters
    learnt = ours.model.log_cpts
    for step in range(1, T):
        equal(learnt[2 * step], module.transition.log_softmax(-1))
        equal(learnt[2 * step + 1], module.emissions.logits.log_softmax(-1))
    drawn = net.drawn(rows(x), torch.Generator().manual_seed(0)).log_cpts
    assert torch.equal(drawn[2], drawn[8])
    full = net.sample((50,), generator=torch.Generator().manual_seed(0))
    counted = net.fit(full).log_cpts
    states = full.reshape(50, T, 2)[..., 0]
    pairs = (
        torch.zeros(K, K)
        .double()
        .index_put_(
            (states[:, :-1].flatten(), states[:, 1:].flatten()), torch.ones(50 * (T - 1)).double(), accumulate=True
        )
    )
    equal(counted[4].exp(), pairs / pairs.sum(-1, keepdim=True))


def test_a_factorial_model_is_a_hidden_markov_model_of_joint_states() -> None:
    steps = 4
    net = lnz.factorial_hmm(steps, [2, 3], V)
    net = net.drawn(torch.zeros(1, 3 * steps), torch.Generator().manual_seed(0))
    assert net.names[:4] == ("chain 0[0]", "chain 1[0]", "symbol[0]", "chain 0[1]")
    q = [table.exp() for table in net.log_cpts]
    joint = list(itertools.product(range(2), range(3)))
    initial = torch.stack([q[0][a] * q[1][b] for a, b in joint])
    transition = torch.stack([torch.stack([q[3][a, c] * q[4][b, d] for c, d in joint]) for a, b in joint])
    emission = torch.stack([q[2][a, b] for a, b in joint])
    x = torch.randint(V, (6, steps), generator=torch.Generator().manual_seed(1))
    data = torch.full((6, steps, 3), -100)
    data[..., 2] = x
    p = lnz.HMM(initial.log(), transition.log(), emission.log()[:, x].movedim(0, -1))
    equal(net.log_prob(data.flatten(1)), p.log_evidence)
    result = em(net, data.flatten(1), max_iterations=20, pseudocount=0.1)
    assert (torch.tensor(result.objective).diff() >= -1e-9).all()
    assert result.parameters == 1 + 2 + 2 * 1 + 3 * 2 + 6 * 2


def test_tables_that_are_tied_start_at_their_mean_and_count_once_in_the_prior() -> None:
    tables = [random_scores(shape, v).log_softmax(-1) for v, shape in enumerate([(2,), (2, 3), (2, 3)])]
    net = lnz.BayesNet([2, 3, 3], [[], [0], [0]], tables).tie([[1, 2]])
    equal(net.log_cpts[2], ((tables[1].exp() + tables[2].exp()) / 2).log())
    assert torch.equal(net.log_cpts[1], net.log_cpts[2])
    data = net.sample((40,), generator=torch.Generator().manual_seed(0))
    data[:, 0] = -100
    result = em(net, data, pseudocount=2.0, max_iterations=30)
    assert (torch.tensor(result.objective).diff() >= -1e-9).all()
    free = result.model.log_cpts
    prior = 2 * float(free[0].sum() + free[1].sum())
    assert result.objective[-1] - result.log_evidence[-1] == pytest.approx(prior)
    assert net.condition(data).ties == net.ties
    loose = em(lnz.BayesNet([2, 3, 3], [[], [0], [0]], tables), data, tied=[[1, 2]], max_iterations=3)
    assert (torch.tensor(loose.log_evidence).diff() >= -1e-9).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, [2], [[]], [[]]), "num_steps: expected a positive integer, got 0"),
        ((2, [2], [[], []], [[]]), "parents: expected one list per variable of a slice, 1, got 2"),
        ((2, [2], [[]], []), "previous: expected one list per variable of a slice, 1, got 0"),
        ((2, [2], [[]], [[1]]), r"previous\[0\]: expected variables of a slice, in \[0, 1\), got 1"),
        ((2, [2, 2], [[1], [0]], [[], []]), "parents: expected no directed cycle"),
    ],
)
def test_slices_that_make_no_sense(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lnz.unrolled(*arguments)  # type: ignore[arg-type]


def test_tables_of_slices_are_checked() -> None:
    uniform = torch.full((2,), 0.5).log()
    with pytest.raises(ValueError, match=r"log_cpts\[1\]: expected one table per variable of a slice, 1, got 2"):
        lnz.unrolled(2, [2], [[]], [[0]], log_cpts=([uniform], [uniform, uniform]))
    with pytest.raises(ValueError, match=r"log_cpts\[1\]: expected shape \[\*batch, 2, 2\], of parents \[0\]"):
        lnz.unrolled(2, [2], [[]], [[0]], log_cpts=([uniform], [uniform]))
