"""What is said while a kernel is compiled, and a fork in the middle of it."""

import gc
import io
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

import lnz
from lnz.ops.jit.cpu import announce, helper, kernel


@pytest.fixture
def everything(monkeypatch, tmp_path):
    """Every compilation is worth a line, and none has happened before."""
    monkeypatch.setattr(announce, "_WORTH_SAYING", 0.0)
    monkeypatch.setattr("numba.core.config.CACHE_DIR", str(tmp_path))


def fresh():
    @kernel()
    def inner(x):
        return x + 1

    @kernel()
    def outer(x):
        return inner(x) + inner(x)

    return outer


def test_one_line_says_what_is_compiled_and_about_how_long(everything, caplog):
    with caplog.at_level(logging.INFO, "lnz"):
        outer = fresh()
        assert outer(1) == 4
        outer(2)
    (record,) = caplog.records
    assert record.name == "lnz"
    assert "compiling" in record.message
    assert "outer'" in record.message
    assert "about 0 s on an idle core" in record.message
    caplog.clear()
    with caplog.at_level(logging.INFO, "lnz"):
        assert outer(1.5) == 5.0  # another signature
        assert fresh()(1) == 4  # read from disk
    assert len(caplog.records) == 1


def test_what_kernels_call_is_compiled_once_whatever_numbers_they_pass(everything):
    @helper()
    def plus(x, y):
        return x + y

    @kernel()
    def outer(x):
        total = 0
        for _ in range(3):
            total = plus(total, 2)
            total = plus(total, y=x)
        return plus(total, 1)

    assert outer(5) == 22
    assert len(plus.overloads) == 1


def test_what_kernels_call_is_a_plain_function_to_python(everything):
    @helper()
    def plus(x, y):
        return x + y

    @kernel()
    def outer(x):
        return plus(x, x)

    assert outer(5) == 10
    assert plus(5, 5) == 10
    assert plus("a", y="b") == "ab"
    assert len(plus.overloads) == 1


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("stream", "shown"), [(Terminal(), True), (io.StringIO(), False)])
def test_without_logging_a_terminal_shows_it(everything, monkeypatch, stream, shown):
    monkeypatch.setattr(announce._logger, "hasHandlers", lambda: False)
    monkeypatch.setattr(sys, "stderr", stream)
    fresh()(1)
    assert stream.getvalue().startswith("lnz: compiling ") == shown
    assert stream.getvalue().count("\n") == shown


def test_small_kernels_are_not_worth_a_line(caplog):
    with caplog.at_level(logging.INFO, "lnz"):
        fresh()(1)
    assert not caplog.records


def test_estimates_count_what_a_kernel_calls():
    from lnz.ops.chain.cpu.fused_sweep import run as likelihood
    from lnz.ops.chain.cpu.sample import run as draw

    assert 0.3 < announce.estimated_seconds(draw.py_func) < announce.estimated_seconds(likelihood.py_func) < 60


def test_garbage_is_collected_again_whatever_happens(everything):
    assert gc.isenabled()
    fresh()(1)
    assert gc.isenabled()

    @kernel()
    def wrong(x):
        return x.nothing

    with pytest.raises(Exception, match="nothing"):
        wrong(1)
    assert gc.isenabled()
    assert announce._Compiling.depth == 0


FORK = """
import os, threading, time
from numba.core.compiler_lock import global_compiler_lock
from lnz.ops.jit.cpu import kernel

def kernels(number):
    names = {"__name__": "lnz.ops.chain.test"}
    lines = [f"    x += {i} * x" for i in range(number)]
    exec("def f(x):\\n" + "\\n".join(lines) + "\\n    return x", names)
    return kernel()(names["f"])

slow, ready = kernels(400), kernels(1)
assert ready(1) == 1
thread = threading.Thread(target=slow, args=(0,))
thread.start()
while not slow.stats.cache_misses:  # it compiles now
    time.sleep(0.001)
child = os.fork()
if not child:
    assert ready(1) == 1  # compiled
    assert ready(1.0) == 1.0  # to be compiled
    os._exit(0)
thread.join()
assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_fork_waits_for_what_another_thread_compiles(tmp_path):
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(lnz.__file__).parents[1]),
        "NUMBA_CACHE_DIR": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "-c", FORK], env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
