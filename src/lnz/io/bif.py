"""Bayesian networks in the BIF format (Interchange Format 0.15).

The format is a sequence of blocks: ``network NAME { … }``; ``variable NAME { type discrete [ 2 ] { yes, no }; }``; and
``probability ( CHILD | PARENT, … ) { … }``, which holds a ``table``, or one row per joint state of the parents with a
``default`` row for the rest. It is read here rather than through pyAgrum, whose reader rounds to single precision,
leaves out rows without a word, and refuses states such as ``Asy/Patch`` of the CHILD network.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

import numpy as np
import torch

from lnz.errors import FormatError
from lnz.graphs import FactorGraph
from lnz.io.files import Source, Words, read_bytes
from lnz.io.model import NamedModel

ROW_SUM_TOLERANCE = 1e-2
"""Published networks round their probabilities, so that rows of many states miss 1 by a little."""

# comments are passed over; a word is quoted, or one punctuation mark, or runs to the next space or mark
_WORD = re.compile(rb'//[^\n]*|/\*.*?\*/|("[^"]*"|[{}()\[\];|,"]|[^\s{}()\[\];|,"]+)', re.DOTALL)


@dataclass(frozen=True, eq=False)
class _Table:
    """A conditional probability table: the child's name, its parents' names, and the values ``[*parents, child]``."""

    child: str
    parents: list[str]
    values: np.ndarray


def read_bif(path: Source) -> NamedModel:
    """Read a Bayesian network in the BIF format, gzipped or not; O(size of the file) time and memory.

    Variables and their states keep the order of the file. Each conditional probability table becomes one factor over
    the parents and then the child, its values their natural logarithms.

    Raises:
        FormatError: the file cannot be read, is cut short or malformed, names an unknown variable or state, lacks a
            table or a row of one, has a row that is negative or does not sum to 1 within 0.01, or a directed cycle.
    """
    words = Words(path, read_bytes(path), _WORD)
    states: dict[str, list[str]] = {}
    tables: dict[str, _Table] = {}
    if not len(words) or words.words[0] != b"network":
        words.fail("a BIF file, which starts with 'network'")
    while len(words):
        block = words.word("a block")
        if block == b"network":
            _skip_braces(words)
        elif block == b"variable":
            name, labels = _read_variable(words, states)
            states[name] = labels
        elif block == b"probability":
            table = _read_table(words, states, tables)
            tables[table.child] = table
        else:
            words.fail("a block 'variable' or 'probability'", at=words.at - 1)
    return _model(path, states, tables)


def _model(path: Source, states: dict[str, list[str]], tables: dict[str, _Table]) -> NamedModel:
    if not states:
        raise FormatError(f"{path}: expected at least one variable, got none")
    for name in states:
        if name not in tables:
            raise FormatError(f"{path}: expected a 'probability' block for each variable, got none for {name!r}")
    try:
        TopologicalSorter({name: table.parents for name, table in tables.items()}).prepare()
    except CycleError as error:
        raise FormatError(f"{path}: expected no directed cycle, got {' ← '.join(error.args[1])}") from error
    nodes = {name: node for node, name in enumerate(states)}
    ordered = [tables[name] for name in states]
    scopes = [[nodes[name] for name in (*table.parents, table.child)] for table in ordered]
    graph, members = FactorGraph.grouped([len(labels) for labels in states.values()], scopes)
    with np.errstate(divide="ignore"):
        scores = [torch.from_numpy(np.log(np.stack([ordered[f].values for f in group]))) for group in members]
    return NamedModel("BAYES", graph, tuple(scores), tuple(states), tuple(map(tuple, states.values())))


def _read_variable(words: Words, states: dict[str, list[str]]) -> tuple[str, list[str]]:
    name = _text(words.word("the name of a variable"))
    if name in states:
        words.fail("a variable that is not declared yet", at=words.at - 1)
    labels: list[str] = []
    words.expect(b"{")
    while (word := words.word(f"'}}' at the end of variable {name}")) != b"}":
        if word == b"property":
            _skip_statement(words)
        elif word == b"type":
            words.expect(b"discrete")
            words.expect(b"[")
            count = words.integer(f"the number of states of {name}", 1)
            words.expect(b"]")
            words.expect(b"{")
            labels = [_text(label) for label in _list(words, b"}")]
            words.expect(b";")
            if len(labels) != count or len(set(labels)) != count:
                words.fail(f"{count} different states of {name} before this", at=words.at - 1)
        else:
            words.fail("'type' or 'property'", at=words.at - 1)
    if not labels:
        words.fail(f"'type discrete' in variable {name}", at=words.at - 1)
    return name, labels


def _read_table(words: Words, states: dict[str, list[str]], tables: dict[str, _Table]) -> _Table:
    start = words.at
    words.expect(b"(")
    family = [_text(word) for word in _list(words, b")")]
    for name in family:
        if name not in states:
            words.fail(f"variables that are declared above, not {name!r}", at=start + 1)
    if not family or len(set(family)) < len(family) or family[0] in tables:
        words.fail("one table per variable, over different variables", at=start + 1)
    child, parents = family[0], family[1:]
    width = len(states[child])
    values = np.full([len(states[name]) for name in (*parents, child)], math.nan)
    default = np.full(width, math.nan)
    words.expect(b"{")
    while (word := words.word(f"'}}' at the end of the table of {child}")) != b"}":
        if word == b"property":
            _skip_statement(words)
        elif word == b"table":
            values = _ordered(_numbers(words, values.size), values.shape)
        elif word == b"default":
            default = _numbers(words, width)
        elif word == b"(":
            row = _read_row(words, [states[name] for name in parents], parents)
            if not np.isnan(values[row]).all():
                words.fail("each row once", at=words.at - 1)
            values[row] = _numbers(words, width)
        else:
            words.fail("'table', 'default', 'property' or '(' and the states of a row", at=words.at - 1)
    values = np.where(np.isnan(values), default, values)
    _check_rows(words.path, child, [(name, states[name]) for name in parents], values)
    return _Table(child, parents, values)


def _read_row(words: Words, states: list[list[str]], parents: list[str]) -> tuple[int, ...]:
    start = words.at
    given = [_text(word) for word in _list(words, b")")]
    if len(given) != len(parents):
        words.fail(f"{len(parents)} states, of {', '.join(parents) or 'no parents'}", at=start)
    for name, state, known in zip(parents, given, states, strict=True):
        if state not in known:
            words.fail(f"a state of {name} ({', '.join(known)}), not {state!r}", at=start)
    return tuple(known.index(state) for state, known in zip(given, states, strict=True))


def _ordered(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A flat ``table`` as ``[*parents, child]``.

    The format lets the variable named first, the child, change slowest. Files with the child fastest exist, too; they
    are told by their rows, which sum to 1 in that order only.
    """
    child_slowest = np.moveaxis(values.reshape(shape[-1], *shape[:-1]), 0, -1)
    child_fastest = values.reshape(shape)
    rows_of = (table for table in (child_slowest, child_fastest) if _sums_to_one(table).all())
    return next(rows_of, child_slowest)


def _sums_to_one(table: np.ndarray) -> np.ndarray:
    return np.abs(table.sum(-1) - 1) <= ROW_SUM_TOLERANCE  # False where NaN


def _check_rows(path: Source, child: str, parents: list[tuple[str, list[str]]], values: np.ndarray) -> None:
    good = _sums_to_one(values) & (values >= 0).all(-1)
    if not good.all():
        row = tuple(np.argwhere(~good)[0].tolist())
        given = ", ".join(f"{name}={known[label]}" for (name, known), label in zip(parents, row, strict=True))
        got = "no values" if np.isnan(values[row]).any() else str(values[row].tolist())
        where = f"P({child} | {given})" if given else f"P({child})"
        raise FormatError(f"{path}: expected {where} to be non-negative and to sum to 1, got {got}")


def _numbers(words: Words, count: int) -> np.ndarray:
    """The numbers up to the next ``;``."""
    numbers = []
    for word in _list(words, b";"):
        try:
            numbers.append(float(word))
        except ValueError:
            words.fail("a number", at=words.at - 1)
        if not math.isfinite(numbers[-1]):
            words.fail("a finite number", at=words.at - 1)
    if len(numbers) != count:
        words.fail(f"{count} numbers, not {len(numbers)}, before this", at=words.at - 1)
    return np.array(numbers)


def _list(words: Words, end: bytes) -> Iterator[bytes]:
    """The words up to ``end``, which is read too; ``,`` and ``|`` between them are passed over."""
    while (word := words.word(repr(end.decode()))) != end:
        if word in (b",", b"|"):
            continue
        if len(word) == 1 and word in b'{}()[];"':
            words.fail(repr(end.decode()), at=words.at - 1)
        yield word


def _skip_statement(words: Words) -> None:
    while words.word("';'") != b";":
        pass


def _skip_braces(words: Words) -> None:
    while words.word("'{'") != b"{":
        pass
    while words.word("'}' at the end of the network block") != b"}":
        pass


def _text(word: bytes) -> str:
    return word.decode("utf-8", "replace").strip('"')
