import os

import pytest
import torch

from lnz.errors import FormatError
from lnz.io.checkpoints import AtomicCheckpointIO, load_checkpoint


class Malicious:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (self.marker,)


def test_round_trip_and_nothing_left_over(tmp_path):
    path = tmp_path / "deep" / "a.ckpt"
    AtomicCheckpointIO().save_checkpoint({"state_dict": {"w": torch.ones(2)}, "epoch": 3}, path)
    loaded = AtomicCheckpointIO().load_checkpoint(path)
    assert loaded["epoch"] == 3
    assert loaded["state_dict"]["w"].tolist() == [1, 1]
    assert [p.name for p in path.parent.iterdir()] == ["a.ckpt"]


def test_a_full_disk_keeps_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "a.ckpt"
    AtomicCheckpointIO().save_checkpoint({"state_dict": {}, "epoch": 1}, path)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device.*a\.ckpt"):
        AtomicCheckpointIO().save_checkpoint({"state_dict": {}, "epoch": 2}, path)
    assert load_checkpoint(path)["epoch"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["a.ckpt"]


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    path, marker = tmp_path / "a.ckpt", tmp_path / "ran"
    torch.save({"state_dict": {}, "extra": Malicious(str(marker))}, path)
    with pytest.raises(FormatError, match=r"a\.ckpt: cannot be read as a checkpoint of tensors and plain values"):
        load_checkpoint(path)
    assert not marker.exists()


def test_truncated(tmp_path):
    path = tmp_path / "a.ckpt"
    torch.save({"state_dict": {"w": torch.randn(1000)}}, path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(FormatError, match=r"a\.ckpt: cannot be read"):
        load_checkpoint(path)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint"])
def test_malformed(tmp_path, content):
    path = tmp_path / "a.ckpt"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=r"a\.ckpt: cannot be read as a checkpoint, expected .* torch.save wrote"):
        load_checkpoint(path)


def test_missing_and_other(tmp_path):
    with pytest.raises(FormatError, match=r"a\.ckpt: expected a checkpoint, found nothing"):
        load_checkpoint(tmp_path / "a.ckpt")
    torch.save([1, 2], tmp_path / "list.ckpt")
    with pytest.raises(FormatError, match=r"list\.ckpt: expected a checkpoint with a state_dict, got list"):
        load_checkpoint(tmp_path / "list.ckpt")
