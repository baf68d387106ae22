"""The kernel against the reference, on one junction tree made by hand."""

from __future__ import annotations

import copy

import pytest
import torch

import lnz
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


def by_hand(scores: torch.Tensor) -> torch.Tensor:
    """ln P(y) ``[B, 2 · 3 · 2 · 4]`` of all labellings of :func:`program`."""
    first, second = scores[:, :6].reshape(-1, 2, 3, 1, 1), scores[:, 6:12].reshape(-1, 2, 3).mT.reshape(-1, 1, 3, 2, 1)
    return (first + second + torch.zeros(4, dtype=scores.dtype)).flatten(1).log_softmax(1)


@pytest.mark.parametrize("scale", [1.0, 1e3, 1e30, 1e300])
@pytest.mark.parametrize("name", ["auto", "reference"])
def test_surprisal_by_hand(name: str, scale: float) -> None:
    """E_P[−ln Q], +∞ where Q rules out what P does not; the entropy of P itself."""
    tree = program()
    p, q = scale * rows(tree, 4), scale * rows(tree, 4).flip(0)
    p[0], q[3] = p[1], p[3].masked_fill(torch.arange(tree.size) == p[3, :6].argmax(), -torch.inf)
    mine, theirs = by_hand(p), by_hand(q)
    chances = mine.exp()
    expected = -(chances * theirs.masked_fill(chances == 0, 0.0)).sum(1)
    with backend(name):
        torch.testing.assert_close(elimination.surprisal(p, q, NONE, tree.handle), expected, rtol=1e-12, atol=1e-12)
        entropy = -(chances * mine.masked_fill(chances == 0, 0.0)).sum(1)
        torch.testing.assert_close(elimination.surprisal(p, p, NONE, tree.handle), entropy, rtol=1e-12, atol=1e-12)


def test_surprisal_where_nodes_are_cut_out() -> None:
    tree = program(frozenset({1}))
    p, q, seen = rows(tree, 3), rows(tree, 3).flip(0), torch.tensor([[-100, 2, -100, -100]]).expand(3, -1)
    mine, theirs = (
        (x[:, :6].reshape(-1, 2, 3)[..., 2, None] + x[:, 6:12].reshape(-1, 2, 3)[..., 2][:, None])
        .flatten(1).log_softmax(1)
        for x in (p, q)
    )  # fmt: skip
    expected = -(mine.exp() * theirs).sum(1) + torch.tensor(4.0).log()
    q[1, 12] = -torch.inf  # a constant
    expected[1] = torch.inf
    for name in ("auto", "reference"):
        with backend(name):
            torch.testing.assert_close(elimination.surprisal(p, q, tree.bases(seen), tree.handle), expected)


def test_the_derivatives_of_surprisal():
    tree = program()
    p, q = rows(tree, 3)[1:].requires_grad_(), rows(tree, 3)[:2].flip(0).clone()
    q = q.masked_fill(torch.isneginf(q), 0.0).requires_grad_()

    def value(p, q):
        return elimination.surprisal(p, q, NONE, tree.handle)

    assert torch.autograd.gradcheck(value, (p, q))
    assert torch.autograd.gradgradcheck(value, (p, q))
    assert torch.autograd.gradcheck(lambda p: value(p, p), (p,))
    along = tuple(torch.arange(1.0, 2 * tree.size + 1).reshape(2, -1).double().sin() * sign for sign in (1, -2))
    wanted = torch.autograd.functional.jvp(value, (p.detach(), q.detach()), along)[1]
    torch.testing.assert_close(torch.func.jvp(value, (p.detach(), q.detach()), along)[1], wanted)
    each = torch.vmap(value)(p[:, None].detach(), q[:, None].detach())
    torch.testing.assert_close(each[:, 0], value(p, q).detach())


def test_threads_share_the_blocks_of_a_large_clique() -> None:
    """A triangle of 80 labels: one table of 512,000 entries in one row."""
    graph = lnz.FactorGraph.pairwise(4, 80, torch.tensor([[0, 1], [1, 2], [2, 0], [2, 3]]))
    shapes = ((4, 80), (4, 80, 80))
    p, q = (
        lnz.MRF(graph, [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for shape in shapes])
        for seed in (0, 1)
    )
    threads, found = torch.get_num_threads(), []
    try:
        for number in (1, 3):
            torch.set_num_threads(number)
            found.append((p.entropy(), p.cross_entropy(q)))
    finally:
        torch.set_num_threads(threads)
    for one, three in zip(*found, strict=True):
        torch.testing.assert_close(one, three)
    z = lnz.MRF(graph, [x.double() for x in p.scores])  # type: ignore[union-attr]
    expected = z.log_partition - sum((m * s).sum() for m, s in zip(z.marginals, z.scores, strict=True))  # type: ignore[operator]
    torch.testing.assert_close(found[0][0].double(), expected, rtol=1e-6, atol=1e-6)


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
    torch.library.opcheck(torch.ops.lnz.elimination_surprisal, (rows(tree, 2), rows(tree, 2), NONE, tree.handle))


def test_copies_of_a_model_have_kernels_of_their_own() -> None:
    """Layouts hold addresses, which a copy must not take over."""
    p = lnz.MRF(lnz.FactorGraph.grid(3, 3, 2), (torch.zeros(9, 2), torch.eye(2)))
    wanted = p.log_partition
    copied = copy.deepcopy(p)
    del p
    torch.testing.assert_close(copied.tempered(1.0).log_partition, wanted)
