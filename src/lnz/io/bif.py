"""Bayesian networks in the BIF format (Interchange Format 0.15).

The format is a sequence of blocks: ``network NAME { … }``; ``variable NAME { type discrete [ 2 ] { yes, no }; }``; and
``probability ( CHILD | PARENT, … ) { … }``, which holds a ``table``, or one row per joint state of the parents with a
``default`` row for the rest. It is read here rather than through pyAgrum, whose reader rounds to single precision,
leaves out rows without a word, and refuses states such as ``Asy/Patch`` of the CHILD network.
"""

from __future__ import annotations

import math
import re
from collections.abc import Container, Iterator, Mapping, Sequence

import numpy as np

from lnz.io.files import Source, Words, read_text
from lnz.io.model import NamedModel
from lnz.io.network import Network, Table, tolerance

# comments are passed over; one without an end is a word, as is what is quoted, or one punctuation mark; any other word
# runs to the next space or mark
_WORD = re.compile(r'//[^\n]*|/\*.*?\*/|(/\*.*|"[^"]*"|[{}()\[\];|,"]|[^\s{}()\[\];|,"]+)', re.DOTALL | re.ASCII)
_TIE = 1e-9
"""Orders of a flat table whose rows miss 1 equally, up to rounding."""


def read_bif(path: Source, encoding: str | None = None) -> NamedModel:
    """Read a Bayesian network in the BIF format, gzipped or not; O(size of the file) time and memory.

    Variables and their states keep the order of the file. Each conditional probability table becomes one factor over
    the parents and then the child, its values their natural logarithms. Rows are normalised; rows that were rounded
    warn (:class:`~lnz.errors.NormalizationWarning`).

    Args:
        path: the file.
        encoding: of its text; by default UTF-8.

    Raises:
        FormatError: the file cannot be read, is cut short or malformed, names an unknown variable or state, lacks a
            table or a row of one, has a row that is negative or does not sum to 1 within the rounding of two digits,
            has a directed cycle, or asks for more than :class:`~lnz.io.limits.Limits`.
    """
    words = Words(path, read_text(path, encoding), _WORD)
    network = Network(path, len(words.text))
    if not len(words) or words.words[0] != "network":
        words.fail("a BIF file, which starts with 'network'")
    while len(words):
        block = words.word("a block")
        if block == "network":
            _skip_braces(words)
        elif block == "variable":
            network.declare(*_read_variable(words, network.states))
        elif block == "probability":
            table = _read_table(words, network)
            network.tables[table.child] = table
        else:
            words.fail("a block 'variable' or 'probability'", at=words.at - 1)
    return network.model()


def _read_variable(words: Words, known: Container[str]) -> tuple[str, list[str]]:
    name = _text(words.word("the name of a variable"))
    if name in known:
        words.fail("a variable that is not declared yet", at=words.at - 1)
    labels: list[str] = []
    words.expect("{")
    while (word := words.word(f"'}}' at the end of variable {name}")) != "}":
        if word == "property":
            _skip_statement(words)
        elif word == "type":
            words.expect("discrete")
            words.expect("[")
            count = words.integer(f"the number of states of {name}", 1)
            words.expect("]")
            words.expect("{")
            labels = [_text(label) for label in _list(words, "}")]
            words.expect(";")
            if len(labels) != count or len(set(labels)) != count:
                words.fail(f"{count} different states of {name} before this", at=words.at - 1)
        else:
            words.fail("'type' or 'property'", at=words.at - 1)
    if not labels:
        words.fail(f"'type discrete' in variable {name}", at=words.at - 1)
    return name, labels


def _read_table(words: Words, network: Network) -> Table:
    start, states = words.at, network.states
    words.expect("(")
    family = [_text(word) for word in _list(words, ")")]
    for name in family:
        if name not in states:
            words.fail(f"variables that are declared above, not {name!r}", at=start + 1)
    if not family or len(set(family)) < len(family) or family[0] in network.tables:
        words.fail("one table per variable, over different variables", at=start + 1)
    child, parents = family[0], family[1:]
    width = len(states[child])
    values = network.empty(child, parents)
    default = np.full(width, math.nan)
    words.expect("{")
    while (word := words.word(f"'}}' at the end of the table of {child}")) != "}":
        if word == "property":
            _skip_statement(words)
        elif word == "table":
            values = _ordered(_numbers(words, values.size), values.shape)
        elif word == "default":
            default = _numbers(words, width)
        elif word == "(":
            row = _read_row(words, [states[name] for name in parents], parents)
            if not np.isnan(values[row]).all():
                words.fail("each row once", at=words.at - 1)
            values[row] = _numbers(words, width)
        else:
            words.fail("'table', 'default', 'property' or '(' and the states of a row", at=words.at - 1)
    values = np.where(np.isnan(values), default, values)
    return Table(child, parents, values)


def _read_row(words: Words, states: Sequence[Mapping[str, int]], parents: Sequence[str]) -> tuple[int, ...]:
    start = words.at
    given = [_text(word) for word in _list(words, ")")]
    if len(given) != len(parents):
        words.fail(f"{len(parents)} states, of {', '.join(parents) or 'no parents'}", at=start)
    for name, state, known in zip(parents, given, states, strict=True):
        if state not in known:
            words.fail(f"a state of {name} ({', '.join(list(known)[:8])}), not {state!r}", at=start)
    return tuple(known[state] for state, known in zip(given, states, strict=True))


def _ordered(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A flat ``table`` as ``[*parents, child]``.

    The format lets the variable named first, the child, change slowest. Files with the child fastest exist, too; they
    are told by their rows, which sum to 1 in that order: the order in which rows come closest is taken, and of two
    that are equal the format's.
    """
    child_slowest = np.moveaxis(values.reshape(shape[-1], *shape[:-1]), 0, -1)
    child_fastest = values.reshape(shape)
    missed = np.abs(child_slowest.sum(-1) - 1).max(), np.abs(child_fastest.sum(-1) - 1).max()
    return child_fastest if missed[1] < missed[0] - _TIE and missed[1] <= tolerance(shape[-1]) else child_slowest


def _numbers(words: Words, count: int) -> np.ndarray:
    """The numbers up to the next ``;``."""
    numbers = []
    for _ in _list(words, ";"):
        words.at -= 1
        numbers.append(words.number())
    if len(numbers) != count:
        words.fail(f"{count} numbers, not {len(numbers)}, before this", at=words.at - 1)
    return np.array(numbers)


def _list(words: Words, end: str) -> Iterator[str]:
    """The words up to ``end``, which is read too; ``,`` and ``|`` between them are passed over."""
    while (word := words.word(repr(end))) != end:
        if word in (",", "|"):
            continue
        if word in set('{}()[];"'):
            words.fail(repr(end), at=words.at - 1)
        yield word


def _skip_statement(words: Words) -> None:
    while words.word("';'") != ";":
        pass


def _skip_braces(words: Words) -> None:
    while words.word("'{'") != "{":
        pass
    while words.word("'}' at the end of the network block") != "}":
        pass


def _text(word: str) -> str:
    return word.strip('"')
