"""Semi-Markov chains: ln Z, marginals, best segmentations and samples.

Shapes as in :mod:`lnz.ops.semi_markov.reference`.
"""

from lnz.ops.semi_markov.decode import sample, topk
from lnz.ops.semi_markov.expectation import expectation, log_conditionals
from lnz.ops.semi_markov.op import edge_marginals, forward_backward, log_partition, segment_marginals
from lnz.ops.semi_markov.records import Pass, Segments

__all__ = [
    "Pass",
    "Segments",
    "edge_marginals",
    "expectation",
    "forward_backward",
    "log_conditionals",
    "log_partition",
    "sample",
    "segment_marginals",
    "topk",
]
