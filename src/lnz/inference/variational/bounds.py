"""The certified interval of ln Z: mean field below, tree-reweighted belief propagation above."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor

from lnz.inference.base import check_reverse_mode
from lnz.inference.variational.belief_propagation import BeliefPropagation
from lnz.inference.variational.mean_field import MeanField
from lnz.inference.variational.tree_reweighted import TreeReweighted
from lnz.ops.envelope import evaluated, settled
from lnz.scores import Model


class Bounds(NamedTuple):
    """``lower ≤ ln Z ≤ upper``, each ``[*batch]``, differentiable in the scores."""

    lower: Tensor
    upper: Tensor


class HasModel(Protocol):
    """A distribution over the labellings of a factor graph, such as :class:`lnz.MRF`."""

    @property
    def model(self) -> Model:
        """The graph, its scores and what was observed."""
        ...


LOWER = MeanField(restarts=4)
UPPER = TreeReweighted()


def bounds(p: HasModel, lower: MeanField = LOWER, upper: TreeReweighted = UPPER) -> Bounds:
    """An interval that contains ln Z, for graphs too large to sum over; on forests both ends are ln Z itself.

    Both ends hold whether or not the iterations converge, so that there is no warning if they do not; up to rounding,
    which is that of the dtype of the scores. A forest needs neither method: mean field with the forest as its one
    cluster and the reweighted bound over that one spanning forest are the same sum, in two passes of messages.

    Args:
        p: an :class:`lnz.MRF` (of a chain, ``p.to_mrf()``), whose own inference method is not used.
        lower: how the lower end is found on graphs with cycles: by default the best of four mean-field solutions.
        upper: how the upper end is found there; ``TreeReweighted(appearance="optimised")`` is tighter and slower.

    Raises:
        TypeError: ``p`` has no model over a factor graph.

    Examples:
        >>> lower, upper = lnz.bounds(lnz.MRF(graph, scores))
    """
    model = getattr(p, "model", None)
    if not isinstance(model, Model):
        raise TypeError(f"p: expected an lnz.MRF, or p.to_mrf(), got {type(p).__name__}")
    if model.graph.is_forest:
        log_partition = BeliefPropagation().solve(model.working()).log_partition.to(model.dtype)
        return Bounds(log_partition, log_partition)
    check_reverse_mode("bounds", model)
    centred, shift = model.centred()
    ends = []
    for method in (lower, upper):
        functional = method.functional(model.dtype)
        ends.append((evaluated(functional, centred, settled(functional, centred)) + shift).to(model.dtype))
    return Bounds(*ends)
