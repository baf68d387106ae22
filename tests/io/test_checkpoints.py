import os
import zipfile

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


def test_flipped_bits_never_load_as_other_weights(tmp_path):
    path, weights = tmp_path / "a.ckpt", torch.arange(600, dtype=torch.float32)
    AtomicCheckpointIO().save_checkpoint({"state_dict": {"w": weights}, "epoch": 3, "lnz": {"task": "tag"}}, path)
    whole = path.read_bytes()
    positions = torch.randint(8 * len(whole), (400,), generator=torch.Generator().manual_seed(0)).tolist()
    refused = 0
    for position in positions:
        data = bytearray(whole)
        data[position // 8] ^= 1 << position % 8
        path.write_bytes(data)
        try:
            loaded = load_checkpoint(path)
        except FormatError:
            refused += 1
        else:  # a bit that pads
            assert torch.equal(loaded["state_dict"]["w"], weights)
            assert (loaded["epoch"], loaded["lnz"]) == (3, {"task": "tag"})
    assert refused > 200


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"state_dict": [1]}, "expected state_dict of a checkpoint to be a dict, got list"),
        ({"state_dict": {}, "lnz": [1]}, "expected lnz of a checkpoint to be a dict, got list"),
        ({"state_dict": {}, "lnz": {"settings": [1]}}, "expected the settings of a checkpoint to be a dict, got list"),
        ({"state_dict": {}, "lnz": {"task": []}}, "expected the task of a checkpoint to be a str, got list"),
        ({"state_dict": {"w": 1.0}}, "expected a state_dict of tensors by name, got 'w': float"),
        ({"state_dict": {0: torch.ones(1)}}, "expected a state_dict of tensors by name, got 0: Tensor"),
        ({"state_dict": {}, "loops": []}, "expected loops of a checkpoint to be a dict, got list"),
        (
            {"state_dict": {}, "optimizer_states": {}},
            "expected optimizer_states of a checkpoint to be a list, got dict",
        ),
        ({"state_dict": {}, "epoch": "3"}, "expected epoch of a checkpoint to be a int, got str"),
    ],
)
def test_odd_parts_are_named(tmp_path, content, message):
    path = tmp_path / "a.ckpt"
    torch.save(content, path)
    with pytest.raises(FormatError, match=rf"a\.ckpt: {message}"):
        load_checkpoint(path)


def test_compressed_archives_are_refused(tmp_path):
    """A thousandfold more than the file holds."""
    plain, path = tmp_path / "plain.ckpt", tmp_path / "a.ckpt"
    torch.save({"state_dict": {"w": torch.zeros(10**6)}}, plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    with pytest.raises(FormatError, match=r"a\.ckpt: cannot be read as a checkpoint: it is damaged \(expected parts"):
        load_checkpoint(path)


def test_an_archive_that_claims_to_span_disks(tmp_path):
    path = tmp_path / "a.ckpt"
    torch.save({"state_dict": {}}, path)
    data = path.read_bytes()
    end = data.rindex(b"PK\x05\x06")
    locator = b"PK\x06\x07" + (1).to_bytes(4, "little") + bytes(8) + (3).to_bytes(4, "little")
    path.write_bytes(data[:end] + locator + data[end:])
    with pytest.raises(FormatError, match=r"a\.ckpt: cannot be read as a checkpoint"):
        load_checkpoint(path)


def test_one_compressed_part_is_enough_to_refuse(tmp_path):
    path, changed = tmp_path / "a.ckpt", tmp_path / "b.ckpt"
    AtomicCheckpointIO().save_checkpoint({"state_dict": {"w": torch.ones(20)}}, path)
    with zipfile.ZipFile(path) as given, zipfile.ZipFile(changed, "w") as made:
        for number, name in enumerate(given.namelist()):
            made.writestr(name, given.read(name), zipfile.ZIP_DEFLATED if number == 1 else zipfile.ZIP_STORED)
    with pytest.raises(FormatError, match="expected parts that are not compressed"):
        load_checkpoint(changed)
