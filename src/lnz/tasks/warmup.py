"""Small calls that compile the kernels of each operation, for ``lnz warmup``.

A kernel is compiled once per dtype, whatever the sizes: a call on a few numbers serves all.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

import lnz
from lnz.distributions import CTC, HMM, MRF, ConstituencyTree, DependencyTree, LinearChain, SemiMarkov, Transducer
from lnz.graphs import FactorGraph
from lnz.inference import (
    TRWS,
    BeliefPropagation,
    ClusterTempering,
    Exact,
    Gibbs,
    IteratedConditionalModes,
    MeanField,
    MetropolisHastings,
    SimulatedAnnealing,
    TreeReweighted,
)
from lnz.inference.base import Method
from lnz.scores import Weighted
from lnz.typing import IGNORE


class Operation(NamedTuple):
    """An operation of :mod:`lnz.ops`: what it serves, and what compiles its kernels for a dtype."""

    serves: str
    compile: Callable[[torch.dtype], None]


WILD = 1e4
"""Scores whose sums of exponentials leave the range of float64."""
DTYPES = {"float32": torch.float32, "float64": torch.float64}


def compile_operation(name: str, dtype: str) -> float:
    """Compile, or read from the cache, the kernels of an operation; returns the seconds that took."""
    start = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a few iterations do not converge
        OPERATIONS[name].compile(DTYPES[dtype])
    return time.monotonic() - start


def _scores(dtype: torch.dtype, *shape: int) -> Tensor:
    return torch.zeros(shape, dtype=dtype, requires_grad=True)


def _answers(p: lnz.distributions.StructuredDistribution, y: Tensor) -> None:
    """What most calls of a distribution come to."""
    likelihood = p.log_prob(y).sum()  # first: it need not know ln Z
    (p.log_partition.sum() - likelihood).backward()
    p.argmax()
    p.topk(2)
    p.sample((2,))
    p.entropy().sum().backward()
    _ = p.marginals


def _chain(dtype: torch.dtype) -> None:
    y = torch.zeros(9, 6, dtype=torch.int64)
    for shape in ((5, 5), (5, 5, 5)):  # a shared table, and one per step
        p = LinearChain(_scores(dtype, 9, 6, 5), _scores(dtype, *shape))
        _answers(p, y)
        (-p.log_prob(y.masked_fill(torch.arange(6) == 2, -100)).sum()).backward()
        _ = tuple(p.max_marginals())
        _answers(LinearChain(_scores(dtype, 1, 6, 5), _scores(dtype, *shape)), y[:1])  # too few to fuse
    node = WILD * torch.arange(30).remainder(7).to(dtype).reshape(1, 6, 5)  # beyond float64's range of exponents
    wild = LinearChain(node.requires_grad_(), (-WILD * torch.eye(5, dtype=dtype)).requires_grad_())
    _answers(wild, y[:1])
    _ = HMM(node[0, 0].log_softmax(-1), node[0, :5].log_softmax(-1), node).filtered
    logits = _scores(dtype, 5, 5).log_softmax(-1)
    _ = HMM(logits[0], logits, _scores(dtype, 9, 6, 5)).log_evidence.sum().backward()


def _semi_markov(dtype: torch.dtype) -> None:
    p = SemiMarkov(_scores(dtype, 4, 6, 3, 5), _scores(dtype, 5, 5))
    _answers(p, p.argmax())


def _spans(dtype: torch.dtype) -> None:
    p = ConstituencyTree(_scores(dtype, 4, 5, 5, 3))
    _answers(p, p.argmax())


def _trees(dtype: torch.dtype, projective: bool) -> None:
    p = DependencyTree(_scores(dtype, 2, 5, 5), projective=projective)
    _answers(p, p.argmax())
    wild = WILD * torch.arange(25, dtype=dtype).remainder(7).reshape(1, 5, 5)
    _answers(DependencyTree(wild.requires_grad_(), projective=projective), p.argmax()[:1])


def _ctc(dtype: torch.dtype) -> None:
    targets, sizes = torch.ones(4, 3, dtype=torch.int64), torch.full((4,), 3)
    p = CTC(_scores(dtype, 4, 8, 5))
    (-p.log_prob(targets, sizes).sum()).backward()
    p.decode(beam=2)
    alignments = p.alignments(targets, sizes)
    alignments.argmax()
    alignments.sample((2,))
    _ = alignments.marginals
    long = CTC(_scores(dtype, 1, 2**16, 2))  # too long for the lattice to be kept
    (-long.log_prob(torch.ones(1, 64, dtype=torch.int64)).sum()).backward()
    lnz.align(_scores(dtype, 8, 3), "ab", "_ab", skip_cost=1.0)


def _transducer(dtype: torch.dtype) -> None:
    targets, sizes = torch.ones(4, 3, dtype=torch.int64), torch.full((4,), 3)
    p = Transducer(_scores(dtype, 4, 6, 4, 5))
    (-p.log_prob(targets, sizes).sum()).backward()
    alignments = p.alignments(targets, sizes)
    alignments.argmax()
    _ = alignments.marginals


def _loop(dtype: torch.dtype, method: Method) -> MRF:
    """Three nodes in a circle, which no special case serves."""
    graph = FactorGraph.pairwise(4, 3, torch.tensor([[0, 1], [1, 2], [0, 2], [2, 3]]))
    return MRF(graph, (_scores(dtype, 2, 4, 3), _scores(dtype, 3, 3)), method)


def _grid(dtype: torch.dtype, method: Method, labels: int = 3, weighted: bool = False, scale: float = 0.0) -> MRF:
    graph = FactorGraph.grid(4, 5, labels)
    edges = graph.num_factors[1]
    table = (scale * torch.eye(labels, dtype=dtype)).requires_grad_()
    entry = Weighted(torch.ones(2, edges, dtype=dtype, requires_grad=True), table) if weighted else table
    return MRF(graph, (_scores(dtype, 2, 20, labels), entry), method)


def _elimination(dtype: torch.dtype) -> None:
    p = _loop(dtype, Exact())
    _answers(p, p.argmax())
    with torch.no_grad():  # rows of evidence, side by side
        shared = MRF(p.graph, (_scores(dtype, 4, 3), _scores(dtype, 3, 3)))
        _ = shared.condition(torch.full((16, 4), IGNORE)).node_marginals


def _grid_belief(dtype: torch.dtype) -> None:
    for weighted, scale in ((False, 0.0), (True, 0.0), (True, WILD)):  # one table, tables of their own, in logarithms
        p = _grid(dtype, BeliefPropagation(max_iterations=2), weighted=weighted, scale=scale)
        p.log_partition.sum().backward()
    for scale in (0.0, WILD):
        p = _grid(dtype, TreeReweighted(max_iterations=2), scale=scale)
        p.log_partition.sum().backward()


def _mean_field(dtype: torch.dtype) -> None:
    for weighted in (False, True):
        p = _grid(dtype, MeanField(max_iterations=2), weighted=weighted)
        p.log_partition.sum().backward()


def _gibbs(dtype: torch.dtype) -> None:
    spins = MRF(FactorGraph.grid(4, 5, 2), (_scores(dtype, 2), _scores(dtype, 2, 2)), Gibbs())
    for p in (_grid(dtype, Gibbs()), _grid(dtype, Gibbs(), 2), spins, _loop(dtype, Gibbs())):
        sampler = Gibbs(order="chromatic")
        chains = sampler.init(p.model, 2, None)
        sampler.step(p.model, chains, 1, None)
    sampler = MetropolisHastings()
    sampler.step(p.model, sampler.init(p.model, 2, None), 1, None)


def _tree_gibbs(dtype: torch.dtype) -> None:
    p, sampler = _loop(dtype, Gibbs(order="tree")), Gibbs(order="tree")
    sampler.step(p.model, sampler.init(p.model, 2, None), 1, None)


def _trws(dtype: torch.dtype) -> None:
    _grid(dtype, TRWS(max_iterations=2)).argmax()
    _loop(dtype, TRWS(max_iterations=2)).argmax()


def _annealing(dtype: torch.dtype) -> None:
    for method in (SimulatedAnnealing(sweeps=2), ClusterTempering(sweeps=2, rungs=2)):
        _loop(dtype, method).argmax()


def _icm(dtype: torch.dtype) -> None:
    _grid(dtype, IteratedConditionalModes()).argmax()
    _loop(dtype, SimulatedAnnealing(sweeps=2)).argmax()


OPERATIONS = {
    "chain": Operation("LinearChain, SecondOrderChain, HMM, LinearChainCRF", _chain),
    "semi_markov": Operation("SemiMarkov", _semi_markov),
    "spans": Operation("ConstituencyTree", _spans),
    "projective": Operation("DependencyTree", partial(_trees, projective=True)),
    "arborescence": Operation("DependencyTree(projective=False)", partial(_trees, projective=False)),
    "ctc": Operation("CTC, ctc_loss, CTCHead, align", _ctc),
    "transducer": Operation("Transducer, rnnt_loss", _transducer),
    "elimination": Operation("MRF and BayesNet by Exact", _elimination),
    "grid_belief": Operation("MRF on grids by BeliefPropagation and TreeReweighted, GridMRF", _grid_belief),
    "mean_field": Operation("MRF by MeanField", _mean_field),
    "gibbs": Operation("MRF by Gibbs and MetropolisHastings", _gibbs),
    "tree_gibbs": Operation("MRF by Gibbs(order='tree')", _tree_gibbs),
    "trws": Operation("best labellings by TRWS", _trws),
    "icm": Operation("best labellings by IteratedConditionalModes and what ends in it", _icm),
    "annealing": Operation("best labellings by Auto, ClusterTempering and SimulatedAnnealing", _annealing),
}
"""By name, as ``lnz warmup`` takes them."""
