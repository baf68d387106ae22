"""Naive mean field: a lower bound on ln Z from the best product distribution."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, get_args

import torch
from torch import Tensor

from lnz.caching import cached_property
from lnz.checks import check_feasible, check_integer, check_number, concrete
from lnz.errors import ConvergenceWarning, FailedEstimateError, warn
from lnz.inference.base import Method, Solution, check_reverse_mode
from lnz.inference.exact.constraints import contradicted
from lnz.ops.envelope import State, evaluated, settled
from lnz.ops.mean_field.op import MeanFieldFunctional, Schedule, hardened
from lnz.ops.mean_field.reference import product
from lnz.ops.variational import advice, warn_unless_converged
from lnz.scores import Model
from lnz.typing import LazyTuple


@dataclass(frozen=True)
class MeanField(Method):
    """The product distribution q that comes closest to P in KL(q ‖ P), found by coordinate ascent or in parallel.

    ln Z is the evidence lower bound at the final q: **at most the true one, converged or not**. Its gradient is the
    probabilities of joint labels under q, products of node marginals: the derivative of the bound with q held, which at
    a fixed point is the derivative of the converged bound (the envelope theorem), and before is that of the bound that
    this q gives. ``marginals`` are the same products. ``argmax`` is the mode of q, improved by iterated conditional
    modes.

    Impossible joint labels (−inf scores of factors of several nodes) are avoided by q: an update takes, among the
    labels that violate least, the softmax of the fields. Should q end with positive probability on an impossible
    labelling, it starts again, coordinate by coordinate, from a labelling decoded by max-product; only where that too
    is impossible, the bound is −inf; log-probabilities, of which nothing is known then, are NaN.

    An iteration takes O(Σ_f k_f Π L) time; memory is that of q and of the scores as given: shared tables and
    :class:`~lnz.Weighted` are never expanded.

    Args:
        max_iterations: iterations before giving up; each updates every node once.
        tolerance: a batch entry stops after the first iteration in which no probability changed by more than this.
            ``None`` is 1e-10 in float64 and 1e-5 in every other dtype; 0 is exactly ``max_iterations`` iterations, and
            no warning.
        damping: d in [0, 1): q_i becomes ``new^(1−d) · old^d``, normalised.
        schedule: ``"coordinate"``: one colour class of nodes after the other, no two of which share a factor, so that
            the bound never falls; ``"parallel"``: all nodes at once, which may oscillate without damping.
        restarts: how many starts, the best of which is kept per batch entry: the first by each node's own scores, the
            others perturbed at random.
        seed: of those perturbations.

    Warns:
        ConvergenceWarning: once per solution, where batch entries reached ``max_iterations`` above ``tolerance``.
    """

    max_iterations: int = 200
    tolerance: float | None = None
    damping: float = 0.0
    schedule: Schedule = "coordinate"
    restarts: int = 1
    seed: int = 0
    exact: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_integer("max_iterations", self.max_iterations, 1)
        check_integer("restarts", self.restarts, 1)
        check_integer("seed", self.seed, None)
        if self.tolerance is not None:
            check_number("tolerance", self.tolerance, "None or a number in [0, 1)", lambda t: 0 <= t < 1)
        check_number("damping", self.damping, "a number in [0, 1)", lambda damping: 0 <= damping < 1)
        if self.schedule not in get_args(Schedule):
            raise ValueError(f"schedule: expected one of {', '.join(get_args(Schedule))}, got {self.schedule!r}")

    def functional(self, dtype: torch.dtype) -> MeanFieldFunctional:
        """These settings with the tolerance that ``dtype`` stands for."""
        default = 1e-10 if dtype == torch.float64 else 1e-5
        tolerance = default if self.tolerance is None else self.tolerance
        return MeanFieldFunctional(
            self.max_iterations, tolerance, self.damping, self.schedule, self.restarts, self.seed
        )

    def solve(self, model: Model) -> MeanFieldSolution:
        """Nothing is computed yet."""
        return MeanFieldSolution(model, self.functional(model.dtype))


class MeanFieldSolution(Solution):
    """The product distribution q, and the bound of which its joint probabilities are the gradient."""

    method = "MeanField"
    exact = False

    def __init__(self, model: Model, functional: MeanFieldFunctional) -> None:
        super().__init__(model)
        self.functional = functional

    @cached_property
    def _state(self) -> State:
        check_reverse_mode(self.method, self.model)
        state = settled(self.functional, self.centred[0])
        if concrete(*state):
            functional, (iterations, residual) = self.functional, state[1:3]
            others = () if functional.schedule == "coordinate" else ("schedule='coordinate'",)
            advised = advice(functional.damping, *others) + "; the value is a lower bound all the same"
            settles = residual <= functional.tolerance
            warn_unless_converged(settles, iterations, residual, functional.tolerance, "MeanField", advised)
            failed = self._failed(self._bound_of(state))
            if functional.tolerance and failed.any():
                warn(
                    f"MeanField: only impossible labellings were found in {int(failed.sum())} of {failed.numel()} "
                    "models, which does not show that there are no others; try more restarts, or BeliefPropagation()",
                    ConvergenceWarning,
                )
        return state

    @property
    def log_partition(self) -> Tensor:
        """A lower bound on ln Z, ``[*batch]``; −inf where q allows an impossible labelling, which proves nothing."""
        return (self._bound + self.centred[1]).to(self.model.dtype)

    @property
    def centred_log_partition(self) -> Tensor:
        """The bound of the centred model; NaN where it is −inf, from which nothing follows, unless that is proved."""
        bound = self._bound
        return bound.masked_fill(self._failed(bound), torch.nan)

    @property
    def _bound(self) -> Tensor:
        return evaluated(self.functional, self.centred[0], self._state)

    def _failed(self, bound: Tensor) -> Tensor:
        """Where q allows impossible labellings, though others may be possible, ``bool [*batch]``."""
        failed = torch.isneginf(bound.detach())
        return failed if concrete(failed) and not failed.any() else failed & ~contradicted(self.model)

    def require_feasible(self, what: str) -> None:
        """Raise where q allows impossible labellings.

        Raises:
            InfeasibleError: there are no others, as shows at a node or factor.
            FailedEstimateError: a bound of −inf proves nothing else.
        """
        bound = self._bound_of(self._state)
        failed = self._failed(bound)
        if concrete(failed) and failed.any():
            where = f" in batch entries {failed.reshape(-1).nonzero().flatten().tolist()}" if failed.dim() else ""
            raise FailedEstimateError(
                f"{what}: MeanField found only impossible labellings{where}, which does not show that there are no "
                "others; more restarts may help, or another method, such as BeliefPropagation()"
            )
        check_feasible(bound, what)

    def _bound_of(self, state: State) -> Tensor:
        """The bound of the centred model, without gradient."""
        with torch.no_grad():
            return self.functional.value(self.centred[0], state)

    def _converged(self, state: State) -> Tensor:
        """Whether q changes no more, and has found a possible labelling if there may be one, ``bool [*batch]``."""
        return (state[2] <= self.functional.tolerance) & ~self._failed(self._bound_of(state))

    @cached_property
    def _q(self) -> Tensor:
        """q; where a gradient may be asked for, with the tape of its iterations."""
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in self.centred[0].tensors):
            return self.functional.replayed(self.centred[0], self._state)[0]
        return self._state[0]

    @cached_property
    def node_marginals(self) -> Tensor:
        return self._q.to(self.model.dtype)

    @cached_property
    def marginals(self) -> tuple[Tensor, ...]:
        def joint(group: int) -> Callable[[], Tensor]:
            scope, labels = self.model.graph.scopes[group].to(self.model.device), self.model.graph.labels[group]

            def compute() -> Tensor:
                q = self.node_marginals
                shape = (*self.model.batch_shape, len(scope), *labels)
                singles = [q[..., nodes, :card] for nodes, card in zip(scope.unbind(-1), labels, strict=True)]
                return product(q.new_ones(shape), singles)

            return compute

        return LazyTuple([joint(group) for group in range(self.model.graph.num_groups)])

    def argmax(self) -> Tensor:
        """The mode of q, improved by iterated conditional modes: good, but not sure to be the best."""
        return hardened(self.centred[0], self._state[0])

    @property
    def diagnostics(self) -> dict[str, Any]:
        _, iterations, residual, redone = self._state
        return {
            "iterations": iterations,
            "residual": residual,
            "converged": self._converged(self._state),
            "schedule": self.functional.schedule,
            "restarted": redone,
        }
