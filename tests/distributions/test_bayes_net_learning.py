"""BayesNet: expected statistics, relative frequencies, and what data are refused."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given

import lnz
from lnz.distributions import statistics
from tests.distributions.networks import holes, network, rows_of, sure
from tests.suite import equal, seeds


@given(seeds)
def test_the_gradient_by_probabilities_is_the_expected_statistics_over_them(seed: int) -> None:
    """∇_Q(−ln Q(y)) = −E[counts | y] / Q, entry by entry: the expected gradient of latent variables."""
    net = network(seed % 97)
    tables = [table.exp().requires_grad_() for table in net.log_cpts]
    p = lnz.BayesNet(net.cardinalities, net.parents, [table.log() for table in tables], normalised=False)
    y = holes(net, 6, seed)
    posterior = p.condition(y).log_partition.sum()
    gradients = torch.autograd.grad(-posterior, tables)
    for gradient, table, counts in zip(gradients, tables, net.expected_statistics(y, reduce=True), strict=True):
        equal(gradient, -counts / table)


def test_statistics_are_expectations_and_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    net, rows = network(), rows_of(network())
    y = holes(net, 30, 2)
    posterior = (
        net.log_prob(rows) + torch.where(((y[:, None] == rows) | (y[:, None] == -100)).all(-1), 0, -torch.inf)
    ).softmax(-1)
    found = net.expected_statistics(y)
    for variable, (counts, above) in enumerate(zip(found, net.parents, strict=True)):
        index = rows[:, [*above, variable]]
        wanted = torch.zeros(30, *net.families.shape(variable), dtype=torch.float64)
        for weight, at in zip(posterior.T, index.tolist(), strict=True):
            wanted[(slice(None), *at)] += weight
        equal(counts, wanted)
    monkeypatch.setattr(statistics, "BLOCK", 100)
    for one, two, total in zip(net.expected_statistics(y), found, net.expected_statistics(y, reduce=True), strict=True):
        equal(one, two)
        equal(total, two.sum(0))


def test_relative_frequencies_are_the_tables_of_highest_likelihood() -> None:
    net = network()
    data = net.sample((5000,), generator=torch.Generator().manual_seed(0))
    fitted = net.fit(data)
    assert fitted.log_prob(data).sum() > net.log_prob(data).sum()
    for table, above, variable in zip(fitted.log_cpts, net.parents, range(5), strict=True):
        for joint in itertools.product(*(range(net.cardinalities[n]) for n in above)):
            some = data[(data[:, above] == torch.tensor(joint)).all(-1), variable] if above else data[:, variable]
            equal(table[joint].exp(), torch.bincount(some, minlength=net.cardinalities[variable]).double() / len(some))
    twice = net.fit(data[:100], weights=torch.full((100,), 2.0))
    for one, two in zip(twice.log_cpts, net.fit(data[:100]).log_cpts, strict=True):
        equal(one, two)
    equal(net.fit(data[:1], pseudocount=1.0).log_cpts[0].exp().sum(), torch.ones((), dtype=torch.float64))


def test_impossible_evidence_names_its_rows() -> None:
    tables = [torch.tensor([1.0, 0.0]).log(), torch.eye(2).log()]
    net = lnz.BayesNet([2, 2], [[], [0]], tables)
    y = torch.tensor([[-100, 0], [-100, 1], [1, -100]])
    assert net.log_prob(y).tolist() == [0.0, -math.inf, -math.inf]
    with pytest.raises(lnz.InfeasibleError, match=r"rows \[1, 2\]") as error:
        net.expected_statistics(y)
    assert error.value.entries == (1, 2)
    with pytest.raises(ValueError, match=r"expected a state of '1', one of 0, 1, got 'x'"):
        net.query([0], {"1": "x"})
    with pytest.raises(ValueError, match=r"expected the name or number of a variable, one of 0, 1, got 'z'"):
        net.query(["z"])
    with pytest.raises(ValueError, match="data: expected a full labelling"):
        net.fit(y)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: sure().do({"wet": "maybe"}), ValueError, "expected a state of 'wet', one of no, yes, got 'maybe'"),
        (lambda: sure().query(["rain"], {"wet": {"no": -1}}), ValueError, "evidence.* expected weights of at least 0"),
        (lambda: sure().fit(torch.tensor([[0, 2]])), ValueError, r"data: expected labels in \[0, 2\), .* at \[0, 1\]"),
        (lambda: sure().fit(torch.tensor([[0.0, 1.0]])), TypeError, "data: expected a torch.Tensor of integers"),
        (lambda: sure().fit(torch.zeros(0, 2).long()), ValueError, r"data: expected rows \[R, 2\], got \[0, 2\]"),
        (lambda: sure().fit(torch.zeros(2).long()), ValueError, r"data: expected rows \[R, 2\], got \[2\]"),
        (
            lambda: sure().fit(torch.zeros(2, 2).long(), weights=torch.ones(1)),
            ValueError,
            r"weights: expected shape \[2\], one per row, got \[1\]",
        ),
        (
            lambda: sure().fit(torch.zeros(2, 2).long(), weights=torch.tensor([1.0, -1.0])),
            ValueError,
            "weights: expected finite numbers of at least 0",
        ),
        (
            lambda: sure().expected_statistics(torch.zeros(3, 3).long()),
            ValueError,
            r"data: expected shape \[\*batch, 2\]",
        ),
        (lambda: lnz.latent_class(2, []), ValueError, "cardinalities: expected at least one item, got none"),
        (
            lambda: lnz.latent_class(2, [2] * 3).fit(torch.zeros(4, 2).long()),
            ValueError,
            r"data: expected shape \[\*batch, 3\] of items, or \[\*batch, 4\] with the class first, got \[4, 2\]",
        ),
    ],
)
def test_data_that_make_no_sense(call: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()  # type: ignore[operator]


def test_no_rows_are_counted_as_none() -> None:
    net = network()
    empty = torch.zeros(0, 5).long()
    assert [counts.shape[0] for counts in net.expected_statistics(empty)] == [0] * 5
    assert all((counts == 0).all() for counts in net.expected_statistics(empty, reduce=True))
    assert net.log_prob(empty).shape == (0,)


def test_a_column_of_one_value_is_learnt_as_certain() -> None:
    net = network()
    data = net.sample((50,), generator=torch.Generator().manual_seed(0))
    data[:, 1] = 2
    fitted = net.fit(data)
    assert (fitted.log_cpts[1].exp()[..., 2] == 1).all()
    assert fitted.log_prob(data).isfinite().all()
    one = lnz.BayesNet([2, 1], [[], [0]], [torch.tensor([0.5, 0.5]).log(), torch.zeros(2, 1)])
    assert torch.equal(one.fit(torch.tensor([[0, 0], [1, 0]])).log_cpts[1], torch.zeros(2, 1))


@given(seeds)
def test_the_e_step_of_class_models_is_that_of_every_network(seed: int) -> None:
    """Missing items, rows whose class is known, weights, and answers that a class never gives."""
    generator = torch.Generator().manual_seed(seed)
    start = lnz.latent_class(3, [2, 3, 2])
    tables = [table.clone() for table in start.drawn(torch.empty(0), generator).log_cpts]
    tables[2][1] = torch.tensor([0.4, 0.6, 0.0], dtype=torch.float64).log()
    model = type(start)(start.cardinalities, start.parents, tables)
    rows = model.sample((40,), generator=generator)
    rows = rows.masked_fill(torch.rand(rows.shape, generator=generator) < 0.4, -100)
    weights = torch.rand(40, generator=generator)
    plain = lnz.BayesNet(model.cardinalities, model.parents, tables)
    for each in (None, weights):
        (evidence, counts), (wanted, others) = model.e_step(rows, None, each), plain.e_step(rows, None, each)
        equal(evidence, wanted)
        for one, two in zip(counts, others, strict=True):
            equal(one, two)
    one, two = model.e_step(rows[:, 1:])[0], plain.e_step(rows.masked_fill(torch.arange(4) == 0, -100))[0]
    equal(one, two)
    impossible = torch.tensor([[0, 0, 0, 0], [1, 0, 2, 0]])
    with pytest.raises(lnz.InfeasibleError, match=r"rows \[1\]"):
        model.e_step(impossible)
