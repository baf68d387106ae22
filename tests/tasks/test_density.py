import itertools

import numpy as np
import pytest
import torch
from PIL import Image

from lnz.errors import FormatError
from lnz.inference import Enumeration
from lnz.nn import RestrictedBoltzmannMachine
from lnz.nn.boltzmann_machine import base_rates
from lnz.tasks.density import judge
from lnz.tasks.density.data import DensityData
from lnz.tasks.density.module import DensityModule
from lnz.tasks.density.report import Result, log_z_lines, summary
from lnz.tasks.density.run import weights


def configurations(n):
    return torch.tensor(list(itertools.product((0.0, 1.0), repeat=n)), dtype=torch.float64)


def random_machine(kind, height=2, width=2):
    """A machine of the task with random parameters, in double precision."""
    machine = DensityModule(height, width, kind=kind, hidden=3).machine.double()
    with torch.no_grad():
        for parameter in machine.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return machine


@pytest.fixture
def folder(tmp_path):
    """Six grey images of 6 × 4 pixels, half dark and half bright."""
    rng = np.random.default_rng(0)
    for k in range(6):
        pixels = rng.integers(0, 100, size=(4, 6), dtype=np.uint8)
        pixels[:, 3:] += 150
        Image.fromarray(pixels).save(tmp_path / f"im{k}.png")
    return tmp_path


class TestData:
    def test_digits(self):
        data = DensityData()
        assert data.train.shape == (1200, 64)
        assert data.test.shape == (597, 64)
        assert data.train.dtype == torch.bool
        assert 0.2 < data.train.float().mean() < 0.6
        assert torch.equal(data.train[0].reshape(8, 8)[0], torch.tensor([0, 0, 0, 1, 1, 0, 0, 0]).bool())

    def test_folder(self, folder):
        data = DensityData(folder, test_fraction=0.34)
        assert (data.height, data.width) == (4, 6)
        assert (len(data.train), len(data.test)) == (4, 2)
        half = torch.tensor([0, 0, 0, 1, 1, 1]).bool().repeat(4)
        assert (data.train == half).all()
        assert (DensityData(folder, invert=True).train == ~half).all()
        assert not DensityData(folder, threshold=0.99).train.any()
        smaller = DensityData(folder, size=(2, 2), test_images=folder)
        assert (smaller.train == torch.tensor([0, 1, 0, 1]).bool()).all()
        assert len(smaller.train) == len(smaller.test) == 6

    def test_order_is_a_function_of_seed_and_epoch(self):
        loaders = [DensityData(seed=seed).train_dataloader() for seed in (0, 0, 1)]
        first, same, other = (torch.cat(list(loader)) for loader in loaders)
        assert torch.equal(first, same)
        assert not torch.equal(first, other)
        loaders[0].sampler.set_epoch(1)
        assert not torch.equal(torch.cat(list(loaders[0])), first)
        assert first.shape == (1200, 64)

    def test_errors(self, folder, tmp_path):
        Image.fromarray(np.zeros((3, 3), dtype=np.uint8)).save(folder / "im9.png")
        with pytest.raises(FormatError, match=r"im9.png: expected the size of the others, 6×4 .*, got 3×3; data.size"):
            DensityData(folder)
        assert DensityData(folder, size=(3, 3)).height == 3
        with pytest.raises(ValueError, match=r"data.test_images: needs data.images"):
            DensityData(test_images=folder)
        with pytest.raises(ValueError, match=r"data.threshold: expected a number in \[0, 1\), got 2"):
            DensityData(threshold=2)
        with pytest.raises(ValueError, match=r"data.test_fraction: expected a number in \(0, 1\), got 1"):
            DensityData(folder, size=(3, 3), test_fraction=1)
        with pytest.raises(ValueError, match=r"data.size: expected a positive height and width, got \[0, 3\]"):
            DensityData(size=(0, 3))
        with pytest.raises(ValueError, match=r"data.batch_size: expected a positive integer, got 0"):
            DensityData(batch_size=0)


@pytest.mark.parametrize("kind", ["rbm", "grid"])
class TestJudge:
    def test_against_enumeration(self, kind):
        """The probability of every image, and of every pixel given the others."""
        machine, v = random_machine(kind), configurations(4)
        p = machine.mrf(Enumeration())
        exact = p.log_prob(machine.labelling(v))
        log_z = judge.exact_log_partition(machine)
        torch.testing.assert_close(judge.log_numerators(machine, v) - log_z, exact, rtol=0, atol=1e-10)
        expected = torch.zeros(16, dtype=torch.float64)
        for i, row in enumerate(v):
            for n in range(4):
                (flipped,) = (k for k, other in enumerate(v) if (other != row).nonzero().flatten().tolist() == [n])
                expected[i] += exact[i] - torch.logaddexp(exact[i], exact[flipped])
        torch.testing.assert_close(judge.log_pseudolikelihood(machine, v), expected, rtol=0, atol=1e-10)

    def test_log_partition_both_ways(self, kind):
        machine, v = random_machine(kind), configurations(4)
        found = judge.log_partition(machine, base_rates(v), steps=100, chains=100, seed=0)
        assert found.exact == pytest.approx(float(machine.mrf(Enumeration()).log_partition), abs=1e-10)
        assert found.low < found.exact < found.high
        assert found.low < found.annealed < found.high
        assert found.best == found.exact
        assert 0 < found.standard_error < 0.2


def test_grid_joins_each_pixel_to_one_hidden_unit_and_those_to_their_neighbours():
    machine = DensityModule(2, 3, kind="grid").machine
    edges = {tuple(edge) for edge in machine.graph.scopes[1].tolist()}
    pixels = {(n, 6 + n) for n in range(6)}
    assert edges == pixels | {(6, 7), (7, 8), (9, 10), (10, 11), (6, 9), (7, 10), (8, 11)}
    with torch.no_grad():
        machine.weight.copy_(torch.arange(13.0))
    own, right, below = weights(machine, 2, 3)
    assert own.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert right.tolist() == [[6, 7, 0], [8, 9, 0]]
    assert below.tolist() == [[10, 11, 12], [0, 0, 0]]


def test_large_machines_are_annealed_only():
    machine = RestrictedBoltzmannMachine(30, 25)
    found = judge.log_partition(machine, base_rates(torch.zeros(3, 30)), steps=10, chains=10, seed=0)
    assert found.exact is None
    assert found.best == found.annealed


def test_baseline_is_independent_pixels():
    train = torch.tensor([[1, 0], [1, 1], [1, 0]]).float()
    v = torch.tensor([[1, 1]]).float()
    assert float(judge.pixelwise(base_rates(train), v)) == pytest.approx(np.log(4 / 5) + np.log(2 / 5))


class TestModule:
    def test_comes_back_from_a_checkpoint_with_its_chains(self, generator):
        module = DensityModule(2, 2, hidden=3, objective="pcd")
        module.chains = module.machine.init_chains(5, generator=generator)
        checkpoint = {"state_dict": module.state_dict()}
        module.on_save_checkpoint(checkpoint)
        again = DensityModule.from_checkpoint(checkpoint, "last.ckpt")
        assert torch.equal(again.chains.labels, module.chains.labels)
        assert torch.equal(again.machine.weight, module.machine.weight)
        with pytest.raises(FormatError, match=r"x.ckpt: expected a checkpoint of lnz fit density, got task 'segment'"):
            DensityModule.from_checkpoint({"lnz": {"task": "segment"}, "state_dict": {}}, "x.ckpt")
        checkpoint["state_dict"].pop("machine.weight")
        with pytest.raises(FormatError, match=r"x.ckpt: does not belong to this version of lnz"):
            DensityModule.from_checkpoint(checkpoint, "x.ckpt")

    def test_errors(self):
        with pytest.raises(ValueError, match=r"model.hidden: expected a positive integer, got 0"):
            DensityModule(2, 2, hidden=0)
        with pytest.raises(ValueError, match=r"model.objective: 'nll' enumerates up to 20 hidden units, got 21"):
            DensityModule(5, 5, hidden=21, objective="nll")
        with pytest.raises(ValueError, match=r"model.objective: expected 'cd', .*, got 'mle'"):
            DensityModule(2, 2, objective="mle")
        with pytest.raises(ValueError, match=r"model.objective: 'pseudolikelihood' needs hidden units that are not"):
            DensityModule(2, 2, kind="grid", objective="pseudolikelihood")
        with pytest.raises(ValueError, match=r"model.kind: 'grid' is judged by its exact ln Z, .* got 13 × 20"):
            DensityModule(13, 20, kind="grid")
        with pytest.raises(ValueError, match=r"model.kind: expected 'rbm' or 'grid', got 'tree'"):
            DensityModule(2, 2, kind="tree")


def test_report_numbers():
    def result(seed, test, exact):
        measures = {"pixels": dict.fromkeys(("train", "test", "pseudo"), -5.0)}
        measures["model"] = {"train": -4.0, "test": test, "pseudo": -3.0}
        log_z = {"exact": exact, "annealed": 10.0, "standard_error": 0.1, "low": 9.7, "high": 10.3}
        return Result(seed, "rbm", "pcd", measures, log_z, 1.0, [])

    rows = summary([result(0, -4.0, 10.1), result(1, -3.0, 10.5)])
    assert rows["gain"]["test"] == (1.5, pytest.approx(0.5**0.5))
    assert rows["model"]["train"] == (-4.0, 0.0)
    first, second, third = log_z_lines([result(0, -4.0, 10.1), result(1, -3.0, 10.5), result(2, -3.0, None)])
    assert "ln Z = 10.100, exact; annealed importance sampling 10.000 ± 0.100, which holds it" in first
    assert "which misses it: [9.700, 10.300]" in second
    assert third.startswith("Seed 2: ln Z by annealed importance sampling 10.000 ± 0.100, [9.700, 10.300]")
