"""Semi-Markov chains: the negative log-likelihood of a batch of segmentations and its gradients."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

import lnz
from benchmarks.case import OURS, AbsentError, Contender, Numbers, Workload, require

SHAPES = {
    "8x64x4x4": (8, 64, 4, 4),
    "32x128x8x8": (32, 128, 8, 8),
    "16x256x16x16": (16, 256, 16, 16),
    "2x4096x16x8": (2, 4096, 16, 8),
}
IMPOSSIBLE = -1e5  # what torch-struct takes for a score of −inf


class SemiMarkov:
    name = "semi-markov"
    title = "Semi-Markov likelihood, forward and backward"
    summary = (
        "B sequences of T steps, segments of 1 to W steps with L labels (BxTxWxL), one shared L × L table of edge "
        "scores, float32: the summed negative log-likelihood, its gradient by the segment scores and by the table. "
        "The torch loop is the same recursion over steps (no table of widths by pairs of labels), differentiated by "
        "autograd. torch-struct gets segment and edge scores merged, as its interface asks: its scan multiplies "
        "matrices of W L rows."
    )

    @property
    def shapes(self) -> list[str]:
        return list(SHAPES)

    def workload(self, shape: str, threads: int) -> Workload:
        b, t, w, k = SHAPES[shape]
        generator = torch.Generator().manual_seed(0)
        segments = torch.randn(b, t, w, k, generator=generator).requires_grad_()
        table = (torch.randn(k, k, generator=generator) / 2).requires_grad_()
        gold = _segmentations(b, t, w, k, generator)
        return Workload(
            contenders={
                OURS: partial(_lnz, segments, table, gold),
                "torch loop": partial(_loop, segments, table, gold),
                "torch-struct": partial(_torch_struct, segments, table, gold),
            },
            reference=lambda: _reference(segments, table, gold),
            tolerance=1e-4,
            tolerances={"torch loop": 0.05, "torch-struct": 1e-2},  # logarithms of thousands in float32
        )


def _segmentations(b: int, t: int, w: int, k: int, generator: torch.Generator) -> Tensor:
    """Random ones: at the first step of a segment its label, −1 at its others."""
    gold = torch.full((b, t), -1)
    for row in gold:
        at = 0
        while at < t:
            row[at] = torch.randint(k, (), generator=generator)
            at += int(torch.randint(1, w + 1, (), generator=generator))
    return gold


def _answers(loss: Tensor, segments: Tensor, table: Tensor) -> Numbers:
    assert segments.grad is not None
    assert table.grad is not None
    return {
        "loss": loss.detach().numpy(),
        "segments": segments.grad.numpy().copy(),
        "table": table.grad.numpy().copy(),
    }


def _lnz(segments: Tensor, table: Tensor, gold: Tensor) -> Contender:
    def call() -> Tensor:
        segments.grad = table.grad = None
        loss = lnz.objectives.nll(lnz.SemiMarkov(segments, table), gold, reduction="sum")
        loss.backward()
        return loss

    return Contender(call, lambda loss: _answers(loss, segments, table), "lnz")


def _parts(gold: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Where the scores of gold segmentations are among those of segments, and in the table."""
    entry, start = (gold >= 0).nonzero(as_tuple=True)
    label = gold[entry, start]
    follows = entry[1:] == entry[:-1]
    stop = torch.cat((torch.where(follows, start[1:], gold.shape[1]), start.new_tensor([gold.shape[1]])))
    return (entry, start, stop - start - 1, label), (label[:-1][follows], label[1:][follows])


def _log_z(segments: Tensor, table: Tensor) -> Tensor:
    """ln Z ``[B]``, step by step from the end."""
    b, steps, widths, k = segments.shape
    after = [segments.new_zeros(b, k)]  # ln of what may follow a segment of each label, nearest first
    begin = after[0]
    for t in range(steps - 1, -1, -1):
        n = min(widths, steps - t)
        begin = torch.logsumexp(segments[:, t, :n] + torch.stack(after[:n], 1), 1)
        after.insert(0, torch.logsumexp(table + begin[:, None], 2))
        del after[widths:]
    return begin.logsumexp(1)


def _loop(segments: Tensor, table: Tensor, gold: Tensor) -> Contender:
    of_segments, of_edges = _parts(gold)

    def call() -> Tensor:
        segments.grad = table.grad = None
        loss = _log_z(segments, table).sum() - segments[of_segments].sum() - table[of_edges].sum()
        loss.backward()
        return loss

    return Contender(call, lambda loss: _answers(loss, segments, table), "torch")


def _torch_struct(segments: Tensor, table: Tensor, gold: Tensor) -> Contender:
    b, t, w, k = segments.shape
    scan_bytes = 4 * b * (t // 2) * (w * k) ** 3  # one of the several tensors that the first level of its scan makes
    if scan_bytes > 1e9:
        raise AbsentError(f"left out: its parallel scan needs several tensors of {scan_bytes / 1e9:.1f} GB here")
    torch_struct: Any = require("torch_struct", "torch-struct==0.5")
    of_segments, of_edges = _parts(gold)
    lengths = torch.full((b,), t + 1)
    # its edges are [start, width, next label, label]; the label after the last segment, which it also sums over, is 0
    ends = torch.arange(t)[:, None] + torch.arange(1, w + 1) == t
    last = torch.full((k,), IMPOSSIBLE)
    last[0] = 0

    def call() -> Tensor:
        segments.grad = table.grad = None
        into = torch.where(ends[..., None, None], last[:, None], table.T)
        edges = segments[:, :, :, None] + into
        edges = torch.cat((edges[:, :, :1], edges), 2)  # there is a width 0, which is not used
        log_z = torch_struct.SemiMarkovCRF(edges, lengths=lengths).partition.sum()
        loss = log_z - segments[of_segments].sum() - table[of_edges].sum()
        loss.backward()
        return loss

    return Contender(call, lambda loss: _answers(loss, segments, table), "torch-struct")


def _reference(segments: Tensor, table: Tensor, gold: Tensor) -> Numbers:
    """The recursion in float64, differentiated by autograd."""
    segments, table = segments.detach().double().requires_grad_(), table.detach().double().requires_grad_()
    contender = _loop(segments, table, gold)
    return contender.read(contender.call())
