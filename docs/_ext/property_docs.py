"""Docstrings of properties that are sentences, colons included.

Napoleon takes what stands before the first colon of an attribute's docstring for its type; here types are annotations.
"""

from __future__ import annotations

from typing import Any

ATTRIBUTES = {"attribute", "data", "property"}


def keep_sentence(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Let Napoleon, which comes next, find a first line without colon: an escaped space, which is drawn as nothing."""
    if what in ATTRIBUTES:
        lines.insert(0, "\\ ")


def setup(app: Any) -> dict[str, bool]:
    """Come before Napoleon, whose priority is the usual 500."""
    app.connect("autodoc-process-docstring", keep_sentence, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
