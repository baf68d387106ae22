"""Dependency trees below the distribution: operators, buffers that hold NaN, ranges that leave the exponentials."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lnz.ops import arborescence, backend, projective
from lnz.ops.arborescence import reference
from lnz.ops.arcs import Arcs, TopK, TreeOp, Uniform
from lnz.ops.jit import buffers

TREES = {"projective": projective.TREES, "arborescence": arborescence.TREES}


def sentences(scale: float = 1.0, dtype: torch.dtype = torch.float64, N: int = 6) -> Tensor:
    scores = scale * torch.randn(4, N + 1, N + 1, dtype=torch.float64, generator=torch.Generator().manual_seed(N))
    scores[:, 0] = -math.inf
    scores.diagonal(0, 1, 2).fill_(-math.inf)
    return scores.to(dtype)


@pytest.mark.parametrize("trees", TREES.values(), ids=TREES)
@pytest.mark.parametrize("single_root", [True, False])
@pytest.mark.parametrize("scale", [1.0, 30.0, 1000.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_kernels_equal_the_reference_on_poisoned_buffers(
    trees: TreeOp, single_root: bool, scale: float, dtype: torch.dtype
) -> None:
    lengths = torch.tensor([6, 3, 1, 0])
    given = Arcs(sentences(scale, dtype), lengths, single_root)
    for size in (4 * 49, 2**18):
        buffers.empty(size, dtype=dtype).fill_(math.nan)
    found, best = trees.trees.solve(given), trees.best(given)
    with backend("reference"):
        wanted, wanted_best = trees.trees.solve(given), trees.best(given)
    torch.testing.assert_close(found.log_z, wanted.log_z, rtol=1e-12, atol=1e-9)
    torch.testing.assert_close(found.marginals, wanted.marginals, rtol=0, atol=1e-6 if dtype == torch.float32 else 1e-9)
    torch.testing.assert_close(best.scores, wanted_best.scores, rtol=1e-12, atol=1e-9)
    assert torch.equal(best.heads, wanted_best.heads)


def test_what_leaves_the_range_of_exponentials_is_told() -> None:
    from lnz.ops.arborescence.cpu.eliminate import eliminate

    for scale, stays in ((1.0, True), (1000.0, False)):
        *_, in_range = eliminate(Arcs(sentences(scale), torch.full((4,), 6), True))
        assert bool(in_range.all()) == stays


@pytest.mark.parametrize("trees", TREES.values(), ids=TREES)
def test_operators(trees: TreeOp) -> None:
    scores, lengths = sentences(N=3), torch.tensor([3, 2, 1, 0])
    uniform = torch.rand(2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for op, record in (
        (trees.trees.solve, Arcs(scores, lengths, True)),
        (trees.best, Arcs(scores, lengths, True)),
        (trees.topk, TopK(scores.unsqueeze(-1), lengths, True, 3)),
        (trees.sample, Uniform(scores, lengths, uniform, True)),
    ):
        torch.library.opcheck(op.op, tuple(record))


@pytest.mark.parametrize("trees", TREES.values(), ids=TREES)
@pytest.mark.parametrize("single_root", [True, False])
def test_derivatives(trees: TreeOp, single_root: bool) -> None:
    lengths, never = torch.tensor([3, 2, 1, 0]), torch.isneginf(sentences(N=3))

    def log_z(scores: Tensor) -> Tensor:
        masked = scores.masked_fill(never, -math.inf)
        given = Arcs(masked, lengths, single_root)
        return trees.trees.value(given, trees.trees.solve(given))

    leaf = sentences(N=3).nan_to_num(neginf=0.0).requires_grad_()
    assert torch.autograd.gradcheck(log_z, leaf)
    assert torch.autograd.gradgradcheck(log_z, leaf)
    torch.testing.assert_close(torch.func.jacfwd(log_z)(leaf.detach()), torch.func.jacrev(log_z)(leaf.detach()))


def test_a_determinant_is_the_partition_function() -> None:
    """Of the Laplacian (Tutte), where its digits suffice."""
    scores = sentences(N=6)
    weights = scores[:, 1:].exp()
    laplacian = torch.diag_embed(weights.sum(-1)) - weights[:, :, 1:]
    found = reference.log_partition(scores, torch.full((4,), 6), single_root=False)
    torch.testing.assert_close(found, torch.linalg.slogdet(laplacian).logabsdet)
