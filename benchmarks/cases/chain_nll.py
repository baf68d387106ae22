"""Linear chains: the negative log-likelihood of a batch and its gradients."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

import lnz
from benchmarks.case import OURS, AbsentError, Contender, Numbers, Workload, require

SHAPES = {
    "32x128x16": (32, 128, 16),
    "256x64x32": (256, 64, 32),
    "32x512x64": (32, 512, 64),
    "16x256x256": (16, 256, 256),
}
LAYER = "lnz.nn.LinearChainCRF"
COLD = {"32x128x16": 35.0, "256x64x32": 28.0, "32x512x64": 70.0, "16x256x256": 60.0}
TARGETS = {"32x128x16": 40.0, "256x64x32": 25.0, "32x512x64": 45.0, "16x256x256": 50.0}  # against pytorch-crf


class ChainNLL:
    name = "chain-nll"
    title = "Chain likelihood, forward and backward"
    summary = (
        "B chains of T steps and L labels (BxTxL), one shared L × L table of edge scores, float32: the summed negative "
        "log-likelihood, its gradient by the node scores and by the table. The start and end scores that the "
        "layers also have are zero, lnz's own layer being the drop-in for pytorch-crf's; torch-struct gets node and "
        "edge scores merged, as its interface asks."
    )

    @property
    def shapes(self) -> list[str]:
        return list(SHAPES)

    def workload(self, shape: str, threads: int) -> Workload:
        b, t, k = SHAPES[shape]
        generator = torch.Generator().manual_seed(0)
        nodes = torch.randn(b, t, k, generator=generator).requires_grad_()
        table = (torch.randn(k, k, generator=generator) / 2).requires_grad_()
        gold = torch.randint(k, (b, t), generator=generator)
        return Workload(
            contenders={
                OURS: partial(_lnz, nodes, table, gold),
                LAYER: partial(_lnz_crf, nodes, table, gold),
                "pytorch-crf": partial(_pytorch_crf, nodes, table, gold),
                "torch-struct": partial(_torch_struct, nodes, table, gold),
            },
            reference=lambda: _reference(nodes.detach().double(), table.detach().double(), gold),
            tolerance=1e-3,
            targets={"pytorch-crf": TARGETS[shape], "torch-struct": 8.0},
            cold_targets={"pytorch-crf": COLD[shape]},
        )


def _answers(loss: Tensor, nodes: Tensor, table: Tensor) -> Numbers:
    return {"loss": loss.detach().numpy(), "nodes": _gradient(nodes), "table": _gradient(table)}


def _gradient(tensor: Tensor) -> np.ndarray:
    assert tensor.grad is not None
    return tensor.grad.numpy().copy()


def _lnz(nodes: Tensor, table: Tensor, gold: Tensor) -> Contender:
    def call() -> Tensor:
        nodes.grad = table.grad = None
        loss = lnz.objectives.nll(lnz.LinearChain(nodes, table), gold, reduction="sum")
        loss.backward()
        return loss

    return Contender(call, lambda loss: _answers(loss, nodes, table), "lnz")


def with_table(crf: Any, table: Tensor) -> Any:
    """A CRF layer, ours or pytorch-crf's, with this table of transitions, and start and end scores of 0."""
    with torch.no_grad():
        crf.start_transitions.zero_()
        crf.end_transitions.zero_()
        crf.transitions.copy_(table)
    return crf


def _layer(crf: Any, nodes: Tensor, gold: Tensor, package: str) -> Contender:
    def call() -> Tensor:
        nodes.grad = crf.transitions.grad = None
        loss = -crf(nodes, gold, reduction="sum")
        loss.backward()
        return loss

    return Contender(call, lambda loss: _answers(loss, nodes, crf.transitions), package)


def _lnz_crf(nodes: Tensor, table: Tensor, gold: Tensor) -> Contender:
    return _layer(with_table(lnz.nn.LinearChainCRF(len(table), batch_first=True), table), nodes, gold, "lnz")


def _pytorch_crf(nodes: Tensor, table: Tensor, gold: Tensor) -> Contender:
    torchcrf = require("torchcrf", "pytorch-crf==0.7.2")
    return _layer(with_table(torchcrf.CRF(len(table), batch_first=True), table), nodes, gold, "pytorch-crf")


def _torch_struct(nodes: Tensor, table: Tensor, gold: Tensor) -> Contender:
    b, t, k = nodes.shape
    scan_bytes = 4 * b * (t // 2) * k**3  # one of the several tensors that the first level of its scan makes
    if scan_bytes > 4e9:
        raise AbsentError(f"left out: its parallel scan needs several tensors of {scan_bytes / 1e9:.1f} GB here")
    torch_struct: Any = require("torch_struct", "torch-struct==0.5")
    lengths = torch.full((b,), t)

    def call() -> Tensor:
        nodes.grad = table.grad = None
        # its edges are [next, previous]; the first also carries the first node
        edges = table.T + nodes[:, 1:, :, None]
        edges = torch.cat((edges[:, :1] + nodes[:, 0, None, None, :], edges[:, 1:]), 1)
        score = nodes.gather(2, gold[..., None]).sum() + table[gold[:, :-1], gold[:, 1:]].sum()
        loss = torch_struct.LinearChainCRF(edges, lengths=lengths).partition.sum() - score
        loss.backward()
        return loss

    return Contender(call, lambda loss: _answers(loss, nodes, table), "torch-struct")


def _reference(nodes: Tensor, table: Tensor, gold: Tensor) -> Numbers:
    """Forward and backward probabilities, rescaled at every step; marginals less gold indicators are the gradients."""
    _, t, k = nodes.shape
    top, factor = nodes.amax(-1, keepdim=True), table.exp()
    local = (nodes - top).exp()
    forward, backward = torch.empty_like(local), torch.ones_like(local)
    log_z = top.sum((1, 2))
    for step in range(t):
        alpha = local[:, step] * (forward[:, step - 1] @ factor if step else 1.0)
        total = alpha.sum(-1, keepdim=True)
        forward[:, step] = alpha / total
        log_z = log_z + total[:, 0].log()
    pairs = torch.zeros_like(table)
    for step in range(t - 2, -1, -1):
        ahead = local[:, step + 1] * backward[:, step + 1]
        beta = ahead @ factor.T
        norm = (forward[:, step] * beta).sum(-1, keepdim=True)
        pairs += factor * (forward[:, step].T @ (ahead / norm))
        backward[:, step] = beta / beta.sum(-1, keepdim=True)
    marginals = forward * backward
    marginals = marginals / marginals.sum(-1, keepdim=True)
    one_hot = torch.nn.functional.one_hot(gold, k).double()
    gold_pairs = torch.einsum("bti,btj->ij", one_hot[:, :-1], one_hot[:, 1:])
    score = (nodes * one_hot).sum() + (table * gold_pairs).sum()
    return {
        "loss": (log_z.sum() - score).numpy(),
        "nodes": (marginals - one_hot).numpy(),
        "table": (pairs - gold_pairs).numpy(),
    }
