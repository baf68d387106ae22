"""Gibbs sampling of binary models with pairwise factors, a whole block of nodes per matrix product."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lnz.inference.sampling.gibbs import Gibbs
from lnz.inference.sampling.sampler import Chains, Transition
from lnz.ops.conditionals.random import uniform
from lnz.ops.conditionals.sites import Sites, wiring_of
from lnz.scores import Model
from lnz.typing import IGNORE


@dataclass(frozen=True)
class BlockGibbs(Gibbs):
    """:class:`~lnz.inference.Gibbs` in its chromatic order, for densely coupled binary nodes.

    The nodes of a colour are independent given the others, and redrawn at once from

        P(y_n = 1 | the rest) = sigmoid(b_n + Σ_m J_nm y_m),

    one matrix product per colour: O(chains · N²) time per sweep however many factors there are. In a restricted
    Boltzmann machine the colours are the visible and the hidden units, in this order.

    Raises:
        ValueError: on ``solve`` and ``step``, for nodes that are not binary, factors of more than two nodes, or scores
            of −inf; and for any order but the chromatic one.
    """

    def transition(self, model: Model) -> Transition:
        if self.order != "chromatic":
            raise ValueError(f"BlockGibbs: expected order='chromatic', got {self.order!r}; Gibbs() has the others")
        bias, coupling = fields(Model(model.graph, model.entries))  # observed labels may have a batch of their own
        colours = [sites.nodes for sites in _colours(model)]

        def advance(chains: Chains, sweeps: int, generator: torch.Generator | None) -> Chains:
            state = chains.labels.to(bias.dtype)
            for _ in range(sweeps):
                for nodes in colours:
                    field = bias[..., nodes] + _product(state, coupling[..., nodes])
                    drawn = (uniform(field.shape, field, generator) < field.sigmoid()).to(field.dtype)
                    if model.observed is not None:
                        seen = model.observed[..., nodes]
                        drawn = torch.where(seen == IGNORE, drawn, seen.to(drawn.dtype))
                    state[..., nodes] = drawn
            return Chains(state.long(), {}, chains.sweeps + sweeps)

        return advance


def fields(model: Model) -> tuple[Tensor, Tensor]:
    """The biases ``[*batch, N]`` and symmetric couplings ``[*batch, N, N]`` of a binary model with pairwise factors.

    s(y) = constant + Σ_n b_n y_n + Σ_{n<m} J_nm y_n y_m, whatever the tables are.

    Raises:
        ValueError: a model of another kind.
    """
    graph = model.graph
    if graph.uniform_cardinality != 2 or any(len(labels) > 2 for labels in graph.labels):
        raise ValueError(
            f"BlockGibbs: expected binary nodes and factors of at most two of them, got {graph!r}; use Gibbs()"
        )
    N, batch = graph.num_nodes, model.batch_shape
    dtype = torch.promote_types(model.dtype, torch.float32)
    bias = torch.zeros(*batch, N, dtype=dtype, device=model.device)
    coupling = torch.zeros(*batch, N * N, dtype=dtype, device=model.device)
    for group, nodes in enumerate(graph.scopes):
        scope = nodes.to(model.device)
        table = model.expanded(group).detach().to(dtype)
        if torch.isneginf(table).any():
            raise ValueError("BlockGibbs: expected finite scores, got -inf; use Gibbs()")
        if scope.shape[1] == 1:
            bias = bias.index_add(-1, scope[:, 0], table[..., 1] - table[..., 0])
        elif scope.shape[1] == 2:
            first, second = scope.unbind(-1)
            bias = bias.index_add(-1, first, table[..., 1, 0] - table[..., 0, 0])
            bias = bias.index_add(-1, second, table[..., 0, 1] - table[..., 0, 0])
            joint = table[..., 1, 1] - table[..., 1, 0] - table[..., 0, 1] + table[..., 0, 0]
            coupling = coupling.index_add(-1, first * N + second, joint).index_add(-1, second * N + first, joint)
    return bias, coupling.unflatten(-1, (N, N))


def _product(state: Tensor, coupling: Tensor) -> Tensor:
    """``[n, *batch, N]`` times ``[*batch, N, M]``."""
    if coupling.dim() == 2:
        return state @ coupling
    return (state.movedim(0, -2) @ coupling).movedim(-2, 0)


def _colours(model: Model) -> tuple[Sites, ...]:
    wiring = wiring_of(model.graph)
    return wiring.kept("chromatic", wiring.colours, model.device)
