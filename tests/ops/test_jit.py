"""Compiled kernels on disk: kept between processes, never those of other sources, and never in the way of a call."""

import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
from numba.core import config

import lnz
from lnz.ops.jit import store as stores
from lnz.ops.jit.cpu import kernel
from lnz.ops.jit.store import Store, store_of
from lnz.ops.jit.versions import OPS, sources_of, version

KERNEL = """
from lnz.ops.jit.cpu import kernel

@kernel()
def double(x):
    return 2 * x

assert double(21) == 42
"""

# what compiling imports is imported before the process becomes another user, who may not be able to read it
OTHER_USER = """
import os
import numba
import lnz.ops.jit.cpu
numba.njit(lambda x: x)(1)
os.setgroups([])
os.setgid({0})
os.setuid({0})
"""

NOBODY = 54321  # a user without a name and a home


@pytest.fixture
def place():
    """A folder that every user can enter."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def use(place, monkeypatch):
    """Call a kernel as a new process does, whose cache is in ``place``; returns how often the cache was hit."""
    monkeypatch.setattr(config, "CACHE_DIR", str(place))
    monkeypatch.setattr(stores, "_warn_once", stores._warn_once.__wrapped__)
    script = place / "kernel.py"
    script.write_text(KERNEL)

    def once():
        namespace = {"__name__": "kernel"}
        exec(compile(KERNEL, script, "exec"), namespace)
        return sum(namespace["double"].stats.cache_hits.values())

    return once


def _run(place, environment, before="", **options):
    """Call the kernel in a process; returns how often the cache was hit, and what was said on stderr."""
    (place / "kernel.py").write_text(KERNEL)
    script = f"{before}\nfrom kernel import double\nprint(sum(double.stats.cache_hits.values()))"
    path = environment.get("PYTHONPATH", str(Path(lnz.__file__).parents[1]))
    done = subprocess.run(
        [sys.executable, "-B", "-c", script],
        env={**environment, "PYTHONPATH": f"{path}{os.pathsep}{place}"},
        capture_output=True,
        text=True,
        check=False,
        **options,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout), done.stderr


def test_a_second_process_does_not_compile(place):
    environment = {"NUMBA_CACHE_DIR": str(place)}
    assert [_run(place, environment) for _ in range(2)] == [(0, ""), (1, "")]


DAMAGES = {
    "empty": lambda content: b"",
    "halved": lambda content: content[: len(content) // 2],
    "zeroed": lambda content: bytes(len(content)),
    "garbage": lambda content: content[::-1],
    "one bit": lambda content: content[:-9] + bytes([content[-9] ^ 1]) + content[-8:],
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_what_is_damaged_is_compiled_again(use, place, damage):
    use()
    files = [path for path in place.glob("lnz-*/*") if path.is_file()]
    assert files
    for path in files:
        path.write_bytes(damage(path.read_bytes()))
    assert [use(), use()] == [0, 1]


def test_a_folder_in_the_place_of_a_file_is_passed_over(use, place):
    use()
    for path in place.rglob("*.nbc"):
        path.unlink()
        (path / "within").mkdir(parents=True)
    assert use() == 0


def test_a_kernel_that_no_longer_loads_is_compiled_again(use, place):
    use()
    (path,) = place.rglob("*.nbc")
    Store([path.parent]).write(path.name, b"cnowhere\nat_all\n.")
    assert [use(), use()] == [0, 1]


def _unwritable(place):
    """Sources of lnz, and what makes a process one that can write neither them nor anything else."""
    shutil.copytree(Path(lnz.__file__).parent, place / "src" / "lnz", ignore=shutil.ignore_patterns("__pycache__"))
    if os.geteuid() == 0:
        return OTHER_USER.format(NOBODY)
    for folder, _, _ in os.walk(place / "src"):
        os.chmod(folder, 0o555)
    return ""


@pytest.mark.parametrize("home", [{}, {"HOME": "/nowhere"}, {"XDG_CACHE_HOME": "/proc"}], ids=["none", "gone", "read"])
def test_where_nothing_can_be_written_kernels_are_compiled_and_not_kept(place, home):
    before = _unwritable(place)
    try:
        hits, said = _run(place, {"PYTHONPATH": str(place / "src"), **home}, before)
    finally:
        for folder, _, _ in os.walk(place):
            os.chmod(folder, 0o755)
    assert hits == 0
    assert said.count("\n") == 1
    assert "compiled kernels are not kept" in said
    assert "NUMBA_CACHE_DIR" in said


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start processes of another user")
def test_what_root_compiled_ahead_serves_other_users(place):
    before = _unwritable(place)
    environment = {"PYTHONPATH": str(place / "src"), "HOME": "/nowhere"}
    assert [_run(place, environment), _run(place, environment, before)] == [(0, ""), (1, "")]
    assert list((place / "src").rglob("*.nbc"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another user")
@pytest.mark.parametrize("which", ["folder", "file"])
def test_what_a_stranger_owns_is_not_read(use, place, which, caplog):
    use()
    (path,) = place.rglob("*.nbc")
    os.chown(path if which == "file" else path.parent, NOBODY, NOBODY)
    assert use() == 0
    assert f"in {path.parent} are not read: it belongs to user {NOBODY}" in caplog.text


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o777])
@pytest.mark.parametrize("which", ["folder", "file"])
def test_what_strangers_may_write_is_not_read(use, place, which, mode, caplog):
    use()
    (path,) = place.rglob("*.nbc")
    (path if which == "file" else path.parent).chmod(mode)
    assert use() == 0
    assert f"in {path.parent} are not read: others may write to it (mode {mode:o})" in caplog.text


def test_folders_and_files_are_for_others_to_read_at_most_under_any_umask(use, place):
    before = os.umask(0)
    try:
        use()
    finally:
        os.umask(before)
    (path,) = place.rglob("*.nbc")
    assert [path.parent.stat().st_mode & 0o777, path.stat().st_mode & 0o777] == [0o755, 0o644]
    assert use() == 1


def test_a_full_disk_does_not_take_the_compiled_function_away(place):
    """As a limit on the size of files, which fails as a full disk does: in the middle of a write."""
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
    hits, said = _run(place, {"NUMBA_CACHE_DIR": str(place / "cache")}, limit)
    assert hits == 0
    assert "compiled kernels are not kept" in said
    assert "file too large" in said
    assert not [path for path in (place / "cache").rglob("*") if path.is_file()]


def test_threads_that_decorate_and_compile_file_kernels_where_they_belong(place, monkeypatch):
    monkeypatch.setattr(config, "CACHE_DIR", str(place))
    operations = ("chain", "ctc", "gibbs", "belief") * 4

    def work(operation, number):
        namespace = {"__name__": f"lnz.ops.{operation}.test"}
        exec(f"def f{number}(x):\n    return x + {number}", namespace)
        assert kernel()(namespace[f"f{number}"])(1) == number + 1

    threads = [threading.Thread(target=work, args=pair[::-1]) for pair in enumerate(operations)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = sorted((path.parent.name.split("-")[1], path.name.split("-")[0]) for path in place.rglob("*.nbc"))
    assert found == sorted((operation, f"test.f{number}") for number, operation in enumerate(operations))
    assert str(place) == config.CACHE_DIR


def _edited(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    version.cache_clear()


def test_an_edit_of_any_source_that_a_kernel_leans_on_starts_a_new_folder(tmp_path):
    leaned_on = ["own/cpu.py", "own/deep/types.py", "helper/cpu.py", "beneath/cpu.py", "shared.py"]
    _edited(tmp_path / "own/cpu.py", "from lnz.ops.helper.cpu import f")
    _edited(tmp_path / "own/deep/types.py", "a")
    _edited(tmp_path / "helper/cpu.py", "from lnz.ops.beneath.cpu import g\nfrom lnz.ops.own import around")
    _edited(tmp_path / "beneath/cpu.py", "b")
    _edited(tmp_path / "shared.py", "c")
    _edited(tmp_path / "other/cpu.py", "from lnz.ops.own.cpu import h")
    seen = {version("own", tmp_path)}
    _edited(tmp_path / "other/cpu.py", "from lnz.ops.own.cpu import h, i")
    assert {version("own", tmp_path)} == seen, "nothing of it is used"
    for path in leaned_on:
        _edited(tmp_path / path, (tmp_path / path).read_text() + "\nedited")
        current = version("own", tmp_path)
        assert current not in seen, path
        seen.add(current)


def test_sources_that_are_no_files_have_no_version_and_no_cache(tmp_path, monkeypatch):
    assert version("own", tmp_path / "lnz.zip" / "ops") is None
    monkeypatch.setattr(stores, "version", lambda operation: None)
    assert store_of("chain", "").folders == ()


def test_every_operation_has_a_version_of_its_own():
    names = [folder.name for folder in OPS.iterdir() if list(folder.glob("*.py"))]
    assert len({version(name) for name in names}) == len(names) > 10
    chain = {path.relative_to(OPS).parts[0] for path in sources_of("chain")}
    assert {"chain", "scaffold", "jit"} <= chain
    assert "elimination" not in chain


def test_sources_that_cannot_be_written_beside_use_the_users_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "file").touch()
    beside, user = store_of("chain", "").folders
    assert beside.parent == OPS / "__pycache__"
    assert user.parent == tmp_path / "cache" / "lnz"
    store = Store([tmp_path / "file" / "folder", user])
    store.write("name", b"content")
    assert (user / "name").exists()
    assert store.read("name") == b"content"


def test_what_is_not_kept_is_said_once(tmp_path, caplog):
    (tmp_path / "file").touch()
    with caplog.at_level(logging.WARNING, "lnz"):
        for name in "ab":
            Store([tmp_path / "file" / "folder"]).write(name, b"")
    assert len(caplog.records) == 1
