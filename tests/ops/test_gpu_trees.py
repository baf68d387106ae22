"""The Triton kernels of trees, interpreted on the CPU, equal the reference on memory that is full of NaN."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lnz.ops import backend
from lnz.ops.arcs.records import Arcs
from lnz.ops.projective.op import PROJECTIVE
from lnz.ops.spans.op import SPANS
from lnz.ops.spans.records import Spans
from tests.gpu import interpreter, poisoned  # noqa: F401  (fixtures)

pytestmark = pytest.mark.usefixtures("interpreter", "poisoned")
TOLERANCE = {torch.float64: (1e-11, 1e-11), torch.float32: (1e-5, 2e-6), torch.bfloat16: (1e-2, 4e-3)}


def close(actual: Tensor, wanted: Tensor, dtype: torch.dtype) -> None:
    rtol, atol = TOLERANCE[dtype]
    torch.testing.assert_close(actual.double(), wanted.double(), rtol=rtol, atol=atol)


def spans(B: int, N: int, L: int, dtype: torch.dtype, scale: float = 2.0) -> Spans:
    generator = torch.Generator().manual_seed(N)
    scores = scale * torch.randn(B, N, N, L, generator=generator)
    if N > 3:
        scores[:, 1, 2] = -torch.inf  # no tree has this span
        scores[:, 1, 1, 1:] = -torch.inf
    lengths = torch.randint(N + 1, (B,), generator=generator)
    lengths[0] = N
    words = torch.arange(N)
    unread = (words[:, None] > words) | (words >= lengths[:, None])[:, None]
    return Spans(scores.masked_fill(unread[..., None], torch.nan).to(dtype), lengths)


def of_spans(name: str, given: Spans) -> tuple[Tensor, Tensor]:
    with backend(name):
        leaf = given.scores.clone().requires_grad_()
        given = given._replace(scores=leaf)
        log_z = SPANS.value(given, SPANS.solve(given))
        return log_z.detach(), torch.autograd.grad(log_z, leaf, torch.arange(1.0, 1 + len(log_z)).to(log_z))[0]


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("shape", [(3, 6, 3), (2, 1, 2), (2, 2, 1), (4, 5, 1)])
def test_constituency_trees(shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    given = spans(*shape, dtype)
    actual, wanted = of_spans("triton", given), of_spans("reference", given._replace(scores=given.scores.double()))
    close(actual[0], wanted[0], torch.float32 if dtype == torch.bfloat16 else dtype)
    close(actual[1], wanted[1], dtype)
    assert actual[1].dtype == dtype


def test_charts_larger_than_one_block(monkeypatch: pytest.MonkeyPatch) -> None:
    from lnz.ops.spans.gpu import calls

    monkeypatch.setattr(calls, "SIDE", 4)
    monkeypatch.setattr(calls, "LABELS", 2)
    given = spans(2, 11, 5, torch.float64)
    for actual, wanted in zip(of_spans("triton", given), of_spans("reference", given), strict=True):
        close(actual, wanted, torch.float64)


@pytest.mark.parametrize("scale", [50.0, 1e4])
def test_constituency_trees_of_large_scores(scale: float) -> None:
    given = spans(3, 7, 2, torch.float32, scale)
    actual, wanted = of_spans("triton", given), of_spans("reference", given._replace(scores=given.scores.double()))
    torch.testing.assert_close(actual[0], wanted[0], rtol=1e-6, atol=1e-4)
    close(actual[1], wanted[1], torch.float32)


def test_where_there_is_no_tree() -> None:
    given = spans(2, 3, 2, torch.float32)
    given.scores[1, 0, 2] = -torch.inf
    given = given._replace(lengths=torch.tensor([3, 3]), scores=given.scores.nan_to_num(nan=0.0, neginf=-torch.inf))
    log_z, gradient = of_spans("triton", given)
    assert log_z[1] == -torch.inf
    assert (gradient[1] == 0).all()
    assert gradient[0].sum() == pytest.approx(5.0)


def arcs(B: int, N: int, single_root: bool, dtype: torch.dtype, scale: float = 2.0) -> Arcs:
    generator = torch.Generator().manual_seed(N)
    scores = (scale * torch.randn(B, N + 1, N + 1, generator=generator)).to(dtype)
    lengths = torch.randint(N + 1, (B,), generator=generator)
    lengths[0] = N
    words = torch.arange(N + 1)
    none = (words[:, None] == words) | (words[:, None] == 0) | (words > lengths[:, None])[:, None]
    none = none | (words > lengths[:, None])[..., None]
    if N > 3:
        scores[:, 2, 1] = -torch.inf
    return Arcs(scores.masked_fill(none, -torch.inf), lengths, single_root)


def of_arcs(name: str, given: Arcs) -> tuple[Tensor, Tensor]:
    with backend(name):
        leaf = given.scores.clone().requires_grad_()
        given = given._replace(scores=leaf)
        log_z = PROJECTIVE.value(given, PROJECTIVE.solve(given))
        return log_z.detach(), torch.autograd.grad(log_z, leaf, torch.arange(1.0, 1 + len(log_z)).to(log_z))[0]


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("single_root", [True, False])
@pytest.mark.parametrize("shape", [(3, 6), (2, 1), (3, 2)])
def test_dependency_trees(shape: tuple[int, int], single_root: bool, dtype: torch.dtype) -> None:
    given = arcs(*shape, single_root, dtype)
    actual, wanted = of_arcs("triton", given), of_arcs("reference", given._replace(scores=given.scores.double()))
    close(actual[0], wanted[0], torch.float32 if dtype == torch.bfloat16 else dtype)
    close(actual[1], wanted[1], dtype)
    assert actual[1].dtype == dtype


@pytest.mark.parametrize("scale", [2.0, 1e3])
def test_dependency_trees_in_several_blocks(scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    from lnz.ops.projective.gpu import calls

    monkeypatch.setattr(calls, "SIDE", 4)
    given = arcs(2, 9, True, torch.float32, scale)
    actual, wanted = of_arcs("triton", given), of_arcs("reference", given._replace(scores=given.scores.double()))
    torch.testing.assert_close(actual[0], wanted[0], rtol=1e-6, atol=1e-5)
    close(actual[1], wanted[1], torch.float32)


def test_words_without_a_head() -> None:
    given = arcs(2, 4, True, torch.float64)
    given.scores[1, 1] = -torch.inf
    given = given._replace(lengths=torch.tensor([4, 4]), scores=given.scores.nan_to_num(neginf=-torch.inf))
    log_z, gradient = of_arcs("triton", given)
    assert log_z[1] == -torch.inf
    assert (gradient[1] == 0).all()
