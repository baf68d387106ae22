"""Probabilistic context-free grammars: ln Z, expected counts of rules, best derivations and samples.

Shapes as in :mod:`lnz.ops.grammar.reference`.
"""

from lnz.ops.grammar.decode import sample, topk
from lnz.ops.grammar.expectation import cross_entropy
from lnz.ops.grammar.op import expected_counts, forward_backward, log_partition
from lnz.ops.grammar.records import Grammar, Pass

__all__ = [
    "Grammar",
    "Pass",
    "cross_entropy",
    "expected_counts",
    "forward_backward",
    "log_partition",
    "sample",
    "topk",
]
