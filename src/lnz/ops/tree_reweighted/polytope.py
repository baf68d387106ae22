"""Whether given appearance probabilities are those of some distribution over forests: else there is no bound."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from lnz.graphs import FactorGraph
from lnz.ops.tree_reweighted.appearance import forest

TOLERANCE = 1e-7
COLUMNS = 2000
"""The largest number of forests that are tried."""

_inside: WeakKeyDictionary[FactorGraph, set[bytes]] = WeakKeyDictionary()


def check_appearance(graph: FactorGraph, appearance: Tensor) -> Tensor:
    """The probabilities of all factors, ``[*batch, F]`` float64, of those given for factors of two nodes and more.

    Args:
        graph: F factors, F' of them of two nodes or more.
        appearance: ``[*batch, F']``, in the order of groups; every number in (0, 1].

    Raises:
        ValueError: wrong shape, a number outside (0, 1], or no distribution over forests found that has these.
    """
    scored = torch.cat([torch.full((len(s),), s.shape[1] > 1) for s in graph.scopes] or [torch.zeros(0).bool()])
    wanted = int(scored.sum())
    if appearance.dim() == 0 or appearance.shape[-1] != wanted:
        raise ValueError(
            f"appearance: expected shape [*batch, {wanted}], one number per factor of two nodes or more, "
            f"got {list(appearance.shape)}"
        )
    given = appearance.detach().to("cpu", torch.float64)
    if not ((given > 0) & (given <= 1)).all():
        raise ValueError(f"appearance: expected probabilities in (0, 1], got [{given.min():.4g}, {given.max():.4g}]")
    full = torch.ones(*given.shape[:-1], len(scored), dtype=torch.float64)
    full[..., scored] = given
    known = _inside.setdefault(graph, set())
    for rho in full.reshape(-1, len(scored)).unique(dim=0):
        if rho.numpy().tobytes() not in known:
            missing = shortfall(graph, rho)
            if missing > TOLERANCE:
                raise ValueError(
                    "appearance: expected the probabilities of a distribution over spanning forests, got some that "
                    f"exceed those of every one found by at least {missing:.3g}; 'uniform' and 'optimised' are valid"
                )
            known.add(rho.numpy().tobytes())
    return full


def shortfall(graph: FactorGraph, rho: Tensor) -> float:
    """The least t such that some distribution over forests uses each factor f with probability ρ_f − t at least.

    A linear programme over forests, which are added one at a time as its duals ask for them: exact on graphs of edges,
    where the greedy forest is the heaviest; among larger factors it may be too large, never too small.
    """
    from scipy.optimize import linprog

    wanted = rho.numpy()
    columns = [forest(graph, rho).numpy()]
    while True:
        cost = np.array([*[0.0] * len(columns), 1.0])
        above = np.column_stack([*(-column for column in columns), -np.ones(len(wanted))])
        once = np.array([[*[1.0] * len(columns), 0.0]])
        answer = linprog(cost, above, -wanted, once, [1.0], method="highs")
        weights = -answer.ineqlin.marginals
        heaviest = forest(graph, torch.from_numpy(weights)).numpy()
        gain = weights @ heaviest - answer.eqlin.marginals[0] * -1.0
        if answer.fun <= TOLERANCE or gain <= TOLERANCE or len(columns) >= COLUMNS:
            return float(answer.fun)
        columns.append(heaviest)
