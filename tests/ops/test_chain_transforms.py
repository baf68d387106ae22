"""The chain under the transforms of torch: forward mode, second derivatives, vmap and compilation of what is best."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.distributions import kl_divergence

import lnz
from lnz import ops
from lnz.ops.chain.decode import MAX_MARGINALS, SAMPLE, TOPK
from lnz.ops.choices import picked
from tests.suite import equal, random_scores

NODE, EDGES = random_scores((3, 4, 3), 0), (random_scores((3, 3), 1), random_scores((3, 3, 3, 3), 2))
LENGTHS, Y = torch.tensor([4, 2, 0]), torch.tensor([[0, 2, 1, 1], [2, 2, 0, 0], [0, 0, 0, 0]])

ANSWERS: dict[str, Callable[[lnz.LinearChain], Tensor]] = {
    "ln Z": lambda p: p.log_partition,
    "ln P(y)": lambda p: p.log_prob(Y),
    "ln P(y), with the pass known": lambda p: p.log_prob(Y) + 0 * p.node_marginals.sum((1, 2)),
    "nodes": lambda p: p.marginals[0],
    "edges": lambda p: p.marginals[1],
    "entropy": lambda p: p.entropy(),
    "KL": lambda p: kl_divergence(p, p.tempered(2.0)),
}


@pytest.mark.parametrize("edge", EDGES, ids=["one table", "tables"])
@pytest.mark.parametrize("name", ANSWERS)
def test_tangents_and_second_derivatives(name: str, edge: Tensor) -> None:
    """Forward mode against reverse mode: J v by a double transposition, the Hessian by autograd."""

    def answer(node: Tensor, edge: Tensor) -> Tensor:
        return ANSWERS[name](lnz.LinearChain(node, edge, LENGTHS))

    def total(node: Tensor, edge: Tensor) -> Tensor:
        value = answer(node, edge)
        return (value * torch.arange(1.0, value.numel() + 1, dtype=value.dtype).view(value.shape).sin()).sum()

    scores, along = (NODE, edge), (random_scores((3, 4, 3), 3), random_scores(tuple(edge.shape), 4))
    wanted = torch.autograd.functional.jvp(answer, scores, along)[1]
    assert isinstance(wanted, Tensor)
    equal(torch.func.jvp(answer, scores, along)[1], wanted)
    apart = [torch.func.jvp(lambda x: answer(x, edge), (NODE,), along[:1])]
    apart += [torch.func.jvp(lambda a: answer(NODE, a), (edge,), along[1:])]
    equal(apart[0][1] + apart[1][1], wanted)
    with forward_ad.dual_level():
        dual = answer(*(forward_ad.make_dual(x, dx) for x, dx in zip(scores, along, strict=True)))
        equal(forward_ad.unpack_dual(dual).tangent, wanted)
    hessians = torch.func.hessian(total, argnums=(0, 1))(*scores), torch.autograd.functional.hessian(total, scores)
    for ours, theirs in zip(*hessians, strict=True):
        for a, w in zip(ours, theirs, strict=True):
            equal(a, w)


BEST: dict[str, Callable[[lnz.LinearChain], object]] = {
    "argmax": lambda p: p.argmax(),
    "topk": lambda p: p.topk(4),
    "max-marginals": lambda p: tuple(p.max_marginals()),
}


@pytest.mark.parametrize("name", BEST)
def test_what_is_best_under_vmap_and_compiled(name: str) -> None:
    several = torch.stack((NODE, -NODE, 2 * NODE))

    def best(node: Tensor, edge: Tensor) -> tuple[Tensor, ...]:
        found = BEST[name](lnz.LinearChain(node, edge, LENGTHS))
        return (found,) if isinstance(found, Tensor) else found  # type: ignore[return-value]

    for edge in EDGES:
        wanted = [best(node, edge) for node in several]
        torch.compiler.reset()
        compiled = torch.compile(best, fullgraph=True, backend="aot_eager")
        for found, *each in zip(torch.func.vmap(best, (0, None))(several, edge), *wanted, strict=True):
            equal(found, torch.stack(each))
        for found, right in zip(compiled(NODE, edge), wanted[0], strict=True):
            equal(found, right)
        by_edge = torch.func.vmap(best, (None, 0))(NODE, torch.stack((edge, -edge)))
        for found, one, two in zip(by_edge, best(NODE, edge), best(NODE, -edge), strict=True):
            equal(found, torch.stack((one, two)))


def test_samples_under_vmap_and_compiled() -> None:
    """Where all but one labelling is impossible, each sample is that one; padding stays padding."""
    node = NODE.clone()
    node[0] = torch.where(torch.nn.functional.one_hot(Y[0], 3).bool(), node[0], -torch.inf)

    def drawn(node: Tensor) -> Tensor:
        return lnz.LinearChain(node, EDGES[0], LENGTHS).sample((50,))

    torch.compiler.reset()
    several = torch.func.vmap(drawn, randomness="different")(torch.stack((node, node)))
    assert not torch.equal(several[0], several[1])
    same = torch.func.vmap(drawn, randomness="same")(torch.stack((node, node)))
    assert torch.equal(same[0], same[1])
    for labels in (*several, *same, torch.compile(drawn, fullgraph=True, backend="aot_eager")(node)):
        assert labels.shape == (50, 3, 4)
        assert (labels[:, 0] == Y[0]).all()
        assert torch.equal(labels == -100, (torch.arange(4) >= LENGTHS[:, None]).expand(50, 3, 4))


def test_kernels_and_reference_draw_the_same_from_the_same_numbers() -> None:
    uniform = torch.rand(200, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for edge in (EDGES[0][None, None], EDGES[1]):
        given = SAMPLE.given.unflatten([NODE, edge, LENGTHS, uniform])
        labels = SAMPLE(given).labels
        with ops.backend("reference"):
            assert torch.equal(labels, SAMPLE(given).labels)


def test_no_label_of_weight_0_is_drawn() -> None:
    weights = torch.tensor([0.0, 0.3, 0.0, 0.7, 0.0], dtype=torch.float64)
    uniform = torch.tensor([0.0, 0.29, 0.31, 1 - 2**-53], dtype=torch.float64)
    assert picked(weights.expand(4, 5), uniform).tolist() == [1, 1, 3, 3]


ENDS = torch.linspace(-1, 2, 2 * NODE.shape[2], dtype=torch.float64).reshape(2, -1)


def test_opcheck() -> None:
    for edge in (EDGES[0][None, None], EDGES[1]):
        for k in (1, 3):
            torch.library.opcheck(TOPK.op, (NODE, edge, LENGTHS, ENDS, k), raise_exception=True)
        for of_edges in (False, True):
            torch.library.opcheck(MAX_MARGINALS.op, (NODE, edge, LENGTHS, of_edges), raise_exception=True)
        uniform = torch.rand(2, 3, 4, dtype=torch.float64)
        torch.library.opcheck(SAMPLE.op, (NODE, edge, LENGTHS, uniform), raise_exception=True)
