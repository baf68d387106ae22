"""Labels of any integer dtype, and lengths as tensors of any or as lists: everywhere, with equal answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

import lnz
from lnz import metrics, nn, objectives
from lnz.distributions.ctc_alignments import CTCAlignments
from lnz.nn import functional
from tests.suite import random_scores

NODE, EDGE, TRIPLE = random_scores((2, 4, 3), 0), random_scores((3, 3), 1), random_scores((3, 3, 3), 2)
SEGMENT, JOINT, HIDDEN = random_scores((2, 4, 2, 3), 3), random_scores((2, 4, 3, 3), 4), random_scores((2, 4, 5), 5)
WAVE = random_scores((2, 800), 6).float()
LENGTHS = torch.tensor([4, 2])
Y = torch.tensor([[0, 2, 1, 0], [1, 1, -100, -100]])
FULL = torch.tensor([[0, 2, 1, 0], [1, 1, 0, 2]])
TREES = torch.full((2, 4, 4), -1)
TREES[0].fill_diagonal_(1)[0, 1:] = TREES[0, 2:, 3] = 2
TREES[1].fill_diagonal_(-100)[0, :2] = TREES[1, 1, 1] = 0
RULES = random_scores((3, 6, 6), 9)
SEGMENTS = torch.tensor([[0, -1, 1, 2], [2, -1, -100, -100]])
TARGETS, SIZES = torch.tensor([[1, 2], [1, 0]]), torch.tensor([2, 1])


def grid() -> lnz.MRF:
    return lnz.MRF(lnz.FactorGraph.grid(2, 2, 3), (NODE, EDGE))


def hidden_markov() -> nn.HiddenMarkovModel:
    return nn.HiddenMarkovModel(NODE[0, 0], EDGE, nn.CategoricalEmission(random_scores((3, 3), 8)))


def head() -> nn.CTCHead:
    torch.manual_seed(0)
    return nn.CTCHead(5, 3).double()


def encoder() -> nn.SpeechEncoder:
    torch.manual_seed(0)
    return nn.SpeechEncoder(5, 8).double().eval()


def crf() -> nn.LinearChainCRF:
    torch.manual_seed(0)
    return nn.LinearChainCRF(3).double()


def linear(targets: Tensor, lengths: Any, sizes: Any) -> Tensor:
    return functional.linear_ctc_loss(HIDDEN, random_scores((3, 5), 7), None, targets, lengths, sizes)


Labels = Callable[[Tensor], Tensor]
OF_LABELS: dict[str, Callable[[Labels], Any]] = {
    "Softmax": lambda as_: lnz.Softmax(NODE).log_prob(as_(FULL)),
    "LinearChain": lambda as_: lnz.LinearChain(NODE, EDGE, LENGTHS).log_prob(as_(Y)),
    "LinearChain.score": lambda as_: lnz.LinearChain(NODE, EDGE).score(as_(FULL)),
    "LinearChain.condition": lambda as_: lnz.LinearChain(NODE, EDGE).condition(as_(Y)).log_partition,
    "LinearChain.label_scores": lambda as_: lnz.LinearChain(NODE, EDGE).label_scores(as_(FULL)),
    "LinearChain.log_conditionals": lambda as_: lnz.LinearChain(NODE, EDGE).log_conditionals(as_(FULL)),
    "SecondOrderChain": lambda as_: lnz.SecondOrderChain(NODE, EDGE, TRIPLE, LENGTHS).log_prob(as_(Y)),
    "HMM": lambda as_: lnz.HMM(NODE[0, 0].log_softmax(-1), EDGE.log_softmax(-1), NODE, LENGTHS).log_prob(as_(Y)),
    "SemiMarkov": lambda as_: lnz.SemiMarkov(SEGMENT, EDGE, LENGTHS).log_prob(as_(SEGMENTS)),
    "ConstituencyTree": lambda as_: lnz.ConstituencyTree(torch.zeros(2, 4, 4, 3), LENGTHS).log_prob(as_(TREES)),
    "PCFG": lambda as_: lnz.PCFG(NODE[0, 0], RULES, NODE, LENGTHS).log_prob(as_(TREES)),
    "MRF": lambda as_: grid().log_prob(as_(Y)),
    "MRF.score": lambda as_: grid().score(as_(FULL)),
    "MRF.condition": lambda as_: grid().condition(as_(Y)).log_partition,
    "MRF.label_scores": lambda as_: grid().label_scores(as_(FULL)),
    "CTC": lambda as_: lnz.CTC(NODE).log_prob(as_(TARGETS), SIZES),
    "CTC.alignments": lambda as_: lnz.CTC(NODE).alignments(as_(TARGETS), SIZES).log_partition,
    "Transducer": lambda as_: lnz.Transducer(JOINT).log_prob(as_(TARGETS), SIZES),
    "Transducer.alignments": lambda as_: lnz.Transducer(JOINT).alignments(as_(TARGETS), SIZES).log_partition,
    "ctc_loss": lambda as_: functional.ctc_loss(NODE.movedim(1, 0), as_(TARGETS), LENGTHS, SIZES),
    "linear_ctc_loss": lambda as_: linear(as_(TARGETS), LENGTHS, SIZES),
    "rnnt_loss": lambda as_: functional.rnnt_loss(JOINT, as_(TARGETS), LENGTHS, SIZES, blank=0),
    "CTCHead.loss": lambda as_: head().loss(HIDDEN, as_(TARGETS), LENGTHS, SIZES),
    "LinearChainCRF": lambda as_: crf()(NODE, as_(FULL), (Y != -100).to(torch.uint8)),
    "nll": lambda as_: objectives.nll(lnz.LinearChain(NODE, EDGE, LENGTHS), as_(Y)),
    "pseudolikelihood": lambda as_: objectives.pseudolikelihood(grid(), as_(FULL)),
    "hinge": lambda as_: objectives.hinge(grid(), as_(FULL), metrics.hamming),
    "label_adjustment": lambda as_: objectives.label_adjustment(grid(), as_(FULL), metrics.hamming),
    "contrastive_divergence": lambda as_: torch.zeros_like(objectives.contrastive_divergence(grid(), as_(FULL))),
    "em": lambda as_: objectives.em(hidden_markov(), as_(FULL), max_iterations=2).objective[-1],
    "HiddenMarkovModel": lambda as_: hidden_markov()(as_(FULL)).log_evidence,
    "hamming": lambda as_: metrics.hamming(as_(Y), as_(FULL)),
    "hamming.node_costs": lambda as_: metrics.hamming.node_costs(as_(Y), 3),
    "cost_matrix": lambda as_: metrics.cost_matrix(EDGE.abs())(as_(Y), as_(FULL)),
    "cost_matrix.node_costs": lambda as_: metrics.cost_matrix(EDGE.abs()).node_costs(as_(Y), 3),
    "iou": lambda as_: metrics.iou(3)(as_(Y), as_(FULL)),
    "iou.change_costs": lambda as_: metrics.iou(3).change_costs(as_(Y), as_(FULL), 3),
    "edit_distance": lambda as_: metrics.edit_distance(as_(Y), as_(FULL)),
    "bleu": lambda as_: metrics.bleu(as_(Y), as_(FULL)),
}  # fmt: skip

Lengths = Callable[[Tensor], Tensor | Sequence[int]]
OF_LENGTHS: dict[str, Callable[[Lengths], Any]] = {
    "LinearChain": lambda as_: lnz.LinearChain(NODE, EDGE, as_(LENGTHS)).log_partition,
    "SecondOrderChain": lambda as_: lnz.SecondOrderChain(NODE, EDGE, TRIPLE, as_(LENGTHS)).log_partition,
    "HMM": lambda as_: lnz.HMM(NODE[0, 0].log_softmax(-1), EDGE.log_softmax(-1), NODE, as_(LENGTHS)).log_partition,
    "SemiMarkov": lambda as_: lnz.SemiMarkov(SEGMENT, EDGE, as_(LENGTHS)).log_partition,
    "ConstituencyTree": lambda as_: lnz.ConstituencyTree(torch.zeros(2, 4, 4, 3), as_(LENGTHS)).log_partition,
    "PCFG": lambda as_: lnz.PCFG(NODE[0, 0], RULES, NODE, as_(LENGTHS)).log_partition,
    "CTC": lambda as_: lnz.CTC(NODE, as_(LENGTHS)).log_prob(TARGETS, as_(SIZES)),
    "CTC.score": lambda as_: lnz.CTC(NODE, as_(LENGTHS)).score(TARGETS, as_(SIZES)),
    "CTC.alignments": lambda as_: lnz.CTC(NODE, as_(LENGTHS)).alignments(TARGETS, as_(SIZES)).log_partition,
    "CTCAlignments": lambda as_: CTCAlignments(NODE, TARGETS, as_(SIZES), as_(LENGTHS)).log_partition,
    "Transducer": lambda as_: lnz.Transducer(JOINT, as_(LENGTHS)).log_prob(TARGETS, as_(SIZES)),
    "Transducer.alignments": lambda as_: lnz.Transducer(JOINT, as_(LENGTHS)).alignments(TARGETS, as_(SIZES)).entropy(),
    "ctc_loss": lambda as_: functional.ctc_loss(NODE.movedim(1, 0), TARGETS, as_(LENGTHS), as_(SIZES)),
    "linear_ctc_loss": lambda as_: linear(TARGETS, as_(LENGTHS), as_(SIZES)),
    "rnnt_loss": lambda as_: functional.rnnt_loss(JOINT, TARGETS, as_(LENGTHS), as_(SIZES), blank=0),
    "CTCHead": lambda as_: head()(HIDDEN, as_(LENGTHS)).log_partition,
    "CTCHead.loss": lambda as_: head().loss(HIDDEN, TARGETS, as_(LENGTHS), as_(SIZES)),
    "SpeechEncoder": lambda as_: encoder()(HIDDEN, as_(LENGTHS))[0],
    "LogMel": lambda as_: nn.LogMel(8000)(WAVE, as_(torch.tensor([800, 500])))[0],
    "HiddenMarkovModel": lambda as_: hidden_markov()(FULL, as_(LENGTHS)).log_evidence,
    "expected_statistics": lambda as_: hidden_markov().expected_statistics(FULL, as_(LENGTHS))[0],
    "em": lambda as_: objectives.em(hidden_markov(), FULL, as_(LENGTHS), max_iterations=2).objective[-1],
}  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16], ids=str)
@pytest.mark.parametrize("name", OF_LABELS)
def test_labels(name: str, dtype: torch.dtype) -> None:
    call = OF_LABELS[name]
    torch.testing.assert_close(call(lambda labels: labels.to(dtype)), call(lambda labels: labels), rtol=0, atol=0)


@pytest.mark.parametrize("name", OF_LENGTHS)
def test_lengths(name: str) -> None:
    call = OF_LENGTHS[name]
    expected = call(lambda lengths: lengths)
    for form in (lambda lengths: lengths.int(), Tensor.tolist, lambda lengths: tuple(lengths.tolist())):
        torch.testing.assert_close(call(form), expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", OF_LABELS)
def test_labels_that_are_no_integers_are_refused_by_name(name: str) -> None:
    with pytest.raises((TypeError, ValueError), match=r"^\w+: expected .*(integer|int64|symbols)"):
        OF_LABELS[name](Tensor.double)


@pytest.mark.parametrize("name", OF_LENGTHS)
def test_lengths_that_are_no_integers_are_refused_by_name(name: str) -> None:
    with pytest.raises(TypeError, match=r"^\w+: expected integers, got dtype torch.float64"):
        OF_LENGTHS[name](Tensor.double)
