"""Equal rows are merged before EM, and class models learn side by side: the same numbers as row by row."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import Tensor

import lnz
from lnz.distributions import class_stack
from lnz.distributions import equal_rows as module
from lnz.distributions.equal_rows import equal_rows
from lnz.distributions.latent_class import ClassModel
from lnz.nn import CategoricalEmission, MixtureModel
from lnz.objectives import em
from lnz.tasks.em_learning import Settings, learn
from lnz.tasks.observations import Observations
from tests.suite import equal


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("rows", "columns", "states"), [(0, 2, 2), (1, 3, 2), (200, 3, 3), (50, 0, 2), (300, 70, 2)])
def test_equal_rows_are_counted(rows: int, columns: int, states: int) -> None:
    data = torch.randint(-1, states, (rows, columns), generator=generator(0))
    data = torch.cat([data, data[: rows // 3]])
    weights = torch.rand(len(data), generator=generator(1))
    found = equal_rows(data, weights)
    counts: Counter[tuple[int, ...]] = Counter()
    for row, weight in zip(data.tolist(), weights.tolist(), strict=True):
        counts[tuple(row)] += weight
    got = dict(zip(map(tuple, found.rows.tolist()), found.weights.tolist(), strict=True))
    assert got == pytest.approx(counts)
    assert len(found.rows) == len(counts)
    assert torch.equal(found.rows[found.index], data)
    assert equal_rows(data).weights.sum() == len(data)
    assert torch.equal(equal_rows(data.flip(0)).rows, found.rows)


def test_rows_that_share_a_hash_stay_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.torch, "randint", lambda low, high, size, **_: torch.ones(size, dtype=torch.int64))
    data = torch.tensor([[0, 1], [1, 0], [0, 1], [2, -1]])
    found = equal_rows(data)
    assert found.rows.tolist() == [[0, 1], [1, 0], [2, -1]]
    assert found.weights.tolist() == [2, 1, 1]
    assert found.index.tolist() == [0, 1, 0, 2]


def repeated() -> tuple[ClassModel, Tensor, Tensor]:
    """A class model, rows with holes of which many are equal, some with their class, and weights."""
    model = lnz.latent_class(3, [2, 4, 2, 3]).drawn(torch.empty(0), generator(0))
    y = model.sample((60,), generator=generator(1))
    y[:, 0] = torch.where(torch.rand(60, generator=generator(2)) < 0.8, -100, y[:, 0])
    y[torch.rand(y.shape, generator=generator(3)) < 0.2] = -100
    y = torch.cat([y, y[:40], y[20:50]])
    return model, y, torch.rand(len(y), generator=generator(4)).double()


@pytest.mark.parametrize("ties", [[], [[1, 3]]])
@pytest.mark.parametrize("pseudocount", [0.0, 0.3])
def test_class_models_learn_as_any_network_does(ties: list[list[int]], pseudocount: float) -> None:
    model, y, weights = repeated()
    model = model.tie(ties)
    net = lnz.BayesNet(model.cardinalities, model.parents, model.log_cpts).tie(ties)
    for kind in ({}, {"restarts": 4}, {"restarts": 4, "weights": weights}):
        settings = {"pseudocount": pseudocount, "max_iterations": 30, "tolerance": 1e-6, **kind}
        one, two = (em(each, y, generator=generator(5), **settings) for each in (model, net))
        assert one.objective == pytest.approx(two.objective, rel=1e-11)
        assert one.starts == pytest.approx(two.starts, rel=1e-11)
        assert (one.parameters, one.observations) == (two.parameters, two.observations)
        assert type(one.model) is ClassModel
        assert one.model.ties == two.model.ties == tuple(map(tuple, ties))
        for a, b in zip(one.model.log_cpts, two.model.log_cpts, strict=True):
            equal(a.exp(), b.exp())


def test_a_class_that_empties_keeps_uniform_tables() -> None:
    zero = [torch.tensor([1.0, 0.0]).double().log(), torch.full((2, 2), 0.5).double().log()]
    model = ClassModel([2, 2], [[], [0]], zero)
    rows = torch.tensor([[0], [1], [1]])
    learnt = em(model, rows, restarts=2, max_iterations=3, generator=generator(0)).model
    alone = em(model, rows, max_iterations=3).model
    for net in (learnt, alone):
        assert net.log_cpts[0].exp().tolist() == [1.0, 0.0]
        equal(net.log_cpts[1].exp(), torch.tensor([[1 / 3, 2 / 3], [0.5, 0.5]], dtype=torch.float64))


class Watched(lnz.BayesNet):
    """A network that keeps how many rows its E step was asked for."""

    asked: list[int] = []  # noqa: RUF012

    def e_step(
        self, data: Tensor, lengths: object = None, weights: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        self.asked.append(len(data))
        return super().e_step(data, lengths, weights)


def test_the_e_step_takes_the_different_rows() -> None:
    model, y, weights = repeated()
    net = Watched(model.cardinalities, model.parents, model.log_cpts)
    Watched.asked.clear()
    result = em(net, y, weights=weights, max_iterations=3)
    assert set(Watched.asked) == {len({tuple(row) for row in y.tolist()})}
    assert result.observations == pytest.approx(float(weights.sum()))
    assert em(net, y, max_iterations=1).observations == len(y)


def test_rows_of_so_many_items_that_their_probability_is_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """In blocks, the first of which is in range; a row that is impossible is still found."""
    items = 1500
    monkeypatch.setattr(class_stack, "_BLOCK", 400)
    model = lnz.latent_class(2, [2] * items).drawn(torch.empty(0), generator(0))
    y = model.sample((900,), generator=generator(1))
    y[:, 0], y[:500, 20:] = -100, -100
    evidence, counts = model.e_step(y)
    prior, tables = model.log_cpts[0], torch.stack(model.log_cpts[1:])  # [items, classes, 2]
    seen = torch.stack([(y[:, 1:] == state).double() for state in (0, 1)], -1)
    joint = prior + torch.einsum("ria,ica->rc", seen, tables)
    assert joint.min() < -800
    equal(evidence, joint.logsumexp(-1).sum())
    equal(counts[0], joint.softmax(-1).sum(0))
    never = [table.clone() for table in model.log_cpts]
    never[1] = torch.tensor([[0.0, -torch.inf]] * 2).double()
    with pytest.raises(lnz.InfeasibleError) as error:
        model.with_tables(never).e_step(y)
    assert list(error.value.entries) == (y[:200, 1] == 1).nonzero().flatten().tolist()  # of the first block


@pytest.mark.parametrize("restarts", [1, 3])
@pytest.mark.parametrize("classes", [True, False])
def test_impossible_rows_are_named_by_their_places(restarts: int, classes: bool) -> None:
    tables = [torch.tensor([0.5, 0.5]).double().log(), torch.tensor([[0.5, 0.5, 0.0]] * 2).double().log()]
    net = (ClassModel if classes else lnz.BayesNet)([2, 3], [[], [0]], tables)
    data = torch.tensor([[-100, 0], [-100, 0], [-100, 2], [-100, 1], [-100, 2]])
    with pytest.raises(lnz.InfeasibleError, match=r"got 0 for rows \[2, 4\]") as error:
        em(net, data, restarts=restarts, generator=generator(0))
    assert list(error.value.entries) == [2, 4]


def test_mixtures_of_symbols_take_each_symbol_once() -> None:
    x = torch.tensor([0, 1, 1, 2, -100, 1, 0, 2, 2, 2])
    found = []
    for merged in (True, False):
        logits = torch.tensor([[0.0, 1.0, 0.5], [1.0, 0.0, 0.2]]).double()
        model = MixtureModel(torch.zeros(2).double(), CategoricalEmission(logits))
        if not merged:
            model.merged = lambda *_: None  # type: ignore[method-assign]
        found.append(em(model, x, max_iterations=5))
    assert found[0].log_evidence == pytest.approx(found[1].log_evidence, rel=1e-12)
    assert found[0].observations == found[1].observations == 10


def test_shared_tables_survive_a_checkpoint(tmp_path: Path) -> None:
    net = lnz.unrolled(3, [2, 3], [[], [0]], [[0], []])
    y = net.drawn(torch.empty(0), generator(0)).sample((40,), generator=generator(1))
    y[:, ::2] = -100
    observed = Observations(y, torch.ones(40).double())
    start, settings, path = net.drawn(torch.empty(0), generator(2)), Settings(1, 0.0, 1e-6, 4, 0), tmp_path / "em.ckpt"
    for resume in (False, True):
        learned = learn(lambda _: start, observed, settings, path, lambda *_: None, lambda _: None, resume)
        assert learned.best is not None
        assert learned.best.ties == net.ties != ()
