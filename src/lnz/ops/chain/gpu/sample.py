"""Samples of labellings: α forwards, then label by label backwards, each given the next (forward filtering)."""

from __future__ import annotations

import torch
import triton.language as tl
from torch import Tensor

from lnz.ops.chain.gpu.calls import filtered
from lnz.ops.chain.gpu.recursion import row
from lnz.ops.chain.gpu.shapes import Layout
from lnz.ops.chain.records import Chains, with_a_table
from lnz.ops.jit.triton.launch import kernel, launch
from lnz.ops.jit.triton.math import finite
from lnz.typing import IGNORE


@kernel
def pick(logs, place, uniform):
    """The first label at which the cumulative sum of exp ``logs`` passes ``uniform`` times the whole, none of −inf."""
    weights = tl.exp(logs - finite(tl.max(logs, 0)))
    sums = tl.cumsum(weights, 0)
    passed = tl.sum((sums <= uniform * tl.max(sums, 0)).to(tl.int32), 0)
    return tl.minimum(passed, tl.max(tl.where(weights > 0, place, 0), 0))


@kernel
def sample_kernel(alpha, edge, lengths, uniform, labels, B, T, size, entry, step, LABELS: tl.constexpr):
    """One labelling of one chain: ``labels [n, B, T]`` by ``uniform [n, B, T]`` in [0, 1)."""
    b, sample = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    n = tl.load(lengths + b)
    REAL: tl.constexpr = alpha.dtype.element_ty
    l = tl.arange(0, LABELS)
    alpha, edge, at = alpha + b * T * size, edge + b * entry, (sample * B + b) * T
    into = tl.zeros([LABELS], REAL)
    for t in range(n - 1, -1, -1):
        logs = row(alpha + t * size, l, size, REAL) + into
        label = pick(logs, l, tl.load(uniform + at + t).to(REAL))
        tl.store(labels + at + t, label.to(tl.int64))
        into = tl.load(edge + (t - 1) * step + l * size + label, mask=l < tl.where(t > 0, size, 0), other=-float("inf"))
        into = into.to(REAL)


def sample_in_any_range(chains: Chains, uniform: Tensor) -> Tensor:
    """Labellings ``int64 [n, B, T]`` by random numbers ``[n, B, T]`` in [0, 1). O(B T L² + n B T L) time."""
    (B, T, L), layout = chains.node.shape, Layout.of(with_a_table(chains))
    labels = torch.full(uniform.shape, IGNORE, dtype=torch.int64, device=uniform.device)
    arrays = filtered(chains).forward_factor, *layout.arrays[1:], uniform.contiguous(), labels
    labels_per_program = layout.constants["LABELS"]
    launch(
        sample_kernel, (B, len(uniform)), *arrays, B, T, L, *layout.strides, LABELS=labels_per_program,
        warps=max(1, min(8, labels_per_program // 64)),
    )  # fmt: skip
    return labels
