"""``lnz warmup``: kernels are on disk before they are first used."""

import gc
import importlib
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import lnz.ops
from lnz.cli import main
from lnz.tasks.warmup import DTYPES, OPERATIONS, compile_operation


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr("numba.core.config.CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(Path(lnz.__file__).parents[1]))
    return tmp_path


def test_kernels_are_compiled_and_kept(folder, capsys):
    assert main(["warmup", "icm", "--dtype", "float32", "--jobs", "1"]) == 0
    first, last = capsys.readouterr().out.splitlines()
    assert first.startswith("icm float32: ")
    assert last.startswith("1 of 1 ready after ")
    assert last.endswith(f" s, in {folder}")
    kept = sorted(path.name for path in folder.rglob("*.nbc"))
    assert any(name.startswith("cpu.improve-") for name in kept)
    assert main(["warmup", "icm", "--dtype", "float32"]) == 0
    assert sorted(path.name for path in folder.rglob("*.nbc")) == kept, "nothing is compiled again"


def test_help_teaches(capsys):
    assert main(["warmup", "--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"\n  {name} " in text for name in OPERATIONS)
    assert "examples:" in text
    assert "RUN lnz warmup" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["chains"], "lnz warmup: OP: expected one of 'all', 'chain', 'semi_markov', 'spans'"),
        (["--dtype", "bfloat16"], "lnz warmup: --dtype: expected one of 'float32', 'float64', got 'bfloat16'"),
        (["--jobs", "0"], "lnz warmup: --jobs: expected a positive integer, got '0'"),
        (["--job=1"], "lnz warmup: unrecognized arguments: --job"),
    ],
)
def test_wrong_arguments(arguments, message, capsys):
    assert main(["warmup", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith(message)
    assert error.count("\n") == 1


def test_a_folder_that_cannot_be_written_is_said_before_anything_is_compiled(folder, monkeypatch, capsys):
    (folder / "file").touch()
    monkeypatch.setattr("numba.core.config.CACHE_DIR", str(folder / "file"))
    assert main(["warmup", "icm"]) == 1
    assert capsys.readouterr().err == (
        "lnz: no folder to keep compiled kernels in can be written; set NUMBA_CACHE_DIR to one that can\n"
    )


def test_every_operation_with_kernels_of_its_own_is_known():
    folders = {Path(path) for path in lnz.ops.__path__}
    with_kernels = {
        found.parent.relative_to(folder).parts[0]
        for folder in folders
        for found in folder.rglob("*.py")
        if "@kernel" in found.read_text() and found.relative_to(folder).parts[0] != "jit"
    }
    assert with_kernels <= OPERATIONS.keys()


def kept(kernel) -> int:
    """How many compiled forms lie in the cache; of what other kernels call, nothing is loaded beside them."""
    function = kernel.py_func
    name = f"{function.__module__.rpartition('.')[2]}.{function.__qualname__}"
    return sum(len([*folder.glob(f"{name}-*.nbc")]) for folder in kernel._cache.store.folders)


def all_kernels():
    """Every kernel of the library, by name; imports all of :mod:`lnz.ops`."""
    from numba.core.dispatcher import Dispatcher

    from lnz.ops.jit.cpu.cache import KernelCache

    for module in pkgutil.walk_packages(lnz.ops.__path__, "lnz.ops."):
        importlib.import_module(module.name)
    found = [x for x in gc.get_objects() if issubclass(type(x), Dispatcher)]  # isinstance asks dead proxies too
    kernels = [x for x in found if isinstance(x._cache, KernelCache) and x.py_func.__module__.startswith("lnz.ops.")]
    assert len(kernels) > 40
    return {f"{kernel.py_func.__module__}.{kernel.py_func.__qualname__}": kernel for kernel in kernels}


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_every_kernel_is_compiled(folder):
    """Into a folder where nothing is yet: one that other tests have filled would hide what is forgotten."""
    assert main(["warmup", "--jobs", "2"]) == 0
    assert [name for name, kernel in all_kernels().items() if not kept(kernel)] == []


@pytest.mark.slow
def test_every_kernel_is_kept():
    for name in OPERATIONS:
        for dtype in DTYPES:
            compile_operation(name, dtype)
    lost = [name for name, kernel in all_kernels().items() if kept(kernel) < len(kernel.overloads)]
    assert lost == [], "they hold addresses"


@pytest.mark.slow  # it compiles ten kernels
def test_what_is_compiled_is_announced_by_the_command_line(tmp_path):
    """In a process of its own: here everything is compiled already."""
    (tmp_path / "toy.uai").write_text("MARKOV 2 2 2 1 2 0 1 4 1 2 3 4")
    environment = {**os.environ, "PYTHONPATH": str(Path(lnz.__file__).parents[1]), "NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "lnz.cli", "infer", "toy.uai", "--query", "PR"]
    first, second = (
        subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True) for _ in "12"
    )
    assert "lnz: compiling elimination kernel " in first.stderr
    assert "compiling" not in second.stderr
    assert first.stdout == second.stdout
