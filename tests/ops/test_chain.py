"""The chain op: scaled against reference, its registration, extreme ranges, and the choice of a backend."""

from __future__ import annotations

import asyncio
import threading

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lnz import ops
from lnz.ops import chain
from lnz.ops.chain import reference, scaled
from lnz.ops.chain.op import _chain
from tests.suite import equal, impossibilities, random_scores, seeds


@st.composite
def inputs(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    B, T, L, seed = draw(st.integers(1, 4)), draw(st.integers(1, 6)), draw(st.integers(1, 4)), draw(seeds)
    impossible = draw(impossibilities) / 2
    edge_shape = (draw(st.sampled_from([1, B])), draw(st.sampled_from([1, max(1, T - 1)])), L, L)
    lengths = torch.randint(T + 1, (B,), generator=torch.Generator().manual_seed(seed))
    return random_scores((B, T, L), seed, impossible), random_scores(edge_shape, seed + 1, impossible), lengths


@given(inputs())
def test_scaled_equals_reference_or_declines(arguments: tuple[torch.Tensor, ...]) -> None:
    result = scaled.forward_backward(*arguments)
    wanted = reference.forward_backward(*arguments)
    if result is None:
        node, edge, _ = arguments
        assert torch.isneginf(node).any() or torch.isneginf(edge).any()
        return
    for a, w in zip(result, wanted, strict=True):
        assert a.is_contiguous()
        equal(a, w)


@pytest.mark.parametrize("scale", [1.0, 20.0, 60.0, 300.0, 1e4])
def test_any_range_of_scores_is_right_in_float32(scale: float) -> None:
    node, edge = scale * random_scores((3, 20, 4), 0), scale * random_scores((1, 1, 4, 4), 1)
    lengths = torch.tensor([20, 7, 1])
    single = chain.forward_backward(node.float(), edge.float(), lengths)
    double = reference.forward_backward(node.float().double(), edge.float().double(), lengths)
    for a, w in zip(single, double, strict=True):
        equal(a.double(), w, rtol=1e-5, atol=2e-5)


def test_a_component_that_is_lost_to_underflow_is_noticed() -> None:
    """Label 1 falls behind by exp(−10) a step, and is the only one possible in the end."""
    T = 200
    node = torch.zeros(1, T, 2)
    node[0, :, 1] = -10.0
    node[0, -1, 0] = -torch.inf
    edge = torch.tensor([[0.0, -torch.inf], [-torch.inf, 0.0]])[None, None]
    assert scaled.forward_backward(node, edge, torch.tensor([T])) is None
    log_z, nodes, _ = chain.forward_backward(node, edge, torch.tensor([T]))
    equal(log_z, torch.tensor([-10.0 * T]), rtol=1e-6)
    equal(nodes[0, :, 1], torch.ones(T))


@pytest.mark.parametrize("edge_shape", [(1, 1, 2, 2), (3, 3, 2, 2)])
def test_opcheck(edge_shape: tuple[int, ...]) -> None:
    torch.library.opcheck(
        _chain,
        (random_scores((3, 4, 2), 0), random_scores(edge_shape, 1), torch.tensor([4, 2, 0])),
        raise_exception=True,
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_accumulated_in_more(dtype: torch.dtype) -> None:
    node, edge, lengths = random_scores((2, 500, 3), 0).to(dtype), random_scores((1, 1, 3, 3), 1).to(dtype), None
    lengths = torch.tensor([500, 400])
    log_z, nodes, _ = chain.forward_backward(node, edge, lengths)
    wanted, marginals, _ = reference.forward_backward(node.double(), edge.double(), lengths)
    assert log_z.dtype == nodes.dtype == dtype
    equal(log_z.double(), wanted, rtol=torch.finfo(dtype).eps, atol=0)
    equal(nodes.double(), marginals, rtol=0, atol=torch.finfo(dtype).eps)


def test_backend_is_chosen_by_context_and_by_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LNZ_BACKEND", raising=False)
    x = torch.zeros(1)
    assert ops.use_kernels(x)
    assert not ops.use_kernels(x.half())
    with ops.backend("reference"):
        assert not ops.use_kernels(x)
        with ops.backend("auto"):
            assert ops.use_kernels(x)
        assert not ops.use_kernels(x)
    monkeypatch.setenv("LNZ_BACKEND", "reference")
    assert not ops.use_kernels(x)
    with ops.backend("auto"):
        assert ops.use_kernels(x)
    monkeypatch.setenv("LNZ_BACKEND", "fast")
    with pytest.raises(ValueError, match="LNZ_BACKEND: expected one of 'auto', 'reference', got 'fast'"):
        ops.use_kernels(x)
    with (
        pytest.raises(ValueError, match="backend: expected one of 'auto', 'reference', got 'cuda'"),
        ops.backend("cuda"),
    ):
        pass


def test_backend_concerns_only_its_own_thread_and_task() -> None:
    seen = []

    async def other() -> bool:
        return ops.use_kernels(torch.zeros(1))

    async def main() -> bool:
        task = asyncio.create_task(other())
        with ops.backend("reference"):
            return await task

    with ops.backend("reference"):
        thread = threading.Thread(target=lambda: seen.append(ops.use_kernels(torch.zeros(1))))
        thread.start()
        thread.join()
    assert seen == [True]
    assert asyncio.run(main())
