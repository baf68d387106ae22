"""Hamiltonian Monte Carlo for discrete models, in the space of the Gaussian integral that couples their nodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lnz.checks import check_integer, check_number
from lnz.errors import IntractableError
from lnz.inference.sampling.acceptance import acceptance, accepted, tallied
from lnz.inference.sampling.sampler import Chains, Sampler, Transition
from lnz.ops.conditionals.alone import node_scores
from lnz.ops.conditionals.normalised import keep_observed
from lnz.ops.conditionals.random import categorical, normal
from lnz.scores import Model


@dataclass(frozen=True)
class HamiltonianMonteCarlo(Sampler):
    """Hamiltonian Monte Carlo through the Gaussian integral trick (Zhang, Sutton, Storkey & Ghahramani 2012).

    In the one-hot form x of a labelling, a model of factors of one and two nodes is ``s = ½ xᵀWx + bᵀx``. As exactly
    one label of each node is on, ``W + d·I`` gives the same distribution, and with ``W + d·I = RRᵀ`` (d the least that
    allows it)

        p(x, u) ∝ exp(bᵀx + xᵀRu − ½ uᵀu)

    has P as its marginal over x. Given u the labels are independent, ``softmax(b + Ru)``; with x summed out, u has the
    density ``exp(−½ uᵀu) Π_n Σ_l exp(b + Ru)[n, l]``, which is smooth. A sweep is one trajectory of u by the leapfrog
    rule, accepted or rejected, and then a draw of the labels: the stationary distribution is P, exactly. u is carried
    from sweep to sweep; where there is none, it is drawn given the labels.

    Once per ``step`` O((N·L)³), then O((N·L)²) per leapfrog step: for models of up to some thousand N·L.

    Args:
        step_size: of the leapfrog rule; below 2, since the curvature is at most 1.
        leapfrog_steps: per sweep.
        max_table: the largest number of entries (N·L)² of W to write down.

    Raises:
        ValueError: on ``solve`` and ``step``, for factors of three and more nodes, or −inf scores of two.
        IntractableError: there, where W is too large.
    """

    step_size: float = 0.3
    leapfrog_steps: int = 8
    max_table: int = 2**26

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("step_size", self.step_size, "a number in (0, 2)", lambda step: 0 < step < 2)
        check_integer("leapfrog_steps", self.leapfrog_steps, 1)
        check_integer("max_table", self.max_table, 1)

    def transition(self, model: Model) -> Transition:
        self._check_size(model)
        root, bias = relaxation(model)

        def fields(u: Tensor) -> Tensor:
            """b + Ru, ``[n, *batch, N, L]``."""
            return bias + (root @ u[..., None]).squeeze(-1).unflatten(-1, bias.shape[-2:])

        def energy(u: Tensor) -> Tensor:
            return (u * u).sum(-1) / 2 - fields(u).logsumexp(-1).sum(-1)

        def force(u: Tensor) -> Tensor:
            pull = fields(u).softmax(-1).flatten(-2)
            return (root.mT @ pull[..., None]).squeeze(-1) - u

        def advance(chains: Chains, sweeps: int, generator: torch.Generator | None) -> Chains:
            labels = chains.labels
            u = chains.carried.get("auxiliary")
            if u is None:
                u = _given_labels(root, bias, labels, generator)
            before, pull = energy(u), force(u)
            count = torch.zeros(labels.shape[:-1], device=labels.device)
            for _ in range(sweeps):
                start = normal(u.shape, u, generator)
                v, momentum, force_at_v = u, start, pull
                for _ in range(self.leapfrog_steps):
                    momentum = momentum + self.step_size / 2 * force_at_v
                    v = v + self.step_size * momentum
                    force_at_v = force(v)
                    momentum = momentum + self.step_size / 2 * force_at_v
                after = energy(v)
                kinetic = (start * start).sum(-1) / 2 - (momentum * momentum).sum(-1) / 2
                accept = accepted(before - after + kinetic, generator)
                u, pull = torch.where(accept[..., None], v, u), torch.where(accept[..., None], force_at_v, pull)
                before = torch.where(accept, after, before)
                count += accept
                labels = categorical(fields(u), generator)
            return Chains(labels, tallied(chains, count, sweeps) | {"auxiliary": u}, chains.sweeps + sweeps)

        return advance

    def _check_size(self, model: Model) -> None:
        entries = (model.graph.num_nodes * model.graph.max_cardinality) ** 2
        if entries > self.max_table:
            raise IntractableError(
                f"HamiltonianMonteCarlo: {entries} pairs of nodes and labels are more than max_table={self.max_table}; "
                "use Gibbs(), GibbsWithGradients() or DiscreteLangevin()",
                treewidth=model.graph.num_nodes - 1,
                table_bytes=entries * torch.finfo(model.dtype).bits // 8,
                alternatives=("Gibbs", "GibbsWithGradients", "DiscreteLangevin"),
            )

    def report(self, chains: Chains) -> dict[str, Any]:
        return acceptance(chains)


def relaxation(model: Model) -> tuple[Tensor, Tensor]:
    """R ``[*batch, NL, NL]`` and b ``[*batch, N, L]`` with ``s(y) = ½ ‖Rᵀx‖² + bᵀx`` + constant, x the one-hot y.

    The means of the rows and columns of each table of two nodes go to b, which leaves less for R. b is −inf at
    impossible labels and at those that contradict what was observed.
    """
    graph, N, L = model.graph, model.graph.num_nodes, model.graph.max_cardinality
    bias = node_scores(model)
    pairs = bias.new_zeros(*model.batch_shape, N * N, L, L)
    for group, labels in enumerate(graph.labels):
        if len(labels) > 2:
            raise ValueError(
                f"HamiltonianMonteCarlo: expected factors of at most two nodes, got {len(labels)} in group {group}; "
                "use Gibbs(), GibbsWithGradients() or DiscreteLangevin()"
            )
        if len(labels) < 2:
            continue
        table = model.expanded(group).to(bias.dtype)
        if torch.isneginf(table).any():
            raise ValueError(
                f"HamiltonianMonteCarlo: expected finite scores of pairs, got -inf in group {group}; "
                "use Gibbs(), or MetropolisHastings()"
            )
        rows = table.mean(-1, keepdim=True)
        columns = (table - rows).mean(-2, keepdim=True)
        a, b = graph.scopes[group].to(table.device).unbind(-1)
        short = [L - size for size in labels]
        pad = torch.nn.functional.pad
        bias = bias.index_add(-2, a, pad(rows.squeeze(-1), (0, short[0])))
        bias = bias.index_add(-2, b, pad(columns.squeeze(-2), (0, short[1])))
        centred = pad(table - rows - columns, (0, short[1], 0, short[0]))
        pairs = pairs.index_add(-3, a * N + b, centred).index_add(-3, b * N + a, centred.mT)
    bias = keep_observed(bias, model.observed)
    W = pairs.unflatten(-3, (N, N)).transpose(-3, -2).flatten(-2).flatten(-3, -2)  # [*batch, N, L, N, L] as a matrix
    values, vectors = torch.linalg.eigh(W)
    return vectors * (values - values[..., :1]).sqrt()[..., None, :], bias


def _given_labels(root: Tensor, bias: Tensor, labels: Tensor, generator: torch.Generator | None) -> Tensor:
    """A draw of u given the labels, ``[n, *batch, NL]``: from the normal distribution of mean Rᵀx and unit variance."""
    on = labels[..., None] == torch.arange(bias.shape[-1], device=labels.device)
    mean = (root.mT @ on.flatten(-2).to(root.dtype)[..., None]).squeeze(-1)
    return mean + normal(mean.shape, mean, generator)
