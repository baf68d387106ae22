"""Which variables a query is about, from a file in the UAI format or from their names."""

from __future__ import annotations

from lnz.errors import FormatError
from lnz.io.evidence import find, split_items, unquoted
from lnz.io.files import Source, Words, read_text
from lnz.io.model import NamedModel


def read_variables(path: Source, model: NamedModel, encoding: str | None = None) -> tuple[int, ...]:
    """Read a query file in the UAI format, gzipped or not: the number of variables, then each as a number.

    Raises:
        FormatError: the file cannot be read or is malformed, or names a variable that the model lacks, or one twice.
    """
    words = Words(path, read_text(path, encoding))
    count = words.integer("the number of query variables", 1)
    nodes: dict[int, None] = {}
    for _ in range(count):  # a missing one is an error of its own
        node = words.integer(f"a variable in [0, {model.graph.num_nodes})", 0, model.graph.num_nodes)
        if node in nodes:
            words.fail("each variable once", at=words.at - 1)
        nodes[node] = None
    words.end(f"{count} variables")
    return tuple(nodes)


def parse_variables(text: str, model: NamedModel) -> tuple[int, ...]:
    """Variables written as ``NAME,NAME``; where there is none of that name, a number counts from 0.

    A name that holds a comma stands in double quotes.

    Raises:
        FormatError: an unknown name, one twice, or none at all.
    """
    named = [unquoted(item) for item in split_items("variables", text)]
    nodes = tuple(find("variables", "a variable of the model", name, model.names) for name in named)
    if not nodes:
        raise FormatError(f"variables: expected NAME,NAME,…, got {text!r}")
    if len(set(nodes)) < len(nodes):
        twice = next(name for k, name in enumerate(named) if nodes[k] in nodes[:k])
        raise FormatError(f"variables: expected each variable once, got {twice!r} twice")
    return nodes
