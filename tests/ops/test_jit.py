"""Compiled kernels on disk: kept between processes, and never those of other sources."""

import subprocess
import sys

from numba.core import config

from lnz.ops.jit import cpu as jit

KERNEL = """
import sys
from lnz.ops.jit import cpu as jit

@jit.kernel()
def double(x):
    return 2 * x

assert double(21) == 42
print(sum(double.stats.cache_hits.values()), double.stats.cache_path)
"""


def _run(path, folder):
    environment = {"NUMBA_CACHE_DIR": str(folder), "PATH": "", "HOME": str(folder)}
    done = subprocess.run([sys.executable, path], env=environment, capture_output=True, text=True, check=True)
    hits, where = done.stdout.split()
    assert where.startswith(str(folder / "lnz-"))
    return int(hits)


def test_a_second_process_does_not_compile(tmp_path):
    script = tmp_path / "kernel.py"
    script.write_text(KERNEL)
    assert [_run(script, tmp_path), _run(script, tmp_path)] == [0, 1]


def test_any_edit_of_any_source_starts_a_new_folder(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "kernel.py").write_text("a")
    (tmp_path / "deep" / "helper.py").write_text("b")
    before = jit._version(tmp_path)
    assert jit._version(tmp_path) == before
    (tmp_path / "deep" / "helper.py").write_text("c")
    assert jit._version(tmp_path) != before


def test_sources_that_cannot_be_written_beside_use_the_users_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(jit, "_writable", lambda folder: False)
    assert jit._folder.__wrapped__("").is_relative_to(tmp_path / "lnz")


def test_a_file_in_the_way_is_not_writable(tmp_path):
    (tmp_path / "file").touch()
    assert jit._writable(tmp_path / "folder")
    assert not jit._writable(tmp_path / "file" / "folder")


def _same(x):
    return x


def test_the_setting_of_other_packages_stays():
    before = config.CACHE_DIR
    jit.kernel()(_same)
    assert before == config.CACHE_DIR
