"""Text from files and arguments, made safe for a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    r"""``text`` with all that is not printable written out as ``\x1b`` or ``\u202e``; lines and tabs stay.

    Names in files and of files may hold escape sequences that clear a screen or retitle a window, marks that reverse
    the direction of writing, and halves of surrogate pairs that no stream can encode.
    """
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


def json_printable(text: str) -> str:
    r"""JSON that means the same, with what is not printable in its strings as ``\uXXXX``."""
    return "".join(c if c.isprintable() or c == "\n" else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[k]:02x}{units[k + 1]:02x}" for k in range(0, len(units), 2))
