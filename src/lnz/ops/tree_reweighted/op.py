"""Tree-reweighted inference as a functional of messages; its derivative is the pseudo-marginals at these messages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lnz.graphs import FactorGraph
from lnz.ops.belief.gradient import gathered
from lnz.ops.belief.reference import beliefs, factor_beliefs, node_beliefs
from lnz.ops.belief.schedule import Outcome, Run, iterate, replayed
from lnz.ops.envelope import Answering, State
from lnz.ops.tree_reweighted.appearance import uniform
from lnz.ops.tree_reweighted.optimise import optimised
from lnz.ops.tree_reweighted.polytope import check_appearance
from lnz.ops.tree_reweighted.reference import Reweighted, reweighted, upper_bound
from lnz.scores import Model

Appearance = Literal["uniform", "optimised"]


@dataclass(frozen=True, eq=False)
class TreeReweighting(Answering):
    """The state is messages ``[*batch, M, L]``, appearance ``[*batch', F]``, and ``[*batch]`` iterations, residual and
    whether they converged.

    What of the bound stems from messages that have not converged is held constant in the derivative.
    """

    run: Run
    appearance: Appearance | Tensor
    steps: int

    def state(self, model: Model) -> State:
        if self.optimises:
            rho, outcome = optimised(model, self.run, self.steps)
        else:
            rho = self.probabilities(model.graph)
            outcome = iterate(reweighted(model, rho), self.run)
        return outcome.messages, rho.to(outcome.messages), outcome.iterations, outcome.residual, outcome.converged

    def probabilities(self, graph: FactorGraph) -> Tensor:
        """Those given, once they are checked, or uniform ones, ``[*batch', F]`` float64."""
        given = self.appearance
        return check_appearance(graph, given) if isinstance(given, Tensor) else uniform(graph)

    @property
    def optimises(self) -> bool:
        return isinstance(self.appearance, str) and self.appearance == "optimised"

    def value(self, model: Model, state: State) -> Tensor:
        return upper_bound(Reweighted(model, state[1]), state[0])

    def gradient(self, model: Model, state: State, grad: Tensor) -> list[Tensor]:
        passing = Reweighted(model, state[1])
        return gathered(passing, passing.node_to_factor(state[0]), grad, beliefs)

    def answer(self, model: Model, state: State, which: int | None) -> Tensor:
        """Beliefs of the factors of a group ``[*batch, F, L1, …, Lk]``, or (``None``) of nodes ``[*batch, N, L]``."""
        return self.plain(model, state, which)

    def plain(self, model: Model, state: State, which: int | None) -> Tensor:
        passing = Reweighted(model, state[1])
        found = node_beliefs(passing, state[0]) if which is None else factor_beliefs(passing, state[0], which)
        return found.to(model.dtype)

    def replayed(self, model: Model, state: State) -> State:
        outcome = Outcome(state[0], *state[2:5])
        onward = self.optimises  # messages that were not made from uniform ones
        messages = replayed(Reweighted(model, state[1]), self.run, outcome, onward=onward)
        if onward:  # what they are is the state, only how they change is of the iterations
            finite = messages.masked_fill(torch.isneginf(messages), 0.0)
            messages = state[0] + (finite - finite.detach())
        return messages, *state[1:]
