import itertools

import pytest
import torch

import lnz
import lnz.nn.restricted_boltzmann_machine as module
from lnz.errors import IntractableError
from lnz.inference import AnnealedImportance, Enumeration, Exact, Gibbs
from lnz.nn import BlockGibbs, BoltzmannMachine, RestrictedBoltzmannMachine
from lnz.objectives import nll, pseudolikelihood

SHAPES = [(4, 3), (3, 4), (1, 1)]


def random_machine(visible=4, hidden=3, seed=0, scale=1.0):
    torch.manual_seed(seed)
    machine = RestrictedBoltzmannMachine(visible, hidden).double()
    with torch.no_grad():
        for parameter in machine.parameters():
            parameter.copy_(scale * torch.randn_like(parameter))
    return machine


def configurations(n):
    return torch.tensor(list(itertools.product((0, 1), repeat=n)))


def gradient(machine, loss):
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(machine.parameters()), retain_graph=True)])


class TestAgainstEnumerationOfTheMRF:
    @pytest.mark.parametrize("shape", SHAPES)
    def test_conditionals(self, shape):
        machine = random_machine(*shape)
        p, V = machine.mrf(Enumeration()), shape[0]
        v, h = configurations(V), configurations(shape[1])
        given_v = p.condition(machine.labelling(v)).node_marginals[:, V:, 1]
        torch.testing.assert_close(machine.hidden_given(v), given_v, rtol=0, atol=1e-12)
        given_h = p.condition(torch.cat((h.new_full((len(h), V), -100), h), -1)).node_marginals[:, :V, 1]
        torch.testing.assert_close(machine.visible_given(h), given_h, rtol=0, atol=1e-12)

    @pytest.mark.parametrize("shape", SHAPES)
    def test_free_energy_and_likelihood(self, shape):
        machine = random_machine(*shape)
        p, v = machine.mrf(Enumeration()), configurations(shape[0])
        summed = p.condition(machine.labelling(v)).log_partition
        torch.testing.assert_close(-machine.free_energy(v), summed, rtol=0, atol=1e-12)
        torch.testing.assert_close(machine.log_likelihood(v), p.log_prob(machine.labelling(v)), rtol=0, atol=1e-12)
        assert machine.log_likelihood(v).exp().sum().item() == pytest.approx(1, abs=1e-12)

    @pytest.mark.parametrize("shape", SHAPES)
    def test_log_partition_and_its_gradient_chunk_by_chunk(self, shape, monkeypatch):
        machine = random_machine(*shape)
        exact = machine.mrf(Enumeration()).log_partition
        for chunk in (1, 3, 2**14):
            monkeypatch.setattr(module, "CHUNK", chunk)
            got = machine.log_partition()
            torch.testing.assert_close(got, exact, rtol=0, atol=1e-12)
            torch.testing.assert_close(gradient(machine, got), gradient(machine, exact), rtol=0, atol=1e-12)

    def test_pseudolikelihood(self):
        machine, v = random_machine(), configurations(4)
        p, y = machine.mrf(), machine.labelling(configurations(4))
        torch.testing.assert_close(machine.log_conditionals(v), p.log_conditionals(y)[:, :4], rtol=0, atol=1e-12)
        joint = machine.log_likelihood(v)
        for i, (row, conditionals) in enumerate(zip(v, machine.log_conditionals(v), strict=True)):
            for n in range(4):
                flipped = [k for k, other in enumerate(v) if (other != row).nonzero().flatten().tolist() == [n]]
                torch.testing.assert_close(conditionals[n], joint[i] - torch.logaddexp(joint[i], joint[flipped[0]]))
        ours, general = machine.loss(v, "pseudolikelihood"), pseudolikelihood(p, y)
        torch.testing.assert_close(ours, general)
        torch.testing.assert_close(gradient(machine, ours), gradient(machine, general))

    def test_exact_gradient(self):
        machine, v = random_machine(), configurations(4)[[3, 5, 5, 9]]
        for reduction in ("mean", "sum"):
            ours = machine.loss(v, "nll", reduction=reduction)
            for inference in (Enumeration(), Exact()):
                general = nll(machine.mrf(inference), machine.labelling(v), reduction)
                torch.testing.assert_close(ours, general)
                torch.testing.assert_close(
                    gradient(machine, machine.loss(v, "nll", reduction=reduction)), gradient(machine, general)
                )
        with_method = machine.loss(v, "nll", inference=Enumeration())
        torch.testing.assert_close(with_method, machine.loss(v, "nll"))

    def test_second_derivatives(self):
        machine = random_machine(2, 2)
        parameters = list(machine.parameters())
        hessians = []
        for log_z in (machine.log_partition(), machine.mrf(Enumeration()).log_partition):
            first = torch.autograd.grad(log_z, parameters, create_graph=True)
            hessians.append(torch.autograd.grad(first[2].square().sum(), parameters))
        for ours, theirs in zip(*hessians, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def expected_cd_gradient(machine, v, steps):
    """E[∇F(v) − ∇F(v̂)] by the transition matrix of block Gibbs on the visible units."""
    every, h = configurations(machine.num_visible), configurations(machine.num_hidden)

    def table(p, states):
        return torch.where(states == 1, p[:, None], 1 - p[:, None]).prod(-1)

    with torch.no_grad():
        matrix = table(machine.hidden_given(every), h) @ table(machine.visible_given(h), every)
        reached = torch.linalg.matrix_power(matrix, steps)[[int("".join(map(str, row.tolist())), 2) for row in v]]
    return gradient(machine, machine.free_energy(v).sum() - (reached * machine.free_energy(every)).sum())


class TestContrastiveDivergence:
    @pytest.mark.parametrize("steps", [1, 3])
    @pytest.mark.parametrize("sampler", [None, BlockGibbs(), Gibbs()], ids=["default", "block", "chromatic"])
    def test_expected_gradient(self, steps, sampler, generator):
        """By either form: hidden units summed out, or drawn (the library's objective)."""
        machine = random_machine(3, 2)
        v = torch.tensor([[1, 0, 1], [0, 0, 1]])
        exact = expected_cd_gradient(machine, v, steps) / 2
        for cls in (RestrictedBoltzmannMachine, BoltzmannMachine):
            rows = []
            for _ in range(40):
                many = v.repeat(50, 1)
                loss = cls.loss(machine, many, "cd", steps=steps, sampler=sampler, generator=generator)
                rows.append(gradient(machine, loss))
            stacked = torch.stack(rows)
            error = stacked.std(0) / len(rows) ** 0.5
            assert ((stacked.mean(0) - exact).abs() < 4.5 * error).all()

    def test_is_zero_at_the_data_distribution(self):
        """Weighted by P itself, the expected gradients cancel; weighted by anything else they do not."""
        machine, every = random_machine(3, 2), configurations(3)
        weights = machine.log_likelihood(every).exp().detach()
        for steps in (1, 5):
            each = torch.stack([expected_cd_gradient(machine, row[None], steps) for row in every])
            torch.testing.assert_close(weights @ each, torch.zeros_like(each[0]), rtol=0, atol=1e-12)
            assert (each.mean(0).abs() > 1e-3).any()

    def test_persistent(self, generator):
        machine = random_machine()
        v, chains = configurations(4), machine.init_chains(5, generator=generator)
        before = chains.labels.clone()
        got = gradient(machine, machine.loss(v, "pcd", steps=3, chains=chains, generator=generator))
        assert chains.sweeps == 3
        assert not torch.equal(chains.labels, before)
        exact = machine.free_energy(v).mean() - machine.free_energy(chains.labels[:, :4]).mean()
        torch.testing.assert_close(got, gradient(machine, exact))

    def test_chains_start_at_data(self, generator):
        machine = random_machine()
        v = torch.tensor([[1, 0, 1, 1]])
        labels = machine.init_chains(4000, v, generator).labels
        assert (labels[:, :4] == v).all()
        exact = machine.hidden_given(v)[0]
        assert ((labels[:, 4:].double().mean(0) - exact).abs() < 4.5 * (exact * (1 - exact) / 4000).sqrt()).all()

    def test_follows_the_generator(self):
        machine, v = random_machine(), configurations(4)
        one, other, another = (machine.loss(v, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2))
        assert one == other != another


class TestAnnealing:
    def test_estimate_of_z_is_unbiased(self, generator):
        """Even with hardly any steps: the mean over many chains, within its error."""
        machine = random_machine()
        for base in (None, torch.tensor([0.2, 0.5, 0.9, 0.4]).double()):
            found = machine.annealed_partition(3, 20000, base, generator)
            ratio = (found.log_partition - machine.log_partition()).exp() - 1
            assert abs(ratio) < 4 * found.standard_error
            assert 0 < found.standard_error < 0.05

    def test_interval_holds_the_enumerated_value(self, generator):
        """Of 40 intervals of 3 standard errors, all but a few; and more steps make them narrower."""
        machine = random_machine(10, 6)
        exact = machine.log_partition()
        held, widths = 0, {5: 0.0, 50: 0.0}
        for steps in widths:
            for _ in range(20):
                low, high = machine.annealed_partition(steps, 100, generator=generator).interval
                held += bool(low <= exact <= high)
                widths[steps] += float(high - low)
        assert held >= 37
        assert widths[50] < widths[5] / 2

    def test_the_methods_agree(self, generator):
        machine = random_machine(8, 5)
        general = machine.mrf(AnnealedImportance(steps=200, chains=200, base=BlockGibbs()))
        own = machine.annealed_partition(200, 200, generator=generator)
        shown = f"log_partition={own.log_partition.item():.6g}, standard_error={own.standard_error.item():.3g}"
        assert repr(own).startswith(f"AnnealedPartition({shown}, ess=")  # the estimate, not two hundred weights
        assert repr(own).endswith("chains=200)")
        for value, error in (
            (general.log_partition, general.diagnostics["standard_error"]),
            (own.log_partition, own.standard_error),
        ):
            assert abs(value - machine.log_partition()) < 3 * error < 0.5
        assert 1 < own.ess <= 200 + 1e-6

    def test_bad_arguments(self):
        machine = random_machine()
        with pytest.raises(ValueError, match=r"steps: expected an integer of at least 1, got 0"):
            machine.annealed_partition(0)
        with pytest.raises(ValueError, match=r"chains: expected an integer of at least 2, got 1"):
            machine.annealed_partition(10, 1)
        with pytest.raises(ValueError, match=r"base_rate: expected 4 numbers in \(0, 1\)"):
            machine.annealed_partition(10, 10, torch.tensor([0.5, 0.5, 1.0, 0.5]))


def test_learns_a_distribution():
    """Exact gradients, on data with two patterns: better than independent units, which the optimum with W = 0 is."""
    torch.manual_seed(0)
    v = torch.tensor([[1, 1, 0, 0]] * 5 + [[0, 0, 1, 1]] * 5)
    machine = RestrictedBoltzmannMachine(4, 2).set_base_rates(v)
    optimizer = torch.optim.Adam(machine.parameters(), 0.1)
    for _ in range(100):
        optimizer.zero_grad()
        machine.loss(v, "nll").backward()
        optimizer.step()
    assert machine.loss(v, "nll") < 0.9  # the entropy of the data is ln 2 = 0.69; independent units reach 4 ln 2 = 2.77


def test_too_large_to_enumerate():
    with pytest.raises(IntractableError, match=r"2\^30 configurations .* annealed_partition estimates ln Z") as raised:
        RestrictedBoltzmannMachine(40, 30).log_partition()
    assert raised.value.treewidth == 30
    assert raised.value.alternatives == ("annealed_partition",)


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"num_hidden: expected a positive integer, got 0"):
        RestrictedBoltzmannMachine(3, 0)
    with pytest.raises(ValueError, match=r"num_visible: expected a positive integer, got 0"):
        RestrictedBoltzmannMachine(0, 3)
    machine = RestrictedBoltzmannMachine(3, 2)
    with pytest.raises(ValueError, match=r"v: expected zeros and ones, got values in \[0.0, 0.5\]"):
        machine.loss(torch.tensor([[0.0, 0.5, 0.0]]))
    with pytest.raises(ValueError, match=r"objective: expected one of"):
        machine.loss(torch.zeros(1, 3), "mle")
    with pytest.raises(ValueError, match=r"chains: expected those of init_chains"):
        machine.loss(torch.zeros(1, 3), "pcd")
    with pytest.raises(ValueError, match=r"reduction: expected"):
        machine.loss(torch.zeros(1, 3), reduction="max")


BIPARTITE = torch.cartesian_prod(torch.arange(5), torch.arange(5, 8))
MACHINES = [RestrictedBoltzmannMachine(5, 3), BoltzmannMachine(5, 3, BIPARTITE)]
V = torch.tensor([[0.0, 1, 1, 0, 1], [1, 0, 0, 0, 1], [1, 1, 1, 1, 0]])


@pytest.mark.parametrize("machine", MACHINES)
def test_any_batch_shape_serves_every_objective(machine):
    rows = V.expand(2, 3, 5)
    for objective in ("cd", "pcd", "pseudolikelihood", "nll"):
        chains = machine.init_chains(4) if objective == "pcd" else None
        assert machine.loss(rows, objective, chains=chains, reduction="none").shape == (2, 3)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(
    ("given", "kind", "message"),
    [
        ({"steps": 0}, ValueError, "steps: expected a positive integer, got 0"),
        ({"steps": -1}, ValueError, "steps: expected a positive integer, got -1"),
        ({"sampler": lnz.inference.Gibbs}, TypeError, "sampler: expected a sampler of lnz.inference"),
        ({"objective": "nll", "sampler": lnz.inference.Gibbs()}, ValueError, "sampler: expected None under 'nll'"),
        ({"inference": lnz.inference.Exact()}, ValueError, "inference: expected None under 'cd'"),
        ({"v": V[:0]}, ValueError, r"v: expected observations, one or more, got shape \[0, 5\]"),
        ({"v": V.tolist()}, TypeError, "v: expected a torch.Tensor, got list"),
        ({"objective": "pcd", "chains": 3}, TypeError, "chains: expected .*Chains.* got int"),
        (
            {"objective": "pcd", "chains": lnz.inference.Chains(torch.full((2, 8), 7))},
            ValueError,
            r"chains: expected labels in \[0, 2\), got 7",
        ),
    ],
)
def test_every_machine_refuses_alike(machine, given, kind, message):
    with pytest.raises(kind, match=message):
        machine.loss(**{"v": V} | given)


@pytest.mark.parametrize("machine", MACHINES)
def test_starts_are_one_row_per_chain(machine):
    assert machine.init_chains(1, V[0]).labels[:, :5].tolist() == [V[0].tolist()]
    assert machine.init_chains(4, V[0]).labels[:, :5].tolist() == [V[0].tolist()] * 4
    with pytest.raises(ValueError, match=r"v: expected one row per chain, shape \[4, 5\], got \[3, 5\]"):
        machine.init_chains(4, V)
    with pytest.raises(ValueError, match=r"v: expected one row per chain, shape \[4, 5\], got \[1, 1, 5\]"):
        machine.init_chains(4, V[:1, None])


def test_wrong_widths_are_named():
    machine = MACHINES[0]
    for function in (machine.free_energy, machine.hidden_given, machine.log_conditionals):
        with pytest.raises(ValueError, match=r"v: expected shape \[\*batch, 5\], got \[3, 4\]"):
            function(V[:, :4])
    with pytest.raises(ValueError, match=r"h: expected shape \[\*batch, 3\], got \[3, 5\]"):
        machine.visible_given(V)
