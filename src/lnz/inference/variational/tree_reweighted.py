"""Tree-reweighted belief propagation: an upper bound on ln Z, exact on forests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, get_args

import torch
from torch import Tensor

from lnz.caching import cached_property
from lnz.checks import check_integer, check_number, concrete
from lnz.inference.base import Method, Solution, check_reverse_mode
from lnz.ops.belief.schedule import Run
from lnz.ops.envelope import State, answered, evaluated, settled
from lnz.ops.tree_reweighted.grid import GridTreeReweighting
from lnz.ops.tree_reweighted.kernel import serves
from lnz.ops.tree_reweighted.op import Appearance, TreeReweighting
from lnz.ops.variational import advice, warn_unless_converged
from lnz.scores import Model
from lnz.typing import LazyTuple


@dataclass(frozen=True, eq=False)
class TreeReweighted(Method):
    """Tree-reweighted sum-product (Wainwright, Jaakkola & Willsky 2005): ln Z from above.

    The scores are split over random forests of factors, each of which is exact; ln Z is at most the mean of theirs.
    The value bounds that mean **at any messages**, converged or not, and comes down to it as they converge. Its
    gradient is exactly the pseudo-marginals at these messages, at a fixed point the derivative of the bound; before,
    what the value owes to messages that still change is held constant. Exact on forests, whatever the settings. Factors
    of any number of nodes are served as they are, and −inf scores too: that no labelling is possible is noticed only
    where messages show it. Time and memory are as of :class:`BeliefPropagation`.

    Args:
        max_iterations: iterations before giving up: each sends every message once.
        tolerance: a batch entry stops after the first iteration in which no normalised message changed by more than
            this, as a probability, and which another would change ln Z by no more per message. ``None`` is 1e-10 in
            float64 and 1e-5 in every other dtype; 0 is exactly ``max_iterations`` iterations, and no warning.
        damping: d in [0, 1): a message becomes ``new^(1−d) · old^d``, normalised. ``None`` is 0.5 where factors of
            several nodes hold −inf, and else 0.
        appearance: how often each factor is in a random forest. ``"uniform"``: in graphs of edges of up to 1024 nodes,
            uniform over the spanning trees; in larger ones and among larger factors, over at least 12 forests that are
            packed so as to use the factors evenly (on grids, combs). ``"optimised"``: from there by conditional
            gradient, for each batch entry. Or a tensor ``[*batch, F']`` with one number per factor of two nodes or
            more, in order of groups, which is checked to belong to some distribution over forests (once per graph; slow
            on large ones).
        steps: of ``"optimised"``; each runs the messages anew, from those before.

    Warns:
        ConvergenceWarning: once per solution, where batch entries reached ``max_iterations`` above ``tolerance``.
    """

    max_iterations: int = 200
    tolerance: float | None = None
    damping: float | None = None
    appearance: Appearance | Tensor = "uniform"
    steps: int = 10
    exact: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_integer("max_iterations", self.max_iterations, 1)
        check_integer("steps", self.steps, 1)
        if self.tolerance is not None:
            check_number("tolerance", self.tolerance, "None or a number in [0, 1)", lambda t: 0 <= t < 1)
        if self.damping is not None:
            check_number("damping", self.damping, "None or a number in [0, 1)", lambda damping: 0 <= damping < 1)
        if isinstance(self.appearance, Tensor):
            if not self.appearance.is_floating_point():
                raise TypeError(f"appearance: expected floating point probabilities, got {self.appearance.dtype}")
        elif self.appearance not in get_args(Appearance):
            raise ValueError(f"appearance: expected 'uniform', 'optimised' or a tensor, got {self.appearance!r}")

    def __eq__(self, other: object) -> bool:
        return self._settings == other._settings if isinstance(other, TreeReweighted) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._settings)

    @property
    def _settings(self) -> tuple[object, ...]:
        given = self.appearance
        appearance = (tuple(given.shape), *given.flatten().tolist()) if isinstance(given, Tensor) else given
        return self.max_iterations, self.tolerance, self.damping, appearance, self.steps

    def functional(self, dtype: torch.dtype) -> TreeReweighting:
        """These settings with the tolerance that ``dtype`` stands for."""
        default = 1e-10 if dtype == torch.float64 else 1e-5
        tolerance = default if self.tolerance is None else self.tolerance
        return TreeReweighting(
            Run(self.max_iterations, tolerance, self.damping, "flooding"), self.appearance, self.steps
        )

    def solve(self, model: Model) -> TreeReweightedSolution:
        """Nothing is computed yet."""
        functional = self.functional(model.dtype)
        if serves(model, functional.run) and not functional.optimises:
            functional = GridTreeReweighting(functional.run, functional.appearance, functional.steps)
        return TreeReweightedSolution(model, functional)


class TreeReweightedSolution(Solution):
    """Pseudo-marginals at the final messages, and the bound of which they are the gradient."""

    method = "TreeReweighted"

    def __init__(self, model: Model, functional: TreeReweighting) -> None:
        super().__init__(model)
        self.functional = functional

    @property
    def exact(self) -> bool:  # type: ignore[override]
        """On forests, whatever the settings: there two passes replace the iterations."""
        return self.model.graph.is_forest

    @cached_property
    def _state(self) -> State:
        check_reverse_mode(self.method, self.model)
        state = settled(self.functional, self.centred[0])
        if concrete(*state):
            run, (iterations, residual, converged) = self.functional.run, state[2:5]
            advised = advice(run.damping_for(self.centred[0])) + "; the value is an upper bound all the same"
            warn_unless_converged(converged, iterations, residual, run.tolerance, "TreeReweighted", advised)
        return state

    @property
    def log_partition(self) -> Tensor:
        """An upper bound on ln Z, ``[*batch]``."""
        return (self.centred_log_partition + self.centred[1]).to(self.model.dtype)

    @property
    def centred_log_partition(self) -> Tensor:
        return evaluated(self.functional, self.centred[0], self._state)

    @cached_property
    def marginals(self) -> tuple[Tensor, ...]:
        def belief(group: int) -> Callable[[], Tensor]:
            return lambda: answered(self.functional, self.centred[0], self._state, group)

        return LazyTuple([belief(group) for group in range(self.model.graph.num_groups)])

    @cached_property
    def node_marginals(self) -> Tensor:
        return answered(self.functional, self.centred[0], self._state, None)

    @property
    def appearance(self) -> Tensor:
        """The appearance probabilities that were used, ``[*batch', F]``, one per factor of all groups in order."""
        return self._state[1]

    @property
    def diagnostics(self) -> dict[str, Any]:
        _, rho, iterations, residual, converged, *_ = self._state
        return {
            "iterations": iterations,
            "residual": residual,
            "converged": converged,
            "damping": self.functional.run.damping_for(self.centred[0]),
            "appearance": rho,
        }
