"""Node scores of the chain of a hidden Markov model; filtering out of the pass that smoothing makes.

Forward variables are factors of the edge marginals.

Shapes as in :mod:`lnz.ops.chain.reference`. The derivative goes through ``reference.py``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lnz.checks import constant, joint_batch_shape
from lnz.ops import precision
from lnz.ops.chain import Chains, Pass
from lnz.ops.chain.op import KERNELS, SHARED
from lnz.ops.hmm import reference
from lnz.ops.jit import buffers
from lnz.ops.scaffold import Answer, Operator


def joined(initial: Tensor, emission: Tensor) -> tuple[Tensor, Tensor]:
    """``emission [*batch, T, K]`` with ``initial [*batch, K]`` on top at the first step: node scores of the chain.

    There the largest of either is taken away, as a constant, before they are added; that is the second result
    ``[*batch]``, in the dtype of :func:`lnz.ops.precision.accumulator`.
    """
    batch = joint_batch_shape(initial=initial.shape[:-1], emission=emission.shape[:-2])
    wide = precision.accumulator(emission)
    if not emission.shape[-2]:  # of no step: for gradients of 0
        return emission + initial.unsqueeze(-2), emission.new_zeros(emission.shape[:-2], dtype=wide)
    if constant(initial, emission) and emission.dtype in (torch.float32, torch.float64):  # as in lnz.checks.largest
        node = buffers.empty(*batch, *emission.shape[-2:], dtype=emission.dtype)
        scores, given, before = node.numpy(), emission.detach().numpy(), initial.detach().numpy()
        lowest = torch.finfo(emission.dtype).min
        top, first_top = (x.max(-1, keepdims=True, initial=lowest) for x in (before, given[..., 0, :]))
        scores[...] = given
        scores[..., 0, :] = (given[..., 0, :] - first_top) + (before - top)
        return node, torch.from_numpy(np.add(top, first_top, dtype=np.float64)[..., 0]).to(wide)
    top, first_top = _largest(initial), _largest(emission[..., 0, :])
    first = (emission[..., 0, :] - first_top) + (initial - top)
    less = (top.to(wide) + first_top.to(wide)).squeeze(-1)
    return torch.cat((first.unsqueeze(-2), emission[..., 1:, :].expand(*first.shape[:-1], -1, -1)), -2), less


def _largest(scores: Tensor) -> Tensor:
    """The largest score of each row; of a row of −inf a finite one, whose difference with them is −inf again."""
    return scores.detach().amax(-1, keepdim=True).clamp(min=torch.finfo(scores.dtype).min)


class Filtering(NamedTuple):
    """B chains, and of the pass over them what filtering needs; as in :mod:`lnz.ops.chain.records`."""

    node: Tensor
    edge: Tensor
    lengths: Tensor
    nodes: Tensor
    forward_factor: Tensor
    rung: Tensor


class Filtered(NamedTuple):
    """P(y_t given what is up to t) ``[B, T, L]``; 0 over padding."""

    shares: Tensor


def filtered(chains: Chains, done: Pass) -> Tensor:
    """As :func:`lnz.ops.hmm.reference.filtered`, given the pass over the same chains."""
    return FILTERED(Filtering(*chains, done.nodes, done.forward_factor, done.rung)).shares


def _compute(given: Filtering) -> Filtered:
    """α_t, normalised: the forward factor but for its scale, and the smoothed marginals at the last step."""
    chains, factor = Chains(*given[:3]), given.forward_factor
    if given.nodes.shape[1] < factor.shape[1]:  # of a pass that is a filter already: its logarithms
        inside = torch.arange(factor.shape[1], device=factor.device) < chains.lengths[:, None]
        return Filtered(factor.exp().masked_fill(~inside[..., None], 0.0).to(chains.node.dtype))
    last = torch.arange(factor.shape[1], device=factor.device) == chains.lengths[:, None] - 1
    total = factor.sum(-1, keepdim=True)
    shares = torch.where(last[..., None], given.nodes, factor / total.masked_fill(total == 0, 1.0))
    wide = (given.rung != precision.OWN).nonzero()[:, 0]
    if len(wide):
        some = precision.entries(chains, wide)
        run = KERNELS.find("filtered_in_logs", *some[:2]) if some.has_steps else None
        shares[wide] = (run or reference.filtered)(*some.wide()).to(shares.dtype)
    return Filtered(shares)


def _fake(given: Filtering) -> Filtered:
    return Filtered(torch.empty_like(given.node))


def _plain(given: Filtering) -> Filtered:
    return Filtered(reference.filtered(*given[:3]))


FILTERED = Answer(Operator("hmm_filtered", _compute, _fake, Filtering, Filtered, SHARED), _plain, scores=2)
