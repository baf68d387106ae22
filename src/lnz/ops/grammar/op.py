"""Grammars: ln Z and expected counts of rules. Shapes as in :mod:`lnz.ops.grammar.reference`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lnz.ops import precision
from lnz.ops.dispatch import Kernels
from lnz.ops.grammar import reference
from lnz.ops.grammar.records import SHARED, Grammar, Pass
from lnz.ops.scaffold import Differentiable, Operator

KERNELS = Kernels("grammar")
# in plain torch, so that it serves other devices than its name says
KERNELS.register("cpu", "lnz.ops.grammar.products", devices=("cpu", "cuda"), dtypes=(torch.float32, torch.float64))


def solve(given: Grammar) -> Pass:
    """The pass: by products of exponentials where they are in range, by the reference elsewhere."""
    dtype = given.preterminals.dtype
    run = KERNELS.find("forward_backward", *given[:3]) if given.preterminals.numel() else None
    if run is None:
        log_z, *counts = in_logs(given)
        return Pass(log_z, *(x.to(dtype) for x in counts))

    def kernel(some: Grammar) -> tuple[tuple[Tensor, ...], Tensor]:
        *results, in_range = run(some)
        return tuple(results), in_range

    double = None if dtype == torch.float64 else kernel
    return Pass(*precision.climb(given, kernel, double, in_logs).results)


def in_logs(given: Grammar) -> tuple[Tensor, ...]:
    """What a pass gives, by the reference."""
    wide = given.wide()
    log_z = reference.log_partition(wide).to(wide.preterminals.dtype)
    return log_z, *(x.contiguous() for x in reference.expected_counts(wide))


def gradient(
    weight: Tensor | None, given: Grammar, done: Pass, wanted: Sequence[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """Σ_b weight_b · counts of sentence b, in the shapes of the scores; empty where not wanted."""
    found = []
    for counts, scores, needed in zip(done[1:], given[:3], wanted, strict=True):
        each = counts if needed else counts.new_empty(0)
        if needed and weight is not None:
            each = weight.view(-1, *[1] * (counts.dim() - 1)) * counts
        found.append(each.sum(0, keepdim=True) if needed and len(scores) == 1 else each)
    return tuple(found)


def _counts(given: Grammar) -> tuple[Tensor, ...]:
    return tuple(x.to(given.preterminals.dtype) for x in reference.expected_counts(given.wide()))


def _fake(given: Grammar) -> Pass:
    B, x = len(given.preterminals), given.preterminals
    log_z = x.new_empty(B, dtype=precision.accumulator(x))
    return Pass(log_z, x.new_empty(x.shape), *(x.new_empty(B, *each.shape[1:]) for each in given[1:3]))


GRAMMAR = Differentiable(
    Operator("grammar", solve, _fake, Grammar, Pass, SHARED), scores=3, gradient=gradient, marginals=_counts
)


def forward_backward(given: Grammar) -> Pass:
    """The pass that the other functions here go on from. O(B (N³ S² + N² NT S²)) time, O(B N (N S + S²)) memory."""
    return GRAMMAR.solve(given)


def log_partition(given: Grammar, done: Pass) -> Tensor:
    """ln Z ``[B]`` in the dtype that it was computed in, differentiable any number of times."""
    return GRAMMAR.value(given, done)


def expected_counts(given: Grammar, done: Pass) -> tuple[Tensor, Tensor, Tensor]:
    """Of preterminals ``[B, N, PT]``, root ``[B, NT]`` and rules ``[B, NT, S, S]``; differentiable, again and again."""
    B = len(given.preterminals)
    each = given._replace(root=given.root.expand(B, -1), rules=given.rules.expand(B, -1, -1, -1))
    words, root, rules = GRAMMAR.gradient(None, each, done, (True, True, True))
    return words, root, rules
