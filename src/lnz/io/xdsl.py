"""Bayesian networks in XDSL, the format of GeNIe and SMILE (``.xdsl``)."""

from __future__ import annotations

from xml.etree.ElementTree import Element

from lnz.io.files import Source, Words
from lnz.io.model import NamedModel
from lnz.io.network import Network
from lnz.io.xml import read_xml, text_of

KNOWN = {"state", "parents", "probabilities", "resultingstates", "property"}


def read_xdsl(path: Source, encoding: str | None = None) -> NamedModel:
    """Read a Bayesian network in XDSL, gzipped or not; O(size of the file) time and memory.

    Nodes ``<cpt>`` and ``<deterministic>`` are read, with their ids as names. The last parent changes faster than the
    others, the states of the node itself fastest.

    Args:
        path: the file.
        encoding: of its text; by default what it declares, or UTF-8.

    Raises:
        FormatError: the file cannot be read or is malformed, has a node of another kind (``<noisymax>``,
            ``<decision>``, ``<equation>`` …), which is named, or is a dynamic network, or what
            :class:`~lnz.io.network.Network` raises.
    """
    root, size = read_xml(path, "smile", encoding)
    network = Network(path, size)
    other = next((e.tag for e in root if e.tag not in ("nodes", "extensions", "properties", "property", "cases")), None)
    if other:
        network.fail(f"expected <nodes>, got <{other[:40]}>, which is not read")
    nodes = [element for child in root if child.tag == "nodes" for element in child]
    for node in nodes:
        name = node.get("id", "")
        if node.tag not in ("cpt", "deterministic"):
            network.fail(f"expected nodes <cpt> or <deterministic>, got {name!r}, a <{node.tag[:40]}>")
        other = next((e.tag for e in node if e.tag not in KNOWN), None)
        if other:
            network.fail(f"expected <{'>, <'.join(sorted(KNOWN))}> in node {name!r}, got <{other[:40]}>")
        network.declare(name, [state.get("id", "") for state in node.iter("state")])
    for node in nodes:
        name, parents = node.get("id", ""), text_of(_only(network, node, "parents", optional=True)).split()
        if node.tag == "deterministic":
            network.choose(name, parents, text_of(_only(network, node, "resultingstates")).split())
        else:
            words = Words(f"{path}, node {name}", text_of(_only(network, node, "probabilities")))
            network.fill(name, parents, [words.number() for _ in range(len(words))])
    if any(node.get("app", "").startswith("aGrUM") for node in root.iter("genie")) and any(
        len(table.parents) > 1 for table in network.tables.values()
    ):
        network.fail("written by aGrUM, which lists parents in another order than the format asks; use its BIFXML")
    return network.model()


def _only(network: Network, node: Element, tag: str, optional: bool = False) -> Element | None:
    found = node.findall(tag)
    if len(found) > 1 or not (found or optional):
        network.fail(f"expected one <{tag}> in node {node.get('id', '')!r}, got {len(found)}")
    return found[0] if found else None
