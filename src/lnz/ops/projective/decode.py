"""Best projective trees, the k best ones, and samples; none of these operators has gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from lnz.ops.arcs.records import Arcs, Trees, empty_trees
from lnz.ops.arcs.sample import sample_operator
from lnz.ops.arcs.topk import topk_operator
from lnz.ops.arcs.tree_op import TreeOp
from lnz.ops.projective import reference
from lnz.ops.projective.op import KERNELS, PROJECTIVE
from lnz.ops.scaffold import Operator
from lnz.semirings import Max
from lnz.typing import IGNORE


def solve(arcs: Arcs) -> Trees:
    run = KERNELS.find("viterbi", arcs.scores) if arcs.scores.numel() else None
    return run(arcs) if run is not None else _by_reference(arcs.wide())


def _by_reference(arcs: Arcs) -> Trees:
    """The gradient of a maximum is the indicator of what attains it."""

    def best(scores: Tensor) -> tuple[Tensor, Tensor]:
        value = reference.log_partition(scores, arcs.lengths, arcs.single_root, Max())
        return value.sum(), value

    used, value = torch.func.grad(best, has_aux=True)(arcs.scores)
    inside = torch.arange(arcs.scores.shape[1], device=value.device) <= arcs.lengths[:, None]
    possible = inside & ~torch.isneginf(value)[:, None]
    return Trees(used.argmax(-1).masked_fill(~possible, IGNORE), value)


BEST = Operator("projective_best", solve, empty_trees, Arcs, Trees)


TOPK = topk_operator("projective_topk", solve)
SAMPLE = sample_operator("projective_sample", PROJECTIVE.solve)
TREES = TreeOp(PROJECTIVE, BEST, TOPK, SAMPLE)
