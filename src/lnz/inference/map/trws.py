"""Sequential tree-reweighted message passing: a good labelling, and a bound that says how good."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lnz.checks import check_integer, check_number
from lnz.inference.base import Method
from lnz.inference.map.cluster_tempering import possible
from lnz.inference.map.mode import Found, ModeSolution
from lnz.ops.icm.op import icm
from lnz.ops.trws.op import solve
from lnz.scores import Model


@dataclass(frozen=True)
class TRWS(Method):
    """A best labelling by TRW-S (Kolmogorov 2006), on any factor graph; exact on forests.

    It minimises an upper bound on the score of every labelling: the value of the linear relaxation over the local
    polytope, or somewhat more where it gets stuck. The labelling is read off greedily along the way, the best one
    polished by iterated conditional modes, and made possible by a short tempering where it is not. ``diagnostics``
    tells ``score``, ``bound`` and ``optimal``: where the two meet, the labelling is proved best. If all scores are
    whole numbers, so is the bound.

    Factors of more than two nodes take part as they are (SRMP: Kolmogorov 2015). O(iterations · Σ_f k_f Π L) time;
    messages take O(Σ_f Σ_n∈f L_n) memory in float64; shared tables and :class:`~lnz.Weighted` are never expanded.
    Batch entries run side by side.

    Args:
        max_iterations: the most passes through the nodes and back.
        tolerance: stop once ten iterations have closed less than this fraction of the gap between bound and score.
        time_limit: seconds after which no iteration is begun; ``None`` is no limit.
    """

    max_iterations: int = 1000
    tolerance: float = 1e-3
    time_limit: float | None = None
    exact: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_integer("max_iterations", self.max_iterations, 1)
        check_number("tolerance", self.tolerance, "a number in [0, 1)", lambda tolerance: 0 <= tolerance < 1)
        if self.time_limit is not None:
            check_number("time_limit", self.time_limit, "None or a positive number of seconds", lambda t: t > 0)

    def solve(self, model: Model) -> TRWSSolution:
        return TRWSSolution(model, self)


class TRWSSolution(ModeSolution):
    """The best labelling found and the bound; ``diagnostics`` also tells the ``iterations``."""

    method = "TRWS"

    def __init__(self, model: Model, settings: TRWS) -> None:
        super().__init__(model)
        self.settings = settings

    def _find(self) -> Found:
        settings = self.settings
        outcome = solve(self.model, settings.max_iterations, settings.tolerance, settings.time_limit)
        polished = possible(self.model, icm(self.model, outcome.labels[None])[0])
        return Found(polished, outcome.bound, {"iterations": outcome.iterations})
