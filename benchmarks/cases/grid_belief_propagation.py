"""Belief propagation on grids: own node scores, one table for all edges, a fixed number of iterations."""

from __future__ import annotations

import sys
import types
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

import lnz
from benchmarks.case import OURS, AbsentError, Contender, Numbers, Workload, require
from benchmarks.data import SHARED


@dataclass(frozen=True)
class Shape:
    """B grids of height × width nodes with L labels."""

    batch: int
    height: int
    width: int
    labels: int
    iterations: int


SHAPES = {
    "8x64x64-L8-i50": Shape(8, 64, 64, 8, 50),
    "1x320x480-L21-i20": Shape(1, 320, 480, 21, 20),
}


class GridBeliefPropagation:
    name = "grid-bp"
    title = "Belief propagation on grids"
    summary = (
        "Flooding sum-product from uniform messages for the stated number of iterations (i), on B grids of H × W "
        "nodes with four neighbours and L labels (BxHxW-L-i), float32. The answers are the beliefs. One L × L table "
        "serves all edges. PGMax runs jitted, its graph built and compiled beforehand."
    )

    @property
    def shapes(self) -> list[str]:
        return list(SHAPES)

    def workload(self, shape: str, threads: int) -> Workload:
        s = SHAPES[shape]
        generator = torch.Generator().manual_seed(0)
        nodes = torch.randn(s.batch, s.height, s.width, s.labels, generator=generator)
        table = torch.randn(s.labels, s.labels, generator=generator) / 2
        small = s.batch > 1
        return Workload(
            contenders={
                OURS: partial(_lnz, s, nodes, table),
                "PGMax": partial(_pgmax, s, nodes, table),
                "plain torch, log domain": lambda: Contender(
                    lambda: _plain(nodes, table, s.iterations), lambda beliefs: {"beliefs": beliefs.numpy()}
                ),
                "prototype": partial(_prototype, s, nodes, table),
            },
            reference=lambda: {"beliefs": _reference(nodes, table, s.iterations).numpy()},
            tolerance=1e-4,
            targets={"PGMax": 40.0, "prototype": 1 / 1.5} if small else {"prototype": 1 / 1.5},
        )


def _lnz(s: Shape, nodes: Tensor, table: Tensor) -> Contender:
    graph = lnz.FactorGraph.grid(s.height, s.width, s.labels)
    method = lnz.inference.BeliefPropagation(max_iterations=s.iterations, tolerance=0.0)
    scores = nodes.flatten(1, 2)

    def call() -> lnz.MRF:
        p = lnz.MRF(graph, (scores, table), method)
        _ = p.node_marginals
        return p

    def read(p: lnz.MRF) -> Numbers:
        iterations = torch.as_tensor(p.diagnostics["iterations"])
        if not (iterations == s.iterations).all():
            raise AssertionError(f"expected {s.iterations} iterations, got {iterations.tolist()}")
        return {"beliefs": p.node_marginals.reshape(nodes.shape).numpy()}

    return Contender(call, read, "lnz")


def _pgmax(s: Shape, nodes: Tensor, table: Tensor) -> Contender:
    if s.height * s.width > 20_000:
        raise AbsentError("left out: takes more than 40 s to build the graph here, then runs out of memory")
    jax: Any = require("jax", "jax==0.10.2")
    jax_lib: Any = require("jax.lib", "jax==0.10.2")
    # PGMax 0.6.1 asks a module that newer jax no longer has which backend it runs on.
    if not hasattr(jax_lib, "xla_bridge"):
        jax_lib.xla_bridge = types.SimpleNamespace(get_backend=lambda: types.SimpleNamespace(platform="cpu"))
    fgraph, fgroup, infer, vgroup = (
        require(f"pgmax.{part}", "--no-deps pgmax==0.6.1") for part in ("fgraph", "fgroup", "infer", "vgroup")
    )
    h, w = s.height, s.width
    variables = vgroup.NDVarArray(num_states=s.labels, shape=(h, w))
    graph = fgraph.FactorGraph(variable_groups=variables)
    edges = [[variables[i, j], variables[i, j + 1]] for i in range(h) for j in range(w - 1)]
    edges += [[variables[i, j], variables[i + 1, j]] for i in range(h - 1) for j in range(w)]
    graph.add_factors(fgroup.PairwiseFactorGroup(variables_for_factors=edges, log_potential_matrix=table.numpy()))
    bp = infer.build_inferer(graph.bp_state, backend="bp")

    def beliefs(evidence: Any) -> Any:
        arrays = bp.init(evidence_updates={variables: evidence})
        return bp.get_beliefs(bp.run(arrays, num_iters=s.iterations, damping=0.0, temperature=1.0))[variables]

    run = jax.jit(jax.vmap(beliefs))
    evidence = jax.numpy.asarray(nodes.numpy())

    def read(log_beliefs: Any) -> Numbers:
        return {"beliefs": torch.from_numpy(np.array(log_beliefs)).softmax(-1).numpy()}

    return Contender(lambda: jax.block_until_ready(run(evidence)), read, "pgmax")


def _prototype(s: Shape, nodes: Tensor, table: Tensor) -> Contender:
    folder = SHARED / "prototypes"
    if not (folder / "bp_numba.py").exists():
        raise AbsentError("a development prototype that is not part of the project")
    sys.path.insert(0, str(folder))
    try:
        run = require("bp_numba", "numba").run_numba
    finally:
        sys.path.remove(str(folder))
    return Contender(
        lambda: run(nodes, table, table, s.iterations), lambda beliefs: {"beliefs": np.ascontiguousarray(beliefs)}
    )


def _plain(nodes: Tensor, table: Tensor, iterations: int) -> Tensor:
    """What one writes in an afternoon: four message tensors, logsumexp over an expanded L × L table."""
    left, right, up, down = (torch.zeros_like(nodes) for _ in range(4))  # named by where the message comes from

    def send(cavity: Tensor, scores: Tensor) -> Tensor:
        return torch.logsumexp(cavity.unsqueeze(-1) + scores, -2).log_softmax(-1)

    for _ in range(iterations):
        total = nodes + left + right + up + down
        rightward = send((total - right)[:, :, :-1], table)
        leftward = send((total - left)[:, :, 1:], table.T)
        downward = send((total - down)[:, :-1], table)
        upward = send((total - up)[:, 1:], table.T)
        left[:, :, 1:], right[:, :, :-1], up[:, 1:], down[:, :-1] = rightward, leftward, downward, upward
    return (nodes + left + right + up + down).softmax(-1)


def _reference(nodes: Tensor, table: Tensor, iterations: int) -> Tensor:
    """The same in float64 on probabilities, with matrix products and one padded message tensor per direction."""
    prior, factor = nodes.double().softmax(-1), table.double().exp()
    b, h, w, labels = prior.shape
    padded = [prior.new_full((b, h + 2, w + 2, labels), 1.0 / labels) for _ in range(4)]
    steps = ((0, 1, factor), (0, -1, factor.T), (1, 0, factor), (-1, 0, factor.T))  # a message's step, rows and columns

    def inside(message: Tensor) -> Tensor:
        return message[:, 1:-1, 1:-1]

    for _ in range(iterations):
        arrived = [inside(message) for message in padded]
        renewed = []
        for direction, (dr, dc, scores) in enumerate(steps):
            back = direction ^ 1  # what came from where this one goes
            cavity = prior * torch.stack([m for d, m in enumerate(arrived) if d != back]).prod(0)
            sent = cavity @ scores
            message = torch.full_like(padded[0], 1.0 / labels)
            message[:, 1 + dr : 1 + dr + h, 1 + dc : 1 + dc + w] = sent / sent.sum(-1, keepdim=True)
            renewed.append(message)
        padded = renewed
    beliefs = prior * torch.stack([inside(message) for message in padded]).prod(0)
    return beliefs / beliefs.sum(-1, keepdim=True)
