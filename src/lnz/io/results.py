"""Answers in the result format of the UAI competitions: a line with the query, then a line with the solution."""

from __future__ import annotations

from collections.abc import Sequence


def partition_result(log10_partition: float) -> str:
    """PR: log10 Z of the model and its evidence."""
    return f"PR\n{log10_partition!r}\n"


def marginals_result(marginals: Sequence[Sequence[float]]) -> str:
    """MAR: the number of variables, then for each its cardinality and probabilities; evidence is one-hot."""
    words = (f"{len(row)} {' '.join(map(repr, row))}" for row in marginals)
    return f"MAR\n{' '.join((str(len(marginals)), *words))}\n"


def assignment_result(labelling: Sequence[int]) -> str:
    """MAP: the number of variables, then the label of each, evidence included."""
    return f"MAP\n{' '.join(map(str, (len(labelling), *labelling)))}\n"


def partial_assignment_result(variables: Sequence[int], labelling: Sequence[int]) -> str:
    """MMAP: the number of query variables, then each of them and its label."""
    pairs = (f"{variable} {label}" for variable, label in zip(variables, labelling, strict=True))
    return f"MMAP\n{' '.join((str(len(variables)), *pairs))}\n"
