"""Linear chains: ln Z, marginals, best labellings and samples. Shapes as in :mod:`lnz.ops.chain.reference`.

================  ==========================================================================
``records``       what travels: the chains, a labelling, what a pass leaves
``reference``     the recursions in plain torch
``op``            ln Z and marginals: backends, operator, derivatives
``log_prob``      ln P(y) and the pass at once
``fused_nll``     ln P(y) and its gradients in one pass, for training; nll begins here
``decode``        best labellings, samples, max-marginals
``expectation``   expectations of sums over parts, the entropy
``numerator``     sums over pairs of labels
``cpu``           the kernels for float32 and float64 on the CPU
================  ==========================================================================
"""

from lnz.ops.chain.decode import edge_max_marginals, max_marginals, sample, topk
from lnz.ops.chain.expectation import expectation, log_conditionals, surprisal
from lnz.ops.chain.fused_nll import scaled_log_prob
from lnz.ops.chain.labels import is_full
from lnz.ops.chain.log_prob import log_probability
from lnz.ops.chain.op import edge_marginals, edge_sums, forward_backward, log_partition, node_marginals
from lnz.ops.chain.records import Chains, Pass, with_ends
from lnz.ops.chain.reference import entropy

__all__ = [
    "Chains",
    "Pass",
    "edge_marginals",
    "edge_max_marginals",
    "edge_sums",
    "entropy",
    "expectation",
    "forward_backward",
    "is_full",
    "log_conditionals",
    "log_partition",
    "log_probability",
    "max_marginals",
    "node_marginals",
    "sample",
    "scaled_log_prob",
    "surprisal",
    "topk",
    "with_ends",
]
