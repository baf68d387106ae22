"""Belief propagation: messages between nodes and factors until they stop changing; exact on forests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, get_args

import torch
from torch import Tensor

from lnz.caching import cached_property
from lnz.checks import check_integer, check_number, concrete
from lnz.inference.base import Method, Solution, check_reverse_mode
from lnz.inference.variational.bethe import BetheSolution
from lnz.ops.belief.decode import decoded
from lnz.ops.belief.op import Bethe, warn_if_outside
from lnz.ops.belief.schedule import Run, Schedule
from lnz.ops.envelope import State, answered, evaluated, settled
from lnz.ops.grid_belief.op import GridBethe, serves
from lnz.scores import Model
from lnz.typing import LazyTuple


@dataclass(frozen=True)
class BeliefPropagation(Method):
    """Sum-product (for ln Z and marginals) and max-product (for argmax) message passing.

    ln Z is Bethe's, and its gradient exactly the beliefs, converged or not. On a forest two passes replace the
    iterations, and every answer is exact, whatever the settings. O(iterations · Σ_f k_f Π L) time; memory is that of
    the messages and of the scores as given: shared tables and :class:`~lnz.Weighted` are never expanded.

    ``diagnostics["converged"]`` says that messages *and* ln Z have stopped changing, and, where factors hold −inf, that
    beliefs of factors and nodes agree. ln Z is then the value of Bethe's variational problem at a stationary point: at
    least the mean-field bound of the same beliefs, at most the sum of all highest scores and of ln L of all nodes
    (Wainwright & Jordan 2008, section 4). An estimate outside these is none, whatever the iterations say.

    Args:
        max_iterations: iterations before giving up. One is: every message once (flooding); once forward and once
            backward through the factors in their order (sequential); as many messages as flooding sends (residual).
        tolerance: a batch entry stops after the first iteration in which no normalised message changed by more than
            this, as a probability, and which another would change ln Z by no more per message. ``None`` is 1e-10 in
            float64 and 1e-5 in every other dtype; 0 is exactly ``max_iterations`` iterations, and no warning.
        damping: d in [0, 1): a message becomes ``new^(1−d) · old^d``, normalised; changes are measured after it.
            ``None`` is 0.5 where factors of several nodes hold −inf, and else 0.
        schedule: ``"flooding"``: all messages at once; ``"sequential"``: each factor sees what those before it sent;
            ``"residual"``: always the message that would change most (Elidan, McGraw & Koller 2006), one at a time
            and batch entry by batch entry, so slow per message.

    Warns:
        ConvergenceWarning: once per solution, where batch entries reached ``max_iterations`` above ``tolerance``.
    """

    max_iterations: int = 100
    tolerance: float | None = None
    damping: float | None = None
    schedule: Schedule = "flooding"
    exact: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_integer("max_iterations", self.max_iterations, 1)
        if self.tolerance is not None:
            check_number("tolerance", self.tolerance, "None or a number in [0, 1)", lambda t: 0 <= t < 1)
        if self.damping is not None:
            check_number("damping", self.damping, "None or a number in [0, 1)", lambda damping: 0 <= damping < 1)
        if self.schedule not in get_args(Schedule):
            raise ValueError(f"schedule: expected one of {', '.join(get_args(Schedule))}, got {self.schedule!r}")

    def run(self, dtype: torch.dtype) -> Run:
        """These settings with the tolerance that ``dtype`` stands for."""
        default = 1e-10 if dtype == torch.float64 else 1e-5
        tolerance = default if self.tolerance is None else self.tolerance
        return Run(self.max_iterations, tolerance, self.damping, self.schedule)

    def solve(self, model: Model) -> Solution:
        """The general message passing, or the same from the kernel of 4-neighbour grids where that serves."""
        run = self.run(model.dtype)
        return BeliefSolution(model, (GridBethe if serves(model, run) else Bethe)(run))


class BeliefSolution(BetheSolution):
    """Beliefs at the final messages, and the Bethe ln Z of which they are the gradient."""

    def __init__(self, model: Model, functional: Bethe) -> None:
        super().__init__(model)
        self.functional = functional
        self._compared = False  # with what bounds ln Z

    @property
    def exact(self) -> bool:  # type: ignore[override]
        """On forests, whatever the settings: there two passes replace the iterations."""
        return self.model.graph.is_forest

    @cached_property
    def _state(self) -> State:
        check_reverse_mode(self.method, self.model)
        return settled(self.functional, self.centred[0])

    @property
    def log_partition(self) -> Tensor:
        return (self.centred_log_partition + self.centred[1]).to(self.model.dtype)

    @property
    def centred_log_partition(self) -> Tensor:
        value = evaluated(self.functional, self.centred[0], self._state)
        if not self._compared and concrete(value):
            self._compared = True
            if self.functional.run.tolerance and not self._state[3].all():
                warn_if_outside(self.centred[0], value.detach(), self.centred[1])
        return value

    @cached_property
    def _messages(self) -> Tensor:
        model, state = self.centred[0], self._state
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in model.tensors):
            return self.functional.replayed(model, state)[0]
        return self.functional.ended(model, state)[0]

    @cached_property
    def marginals(self) -> tuple[Tensor, ...]:
        def belief(group: int) -> Callable[[], Tensor]:
            return lambda: answered(self.functional, self.centred[0], self._state, group)

        return LazyTuple([belief(group) for group in range(self.model.graph.num_groups)])

    @cached_property
    def node_marginals(self) -> Tensor:
        return answered(self.functional, self.centred[0], self._state, None)

    def argmax(self) -> Tensor:
        """The labelling decoded from max-product messages: a best one on forests, in general a good one."""
        model, functional = self.centred[0], replace(self.functional, maximise=True)
        return decoded(model, functional.ended(model, self._maximised)[0])

    @cached_property
    def _maximised(self) -> State:
        check_reverse_mode(self.method, self.model)
        return settled(replace(self.functional, maximise=True), self.centred[0])

    @property
    def diagnostics(self) -> dict[str, Any]:
        only_maximised = "_maximised" in vars(self) and "_state" not in vars(self)
        _, iterations, residual, converged, *_ = self._maximised if only_maximised else self._state  # of what was run
        return {
            "iterations": iterations,
            "residual": residual,
            "converged": converged,
            "damping": self.functional.run.damping_for(self.centred[0]),
            "schedule": self.functional.run.schedule,
        }
