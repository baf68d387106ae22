"""BayesNet: the shared suite over random networks; rows, samples, files, and what networks are refused."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor

import lnz
from tests import oracles
from tests.distributions.networks import holes, network, rows_of
from tests.suite import DistributionSuite, Instance, batch_shapes, equal, impossibilities, random_scores, seeds


def instance(cardinalities: list[int], parents: list[list[int]], tables: list[Tensor]) -> Instance:
    """Scores of any size: the suite perturbs, cools and forbids them, which no log-probabilities survive."""
    return Instance(
        tuple(tables),
        lambda *leaves: lnz.BayesNet(cardinalities, parents, leaves, normalised=False),
        lambda *leaves: oracles.bayes_net(cardinalities, parents, leaves),
    )


def random_parents(draw: st.DrawFn, nodes: int) -> list[list[int]]:
    """Up to two parents each, before the variable in some order."""
    order = draw(st.permutations(range(nodes)))
    parents: list[list[int]] = [[] for _ in range(nodes)]
    for place, variable in enumerate(order):
        parents[variable] = draw(st.lists(st.sampled_from(order[:place]), max_size=2, unique=True)) if place else []
    return parents


@st.composite
def nets(draw: st.DrawFn) -> Instance:
    cards = draw(st.lists(st.integers(1, 3), min_size=1, max_size=4))
    parents, seed = random_parents(draw, len(cards)), draw(seeds)
    batch, impossible = draw(batch_shapes), draw(impossibilities)
    tables = [
        random_scores((*draw(st.sampled_from([(), batch])), *(cards[n] for n in (*above, v))), seed + v, impossible / 2)
        for v, above in enumerate(parents)
    ]
    return instance(cards, parents, tables)


class TestRandomNetworks(DistributionSuite):
    @staticmethod
    def instances() -> st.SearchStrategy[Instance]:
        return nets()

    @staticmethod
    def example() -> Instance:
        parents = [[], [0], [0, 1]]
        shapes = [(2, 2), (2, 2, 2), (2, 2, 2, 2)]
        return instance([2, 2, 2], parents, [random_scores(shape, v) for v, shape in enumerate(shapes)])

    @staticmethod
    def empties() -> dict[str, Instance]:
        return {
            "batch": instance([2, 3], [[], [0]], [random_scores((0, 2), 0), random_scores((0, 2, 3), 1)]),
        }


def test_a_full_row_is_a_sum_of_local_log_probabilities() -> None:
    net = network()
    rows = rows_of(net)
    a, b, c, d, e = rows.unbind(-1)
    q = net.log_cpts
    equal(net.log_prob(rows), q[0][a] + q[1][a, b] + q[2][a, c] + q[3][b, c, d] + q[4][d, e])
    equal(net.log_prob(rows).exp().sum(), torch.ones((), dtype=torch.float64))
    equal(net.log_partition, torch.zeros((), dtype=torch.float64))


def test_rows_with_holes_are_summed_over_them() -> None:
    """A different pattern in each row, and a row of holes only."""
    net, rows = network(), rows_of(network())
    y = torch.cat((holes(net, 40, 1), torch.full((1, 5), -100)))
    joint = net.log_prob(rows)
    fits = ((y[:, None] == rows) | (y[:, None] == -100)).all(-1)
    equal(net.log_prob(y), torch.where(fits, joint, -torch.inf).logsumexp(-1))


def test_tables_per_row_come_from_a_network() -> None:
    net = network(batch=(7,))
    y = holes(network(), 7, 3)
    for row in range(7):
        alone = lnz.BayesNet(net.cardinalities, net.parents, [table[row] for table in net.log_cpts])
        equal(net.log_prob(y)[row], alone.log_prob(y[row]))
        for one, two in zip(net.expected_statistics(y), alone.expected_statistics(y[row : row + 1]), strict=True):
            equal(one[row], two[0])
    drawn = net.sample((2000,), generator=torch.Generator().manual_seed(0))
    assert drawn.shape == (2000, 7, 5)
    share = (drawn[..., 0] == 1).double().mean(0)
    assert ((share - net.log_cpts[0].exp()[:, 1]).abs() < 0.06).all()


def test_ancestral_samples_have_the_joint_distribution() -> None:
    net, rows = network(), rows_of(network())
    drawn = net.sample((20000,), generator=torch.Generator().manual_seed(0))
    count = (drawn[:, None] == rows).all(-1).double().sum(0)
    wanted = 20000 * net.log_prob(rows).exp()
    assert ((count - wanted).abs() < 5 * wanted.sqrt() + 1).all()


def test_a_file_gives_back_the_same_network(tmp_path: Path) -> None:
    net = network()
    named = lnz.BayesNet(
        net.cardinalities, net.parents, net.log_cpts,
        names=["a", "b b", "c", "d/e", "e"], states=[["no", "yes"], ["x y", "<2", "3"], ["0", "1"], ["a", "b"], "xyz"],
    )  # fmt: skip
    named.to_bif(tmp_path / "net.bif")
    back = lnz.BayesNet.from_bif(tmp_path / "net.bif")
    assert (back.names, back.states, back.parents) == (named.names, named.states, named.parents)
    for one, two in zip(back.log_cpts, named.log_cpts, strict=True):
        equal(one, two, rtol=1e-14, atol=1e-14)
    assert repr(back) == "BayesNet(5 variables, 5 edges)"


def test_published_networks(shared_data: Path) -> None:
    alarm = lnz.BayesNet.from_bif(shared_data / "bayesnets/alarm.bif.gz")
    assert repr(alarm) == "BayesNet(37 variables, 46 edges)"
    y = alarm.sample((50,), generator=torch.Generator().manual_seed(0))
    assert alarm.log_prob(y).isfinite().all()
    some = y.masked_fill(torch.rand(y.shape, generator=torch.Generator().manual_seed(1)) < 0.5, -100)
    totals = alarm.expected_statistics(some, reduce=True)
    assert all(math.isclose(float(counts.sum()), 50, rel_tol=1e-9) for counts in totals)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parents": [[], [0], [0], [1, 2]]}, r"parents: expected one list per variable, 5, got 4"),
        ({"parents": [[4], [0], [0], [1, 2], [3]]}, r"parents: expected no directed cycle, got"),
        ({"parents": [[], [0], [7], [1, 2], [3]]}, r"parents\[2\]: expected variables in \[0, 5\), got 7"),
        ({"parents": [[], [0], [0, 0], [1, 2], [3]]}, r"parents\[2\]: expected every parent once, got \[0, 0\]"),
        ({"log_cpts": [torch.zeros(2)] * 4}, r"log_cpts: expected one table per variable, 5, got 4"),
        ({"names": ["a"] * 5}, r"names: expected 5 different names"),
        ({"states": [["x", "y"]] * 5}, r"states: expected 3 different states of 'b'"),
    ],
)
def test_wrong_networks_are_refused_by_name(change: dict[str, object], message: str) -> None:
    net = network()
    arguments = {"parents": net.parents, "log_cpts": net.log_cpts, "names": net.names} | change
    with pytest.raises(ValueError, match=message):
        lnz.BayesNet(net.cardinalities, **arguments)  # type: ignore[arg-type]


def test_tables_that_are_no_distributions_are_refused() -> None:
    net = network()
    tables = list(net.log_cpts)
    with pytest.raises(ValueError, match=r"log_cpts\[3\]: expected shape \[\*batch, 3, 2, 2\], of parents \[1, 2\]"):
        lnz.BayesNet(net.cardinalities, net.parents, [*tables[:3], tables[3].mT[0], tables[4]])
    tables[1] = tables[1] + 1
    with pytest.raises(ValueError, match=r"log_cpts\[1\]: expected log-probabilities, each row of which sums to 1"):
        lnz.BayesNet(net.cardinalities, net.parents, tables)
