"""How much memory a stretch of a test takes, as Linux counts it.

Not ``ru_maxrss``: a process inherits it from the one that started it, and it never falls.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc, which Linux has")


def _bytes(field: str) -> int:
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return 1024 * int(found[1])


def begin() -> int:
    """Bytes in memory now; from here on :func:`peak` counts anew, without what compilers took."""
    Path("/proc/self/clear_refs").write_text("5")
    return _bytes("VmRSS")


def peak() -> int:
    """The most bytes that were in memory at once since :func:`begin`."""
    return _bytes("VmHWM")


def run(program: str, *arguments: str) -> str:
    """What a program prints that runs in a process of its own; it may import ``tests``."""
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1])
    sys.stderr.write(done.stderr)
    assert done.returncode == 0, done.stderr
    return done.stdout
