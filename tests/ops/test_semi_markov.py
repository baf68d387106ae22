"""The semi-Markov op: its registration, half precision, and memory that does not grow with widths times pairs."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lnz.ops import semi_markov
from lnz.ops.semi_markov import reference
from lnz.ops.semi_markov.op import _semi_markov
from tests.suite import equal, random_scores


@pytest.mark.parametrize("edge_shape", [(1, 1, 2, 2), (3, 3, 2, 2)])
def test_opcheck(edge_shape: tuple[int, ...]) -> None:
    arguments = random_scores((3, 4, 3, 2), 0), random_scores(edge_shape, 1), torch.tensor([4, 2, 0])
    torch.library.opcheck(_semi_markov, arguments, raise_exception=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_accumulated_in_more(dtype: torch.dtype) -> None:
    segment, edge = random_scores((2, 60, 4, 3), 0).to(dtype), random_scores((1, 1, 3, 3), 1).to(dtype)
    lengths = torch.tensor([60, 40])
    log_z, segments, _ = semi_markov.forward_backward(segment, edge, lengths)
    wanted, marginals, _ = reference.forward_backward(segment.double(), edge.double(), lengths)
    assert log_z.dtype == segments.dtype == dtype
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
        semi_markov.topk(segment, edge, torch.tensor([T]), 1)
        semi_markov.sample(segment, edge, torch.tensor([T]), 1, torch.Generator().manual_seed(0))
    assert seen.entries <= T * W * L
