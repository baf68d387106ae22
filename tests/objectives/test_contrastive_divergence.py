"""Contrastive divergence: its fixed point, persistent chains, latent labels."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import lnz
from lnz.inference import Enumeration
from lnz.inference.sampling.gibbs import Gibbs
from lnz.inference.sampling.sampler import Chains
from lnz.objectives import contrastive_divergence, nll
from tests.suite import equal, random_scores

IGNORE = -100


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def scores() -> list[Tensor]:
    return [random_scores((6, 3), 0) / 2, random_scores((7, 3, 3), 1) / 2]


GRAPH = lnz.FactorGraph.grid(2, 3, 3)


def update(data: Tensor, model: list[Tensor], steps: int, **settings: object) -> tuple[Tensor, Tensor]:
    """The mean CD update of each score over ``data`` ``[n, N]``, and its standard error."""
    leaves = [s.expand(len(data), *s.shape).clone().requires_grad_() for s in model]
    loss = contrastive_divergence(lnz.MRF(GRAPH, leaves), data, steps, reduction="sum", **settings)  # type: ignore[arg-type]
    each = torch.cat([g.flatten(1) for g in torch.autograd.grad(loss, leaves)], -1)
    return each.mean(0), each.std(0) / math.sqrt(len(data))


@pytest.mark.parametrize("order", ["chromatic", "random"])
@pytest.mark.parametrize("steps", [1, pytest.param(5, marks=pytest.mark.slow)])
def test_theorem_the_expected_update_is_zero_where_the_data_come_from_the_model(steps: int, order: str) -> None:
    truth = scores()
    data = lnz.MRF(GRAPH, truth, Enumeration()).sample((20_000,), generator=seeded())
    mean, error = update(data, truth, steps, sampler=Gibbs(order=order), generator=seeded(1))  # type: ignore[arg-type]
    z = (mean / error)[error > 0]
    assert z.abs().max() < 4.5  # 81 scores
    assert z.square().mean() < 2.0
    wrong = [truth[0], truth[1] * 1.5]
    mean, error = update(data, wrong, steps, sampler=Gibbs(order=order), generator=seeded(1))  # type: ignore[arg-type]
    assert (mean / error)[error > 0].abs().max() > 8


def test_many_steps_are_maximum_likelihood() -> None:
    truth, wrong = scores(), [s.flip(0) for s in scores()]
    data = lnz.MRF(GRAPH, truth, Enumeration()).sample((5_000,), generator=seeded())
    mean, error = update(data, wrong, 40, generator=seeded(1))
    leaves = [s.clone().requires_grad_() for s in wrong]
    loss = nll(lnz.MRF(GRAPH, leaves, Enumeration()), data)
    exact = torch.cat([g.flatten() for g in torch.autograd.grad(loss, leaves)])
    assert ((mean - exact).abs() <= 5 * error + 1e-9).all()


def test_value_and_gradient_are_those_of_the_two_labellings() -> None:
    leaves = [s.requires_grad_() for s in scores()]
    p = lnz.MRF(GRAPH, leaves)
    y = p.sample((4,), generator=seeded())
    sampler = Gibbs()
    reached = sampler.step(p.model, sampler.init(p.model, 4, None, y), 3, seeded(5)).labels
    losses = contrastive_divergence(p, y, 3, generator=seeded(5), reduction="none")
    equal(losses, p.score(reached) - p.score(y))
    node, _ = torch.autograd.grad(losses.sum(), leaves)
    one_hot = torch.nn.functional.one_hot
    equal(node, (one_hot(reached, 3) - one_hot(y, 3)).sum(0).double())
    equal(contrastive_divergence(p, y, 3, generator=seeded(5)), losses.mean())


def test_persistent_chains_advance_in_place() -> None:
    p = lnz.MRF(GRAPH, scores())
    y = p.sample((5,), generator=seeded())
    sampler = Gibbs()
    chains = sampler.init(p.model, 7, seeded(1))
    by_hand = sampler.step(p.model, chains, 2, seeded(2))
    tensor = chains.labels.clone()
    losses = contrastive_divergence(p, y, 2, sampler, chains, seeded(2), reduction="none")
    assert chains.sweeps == 2
    assert torch.equal(chains.labels, by_hand.labels)
    equal(losses, p.score(by_hand.labels).mean() - p.score(y))
    equal(contrastive_divergence(p, y, 2, sampler, tensor, seeded(2), reduction="none"), losses)
    assert torch.equal(tensor, by_hand.labels)
    resumed = Chains.from_state_dict(chains.state_dict())
    for state in (chains, resumed):
        contrastive_divergence(p, y, 1, sampler, state, seeded(3))
    assert torch.equal(chains.labels, resumed.labels)


def test_persistent_chains_learn_the_model_that_made_the_data() -> None:
    graph = lnz.FactorGraph.pairwise(3, 2, torch.tensor([[0, 1], [1, 2], [0, 2]]))
    truth = lnz.MRF(graph, (random_scores((3, 2), 3) / 2, random_scores((3, 2, 2), 4) / 2))
    data = truth.sample((4_000,), generator=seeded())
    leaves = [torch.zeros(3, 2).requires_grad_(), torch.zeros(3, 2, 2).requires_grad_()]
    optimiser = torch.optim.Adam(leaves, lr=0.05)
    decay = torch.optim.lr_scheduler.ExponentialLR(optimiser, 0.98)
    generator, chains = seeded(1), torch.zeros(1000, 3, dtype=torch.int64)
    for _ in range(150):
        optimiser.zero_grad()
        contrastive_divergence(lnz.MRF(graph, leaves), data, 1, chains=chains, generator=generator).backward()
        optimiser.step()
        decay.step()
    learned = lnz.MRF(graph, leaves)
    assert (learned.node_marginals - truth.node_marginals).abs().max() < 0.03
    assert (learned.marginals[1] - truth.marginals[1]).abs().max() < 0.03


def rbm(batch: tuple[int, ...] = ()) -> tuple[lnz.FactorGraph, list[Tensor]]:
    edges = torch.tensor([[v, 4 + h] for v in range(4) for h in range(2)])
    graph = lnz.FactorGraph.pairwise(6, 2, edges)
    return graph, [random_scores((*batch, 6, 2), 0) / 2, random_scores((8, 2, 2), 1) / 2]


def latent_update(graph: lnz.FactorGraph, entries: list[Tensor], data: Tensor, **settings: object) -> Tensor:
    """z-scores of the mean update against 0."""
    leaves = [s.expand(len(data), *s.shape).clone().requires_grad_() for s in entries]
    p = lnz.MRF(graph, leaves)
    loss = contrastive_divergence(p, data, reduction="sum", **settings)  # type: ignore[arg-type]
    each = torch.cat([g.flatten(1) for g in torch.autograd.grad(loss, leaves)], -1)
    return each.mean(0) / (each.std(0) / math.sqrt(len(data))).clamp(min=1e-12)


def test_theorem_with_hidden_units_drawn_exactly() -> None:
    graph, entries = rbm()
    data = lnz.MRF(graph, entries).sample((20_000,), generator=seeded())
    data[:, 4:] = IGNORE
    assert latent_update(graph, entries, data, generator=seeded(1)).abs().max() < 4.5
    wrong = [entries[0], entries[1] * 2]
    assert latent_update(graph, wrong, data, generator=seeded(1)).abs().max() > 8


def test_theorem_with_latent_labels_that_interact_and_differ_by_entry() -> None:
    truth = scores()
    data = lnz.MRF(GRAPH, truth, Enumeration()).sample((4_000,), generator=seeded())
    hidden = torch.rand(data.shape, generator=seeded(3)) < 0.4
    data = data.masked_fill(hidden, IGNORE)
    sampler = Gibbs(warmup=15)
    assert latent_update(GRAPH, truth, data, sampler=sampler, generator=seeded(1)).abs().max() < 4.5


@pytest.mark.parametrize("lengths", [None, torch.tensor([4, 2])])
def test_chains_and_softmax(lengths: Tensor | None) -> None:
    node, edge = random_scores((2, 4, 3), 0).requires_grad_(), random_scores((3, 3), 1)
    p = lnz.LinearChain(node, edge, lengths)
    y = p.sample(generator=seeded())
    (gradient,) = torch.autograd.grad(contrastive_divergence(p, y, generator=seeded(), reduction="sum"), node)
    equal(gradient.sum(-1), torch.zeros(2, 4, dtype=torch.float64))
    if lengths is not None:
        assert (gradient[1, 2:] == 0).all()
    single = contrastive_divergence(lnz.Softmax(node[:, 0]), y[:, 0], generator=seeded(), reduction="none")
    assert single.shape == (2,)


def test_batches_of_models_and_of_data() -> None:
    p = lnz.MRF(GRAPH, [random_scores((2, 1, 6, 3), 0), scores()[1]])
    y = torch.randint(3, (5, 2, 4, 6), generator=seeded())
    losses = contrastive_divergence(p, y, generator=seeded(), reduction="none")
    assert losses.shape == (5, 2, 4)


def test_wrong_arguments() -> None:
    entries = scores()
    entries[0][0, 1] = -torch.inf
    p = lnz.MRF(GRAPH, entries)
    y = torch.zeros(3, 6, dtype=torch.int64)
    bad = y.clone()
    bad[1, 0] = 1
    with pytest.raises(lnz.InfeasibleError, match=r"probability 0 in batch entries \[1\]"):
        contrastive_divergence(p, bad)
    for steps in (0, 1.5):
        with pytest.raises(ValueError, match="steps: expected a positive integer"):
            contrastive_divergence(p, y, steps)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="sampler: expected a sampler of lnz.inference"):
        contrastive_divergence(p, y, sampler=Enumeration())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"chains: expected labellings of shape \[n, 6\].* got \[3, 5\]"):
        contrastive_divergence(p, y, chains=torch.zeros(3, 5, dtype=torch.int64))
    with pytest.raises(TypeError, match="chains: expected lnz.inference.Chains or an int64 tensor, got Tensor"):
        contrastive_divergence(p, y, chains=torch.zeros(3, 6))
    with pytest.raises(ValueError, match="reduction: expected"):
        contrastive_divergence(p, y, reduction="max")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"y: expected shape \[\*batch, 6\]"):
        contrastive_divergence(p, y[:, :5])
