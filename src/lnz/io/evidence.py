"""Evidence: which labels have been observed, from a file in the UAI format or from ``NAME=STATE`` pairs."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lnz.errors import FormatError
from lnz.io.files import Source, Words, as_number, normalized, read_text
from lnz.io.model import NamedModel
from lnz.typing import IGNORE

GUESSABLE = 10_000
"""Among more names than these, no similar one is looked for."""
_ITEM = re.compile(r'((?:"(?:[^"]|"")*"|[^",])*)(,|\Z)')
_SIDE = re.compile(r'((?:"(?:[^"]|"")*"|[^"=])*)(=?)(.*)', re.DOTALL)


class Evidence(NamedTuple):
    """What has been observed.

    Attributes:
        labels: ``int64 [N]``, −100 where no label is observed.
        likelihoods: of soft evidence, by node: a weight for each of its labels, which multiplies the model.
    """

    labels: Tensor
    likelihoods: dict[int, tuple[float, ...]]


def read_evidence(path: Source, model: NamedModel, encoding: str | None = None) -> Tensor:
    """Read an evidence file in the UAI format, gzipped or not: ``int64 [N]``, −100 where nothing is observed.

    The file is empty, or holds the number of observed variables and then that many pairs of a variable and its label,
    both as numbers. The form of 2008, with the number of samples in front, is read where it holds one sample; the
    two forms cannot be confused, the number of words is odd in one and even in the other.

    Raises:
        FormatError: the file cannot be read or is malformed, a variable or label is not one of the model's, or a
            variable is observed with two labels.
    """
    words = Words(path, read_text(path, encoding))
    observed = torch.full((model.graph.num_nodes,), IGNORE)
    if not len(words):
        return observed
    if len(words) % 2 == 0:
        samples = words.integer("the number of observed variables, or of samples", 0)
        if samples != 1:
            words.fail("one sample of evidence, or pairs of a variable and a label after their number", at=0)
    count = words.integer("the number of observed variables", 0)
    for pair in range(min(count, len(words) // 2 + 1)):
        node = words.integer(f"a variable in [0, {model.graph.num_nodes}) in pair {pair}", 0, model.graph.num_nodes)
        card = model.graph.cardinalities[node]
        label = words.integer(f"a label of variable {node} in [0, {card}) in pair {pair}", 0, card)
        if observed[node] not in (IGNORE, label):
            words.fail(f"label {int(observed[node])} for variable {node} as before", at=words.at - 1)
        observed[node] = label
    words.end(f"{count} pairs")
    return observed


def parse_evidence(text: str, model: NamedModel) -> Evidence:
    """Evidence written as ``NAME=STATE,NAME=STATE``, or ``NAME=0.7:0.3`` where it is soft.

    Names and states are those of the file; where there is none of that name, a number counts from 0. What holds a comma
    or ``=`` stands in double quotes, in which ``""`` is one. Soft evidence (virtual evidence, a likelihood) gives a
    weight for each state, in the order of the file: it multiplies the model, and only ratios of weights matter to the
    marginals.

    Raises:
        FormatError: a pair without ``=``, an unknown name or state, a variable observed with two states, or weights
            that are not one per state, finite, non-negative and not all 0.
    """
    labels = torch.full((model.graph.num_nodes,), IGNORE)
    likelihoods: dict[int, tuple[float, ...]] = {}
    for pair in split_items("evidence", text):
        left, equals, right = _SIDE.fullmatch(pair).groups()  # type: ignore[union-attr]  # it matches any text
        name, state = unquoted(left), unquoted(right)
        if not equals or not name or not state:
            raise FormatError(f"evidence: expected NAME=STATE, got {pair!r}")
        node = find("evidence", "a variable of the model", name, model.names)
        if ":" in right and '"' not in right and state not in model.states[node]:
            if node in likelihoods:
                raise FormatError(f"evidence: expected soft evidence of {name} once, got {pair!r} too")
            likelihoods[node] = _weights(name, state, model.states[node])
            continue
        label = find("evidence", f"a state of {model.names[node]}", state, model.states[node])
        if labels[node] not in (IGNORE, label):
            before = model.states[node][int(labels[node])]
            raise FormatError(f"evidence: expected one state of {name}, got both {before!r} and {state!r}")
        labels[node] = label
    return Evidence(labels, likelihoods)


def _weights(name: str, written: str, states: Sequence[str]) -> tuple[float, ...]:
    weights = tuple(math.nan if (value := as_number(part.strip())) is None else value for part in written.split(":"))
    if len(weights) != len(states) or not all(0 <= weight < math.inf for weight in weights) or not any(weights):
        expected = f"{len(states)} non-negative weights with : between them, one per state ({', '.join(states[:8])})"
        raise FormatError(f"evidence: expected a state of {name}, or {expected}, got {written!r}")
    return weights


def split_items(argument: str, text: str) -> list[str]:
    """What stands between commas outside double quotes, less empty items.

    Raises:
        FormatError: a quote without end.
    """
    items, at = [], 0
    while at < len(text):
        match = _ITEM.match(text, at)
        if match is None:
            raise FormatError(f"{argument}: expected a closing quote, got {text[at:]!r}")
        items.append(match[1].strip())
        at = match.end()
    return [item for item in items if item]


def unquoted(item: str) -> str:
    """A name as it is, or as it stands in double quotes."""
    item = item.strip()
    return item[1:-1].replace('""', '"') if len(item) > 1 and item[0] == item[-1] == '"' else item


def find(argument: str, what: str, wanted: str, names: Sequence[str]) -> int:
    """Where a name is among ``names``; where it is not, a number counts from 0.

    Raises:
        FormatError: neither; names the ``argument``, what was expected, and what came.
    """
    if wanted in names:
        return names.index(wanted)
    composed = [normalized(name) for name in names]
    if normalized(wanted) in composed:
        return composed.index(normalized(wanted))
    if wanted.isascii() and wanted.isdigit() and len(wanted) <= 18 and int(wanted) < len(names):
        return int(wanted)
    close = difflib.get_close_matches(wanted[:100], names, n=1) if len(names) <= GUESSABLE else []
    shown = f"did you mean {close[0]!r}?" if close else ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
    raise FormatError(f"{argument}: expected {what}, got {wanted!r} ({shown})")
