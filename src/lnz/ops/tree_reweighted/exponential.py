"""The backend "cpu": tree-reweighted messages without gradients, in the exponential domain where its range allows."""

from __future__ import annotations

from lnz.ops.belief.exponential import ExponentialPassing
from lnz.ops.tree_reweighted.reference import Reweighted


class ExponentialReweighted(Reweighted, ExponentialPassing):
    """:class:`.reference.Reweighted` by the sums of :class:`~lnz.ops.belief.exponential.ExponentialPassing`."""
