"""XML files as trees of elements, of bounded size and depth."""

from __future__ import annotations

import re
from typing import Any
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from lnz.errors import FormatError
from lnz.io.files import Source, decode, read_bytes
from lnz.io.limits import limits

_DECLARED = re.compile(rb"""\s*<\?xml[^>]*?\bencoding\s*=\s*["']([\w.:-]+)["']""")


def read_xml(path: Source, root: str, encoding: str | None = None) -> tuple[Element, int]:
    """The root of an XML file, gzipped or not, without its comments, and the length of the text.

    Entities are refused: a few lines of them stand for gigabytes, or for other files.

    Args:
        path: the file.
        root: what its first element is called.
        encoding: of its text; by default the declared one, or UTF-8.

    Raises:
        FormatError: the file cannot be read, is not well-formed, declares an entity, is nested too deeply, or has
            another root.
    """
    data = read_bytes(path)
    declared = _DECLARED.match(data[:1000])
    text = decode(path, data, encoding or (declared[1].decode() if declared else None))
    builder, parser = TreeBuilder(), expat.ParserCreate()
    depth, deepest = 0, limits().depth

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > deepest:
            limits().check(path, "depth", depth)
        if depth == 1 and tag != root:
            raise FormatError(f"{path}: expected the element <{root}>, got <{tag[:40]}>")
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag)

    def entity(name: str, *_: Any) -> None:
        raise FormatError(f"{path}, line {parser.CurrentLineNumber}: expected no entity, got {name[:40]!r}")

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler, parser.EntityDeclHandler = builder.data, entity
    parser.buffer_text = True
    try:
        parser.Parse(text, True)
    except expat.ExpatError as error:
        raise FormatError(f"{path}: cannot be read as XML ({error})") from error
    return builder.close(), len(text)


def text_of(element: Element | None) -> str:
    """The text of an element, without spaces around it."""
    return (element.text or "").strip() if element is not None else ""
