"""Semi-Markov chains: ln Z, marginals, best segmentations and samples.

Shapes as in :mod:`lnz.ops.semi_markov.reference`.
"""

from lnz.ops.semi_markov.decode import sample, topk
from lnz.ops.semi_markov.expectation import expectation
from lnz.ops.semi_markov.op import forward_backward

__all__ = ["expectation", "forward_backward", "sample", "topk"]
