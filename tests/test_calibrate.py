"""Temperatures by likelihood: closed forms, concavity, what is left as it was, errors that name what is wrong."""

from __future__ import annotations

import copy
import json
import math
import pickle

import pytest
import torch

import lnz
from lnz.nn import LinearChainCRF


def coin(a: float, wrong: int, right: int) -> tuple[lnz.Softmax, torch.Tensor]:
    """Two labels whose logits differ by a; σ(a / T) is best where it is the share of right ones."""
    logits = torch.tensor([a, 0.0], dtype=torch.float64).expand(wrong + right, 2)
    return lnz.Softmax(logits), torch.tensor([1] * wrong + [0] * right)


@pytest.mark.parametrize(("a", "wrong", "right"), [(4.0, 3, 7), (0.5, 1, 9), (30.0, 4, 6)])
@pytest.mark.parametrize("by", ["likelihood", "marginals"])
def test_of_two_labels_in_closed_form(a: float, wrong: int, right: int, by: str) -> None:
    temperature = lnz.calibrate(None, [coin(a, wrong, right)], by=by)  # type: ignore[call-overload]
    share = right / (wrong + right)
    assert temperature == pytest.approx(a / math.log(right / wrong), rel=1e-5)
    entropy = -share * math.log(share) - (1 - share) * math.log(1 - share)
    assert temperature.after.nll == pytest.approx(entropy, rel=1e-9)
    assert temperature.before.nll == pytest.approx(math.log1p(math.exp(-a)) + a * (1 - share), rel=1e-9)
    assert temperature.before.ece == pytest.approx(abs(1 / (1 + math.exp(-a)) - share), abs=1e-9)
    assert temperature.after.ece == pytest.approx(0, abs=1e-6)


def chains(count: int, scale: tuple[float, float]) -> tuple[lnz.LinearChain, torch.Tensor]:
    """Chains whose gold labels are drawn from them; scores then multiplied by ``scale``, of nodes and of edges."""
    generator = torch.Generator().manual_seed(0)
    nodes = torch.randn(count, 6, 3, dtype=torch.float64, generator=generator)
    edges = torch.randn(3, 3, dtype=torch.float64, generator=generator)
    lengths = torch.randint(1, 7, (count,), generator=generator)
    gold = lnz.LinearChain(nodes, edges, lengths).sample((), generator)
    return lnz.LinearChain(scale[0] * nodes, scale[1] * edges, lengths), gold


def test_one_temperature_of_overconfident_chains() -> None:
    p, gold = chains(3000, (2.5, 2.5))
    temperature = lnz.calibrate(None, [(p, gold)])
    assert temperature == pytest.approx(2.5, rel=0.06)
    assert temperature.after.ece < 0.02 < temperature.before.ece
    tried = [lnz.objectives.nll(p.tempered(float(temperature) * factor), gold) for factor in (0.999, 1.0, 1.001)]
    assert tried[1] < tried[0]
    assert tried[1] < tried[2]
    assert torch.equal(p.tempered(temperature).argmax(), p.argmax())
    nodes, parts = p.node_scores, (slice(9), slice(9, None))
    halves = [(lnz.LinearChain(nodes[part], p.edge_scores, p.lengths[part]), gold[part]) for part in parts]
    assert lnz.calibrate(None, halves) == pytest.approx(temperature, rel=1e-5)


def test_one_temperature_per_part() -> None:
    p, gold = chains(3000, (2.0, 0.5))
    node, edge = lnz.calibrate(None, [(p, gold)], per_part=True)
    assert node == pytest.approx(2.0, rel=0.06)
    assert edge == pytest.approx(0.5, rel=0.1)
    assert node.after.nll < lnz.calibrate(None, [(p, gold)]).after.nll
    inverse = torch.tensor([1 / node, 1 / edge], dtype=torch.float64, requires_grad=True)
    scaled = lnz.LinearChain(inverse[0] * p.node_scores, inverse[1] * p.edge_scores, p.lengths)
    (gradient,) = torch.autograd.grad(lnz.objectives.nll(scaled, gold), inverse)
    assert gradient.abs().max() < 1e-4
    torch.testing.assert_close(p.tempered((node, edge)).log_partition, scaled.log_partition)
    (alone,) = lnz.calibrate(None, [coin(4.0, 3, 7)], per_part=True)
    assert alone == pytest.approx(4 / math.log(7 / 3), rel=1e-5)


def test_a_network_is_left_as_it_was() -> None:
    class Tagger(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.dropout = torch.nn.Linear(4, 3), torch.nn.Dropout(0.5)
            self.crf = LinearChainCRF(3, batch_first=True)

        def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> lnz.LinearChain:
            return self.crf.distribution(self.dropout(self.linear(x)), mask)

    torch.manual_seed(0)
    tagger = Tagger()
    tagger.crf.eval()
    before = copy.deepcopy(tagger.state_dict())
    x, gold = torch.randn(40, 5, 4), torch.randint(3, (40, 5))
    mask = torch.arange(5) < torch.randint(1, 6, (40, 1))
    temperature = lnz.calibrate(tagger, [(x, gold)])
    assert tagger.training
    assert not tagger.crf.training
    assert all(torch.equal(before[name], value) for name, value in tagger.state_dict().items())
    with torch.no_grad():
        tagger.eval()
        assert lnz.calibrate(None, [(tagger(x), gold)]) == temperature
        of_masked = lnz.calibrate(None, [(tagger(x, mask), gold)])
    tagger.train()
    assert lnz.calibrate(tagger, [((x, mask), gold)]) == of_masked
    assert lnz.calibrate(tagger, torch.utils.data.DataLoader([*zip(x, gold, strict=True)], 40)) == temperature


def test_latent_labels_and_grids() -> None:
    """−100 is summed over in the likelihood, and left out of marginals."""
    p, gold = chains(300, (2.0, 2.0))
    gold[::3, 0] = -100
    temperature = lnz.calibrate(None, [(p, gold)])
    assert temperature.after.nll == pytest.approx(lnz.objectives.nll(p.tempered(temperature), gold).item())
    graph = lnz.FactorGraph.grid(3, 3, 2)
    torch.manual_seed(0)
    nodes, edge = torch.randn(200, 9, 2), torch.eye(2)
    labels = lnz.MRF(graph, (nodes, edge)).sample()
    labels[:, 4] = -100
    overconfident = lnz.MRF(graph, (2 * nodes, 2 * edge), lnz.inference.BeliefPropagation(500, damping=0.5))
    found = lnz.calibrate(None, [(overconfident, labels)], by="marginals")
    assert 1.5 < found < 2.6
    assert found.after.nll < found.before.nll
    assert found.after.ece < found.before.ece


def test_families_without_marginals_of_single_labels() -> None:
    torch.manual_seed(0)
    spans = torch.randn(50, 5, 5, dtype=torch.float64)
    p = lnz.DependencyTree(spans)
    gold = p.sample()
    sharp = lnz.DependencyTree(3 * spans)
    temperature = lnz.calibrate(None, [(sharp, gold)])
    assert temperature == pytest.approx(3, rel=0.35)
    assert math.isnan(temperature.after.ece)
    with pytest.raises(TypeError, match="by: DependencyTree has no marginals of single labels; use by='likelihood'"):
        lnz.calibrate(None, [(sharp, gold)], by="marginals")


def test_a_temperature_is_a_number() -> None:
    temperature = lnz.calibrate(None, [coin(4.0, 3, 7)])
    assert isinstance(temperature, float)
    assert float(json.dumps(temperature)) == temperature
    assert f"{temperature:.2f}" == "4.72"
    assert repr(temperature) == "4.721 (NLL 1.2181 → 0.6109, ECE 0.2820 → 0.0000)"
    for again in (copy.deepcopy(temperature), pickle.loads(pickle.dumps(temperature))):
        assert again == temperature
        assert again.before == temperature.before


def test_what_makes_no_sense() -> None:
    p, gold = chains(20, (1.0, 1.0))
    with pytest.raises(ValueError, match="data: expected at least one pair, got none"):
        lnz.calibrate(None, [])
    for by, empty in (("marginals", torch.full_like(gold, -100)), ("likelihood", gold[:0])):
        none = p if by == "marginals" else lnz.LinearChain(p.node_scores[:0], p.edge_scores)
        with pytest.raises(ValueError, match="data: expected gold labels, got none"):
            lnz.calibrate(None, [(none, empty)], by=by)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match=r"data: expected pairs \(inputs, gold\), got LinearChain as number 0"):
        lnz.calibrate(None, [p])  # type: ignore[list-item]
    with pytest.raises(TypeError, match=r"data: expected a structured distribution of lnz, got Tensor; lnz.Softmax"):
        lnz.calibrate(None, [(p.node_scores, gold)])
    with pytest.raises(TypeError, match="model: expected one that returns a structured distribution of lnz, got str"):
        lnz.calibrate(lambda x: "x", [(p, gold)])
    with pytest.raises(ValueError, match="by: expected 'likelihood' or 'marginals', got 'ece'"):
        lnz.calibrate(None, [(p, gold)], by="ece")  # type: ignore[call-overload]
    for wrong, right in ((0, 5), (5, 0)):  # nothing is as certain as it should be; nothing as unsure
        with pytest.raises(lnz.FailedEstimateError, match="data: no temperature in 0.01 … 100 is best"):
            lnz.calibrate(None, [coin(1.0, wrong, right)])
    impossible = lnz.Softmax(torch.tensor([[0.0, -torch.inf]]))
    with pytest.raises(lnz.InfeasibleError):
        lnz.calibrate(None, [(impossible, torch.tensor([1]))])
    with pytest.raises(ValueError, match="temperature: expected one for each of 2 parts of the scores, got 3"):
        p.tempered((1.0, 2.0, 3.0))
    with pytest.raises(ValueError, match="temperature: expected a positive number, got 0"):
        p.tempered((1.0, 0.0))
