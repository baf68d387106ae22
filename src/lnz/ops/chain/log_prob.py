"""ln P(y) of full labellings, with the pass that it takes. Shapes as in :mod:`lnz.ops.chain.reference`.

``lnz::chain_log_prob`` is the pass of :mod:`lnz.ops.chain.op` with the score of a labelling, and its gradient is
gold − marginals. What need not be traced or transformed is trained faster by :mod:`lnz.ops.chain.fused_nll`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lnz.ops import precision
from lnz.ops.chain import op, reference
from lnz.ops.chain.numerator import edge_indicators
from lnz.ops.chain.op import KERNELS, SHARED, add_wide_edges, empty_pass
from lnz.ops.chain.records import Chains, Labelled, LabelledPass, Pass
from lnz.ops.dispatch import is_eager
from lnz.ops.scaffold import Differentiable, Operator


def solve(given: Labelled) -> LabelledPass:
    """ln P(y) and the pass."""
    if op.forward_only(given.chains) is not None:
        run = KERNELS.find("labelled", given.node, given.edge)
        assert run is not None, "expected of a backend that has the one verb to have the other"
        return run(given)
    return after(given, op.solve(given.chains))


def after(given: Labelled, done: Pass) -> LabelledPass:
    """ln P(y), given the pass.

    A filter is run again, with y.

    s(y) − ln Z is taken in float64, before it is rounded, with an error of their rounding there; in logarithms ln P(y)
    is a sum of conditionals.
    """
    if done.is_filter:
        return solve(given)
    difference = KERNELS.find("log_prob", given.node, given.edge) if given.chains.has_steps else None
    log_prob = torch.empty_like(done.log_z) if difference is None else difference(given, done.log_z)
    for level, which in precision.rungs_above(done.rung):
        if level == precision.LOGARITHMS:
            log_prob[which] = in_logs(precision.entries(given, which)).to(log_prob.dtype)
    return LabelledPass(log_prob.to(given.node.dtype), *done)


def in_logs(given: Labelled) -> Tensor:
    """ln P(y) in float64, whatever the range of the scores."""
    run = KERNELS.find("log_prob_in_logs", given.node, given.edge) if given.chains.has_steps else None
    return (run or reference.log_prob)(*given.chains.wide(), given.y)


def gradient(
    weight: Tensor | None, given: Labelled, done: LabelledPass, wanted: Sequence[bool]
) -> tuple[Tensor, Tensor]:
    """Σ_b weight_b · (indicators of y − marginals), in the shapes of the scores; empty where not wanted."""
    if done.done.is_filter:
        return op.smoothed(weight, given.chains, given.y, done.done, wanted)
    chains, weight = given.chains, given.node.new_ones(len(given.node)) if weight is None else weight
    fused = KERNELS.find("log_prob_gradient", given.node, given.edge)
    if fused is not None and given.edge.shape[:2] == (1, 1) and chains.has_steps:
        at_node, at_edge = fused(given, done.done, weight, wanted)
        return at_node, add_wide_edges(at_edge, -weight, chains, done.rung) if wanted[1] else at_edge
    at_node, at_edge = op.gradient(-weight, chains, done.done, wanted)
    if wanted[0]:
        at_node = at_node + weight[:, None, None] * node_indicators(given)
    if wanted[1]:
        at_edge += edge_indicators(given.edge.shape, given.y, given.lengths, weight)
    return at_node, at_edge


def marginals(given: Labelled) -> tuple[Tensor, Tensor]:
    """Indicators of y − marginals, of nodes and edges, per chain, in plain torch."""
    nodes, edges = op.marginals(given.chains)
    shape = torch.Size((len(given.node), *given.edge.shape[1:]))
    gold = edge_indicators(shape, given.y, given.lengths, given.node.new_ones(len(given.node)))
    return node_indicators(given) - nodes, gold - edges


def node_indicators(given: Labelled) -> Tensor:
    """1 where y_t = l, ``[B, T, L]``; 0 over padding."""
    inside = torch.arange(given.y.shape[1], device=given.y.device) < given.lengths[:, None]
    indicators = torch.zeros_like(given.node, memory_format=torch.contiguous_format)
    return indicators.scatter(2, torch.where(inside, given.y, 0).unsqueeze(2), inside.to(given.node.dtype).unsqueeze(2))


def _fake(given: Labelled) -> LabelledPass:
    done = empty_pass(given.chains)
    return LabelledPass(given.node.new_empty(len(given.node)), *done)


LOG_PROB = Differentiable(
    Operator("chain_log_prob", solve, _fake, Labelled, LabelledPass, SHARED),
    scores=2,
    gradient=gradient,
    marginals=marginals,
)


def log_probability(chains: Chains, y: Tensor, known: Pass | None = None) -> tuple[Tensor, Pass]:
    """ln P(y) ``[B]`` of full labellings y ``[B, T]``, of gradient gold − marginals; and the pass that it took.

    A ``known`` pass over the same chains is used again where nothing is being traced or transformed.
    """
    given = Labelled(*chains, y)
    if known is not None and is_eager(*given):
        done = after(Labelled(*(x.detach() for x in given)), known)
    else:
        done = LOG_PROB.solve(given)
    return LOG_PROB.value(given, done), done.done
