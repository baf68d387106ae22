"""`import lnz` is light: what it loads, and how long it takes on top of torch."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import lnz

HEAVY = {
    "jsonargparse",
    "lightning",
    "matplotlib",
    "networkx",
    "numba",
    "pandas",
    "PIL",
    "pyagrum",
    "pytorch_lightning",
    "rich",
    "scipy",
    "sklearn",
    "tensorboard",
    "torchmetrics",
    "transformers",
    "triton",
}


def run(program: str) -> str:
    return subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout


def test_import_lnz_loads_torch_and_nothing_heavy() -> None:
    # What torch itself loads where it is installed (triton beside a CUDA build, say) is not lnz's doing.
    program = """
import sys, json
import torch
before = set(sys.modules)
import lnz
print(json.dumps(sorted({name.partition(".")[0] for name in set(sys.modules) - before})))
"""
    loaded = set(json.loads(run(program)))
    assert "lnz" in loaded
    assert not loaded & HEAVY
    third_party = loaded - set(sys.stdlib_module_names) - {"lnz", "torch", "numpy"}
    assert not third_party, f"import lnz also loads {sorted(third_party)}"


def test_import_lnz_takes_well_under_the_time_of_torch() -> None:
    program = """
import time
start = time.perf_counter(); import torch; torch_seconds = time.perf_counter() - start
start = time.perf_counter(); import lnz; lnz_seconds = time.perf_counter() - start
print(lnz_seconds / torch_seconds)
"""
    # The best of three: a machine busy with something else only ever makes a run slower.
    assert min(float(run(program)) for _ in range(3)) < 0.5


def test_nn_io_and_plot_are_there_after_import_lnz_and_loaded_when_asked_for() -> None:
    program = """
import sys
import lnz
names = "lnz.nn", "lnz.io", "lnz.plot"
assert not set(names) & set(sys.modules)
assert {"nn", "io", "plot", "LinearChain"} <= set(dir(lnz))
print(lnz.nn.functional.ctc_loss.__name__, lnz.io.__name__, lnz.plot.__name__)
try:
    lnz.nothing
except AttributeError as error:
    print(error)
"""
    assert run(program).splitlines() == ["ctc_loss lnz.io lnz.plot", "module 'lnz' has no attribute 'nothing'"]


def imported(source: Path) -> Iterator[str]:
    """The modules that a file names in its imports, ``numba.core`` also where it says ``from numba import core``."""
    for statement in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(statement, ast.Import):
            yield from (alias.name for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom):
            yield from (f"{statement.module}.{alias.name}" for alias in statement.names)


def test_what_extends_numba_lies_in_one_folder() -> None:
    # of numba only the whole can be forbidden by import-linter
    package = Path(lnz.__file__).parent
    extending = ("llvmlite", "numba.core", "numba.extending")
    found = {
        source.relative_to(package).parent.as_posix()
        for source in package.rglob("*.py")
        if any(f"{name}.".startswith(f"{part}.") for name in imported(source) for part in extending)
    }
    assert found == {"ops/jit/cpu"}
