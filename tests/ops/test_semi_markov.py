"""The semi-Markov op: its registration, half precision, and memory that does not grow with widths times pairs."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import lnz
from lnz.ops import semi_markov
from lnz.ops.semi_markov import reference
from lnz.ops.semi_markov.decode import SAMPLE, TOPK
from lnz.ops.semi_markov.op import SEMI_MARKOV
from lnz.ops.semi_markov.records import Segments
from tests.suite import equal, random_scores


@pytest.mark.parametrize("edge_shape", [(1, 1, 2, 2), (3, 3, 2, 2)])
def test_opcheck(edge_shape: tuple[int, ...]) -> None:
    given = Segments(random_scores((3, 4, 3, 2), 0), random_scores(edge_shape, 1), torch.tensor([4, 2, 0]))
    torch.library.opcheck(SEMI_MARKOV.solve.op, tuple(given), raise_exception=True)
    done, weight = SEMI_MARKOV.solve(given), torch.linspace(-1, 2, 3, dtype=torch.float64)
    for wanted in ([True, True], [True, False], [False, True]):
        for factor in (None, weight):
            torch.library.opcheck(SEMI_MARKOV.gradient_op, (factor, *given, *done, wanted), raise_exception=True)
    for k in (1, 3):
        torch.library.opcheck(TOPK.op, (*given, k), raise_exception=True)
    torch.library.opcheck(SAMPLE.op, (*given, torch.rand(2, 3, 4, 2, dtype=torch.float64)), raise_exception=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_accumulated_in_more(dtype: torch.dtype) -> None:
    segment, edge = random_scores((2, 60, 4, 3), 0).to(dtype), random_scores((1, 1, 3, 3), 1).to(dtype)
    lengths = torch.tensor([60, 40])
    log_z, segments, _ = semi_markov.forward_backward(Segments(segment, edge, lengths))
    wanted, marginals, _ = reference.forward_backward(segment.double(), edge.double(), lengths)
    assert segments.dtype == dtype
    assert log_z.dtype == torch.float64  # rounded once, by who asks
    eps = torch.finfo(dtype).eps
    equal(log_z.double(), wanted, rtol=eps, atol=0)
    equal(segments.double(), marginals, rtol=eps, atol=eps)


class Largest(TorchDispatchMode):
    """The size of the largest tensor that is made meanwhile."""

    entries = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(tensor, torch.Tensor):
                self.entries = max(self.entries, tensor.untyped_storage().nbytes() // 8)
        return out


def test_nothing_larger_than_the_scores_is_made() -> None:
    T, W, L = 40, 8, 16
    segment, edge = random_scores((1, T, W, L), 0), random_scores((1, 1, L, L), 1)
    with Largest() as seen:
        reference.forward_backward(segment, edge, torch.tensor([T]))
        semi_markov.topk(Segments(segment, edge, torch.tensor([T])), 1)
        semi_markov.sample(Segments(segment, edge, torch.tensor([T])), 1, torch.Generator().manual_seed(0))
    assert seen.entries <= T * W * L


def test_every_derivative_of_every_answer() -> None:
    """Forward mode and second derivatives against reverse mode by autograd; vmap against a loop."""
    scores = random_scores((2, 4, 3, 2), 0), random_scores((2, 2), 1)
    along, lengths = (random_scores((2, 4, 3, 2), 2), random_scores((2, 2), 3)), torch.tensor([4, 3])

    def model(segment: torch.Tensor, edge: torch.Tensor) -> lnz.SemiMarkov:
        return lnz.SemiMarkov(segment, edge, lengths)

    for answer in (
        lambda p: p.log_partition,
        lambda p: p.marginals[0],
        lambda p: p.marginals[1],
        lambda p: p.entropy(),
    ):

        def function(*s: torch.Tensor) -> torch.Tensor:
            return answer(model(*s))  # noqa: B023

        wanted = torch.autograd.functional.jvp(function, scores, along)[1]
        equal(torch.func.jvp(function, scores, along)[1], wanted)  # type: ignore[arg-type]
    hessian = torch.func.hessian(lambda *s: model(*s).log_partition.sum(), argnums=(0, 1))(*scores)
    right = torch.autograd.functional.hessian(lambda *s: model(*s).log_partition.sum(), scores)
    for ours, theirs in zip(hessian, right, strict=True):
        for a, w in zip(ours, theirs, strict=True):
            equal(a, w)


def test_decoding_under_vmap_and_compiled() -> None:
    segment, edge, lengths = random_scores((2, 5, 3, 2), 0), random_scores((2, 2), 1), torch.tensor([5, 3])

    def best(segment: torch.Tensor) -> tuple[torch.Tensor, ...]:
        p = lnz.SemiMarkov(segment, edge, lengths)
        return p.argmax(), *p.topk(3)

    several = torch.stack((segment, -segment))
    found = torch.func.vmap(best)(several)
    for i in range(2):
        for a, w in zip(found, best(several[i]), strict=True):
            equal(a[i], w)
    torch.compiler.reset()
    for a, w in zip(torch.compile(best, fullgraph=True, backend="aot_eager")(segment), best(segment), strict=True):
        equal(a, w)
    drawn = torch.func.vmap(lambda s: lnz.SemiMarkov(s, edge, lengths).sample((50,)), randomness="different")(several)
    assert drawn.shape == (2, 50, 2, 5)
    assert ((drawn == -100) == (torch.arange(5) >= lengths[:, None])).all()


def test_one_model_is_differentiated_as_often_as_asked() -> None:
    p = lnz.SemiMarkov(random_scores((2, 4, 3, 2), 0).requires_grad_(), random_scores((2, 2), 1))
    first = torch.autograd.grad(p.log_partition.sum(), p.segment_scores)[0]
    equal(torch.autograd.grad(p.log_partition.sum(), p.segment_scores)[0], first)
