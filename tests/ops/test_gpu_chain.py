"""The Triton kernels of chains, interpreted on the CPU, equal the reference on memory that is full of NaN."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

import lnz
from lnz.ops import backend
from lnz.ops.chain import Chains, decode
from tests.gpu import interpreter, poisoned  # noqa: F401  (fixtures)

pytestmark = pytest.mark.usefixtures("interpreter", "poisoned")
TOLERANCE = {torch.float64: (1e-11, 1e-11), torch.float32: (2e-5, 2e-6), torch.bfloat16: (1e-2, 4e-3)}


def chains(L: int, T: int, B: int, form: str, dtype: torch.dtype, scale: float = 2.0) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(10 * L + T)
    node = scale * torch.randn(B, T, L, generator=generator)
    shape = {"shared": (L, L), "steps": (T - 1, L, L), "own": (B, T - 1, L, L), "own, all steps": (B, 1, L, L)}[form]
    edge = scale * torch.randn(*shape, generator=generator)
    if L > 2:
        edge[..., 0, L - 1] = -torch.inf
        node[:, T // 2, 1] = -torch.inf
    lengths = torch.randint(0, T + 1, (B,), generator=generator)
    lengths[0] = T
    y = torch.randint(0, L, (B, T), generator=generator)
    padding = torch.arange(T) >= lengths[:, None]
    return node.masked_fill(padding[..., None], torch.nan).to(dtype), edge.to(dtype), lengths, y


def answers(name: str, node: Tensor, edge: Tensor, lengths: Tensor, y: Tensor) -> dict[str, Tensor]:
    with backend(name):
        leaves = [x.clone().requires_grad_() for x in (node, edge)]
        p = lnz.LinearChain(*leaves, lengths)
        log_prob = p.log_prob(y)
        weight = torch.arange(1, 1 + len(y))
        finite = torch.where(torch.isneginf(log_prob), 0.0, log_prob)
        of_log_prob = torch.autograd.grad((weight * finite).sum(), leaves)
        p = lnz.LinearChain(*leaves, lengths)
        z = p.log_partition
        of_log_z = torch.autograd.grad((weight * z).sum(), leaves, retain_graph=True)
        nodes, edges = p.marginals
        best = p.argmax()
        found = {"ln P": log_prob, "ln Z": z, "nodes": nodes, "edges": edges, "best": p.score(best).nan_to_num()}
        found |= {f"{of} {at}": g for of, gs in (("P", of_log_prob), ("Z", of_log_z)) for at, g in enumerate(gs)}
        return {key: value.detach() for key, value in found.items()}


def compare(dtype: torch.dtype, *given: Tensor) -> None:
    node, edge, lengths, y = given
    wide = (node.double(), edge.double(), lengths, y)
    actual, wanted = answers("triton", *given), answers("reference", *wide)
    rtol, atol = TOLERANCE[dtype]
    for key, value in wanted.items():
        assert actual[key].dtype == dtype
        named = f"{key}: {{}}".format
        torch.testing.assert_close(actual[key].double(), value, rtol=rtol, atol=atol, msg=named)


SHAPES = [(1, 3, 2), (2, 1, 2), (3, 6, 4), (5, 2, 3), (33, 4, 2)]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("shape", "form"), [*itertools.product(SHAPES, ("shared", "own")), ((3, 5, 2), "steps")])
def test_equals_the_reference(shape: tuple[int, int, int], form: str, dtype: torch.dtype) -> None:
    compare(dtype, *chains(*shape, form, dtype))


@pytest.mark.parametrize("form", ["shared", "own"])
@pytest.mark.parametrize("L", [100, 130])
def test_tables_that_do_not_fit_into_registers(L: int, form: str) -> None:
    compare(torch.float32, *chains(L, 3, 2, form, torch.float32))


def test_one_table_of_each_chain() -> None:
    compare(torch.float64, *chains(3, 4, 3, "own, all steps", torch.float64))


@pytest.mark.parametrize("form", ["shared", "own"])
def test_long_chains_are_cut_into_blocks(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from lnz.ops.chain.gpu import shapes

    monkeypatch.setattr(shapes, "FEWEST", 4)
    monkeypatch.setattr(shapes, "BLOCK", 4)
    node, edge, _, y = chains(3, 11, 5, form, torch.float64)
    for lengths in ([11, 10, 9, 8, 0], [1, 2, 4, 5, 6]):
        assert shapes.Layout.of(Chains(node, edge.view(-1, 1, 3, 3), torch.tensor(lengths))).blocks > 1
        compare(torch.float64, node.nan_to_num(), edge, torch.tensor(lengths), y)


@pytest.mark.parametrize("scale", [30.0, 300.0, 3e4])
def test_scores_of_any_range(scale: float) -> None:
    node, edge, lengths, y = chains(4, 6, 3, "shared", torch.float32, scale)
    actual = answers("triton", node, edge, lengths, y)
    wanted = answers("reference", node.double(), edge.double(), lengths, y)
    for key in ("ln Z", "nodes", "edges", "P 0", "P 1", "best"):
        torch.testing.assert_close(actual[key].double(), wanted[key], rtol=1e-6, atol=1e-6 * max(1.0, scale / 100))


def test_what_is_impossible() -> None:
    node, edge = torch.zeros(2, 4, 3), torch.zeros(3, 3)
    node[0, 2] = -torch.inf
    with backend("triton"):
        leaves = node.clone().requires_grad_(), edge.clone().requires_grad_()
        p = lnz.LinearChain(*leaves)
        assert p.log_partition[0] == -torch.inf
        assert p.log_prob(torch.zeros(2, 4, dtype=torch.int64))[0] == -torch.inf
        torch.testing.assert_close(p.log_partition[1], torch.tensor(4 * 3.0).new_tensor(81.0).log())
        gradients = torch.autograd.grad(p.log_partition[1], leaves)
        assert all(g.isfinite().all() for g in gradients)
        assert (gradients[0][0] == 0).all()
        labels, scores = decode.topk(Chains(node, edge[None, None], torch.tensor([4, 4])), 1)
        assert (labels[0, 0] == -100).all()
        assert scores[0].tolist() == [-torch.inf, 0.0]


def test_samples_are_drawn_as_the_reference_draws_them() -> None:
    node, edge, lengths, _ = chains(5, 4, 3, "shared", torch.float64)
    given = Chains(node.nan_to_num(), edge[None, None], lengths)
    drawn = []
    for name in ("triton", "reference"):
        with backend(name):
            drawn.append(decode.sample(given, 7, torch.Generator().manual_seed(3)))
    assert torch.equal(*drawn)


def test_the_same_gradient_every_time() -> None:
    given = chains(4, 5, 6, "shared", torch.float32)
    first, second = (answers("triton", *given) for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_transforms() -> None:
    node, edge = torch.randn(3, 2, 4, 3, dtype=torch.float64), torch.randn(3, 3, dtype=torch.float64)

    def log_z(node: Tensor, edge: Tensor) -> Tensor:
        return lnz.LinearChain(node, edge, validate_args=False).log_partition.sum()

    def wanted(of: object) -> object:
        with backend("reference"):
            return of()  # type: ignore[operator]

    with backend("triton"):
        equal = torch.testing.assert_close
        by_vmap = torch.func.vmap(log_z, (0, None))
        equal(by_vmap(node, edge), wanted(lambda: by_vmap(node, edge)))
        both = torch.func.jacrev(log_z, (0, 1))
        equal(both(node[0], edge), wanted(lambda: both(node[0], edge)))
        assert torch.autograd.gradgradcheck(log_z, (node[0].requires_grad_(), edge.requires_grad_()))
        compiled = torch.compile(log_z, fullgraph=True, backend="aot_eager")
        equal(compiled(node[0], edge), log_z(node[0], edge))


def test_filtering_of_hidden_markov_models() -> None:
    generator = torch.Generator().manual_seed(0)
    tables = [torch.randn(s, generator=generator, dtype=torch.float64) for s in ((3,), (3, 3), (2, 5, 3))]
    found = []
    for name in ("triton", "reference"):
        with backend(name):
            p = lnz.HMM(*(table.log_softmax(-1) for table in tables), torch.tensor([5, 3]))
            found.append((p.filtered, p.smoothed_pairs))
    for actual, wanted in zip(*found, strict=True):
        torch.testing.assert_close(actual, wanted)


def test_a_step_of_training_is_the_same() -> None:
    emissions, tags = torch.randn(3, 5, 4, requires_grad=True), torch.randint(4, (3, 5))
    mask = torch.arange(5) < torch.tensor([5, 3, 4])[:, None]
    layer = lnz.nn.LinearChainCRF(4)
    losses, steps = [], []
    for name in ("triton", "reference"):
        with backend(name):
            loss = -layer(emissions, tags, mask, reduction="mean")
            losses.append(loss.detach())
            steps.append(torch.autograd.grad(loss, [emissions, *layer.parameters()]))
            best = layer.decode(emissions, mask)
        losses.append(torch.tensor([float(tag) for row in best for tag in row]))
    torch.testing.assert_close(losses[:2], losses[2:])
    torch.testing.assert_close(*steps)
