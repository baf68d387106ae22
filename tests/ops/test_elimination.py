"""The kernel against the reference, on one junction tree made by hand."""

from __future__ import annotations

import pytest
import torch

from lnz.ops import backend, elimination
from lnz.ops.elimination import Program, reference


def program(cut: frozenset[int] = frozenset()) -> Program:
    """Nodes of 2, 3, 2 labels and one apart; factors 0–1, 2–1 (against the order of the clique) and a constant."""
    cliques = [((1, 0), 1, 1), ((1, 2), 2, -1), ((3,), 1, -1)]
    if cut:  # node 1
        cliques = [((0,), 1, -1), ((2,), 1, -1), ((3,), 1, -1)]
    return Program((2, 3, 2, 4), [(0, 1), (2, 1), ()], cliques, cut)


def rows(tree: Program, batch: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    scores = torch.randn(batch, tree.size, dtype=dtype, generator=torch.Generator().manual_seed(1))
    scores[:, tree.node_start :] = 0
    scores[0, 3] = -torch.inf
    return scores


NONE = torch.empty(1, 0, dtype=torch.int64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("batch", [1, 5])
def test_kernel_equals_reference(dtype, batch):
    tree = program()
    scores = rows(tree, batch, dtype)
    with backend("reference"):
        expected = elimination.partition_and_marginals(scores, NONE, tree.handle, False)
    got = elimination.partition_and_marginals(scores, NONE, tree.handle, False)
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6 if dtype == torch.float32 else 1e-12, atol=1e-6)
    torch.testing.assert_close(elimination.log_partition(scores, NONE, tree.handle, False), got[0])


def test_value_by_hand():
    tree = program()
    scores = rows(tree, 2)
    first, second = scores[:, :6].reshape(2, 2, 3, 1), scores[:, 6:12].reshape(2, 2, 3).mT.reshape(2, 1, 3, 2)
    expected = (first + second).flatten(1).logsumexp(1) + scores[:, 12] + torch.tensor(4.0).log()
    torch.testing.assert_close(elimination.log_partition(scores, NONE, tree.handle, False), expected)


def test_cut_nodes_move_the_base():
    tree = program(frozenset({1}))
    scores = rows(tree, 3)
    seen = torch.tensor([[-100, 2, -100, -100], [-100, 0, -100, -100], [-100, 1, -100, -100]])
    expected = (
        torch.stack(
            [
                row[:6].reshape(2, 3)[:, y].logsumexp(0) + row[6:12].reshape(2, 3)[:, y].logsumexp(0) + row[12]
                for row, y in zip(scores, [2, 0, 1], strict=True)
            ]
        )
        + torch.tensor(4.0).log()
    )
    for name in ("auto", "reference"):
        with backend(name):
            z, marginals = elimination.partition_and_marginals(scores, tree.bases(seen), tree.handle, False)
        torch.testing.assert_close(z, expected)
        assert marginals[0, :6].reshape(2, 3).sum(0).tolist() == pytest.approx([0, 0, 1])


def test_the_derivatives_of_the_marginals():
    tree = program()
    scores = rows(tree, 2)[1:].requires_grad_()
    vector = torch.randn(1, tree.size, dtype=torch.float64)
    value = reference.marginals(scores, tree.base, tree)[1]
    (expected,) = torch.autograd.grad(value, scores, vector)

    def marginals(scores):
        done = elimination.partition_and_marginals(scores, NONE, tree.handle, False)
        return elimination.differentiable_marginals(scores, NONE, tree.handle, done)

    torch.testing.assert_close(torch.autograd.grad(marginals(scores), scores, vector)[0], expected)
    along = torch.func.jvp(marginals, (scores.detach(),), (vector,))[1]
    torch.testing.assert_close(along, expected)  # second derivatives are symmetric


def test_threads_share_the_rows():
    tree = program()
    scores = rows(tree, 20_000)
    whole = elimination.partition_and_marginals(scores, NONE, tree.handle, False)
    part = elimination.partition_and_marginals(scores[-3:], NONE, tree.handle, False)
    torch.testing.assert_close(whole[0][-3:], part[0])
    torch.testing.assert_close(whole[1][-3:], part[1])


def test_opcheck():
    tree = program()
    torch.library.opcheck(torch.ops.lnz.elimination, (rows(tree, 2), NONE, tree.handle, False))
    done = elimination.partition_and_marginals(rows(tree, 2), NONE, tree.handle, False)
    weights = torch.ones(2, dtype=torch.float64)
    arguments = (weights, rows(tree, 2), NONE, tree.handle, False, *done, [True])
    torch.library.opcheck(torch.ops.lnz.elimination_gradient, arguments)
    torch.library.opcheck(torch.ops.lnz.elimination_partition, (rows(tree, 2), NONE, tree.handle, False))
