"""Bayesian networks in the formats that pyAgrum reads (BIFXML, DSL, NET, XDSL, O3PRM); the extra ``formats``."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lnz.errors import FormatError
from lnz.graphs import FactorGraph
from lnz.io.bif import ROW_SUM_TOLERANCE
from lnz.io.files import Source, read_bytes
from lnz.io.model import NamedModel

SUFFIXES = (".bifxml", ".dsl", ".net", ".o3prm", ".xdsl")


def read_through_pyagrum(path: Source) -> NamedModel:
    """Read a Bayesian network through pyAgrum, gzipped or not; variables in pyAgrum's order, states in the file's.

    Raises:
        FormatError: the file cannot be read, or pyAgrum refuses it.
        ImportError: pyAgrum is not installed.
    """
    content = read_bytes(path)
    try:
        import pyagrum
    except ImportError as error:
        raise ImportError(f"{path}: reading it needs pyAgrum; install it with: pip install 'lnz[formats]'") from error
    name = os.path.basename(os.fspath(path)).removesuffix(".gz")
    with tempfile.TemporaryDirectory() as folder:  # pyAgrum reads files only, by their ending
        copy = Path(folder, name)
        copy.write_bytes(content)
        try:
            network = pyagrum.loadBN(str(copy))
        except Exception as error:  # pyAgrum's own errors share no base class but this
            reason = " ".join(str(error).replace(str(copy), name).split())
            raise FormatError(f"{path}: pyAgrum cannot read it ({reason})") from error
    nodes = sorted(network.nodes())
    place = {network.variable(node).name(): k for k, node in enumerate(nodes)}
    if not nodes:
        raise FormatError(f"{path}: expected at least one variable, got none")
    tables = [network.cpt(node) for node in nodes]
    scopes = [[place[variable] for variable in reversed(table.names)] for table in tables]
    graph, members = FactorGraph.grouped([network.variable(node).domainSize() for node in nodes], scopes)
    with np.errstate(divide="ignore"):
        scores = tuple(
            torch.from_numpy(np.log(np.stack([_values(path, tables[f]) for f in group]))) for group in members
        )
    states = tuple(tuple(network.variable(node).labels()) for node in nodes)
    return NamedModel("BAYES", graph, scores, tuple(place), states)


def _values(path: Source, table: Any) -> np.ndarray:
    """A table as an array whose axes are its variables in reverse order, so that the child comes last."""
    array = np.asarray(table.toarray(), np.float64)
    if (array < 0).any() or not np.allclose(array.sum(-1), 1, atol=ROW_SUM_TOLERANCE):
        raise FormatError(f"{path}: expected P({table.names[0]} | …) to be non-negative and to sum to 1")
    return array
