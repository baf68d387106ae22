"""How EM runs: other E steps, starts at once, states that are saved and resumed, weights, and latent classes."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

import lnz
from lnz.distributions import BayesNet
from lnz.inference import BeliefPropagation, Enumeration, Gibbs, MeanField
from lnz.nn import CategoricalEmission, HiddenMarkovModel
from lnz.objectives import EMState, em
from tests.suite import equal, random_scores


def tables(cards: list[int], parents: list[list[int]], seed: int = 0) -> list[Tensor]:
    return [
        random_scores(tuple(cards[n] for n in (*above, v)), seed + v).log_softmax(-1) for v, above in enumerate(parents)
    ]


def network(loopy: bool, seed: int = 0) -> BayesNet:
    cards, parents = [2, 3, 2, 2], [[], [0], [0], [1, 2] if loopy else [1]]
    return BayesNet(cards, parents, tables(cards, parents, seed))


def holes(net: BayesNet, rows: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    y = net.sample((rows,), generator=generator)
    return y.masked_fill(torch.rand(y.shape, generator=generator) < 0.4, -100)


def hidden(seed: int = 0) -> HiddenMarkovModel:
    scores = [random_scores(shape, seed + i) for i, shape in enumerate([(2,), (2, 2), (2, 3)])]
    return HiddenMarkovModel(scores[0], scores[1], CategoricalEmission(scores[2]))


SYMBOLS = torch.randint(3, (4, 9), generator=torch.Generator().manual_seed(0))

# Other E steps -----------------------------------------------------------------------------------------------------


def test_belief_propagation_is_exact_on_trees_and_close_elsewhere() -> None:
    for loopy in (False, True):
        net = network(loopy)
        data = holes(net, 40, 1)
        exact = em(net, data, max_iterations=10, tolerance=0.0)
        found = em(net, data, max_iterations=10, tolerance=0.0, method=BeliefPropagation())
        within = {"rel": 1e-8} if not loopy else {"rel": 0.02}
        assert found.log_evidence == pytest.approx(exact.log_evidence, **within)
        assert found.model.inference == net.inference
        listed = em(net, data, max_iterations=10, tolerance=0.0, method=Enumeration())
        assert listed.log_evidence == pytest.approx(exact.log_evidence)


def test_an_approximate_bound_may_fall_and_a_sampler_has_none() -> None:
    net = network(True)
    data = holes(net, 40, 2)
    bound = em(net, data, max_iterations=5, method=MeanField())
    assert all(
        low <= high + 1e-9 for low, high in zip(bound.log_evidence[:1], em(net, data).log_evidence[:1], strict=True)
    )
    drawn = em(net, data, max_iterations=3, method=Gibbs(chains=64, warmup=20, sweeps=100, max_r_hat=math.inf))
    exact = em(net, data, max_iterations=3)
    assert all(math.isnan(value) for value in drawn.log_evidence)
    assert not drawn.converged
    for one, two in zip(drawn.model.log_cpts, exact.model.log_cpts, strict=True):
        equal(one.exp(), two.exp(), atol=0.05, rtol=0)
    with pytest.raises(ValueError, match="restarts: expected 1 with Gibbs, whose starts have no evidence to compare"):
        em(net, data, restarts=2, method=Gibbs())
    with pytest.raises(TypeError, match=r"method: HiddenMarkovModel has no with_inference\(\)"):
        em(hidden(), SYMBOLS, method=MeanField())


# Starts at once ----------------------------------------------------------------------------------------------------


def classes(seed: int = 0) -> BayesNet:
    cards = [2, 3, 2, 2]
    model = lnz.latent_class(cards[0], cards[1:])
    return model._with(tables(cards, [[], [0], [0], [0]], seed), joint=True)


@pytest.mark.parametrize("kind", ["network", "classes"])
@pytest.mark.parametrize("pseudocount", [0.0, 0.4])
def test_starts_at_once_are_those_in_turn(kind: str, pseudocount: float) -> None:
    net = network(True) if kind == "network" else classes()
    data = holes(net, 50, 3)
    settings = {"pseudocount": pseudocount, "max_iterations": 40, "tolerance": 1e-4}
    told: dict[int, list[float]] = {}

    def tell(start: int, iteration: int, objective: float) -> None:
        told.setdefault(start, []).append(objective)
        assert len(told[start]) == iteration + 1

    found = em(net, data, restarts=4, generator=torch.Generator().manual_seed(0), progress=tell, **settings)
    generator = torch.Generator().manual_seed(0)
    alone = [em(start, data, **settings) for start in [net, *(net.drawn(data, generator) for _ in range(3))]]
    assert found.starts == pytest.approx([one.log_evidence[-1] for one in alone])
    assert len({len(one.objective) for one in alone}) > 1  # they stop at different times
    assert [told[start] for start in range(4)] == [pytest.approx(one.objective) for one in alone]
    best = max(alone, key=lambda one: one.objective[-1])
    assert found.iterations == best.iterations
    for one, two in zip(found.model.log_cpts, best.model.log_cpts, strict=True):
        equal(one, two)


def test_ties_hold_in_every_start() -> None:
    net = lnz.unrolled(4, [2, 3], [[], [0]], [[0], []])
    data = torch.stack((torch.full((30, 4), -100), torch.randint(3, (30, 4), generator=torch.Generator())), -1).flatten(
        1
    )
    result = em(net, data, restarts=3, pseudocount=0.5, max_iterations=20, generator=torch.Generator().manual_seed(0))
    assert (torch.tensor(result.objective).diff() >= -1e-9).all()
    equal(result.model.log_cpts[2], result.model.log_cpts[6])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_classes_are_counted_in_closed_form_as_by_any_network(dtype: torch.dtype) -> None:
    """Holes anywhere, classes that are seen, weights, zeros in the tables, a row of holes."""
    net = classes()
    given = list(net.log_cpts)
    given[2] = torch.tensor([[0.0, 1.0], [0.3, 0.7]]).double().log()
    net = net._with([table.to(dtype) for table in given], joint=True)
    data = torch.cat((holes(net, 60, 4), torch.full((1, 4), -100)))
    weights = torch.rand(61, generator=torch.Generator().manual_seed(0))
    tolerance = {"rtol": 1e-5, "atol": 1e-4} if dtype == torch.float32 else {}
    plain = BayesNet(net.cardinalities, net.parents, net.log_cpts)
    for each in (None, weights):
        (evidence, counts), (wanted, other) = net.e_step(data, weights=each), plain.e_step(data, weights=each)
        equal(evidence, wanted, **tolerance)
        for one, two in zip(counts, other, strict=True):
            equal(one, two, **tolerance)
    with pytest.raises(lnz.InfeasibleError, match=r"data: expected rows of positive probability, got 0 for rows \[1\]"):
        net.e_step(torch.tensor([[-100, 0, 0, 0], [0, 0, 0, 0]]))


# States ------------------------------------------------------------------------------------------------------------


class StopError(Exception):
    """What interrupts a run."""


@pytest.mark.parametrize(
    "kind", ["network", "float32", "restarts", "minibatches", "hidden", "hidden restarts", "classes restarts"]
)
def test_a_saved_run_goes_on_exactly(kind: str, tmp_path: Path) -> None:
    def run(state: EMState | None, stop: int = -1) -> lnz.objectives.EMResult:
        calls = 0

        def progress(*told: float) -> None:
            nonlocal calls
            calls += 1
            if calls == stop:
                assert state is not None
                torch.save(state.state_dict(), tmp_path / "em.pt")
                raise StopError

        generator = torch.Generator().manual_seed(0)
        settings = {"generator": generator, "progress": progress, "state": state, "max_iterations": 12}
        settings |= {"restarts": 3} if "restarts" in kind else {}
        settings |= {"batch_size": 10} if kind == "minibatches" else {}
        if "hidden" in kind:
            return em(hidden(), SYMBOLS, pseudocount=0.1, **settings)
        net = classes() if "classes" in kind else network(True)
        net = net.to(torch.float32) if kind == "float32" else net
        return em(net, holes(net, 50, 5), **settings)

    wanted = run(None)
    for stop in (1, 5, 8):
        with pytest.raises(StopError):
            run(EMState(), stop)
        state = EMState.from_state_dict(torch.load(tmp_path / "em.pt"))
        found = run(state)
        assert found.log_evidence == wanted.log_evidence
        assert found.objective == wanted.objective
        assert found.starts == wanted.starts
        ours, theirs = found.model.state_dict(), wanted.model.state_dict()
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_finished_state_is_no_work_and_more_iterations_go_on() -> None:
    net = network(True)
    data = holes(net, 50, 6)
    state = EMState()
    first = em(net, data, max_iterations=3, tolerance=0.0, state=state)
    calls = []
    again = em(net, data, max_iterations=3, tolerance=0.0, state=EMState.from_state_dict(state.state_dict()),
               progress=lambda *told: calls.append(told))  # fmt: skip
    assert not calls
    assert again.log_evidence == first.log_evidence
    with pytest.raises(ValueError, match="state: expected one of 2 starts, got 1"):
        em(net, data, restarts=2, state=EMState.from_state_dict(state.state_dict()))


# Arguments ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (torch.ones(3), r"weights: expected shape \[4\], one per row, got \[3\]"),
        (torch.tensor([1.0, -1, 1, 1]), "weights: expected finite numbers of at least 0"),
        (torch.tensor([1.0, math.nan, 1, 1]), "weights: expected finite numbers of at least 0"),
        (torch.zeros(4), "weights: expected finite numbers of at least 0, not all of them 0"),
    ],
)
def test_weights_that_make_no_sense(weights: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        em(network(False), torch.full((4, 4), -100), weights=weights)


@pytest.mark.parametrize("column", [0, -100])
def test_columns_of_one_value_or_of_none_are_learnt(column: int) -> None:
    for net in (network(True), classes()):
        data = holes(net, 40, 7)
        data[:, 2] = column
        result = em(net, data, restarts=3, max_iterations=50, generator=torch.Generator().manual_seed(0))
        assert (torch.tensor(result.log_evidence).diff() >= -1e-9).all()
        assert all(not table.isnan().any() for table in result.model.log_cpts)
        if column == 0:
            used = result.model.expected_statistics(data, reduce=True)[2].sum(-1) > 1e-9
            equal(result.model.log_cpts[2].exp()[used][..., 0], torch.ones(int(used.sum())).double())
