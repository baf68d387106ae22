"""Variable elimination over a junction tree: ln Z, marginals, best labellings and samples.

================  ============================================================
``program``       a junction tree as index arithmetic
``records``       what travels, and the backends
``reference``     the recursions in plain torch
``op``            ln Z and marginals: operators, derivatives
``evidence``      many rows of observations under the same tables (``evidence_gradient``: as a function of them)
``decode``        best labellings, samples
``expectation``   E_P[−ln Q(y)], the entropy
``cpu``           the kernels for float32 and float64 on the CPU
================  ============================================================
"""

from lnz.ops.elimination.decode import argmax, sample, topk
from lnz.ops.elimination.expectation import surprisal
from lnz.ops.elimination.op import (
    differentiable_log_partition,
    differentiable_marginals,
    log_partition,
    partition_and_marginals,
)
from lnz.ops.elimination.program import Program, program_of

__all__ = [
    "Program",
    "argmax",
    "differentiable_log_partition",
    "differentiable_marginals",
    "log_partition",
    "partition_and_marginals",
    "program_of",
    "sample",
    "surprisal",
    "topk",
]
