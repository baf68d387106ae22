import copy
import itertools

import pytest
import torch

import lnz
from lnz.inference import BeliefPropagation, Enumeration, Exact, Gibbs
from lnz.nn import BlockGibbs, BoltzmannMachine
from lnz.nn.block_gibbs import fields
from lnz.objectives import contrastive_divergence, nll
from tests.sampler_suite import assert_all_distributed, draws, enumerated

PATH = torch.tensor([[0, 3], [1, 3], [1, 4], [2, 4], [3, 4]])


def random_machine(edges="full", visible=3, hidden=2, seed=0):
    torch.manual_seed(seed)
    machine = BoltzmannMachine(visible, hidden, edges).double()
    with torch.no_grad():
        for parameter in machine.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return machine


def gradient(machine, loss):
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(machine.parameters()), retain_graph=True)])


def configurations(n):
    return torch.tensor(list(itertools.product((0, 1), repeat=n)))


@pytest.mark.parametrize("edges", ["full", PATH])
def test_score_is_the_definition(edges):
    machine = random_machine(edges)
    pairs = list(itertools.combinations(range(5), 2)) if isinstance(edges, str) else edges.tolist()
    bias = [*machine.visible_bias.tolist(), *machine.hidden_bias.tolist()]
    for y in configurations(5):
        expected = sum(b * int(k) for b, k in zip(bias, y, strict=True))
        expected += sum(w * int(y[a] * y[b]) for w, (a, b) in zip(machine.weight.tolist(), pairs, strict=True))
        torch.testing.assert_close(machine().score(y).item(), expected)


def test_likelihood_sums_over_hidden_units_and_its_gradient_is_free_less_clamped():
    machine = random_machine()
    v = torch.tensor([[0, 1, 1], [1, 0, 1]])
    joint = torch.stack([machine().score(y) for y in configurations(5)]).exp().detach()
    given = [joint[[torch.equal(y[:3], row) for y in configurations(5)]].sum() for row in v]
    torch.testing.assert_close(
        machine.loss(v, "nll", reduction="none"), -(torch.stack(given) / joint.sum()).log(), rtol=0, atol=1e-12
    )
    got = gradient(machine, machine.loss(v, "nll", reduction="sum"))
    free, clamped = machine.mrf(Enumeration()), machine.mrf(Enumeration()).condition(machine.labelling(v))
    nodes = len(v) * free.node_marginals[:, 1] - clamped.node_marginals[..., 1].sum(0)
    edges = len(v) * free.marginals[1][:, 1, 1] - clamped.marginals[1][..., 1, 1].sum(0)
    torch.testing.assert_close(got, torch.cat((nodes, edges)), rtol=0, atol=1e-12)


@pytest.mark.parametrize("steps", [1, 5])
def test_expected_contrastive_divergence_is_zero_at_the_data_distribution_only(steps, generator):
    """With data drawn from the machine itself; and from another one."""
    machine = random_machine(PATH)
    for of, zero in ((machine, True), (random_machine(PATH, seed=1), False)):
        v = of.mrf(Enumeration()).sample((4000,), generator)[:, :3]
        losses = machine.loss(v, "cd", steps=steps, generator=generator, reduction="none")
        rows = torch.stack([gradient(machine, part.sum()) for part in losses.split(200)]) / 200
        mean, error = rows.mean(0), rows.std(0) / len(rows) ** 0.5
        far = ((mean / error).abs() > 4.5).any()
        assert far != zero


def test_persistent_chains_advance_in_place_to_the_distribution(generator):
    machine = random_machine()
    chains = machine.init_chains(4000, generator=generator)
    for _ in range(30):
        machine.loss(torch.tensor([[1, 0, 1]]), "pcd", chains=chains, generator=generator)
    assert chains.sweeps == 30
    share = chains.labels.double().mean(0)
    exact = machine.mrf(Enumeration()).node_marginals[:, 1]
    assert ((share - exact).abs() < 4.5 * (exact * (1 - exact) / 4000).sqrt()).all()


def test_persistent_gradient_is_the_chains_statistics_less_the_datas(generator):
    """With no hidden units, nothing is random once the chains have been moved."""
    machine = random_machine(visible=4, hidden=0)
    v, chains = torch.randint(2, (6, 4), generator=generator), machine.init_chains(9, generator=generator)
    got = gradient(machine, machine.loss(v, "pcd", chains=chains, generator=generator))
    pairs = torch.combinations(torch.arange(4))

    def statistics(labels):
        y = labels.double()
        return torch.cat((y.mean(0), (y[:, pairs[:, 0]] * y[:, pairs[:, 1]]).mean(0)))

    torch.testing.assert_close(got, statistics(chains.labels) - statistics(v))


def test_objectives_are_those_of_the_library():
    machine = random_machine(visible=4, hidden=0)
    v = torch.tensor([[0, 1, 1, 0], [1, 1, 0, 1]])
    torch.testing.assert_close(machine.loss(v, "pseudolikelihood"), lnz.objectives.pseudolikelihood(machine(), v))
    bethe = machine.loss(v, "nll", inference=BeliefPropagation(max_iterations=500))
    torch.testing.assert_close(bethe, nll(machine.mrf(BeliefPropagation(max_iterations=500)), v))
    seeds = [torch.Generator().manual_seed(3) for _ in range(2)]
    other = contrastive_divergence(machine(), v, 2, Gibbs("systematic"), generator=seeds[0])
    torch.testing.assert_close(
        machine.loss(v, steps=2, sampler=Gibbs("systematic"), generator=seeds[1]), other, rtol=0, atol=0
    )


def test_joined_hidden_units_have_no_pseudolikelihood():
    with pytest.raises(ValueError, match=r"no two latent \(-100\) nodes in one factor"):
        random_machine().loss(torch.tensor([[0, 1, 1]]), "pseudolikelihood")


def test_base_rates_make_the_units_independent_with_the_datas_means():
    machine = BoltzmannMachine(3)
    with torch.no_grad():
        machine.weight.zero_()
    v = torch.tensor([[1, 0, 1], [1, 0, 0], [1, 0, 1]])
    means = machine.set_base_rates(v).mrf(Enumeration()).node_marginals[:, 1]
    torch.testing.assert_close(means, torch.tensor([4 / 5, 1 / 5, 3 / 5]))


def test_copies_and_state_dicts():
    machine = random_machine()
    twin = copy.deepcopy(machine)
    other = random_machine(seed=1)
    other.load_state_dict(machine.state_dict())
    for same in (twin, other):
        torch.testing.assert_close(same.mrf(Exact()).log_partition, machine.mrf(Enumeration()).log_partition)


class TestBlockGibbs:
    @pytest.mark.parametrize("name", ["grid", "observed"])
    def test_distribution_on_all_states(self, name, generator):
        p = enumerated(name)[0]
        sampler = BlockGibbs()
        mixed = sampler.step(p.model, sampler.init(p.model, 4000, generator), 15, generator)
        assert_all_distributed(name, mixed.labels)
        start = sampler.init(p.model, 20000, generator, draws(name, 20000, 1))
        assert_all_distributed(name, sampler.step(p.model, start, 1, generator).labels)

    def test_densely_coupled_units(self, generator):
        p = random_machine().mrf(BlockGibbs(chains=400, warmup=30, sweeps=30))
        error = p.diagnostics["standard_error"]
        assert ((p.node_marginals - random_machine().mrf(Enumeration()).node_marginals).abs() < 4.5 * error).all()

    def test_fields_are_the_scores_whatever_the_tables(self):
        g = lnz.FactorGraph(
            (2, 2, 2), [torch.tensor([[0], [2], [0]]), torch.tensor([[2, 0], [1, 2]]), torch.zeros(1, 0).long()]
        )
        torch.manual_seed(0)
        p = lnz.MRF(g, (torch.randn(2, 3, 2), lnz.Weighted(torch.randn(2), torch.randn(2, 2)), torch.randn(1)))
        bias, coupling = fields(p.model)
        nothing = p.score(torch.zeros(3).long())
        for y in configurations(3):
            quadratic = (bias * y).sum(-1) + torch.einsum("i,bij,j->b", y.float(), coupling, y.float()) / 2
            torch.testing.assert_close(p.score(y) - nothing, quadratic)

    def test_refuses_what_it_does_not_serve(self):
        with pytest.raises(ValueError, match=r"BlockGibbs: expected binary nodes and factors of at most two"):
            BlockGibbs().solve(enumerated("potts")[0].model)
        with pytest.raises(ValueError, match=r"BlockGibbs: expected finite scores, got -inf"):
            BlockGibbs().solve(enumerated("potts_observed")[0].model)
        with pytest.raises(ValueError, match=r"BlockGibbs: expected order='chromatic', got 'tree'"):
            BlockGibbs("tree").solve(enumerated("grid")[0].model)


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"num_visible: expected a positive integer, got 0"):
        BoltzmannMachine(0)
    with pytest.raises(ValueError, match=r"num_hidden: expected an integer of at least 0, got -1"):
        BoltzmannMachine(1, -1)
    with pytest.raises(ValueError, match=r"edges: expected an int64 tensor of shape \[E, 2\] or 'full', got 'all'"):
        BoltzmannMachine(2, 1, "all")
    with pytest.raises(ValueError, match=r"scopes\[1\]: expected nodes in \[0, 3\), got 3"):
        BoltzmannMachine(2, 1, torch.tensor([[0, 3]]))
    machine = BoltzmannMachine(3, 1)
    v = torch.tensor([[0, 1, 1]])
    with pytest.raises(ValueError, match=r"v: expected shape \[\*batch, 3\], got \[1, 2\]"):
        machine.loss(v[:, :2])
    with pytest.raises(ValueError, match=r"v: expected zeros and ones, got values in \[0, 2\]"):
        machine.loss(2 * v)
    with pytest.raises(ValueError, match=r"objective: expected one of 'cd', .*, got 'mle'"):
        machine.loss(v, "mle")
    with pytest.raises(ValueError, match=r"chains: expected those of init_chains"):
        machine.loss(v, "pcd")
    with pytest.raises(ValueError, match=r"chains: expected None under 'cd'"):
        machine.loss(v, "cd", chains=machine.init_chains(2))
