"""Evidence: which labels have been observed, from a file in the UAI format or from ``NAME=STATE`` pairs."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import torch
from torch import Tensor

from lnz.errors import FormatError
from lnz.io.files import Source, Words, read_bytes
from lnz.io.model import NamedModel
from lnz.typing import IGNORE


def read_evidence(path: Source, model: NamedModel) -> Tensor:
    """Read an evidence file in the UAI format, gzipped or not: ``int64 [N]``, −100 where nothing is observed.

    The file is empty, or holds the number of observed variables and then that many pairs of a variable and its label,
    both as numbers. The form of 2008, with the number of samples in front, is read where it holds one sample; the
    two forms cannot be confused, the number of words is odd in one and even in the other.

    Raises:
        FormatError: the file cannot be read or is malformed, a variable or label is not one of the model's, or a
            variable is observed with two labels.
    """
    words = Words(path, read_bytes(path))
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


def parse_evidence(text: str, model: NamedModel) -> Tensor:
    """Evidence written as ``NAME=STATE,NAME=STATE``: ``int64 [N]``, −100 where nothing is observed.

    Names and states are those of the file; where there is none of that name, a number counts from 0.

    Raises:
        FormatError: a pair without ``=``, an unknown name or state, or a variable observed with two states.
    """
    observed = torch.full((model.graph.num_nodes,), IGNORE)
    for pair in filter(None, (part.strip() for part in text.split(","))):
        name, equals, state = (part.strip() for part in pair.partition("="))
        if not equals or not name or not state:
            raise FormatError(f"evidence: expected NAME=STATE, got {pair!r}")
        node = find("evidence", "a variable of the model", name, model.names)
        label = find("evidence", f"a state of {model.names[node]}", state, model.states[node])
        if observed[node] not in (IGNORE, label):
            before = model.states[node][int(observed[node])]
            raise FormatError(f"evidence: expected one state of {name}, got both {before!r} and {state!r}")
        observed[node] = label
    return observed


def find(argument: str, what: str, wanted: str, names: Sequence[str]) -> int:
    """Where a name is among ``names``; where it is not, a number counts from 0.

    Raises:
        FormatError: neither; names the ``argument``, what was expected, and what came.
    """
    if wanted in names:
        return names.index(wanted)
    if wanted.isdecimal() and int(wanted) < len(names):
        return int(wanted)
    close = difflib.get_close_matches(wanted, names, n=1)
    shown = f"did you mean {close[0]!r}?" if close else ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
    raise FormatError(f"{argument}: expected {what}, got {wanted!r} ({shown})")
