"""Where cases find files that are not part of the checkout, and what they use where there are none."""

from __future__ import annotations

import gzip
import re
import tempfile
from functools import cache
from pathlib import Path

SHARED = Path(__file__).resolve().parents[2] / "shared"
"""The development data beside the checkout; cases say so where it is missing."""

NETWORKS = SHARED / "data" / "bayesnets"
RANDOM = "random"
"""The one network there is where the folder of networks is missing."""


def networks() -> list[str]:
    """The names of the networks in the folder, or of the random one."""
    return sorted(path.name.removesuffix(".bif.gz") for path in NETWORKS.glob("*.bif.gz")) or [RANDOM]


@cache
def bif(network: str) -> Path:
    """A plain BIF file of the network, for every contender's own reader; it lives as long as the process."""
    path = Path(_scratch().name) / f"{network}.bif"
    if network != RANDOM:
        text = gzip.decompress((NETWORKS / f"{network}.bif.gz").read_bytes()).decode()
        path.write_text(_STATES.sub(_plain_names, text), encoding="utf-8")
        return path
    import pyagrum

    pyagrum.initRandom(0)
    pyagrum.saveBN(pyagrum.randomBN(n=37, ratio_arc=1.25, domain_size=3), str(path))
    return path


_STATES = re.compile(r"(?<=] \{)[^}]*|^\s*\([^)]*", re.MULTILINE)
"""Where a BIF file names states: after ``type discrete [ n ] {``, and at the start of a row."""


def _plain_names(states: re.Match[str]) -> str:
    """States such as ``<5`` and ``Asy/Patch`` as identifiers, which is all that pyAgrum's reader takes."""

    def plain(state: re.Match[str]) -> str:
        word = state[0]
        return (
            word
            if re.fullmatch(r"\d+|[A-Za-z_]\w*", word)
            else "s" + re.sub(r"\W", lambda mark: f"_{ord(mark[0])}_", word)
        )

    return re.sub(r"[^\s,(]+", plain, states[0])


@cache
def _scratch() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="lnz-benchmarks-")
