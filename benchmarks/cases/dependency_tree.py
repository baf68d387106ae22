"""Dependency trees: ln Z and arc marginals of a batch of sentences, projective and of any shape; best trees."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

import lnz
from benchmarks.case import OURS, Contender, Numbers, Workload, require

SHAPES = {
    "projective/32x20": (True, 32, 20),
    "projective/8x64": (True, 8, 64),
    "any/32x20": (False, 32, 20),
    "any/32x64": (False, 32, 64),
}


class DependencyTrees:
    name = "dependency-trees"
    title = "Dependency trees: ln Z and arc marginals"
    summary = (
        "B sentences of N words (BxN), float32 arc scores, any number of words under the root: ln Z and the marginals "
        "of arcs; projective trees, and trees of any shape. torch.linalg computes the log-determinant and the inverse "
        "of the Laplacian alone, without the marginals that would follow, right for a small range of scores only."
    )

    @property
    def shapes(self) -> list[str]:
        return list(SHAPES)

    def workload(self, shape: str, threads: int) -> Workload:
        projective, b, n = SHAPES[shape]
        scores = torch.randn(b, n + 1, n + 1, generator=torch.Generator().manual_seed(0))
        peers = {"torch-struct": partial(_torch_struct, scores, projective)}
        if not projective:
            peers["torch.linalg"] = partial(_determinant, scores)
        return Workload(
            contenders={OURS: partial(_lnz, scores, projective), **peers},
            reference=lambda: _reference(scores, projective),
            tolerance=1e-4,
            tolerances={"torch-struct": 1e-2, "torch.linalg": 1e-2},
        )


def _lnz(scores: Tensor, projective: bool) -> Contender:
    def call() -> tuple[Tensor, Tensor]:
        p = lnz.DependencyTree(scores, projective=projective, single_root=False)
        return p.log_partition, p.marginals

    return Contender(call, lambda found: {"log_z": found[0].numpy(), "marginals": found[1].numpy()}, "lnz")


def _reference(scores: Tensor, projective: bool) -> Numbers:
    """By autograd through the log-partition function of the other algorithm where there is one, in float64."""
    wide = scores.double().requires_grad_()
    if projective:
        with lnz.ops.backend("reference"):
            log_z = lnz.DependencyTree(wide, single_root=False).log_partition
    else:
        weights = wide.exp().masked_fill(torch.eye(wide.shape[-1], dtype=torch.bool), 0.0)[:, 1:]
        log_z = torch.linalg.slogdet(torch.diag_embed(weights.sum(-1)) - weights[:, :, 1:]).logabsdet
    (marginals,) = torch.autograd.grad(log_z.sum(), wide)
    return {"log_z": log_z.detach().numpy(), "marginals": marginals.numpy()}


def _torch_struct(scores: Tensor, projective: bool) -> Contender:
    torch_struct: Any = require("torch_struct", "torch-struct==0.5")
    kind = torch_struct.DependencyCRF if projective else torch_struct.NonProjectiveDependencyCRF
    # [head, dependent], scores of the root on the diagonal
    arcs = scores[:, 1:, 1:].mT.contiguous()
    arcs.diagonal(0, 1, 2).copy_(scores[:, 1:, 0])

    def call() -> tuple[Tensor, Tensor]:
        leaf = arcs.clone().requires_grad_()  # it writes into what it is given
        log_z = kind(leaf + 0, multiroot=True).partition
        return log_z.detach(), torch.autograd.grad(log_z.sum(), leaf)[0]

    def answers(found: tuple[Tensor, Tensor]) -> Numbers:
        marginals = torch.zeros_like(scores)
        marginals[:, 1:, 1:] = found[1].mT
        marginals[:, 1:, 0] = found[1].diagonal(0, 1, 2)
        marginals.diagonal(0, 1, 2).zero_()
        return {"log_z": found[0].numpy(), "marginals": marginals.numpy()}

    return Contender(call, answers, "torch-struct")


def _determinant(scores: Tensor) -> Contender:
    def call() -> tuple[Tensor, Tensor, Tensor]:
        weights = scores.exp().masked_fill(torch.eye(scores.shape[-1], dtype=torch.bool), 0.0)[:, 1:]
        laplacian = torch.diag_embed(weights.sum(-1)) - weights[:, :, 1:]
        return torch.linalg.slogdet(laplacian).logabsdet, torch.linalg.inv(laplacian), weights

    def answers(found: tuple[Tensor, Tensor, Tensor]) -> Numbers:
        log_z, inverse, weights = found
        own = inverse.diagonal(0, 1, 2)
        marginals = torch.zeros_like(scores)
        marginals[:, 1:, 0] = weights[:, :, 0] * own
        marginals[:, 1:, 1:] = weights[:, :, 1:] * (own[:, :, None] - inverse.mT)
        return {"log_z": log_z.numpy(), "marginals": marginals.numpy()}

    return Contender(call, answers, "torch")
