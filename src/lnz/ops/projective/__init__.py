"""Projective dependency trees: ln Z, arc marginals, best trees, samples."""

from lnz.ops.projective.decode import TREES

__all__ = ["TREES"]
