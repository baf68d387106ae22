"""Dependency trees of any shape: ln Z, arc marginals, best trees, samples."""

from lnz.ops.arborescence.decode import TREES

__all__ = ["TREES"]
