"""Variable elimination over a junction tree: ln Z, marginals, best labellings and samples."""

from lnz.ops.elimination.op import (
    argmax,
    differentiable_log_partition,
    differentiable_marginals,
    log_partition,
    partition_and_marginals,
    sample,
    surprisal,
    topk,
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
