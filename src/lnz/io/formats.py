"""Which reader reads which model file."""

from __future__ import annotations

import os

from lnz.errors import FormatError
from lnz.io import bifxml
from lnz.io.bif import read_bif
from lnz.io.dsl import read_dsl
from lnz.io.files import Source
from lnz.io.model import NamedModel
from lnz.io.net import read_net
from lnz.io.uai import read_uai
from lnz.io.xdsl import read_xdsl

READERS = {
    ".uai": read_uai,
    ".bif": read_bif,
    **dict.fromkeys(bifxml.SUFFIXES, bifxml.read_bifxml),
    ".xdsl": read_xdsl,
    ".dsl": read_dsl,
    ".net": read_net,
}
REFUSED = {".o3prm": "O3PRM is not read: no reader keeps its probabilities in double precision; convert it to BIFXML"}


def read_model(path: Source, encoding: str | None = None) -> NamedModel:
    """Read a model file; the end of its name says which format, ``.gz`` may follow.

    Args:
        path: the file.
        encoding: of its text; by default what an XML file declares, or UTF-8.

    Raises:
        FormatError: an unknown ending, or what the reader of the format raises.
    """
    ending = os.path.splitext(os.fspath(path).lower().removesuffix(".gz"))[1]
    if ending in REFUSED:
        raise FormatError(f"{path}: {REFUSED[ending]}")
    if ending not in READERS:
        known = ", ".join(READERS)
        raise FormatError(
            f"{path}: expected a model file whose name ends in {known} (.gz may follow), got {ending or 'no ending'!r}"
        )
    return READERS[ending](path, encoding)
