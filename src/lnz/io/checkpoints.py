"""Checkpoints that survive a crash while they are written, and that never run code when they are read."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from lnz.errors import FormatError
from lnz.io.atomic import atomic_write

PARTS: dict[str, type] = {
    "state_dict": dict,
    "lnz": dict,
    "loops": dict,
    "callbacks": dict,
    "optimizer_states": list,
    "lr_schedulers": list,
    "epoch": int,
    "global_step": int,
}
"""What a checkpoint may hold, and its type; the first has to be there."""


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU; only tensors and plain values are accepted, so that no code in it can run.

    The checksum of each of its parts is verified, so that a damaged file does not load as other weights.

    Raises:
        FormatError: the file is missing, truncated, damaged, or holds anything else.
    """
    if not path.is_file():
        raise FormatError(f"{path}: expected a checkpoint, found {'a folder' if path.is_dir() else 'nothing'}")
    if not _is_archive(path):  # torch would take it for its format of long ago, and name what it trips over
        whole = "expected a file that torch.save wrote; is it one, and whole?"
        raise FormatError(f"{path}: cannot be read as a checkpoint, {whole}")
    try:
        damaged = _damaged(path)
        checkpoint = None if damaged else torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever the readers of archives and pickles trip over
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise FormatError(f"{path}: cannot be read as a checkpoint of tensors and plain values ({reason})") from error
    if damaged:
        raise FormatError(f"{path}: cannot be read as a checkpoint: it is damaged ({damaged})")
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise FormatError(f"{path}: expected a checkpoint with a state_dict, got {type(checkpoint).__name__}")
    for name, kind in PARTS.items():
        if name in checkpoint and not isinstance(checkpoint[name], kind):
            got = type(checkpoint[name]).__name__
            raise FormatError(f"{path}: expected {name} of a checkpoint to be a {kind.__name__}, got {got}")
    for name, kind in {"task": str, "settings": dict, "legend": dict, "temperatures": dict}.items():
        value = checkpoint.get("lnz", {}).get(name, kind())
        if not isinstance(value, kind):
            got = type(value).__name__
            raise FormatError(f"{path}: expected the {name} of a checkpoint to be a {kind.__name__}, got {got}")
    for name, value in checkpoint["state_dict"].items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise FormatError(f"{path}: expected a state_dict of tensors by name, got {name!r}: {type(value).__name__}")
    return checkpoint


def _is_archive(path: Path) -> bool:
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:  # of one that claims to span several disks
        return False


def _damaged(path: Path) -> str | None:
    """What is wrong with an archive, if anything: torch itself looks at no checksum."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        names = [entry.filename for entry in entries]
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries) or len(set(names)) < len(names):
            return "expected parts that are not compressed, each once"
        if sum(entry.file_size for entry in entries) > path.stat().st_size:
            return "its parts are longer than the file"
        broken = archive.testzip()
        return None if broken is None else f"the checksum of {broken} is wrong"


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint reader and writer, made safe.

    Writing replaces the old file in one step, so that a full disk or a kill leaves it as it was; reading is
    :func:`load_checkpoint`.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = io.BytesIO()  # written in one piece: torch's own writer turns a full disk into a nameless RuntimeError
        torch.save(checkpoint, whole)
        with atomic_write(path, "wb") as file:
            file.write(whole.getbuffer())

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        return load_checkpoint(Path(path))
