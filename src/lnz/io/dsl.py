"""Bayesian networks in DSL, the older format of GeNIe and SMILE (``.dsl``)."""

from __future__ import annotations

from lnz.io.blocks import Value, pattern, read_block, strings
from lnz.io.files import Source, Words, read_text
from lnz.io.model import NamedModel
from lnz.io.network import Network

_WORD = pattern(r"//[^\n]*|/\*.*?\*/|/#.*?#/", r"/[*#].*")


def read_dsl(path: Source, encoding: str | None = None) -> NamedModel:
    """Read a Bayesian network in DSL, gzipped or not; O(size of the file) time and memory.

    Nodes of the types ``CPT`` and ``TRUTHTABLE`` are read, with their ids as names. The last parent changes faster than
    the others, the states of the node itself fastest.

    Args:
        path: the file.
        encoding: of its text; by default UTF-8.

    Raises:
        FormatError: the file cannot be read or is malformed, has a node of another type (``NOISY_MAX``, ``LIST`` …),
            which is named, or what :class:`~lnz.io.network.Network` raises.
    """
    words = Words(path, read_text(path, encoding), _WORD)
    network = Network(path, len(words.text))
    if words.word("a DSL file, which starts with 'net'") != "net":
        words.fail("a DSL file, which starts with 'net'", at=0)
    words.word("the name of the network")
    words.expect("{")
    nodes: dict[str, dict[str, Value]] = {}
    while (word := words.word("'}' at the end of the network")) != "}":
        if word == "node":
            name = words.word("the name of a node")
            nodes[name] = block = read_block(words)
            kind = " ".join(strings(block.get("TYPE", [])))
            if kind not in ("CPT", "TRUTHTABLE"):
                network.fail(f"expected nodes of type CPT or TRUTHTABLE, got {name!r} of type {kind[:40]!r}")
            network.declare(name, strings(_definition(block).get("NAMESTATES", [])))
        else:
            words.at -= 1
            _skip_setting(words)
    if len(words) and words.words[words.at] == ";":
        words.at += 1
    words.end("the network")
    for name, block in nodes.items():
        parents, definition = strings(block.get("PARENTS", [])), _definition(block)
        if "RESULTINGSTATES" in definition:
            network.choose(name, parents, strings(definition["RESULTINGSTATES"]))
        else:
            table = Words(f"{path}, node {name}", " ".join(strings(definition.get("PROBABILITIES", []))))
            network.fill(name, parents, [table.number() for _ in range(len(table))])
    return network.model()


def _definition(block: dict[str, Value]) -> dict[str, Value]:
    definition = block.get("DEFINITION", {})
    return definition if isinstance(definition, dict) else {}


def _skip_setting(words: Words) -> None:
    """``KEY = VALUE;`` of the network, which says nothing about its distribution."""
    words.word("a setting")
    words.expect("=")
    if len(words) and words.words[words.at] == "{":
        read_block(words)
        return
    while words.word("';'") != ";":
        pass
