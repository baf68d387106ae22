"""The objectives that ``lnz fit tag`` can train its chain by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

from torch import Tensor

from lnz.distributions import LinearChain
from lnz.metrics import hamming
from lnz.objectives import hinge, label_adjustment, nll, pseudolikelihood

Name = Literal["nll", "pseudolikelihood", "hinge", "label-adjustment"]
NAMES: tuple[Name, ...] = get_args(Name)

Loss = Callable[[LinearChain, Tensor, float], Tensor]
"""``(p, tags int64 [B, T], epsilon)`` to the sum of the losses of a batch; −100 is unobserved."""

OBJECTIVES: dict[Name, Loss] = {
    "nll": lambda p, y, epsilon: nll(p, y, "sum"),
    "pseudolikelihood": lambda p, y, epsilon: pseudolikelihood(p, y, "sum"),
    "hinge": lambda p, y, epsilon: hinge(p, y, hamming, "sum"),
    "label-adjustment": lambda p, y, epsilon: label_adjustment(p, y, hamming, epsilon, reduction="sum"),
}
