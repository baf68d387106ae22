"""Models in the UAI format of the inference competitions.

The format is a stream of words: ``MARKOV`` or ``BAYES``, the number of variables, their cardinalities, the number of
factors, each factor's scope (its size, then its variables), then each factor's table (its size, then its values, the
last variable of the scope fastest).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch

from lnz.graphs import FactorGraph
from lnz.io.atomic import atomic_write
from lnz.io.files import Source, Words, as_number, read_text
from lnz.io.limits import limits
from lnz.io.model import NamedModel, numbered
from lnz.scores import Entry, checked_model

Kind = Literal["MARKOV", "BAYES"]
KINDS: dict[str, Kind] = {"MARKOV": "MARKOV", "BAYES": "BAYES"}


def read_uai(path: Source, encoding: str | None = None) -> NamedModel:
    """Read a model in the UAI format, gzipped or not; O(size of the file) time and memory.

    Variables and labels are named by their numbers. The values of a table become their natural logarithms.

    Args:
        path: the file.
        encoding: of its text; by default UTF-8.

    Raises:
        FormatError: the file cannot be read, is cut short, holds something else than the format says (a wrong table
            size, a negative value or NaN, a variable out of range or twice in one scope), goes on after its end, or
            asks for more than :class:`~lnz.io.limits.Limits`.
    """
    words = Words(path, read_text(path, encoding))
    head = words.word("MARKOV or BAYES")
    kind = KINDS.get(head.upper())
    if kind is None:
        words.fail("MARKOV or BAYES", at=0)
    cardinalities = _read_cardinalities(words)
    limits().check(path, "numbers", len(cardinalities) * max(cardinalities, default=0), len(words.text))
    scopes = _read_scopes(words, cardinalities)
    sizes = [math.prod(cardinalities[node] for node in scope) for scope in scopes]
    graph, members = FactorGraph.grouped(cardinalities, scopes)
    values, starts = _read_tables(words, sizes)
    scores = []
    for labels, factors in zip(graph.labels, members, strict=True):
        tables = values[starts[factors][:, None] + np.arange(math.prod(labels))]
        with np.errstate(divide="ignore"):
            scores.append(torch.from_numpy(np.log(tables)).reshape(len(factors), *labels))
    return NamedModel(kind, graph, tuple(scores), *numbered(cardinalities))


def _read_cardinalities(words: Words) -> list[int]:
    count = words.integer("the number of variables", 0)
    if count > len(words):  # before a loop as long as a junk number says
        words.fail(f"the cardinalities of {count} variables", at=len(words.words))
    return [words.integer(f"the cardinality of variable {node}, a positive integer", 1) for node in range(count)]


def _read_scopes(words: Words, cardinalities: list[int]) -> list[list[int]]:
    count, nodes = words.integer("the number of factors", 0), len(cardinalities)
    if count > len(words):
        words.fail(f"the scopes of {count} factors", at=len(words.words))
    scopes = []
    for factor in range(count):
        arity = words.integer(f"the scope size of factor {factor}, at most {nodes}", 0, nodes + 1)
        limits().check(words.path, "arity", arity)
        what = f"a variable of factor {factor} in [0, {nodes})"
        scope = [words.integer(what, 0, nodes) for _ in range(arity)]
        if len(set(scope)) < arity:
            again = next(i for i, node in enumerate(scope) if node in scope[:i])
            words.fail(f"distinct variables in the scope of factor {factor}", at=words.at - arity + again)
        scopes.append(scope)
    return scopes


def _read_tables(words: Words, sizes: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """All words that are left, as numbers, and where in them each factor's table starts.

    The scopes say how large each table is, so every position is known beforehand and the numbers are read in one go.
    """
    first = words.at
    large = next((factor for factor, size in enumerate(sizes) if size >= len(words)), None)
    if large is not None:
        words.fail(f"a table of {sizes[large]} values for factor {large}", at=len(words.words))
    ends = list(itertools.accumulate(size + 1 for size in sizes))
    values = _numbers(words)
    counts = np.array(
        [end - size - 1 for end, size in zip(ends, sizes, strict=True) if end - size - 1 < len(values)], int
    )
    wrong = np.flatnonzero(values[counts] != np.array(sizes[: len(counts)], float))
    if len(wrong):
        factor = int(wrong[0])
        words.fail(f"the table size of factor {factor}, {sizes[factor]} by its scope", at=first + int(counts[factor]))
    if ends and ends[-1] > len(values):
        factor = next(factor for factor, end in enumerate(ends) if end > len(values))
        words.fail(f"a table of {sizes[factor]} values for factor {factor}", at=len(words.words))
    words.at = first + (ends[-1] if ends else 0)
    words.end(f"the tables of {len(sizes)} factors")
    bad = ~((values >= 0) & (values < np.inf))
    if bad.any():
        words.fail("a finite, non-negative table value", at=first + int(bad.argmax()))
    return values, counts + 1


def _numbers(words: Words) -> np.ndarray:
    """The words not read yet as float64."""
    rest = words.words[words.at :]
    try:
        if "_" in words.text or not words.text.isascii():  # float() takes "1_0" and other scripts, the format does not
            raise ValueError
        return np.fromiter(map(float, rest), np.float64, len(rest))
    except ValueError:
        bad = next(i for i, word in enumerate(rest) if as_number(word) is None)
        words.fail("a number", at=words.at + bad)


def write_uai(path: Source, graph: FactorGraph, scores: Sequence[Entry], kind: Kind = "MARKOV") -> None:
    """Write a factor graph and its scores in the UAI format, group by group; the values are exp(scores).

    Args:
        path: the file, replaced in one step when it is complete.
        graph: the wiring.
        scores: one unbatched entry per group, as :class:`~lnz.MRF` takes them.
        kind: ``"BAYES"`` promises that each factor is a conditional probability table with its child last.

    Raises:
        ValueError: batched scores, or scores whose exponential is not finite in float64.
    """
    model = checked_model(graph, scores)
    if model.batch_shape:
        raise ValueError(f"scores: expected no batch dimensions, got {list(model.batch_shape)}")
    if kind not in KINDS.values():
        raise ValueError(f"kind: expected MARKOV or BAYES, got {kind!r}")
    lines = [kind, str(graph.num_nodes), " ".join(map(str, graph.cardinalities)), str(sum(graph.num_factors))]
    lines += [" ".join(map(str, (len(nodes), *nodes))) for scope in graph.scopes for nodes in scope.tolist()]
    for group, factors in enumerate(graph.num_factors):
        tables = model.expanded(group).detach().double().exp().reshape(factors, math.prod(graph.labels[group])).cpu()
        if torch.isposinf(tables).any():
            raise ValueError(f"scores[{group}]: expected scores below 709.78, whose exponential float64 can hold")
        lines += [line for table in tables.tolist() for line in ("", str(len(table)), " ".join(map(repr, table)))]
    with atomic_write(path) as file:
        file.write("\n".join(lines) + "\n")
