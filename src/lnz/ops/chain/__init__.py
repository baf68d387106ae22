"""Linear chains: ln Z, marginals, best labellings and samples. Shapes as in :mod:`lnz.ops.chain.reference`."""

from lnz.ops.chain import tangents as _tangents  # noqa: F401  (found by the functions below, in forward mode)
from lnz.ops.chain.autograd import edge_marginals, forward_backward, log_partition, node_marginals
from lnz.ops.chain.decode import edge_max_marginals, max_marginals, sample, topk
from lnz.ops.chain.entropy import entropy
from lnz.ops.chain.expectation import expectation, surprisal
from lnz.ops.chain.kernel import is_full
from lnz.ops.chain.labelling import log_probability
from lnz.ops.chain.op import Pass
from lnz.ops.chain.training import likelihood

__all__ = [
    "Pass",
    "edge_marginals",
    "edge_max_marginals",
    "entropy",
    "expectation",
    "forward_backward",
    "is_full",
    "likelihood",
    "log_partition",
    "log_probability",
    "max_marginals",
    "node_marginals",
    "sample",
    "surprisal",
    "topk",
]
