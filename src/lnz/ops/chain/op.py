"""The linear chain: ln Z, node and edge marginals. Shapes as in :mod:`lnz.ops.chain.reference`.

``lnz::chain`` computes ln Z, node marginals and two factors of the edge marginals at once, without a tape over time and
without a tensor of the size of the edge marginals; ``lnz::chain_gradient`` makes those from the factors, summed to the
shape of the edge scores, in one matrix product where these are shared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lnz.ops import precision
from lnz.ops.chain import reference
from lnz.ops.chain.numerator import pair_sums
from lnz.ops.chain.records import Chains, Pass
from lnz.ops.dispatch import Kernels
from lnz.ops.jit.triton import SERVED, accumulating
from lnz.ops.scaffold import Differentiable, Operator
from lnz.ops.scaffold.batch import Axis

KERNELS = Kernels("chain")
KERNELS.register("cpu", "lnz.ops.chain.cpu", devices=("cpu",), dtypes=(torch.float32, torch.float64))
KERNELS.register("triton", "lnz.ops.chain.gpu", **SERVED)

SHARED = {"edge": Axis(shared=True)}


def solve(chains: Chains) -> Pass:
    """The pass: by the kernels, as far as they serve, each chain on the rung that its range takes."""
    run = KERNELS.find("forward_backward", chains.node, chains.edge) if chains.has_steps else None
    if run is None and (forwards := forward_only(chains)) is not None:
        return forwards(chains)
    if run is None:
        log_z, nodes = in_logs(chains)
        factors = torch.zeros_like(nodes, dtype=chains.node.dtype), torch.zeros_like(nodes, dtype=chains.node.dtype)
        rung = torch.full_like(chains.lengths, precision.LOGARITHMS, dtype=torch.uint8)
        return Pass(log_z, nodes.to(chains.node.dtype), *factors, rung)

    def kernel(some: Chains) -> tuple[tuple[Tensor, ...], Tensor]:
        *results, in_range = run(some)
        return tuple(results), in_range

    def double(some: Chains) -> tuple[tuple[Tensor, ...], Tensor]:  # whose factors may not fit into float32
        log_z, nodes, *_, in_range = run(some)
        return (log_z, nodes), in_range

    results, rung = precision.climb(chains, kernel, None if chains.is_double else double, in_logs)
    return Pass(*results, rung)  # pyright: ignore[reportCallIssue]


def forward_only(chains: Chains) -> Callable[[Chains], Pass] | None:
    """Where a backend serves these chains by a pass that is a filter, it."""
    forwards = KERNELS.find("filtered", chains.node, chains.edge)
    if forwards is None or KERNELS.find("forward_backward", chains.node, chains.edge) is not None:
        return None
    return forwards if chains.has_steps else None


def in_logs(chains: Chains) -> tuple[Tensor, Tensor]:
    """ln Z and node marginals, in float64, whatever the range of the scores."""
    run = KERNELS.find("forward_backward_in_logs", chains.node, chains.edge) if chains.has_steps else None
    return (run or reference.forward_backward)(*chains.wide())[:2]


def gradient(weight: Tensor | None, chains: Chains, done: Pass, wanted: Sequence[bool]) -> tuple[Tensor, Tensor]:
    """Σ_b weight_b · marginals of chain b, in the shapes of the scores; empty where not wanted."""
    if done.is_filter:
        return smoothed(weight, chains, None, done, wanted)
    nodes = done.nodes.new_empty(0)
    if wanted[0]:
        nodes = done.nodes if weight is None else weight[:, None, None] * done.nodes
    return nodes, edge_gradient(weight, chains, done) if wanted[1] else chains.edge.new_empty(0)


def smoothed(
    weight: Tensor | None, chains: Chains, y: Tensor | None, done: Pass, wanted: Sequence[bool]
) -> tuple[Tensor, Tensor]:
    """:func:`gradient` from a pass that is a filter; of ln P(y) where y ``[B, T]`` is given."""
    run = KERNELS.find("smoothed", chains.node, chains.edge)
    if run is None:
        raise ValueError("backend: expected the one that made the pass, got another between the value and its gradient")
    return run(chains, y, done, weight, wanted)


def edge_gradient(weight: Tensor | None, chains: Chains, done: Pass) -> Tensor:
    """Σ_b weight_b · edge marginals of chain b, in the shape of the edge scores."""
    total = pair_sums(chains.edge, done.forward_factor, done.backward_factor, weight)
    return add_wide_edges(total, weight, chains, done.rung)


def add_wide_edges(total: Tensor, weight: Tensor | None, chains: Chains, rung: Tensor) -> Tensor:
    """Add what factors in the dtype of the scores do not serve to a :func:`edge_gradient`, in place."""
    if weight is None:
        weight = chains.node.new_ones(len(chains.node))
    for level, which in precision.rungs_above(rung):
        some = precision.entries(chains, which)
        share = (edges_in_double if level == precision.DOUBLE else edges_in_logs)(some, weight[which])
        if len(total) == 1:
            total += share.to(total.dtype)
        else:
            total[which] = share.to(total.dtype)
    return total


def edges_in_double(chains: Chains, weight: Tensor) -> Tensor:
    """Σ weight · edge marginals, in the shape of the edge scores, where factors in float64 serve."""
    run = KERNELS.find("forward_backward", chains.node, chains.edge)
    if run is None:
        return edges_in_logs(chains, weight)
    wide = chains.wide()
    _, _, forward_factor, backward_factor, _ = run(wide)
    return pair_sums(wide.edge, forward_factor, backward_factor, weight.to(wide.edge.dtype))


def edges_in_logs(chains: Chains, weight: Tensor) -> Tensor:
    """Σ weight · edge marginals, in the shape of the edge scores, whatever their range."""
    run = KERNELS.find("edges_in_logs", chains.node, chains.edge) if chains.has_steps else None
    wide = chains.wide()
    weight = weight.to(wide.edge.dtype)
    if run is not None:
        return run(wide, weight)
    each = reference.forward_backward(*wide)[2] * weight[:, None, None, None]
    return each.sum(0, keepdim=True) if len(wide.edge) == 1 else each


def marginals(chains: Chains) -> tuple[Tensor, Tensor]:
    """Node and edge marginals per chain, in plain torch."""
    dtype = chains.node.dtype
    _, nodes, edges = reference.forward_backward(*chains.wide())
    return nodes.to(dtype), edges.to(dtype)


def empty_pass(chains: Chains) -> Pass:
    """Room for a :class:`Pass`."""
    node = chains.node
    if forward_only(chains) is not None:
        log_z = node.new_empty(len(node), dtype=torch.float64)
        return Pass.of_filter(log_z, node.new_empty(node.shape, dtype=accumulating(node.dtype)), node.dtype)
    a, b, c = (torch.empty_like(node, memory_format=torch.contiguous_format) for _ in range(3))
    log_z = node.new_empty(len(node), dtype=precision.accumulator(node))
    return Pass(log_z, a, b, c, torch.empty_like(chains.lengths, dtype=torch.uint8))


CHAIN = Differentiable(
    Operator("chain", solve, empty_pass, Chains, Pass, SHARED), scores=2, gradient=gradient, marginals=marginals
)


def forward_backward(chains: Chains) -> Pass:
    """The pass that the other functions here go on from. O(B T L²) time, O(B T L) memory."""
    return CHAIN.solve(chains)


def log_partition(chains: Chains, done: Pass) -> Tensor:
    """ln Z ``[B]`` in the dtype that it was computed in, differentiable any number of times."""
    return CHAIN.value(chains, done)


def node_marginals(chains: Chains, done: Pass) -> Tensor:
    """P(y_t = l) ``[B, T, L]``, differentiable any number of times."""
    return CHAIN.gradient(None, chains, done, (True, False))[0]


def edge_marginals(chains: Chains, done: Pass) -> Tensor:
    """P(y_t = k, y_{t+1} = l) ``[B, T − 1, L, L]``, differentiable any number of times."""
    B, T, L = chains.node.shape
    tables = chains.edge.expand(B, max(0, T - 1), L, L)
    return CHAIN.gradient(None, chains._replace(edge=tables), done, (False, True))[0]


def edge_sums(chains: Chains, done: Pass) -> Tensor:
    """P(y_t = k, y_{t+1} = l) summed to the shape of the edge scores, differentiable any number of times."""
    return CHAIN.gradient(None, chains, done, (False, True))[0]
