"""The Triton kernels of CTC, interpreted on the CPU, equal the reference on memory that is full of NaN."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lnz.ops import backend, ctc
from lnz.ops.ctc import decode
from tests.gpu import interpreter, poisoned  # noqa: F401  (fixtures)

pytestmark = pytest.mark.usefixtures("interpreter", "poisoned")
TOPOLOGIES = [(0, True), (4, False), (None, False), (2, True)]


def case(B: int, T: int, C: int, S: int, blank: int | None, collapse: bool) -> tuple[Tensor, ctc.Lattice]:
    generator = torch.Generator().manual_seed(7 * T + S)
    labels = torch.randint(C, (B, S), generator=generator)
    if blank is not None:
        labels = torch.where(labels == blank, (blank + 1) % C, labels)
    lengths, sizes = torch.randint(T // 2, T + 1, (B,), generator=generator), torch.randint(S + 1, (B,))
    sizes[0], lengths[0] = S, T
    scores = 3 * torch.randn(B, T, C, generator=generator, dtype=torch.float64)
    scores[0, T // 2, 1] = -torch.inf
    of = ctc.lattice(labels, lengths, sizes, blank, collapse)
    return scores.masked_fill((torch.arange(T) >= lengths[:, None])[..., None], torch.nan), of


def value_and_gradient(
    name: str, scores: Tensor, prior: Tensor, of: ctc.Lattice, normalise: bool
) -> tuple[Tensor, Tensor]:
    with backend(name):
        leaf = scores.detach().requires_grad_()
        value = ctc.log_prob(leaf, prior, of, normalise)
        gradient = torch.autograd.grad(value, leaf, torch.arange(1.0, 1 + len(value)).to(value))[0]
        assert gradient.dtype == scores.dtype
        with torch.no_grad():
            torch.testing.assert_close(ctc.log_prob(leaf, prior, of, normalise), value)  # in O(S) memory
        return value.detach(), gradient


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize(("blank", "collapse"), TOPOLOGIES)
@pytest.mark.parametrize("shape", [(3, 9, 5, 4), (2, 1, 5, 1), (2, 3, 5, 0)])
def test_equals_the_reference(
    shape: tuple[int, ...], blank: int | None, collapse: bool, normalise: bool, dtype: torch.dtype
) -> None:
    scores, of = case(*shape, blank, collapse)
    scores, prior = scores.to(dtype), torch.linspace(0, 1, 5).to(dtype)
    wanted = value_and_gradient("reference", scores.double(), prior.double(), of, normalise)
    value, gradient = value_and_gradient("triton", scores, prior, of, normalise)
    close = {"rtol": 1e-11, "atol": 1e-11} if dtype == torch.float64 else {"rtol": 1e-5, "atol": 2e-5}
    torch.testing.assert_close(value.double(), wanted[0], **close)
    if dtype == torch.bfloat16:
        close = {"rtol": 1e-2, "atol": 1e-2}
    torch.testing.assert_close(gradient.double(), wanted[1], **close)


def test_longer_targets_and_more_classes_than_one_block_of_lanes(monkeypatch: pytest.MonkeyPatch) -> None:
    from lnz.ops.ctc.gpu import calls

    monkeypatch.setattr(calls, "STATES", 32)
    monkeypatch.setattr(calls, "CLASSES", 32)
    scores, of = case(2, 90, 70, 40, 0, True)
    wanted = value_and_gradient("reference", scores, torch.zeros(70).double(), of, True)
    for actual, want in zip(
        value_and_gradient("triton", scores, torch.zeros(70).double(), of, True), wanted, strict=True
    ):
        torch.testing.assert_close(actual, want, rtol=1e-11, atol=1e-11)


def test_gradients_are_laid_out_as_scores_and_without_occupancies(monkeypatch: pytest.MonkeyPatch) -> None:
    from lnz.ops.ctc import op, records
    from lnz.ops.ctc.gpu import calls

    scores, of = case(3, 8, 5, 3, 0, True)
    scores = scores.transpose(0, 1).contiguous().transpose(0, 1)
    prior = torch.zeros(5).double()
    kept = value_and_gradient("triton", scores, prior, of, True)
    assert kept[1].stride() == scores.stride()
    monkeypatch.setattr(op, "whole_lattice", lambda *_: False)
    monkeypatch.setattr(calls, "HELD", 1)  # of one target at a time
    again = value_and_gradient("triton", scores, prior, of, True)
    assert all(torch.equal(a, b) for a, b in zip(again, kept, strict=True))
    assert records.whole_lattice(1, 1, 1)


@pytest.mark.parametrize(("blank", "collapse"), TOPOLOGIES)
def test_best_alignments(blank: int | None, collapse: bool) -> None:
    scores, of = case(4, 12, 5, 4, blank, collapse)
    found = []
    for name in ("triton", "reference"):
        with backend(name):
            found.append(decode.topk(scores, of, 1))
    torch.testing.assert_close(found[0][1], found[1][1])
    assert torch.equal(found[0][0], found[1][0])


def test_what_is_impossible() -> None:
    scores, of = (
        torch.randn(2, 3, 4),
        ctc.lattice(torch.ones(2, 3, dtype=torch.int64), torch.tensor([3, 0]), torch.tensor([3, 0]), 0, True),
    )
    value, gradient = value_and_gradient("triton", scores, torch.zeros(4), of, True)
    assert value.tolist() == [-torch.inf, 0.0]
    assert (gradient == 0).all()
    with backend("triton"):
        alignments, totals = decode.topk(scores, of, 1)
    assert (alignments == -100).all()
    assert totals[0].tolist() == [-torch.inf, 0.0]
