"""Bayesian networks in BIFXML, the Interchange Format 0.3 (``.bifxml``, ``.xmlbif``, ``.xml``)."""

from __future__ import annotations

from lnz.io.files import Source, Words
from lnz.io.model import NamedModel
from lnz.io.network import Network
from lnz.io.xml import read_xml, text_of

SUFFIXES = (".bifxml", ".xmlbif", ".xml")


def read_bifxml(path: Source, encoding: str | None = None) -> NamedModel:
    """Read a Bayesian network in BIFXML, gzipped or not; O(size of the file) time and memory.

    Variables and their states keep the order of the file; a table's last GIVEN changes faster than the others, and its
    FOR fastest.

    Args:
        path: the file.
        encoding: of its text; by default what it declares, or UTF-8.

    Raises:
        FormatError: the file cannot be read or is malformed, has a variable that is no chance variable (decision,
            utility) or an element that is not known, or what :class:`~lnz.io.network.Network` raises.
    """
    root, size = read_xml(path, "BIF", encoding)
    network = Network(path, size)
    definitions = []
    for block in (element for child in root if child.tag == "NETWORK" for element in child):
        if block.tag == "VARIABLE":
            name, kind = text_of(block.find("NAME")), block.get("TYPE", "nature")
            if kind != "nature":
                network.fail(f"expected variables of type nature, got {name!r} of type {kind!r}")
            network.declare(name, [text_of(outcome) for outcome in block.iter("OUTCOME")])
        elif block.tag in ("DEFINITION", "PROBABILITY"):
            definitions.append(block)
        elif block.tag not in ("NAME", "PROPERTY"):
            network.fail(f"expected <VARIABLE> or <DEFINITION>, got <{block.tag[:40]}>")
    for block in definitions:
        children, parents, tables = (block.findall(tag) for tag in ("FOR", "GIVEN", "TABLE"))
        other = next((e.tag for e in block if e.tag not in ("FOR", "GIVEN", "TABLE", "PROPERTY")), None)
        if other or len(children) != 1 or len(tables) != 1:
            got = f"<{other[:40]}>" if other else f"{len(children)} <FOR> and {len(tables)} <TABLE>"
            network.fail(f"expected one <FOR>, <GIVEN> for each parent and one <TABLE> in a <DEFINITION>, got {got}")
        words = Words(f"{path}, <TABLE> of {text_of(children[0])}", tables[0].text or "")
        values = [words.number() for _ in range(len(words))]
        network.fill(text_of(children[0]), [text_of(parent) for parent in parents], values)
    return network.model()
