"""Inference methods over factor graphs: frozen dataclasses of settings, one algorithm per file."""

from lnz.inference.base import Method, Solution
from lnz.inference.belief_propagation import BeliefPropagation
from lnz.inference.enumeration import Enumeration
from lnz.inference.exact import Exact

__all__ = ["BeliefPropagation", "Enumeration", "Exact", "Method", "Solution"]
