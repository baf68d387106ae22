"""Dynamic Bayesian networks: slices that repeat in time, written out as one network whose slices share tables."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lnz.checks import check_integer
from lnz.distributions.bayes_net import BayesNet


def unrolled(
    num_steps: int,
    cardinalities: Sequence[int],
    parents: Sequence[Sequence[int]],
    previous: Sequence[Sequence[int]],
    *,
    log_cpts: tuple[Sequence[Tensor], Sequence[Tensor]] | None = None,
    names: Sequence[str] | None = None,
    states: Sequence[Sequence[str]] | None = None,
    dtype: torch.dtype = torch.float64,
) -> BayesNet:
    """A dynamic Bayesian network (Dean & Kanazawa 1989) of n variables per slice, unrolled over T slices.

    Variable i of slice t is variable t · n + i of the network, so that rows of it are ``y.flatten(1)`` of sequences
    ``[R, T, n]``; shorter ones are padded with −100. The slices t ≥ 1 share their tables, and all slices those of
    variables without parents in the slice before: :attr:`BayesNet.ties` has the groups, which ``fit`` and
    :func:`lnz.objectives.em` keep::

        net = lnz.unrolled(50, [2, 3], [[], [0]], [[0], []])     # a hidden Markov model
        lnz.objectives.em(net, y.flatten(1), restarts=10)

    Exact inference takes time linear in T, and exponential in the number of variables that a slice hands on.

    Args:
        num_steps: T.
        cardinalities: of the variables of a slice.
        parents: of each variable, within its slice.
        previous: of each variable, the parents in the slice before, by their numbers in it.
        log_cpts: the tables of the first slice ``[*parents, card]`` and of the others ``[*previous, *parents, card]``,
            which for variables without ``previous`` are those of the first; ``None`` is uniform, to be learnt from
            random starts.
        names: of the variables of a slice; ``"name[t]"`` in the network.
        states: of the variables of a slice.
        dtype: of uniform tables.

    Raises:
        ValueError: lists that are not one per variable, parents out of range, cycles within a slice, wrong tables.
    """
    check_integer("num_steps", num_steps)
    n = len(cardinalities)
    for name, lists in (("parents", parents), ("previous", previous)):
        if len(lists) != n:
            raise ValueError(f"{name}: expected one list per variable of a slice, {n}, got {len(lists)}")
        for variable, group in enumerate(lists):
            wrong = [parent for parent in group if not 0 <= parent < n]
            if wrong:
                raise ValueError(f"{name}[{variable}]: expected variables of a slice, in [0, {n}), got {wrong[0]}")
    if log_cpts is None:
        log_cpts = _uniform(cardinalities, parents, [()] * n, dtype), _uniform(cardinalities, parents, previous, dtype)
    for name, tables in zip(("log_cpts[0]", "log_cpts[1]"), log_cpts, strict=True):
        if len(tables) != n:
            raise ValueError(f"{name}: expected one table per variable of a slice, {n}, got {len(tables)}")
    first, later = log_cpts
    above = [[*parents[v]] for v in range(n)]
    of_all = [*first]
    for step in range(1, num_steps):
        here, before = step * n, (step - 1) * n
        above += [[*(before + p for p in previous[v]), *(here + p for p in parents[v])] for v in range(n)]
        of_all += [later[v] if previous[v] else first[v] for v in range(n)]
    starts = [1 if previous[v] else 0 for v in range(n)]
    ties = [[t * n + v for t in range(starts[v], num_steps)] for v in range(n)]
    base = [str(v) for v in range(n)] if names is None else names
    net = BayesNet(
        [*cardinalities] * num_steps,
        above,
        of_all,
        names=[f"{name}[{t}]" for t in range(num_steps) for name in base],
        states=None if states is None else [*states] * num_steps,
    )
    return net.tie([group for group in ties if len(group) > 1])


def factorial_hmm(
    num_steps: int, num_states: Sequence[int], num_symbols: int, *, dtype: torch.dtype = torch.float64
) -> BayesNet:
    """A factorial hidden Markov model (Ghahramani & Jordan 1997): M chains that emit one symbol together at each step.

    As :func:`unrolled`, whose slices are the M states and then the symbol: rows are −100 but for entries M, 2 M + 1, ….
    Tables are uniform; learn them from random starts. Exact inference takes O(T M K^(M+1)) time for chains of K states;
    ``method=`` of :func:`lnz.objectives.em` approximates.

    Args:
        num_steps: T.
        num_states: of each chain.
        num_symbols: V; the table of symbols is ``[*num_states, V]``.
        dtype: of the tables.
    """
    M = len(num_states)
    names = [*(f"chain {m}" for m in range(M)), "symbol"]
    parents = [*([] for _ in range(M)), [*range(M)]]
    previous = [*([m] for m in range(M)), []]
    return unrolled(num_steps, [*num_states, num_symbols], parents, previous, names=names, dtype=dtype)


def _uniform(
    cardinalities: Sequence[int],
    parents: Sequence[Sequence[int]],
    previous: Sequence[Sequence[int]],
    dtype: torch.dtype,
) -> list[Tensor]:
    shapes = [
        [cardinalities[p] for p in (*before, *above, v)]
        for v, (before, above) in enumerate(zip(previous, parents, strict=True))
    ]
    return [torch.zeros(shape, dtype=dtype).log_softmax(-1) for shape in shapes]
