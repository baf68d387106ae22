"""Binary trees over the words of a sentence (CKY): ln Z, marginals, best trees and samples.

Shapes as in :mod:`lnz.ops.spans.reference`.
"""

from lnz.ops.spans.brackets import crossed, is_tree
from lnz.ops.spans.decode import sample, topk
from lnz.ops.spans.expectation import cross_entropy
from lnz.ops.spans.op import forward_backward, log_partition, marginals
from lnz.ops.spans.records import Pass, Spans

__all__ = [
    "Pass",
    "Spans",
    "cross_entropy",
    "crossed",
    "forward_backward",
    "is_tree",
    "log_partition",
    "marginals",
    "sample",
    "topk",
]
