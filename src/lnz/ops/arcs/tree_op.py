"""What a distribution asks of an op over dependency trees."""

from __future__ import annotations

from typing import NamedTuple

from lnz.ops.arcs.records import Arcs, Drawn, Pass, Ranked, TopK, Trees, Uniform
from lnz.ops.scaffold import Differentiable, Operator


class TreeOp(NamedTuple):
    """The operators of one kind of trees.

    Attributes:
        trees: ln Z and arc marginals, differentiable.
        best: best trees.
        topk: the k best ones.
        sample: independent ones.
    """

    trees: Differentiable[Arcs, Pass]
    best: Operator[Arcs, Trees]
    topk: Operator[TopK, Ranked]
    sample: Operator[Uniform, Drawn]
