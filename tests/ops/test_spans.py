"""Binary trees as an op: opcheck, transforms, and kernels without any Python between them."""

from __future__ import annotations

import pytest
import torch

from lnz.ops import backend
from lnz.ops.spans import Spans, forward_backward, log_partition, marginals, sample
from lnz.ops.spans.decode import SAMPLE, TOPK, _Uniform
from lnz.ops.spans.op import SPANS
from tests.suite import equal, random_scores

LENGTHS = torch.tensor([5, 0, 3, 1])


def spans(seed: int = 0) -> Spans:
    return Spans(random_scores((4, 5, 5, 3), seed), LENGTHS)


def value(scores: torch.Tensor) -> torch.Tensor:
    given = Spans(scores, LENGTHS)
    return log_partition(given, forward_backward(given))


def test_operators_keep_their_promises() -> None:
    given = spans()
    torch.library.opcheck(SPANS.solve.op, (*given,))
    torch.library.opcheck(TOPK.op, (*given, 2))
    torch.library.opcheck(SAMPLE.op, (*given, torch.rand(2, 4, 10, 2, dtype=torch.float64)))


def test_transforms() -> None:
    scores = spans().scores
    equal(torch.func.vmap(value)(torch.stack((scores, 2 * scores)))[1], value(2 * scores))
    equal(torch.func.jacfwd(value)(scores), torch.func.jacrev(value)(scores))
    hessian = torch.func.jacfwd(torch.func.jacrev(lambda x: value(x).sum()))
    wanted = torch.func.jacrev(torch.func.jacrev(lambda x: value(x).sum()))
    equal(hessian(scores), wanted(scores))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_scores_that_are_no_numbers_leave_other_sentences_alone(bad: float) -> None:
    given, wanted = spans(), spans()
    given.scores[0, 1, 2, 0] = bad
    given.scores[1:, 4] = bad  # padding
    for name in ("auto", "reference"):
        with backend(name):
            found, right = forward_backward(given), forward_backward(wanted)
        equal(found.log_z[1:], right.log_z[1:])
        equal(marginals(given, found)[1:], marginals(wanted, right)[1:])
        assert not torch.isfinite(found.log_z[0])


def test_samples_do_not_depend_on_the_backend() -> None:
    uniform = torch.rand(50, 4, 10, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    drawn = []
    for name in ("auto", "reference"):
        with backend(name):
            drawn.append(SAMPLE(_Uniform(*spans(), uniform)).labels)
    assert torch.equal(*drawn)


def test_marginals_of_any_layout_and_dtype() -> None:
    given = spans()
    wanted = marginals(given, forward_backward(given))
    turned = Spans(given.scores.movedim(-1, 0).contiguous().movedim(0, -1), LENGTHS)
    assert torch.equal(marginals(turned, forward_backward(turned)), wanted)
    for dtype in (torch.bfloat16, torch.float16):
        low = Spans(given.scores.to(dtype), LENGTHS)
        found = marginals(low, forward_backward(low))
        assert found.dtype == dtype
        equal(found.double(), wanted, atol=0.05)


def test_more_samples_than_one_at_once() -> None:
    given = spans()
    one, two = (sample(given, 3, torch.Generator().manual_seed(5)) for _ in range(2))
    assert one.shape == (3, 4, 5, 5)
    assert torch.equal(one, two)


@pytest.mark.parametrize("spread", [1.0, 30.0, 300.0, 1e4])
@pytest.mark.parametrize("labels", [1, 18])
def test_kernels_equal_the_reference_at_any_spread(spread: float, labels: int) -> None:
    """Spans that are likely by themselves and impossible below, too: their width is then small without them."""
    generator = torch.Generator().manual_seed(0)
    scores = spread * torch.randn(4, 20, 20, labels, generator=generator, dtype=torch.float64)
    scores[1, torch.rand(20, 20, generator=generator) < 0.2] = -torch.inf
    scores[1:3, 0, 1:] = scores[1:3, 0, 1:] - torch.arange(19)[:, None] * spread
    scores[3, 5, 7], scores[3, 5, 6], scores[3, 6, 7] = 5 * spread, -torch.inf, -torch.inf
    given = Spans(scores, torch.tensor([20, 20, 17, 12]))
    found = forward_backward(given)
    with backend("reference"):
        wanted = forward_backward(given)
        right = marginals(given, wanted)
    equal(found.log_z, wanted.log_z)
    possible = ~torch.isneginf(wanted.log_z)
    assert possible.any()
    equal(marginals(given, found)[possible], right[possible])


def test_long_sentences() -> None:
    """Whose charts are large enough to be given back to the system, if anybody lets go of them too soon."""
    scores = random_scores((3, 160, 160, 1), 0)
    given = Spans(scores, torch.tensor([160, 90, 160]))
    for _ in range(3):
        found = forward_backward(given)
        drawn = sample(given, 2, torch.Generator().manual_seed(0))
    with backend("reference"):
        wanted = forward_backward(given)
        equal(marginals(given, found), marginals(given, wanted))
        assert torch.equal(sample(given, 2, torch.Generator().manual_seed(0)), drawn)
    equal(found.log_z, wanted.log_z)
