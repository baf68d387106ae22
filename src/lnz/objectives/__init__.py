"""Training objectives: what is minimised, whatever the distribution and the inference method."""

from lnz.objectives.contrastive_divergence import contrastive_divergence
from lnz.objectives.em import em
from lnz.objectives.em_state import EMState
from lnz.objectives.hinge import hinge
from lnz.objectives.label_adjustment import EpsilonSchedule, label_adjustment
from lnz.objectives.learner import EMResult
from lnz.objectives.nll import nll
from lnz.objectives.pseudolikelihood import pseudolikelihood
from lnz.objectives.soft_nll import soft_nll

__all__ = [
    "EMResult",
    "EMState",
    "EpsilonSchedule",
    "contrastive_divergence",
    "em",
    "hinge",
    "label_adjustment",
    "nll",
    "pseudolikelihood",
    "soft_nll",
]
