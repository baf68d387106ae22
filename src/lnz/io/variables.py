"""Which variables a query is about, from a file in the UAI format or from their names."""

from __future__ import annotations

from lnz.errors import FormatError
from lnz.io.evidence import find
from lnz.io.files import Source, Words, read_bytes
from lnz.io.model import NamedModel


def read_variables(path: Source, model: NamedModel) -> tuple[int, ...]:
    """Read a query file in the UAI format, gzipped or not: the number of variables, then each as a number.

    Raises:
        FormatError: the file cannot be read or is malformed, or names a variable that the model lacks, or one twice.
    """
    words = Words(path, read_bytes(path))
    count = words.integer("the number of query variables", 1)
    nodes: list[int] = []
    for _ in range(min(count, len(words))):
        node = words.integer(f"a variable in [0, {model.graph.num_nodes})", 0, model.graph.num_nodes)
        if node in nodes:
            words.fail("each variable once", at=words.at - 1)
        nodes.append(node)
    words.end(f"{count} variables")
    return tuple(nodes)


def parse_variables(text: str, model: NamedModel) -> tuple[int, ...]:
    """Variables written as ``NAME,NAME``; where there is none of that name, a number counts from 0.

    Raises:
        FormatError: an unknown name, one twice, or none at all.
    """
    named = [part.strip() for part in text.split(",") if part.strip()]
    nodes = tuple(find("variables", "a variable of the model", name, model.names) for name in named)
    if not nodes:
        raise FormatError(f"variables: expected NAME,NAME,…, got {text!r}")
    if len(set(nodes)) < len(nodes):
        twice = next(name for k, name in enumerate(named) if nodes[k] in nodes[:k])
        raise FormatError(f"variables: expected each variable once, got {twice!r} twice")
    return nodes
