"""Dependency trees: what their ops take and give, and what follows from any of them.

:mod:`lnz.ops.projective` and :mod:`lnz.ops.arborescence` sum over trees of arcs; the k best trees and samples are found
by asking them again with some arcs left out.
"""

from lnz.ops.arcs.records import Arcs, Pass, Ranked, TopK, Trees, Uniform
from lnz.ops.arcs.sample import sample_operator
from lnz.ops.arcs.topk import topk_operator
from lnz.ops.arcs.tree_op import TreeOp

__all__ = ["Arcs", "Pass", "Ranked", "TopK", "TreeOp", "Trees", "Uniform", "sample_operator", "topk_operator"]
