"""Bayesian networks in NET, the format of Hugin (``.net``)."""

from __future__ import annotations

import math
from itertools import accumulate

from lnz.io.blocks import Value, pattern, read_block, strings
from lnz.io.files import Source, Words, as_number, read_text
from lnz.io.model import NamedModel
from lnz.io.network import Network

_WORD = pattern(r"%[^\n]*")


def read_net(path: Source, encoding: str | None = None) -> NamedModel:
    """Read a Bayesian network in NET, gzipped or not; O(size of the file) time and memory.

    Discrete chance nodes with their tables are read, by their names; labels for display, positions and what is kept for
    learning (``experience``, ``fading``) say nothing about the distribution. In ``data`` the last parent changes faster
    than the others, the node itself fastest.

    Args:
        path: the file.
        encoding: of its text; by default UTF-8.

    Raises:
        FormatError: the file cannot be read or is malformed, has another block (``decision``, ``utility``,
            ``continuous node``, ``class`` …) or a potential by a formula (``model_data``), which is named, or what
            :class:`~lnz.io.network.Network` raises.
    """
    words = Words(path, read_text(path, encoding), _WORD)
    network = Network(path, len(words.text))
    potentials: list[tuple[list[str], dict[str, Value]]] = []
    if words.word("a NET file, which starts with 'net'") != "net":
        words.fail("a NET file, which starts with 'net'", at=0)
    read_block(words)
    while len(words):
        kind = words.word("a block")
        if kind == "discrete":
            kind = words.word("'node'")
        if kind == "node":
            name = words.word("the name of a node")
            network.declare(name, strings(read_block(words).get("states", [])))
        elif kind == "potential":
            family = []
            words.expect("(")
            while (word := words.word("')'")) != ")":
                family.append(word)
            potentials.append((family, read_block(words)))
        else:
            words.fail("a block 'node' or 'potential'; others are not read", at=words.at - 1)
    for family, block in potentials:
        head, parents = (family[:1], family[2:]) if family[1:2] in (["|"], []) else (family, [])
        if len(head) != 1 or "|" in parents or head == ["|"]:
            network.fail(f"expected a potential of one variable given others, got ({' '.join(family[:16])})")
        if "data" not in block:
            network.fail(f"expected 'data' in the potential of {head[0]!r}, got {', '.join(block) or 'nothing'}")
        network.fill(head[0], parents, _numbers(network, head[0], block["data"]))
    return network.model()


def _numbers(network: Network, child: str, data: Value) -> list[float]:
    """The numbers of nested parentheses; where they are nested, each innermost pair holds one row."""
    words = data if isinstance(data, list) else []
    depths = list(accumulate({"(": 1, ")": -1}.get(word, 0) for word in words))
    if not words or min(depths) < 0 or depths[-1] or 0 in depths[:-1]:
        network.fail(f"expected numbers in balanced parentheses in the potential of {child!r}")
    values, row, width = [], 0, len(network.states.get(child, ()))
    for word in words:
        if word in ("(", ")"):
            if row and row != width and max(depths) > 1:
                network.fail(f"expected rows of {width} numbers in the potential of {child!r}, got one of {row}")
            row = 0
            continue
        value = as_number(word)
        if value is None or not math.isfinite(value):
            network.fail(f"expected finite numbers in the potential of {child!r}, got {word[:40]!r}")
        values.append(value)
        row += 1
    return values
