"""Texts of new recordings, by a trained model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from lnz.io.atomic import atomic_write
from lnz.io.audio import read_audio
from lnz.io.shards import Kind
from lnz.tasks.failures import Failed, attempted
from lnz.tasks.transcribe.judge import transcribe
from lnz.tasks.transcribe.module import TranscribeModule


class Transcriber:
    """Writes down recordings, one by one.

    Args:
        checkpoint: a loaded checkpoint.
        source: the file it is from, for messages.

    Raises:
        FormatError: a checkpoint of another task or version.
    """

    columns: ClassVar[Mapping[str, Kind]] = {"text": "text"}

    def __init__(self, checkpoint: Mapping[str, Any], source: str) -> None:
        self.module = TranscribeModule.from_checkpoint(checkpoint, source)

    def __call__(self, path: Path) -> str:
        """The text of a recording.

        Raises:
            FormatError: it cannot be read.
        """
        waveform, _ = read_audio(path, self.module.sample_rate)
        return transcribe(self.module, waveform, self.module.beam)

    def rows(self, items: Sequence[Path]) -> Iterator[dict[str, str] | Failed]:
        return attempted(items, lambda path: {"text": self(path)})


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
    transcriber = Transcriber(checkpoint, source)

    def work(path: Path) -> Path:
        text = transcriber(path)
        with atomic_write(output / f"{path.stem}.txt") as file:
            file.write(text + "\n")
        return path

    yield from attempted(audio, work, strict)
