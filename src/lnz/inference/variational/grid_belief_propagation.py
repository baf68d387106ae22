"""Belief propagation on 4-neighbour grids: the same answers as the general path, from the grid's own kernel."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from lnz.checks import concrete
from lnz.inference.base import check_reverse_mode
from lnz.inference.variational.bethe import BetheSolution
from lnz.ops.belief.decode import decoded
from lnz.ops.belief.op import warn_if_outside
from lnz.ops.belief.reference import factor_beliefs
from lnz.ops.belief.schedule import Outcome, Run, unrolled
from lnz.ops.grid_belief.op import GridOutcome, serves, slots, solved
from lnz.scores import Model
from lnz.typing import LazyTuple

__all__ = ["GridSolution", "serves"]


class GridSolution(BetheSolution):
    """Beliefs at the final messages, and the Bethe ln Z of which they are the gradient.

    Messages take O(E · L) memory; scores that are shared or :class:`~lnz.Weighted` are never expanded. Beliefs of
    nodes come with ln Z, those of edges are computed, ``[*batch, E, L, L]``, when they are asked for.
    """

    exact = False

    def __init__(self, model: Model, run: Run) -> None:
        super().__init__(model)
        self.run = run
        self._compared = False  # with what bounds ln Z
        self._solved: dict[bool, GridOutcome] = {}
        self._maximised: GridOutcome | None = None

    @property
    def _outcome(self) -> GridOutcome:
        graded = torch.is_grad_enabled()  # what was solved without gradient must not serve with it
        if graded not in self._solved:
            check_reverse_mode(self.method, self.model)
            self._solved[graded] = solved(self.centred[0], self.run)
        return self._solved[graded]

    @property
    def log_partition(self) -> Tensor:
        return (self.centred_log_partition + self.centred[1]).to(self.model.dtype)

    @property
    def centred_log_partition(self) -> Tensor:
        outcome = self._outcome
        if not self._compared and concrete(outcome.log_partition):
            self._compared = True
            if self.run.tolerance and not outcome.converged.all():
                warn_if_outside(self.centred[0], outcome.log_partition.detach(), self.centred[1])
        return outcome.log_partition

    @property
    def node_marginals(self) -> Tensor:
        return self._outcome.beliefs

    @cached_property
    def _messages(self) -> Tensor:
        outcome = self._outcome
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in self.centred[0].tensors):
            settled = Outcome(outcome.messages, outcome.iterations, outcome.residual, outcome.converged)
            return unrolled(self.centred[0], self.run, settled)
        return slots(self.centred[0], outcome)

    @cached_property
    def marginals(self) -> tuple[Tensor, ...]:
        def edges(group: int) -> Callable[[], Tensor]:
            return lambda: factor_beliefs(self._passing, self._messages, group).to(self.model.dtype)

        groups = range(1, self.model.graph.num_groups)
        return LazyTuple([lambda: self.node_marginals, *(edges(group) for group in groups)])

    def argmax(self) -> Tensor:
        """The labelling decoded from max-product messages: good, but not sure to be the best."""
        if self._maximised is None:
            check_reverse_mode(self.method, self.model)
            with torch.no_grad():
                self._maximised = solved(self.centred[0], self.run, maximise=True)
        return decoded(self.centred[0], slots(self.centred[0], self._maximised, maximise=True))

    @property
    def diagnostics(self) -> dict[str, Any]:
        known = next(iter(self._solved.values()), None) or self._maximised or self._outcome  # of what was run
        return {
            "iterations": known.iterations,
            "residual": known.residual,
            "converged": known.converged,
            "damping": self.run.damping_for(self.centred[0]),
            "schedule": self.run.schedule,
        }
