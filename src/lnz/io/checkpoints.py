"""Checkpoints that survive a crash while they are written, and that never run code when they are read."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from lnz.errors import FormatError
from lnz.io.atomic import atomic_write


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU; only tensors and plain values are accepted, so that no code in it can run.

    Raises:
        FormatError: the file is missing, truncated, or holds anything else.
    """
    if not path.is_file():
        raise FormatError(f"{path}: expected a checkpoint, found {'a folder' if path.is_dir() else 'nothing'}")
    if not zipfile.is_zipfile(path):  # torch would take it for its format of long ago, and name what it trips over
        whole = "expected a file that torch.save wrote; is it one, and whole?"
        raise FormatError(f"{path}: cannot be read as a checkpoint, {whole}")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise FormatError(f"{path}: cannot be read as a checkpoint of tensors and plain values ({reason})") from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise FormatError(f"{path}: expected a checkpoint with a state_dict, got {type(checkpoint).__name__}")
    return checkpoint


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
