"""Parsers of the command line: option names in full, and errors that are one line."""

from __future__ import annotations

import argparse
import re
from difflib import get_close_matches
from typing import Any, NoReturn

from lnz.io.printable import printable

KINDS = {
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "Sequence": "a list",
    "list": "a list",
    "tuple": "a list",
    "dict": "a mapping",
    "count": "a positive integer",
    "numbers": "numbers with commas between them",
}
"""What the names of types are called."""


class Strict(argparse.ArgumentParser):
    """A parser that takes no abbreviation, and whose errors are one line.

    With prefixes allowed, ``--trainer.max_epoch`` would stand for another option as soon as one of that prefix is
    added, and a slip of the keyboard for an option that was not meant.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "allow_abbrev": False})

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if not self.exit_on_error:  # a parser within a parser, which words what this one raises
            super().error(message, **({"ex": ex} if ex else {}))
        self.exit(2, printable(f"{self.prog}: {worded(message, self)} (see {self.prog} --help)") + "\n")


def worded(message: str, parser: argparse.ArgumentParser) -> str:
    """An error of argparse or jsonargparse in one line: the option, what was expected, what came."""
    message = re.sub(r"\x1b\[[0-9;]*m", "", message)
    keys = re.findall(r'Parser key "([^"]*)"', message)
    option = f"--{'.'.join(keys)}: " if keys else ""
    if choice := re.match(r"argument (\S+): invalid choice: (.*) \(choose from (.*)\)", message):
        return f"{choice[1]}: expected one of {choice[3]}, got {choice[2]}"
    if value := re.match(r"argument (\S+): invalid (int|float|count|numbers) value: (.*)", message):
        return f"{value[1]}: expected {KINDS[value[2]]}, got {value[3]}"
    if linked := re.match(r'(?:argument (\S+) --> (\S+):|Linked "([^"]*)" must be given via "([^"]*)")', message):
        source, target = (linked[1], linked[2]) if linked[1] else (linked[4], linked[3])
        given = f"--{source}; give that instead" if _known(source, parser) else "the data, and cannot be given"
        return f"--{target}: is set by {given}"
    if unknown := re.match(r"unrecognized arguments: (.*)", message, re.DOTALL):
        return f"unrecognized arguments: {_one_line(unknown[1])}{_meant(unknown[1], parser)}"
    if group := re.match(r"Group '(\S+)' does not accept option '(\S+)'", message):
        name = f"{group[1]}.{group[2]}"
        return f"no option {name}{_meant(f'--{name}', parser)}"
    if setting := re.search(r"Option '(\S+)' is not accepted", message):
        return f"{option}has no setting {setting[1]!r}"
    return option + (_value(message) if keys else _one_line(re.sub(r"^argument (\S+:)", r"\1", message)))


def _value(message: str) -> str:
    """What is wrong with the value of a key."""
    got = re.search(r"(?:Got value|Given value): (.*)", message)
    if why := re.search(r"Problem with given class_path '([^']*)':\s*(No module.*|.*import.*)", message):
        return f"expected the dotted name of a class, got {why[1]!r} ({why[2].strip()})"
    if wrong := re.search(r"callable class: Expected '([^']*)' to be [^<]*<class '(\w+)'>", message):
        return f"expected the dotted name of a subclass of {wrong[2]}, got {wrong[1]!r}"
    if got and (why := re.search(r"callable class: (No module.*|.*import.*)", message)):
        return f"expected the dotted name of a class, got {got[1].strip()!r} ({why[1].strip()}; is it on PYTHONPATH?)"
    if path := re.search(r"Expected a path but (.*?) either not accessible or invalid", message):
        return f"expected a file, or the dotted name of a class, got {path[1]!r}"
    expected = _expected(message)
    if got and expected:
        return f"expected {expected}, got {got[1].strip()!r}"
    return _one_line(re.sub(r"Parser key \"[^\"]*\":|Problem with given class_path '[^']*':", "", message))


def _expected(message: str) -> str:
    """The choices, if they are listed, or the kinds of values that jsonargparse names."""
    listed = re.findall(r"Expected a [\w.]*Literal\[([^]]*)\]", message)
    choices = list(dict.fromkeys(choice for each in listed for choice in each.split(", ")))
    if choices:
        return ("one of " if len(choices) > 1 else "") + ", ".join(choices)
    types = [name.rpartition(".")[2] for name in re.findall(r"Expected a <class '([^']*)'>", message)]
    return " or ".join(dict.fromkeys(KINDS[name] for name in types if name in KINDS))


def _known(name: str, parser: argparse.ArgumentParser) -> bool:
    return any(action.dest == name and f"--{name}" in action.option_strings for action in parser._actions)


def _meant(given: str, parser: argparse.ArgumentParser) -> str:
    """The options that are like what was given."""
    name = given.split(maxsplit=1)[0].partition("=")[0]
    known = [option for option in parser._option_string_actions if option.startswith("--") and option[-1] != "+"]
    near = [option for option in known if name.startswith("--") and option.startswith(name)][:3]
    near = near or get_close_matches(name, known, 3, 0.75)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _one_line(text: str) -> str:
    return " ".join(text.split())
