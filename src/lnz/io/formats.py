"""Which reader reads which model file."""

from __future__ import annotations

import os

from lnz.errors import FormatError
from lnz.io import agrum
from lnz.io.bif import read_bif
from lnz.io.files import Source
from lnz.io.model import NamedModel
from lnz.io.uai import read_uai

READERS = {".uai": read_uai, ".bif": read_bif, **dict.fromkeys(agrum.SUFFIXES, agrum.read_through_pyagrum)}


def read_model(path: Source) -> NamedModel:
    """Read a model file; the end of its name says which format, ``.gz`` may follow.

    Raises:
        FormatError: an unknown ending, or what the reader of the format raises.
        ImportError: a format that pyAgrum reads, and pyAgrum is not installed.
    """
    ending = os.path.splitext(os.fspath(path).lower().removesuffix(".gz"))[1]
    if ending not in READERS:
        known = ", ".join(READERS)
        raise FormatError(
            f"{path}: expected a model file whose name ends in {known} (.gz may follow), got {ending or 'no ending'!r}"
        )
    return READERS[ending](path)
