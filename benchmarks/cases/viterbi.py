"""Linear chains: the best labelling of every sequence of a batch."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

import lnz
from benchmarks.case import OURS, Contender, Numbers, Workload, require
from benchmarks.cases.chain_nll import SHAPES

TARGETS = {"pytorch-crf": 35.0}


class Viterbi:
    name = "viterbi"
    title = "Chain Viterbi"
    summary = (
        "The best labelling of B chains of T steps and L labels (BxTxL), one shared L × L table of edge scores, "
        "float32; compared by its score."
    )

    @property
    def shapes(self) -> list[str]:
        return list(SHAPES)

    def workload(self, shape: str, threads: int) -> Workload:
        b, t, k = SHAPES[shape]
        generator = torch.Generator().manual_seed(0)
        nodes = torch.randn(b, t, k, generator=generator)
        table = torch.randn(k, k, generator=generator) / 2
        return Workload(
            contenders={OURS: partial(_lnz, nodes, table), "pytorch-crf": partial(_pytorch_crf, nodes, table)},
            reference=lambda: {"score": _best_scores(nodes.double(), table.double()).numpy()},
            tolerance=1e-5,
            targets=TARGETS,
        )


def _scores(nodes: Tensor, table: Tensor, y: Any) -> Numbers:
    """The score of each labelling, in float64."""
    y = torch.as_tensor(y)
    total = nodes.double().gather(2, y[..., None]).sum((1, 2)) + table.double()[y[:, :-1], y[:, 1:]].sum(1)
    return {"score": total.numpy()}


def _lnz(nodes: Tensor, table: Tensor) -> Contender:
    return Contender(lambda: lnz.LinearChain(nodes, table).argmax(), lambda y: _scores(nodes, table, y), "lnz")


def _pytorch_crf(nodes: Tensor, table: Tensor) -> Contender:
    torchcrf = require("torchcrf", "pytorch-crf==0.7.2")
    crf = torchcrf.CRF(table.shape[0], batch_first=True)
    with torch.no_grad():
        crf.start_transitions.zero_()
        crf.end_transitions.zero_()
        crf.transitions.copy_(table)

    def call() -> list[list[int]]:
        with torch.no_grad():
            return crf.decode(nodes)

    return Contender(call, lambda y: _scores(nodes, table, y), "pytorch-crf")


def _best_scores(nodes: Tensor, table: Tensor) -> Tensor:
    """The (max, +) recursion, written out."""
    best = nodes[:, 0]
    for t in range(1, nodes.shape[1]):
        best = (best.unsqueeze(2) + table).amax(1) + nodes[:, t]
    return best.amax(1)
