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


def _edited(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_an_edit_of_any_source_that_a_kernel_leans_on_starts_a_new_folder(tmp_path):
    leaned_on = ["own/cpu.py", "own/deep/types.py", "helper/cpu.py", "beneath/cpu.py", "shared.py"]
    _edited(tmp_path / "own/cpu.py", "from lnz.ops.helper.cpu import f")
    _edited(tmp_path / "own/deep/types.py", "a")
    _edited(tmp_path / "helper/cpu.py", "from lnz.ops.beneath.cpu import g\nfrom lnz.ops.own import around")
    _edited(tmp_path / "beneath/cpu.py", "b")
    _edited(tmp_path / "shared.py", "c")
    _edited(tmp_path / "other/cpu.py", "from lnz.ops.own.cpu import h")
    seen = {jit._version(tmp_path, "own")}
    _edited(tmp_path / "other/cpu.py", "from lnz.ops.own.cpu import h, i")
    assert {jit._version(tmp_path, "own")} == seen, "nothing of it is used"
    for path in leaned_on:
        _edited(tmp_path / path, (tmp_path / path).read_text() + "\nedited")
        version = jit._version(tmp_path, "own")
        assert version not in seen, path
        seen.add(version)


def test_every_operation_has_a_version_of_its_own():
    names = [folder.name for folder in jit._OPS.iterdir() if list(folder.glob("*.py"))]
    assert len({jit._version(jit._OPS, name) for name in names}) == len(names) > 10
    chain = {path.relative_to(jit._OPS).parts[0] for path in jit._sources(jit._OPS, "chain")}
    assert {"chain", "registers", "jit"} <= chain
    assert "elimination" not in chain


def test_sources_that_cannot_be_written_beside_use_the_users_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(jit, "_writable", lambda folder: False)
    assert jit._folder.__wrapped__("", "chain").is_relative_to(tmp_path / "lnz")


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
