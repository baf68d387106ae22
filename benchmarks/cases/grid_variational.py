"""Mean field and tree-reweighted messages on grids: the kernels against the plain torch that defines them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, partial

import torch
from torch import Tensor

import lnz
from benchmarks.case import OURS, Contender, Numbers, Workload
from lnz.inference import MeanField, TreeReweighted
from lnz.ops import backend


@dataclass(frozen=True)
class Shape:
    """B grids of height × width nodes with L labels, iterations, and the method."""

    batch: int
    height: int
    width: int
    labels: int
    iterations: int
    method: str


SHAPES = {
    f"{method}-{b}x{h}x{w}-L{labels}-i{iterations}": Shape(b, h, w, labels, iterations, method)
    for b, h, w, labels, iterations in ((8, 64, 64, 8, 20), (1, 320, 480, 21, 5))
    for method in ("mean-field", "trw")
}


class GridVariational:
    name = "grid-variational"
    title = "Mean field and tree-reweighted messages on grids"
    summary = (
        "From the start to the bound on ln Z with the stated number of iterations (i), on B grids of H × W nodes with "
        "four neighbours and L labels (BxHxW-L-i), float32; one L × L table serves all edges. Mean field updates one "
        "colour of the checkerboard after the other. Appearance probabilities of edges are those of packed combs, "
        "found beforehand. The answers are the bound per node and the node marginals. Plain torch is the definition "
        "of both in lnz itself, chosen by LNZ_BACKEND=reference."
    )

    @property
    def shapes(self) -> list[str]:
        return list(SHAPES)

    def workload(self, shape: str, threads: int) -> Workload:
        s = SHAPES[shape]
        generator = torch.Generator().manual_seed(0)
        nodes = torch.randn(s.batch, s.height * s.width, s.labels, generator=generator)
        table = torch.randn(s.labels, s.labels, generator=generator) / 4
        return Workload(
            contenders={
                OURS: partial(_contender, s, nodes, table, False, "lnz"),
                "plain torch": partial(_contender, s, nodes, table, True, ""),
            },
            reference=partial(_reference, s, nodes, table),
            tolerance=1e-4,
            targets={"plain torch": 5.0},
        )


def _contender(s: Shape, nodes: Tensor, table: Tensor, plain: bool, package: str) -> Contender:
    method = MeanField if s.method == "mean-field" else TreeReweighted
    graph = _grid(s.height, s.width, s.labels)

    def call() -> lnz.MRF:
        with backend("reference" if plain else "auto"):
            p = lnz.MRF(graph, (nodes, table), method(max_iterations=s.iterations, tolerance=0.0))
            _ = p.log_partition, p.node_marginals
        return p

    def read(p: lnz.MRF) -> Numbers:
        iterations = torch.as_tensor(p.diagnostics["iterations"])
        if not (iterations == s.iterations).all():
            raise AssertionError(f"expected {s.iterations} iterations, got {iterations.tolist()}")
        per_node = p.log_partition.double() / graph.num_nodes
        return {"bound per node": per_node.numpy(), "node marginals": p.node_marginals.numpy()}

    return Contender(call, read, package)


def _reference(s: Shape, nodes: Tensor, table: Tensor) -> Numbers:
    """The definition in float64."""
    contender = _contender(s, nodes.double(), table.double(), True, "")
    return contender.read(contender.call())


@cache
def _grid(height: int, width: int, labels: int) -> lnz.FactorGraph:
    """Kept, and with it the appearance probabilities of its edges."""
    return lnz.FactorGraph.grid(height, width, labels)
