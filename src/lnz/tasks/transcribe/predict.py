"""Texts of new recordings, by a trained model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lnz.io.atomic import atomic_write
from lnz.io.audio import read_audio
from lnz.tasks.failures import Failed, attempted
from lnz.tasks.transcribe.judge import transcribe
from lnz.tasks.transcribe.module import TranscribeModule


def predict(
    checkpoint: Mapping[str, Any], source: str, audio: Iterable[Path], output: Path, *, strict: bool = False
) -> Iterator[Path | Failed]:
    """Write ``<stem>.txt``, one line, for each recording; yields each recording when done, or why it failed.

    Args:
        checkpoint: a loaded checkpoint.
        source: the file it is from, for messages.
        audio: files to transcribe.
        output: an existing folder.
        strict: raise at the first unreadable recording instead.

    Raises:
        FormatError: a checkpoint of another task or version.
        OSError: the output cannot be written.
    """
    module = TranscribeModule.from_checkpoint(checkpoint, source)

    def work(path: Path) -> Path:
        waveform, _ = read_audio(path, module.sample_rate)
        with atomic_write(output / f"{path.stem}.txt") as file:
            file.write(transcribe(module, waveform, module.beam) + "\n")
        return path

    yield from attempted(audio, work, strict)
