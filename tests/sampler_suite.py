"""The suite that every sampler inherits: its distribution against enumeration, on all states of small models.

Three tests share their models: chains from random starts end in P (chi-square on every state); draws from P are draws
from P one sweep later (stationarity, whatever the mixing time); and where a sampler claims to be reversible, the flow
from x to y is that from y to x (Bowker's test of symmetry on every pair of states).
"""

from __future__ import annotations

import io
import math
from abc import ABC
from collections.abc import Callable
from functools import cache
from typing import ClassVar

import pytest
import torch
from scipy.stats import chi2
from torch import Tensor

import lnz
from lnz.inference import Chains, Sampler
from lnz.ops import backend
from tests.oracles import Oracle, factor_graph
from tests.suite import random_scores, written_out

SMALLEST = 1e-4
"""The p-value below which a test fails; seeds are fixed, so a test that passes keeps passing."""


def chain() -> lnz.MRF:
    g = lnz.FactorGraph.pairwise(3, 3, torch.tensor([[0, 1], [1, 2]]))
    return lnz.MRF(g, (random_scores((2, 3, 3), 1) / 2, random_scores((2, 2, 3, 3), 2) / 2))


def grid() -> lnz.MRF:
    return lnz.MRF(lnz.FactorGraph.grid(2, 3, 2), (random_scores((6, 2), 3) / 2, random_scores((2, 2), 4) / 2))


def ternary() -> lnz.MRF:
    """A triangle with a ternary factor, pairs, mixed cardinalities, and a constant."""
    scopes = [torch.tensor([[0, 1, 2]]), torch.tensor([[2, 0]]), torch.tensor([[1]]), torch.zeros((1, 0)).long()]
    g = lnz.FactorGraph((2, 3, 2), scopes)
    scores = [
        random_scores((2, 1, 2, 3, 2), 5),
        random_scores((2, 2), 6),
        random_scores((3,), 7),
        random_scores((1,), 8),
    ]
    return lnz.MRF(g, [s / 2 for s in scores])


def impossible() -> lnz.MRF:
    """Some pairs and some labels are impossible, in a way that leaves single changes a path everywhere."""
    g = lnz.FactorGraph.pairwise(4, 3, torch.tensor([[0, 1], [1, 2], [2, 3], [3, 0]]))
    node, edge = (
        random_scores((2, 4, 3), 9) / 2,
        torch.tensor([[0.3, -math.inf, 0.1], [0.2, 0.5, 0.0], [0.0, 0.4, -0.2]]),
    )
    node[0, 1, 2] = -math.inf
    return lnz.MRF(g, (node, lnz.Weighted(torch.tensor([[1.0], [0.5]]).double(), edge.double())))


def observed() -> lnz.MRF:
    p = lnz.MRF(lnz.FactorGraph.grid(2, 3, 2), (random_scores((2, 6, 2), 10) / 2, random_scores((7, 2, 2), 11) / 2))
    return p.condition(torch.tensor([[-100, 1, -100, -100, -100, 0], [-100, -100, -100, 0, -100, -100]]))


def potts() -> lnz.MRF:
    weight = random_scores((2, 4), 12).abs() / 2
    return lnz.MRF(
        lnz.FactorGraph.grid(2, 2, 3), (random_scores((2, 4, 3), 13) / 2, lnz.Weighted(weight, torch.eye(3).double()))
    )


def potts_observed() -> lnz.MRF:
    """Ising, written as ±J, with an impossible label, an observed node, and a pair that must be equal."""
    node, edge = random_scores((6, 2), 14) / 2, torch.tensor([[0.4, -0.4], [-0.4, 0.4]]).double().repeat(7, 1, 1)
    node[5, 1] = -math.inf
    p = lnz.MRF(lnz.FactorGraph.grid(2, 3, 2), (node, edge))
    return p.condition(torch.tensor([-100, -100, 1, -100, -100, -100]))


MODELS: dict[str, Callable[[], lnz.MRF]] = {
    f.__name__: f for f in (chain, grid, ternary, impossible, observed, potts, potts_observed)
}


@cache
def enumerated(name: str) -> tuple[lnz.MRF, Tensor, Tensor]:
    """A model, all its labellings ``[K, N]``, and their probabilities ``[K, batch]``; batch flattened, 1 if none."""
    p = MODELS[name]()
    oracle: Oracle = factor_graph(p.graph.cardinalities, p.graph.scopes, tables(p))
    states = torch.tensor([labelling.y for labelling in oracle.entries[0]])
    if p.model.observed is not None:
        oracle = oracle.condition(p.model.observed.expand(*oracle.batch_shape, -1))
    columns = []
    for b, entry in enumerate(oracle.entries):
        found = dict(zip([labelling.y for labelling in entry], oracle.probabilities(b), strict=True))
        columns.append([found.get(tuple(row), 0.0) for row in states.tolist()])
    return p, states, torch.tensor(columns, dtype=torch.float64).T


def tables(p: lnz.MRF) -> list[Tensor]:
    """The scores of each group written out with a factor axis."""
    found = []
    for entry, labels, factors in zip(p.scores, p.graph.labels, p.graph.num_factors, strict=True):
        table = written_out(entry)
        if table.dim() == len(labels):
            table = table.expand(factors, *labels)
        found.append(table.expand(*p.batch_shape, factors, *labels).reshape(*p.batch_shape, factors, *labels))
    return found


def codes(p: lnz.MRF, labels: Tensor) -> Tensor:
    """The position of each labelling in the list of all: ``[n, batch]``."""
    index = torch.zeros(labels.shape[:-1], dtype=torch.int64)
    for node, card in enumerate(p.graph.cardinalities):
        index = index * card + labels[..., node]
    return index.reshape(len(labels), -1)


def draws(name: str, n: int, seed: int, temperature: float = 1.0) -> Tensor:
    """n exact draws ``[n, *batch, N]``."""
    p, states, probabilities = enumerated(name)
    probabilities = probabilities ** (1 / temperature)  # multinomial normalises
    index = torch.multinomial(probabilities.T, n, replacement=True, generator=torch.Generator().manual_seed(seed))
    return states[index.T].reshape(n, *p.batch_shape, -1)


def assert_distributed(counts: Tensor, probabilities: Tensor) -> None:
    """Chi-square of counts ``[K]`` on all states; what is expected less than 5 times is one class together."""
    expected = probabilities * counts.sum()
    assert counts[probabilities == 0].sum() == 0, "a state of probability 0 was entered"
    rare = expected < 5
    observed = torch.cat((counts[~rare], counts[rare].sum()[None])).double()
    wanted = torch.cat((expected[~rare], expected[rare].sum()[None]))
    kept = wanted > 1
    statistic = ((observed - wanted)[kept] ** 2 / wanted[kept]).sum()
    assert chi2.sf(statistic, max(1, int(kept.sum()) - 1)) > SMALLEST


def assert_all_distributed(name: str, labels: Tensor) -> None:
    p, states, probabilities = enumerated(name)
    for b, index in enumerate(codes(p, labels).T):
        assert_distributed(torch.bincount(index, minlength=len(states)), probabilities[:, b])


def assert_symmetric(flow: Tensor) -> None:
    """Bowker's test on counts ``[K, K]`` of transitions."""
    total, difference = flow + flow.T, flow - flow.T
    pairs = torch.ones_like(flow).triu(1).bool() & (total >= 10)
    statistic = (difference[pairs].double() ** 2 / total[pairs]).sum()
    assert pairs.sum() > 3
    assert chi2.sf(statistic, int(pairs.sum())) > SMALLEST


class SamplerSuite(ABC):
    """See the module's docstring."""

    sampler: ClassVar[Sampler]
    reversible: ClassVar[bool] = False
    serves: ClassVar[frozenset[str]] = frozenset(MODELS)
    """The models that it serves; it must refuse the others."""
    mixes_within: ClassVar[int] = 15
    """Sweeps after which every one of the small models has forgotten its start."""
    draws: ClassVar[int] = 4000

    def served(self, name: str) -> lnz.MRF:
        p = enumerated(name)[0]
        if name not in self.serves:
            with pytest.raises(ValueError, match=type(self.sampler).__name__):
                self.sampler.solve(p.model)
            pytest.skip("is not of the kind that this sampler serves, and is refused")
        return p

    @pytest.mark.parametrize("name", MODELS)
    def test_chains_from_random_starts_end_in_the_distribution(self, name: str, generator: torch.Generator) -> None:
        p = self.served(name)
        chains = self.sampler.init(p.model, self.draws, generator)
        assert torch.isfinite(p.score(chains.labels)).all()
        chains = self.sampler.step(p.model, chains, self.mixes_within, generator)
        assert chains.sweeps == self.mixes_within
        assert_all_distributed(name, chains.labels)

    @pytest.mark.parametrize("name", MODELS)
    def test_the_distribution_is_stationary(self, name: str, generator: torch.Generator) -> None:
        p = self.served(name)
        chains = self.sampler.init(p.model, 5 * self.draws, generator, draws(name, 5 * self.draws, 1))
        chains.carried = self.carried(name, 5 * self.draws)
        chains = self.sampler.step(p.model, chains, 1, generator)
        assert_all_distributed(name, chains.labels)

    @pytest.mark.parametrize("name", MODELS)
    def test_detailed_balance(self, name: str, generator: torch.Generator) -> None:
        if not self.reversible:
            pytest.skip("is not reversible, nor said to be")
        p = self.served(name)
        start = draws(name, 5 * self.draws, 2)
        after = self.sampler.step(p.model, self.sampler.init(p.model, len(start), generator, start), 1, generator)
        K = len(enumerated(name)[1])
        for x, y in zip(codes(p, start).T, codes(p, after.labels).T, strict=True):
            assert_symmetric(torch.bincount(x * K + y, minlength=K * K).reshape(K, K))

    def carried(self, name: str, n: int) -> dict[str, Tensor]:
        """What n chains carry in the stationary state, as far as the sampler does not draw that itself."""
        return {}

    def example(self) -> lnz.MRF:
        return enumerated("potts")[0]

    def test_more_steps_go_on_where_fewer_stopped(self) -> None:
        p = self.example()
        with backend("reference"):  # kernels draw one key per call
            start = self.sampler.init(p.model, 5, torch.Generator().manual_seed(0))
            at_once = self.sampler.step(p.model, start, 4, torch.Generator().manual_seed(1))
            generator = torch.Generator().manual_seed(1)
            half = self.sampler.step(p.model, start, 2, generator)
            twice = self.sampler.step(p.model, half, 2, generator)
        assert_same(at_once, twice)

    def test_the_state_survives_being_saved(self) -> None:
        p = self.example()
        chains = self.sampler.step(p.model, self.sampler.init(p.model, 3, torch.Generator().manual_seed(0)), 2)
        file = io.BytesIO()
        torch.save(chains.state_dict(), file)
        file.seek(0)
        loaded = Chains.from_state_dict(torch.load(file, weights_only=True))
        assert_same(loaded, chains)
        after = [self.sampler.step(p.model, c, 2, torch.Generator().manual_seed(5)) for c in (chains, loaded)]
        assert_same(*after)
        chains.become(after[0])
        assert_same(chains, after[0])

    def test_a_step_leaves_its_chains_alone_and_no_step_changes_nothing(self) -> None:
        p = self.example()
        chains = self.sampler.init(p.model, 50, torch.Generator().manual_seed(0))
        before = chains.labels.clone()
        moved = self.sampler.step(p.model, chains, 3, torch.Generator().manual_seed(1))
        assert torch.equal(chains.labels, before)
        assert not chains.carried
        assert not torch.equal(moved.labels, before)
        assert torch.equal(self.sampler.step(p.model, moved, 0).labels, moved.labels)

    def test_marginals_are_estimates_within_their_error(self) -> None:
        p, states, probabilities = enumerated("potts")
        q = lnz.MRF(p.graph, p.scores, self.sampler)
        diagnostics = q.diagnostics
        exact = torch.stack([(states == label).double().T @ probabilities for label in range(3)], -1).movedim(1, 0)
        error = diagnostics["standard_error"]
        assert error.shape == exact.shape == q.node_marginals.shape
        assert (error < 0.06).all()
        assert ((q.node_marginals - exact).abs() < 5 * error + 1e-3).all()
        assert diagnostics["r_hat"].shape == diagnostics["ess"].shape == diagnostics["mixed"].shape == (2,)
        assert (diagnostics["ess"] > 50).all()
        torch.testing.assert_close(q.marginals[0], q.node_marginals)  # the same run, again
        torch.testing.assert_close(q.marginals[1].sum((-2, -1)), torch.ones(2, 4).double())
        edges = p.graph.scopes[1]
        torch.testing.assert_close(q.marginals[1].sum(-1), q.node_marginals[:, edges[:, 0]])
        torch.testing.assert_close(q.marginals[1].sum(-2), q.node_marginals[:, edges[:, 1]])

    def test_samples_have_their_shape_and_follow_the_generator(self) -> None:
        p = self.example()
        q = lnz.MRF(p.graph, p.scores, self.sampler)
        one, other, another = (q.sample((4, 2), torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
        assert one.shape == (4, 2, 2, 4)
        assert torch.equal(one, other)
        assert not torch.equal(one, another)

    def test_has_no_partition_function_and_names_what_has(self) -> None:
        p = self.example()
        q = lnz.MRF(p.graph, p.scores, self.sampler)
        for ask in (lambda: q.log_partition, lambda: q.log_prob(torch.zeros(4).long())):
            with pytest.raises(TypeError, match=rf"{type(self.sampler).__name__} has no ln Z.*AnnealedImportance"):
                ask()


def assert_same(one: Chains, other: Chains) -> None:
    assert torch.equal(one.labels, other.labels)
    assert one.sweeps == other.sweeps
    assert one.carried.keys() == other.carried.keys()
    for name, tensor in one.carried.items():
        torch.testing.assert_close(tensor, other.carried[name])
