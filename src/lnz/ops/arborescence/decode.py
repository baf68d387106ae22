"""Best trees of any shape, the k best ones, and samples; none of these operators has gradients."""

from __future__ import annotations

from lnz.ops.arborescence import reference
from lnz.ops.arborescence.op import ARBORESCENCE, KERNELS
from lnz.ops.arcs.records import Arcs, Trees, empty_trees
from lnz.ops.arcs.sample import sample_operator
from lnz.ops.arcs.topk import topk_operator
from lnz.ops.arcs.tree_op import TreeOp
from lnz.ops.scaffold import Operator


def solve(arcs: Arcs) -> Trees:
    run = KERNELS.find("best_tree", arcs.scores) if arcs.scores.numel() else None
    return run(arcs) if run is not None else reference.best_tree(*arcs.wide())


BEST = Operator("arborescence_best", solve, empty_trees, Arcs, Trees)


TOPK = topk_operator("arborescence_topk", solve)
SAMPLE = sample_operator("arborescence_sample", ARBORESCENCE.solve)
TREES = TreeOp(ARBORESCENCE, BEST, TOPK, SAMPLE)
