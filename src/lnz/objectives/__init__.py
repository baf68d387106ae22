"""Training objectives: what is minimised, whatever the distribution and the inference method."""

from lnz.objectives.nll import nll

__all__ = ["nll"]
