"""What solutions by belief propagation share: messages, and the entropies of Bethe that their beliefs have."""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property

from torch import Tensor

from lnz.inference.base import Solution
from lnz.ops.belief.entropy import cross_entropy
from lnz.ops.belief.reference import Passing, log_sum


class BetheSolution(Solution):
    """Beliefs at the final messages of sum-product."""

    method = "BeliefPropagation"

    @cached_property
    def _passing(self) -> Passing:
        return Passing(self.centred[0], log_sum)

    @property
    @abstractmethod
    def _messages(self) -> Tensor:
        """The final messages in the general layout; with the tape of their iterations, where a gradient may be asked
        for.
        """

    def cross_entropy(self, other: Solution) -> Tensor:
        """As of any solution, by beliefs alone: Bethe's entropy, where ``other`` is this one."""
        if not isinstance(other, BetheSolution):
            return super().cross_entropy(other)
        return cross_entropy((self._passing, self._messages), (other._passing, other._messages))
