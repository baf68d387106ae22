"""A look at YAML files before they are loaded: aliases may make gigabytes of a few lines."""

from __future__ import annotations

import yaml

from lnz.errors import FormatError
from lnz.io.files import Source, read_text
from lnz.io.limits import limits

DIGITS = 300
"""No number has more."""


def check_yaml(path: Source) -> None:
    """Raise where a YAML file is malformed, or stands for more than it may.

    Raises:
        FormatError: the file cannot be read, is no YAML, is nested too deeply, has an alias of what holds it, more
            values than the limits allow when all aliases are written out, or a number of thousands of digits.
    """
    text = read_text(path)
    sizes: dict[str, int] = {}
    open_nodes: list[tuple[str | None, int]] = []  # the anchor of each, and the size of all before it
    size = 0
    try:
        for event in yaml.parse(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            anchor = getattr(event, "anchor", None)
            if isinstance(event, yaml.AliasEvent):
                if anchor not in sizes:
                    raise FormatError(f"{path}: expected no alias of what holds it, got *{anchor}")
                size += sizes[anchor]
            elif isinstance(event, yaml.ScalarEvent):
                size += 1
                if anchor is not None:
                    sizes[anchor] = 1
                if len(event.value) > DIGITS and event.value.strip("+-.eE_0123456789") == "":
                    raise FormatError(f"{path}: expected numbers of at most {DIGITS} digits, got {len(event.value)}")
            elif isinstance(event, yaml.CollectionStartEvent):
                open_nodes.append((anchor, size))
                size += 1
                limits().check(path, "depth", len(open_nodes))
            elif isinstance(event, yaml.CollectionEndEvent):
                name, before = open_nodes.pop()
                if name is not None:
                    sizes[name] = size - before
            limits().check(path, "values", size, len(text))
    except yaml.YAMLError as error:
        raise FormatError(f"{path}: cannot be read as YAML ({' '.join(str(error).split())})") from error
