"""Bayesian networks written in the BIF format, as :mod:`lnz.io.bif` reads it."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

from torch import Tensor

from lnz.io.atomic import atomic_write
from lnz.io.files import Source

_PLAIN = re.compile(r"[^\s{}()\[\];|,\"/*]+")


def write_bif(
    path: Source,
    names: Sequence[str],
    states: Sequence[Sequence[str]],
    parents: Sequence[Sequence[int]],
    log_cpts: Sequence[Tensor],
) -> None:
    """Write tables ``ln Q(child | parents) [*parents, card]`` with all digits of float64; whole or not at all.

    Raises:
        ValueError: a name that the format cannot hold, with a quotation mark or a line break in it.
    """
    lines = ["network lnz { }"]
    for name, labels in zip(names, states, strict=True):
        listed = ", ".join(map(_word, labels))
        lines.append(f"variable {_word(name)} {{ type discrete [ {len(labels)} ] {{ {listed} }}; }}")
    for child, (above, table) in enumerate(zip(parents, log_cpts, strict=True)):
        rows = table.detach().cpu().double().exp().reshape(-1, table.shape[-1]).tolist()
        if not above:
            lines.append(f"probability ( {_word(names[child])} ) {{ table {_numbers(rows[0])}; }}")
            continue
        given = ", ".join(_word(names[parent]) for parent in above)
        lines.append(f"probability ( {_word(names[child])} | {given} ) {{")
        joint = itertools.product(*(states[parent] for parent in above))
        lines += [
            f"  ({', '.join(map(_word, labels))}) {_numbers(row)};" for labels, row in zip(joint, rows, strict=True)
        ]
        lines.append("}")
    with atomic_write(path) as file:
        file.write("\n".join(lines) + "\n")


def _numbers(row: Sequence[float]) -> str:
    return ", ".join(map(repr, row))


def _word(name: str) -> str:
    if _PLAIN.fullmatch(name):
        return name
    if not name or re.search(r'["\n\r]', name):
        raise ValueError(f"BIF: expected names without quotation marks and line breaks, got {name!r}")
    return f'"{name}"'
