"""ctc_loss and rnnt_loss under the transforms of torch, and forward mode of what lies below them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import lnz
from lnz.nn.functional import ctc_loss, rnnt_loss
from tests.suite import equal, random_scores

FRAMES, SIZES = torch.tensor([6, 5, 4]), torch.tensor([2, 1, 2])
TARGETS = torch.tensor([[1, 2], [3, 1], [2, 2]])


def ctc(reduction: str, scores: Tensor) -> Tensor:
    return ctc_loss(scores, TARGETS, FRAMES, SIZES, reduction=reduction)  # type: ignore[arg-type]


def rnnt(reduction: str, scores: Tensor) -> Tensor:
    return rnnt_loss(scores, TARGETS, FRAMES, SIZES, blank=0, reduction=reduction)  # type: ignore[arg-type]


LOSSES = {"ctc": (ctc, (6, 3, 4)), "rnnt": (rnnt, (3, 6, 3, 4))}


@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("name", LOSSES)
def test_vmap_of_values_and_gradients(name: str, reduction: str) -> None:
    loss, shape = LOSSES[name]
    several = torch.stack([random_scores(shape, seed) for seed in range(3)])

    def total(scores: Tensor) -> Tensor:
        return loss(reduction, scores).sum()

    equal(torch.func.vmap(lambda x: loss(reduction, x))(several), torch.stack([loss(reduction, x) for x in several]))
    gradients = torch.stack([torch.func.grad(total)(x) for x in several])
    equal(torch.func.vmap(torch.func.grad(total))(several), gradients)
    leaves = several.clone().requires_grad_()
    equal(torch.autograd.grad(torch.func.vmap(total)(leaves).sum(), leaves)[0], gradients)


FUNCTIONS: dict[str, tuple[Callable[[Tensor], Tensor], tuple[int, ...]]] = {
    "ctc loss": (lambda x: ctc("none", x), (6, 3, 4)),
    "rnnt loss": (lambda x: rnnt("none", x), (3, 6, 3, 4)),
    "ctc marginals": (lambda x: lnz.CTC(x).alignments(TARGETS, SIZES).marginals, (3, 6, 4)),
    "transducer marginals": (lambda x: lnz.Transducer(x).alignments(TARGETS, SIZES).marginals[1], (3, 6, 3, 4)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_forward_mode(name: str) -> None:
    function, shape = FUNCTIONS[name]
    scores, along = random_scores(shape, 0), random_scores(shape, 1)
    wanted = torch.autograd.functional.jvp(function, scores, along)[1]
    assert isinstance(wanted, Tensor)
    equal(torch.func.jvp(function, (scores,), (along,))[1], wanted)
    equal(torch.func.jacfwd(function)(scores), torch.func.jacrev(function)(scores))


def test_decoding_under_vmap() -> None:
    for make, shape in ((lnz.CTC, (3, 6, 4)), (lnz.Transducer, (3, 6, 3, 4))):
        several = torch.stack([random_scores(shape, seed) for seed in range(2)])

        def best(scores: Tensor, make: Callable[[Tensor], lnz.CTC | lnz.Transducer] = make) -> Tensor:
            return make(scores).alignments(TARGETS, SIZES).argmax()

        equal(torch.func.vmap(best)(several), torch.stack([best(x) for x in several]))
