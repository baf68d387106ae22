"""Families of structured distributions, one per file."""

from lnz.distributions.base import StructuredDistribution
from lnz.distributions.linear_chain import LinearChain
from lnz.distributions.mrf import MRF
from lnz.distributions.softmax import Softmax

__all__ = ["MRF", "LinearChain", "Softmax", "StructuredDistribution"]
