"""Gibbs sampling: every node in turn redrawn from its conditional distribution given all others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch

from lnz.inference.sampling.sampler import Chains, Sampler, Transition
from lnz.ops.gibbs.op import gibbs_sweeps
from lnz.ops.tree_gibbs.blocks import blocks_of
from lnz.ops.tree_gibbs.op import tree_sweeps
from lnz.scores import Model

Order = Literal["chromatic", "systematic", "random", "tree"]


@dataclass(frozen=True)
class Gibbs(Sampler):
    """Gibbs sampling (Geman & Geman 1984). A sweep redraws every node once; O(Σ_f k_f · L) time per chain.

    A call of ``step`` takes one key from the generator, from which all its random numbers follow: six sweeps in one
    call and twice three are equally good draws, but not the same ones. A resumed run draws what an uninterrupted one
    would where it makes the same calls in the same order, with the generator's state saved beside the chains.

    Args:
        order: what a sweep is.

            - ``"chromatic"``: one colour of a greedy colouring of the graph after the other, all nodes of a colour at
              once (on a 4-neighbour grid, a checkerboard).
            - ``"systematic"``: node 0, 1, …, N−1.
            - ``"random"``: N times a node drawn from all N, by each chain for itself; reversible.
            - ``"tree"``: blocks of nodes that induce forests, each drawn exactly and jointly given the rest by
              filtering forward and sampling backward (Hamze & de Freitas 2004), O(Σ_f L²): the two combs of a
              4-neighbour grid, on other graphs the blocks of a greedy partition. A graph that is a forest is one block,
              so that every sweep is an independent draw.
        blocks: the nodes of each block, in place of those of ``"tree"``, e.g. the rows of a grid; together they must
            hold every node.

    Raises:
        ValueError: on ``solve`` and ``step``, where ``blocks`` leave out a node, or one of them does not induce a
            forest or holds three nodes of one factor.
    """

    order: Order = "chromatic"
    blocks: Sequence[Sequence[int]] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.order not in get_args(Order):
            raise ValueError(f"order: expected one of {', '.join(map(repr, get_args(Order)))}, got {self.order!r}")
        if self.blocks is not None:
            if self.order not in ("chromatic", "tree"):
                raise ValueError(f"blocks: expected order='tree' with blocks, got order={self.order!r}")
            try:
                blocks = tuple(tuple(int(node) for node in block) for block in self.blocks)
            except TypeError as error:
                raise TypeError(f"blocks: expected the nodes of each block, got {self.blocks!r}") from error
            object.__setattr__(self, "blocks", blocks)
            object.__setattr__(self, "order", "tree")

    def transition(self, model: Model) -> Transition:
        if self.order == "tree":
            blocks_of(model.graph, self.blocks, model.device)  # raises now where the blocks do not fit

        def advance(chains: Chains, sweeps: int, generator: torch.Generator | None) -> Chains:
            if self.order == "tree":
                labels = tree_sweeps(model, chains.labels, sweeps, generator, self.blocks)
            else:
                labels = gibbs_sweeps(model, chains.labels, sweeps, generator, self.order)
            return Chains(labels, {}, chains.sweeps + sweeps)

        return advance
