"""Atomic writing: whole or not at all, whatever happens on the way."""

import os
import resource
import stat

import pytest

from lnz.io import atomic_write


def test_text_and_bytes(tmp_path):
    with atomic_write(tmp_path / "t") as file:
        file.write("ln Z = −1.5\n")
    assert (tmp_path / "t").read_text("utf-8") == "ln Z = −1.5\n"
    with atomic_write(tmp_path / "b", "wb") as file:
        file.write(b"\x00\xff")
    assert (tmp_path / "b").read_bytes() == b"\x00\xff"
    assert sorted(os.listdir(tmp_path)) == ["b", "t"]


@pytest.mark.parametrize("interruption", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_interruption_leaves_the_old_file(tmp_path, interruption):
    path = tmp_path / "t"
    path.write_text("old")

    def interrupted():
        with atomic_write(path) as file:
            file.write("half")
            file.flush()
            assert path.read_text() == "old"
            raise interruption

    with pytest.raises(interruption):
        interrupted()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["t"]


def test_a_full_disk_leaves_the_old_file(tmp_path):
    path = tmp_path / "t"
    path.write_text("old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        with pytest.raises(OSError, match="File too large") as error, atomic_write(path) as file:
            file.write("x" * 200_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert error.value.filename == str(path)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["t"]


def test_an_unwritable_path_is_found_on_entering(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    for path, expected in [
        (tmp_path / "nowhere" / "t", FileNotFoundError),
        (folder, IsADirectoryError),
        (tmp_path / "old" / "t", NotADirectoryError),
    ]:
        (tmp_path / "old").write_text("a file, not a folder")
        with pytest.raises(expected) as error, atomic_write(path):
            pytest.fail("entered")
        assert error.value.filename == str(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_file_is_not_replaced(tmp_path):
    path = tmp_path / "t"
    path.write_text("old")
    path.chmod(0o444)
    with pytest.raises(PermissionError), atomic_write(path):
        pytest.fail("entered")


def test_mode_bits_and_links_are_kept(tmp_path):
    path, link = tmp_path / "t", tmp_path / "link"
    path.write_text("old")
    path.chmod(0o640)
    link.symlink_to(path)
    with atomic_write(link) as file:
        file.write("new")
    assert link.is_symlink()
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_devices_are_written_directly():
    with atomic_write(os.devnull) as file:
        file.write("gone")
    assert not stat.S_ISREG(os.stat(os.devnull).st_mode)
