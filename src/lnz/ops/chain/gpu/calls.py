"""What :mod:`lnz.ops.chain` calls: passes forwards, and what follows from them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lnz.ops.chain.gpu import backward, blocks, forward
from lnz.ops.chain.gpu.backward import NONE, STEPS, TABLE
from lnz.ops.chain.gpu.shapes import Layout
from lnz.ops.chain.records import Chains, Labelled, LabelledPass, Pass, with_a_table
from lnz.ops.jit.triton import accumulating

LARGEST = 2**24  # entries that the tables of all programs have


def filtered(chains: Chains) -> Pass:
    """The pass of :mod:`lnz.ops.chain.records` that holds ln Z and α. O(B T L²) time, O(B T L) memory."""
    return _filtered(chains, None)[0]


def labelled(given: Labelled) -> LabelledPass:
    """ln P(y) of full labellings, and the pass."""
    done, log_prob = _filtered(given.chains, given.y.contiguous())
    return LabelledPass(log_prob.to(given.node.dtype), *done)


def _filtered(chains: Chains, y: Tensor | None) -> tuple[Pass, Tensor]:
    node, layout = chains.node, Layout.of(with_a_table(chains))
    alpha = torch.zeros(node.shape, dtype=accumulating(node.dtype), device=node.device)
    log_z, log_prob = (alpha.new_empty(len(node), dtype=torch.float64) for _ in range(2))
    (forward if layout.blocks == 1 else blocks).run(layout, y, alpha, log_z, log_prob)
    return Pass.of_filter(log_z, alpha, node.dtype), log_prob


def smoothed(
    chains: Chains, y: Tensor | None, done: Pass, weight: Tensor | None, wanted: Sequence[bool]
) -> tuple[Tensor, Tensor]:
    """Σ_b weight_b · (marginals, or indicators of y − marginals, of chain b), in the shapes of the scores.

    From the pass of :func:`filtered`; empty where not wanted. O(B T L²) time. O(P L²) memory for P programs beside the
    results, and O(B T L²) where chains share a table per step.
    """
    (B, T, L), (entries, steps) = chains.node.shape, chains.edge.shape[:2]
    layout = Layout.of(with_a_table(chains)).backwards()
    kind, programs = NONE, B * layout.blocks
    if wanted[1] and T > 1 and chains.edge.numel():
        kind = TABLE if steps == 1 else STEPS
    if kind == TABLE and entries == 1:
        programs = max(1, min(programs, LARGEST // (L * L)))
    at_node = torch.zeros_like(chains.node, memory_format=torch.contiguous_format)
    rows = {NONE: (0,), TABLE: (programs,), STEPS: (B, T - 1)}[kind]
    at_edge = done.forward_factor.new_zeros(*rows, L, L)
    weight = chains.node.new_ones(B) if weight is None else weight.contiguous()
    ends = blocks.Between.of(Layout.of(with_a_table(chains))).marginals() if layout.blocks > 1 else None
    out = backward.Outputs(at_node, at_edge, kind.value, programs)
    backward.run(layout, done.forward_factor, None if y is None else y.contiguous(), weight, ends, out)
    if not wanted[1]:
        return at_node, chains.edge.new_empty(0)
    if kind == NONE:
        return at_node, torch.zeros_like(chains.edge, memory_format=torch.contiguous_format)
    if kind == TABLE:  # of programs, each of which has blocks of one chain unless all share the table
        at_edge = at_edge.view(1 if entries == 1 else B, -1, L, L).sum(1, keepdim=True)
    elif entries == 1:
        at_edge = at_edge.sum(0, keepdim=True)
    return at_node, at_edge.to(chains.edge.dtype)
